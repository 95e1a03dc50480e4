"""Live events and request rates of all nodes: told with each flush, and shown as if they were of this node.

A node that joins is told what the others have counted in the last hour; events of before are in the lists alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from cloud_core.core.events import MAX_AT_ONCE, Event, Events
from cloud_core.core.nodes.messages import Message, body_of, hear, parts_of
from cloud_core.core.traffic import MAX_SOURCES, OTHERS, Tally
from cloud_core.fabric.interface import Fabric

EVENTS_PART = 50  # in one message: a name, an address and a sentence each
COUNTS_PART = 20  # each with MAX_SOURCES addresses at the most
MAX_KIND_CHARS = 40
MAX_LEFT_OUT = 1_000_000


class Told(Message):
    """An event. `tenant_id` as in `Event`."""

    kind: str
    tenant_id: int | None
    data: dict[str, bool | int | float | str | None]
    at_ms: int


class News(Message):
    """Events in their order. `left_out`: how many were before the first and are not told."""

    left_out: int
    events: list[Told]


class Count(Message):
    """Requests of a tenant in `unit`, the number of a second or a minute since the epoch."""

    tenant_id: int | None
    unit: int
    granted: int
    waiting: int
    refused: dict[str, int]
    sources: dict[str, int]


class Counts(Message):
    """`are_minutes`: all that was counted so far, by minute; `is_first` before the others of the kind."""

    counts: list[Count]
    are_minutes: bool = False
    is_first: bool = False


class NewsOfNodes:
    """Everything runs in the reactor thread."""

    def __init__(self, *, fabric: Fabric, events: Events, now_ms: Callable[[], int]) -> None:
        self._fabric = fabric
        self._events = events
        self._traffic = events.traffic
        self._now_ms = now_ms
        events.on_flush = self._tell
        hear(fabric, "events", News, self._heard)
        hear(fabric, "traffic", Counts, self._counted)
        fabric.on_joined(self._joined)
        fabric.on_left(self._left)
        fabric.on_back(self._missed)

    def _tell(self) -> None:
        events = self._events
        told = [Told(one.kind, one.tenant_id, one.data, one.at_ms) for one in events.untold]
        left_out = events.untold_count - len(told)
        events.untold.clear()
        events.untold_count = 0
        for part in parts_of(told, EVENTS_PART):
            self._fabric.tell_all("events", body_of(News(left_out, list(part))))
            left_out = 0
        counts = [_count(tenant_id, second, one) for (tenant_id, second), one in self._traffic.take_noted().items()]
        for part in parts_of(counts, COUNTS_PART):
            self._fabric.tell_all("traffic", body_of(Counts(list(part))))

    def _heard(self, _sender: str, news: News) -> None:
        told = news.events[-MAX_AT_ONCE:]
        left_out = max(0, min(news.left_out, MAX_LEFT_OUT)) + len(news.events) - len(told)
        self._events.heard(
            [Event(0, one.kind[:MAX_KIND_CHARS], one.tenant_id, one.data, one.at_ms) for one in told], left_out
        )

    def _counted(self, sender: str, counts: Counts) -> None:
        if counts.is_first:
            self._traffic.forget_elsewhere(sender)
        for one in counts.counts:
            meter = self._traffic.elsewhere(sender, one.tenant_id)
            (meter.add_minute if counts.are_minutes else meter.add)(one.unit, _tally(one))

    def _joined(self, node: str) -> None:
        """What it was told before, if it was here before, it forgets."""
        self._tell()
        counts = [_count(tenant_id, minute, one) for (tenant_id, minute), one in self._traffic.minutes().items()]
        is_first = True
        for part in parts_of(counts, COUNTS_PART):
            self._fabric.tell(node, "traffic", body_of(Counts(list(part), are_minutes=True, is_first=is_first)))
            is_first = False

    def _missed(self) -> None:
        """Messages of others may have been lost."""
        self._events.heard([], 1)

    def _left(self, _node: str) -> None:
        """What it has counted stays, and goes with the hour."""
        self._traffic.tidy_elsewhere(self._now_ms())


def _count(tenant_id: int | None, unit: int, tally: Tally) -> Count:
    return Count(tenant_id, unit, tally.granted, tally.waiting, dict(tally.refused), dict(tally.sources))


def _tally(count: Count) -> Tally:
    sources = Counter(count.sources)
    if len(sources) > MAX_SOURCES + 1:
        sources = Counter({OTHERS: sources.total()})
    return Tally(count.granted, count.waiting, Counter(count.refused), sources)
