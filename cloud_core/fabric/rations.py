"""How often the log hears of what goes wrong again and again. Time is passed in."""

from __future__ import annotations

EVERY_S = 60.0


class Rations:
    """One line a minute for each thing."""

    def __init__(self) -> None:
        self._said_s: dict[str, float] = {}

    def may_say(self, what: str, now_s: float) -> bool:
        said_s = self._said_s.get(what)
        if said_s is not None and now_s - said_s < EVERY_S:
            return False
        self._said_s[what] = now_s
        return True

    def forget(self, what: str) -> None:
        """It is over: the next time is news again."""
        self._said_s.pop(what, None)
