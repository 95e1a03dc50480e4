"""How long a peer has kept sending above its rate. Time is passed in, in seconds."""

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
