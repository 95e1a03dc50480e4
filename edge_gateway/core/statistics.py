"""What is counted, and the gateway's own telemetry made of it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edge_gateway.core.clock import Timers
from edge_gateway.model import Health, Json, Record
from edge_gateway.storage.interface import Spool

MAX_SAMPLES = 20
SAMPLE_BYTES = 200


@dataclass(slots=True)
class Sample:
    """Something that was turned away, for people. `payload` is its beginning."""

    at_ms: int
    source: str
    payload: bytes
    why: str

    def shown(self) -> dict[str, Json]:
        """As JSON."""
        text = self.payload.decode("utf-8", "backslashreplace")
        return {"at": self.at_ms, "source": self.source, "payload": text, "why": self.why}


@dataclass(slots=True)
class Counters:
    """Since the start of the gateway. Readings in are counted by connector."""

    wall_ms: Callable[[], int]
    sent: int = 0  # records that the core has taken
    publishes: int = 0
    resent: int = 0  # publishes sent again
    dropped: Counter[str] = field(default_factory=Counter)  # records given up, by reason; the spool has its own
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=MAX_SAMPLES))

    def drop(self, reason: str, count: int, sample: Record | None = None) -> None:
        """Records are given up; `sample` is one of them."""
        self.dropped[reason] += count
        if sample is not None:
            source = sample.device or "the gateway itself"
            self.samples.append(Sample(self.wall_ms(), source, sample.body[:SAMPLE_BYTES], reason))


class ConnectorCounts(Protocol):
    """What a connector's site knows of itself."""

    @property
    def readings(self) -> int: ...

    @property
    def withheld(self) -> int: ...

    @property
    def refused(self) -> Mapping[str, int]: ...

    @property
    def rejected(self) -> int: ...

    @property
    def state(self) -> tuple[Health, str]: ...

    def snapshot(self) -> dict[str, Json]: ...


class Waiting(Protocol):
    """What the relay tells of itself."""

    def snapshot(self) -> dict[str, Json]: ...


class Statistics:
    """Puts the numbers together; `send(values)` takes the gateway's own telemetry, every `every_s` (0: never)."""

    def __init__(
        self,
        *,
        counters: Counters,
        spool: Spool,
        relay: Waiting,
        sites: Callable[[], Mapping[str, ConnectorCounts]],
        devices: Callable[[], int],
        timers: Timers,
        wall_ms: Callable[[], int],
        every_s: float,
        send: Callable[[dict[str, Json]], None],
    ) -> None:
        self._counters = counters
        self._spool = spool
        self._relay = relay
        self._sites = sites
        self._devices = devices
        self._timers = timers
        self._wall_ms = wall_ms
        self._every_s = every_s
        self._send = send
        self._timer: object | None = None
        self._started_s = timers.seconds()

    def start(self) -> None:
        """Sends the first ones after one period."""
        if self._every_s > 0:
            self._timer = self._timers.callLater(self._every_s, self._tick)

    def stop(self) -> None:
        """No more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()  # type: ignore[attr-defined]  # a Delayed

    def _tick(self) -> None:
        self._timer = self._timers.callLater(self._every_s, self._tick)
        self._send(self.telemetry())

    def telemetry(self) -> dict[str, Json]:
        """Flat, numbers only: keys of a device are few and stay the same."""
        sites = self._sites().values()
        levels = self._spool.levels()
        values: dict[str, Json] = {
            "readingsIn": sum(site.readings for site in sites),
            "readingsWithheld": sum(site.withheld for site in sites),
            "readingsRefused": sum(sum(site.refused.values()) for site in sites),
            "messagesRejected": sum(site.rejected for site in sites),
            "recordsOut": self._counters.sent,
            "recordsWaiting": levels.records,
            "oldestWaitingS": self._age_s(levels.oldest_ms),
            "spoolBytes": levels.used_bytes,
            "freeDiskBytes": levels.free_disk_bytes,
            "devices": self._devices(),
            "recordsDropped": sum(self._all_dropped().values()),
        }
        for reason, count in self._all_dropped().items():
            values["dropped" + "".join(word.capitalize() for word in reason.split())] = count
        for health in Health:
            values["connectors" + health.value.capitalize()] = sum(site.state[0] is health for site in sites)
        return values

    def snapshot(self) -> dict[str, Json]:
        """For `status`: everything, nested, with the last samples."""
        levels = self._spool.levels()
        return {
            "uptimeS": round(self._timers.seconds() - self._started_s),
            "devices": self._devices(),
            "sent": self._counters.sent,
            "publishes": self._counters.publishes,
            "resent": self._counters.resent,
            "dropped": self._all_dropped(),
            "samples": [sample.shown() for sample in self._counters.samples],
            "spool": {
                "records": levels.records,
                "usedBytes": levels.used_bytes,
                "maxBytes": levels.max_bytes,
                "freeDiskBytes": levels.free_disk_bytes,
                "oldestAgeS": self._age_s(levels.oldest_ms),
            },
            "relay": self._relay.snapshot(),
            "connectors": {name: site.snapshot() for name, site in self._sites().items()},
        }

    def _all_dropped(self) -> dict[str, int]:
        return dict(self._counters.dropped + Counter(self._spool.levels().dropped))

    def _age_s(self, oldest_ms: int) -> int:
        now_ms = self._wall_ms()
        return max(0, (now_ms - oldest_ms) // 1000) if oldest_ms and now_ms else 0
