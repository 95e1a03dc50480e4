"""Stand-ins for what the flow of the edge gateway is given: clocks, spool, uplink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
from twisted.internet.task import Clock as Timers

from edge_gateway.core.clock import Clock
from edge_gateway.core.relay import Relay
from edge_gateway.core.statistics import Counters
from edge_gateway.core.sub_devices import SubDevices
from edge_gateway.model import Content, Lane, Record, Refusal, SubDevice
from edge_gateway.settings import Core, Devices, Store
from edge_gateway.storage.interface import Boot, SpoolLevels
from edge_gateway.uplink.interface import Published

START_MS = 1_800_000_000_000


class FakeSpool:
    """The spool and the store of sub-devices in memory. With `is_slow`, what was asked for happens in `commit()`."""

    def __init__(self, *, records: Sequence[Record] = (), devices: Sequence[SubDevice] = (), boot: int = 1) -> None:
        self.records = {record.number: replace(record) for record in records}
        self._at_open = set(self.records)
        self.devices = {device.name: device for device in devices}
        self.boots: dict[int, Boot] = {boot: Boot(number=boot, known_ms=0)}
        self.is_slow = False
        self.refusal: Refusal | None = None
        self.appends: list[list[int]] = []
        self.log: list[str] = []  # what became durable, in order: names of devices, numbers of records
        self._asked: list[Callable[[], None]] = []
        self._on_dropped: list[Callable[[list[int], dict[str, int]], None]] = []
        self.dropped: dict[str, int] = {}
        self.next_number = max(self.records, default=0) + 1

    @property
    def backlog(self) -> dict[str, int]:
        return dict(Counter(record.device for record in self.records.values()))

    def _ask(self, work: Callable[[], None]) -> None:
        self._asked.append(work)
        if not self.is_slow:
            self.commit()

    def commit(self) -> None:
        asked, self._asked = self._asked, []
        for work in asked:
            work()

    def append(self, records: Sequence[Record], done: Callable[[Refusal | None], None]) -> None:
        self.next_number = max(self.next_number, records[-1].number + 1)
        kept = [replace(record) for record in records]

        def work() -> None:
            if self.refusal is None:
                self.appends.append([record.number for record in kept])
                self.records |= {record.number: record for record in kept}
                self.log += [str(record.number) for record in kept]
            done(self.refusal)

        self._ask(work)

    def forget(self, numbers: Sequence[int]) -> None:
        gone = list(numbers)
        self._ask(lambda: [self.records.pop(number, None) for number in gone] and None)

    def read_history(
        self, after: int, limit_records: int, limit_bytes: int, done: Callable[[list[Record]], None]
    ) -> None:
        def work() -> None:
            found = [
                replace(record)
                for number, record in sorted(self.records.items())
                if number > after and (record.lane is Lane.HISTORY or number in self._at_open)
            ]
            done(found[:limit_records])

        self._ask(work)

    def drop(self, numbers: Sequence[int], reason: str = "size") -> None:
        """The policy gives records up."""
        gone = [self.records.pop(number) for number in numbers if number in self.records]
        self.dropped[reason] = self.dropped.get(reason, 0) + len(gone)
        for callback in self._on_dropped:
            callback([record.number for record in gone], dict(Counter(record.device for record in gone)))

    def remember_boot(self, boot: Boot) -> None:
        self.boots[boot.number] = boot

    def levels(self) -> SpoolLevels:
        return SpoolLevels(
            records=len(self.records),
            used_bytes=sum(len(record.body) for record in self.records.values()),
            max_bytes=1 << 30,
            free_disk_bytes=1 << 30,
            oldest_ms=min((record.ts_ms for record in self.records.values()), default=0),
            dropped=dict(self.dropped),
        )

    def on_dropped(self, callback: Callable[[list[int], dict[str, int]], None]) -> None:
        self._on_dropped.append(callback)

    def close(self) -> None:
        self.commit()

    def sub_devices(self) -> list[SubDevice]:
        return list(self.devices.values())

    def remember(self, devices: Sequence[SubDevice]) -> None:
        for device in devices:
            self.devices[device.name] = device
            self.log.append(device.name)


class FakeUplink:
    """A connection that keeps what was published; the test answers."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.waiting: list[tuple[str, bytes, Published | None]] = []
        self.most_waiting = 0

    def open(self, events: object) -> None:
        """It is open."""

    def close(self) -> None:
        """It stays as it is."""

    def subscribe(self, topics: list[str], granted: Callable[[list[int]], None]) -> None:
        granted([1] * len(topics))

    def publish(self, topic: str, payload: bytes, published: Published | None = None) -> None:
        self.published.append((topic, payload))
        self.waiting.append((topic, payload, published))
        self.most_waiting = max(self.most_waiting, len(self.waiting))

    def answer(self, at: int = 0, code: int = 0) -> tuple[str, bytes]:
        """The core acknowledges one of the waiting publishes."""
        topic, payload, published = self.waiting.pop(at)
        if published is not None:
            published(code)
        return topic, payload

    def topics(self) -> list[str]:
        return [topic for topic, _ in self.published]


class Flow:
    """Relay, registry and clock over fakes."""

    def __init__(
        self,
        spool: FakeSpool | None = None,
        *,
        store: Store | None = None,
        core: Core | None = None,
        devices: Devices | None = None,
        wall_ms: int = START_MS,
    ) -> None:
        self.spool = spool or FakeSpool()
        self.timers = Timers()
        self.wall_start_ms = wall_ms
        self.silences = 0
        self.clock = Clock(wall_ms=self.wall_ms, monotonic_ms=self.monotonic_ms, boots=self.spool)
        self.counters = Counters(self.wall_ms)
        self.sub_devices = SubDevices(
            settings=devices or Devices(),
            store=self.spool,
            timers=self.timers,
            wall_ms=lambda: self.clock.now()[0],
        )
        self.relay = Relay(
            spool=self.spool,
            sub_devices=self.sub_devices,
            clock=self.clock,
            timers=self.timers,
            core=core or Core(),
            store=store or Store(),
            counters=self.counters,
            on_silent=self._silent,
        )
        self.uplink = FakeUplink()

    def wall_ms(self) -> int:
        return self.wall_start_ms + self.monotonic_ms()

    def monotonic_ms(self) -> int:
        return int(self.timers.seconds() * 1000) + 1_000

    def _silent(self) -> None:
        self.silences += 1

    def accept(self, device: str, values: dict[str, object], content: Content = Content.TELEMETRY) -> Record:
        """One record on its way through spool and relay."""
        if device:
            assert self.sub_devices.admit(device, "", "c") is None
        now = self.clock.now()
        ts_ms, elapsed_ms = self.clock.stamp(device, None, now)
        body = msgspec.json.encode(values)
        record = Record(self.spool.next_number, device, content, Lane.LIVE, ts_ms, self.clock.boot, elapsed_ms, body)
        self.relay.assign([record])

        def done(refusal: Refusal | None) -> None:
            self.relay.stored([record]) if refusal is None else self.relay.not_stored([record])

        self.spool.append([record], done)
        return record

    def connect(self, limits: object = None, *, receive_maximum: int = 65_535, max_packet_bytes: int = 67_584) -> None:
        """A new connection."""
        from edge_gateway.core.rates import session_limits

        self.uplink = FakeUplink()
        self.relay.connected(
            self.uplink,
            session_limits(limits),
            max_packet_bytes=max_packet_bytes,
            receive_maximum=receive_maximum,
        )
        self.turn()

    def turn(self) -> None:
        """One turn of the loop."""
        self.timers.advance(0)

    def answer_all(self, rounds: int = 5_000) -> None:
        """The core acknowledges everything until nothing is left."""
        for _ in range(rounds):
            if not self.uplink.waiting:
                self.turn()
                if not self.uplink.waiting:
                    return
            self.uplink.answer()
        raise AssertionError("it never ends")
