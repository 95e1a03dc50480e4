"""From a connector to the spool: admitted, stamped, reported, stored, and only then acknowledged.

What comes in one turn of the loop is stored by one append. Each connector has a bound of its own for what is not yet
durable, so that one that floods is held back alone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from twisted.logger import Logger

from edge_gateway.connectors.interface import Done
from edge_gateway.core.clock import LEAD_MS, MAX_LEAD_MS, Clock, Timers
from edge_gateway.core.relay import Relay
from edge_gateway.core.reporting import Reports, Stamp
from edge_gateway.core.statistics import MAX_SAMPLES, SAMPLE_BYTES, Sample
from edge_gateway.core.sub_devices import SubDevices
from edge_gateway.model import Content, Health, Json, Lane, Reading, Record, Refusal, ReportRule
from edge_gateway.storage.interface import Spool

MAX_UNCOMMITTED_BYTES = 4 * 1024 * 1024
MAX_UNCOMMITTED_READINGS = 2_000
OVERFLOW = 4  # times the bound: what a source may bring that does not heed `is_congested`
MAX_REASONS = 50  # kinds of refusals that are counted apart

Tap = Callable[[str, Reading], None]
"""Hears every reading with its connector's name."""


@dataclass(slots=True)
class _Call:
    """One `accept` on its way to the disk."""

    site: ConnectorSite
    records: list[Record]
    readings: int
    size: int
    done: Done | None


class Intake:
    """What all sites share. `report` is the rule for keys for which nobody says another."""

    _log = Logger()

    def __init__(
        self,
        *,
        spool: Spool,
        relay: Relay,
        sub_devices: SubDevices,
        clock: Clock,
        timers: Timers,
        report: ReportRule | None = None,
    ) -> None:
        self._spool = spool
        self._relay = relay
        self.timers = timers
        self.sub_devices = sub_devices
        self.clock = clock
        self.reports = Reports(timers=timers, emit=self._period_is_over, default=report)
        self.sites: dict[str, ConnectorSite] = {}
        self.taps: list[Tap] = []
        self._encode = msgspec.json.Encoder().encode
        self._number = spool.next_number
        self._calls: list[_Call] = []
        self._timer_is_set = False
        sub_devices.on_forgotten = self.reports.forget

    def site(self, name: str) -> ConnectorSite:
        """The site of a connector; the same one, with its counts, when the connector is built again."""
        site = self.sites.get(name)
        if site is None:
            site = self.sites[name] = ConnectorSite(name, self)
        return site

    def tap(self, listener: Tap) -> Callable[[], None]:
        """Listens to all readings; call what is returned to stop."""
        self.taps.append(listener)
        return lambda: self.taps.remove(listener) if listener in self.taps else None

    def own(self, content: Content, values: dict[str, Json]) -> None:
        """The gateway's own telemetry or attributes, through the spool like all."""
        stamp = self.clock.stamp("", None, self.clock.now())
        self.put(_Call(self.site(""), [self.record("", content, stamp, values)], 0, 0, None))

    def record(self, device: str, content: Content, stamp: Stamp, values: Mapping[str, Json]) -> Record:
        """A new record. Raises: TypeError, ValueError when a value is no JSON."""
        body = self._encode(values)
        number = self._number
        self._number = number + 1
        return Record(number, device, content, Lane.LIVE, stamp[0], self.clock.boot, stamp[1], body)

    def put(self, call: _Call) -> None:
        """Stores it at the end of this turn of the loop."""
        self._calls.append(call)
        if not self._timer_is_set:
            self._timer_is_set = True
            self.timers.callLater(0, self.flush)

    def flush(self) -> None:
        """Hands everything of this turn to the spool."""
        self._timer_is_set = False
        calls, self._calls = self._calls, []
        records = [record for call in calls for record in call.records]
        if not records:
            return self._stored(calls, records, None)
        self._relay.assign(records)
        self._spool.append(records, lambda refusal: self._stored(calls, records, refusal))

    def stop(self) -> None:
        """Stores what waits for the end of its period, and everything else."""
        self.reports.flush()
        self.flush()

    def _stored(self, calls: list[_Call], records: list[Record], refusal: Refusal | None) -> None:
        if refusal is None:
            self._relay.stored(records)
        else:
            self._relay.not_stored(records)
            for device in {record.device for record in records}:
                self.reports.unsure(device)
        for call in calls:
            try:
                call.site.stored(call.readings, call.size, refusal)
                if call.done is not None:
                    call.done(refusal)
            except Exception:  # a connector's mistake: the others are still to be told
                self._log.failure("connector {name} failed when it was told", name=call.site.name)

    def _period_is_over(self, device: str, content: Content, stamp: Stamp, values: dict[str, Json]) -> None:
        def done(refusal: Refusal | None) -> None:
            if refusal is not None and refusal.retry_after_s is not None:  # the source was told that it is taken
                self.reports.again(device, content, stamp, values, refusal.retry_after_s)

        self.put(_Call(self.site(""), [self.record(device, content, stamp, values)], 0, 0, done))


class ConnectorSite:
    """What the gateway offers to one connector; see `connectors.interface.Site`."""

    def __init__(self, name: str, intake: Intake) -> None:
        self._name = name
        self._intake = intake
        self._uncommitted = 0
        self._uncommitted_bytes = 0
        self._ahead_until_s = 0.0
        self._on_room: list[Callable[[], None]] = []
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self.readings = 0
        self.withheld = 0  # readings of which nothing went, by their report rules
        self.rejected = 0
        self.refused: Counter[str] = Counter()
        self.state: tuple[Health, str] = (Health.STARTING, "")
        self.on_health: Callable[[Health, str], None] = lambda health, reason: None

    @property
    def name(self) -> str:
        return self._name

    @property
    def wants_raw(self) -> bool:
        return bool(self._intake.taps)

    # -- readings

    def accept(self, readings: Sequence[Reading], done: Done | None = None) -> None:
        refusal = self._refusal(readings)
        if refusal is None:
            try:
                call = self._call(readings, done)
            except (TypeError, ValueError, RecursionError) as error:
                refusal = Refusal(reason=f"a value is no JSON: {error}")
                for device in {reading.device for reading in readings}:
                    self._intake.reports.unsure(device)
        if refusal is not None:
            self._count_refusal(refusal, len(readings))
            if readings:
                self._sample(readings[0].device, str(readings[0].telemetry or readings[0].attributes), refusal.reason)
            if done is not None:
                done(refusal)
            return
        self.readings += len(readings)
        for tap in list(self._intake.taps):
            for reading in readings:
                tap(self._name, reading)
        if not call.records:
            if done is not None:
                done(None)
            return
        self._uncommitted += call.readings
        self._uncommitted_bytes += call.size
        self._intake.put(call)

    def _refusal(self, readings: Sequence[Reading]) -> Refusal | None:
        """All or nothing: every device is looked at before the first reading is taken."""
        if self._uncommitted and self._uncommitted + len(readings) > OVERFLOW * MAX_UNCOMMITTED_READINGS:
            return Refusal(reason="the gateway's disk is behind: send more slowly", retry_after_s=1.0)
        admit = self._intake.sub_devices.admit
        clock = self._intake.clock
        now = clock.now()
        for reading in readings:
            refusal = admit(reading.device, reading.type, self._name)
            if refusal is not None:
                return refusal
            if reading.ts_ms is None:
                lead_ms = clock.lead_ms(reading.device, now)
                if lead_ms > LEAD_MS:
                    self._ahead(lead_ms)
                    if lead_ms > MAX_LEAD_MS:
                        reason = "more than 1,000 readings a second of one device without a time of their own: map `ts`"
                        return Refusal(reason=reason, retry_after_s=(lead_ms - LEAD_MS) / 1000)
        return None

    def _call(self, readings: Sequence[Reading], done: Done | None) -> _Call:
        intake = self._intake
        clock, record, worth_sending = intake.clock, intake.record, intake.reports.worth_sending
        now = clock.now()
        records: list[Record] = []
        for reading in readings:
            device = reading.device
            stamp = clock.stamp(device, reading.ts_ms, now)
            before = len(records)
            if reading.telemetry:
                values = worth_sending(device, Content.TELEMETRY, reading.telemetry, reading.reports, stamp)
                if values:
                    records.append(record(device, Content.TELEMETRY, stamp, values))
            if reading.attributes:
                values = worth_sending(device, Content.ATTRIBUTES, reading.attributes, reading.reports, stamp)
                if values:
                    records.append(record(device, Content.ATTRIBUTES, stamp, values))
            self.withheld += len(records) == before
        size = sum([len(one.body) for one in records])
        return _Call(self, records, len(readings), size, done)

    def stored(self, readings: int, size: int, refusal: Refusal | None) -> None:
        """Some of what was accepted is durable, or was refused by the spool."""
        self._uncommitted -= readings
        self._uncommitted_bytes -= size
        if refusal is not None:
            self._count_refusal(refusal, readings)
        self._tell_room()

    def reject(self, source: str, payload: bytes, why: str) -> None:
        self.rejected += 1
        self._samples.append(Sample(self._now_ms(), source[:SAMPLE_BYTES], payload[:SAMPLE_BYTES], why))

    def _sample(self, source: str, text: str, why: str) -> None:
        self._samples.append(Sample(self._now_ms(), source[:SAMPLE_BYTES], text.encode()[:SAMPLE_BYTES], why))

    def _now_ms(self) -> int:
        return self._intake.clock.now()[0]

    def _count_refusal(self, refusal: Refusal, readings: int) -> None:
        reason = refusal.reason
        if reason not in self.refused and len(self.refused) >= MAX_REASONS:
            reason = "other reasons"
        self.refused[reason] += readings

    # -- devices

    def seen(self, device: str, type: str = "") -> None:
        refusal = self._intake.sub_devices.admit(device, type, self._name)
        if refusal is not None:
            self._count_refusal(refusal, 0)

    def gone(self, device: str) -> None:
        self._intake.sub_devices.gone(device)

    # -- health and room

    def health(self, health: Health, reason: str = "") -> None:
        if self.state != (health, reason):
            self.state = (health, reason)
            self.on_health(health, reason)

    @property
    def is_congested(self) -> bool:
        return (
            self._uncommitted >= MAX_UNCOMMITTED_READINGS
            or self._uncommitted_bytes >= MAX_UNCOMMITTED_BYTES
            or self._ahead_until_s > self._intake.timers.seconds()
        )

    def when_room(self, callback: Callable[[], None]) -> None:
        self._on_room.append(callback)
        self._intake.timers.callLater(0, self._tell_room)

    def _tell_room(self) -> None:
        if self._on_room and not self.is_congested:
            callbacks, self._on_room = self._on_room, []
            for callback in callbacks:
                try:
                    callback()
                except Exception:
                    self._intake._log.failure("connector {name} failed when there was room", name=self._name)

    def _ahead(self, lead_ms: int) -> None:
        """Times run ahead of the clock: holds the connector back until it has caught up."""
        wait_s = (lead_ms - LEAD_MS) / 1000
        until_s = self._intake.timers.seconds() + wait_s
        if until_s > self._ahead_until_s:
            self._ahead_until_s = until_s
            self._intake.timers.callLater(wait_s + 0.001, self._tell_room)

    def snapshot(self) -> dict[str, Json]:
        """For `status`."""
        return {
            "health": self.state[0].value,
            "reason": self.state[1],
            "readings": self.readings,
            "withheld": self.withheld,
            "rejected": self.rejected,
            "refused": dict(self.refused),
            "uncommitted": self._uncommitted,
            "samples": [sample.shown() for sample in self._samples],
        }
