"""Parts of pages that many people look at: rendered once for all who see the same, and kept for a moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable

MAX_KEPT = 500


class Fragments:
    """Rendered parts by what they depend on."""

    def __init__(self, now_ms: Callable[[], int], fresh_ms: int) -> None:
        self._now_ms = now_ms
        self._fresh_ms = fresh_ms
        self._kept: dict[Hashable, tuple[int, str]] = {}

    async def get(self, key: Hashable, render: Callable[[], Awaitable[str]]) -> str:
        """As it was rendered less than the time before, or anew."""
        known = self._kept.get(key)
        if known is not None and 0 <= self._now_ms() - known[0] < self._fresh_ms:
            return known[1]
        shown = await render()
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[key] = (self._now_ms(), shown)
        return shown
