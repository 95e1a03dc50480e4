"""Timers of many: one heap, looked at a hundred times a second; one that is not wanted any more costs nothing."""

from __future__ import annotations

import asyncio
import heapq
from typing import Protocol

TICK_S = 0.01


class Sleeper(Protocol):
    """Who can be woken. It has one timer: each `after` replaces the one before."""

    ticket: int

    def wake(self) -> None: ...


class Clock:
    """Seconds since the start of the run, on the loop's clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._start_s = loop.time()
        self._heap: list[tuple[float, int, Sleeper]] = []
        self._serial = 0

    def restart(self) -> None:
        """From now on is the run."""
        self._start_s = self._loop.time()

    @property
    def now_s(self) -> float:
        return self._loop.time() - self._start_s

    def after(self, delay_s: float, sleeper: Sleeper) -> None:
        self._serial += 1
        sleeper.ticket = self._serial
        heapq.heappush(self._heap, (self.now_s + delay_s, self._serial, sleeper))

    def cancel(self, sleeper: Sleeper) -> None:
        sleeper.ticket = 0

    def turn(self) -> None:
        """Wakes whose time has come."""
        now_s = self.now_s
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            _, ticket, sleeper = heapq.heappop(heap)
            if sleeper.ticket == ticket:
                sleeper.ticket = 0
                sleeper.wake()
