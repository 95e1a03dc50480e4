"""Deadlines of very many that wait, in one timer: a wheel of ticks.

A timer of the reactor costs about a kilobyte and a place in its heap; a place here is one entry in a set.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

TICK_S = 0.1


class Waiting(Protocol):
    """Something with a deadline. `tick` belongs to the `Deadlines` that it was added to."""

    tick: int

    def expired(self) -> None:
        """Its deadline has come; it is forgotten already. Must not raise."""


class Deadlines:
    """Tells each of those added when its time is over: never early, up to a tick late."""

    def __init__(self, reactor: Any) -> None:
        # `reactor`: seconds and callLater; untyped because a test passes a Clock.
        self._reactor = reactor
        self._ticks: dict[int, set[Waiting]] = {}
        self._swept = 0  # the last tick that was looked at
        self._next_sweep: Any = None  # a DelayedCall while anything waits

    def add(self, waiting: Waiting, delay_s: float) -> None:
        now_s = self._reactor.seconds()
        waiting.tick = math.ceil((now_s + delay_s) / TICK_S)
        self._ticks.setdefault(waiting.tick, set()).add(waiting)
        if self._next_sweep is None:
            self._swept = int(now_s / TICK_S)
            self._next_sweep = self._reactor.callLater(TICK_S, self._sweep)

    def discard(self, waiting: Waiting) -> None:
        """It does not wait any more; unknown ones are fine."""
        beside = self._ticks.get(waiting.tick)
        if beside is not None:
            beside.discard(waiting)
            if not beside:
                del self._ticks[waiting.tick]

    def stop(self) -> None:
        """Forgets all, unannounced."""
        self._ticks.clear()
        if self._next_sweep is not None:
            self._next_sweep.cancel()
            self._next_sweep = None

    def _sweep(self) -> None:
        self._next_sweep = None
        now = int(self._reactor.seconds() / TICK_S)
        over = [one for tick in range(self._swept, now + 1) for one in self._ticks.pop(tick, ())]
        self._swept = now
        if self._ticks:
            self._next_sweep = self._reactor.callLater(TICK_S, self._sweep)
        for waiting in over:
            waiting.expired()
