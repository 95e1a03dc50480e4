"""How the program itself fares, for people: out of what the parts tell `/metrics`, at most once in two seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cloud_core.core.health import Health
from cloud_core.core.metrics import Metrics
from cloud_core.measures import Labels

FRESH_MS = 2_000
CONNECTIONS = (
    ("MQTT connections", "mqtt_connections"), ("HTTP requests that wait", "http_long_polls"),
    ("CoAP observations", "coap_observations"), ("DTLS sessions", "dtls_sessions"),
)  # fmt: skip

Numbers = dict[str, list[tuple[Labels, float]]]


class Connection(NamedTuple):
    """How many connections of a kind are open."""

    title: str
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Numbers of this node, or of several together; None for what is not known.

    `reasons`: what `/health/ready` says is wrong, at any of them. Disk, version and start are this node's alone.
    """

    reasons: tuple[str, ...]
    connections: list[Connection]
    queued: int | None = None
    queue_limit: int | None = None
    is_congested: bool = False
    memory_bytes: int | None = None
    cpu_share: float | None = None  # of one processor, since the look before
    disk_free_bytes: int | None = None
    disk_bytes: int | None = None
    version: str = ""
    started_ms: int | None = None
    node_count: int = 1  # whose numbers these are
    silent_count: int = 0  # nodes that have not told theirs in time

    @property
    def is_queue_long(self) -> bool:
        return bool(self.queued and self.queue_limit and self.queued * 2 > self.queue_limit)

    @property
    def is_disk_low(self) -> bool:
        """Below a tenth, or 1 GiB."""
        free, whole = self.disk_free_bytes, self.disk_bytes
        return free is not None and (free < 2**30 or bool(whole and free * 10 < whole))


class SystemView:
    """Everything runs in the reactor thread."""

    def __init__(self, *, metrics: Metrics, health: Health, now_ms: Callable[[], int]) -> None:
        self._metrics = metrics
        self._health = health
        self._now_ms = now_ms
        self._known: System | None = None
        self._known_at_ms = 0
        self._cpu: tuple[int, float] | None = None  # when, and how much had been used by then

    def now(self) -> System:
        now_ms = self._now_ms()
        if self._known is None or not 0 <= now_ms - self._known_at_ms < FRESH_MS:
            self._known, self._known_at_ms = self._look(now_ms), now_ms
        return self._known

    def _look(self, now_ms: int) -> System:
        numbers: Numbers = {
            family.name: [(labels, value) for _, labels, value in family.samples]
            for source in self._metrics.sources
            for family in source()
        }
        build = numbers.get("build_info")
        started_s = _whole(numbers, "process_start_time_seconds")
        return System(
            reasons=self._health.reasons(),
            connections=[
                Connection(title, total)
                for title, name in CONNECTIONS
                if (total := _whole(numbers, name)) is not None
            ],
            queued=_whole(numbers, "store_queue_units"), queue_limit=_whole(numbers, "store_queue_limit_units"),
            is_congested=bool(_whole(numbers, "store_congested")),
            memory_bytes=_whole(numbers, "process_resident_memory_bytes") or None,
            cpu_share=self._share(numbers, now_ms),
            disk_free_bytes=_whole(numbers, "disk_free_bytes"), disk_bytes=_whole(numbers, "disk_bytes"),
            version=build[0][0].get("version", "") if build else "",
            started_ms=started_s * 1000 if started_s is not None else None,
        )  # fmt: skip

    def _share(self, numbers: Numbers, now_ms: int) -> float | None:
        used = numbers.get("process_cpu_seconds_total")
        if not used:
            return None
        before, self._cpu = self._cpu, (now_ms, used[0][1])
        if before is None or now_ms <= before[0]:
            return None
        return max(0.0, (used[0][1] - before[1]) * 1000 / (now_ms - before[0]))


def _whole(numbers: Numbers, name: str) -> int | None:
    found = numbers.get(name)
    return int(found[0][1]) if found else None
