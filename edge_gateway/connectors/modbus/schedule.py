"""When which slave is read. Pure: time is handed in, in seconds of a monotonic clock.

A *poll* is what is read of one unit in one period. Polls of one period are spread over it. A poll that could not be
made in its period is skipped and counted: reads never pile up.

A unit that does not answer leaves the rotation after `retries` further attempts and is *tried* with one poll after 1 s,
2 s, 4 s … 60 s. With a spare connection all attempts at doubtful units go there and cost the others nothing. Without
one they wait for a gap between the polls that holds their timeout, and take at most a tenth of the time of the bus."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

BACKOFF_MIN_S: Final = 1.0
BACKOFF_MAX_S: Final = 60.0
SPREAD_MAX_S: Final = 10.0
PROBE_SHARE: Final = 0.1
PATIENCE_S: Final = 60.0  # an attempt that found no gap for so long goes before polls that are due
_BUSY_WAIT_S: Final = 0.02
_WAIT_MAX_S: Final = 60.0


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

    @property
    def is_out(self) -> bool:
        """Out of the rotation."""
        return self.state in (State.DOUBTED, State.DEAD)


class Schedule:
    """Whose turn it is. `try_cost_s` is what an attempt at a silent unit takes of the bus."""

    def __init__(self, polls: Sequence[Poll], *, now: float, retries: int = 1, try_cost_s: float = 1.0) -> None:
        self.units: dict[int, Unit] = {}
        self._retries = retries
        self._try_cost_s = try_cost_s
        self._queue: list[tuple[float, int, Poll]] = []
        self._doubts: deque[Unit] = deque()  # to be asked again at once
        self._tries: list[tuple[float, int, Unit]] = []  # of dead units
        self._number = 0
        self._next_try_at = 0.0  # without a spare connection: what the last attempt cost is paid off then
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
        if not poll.is_queued:
            poll.is_queued = True
            self._number += 1
            heapq.heappush(self._queue, (poll.due, self._number, poll))

    def _push_try(self, unit: Unit) -> None:
        if unit.state is State.DOUBTED:
            self._doubts.append(unit)
            return
        self._number += 1
        heapq.heappush(self._tries, (unit.try_at, self._number, unit))

    @property
    def missed(self) -> int:
        return sum(poll.missed for unit in self.units.values() for poll in unit.polls)

    @property
    def made(self) -> int:
        return sum(poll.made for unit in self.units.values() for poll in unit.polls)

    # --- whose turn ------------------------------------------------------------------------------

    def take(self, now: float, *, has_spare: bool = False) -> Poll | None:
        """The next poll for the main connection; with `has_spare` doubtful units are left to the other one."""
        if has_spare:
            return self._take_due(now)
        if (unit := self._next_doubt()) or (unit := self._next_try(now, is_charged=True)):
            return self._take_try(unit, now)
        return self._take_due(now)

    def take_try(self, now: float) -> Poll | None:
        """The next attempt at a doubtful unit, for the spare connection."""
        unit = self._next_doubt() or self._next_try(now)
        return self._take_try(unit, now) if unit else None

    def _take_due(self, now: float) -> Poll | None:
        held: list[Poll] = []
        taken: Poll | None = None
        while taken is None and self._queue and self._queue[0][0] <= now:
            pushed_due, _, poll = heapq.heappop(self._queue)
            poll.is_queued = False
            unit = self.units[poll.unit]
            if unit.is_out:
                continue  # comes back with its unit
            if pushed_due != poll.due:
                self._push(poll)
            elif unit.is_busy:
                held.append(poll)
            else:
                poll.missed += self._catch_up(poll, now)
                taken, unit.is_busy = poll, True
        for poll in held:
            self._push(poll)
        return taken

    def _next_due(self) -> float:
        return self._queue[0][0] if self._queue else float("inf")

    def _next_doubt(self) -> Unit | None:
        while self._doubts and (self._doubts[0].state is not State.DOUBTED or self._doubts[0].is_busy):
            self._doubts.popleft()
        return self._doubts[0] if self._doubts else None

    def _next_try(self, now: float, *, is_charged: bool = False) -> Unit | None:
        """The dead unit whose attempt is due; what is no longer true in the heap goes. `is_charged`: it takes the main
        connection's time, so that it has to find a gap."""
        while self._tries and self._tries[0][0] <= now:
            at, _, unit = self._tries[0]
            if unit.state is State.DEAD and not unit.is_busy and at == unit.try_at:
                has_gap = self._next_due() - now >= self._try_cost_s or now - at > PATIENCE_S
                return unit if not is_charged or (has_gap and now >= self._next_try_at) else None
            heapq.heappop(self._tries)
        return None

    def _take_try(self, unit: Unit, now: float) -> Poll:
        if unit.state is State.DOUBTED:
            self._doubts.popleft()
        else:
            heapq.heappop(self._tries)
        unit.is_busy = True
        poll = unit.polls[0]
        self._catch_up(poll, now)
        return poll

    @staticmethod
    def _catch_up(poll: Poll, now: float) -> int:
        """The whole periods that have passed; `due` is then at most one period ago."""
        behind = max(0, int((now - poll.due) / poll.period_s))
        poll.due += behind * poll.period_s
        return behind

    def wait_s(self, now: float, *, has_spare: bool = False) -> float:
        """How long `take` will have nothing; a minute at most."""
        wait = min(_WAIT_MAX_S, self._next_due() - now)
        if wait <= 0:  # those that are due belong to units under way
            wait = _BUSY_WAIT_S
        if not has_spare and self._doubts:
            wait = min(wait, _BUSY_WAIT_S)
        if not has_spare and self._tries:
            until = max(self._tries[0][0], self._next_try_at)
            wait = min(wait, max(until - now, _BUSY_WAIT_S))
        return max(wait, 0.001)

    def try_wait_s(self, now: float) -> float:
        """How long `take_try` will have nothing."""
        if self._doubts:
            return _BUSY_WAIT_S
        return max(0.001, min(_WAIT_MAX_S, self._tries[0][0] - now if self._tries else _WAIT_MAX_S))

    # --- how it went -----------------------------------------------------------------------------

    def answered(self, poll: Poll, now: float) -> bool:
        """The unit said something, be it that it cannot. True when it is there for the first time, or again."""
        unit = self.units[poll.unit]
        unit.is_busy = False
        poll.made += 1
        poll.due += poll.period_s
        self._push(poll)
        return self.heard(poll.unit, now)

    def heard(self, number: int, now: float) -> bool:
        """The unit answered something outside the rotation. True when it is there for the first time, or again."""
        unit = self.units[number]
        was_away, was_out = unit.state is not State.ALIVE, unit.is_out
        unit.state, unit.silences, unit.backoff_s = State.ALIVE, 0, BACKOFF_MIN_S
        if was_out:
            for other in unit.polls:
                self._catch_up(other, now)
                if not unit.is_busy or other is not unit.polls[0]:
                    self._push(other)
        return was_away

    def silent(self, poll: Poll, now: float, *, cost_s: float = 0.0) -> bool:
        """The unit did not answer; the attempt took `cost_s` of the main connection. True when it is dead by this."""
        unit = self.units[poll.unit]
        was_dead = unit.state is State.DEAD
        unit.is_busy = False
        unit.silences += 1
        if was_dead:
            unit.backoff_s = min(unit.backoff_s * 2, BACKOFF_MAX_S)
        else:
            unit.state = State.DOUBTED if unit.silences <= self._retries else State.DEAD
        unit.try_at = now if unit.state is State.DOUBTED else now + unit.backoff_s
        self._next_try_at = max(self._next_try_at, now + cost_s * (1 / PROBE_SHARE - 1))
        self._push_try(unit)
        return unit.state is State.DEAD and not was_dead

    def resume(self, now: float) -> None:
        """The connection is there (again): what passed without it was not missed; silent units get a new chance."""
        for unit in self.units.values():
            for poll in unit.polls:
                self._catch_up(poll, now)
            if unit.is_out and not unit.is_busy:
                unit.try_at, unit.backoff_s = now, BACKOFF_MIN_S
                self._push_try(unit)

    def put_back(self, poll: Poll) -> None:
        """The poll was not made, through no fault of the unit: the connection went."""
        unit = self.units[poll.unit]
        unit.is_busy = False
        if unit.is_out:
            self._push_try(unit)
        else:
            self._push(poll)
