"""When which slave is read. Pure: time is handed in, in seconds of a monotonic clock.

A *poll* is what is read of one unit in one period. Polls of one period are spread over it. A poll that could not be
made in its period is skipped and counted: reads never pile up.

A unit that does not answer leaves the rotation after `retries` further attempts and is tried with one poll after 1 s,
2 s, 4 s … 60 s. Such attempts cost the timeout each. With a spare connection they go there and cost the others
nothing; without one they wait until no other poll is due and take at most a tenth of the time of the bus.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

BACKOFF_MIN_S: Final = 1.0
BACKOFF_MAX_S: Final = 60.0
SPREAD_MAX_S: Final = 10.0
PROBE_SHARE: Final = 0.1
_PATIENCE_S: Final = 60.0  # an attempt that has waited so long goes before polls that are due


class State(Enum):
    """What is known of a unit."""

    NEW = "new"  # has not been asked yet
    ALIVE = "alive"
    DOUBTED = "doubted"  # did not answer just now; asked again at once
    DEAD = "dead"


@dataclass(eq=False, slots=True)
class Poll:
    """`due` is the beginning of its turn; its deadline is a period later."""

    unit: int
    period_s: float
    due: float = 0.0
    made: int = 0
    missed: int = 0
    is_queued: bool = False


@dataclass(eq=False, slots=True)
class Unit:
    number: int
    state: State = State.NEW
    polls: list[Poll] = field(default_factory=list)
    silences: int = 0
    backoff_s: float = BACKOFF_MIN_S
    try_at: float = 0.0
    is_busy: bool = False  # a poll of it is under way
    silent_since: float = 0.0


class Schedule:
    """Whose turn it is."""

    def __init__(self, polls: Sequence[Poll], *, now: float, retries: int = 1) -> None:
        self.units: dict[int, Unit] = {}
        self._retries = retries
        self._queue: list[tuple[float, int, Poll]] = []
        self._number = 0
        self._tries: list[tuple[float, int, Unit]] = []  # of units out of the rotation
        self._next_try_at = 0.0  # without a spare connection: what the last attempts cost is paid off then
        self._spread(polls, now)

    def _spread(self, polls: Sequence[Poll], now: float) -> None:
        by_period: dict[float, list[Poll]] = {}
        for poll in polls:
            self.units.setdefault(poll.unit, Unit(poll.unit)).polls.append(poll)
            by_period.setdefault(poll.period_s, []).append(poll)
        for period_s, those in by_period.items():
            step = min(period_s, SPREAD_MAX_S) / len(those)
            for place, poll in enumerate(those):
                poll.due = now + place * step
                self._push(poll)
        for unit in self.units.values():
            unit.polls.sort(key=lambda poll: poll.period_s)

    def _push(self, poll: Poll) -> None:
        if poll.is_queued:
            return
        poll.is_queued = True
        self._number += 1
        heapq.heappush(self._queue, (poll.due, self._number, poll))

    @property
    def missed(self) -> int:
        return sum(poll.missed for unit in self.units.values() for poll in unit.polls)

    # --- whose turn ----------------------------------------------------------------------------

    def take(self, now: float, *, is_spare: bool = False, has_spare: bool = False) -> Poll | None:
        """The next poll for a connection that is free. A spare one is for units in doubt first; with `has_spare` the
        others leave them to it."""
        if is_spare:
            return self._take_try(now) or self._take_due(now)
        if has_spare:
            return self._take_due(now)
        if self._tries and now - self._tries[0][0] > _PATIENCE_S and now >= self._next_try_at:
            return self._take_try(now) or self._take_due(now)
        return self._take_due(now) or self._take_try(now, is_charged=True)

    def _take_due(self, now: float) -> Poll | None:
        later: list[Poll] = []
        taken: Poll | None = None
        while self._queue and self._queue[0][0] <= now:
            poll = heapq.heappop(self._queue)[2]
            poll.is_queued = False
            unit = self.units[poll.unit]
            if unit.state in (State.DOUBTED, State.DEAD):
                continue  # comes back with its unit
            if unit.is_busy:
                later.append(poll)
                continue
            self._skip_missed(poll, now)
            unit.is_busy = True
            taken = poll
            break
        for poll in later:
            self._push(poll)
        return taken

    def _take_try(self, now: float, *, is_charged: bool = False) -> Poll | None:
        while self._tries and self._tries[0][0] <= now:
            unit = self._tries[0][2]
            if is_charged and unit.state is State.DEAD and now < self._next_try_at:
                return None
            heapq.heappop(self._tries)
            if unit.state in (State.NEW, State.ALIVE) or unit.is_busy:
                continue
            unit.is_busy = True
            poll = unit.polls[0]
            self._skip_missed(poll, now)
            return poll
        return None

    def _skip_missed(self, poll: Poll, now: float) -> None:
        """Whole periods that have passed are missed; `due` is then at most one period ago."""
        behind = int((now - poll.due) / poll.period_s)
        if behind > 0:
            poll.missed += behind
            poll.due += behind * poll.period_s

    def wait_s(self, now: float, *, is_spare: bool = False, has_spare: bool = False) -> float:
        """How long `take` will have nothing; a minute at most."""
        wait = 60.0
        if self._queue:
            wait = min(wait, self._queue[0][0] - now)
            if wait <= 0:  # those that are due belong to units under way
                wait = 0.02
        if self._tries and (is_spare or not has_spare):
            at, _, unit = self._tries[0]
            is_charged = not is_spare and unit.state is State.DEAD
            wait = min(wait, (max(at, self._next_try_at) if is_charged else at) - now)
        return max(wait, 0.001)

    @property
    def has_doubts(self) -> bool:
        """Whether units are out of the rotation, so that a spare connection is worth while."""
        return bool(self._tries)

    def is_behind(self, now: float) -> bool:
        """Whether one connection does not get through."""
        return bool(self._queue) and now - self._queue[0][0] > 0.5 * self._queue[0][2].period_s

    def dead_units(self) -> list[int]:
        return [unit.number for unit in self.units.values() if unit.state is State.DEAD]

    # --- how it went ---------------------------------------------------------------------------

    def answered(self, poll: Poll, now: float) -> bool:
        """The unit said something, be it that it cannot. True when it is there for the first time, or again."""
        unit = self.units[poll.unit]
        unit.is_busy = False
        poll.made += 1
        poll.due += poll.period_s
        was_away = unit.state is not State.ALIVE
        is_back = unit.state in (State.DOUBTED, State.DEAD)
        unit.state, unit.silences, unit.backoff_s = State.ALIVE, 0, BACKOFF_MIN_S
        if is_back:
            for other in unit.polls:
                self._skip_missed(other, now)
                self._push(other)
        else:
            self._push(poll)
        return was_away

    def silent(self, poll: Poll, now: float, *, cost_s: float = 0.0) -> None:
        """The unit did not answer; the attempt took `cost_s` of the bus."""
        unit = self.units[poll.unit]
        unit.is_busy = False
        if not unit.silences:
            unit.silent_since = now
        if unit.state is State.NEW:
            unit.state = State.DEAD
        elif unit.state is State.DEAD:
            unit.backoff_s = min(unit.backoff_s * 2, BACKOFF_MAX_S)
        else:
            unit.state = State.DOUBTED if unit.silences < self._retries else State.DEAD
        unit.silences += 1
        unit.try_at = now if unit.state is State.DOUBTED else now + unit.backoff_s
        self._next_try_at = max(self._next_try_at, now + cost_s * (1 / PROBE_SHARE - 1))
        self._number += 1
        heapq.heappush(self._tries, (unit.try_at, self._number, unit))

    def put_back(self, poll: Poll) -> None:
        """The poll was not made, through no fault of the unit: the connection went."""
        unit = self.units[poll.unit]
        unit.is_busy = False
        if unit.state in (State.DOUBTED, State.DEAD):
            self._number += 1
            heapq.heappush(self._tries, (unit.try_at, self._number, unit))
        else:
            self._push(poll)
