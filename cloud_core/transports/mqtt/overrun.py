"""How long a peer has kept sending above its rate, and how much of what it does the log hears. Time is passed in,
in seconds."""

from __future__ import annotations

QUIET_S = 10.0  # without a refusal for so long: it has stopped


class Overrun:
    """One series of refusals, and when it was last written about."""

    __slots__ = ("_first_s", "_last_s", "_written_s")

    def __init__(self) -> None:
        self._first_s = self._last_s = self._written_s = float("-inf")

    def is_worth_a_line(self, now_s: float) -> bool:
        """Whether the log is to be told now: not again for a while, however often it is asked."""
        if now_s - self._written_s <= QUIET_S:
            return False
        self._written_s = now_s
        return True

    def refused(self, now_s: float) -> float:
        """Notes a refusal; seconds since the first of its series."""
        if now_s - self._last_s > QUIET_S:
            self._first_s = now_s
        self._last_s = now_s
        return now_s - self._first_s


MAX_LINES = 10  # of the log, about one session in QUIET_S


class LineRation:
    """Whoever does everything wrong shall not fill the log with it."""

    __slots__ = ("_began_s", "_count")

    def __init__(self) -> None:
        self._began_s = float("-inf")
        self._count = 0

    def take(self, now_s: float) -> tuple[bool, int]:
        """Whether a line may be written now, and how many were not since that was said last."""
        left_out = 0
        if now_s - self._began_s > QUIET_S:
            left_out = max(0, self._count - MAX_LINES)
            self._began_s, self._count = now_s, 0
        self._count += 1
        return self._count <= MAX_LINES, left_out
