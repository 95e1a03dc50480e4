"""How much of what goes wrong the log hears: whoever does everything wrong shall not fill it. Time is passed in."""

from __future__ import annotations

SPAN_S = 10.0


class LineRation:
    """At most `max_lines` in SPAN_S."""

    __slots__ = ("_began_s", "_count", "_max_lines")

    def __init__(self, max_lines: int) -> None:
        self._max_lines = max_lines
        self._began_s = float("-inf")
        self._count = 0

    def take(self, now_s: float) -> tuple[bool, int]:
        """Whether a line may be written now, and how many were not since that was said last."""
        left_out = 0
        if not 0 <= now_s - self._began_s <= SPAN_S:
            left_out = max(0, self._count - self._max_lines)
            self._began_s, self._count = now_s, 0
        self._count += 1
        return self._count <= self._max_lines, left_out
