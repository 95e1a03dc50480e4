"""How many provision requests come in, from where, and what becomes of them: counted in memory, of this node alone.

A request costs some additions. Minutes are kept for an hour, sources for some minutes, both bounded: a flood from a
million addresses is counted as a flood and not listed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cloud_core.model import Attempt
from shared.errors import Reason

MINUTES = 60  # kept
SOURCE_MINUTES = 5  # of which the sources are kept
MAX_SOURCES = 500  # in a minute; more are counted together
NOW_S = 10  # over so many seconds is what comes in now
OTHERS = ""  # stands for sources beyond MAX_SOURCES
_GOOD = frozenset({"SUCCESS", "REPLAYED"})
_WAITING = Reason.APPROVAL_PENDING.value


@dataclass(slots=True)
class Tally:
    """Requests of some time. `refused`: reason -> how many; `sources`: of all requests, address -> how many."""

    granted: int = 0
    waiting: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    @property
    def refusals(self) -> int:
        return self.refused.total()

    @property
    def requests(self) -> int:
        return self.granted + self.waiting + self.refusals

    def count(self, outcome: str, source: str) -> None:
        if outcome in _GOOD:
            self.granted += 1
        elif outcome == _WAITING:
            self.waiting += 1
        else:
            self.refused[outcome] += 1
        place = source if source in self.sources or len(self.sources) < MAX_SOURCES else OTHERS
        self.sources[place] += 1

    def add(self, other: Tally) -> None:
        self.granted += other.granted
        self.waiting += other.waiting
        self.refused.update(other.refused)
        self.sources.update(other.sources)


class Meter:
    """The requests of one tenant, by minute; and the last seconds."""

    def __init__(self) -> None:
        self._minutes: dict[int, Tally] = {}  # number of the minute -> what came in
        self._seconds: dict[int, int] = {}

    def count(self, line: Attempt) -> None:
        second = line.at_ms // 1000
        minute = second // 60
        tally = self._minutes.get(minute)
        if tally is None:
            self._roll(minute)
            tally = self._minutes[minute] = Tally()
        tally.count(line.outcome, line.peer.address)
        known = self._seconds.get(second)
        if known is None:
            self._seconds = {one: count for one, count in self._seconds.items() if second - one <= NOW_S}
            known = 0
        self._seconds[second] = known + 1

    def _roll(self, minute: int) -> None:
        self._minutes = {one: tally for one, tally in self._minutes.items() if minute - one < MINUTES}
        for one, tally in self._minutes.items():
            if minute - one >= SOURCE_MINUTES and tally.sources:
                tally.sources = Counter()

    def minutes(self, now_ms: int) -> list[Tally]:
        """The last MINUTES, oldest first; the last one is not over yet."""
        last = now_ms // 60_000
        return [self._minutes.get(one) or Tally() for one in range(last - MINUTES + 1, last + 1)]

    def in_last_seconds(self, now_ms: int) -> int:
        """Of the last NOW_S seconds that are over."""
        now = now_ms // 1000
        return sum(count for one, count in self._seconds.items() if now - NOW_S <= one < now)


@dataclass(frozen=True, slots=True)
class Rates:
    """What a tenant's people see: `minutes` of the last hour, `recent` of the last SOURCE_MINUTES together."""

    minutes: list[Tally]
    recent: Tally
    per_second: float


class Traffic:
    """Everything runs in the reactor thread."""

    def __init__(self) -> None:
        self._meters: dict[int | None, Meter] = {}

    def count(self, line: Attempt) -> None:
        """A line of the provisioning log. `tenant_id` None: nobody's key."""
        meter = self._meters.get(line.tenant_id)
        if meter is None:
            meter = self._meters[line.tenant_id] = Meter()
        meter.count(line)

    def rates(self, tenant_id: int, now_ms: int, *, with_unassigned: bool) -> Rates:
        places = (tenant_id, None) if with_unassigned else (tenant_id,)
        meters = [self._meters[one] for one in places if one in self._meters]
        minutes = [Tally() for _ in range(MINUTES)]
        for meter in meters:
            for whole, part in zip(minutes, meter.minutes(now_ms), strict=True):
                whole.add(part)
        recent = Tally()
        for one in minutes[-SOURCE_MINUTES:]:
            recent.add(one)
        return Rates(minutes, recent, sum(one.in_last_seconds(now_ms) for one in meters) / NOW_S)
