"""Rations: how many failed provision attempts a source gets (product.md section 5, "Limits").

Honest requests are never rationed here; only failures spend. Memory is bounded: the least recently
used bucket is forgotten first, which can only make us more lenient.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Ration:
    """`burst` at once, then one per `every_s` seconds; a burst of 0 means without limit."""

    burst: int
    every_s: float


class Buckets(Generic[K]):
    """Token buckets by key, at most `max_keys` of them. Time is passed in, in seconds."""

    def __init__(self, ration: Ration, *, max_keys: int = 100_000) -> None:
        self._ration = ration
        self._max_keys = max_keys
        self._buckets: OrderedDict[K, tuple[float, float]] = OrderedDict()  # key -> (tokens, at_s)

    def wait_s(self, key: K, now_s: float) -> float:
        """Seconds until `key` may try again; 0 when it may now."""
        tokens = self._tokens(key, now_s)
        return 0.0 if tokens >= 1.0 else (1.0 - tokens) * self._ration.every_s

    def spend(self, key: K, now_s: float) -> None:
        """Takes one token for a failed attempt."""
        if self._ration.burst <= 0:
            return
        self._buckets[key] = (max(0.0, self._tokens(key, now_s) - 1.0), now_s)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)

    def _tokens(self, key: K, now_s: float) -> float:
        known = self._buckets.get(key)
        if known is None:
            return float(max(1, self._ration.burst))
        tokens, at_s = known
        return min(float(self._ration.burst), tokens + (now_s - at_s) / self._ration.every_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRations:
    """Rations of failed attempts: per source and provision key, and per source over all keys."""

    per_source_and_key: Ration = Ration(20, 5.0)
    per_source: Ration = Ration(100, 1.0)


class FailedAttempts:
    """Remembers failures and says how long a source must wait."""

    def __init__(self, rations: AttemptRations) -> None:
        self._by_source_and_key: Buckets[tuple[str, str]] = Buckets(rations.per_source_and_key)
        self._by_source: Buckets[str] = Buckets(rations.per_source)

    def wait_s(self, source: str, key: str, now_s: float) -> float:
        """0 when the source may try `key` now, otherwise the seconds until it may."""
        return max(self._by_source.wait_s(source, now_s), self._by_source_and_key.wait_s((source, key), now_s))

    def record(self, source: str, key: str, now_s: float) -> None:
        self._by_source.spend(source, now_s)
        self._by_source_and_key.spend((source, key), now_s)
