"""A bounded dictionary that forgets the oldest half: two generations, rotated by count or by age."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """At most `max_entries`; an entry stays for at least half as many further ones, or `lifetime_s`."""

    __slots__ = ("_half", "_lifetime_s", "_new", "_old", "_rotated_s")

    def __init__(self, *, max_entries: int, lifetime_s: float = float("inf")) -> None:
        self._half = max(1, max_entries // 2)
        self._lifetime_s = lifetime_s
        self._new: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._rotated_s = float("-inf")

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def __contains__(self, key: K) -> bool:
        return key in self._new or key in self._old

    def get(self, key: K) -> V | None:
        found = self._new.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: K, value: V, now_s: float = 0.0) -> None:
        if len(self._new) >= self._half or now_s - self._rotated_s >= self._lifetime_s:
            self._old, self._new = self._new, {}
            self._rotated_s = now_s
        self._new[key] = value

    def discard(self, key: K) -> None:
        self._new.pop(key, None)
        self._old.pop(key, None)
