"""How many provision requests come in, from where, and what becomes of them: counted in memory, for each node.

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
        self._minute(second // 60).count(line.outcome, line.peer.address)
        self._add_second(second, 1)

    def add(self, second: int, tally: Tally) -> None:
        """What another node has counted in a second."""
        self.add_minute(second // 60, tally)
        self._add_second(second, tally.requests)

    def add_minute(self, minute: int, tally: Tally) -> None:
        self._minute(minute).add(tally)

    def _minute(self, minute: int) -> Tally:
        tally = self._minutes.get(minute)
        if tally is None:
            self._roll(minute)
            tally = self._minutes[minute] = Tally()
        return tally

    def _add_second(self, second: int, count: int) -> None:
        known = self._seconds.get(second)
        if known is None:
            self._seconds = {one: count for one, count in self._seconds.items() if second - one <= NOW_S}
            known = 0
        self._seconds[second] = known + count

    @property
    def known_minutes(self) -> dict[int, Tally]:
        """By number since the epoch."""
        return self._minutes

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
        self._elsewhere: dict[str, dict[int | None, Meter]] = {}  # of other nodes, by their names
        self._noted: dict[tuple[int | None, int], Tally] = {}  # (tenant, second): not told to other nodes yet

    def count(self, line: Attempt) -> None:
        """A line of the provisioning log. `tenant_id` None: nobody's key."""
        meter = self._meters.get(line.tenant_id)
        if meter is None:
            meter = self._meters[line.tenant_id] = Meter()
        meter.count(line)

    def rates(self, tenant_id: int, now_ms: int, *, with_unassigned: bool) -> Rates:
        """Of all nodes, as far as they have told."""
        places = (tenant_id, None) if with_unassigned else (tenant_id,)
        known = [self._meters, *self._elsewhere.values()]
        meters = [of_node[one] for of_node in known for one in places if one in of_node]
        minutes = [Tally() for _ in range(MINUTES)]
        for meter in meters:
            for whole, part in zip(minutes, meter.minutes(now_ms), strict=True):
                whole.add(part)
        recent = Tally()
        for one in minutes[-SOURCE_MINUTES:]:
            recent.add(one)
        return Rates(minutes, recent, sum(one.in_last_seconds(now_ms) for one in meters) / NOW_S)

    # -- of several nodes -------------------------------------------------------------------------

    def note(self, line: Attempt) -> None:
        """The others are told of a line that was counted."""
        key = (line.tenant_id, line.at_ms // 1000)
        tally = self._noted.get(key)
        if tally is None:
            tally = self._noted[key] = Tally()
        tally.count(line.outcome, line.peer.address)

    def take_noted(self) -> dict[tuple[int | None, int], Tally]:
        """By tenant and second, since this was asked last."""
        noted, self._noted = self._noted, {}
        return noted

    def minutes(self) -> dict[tuple[int | None, int], Tally]:
        """All that was counted here, by tenant and minute."""
        return {
            (tenant_id, minute): tally
            for tenant_id, meter in self._meters.items()
            for minute, tally in meter.known_minutes.items()
        }

    def elsewhere(self, node: str, tenant_id: int | None) -> Meter:
        """What another node has counted."""
        return self._elsewhere.setdefault(node, {}).setdefault(tenant_id, Meter())

    def forget_elsewhere(self, node: str) -> None:
        """It tells anew what it has counted."""
        self._elsewhere.pop(node, None)

    def tidy_elsewhere(self, now_ms: int) -> None:
        """Nodes of which nothing is left to show."""
        last = now_ms // 60_000
        for node, meters in list(self._elsewhere.items()):
            if not any(last - minute < MINUTES for one in meters.values() for minute in one.known_minutes):
                del self._elsewhere[node]
