"""From the spool to the core: publishes within a window, and what the core's answers mean.

Priority: urgent messages (RPC replies, notices), what was on its way when the last connection ended, announcements of
devices with data, then data and the announcements of quiet devices in turn. A publish goes at once when the window has
room; batches form by load alone.

The core's answers: 0, the spool forgets the records. Too much (0x96, 0x97) or not allowed (0x87): the same again after
a while, and after `PATIENCE` times only this batch waits while the others go on. Anything else: half and half again,
until the one record is found that the core will not have; it is given up, at once when the code says that the payload
is at fault, else as `suspicion` says. No answer in time: `on_silent`, and whoever holds the connection ends it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
from twisted.logger import Logger

from edge_gateway.core import suspicion
from edge_gateway.core.batches import Batch, Kind, encode
from edge_gateway.core.clock import Clock, Delayed, Timers
from edge_gateway.core.queues import Queues
from edge_gateway.core.rates import Allowance, SessionLimits
from edge_gateway.core.statistics import Counters
from edge_gateway.core.sub_devices import LOOK_ROUND_S, SubDevices
from edge_gateway.model import Json, Lane, Record
from edge_gateway.settings import Core, Store
from edge_gateway.storage.interface import Spool
from edge_gateway.uplink.interface import Published, Uplink

BATCH_BYTES = 64 * 1024
MAX_URGENT = 1_000
TOO_MUCH = frozenset({0x87, 0x96, 0x97})
AT_FAULT = frozenset({0x90, 0x95, 0x99})  # the topic or payload, whatever the state of the core
PATIENCE = 5
BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 30.0


class Relay:
    """The way of records to the core. `on_silent()` is called at most once a connection."""

    _log = Logger()

    def __init__(
        self,
        *,
        spool: Spool,
        sub_devices: SubDevices,
        clock: Clock,
        timers: Timers,
        core: Core,
        store: Store,
        counters: Counters,
        on_silent: Callable[[], None],
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self._sub_devices = sub_devices
        self._timers = timers
        self._core = core
        self._share = min(0.95, max(0.05, store.live_share))
        self._is_live_first = store.order == "live-first"
        self._counters = counters
        self._on_silent = on_silent
        self._batch_bytes = batch_bytes
        self._spool = spool
        self.queues = Queues(
            spool=spool,
            settings=store,
            sub_devices=sub_devices,
            clock=clock,
            count_dropped=counters.drop,
            wake=self.wake,
        )
        self._uplink: Uplink | None = None
        self._allowance = self._allow(SessionLimits())
        self._in_flight: dict[object, float] = {}
        self._batches: dict[Batch, None] = {}  # on their way, in the order of their publishes
        self._resend: deque[Batch] = deque()
        self._awaited: dict[str, Batch] = {}  # device that must be announced first -> its batch in `_resend`
        self._urgent: deque[tuple[str, bytes, Published | None]] = deque()
        self._paused_until_s = 0.0
        self._spent = [0.0, 0.0]  # bytes by lane, while both wait
        self._quiet_turn = False
        self._is_silent = False
        self._is_answered = False  # data, on this connection
        self._pump_timer: Delayed | None = None
        self._pump_at_s = 0.0
        self._tick_timer: Delayed | None = None
        self._settle_timer: Delayed | None = None
        sub_devices.ready = self._ready
        sub_devices.wake = self.wake
        sub_devices.disconnect = self._tell_disconnect
        sub_devices.on_changed = self._changed
        sub_devices.on_barred = self._barred
        sub_devices.on_deleted = self._deleted

    # -- life

    def start(self) -> None:
        """Begins to look round, once a second."""
        self._tick_timer = self._timers.callLater(LOOK_ROUND_S, self._tick)

    def stop(self) -> None:
        """Tells the spool what is settled; sends nothing more."""
        self._uplink = None
        for timer in (self._tick_timer, self._pump_timer, self._settle_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._tick_timer = self._pump_timer = self._settle_timer = None
        self._sub_devices.keep_seen()
        self.queues.forget_settled()

    def connected(self, uplink: Uplink, limits: SessionLimits, *, max_packet_bytes: int, receive_maximum: int) -> None:
        """The connection is ready for data: subscriptions and the question for limits are behind it."""
        self._allowance = self._allow(limits, receive_maximum=receive_maximum, max_packet_bytes=max_packet_bytes)
        self._is_silent = False
        self._paused_until_s = 0.0
        self._sub_devices.connected()
        self._is_answered = False
        for batch in list(self._resend):
            wait_s = suspicion.wait_s(batch)
            batch.attempts, batch.not_before_s = 0, self._timers.seconds() + wait_s if wait_s else 0.0
            if len(batch.payload) > self._allowance.packet_bytes:
                self._dissolve(batch)
            else:
                self._await_devices(batch)
        self._uplink = uplink
        self.queues.connected()
        self.pump()

    def ended(self) -> None:
        """The connection is over: what was on its way goes first on the next one."""
        self._uplink = None
        self._in_flight.clear()
        on_their_way = list(self._batches)
        if on_their_way and not self._is_answered:
            on_their_way[:1] = suspicion.suspect(on_their_way[0])
        self._resend.extendleft(reversed(on_their_way))
        self._counters.resent += len(self._batches)
        self._batches.clear()
        self._awaited.clear()
        self._urgent.clear()
        self.queues.ended()
        self._sub_devices.ended()

    # -- in

    def urgent(self, topic: str, payload: bytes, published: Published | None = None) -> bool:
        """Sends before all data; not stored. False when there is no connection, or too much waits already."""
        if self._uplink is None or len(self._urgent) >= MAX_URGENT:
            return False
        self._urgent.append((topic, payload, published))
        self.pump()
        return True

    def assign(self, records: Sequence[Record]) -> None:
        """Chooses the lanes of records that are about to be stored."""
        self.queues.assign(records)

    def stored(self, records: Sequence[Record]) -> None:
        """They are durable and may go; with all that the same commit made durable, in as few publishes."""
        self.queues.stored(records)
        self.wake()

    def not_stored(self, records: Sequence[Record]) -> None:
        """The spool refused them."""
        self.queues.not_stored(records)

    def wake(self) -> None:
        """Something may have become possible: looks after this turn of the loop."""
        self._pump_in(0.0)

    # -- out

    def pump(self) -> None:
        """Publishes what the window and the core's rates have room for."""
        if self._uplink is None:
            return
        while self._uplink is not None and len(self._in_flight) < self._allowance.window:
            if self._urgent:
                topic, payload, published = self._urgent.popleft()
                self._allowance.pace(is_own=False).take(is_telemetry=False)
                self._publish(topic, payload, published or _nobody)
            elif not self._next():
                break
        self.queues.read_on()

    def _next(self) -> bool:
        """Publishes one thing; False when nothing may go now."""
        now_s = self._timers.seconds()
        if now_s < self._paused_until_s:
            self._pump_in(self._paused_until_s - now_s)
            return False
        if self._announce(only_first=True) or self._send_again(now_s):
            return True
        if any(batch.not_before_s <= now_s for batch in self._resend):
            return False  # it waits for its devices, or for the rate: nothing may overtake it
        self._quiet_turn = not self._quiet_turn
        if self._quiet_turn:
            return self._announce() or self._send_data()
        return self._send_data() or self._announce()

    def _announce(self, *, only_first: bool = False) -> bool:
        if self._must_wait(Kind.ATTRIBUTES):
            return False
        announcement = self._sub_devices.next_announcement(only_first=only_first)
        if announcement is None:
            return False
        device, payload = announcement
        self._allowance.pace(is_own=False).take(is_telemetry=False)
        self._publish("v1/gateway/connect", payload, partial(self._sub_devices.announced, device, payload))
        return True

    def _send_again(self, now_s: float) -> bool:
        for batch in self._resend:
            if batch.not_before_s > now_s:
                self._pump_in(batch.not_before_s - now_s)
            elif not batch.missing:
                if self._must_wait(batch.kind):
                    return False
                self._resend.remove(batch)
                self._send(batch)
                return True
        return False

    def _send_data(self) -> bool:
        allowance = self._allowance
        for lane in self._lanes():
            batch = self.queues.gather(
                lane,
                max_bytes=allowance.batch_bytes,
                packet_bytes=allowance.packet_bytes,
                points_room=self._points_room,
            )
            if batch is not None:
                if self.queues.has(Lane.LIVE) and self.queues.has(Lane.HISTORY):
                    self._spent[lane] += sum(len(record.body) for record in batch.records)
                else:
                    self._spent = [0.0, 0.0]
                self._send(batch)
                return True
        return False

    def _points_room(self, kind: Kind) -> float | None:
        return None if self._must_wait(kind) else self._allowance.pace(is_own=kind.is_own).points_room()

    def _must_wait(self, kind: Kind) -> bool:
        """Whether the core's rates allow no publish of this kind now."""
        wait_s = self._allowance.pace(is_own=kind.is_own).wait_s(is_telemetry=kind.is_telemetry)
        if wait_s > 0:
            self._pump_in(wait_s)
        return wait_s > 0

    def _lanes(self) -> tuple[Lane, ...]:
        if self._is_live_first or self._spent[Lane.LIVE] * (1 - self._share) <= self._spent[Lane.HISTORY] * self._share:
            return (Lane.LIVE, Lane.HISTORY)
        return (Lane.HISTORY, Lane.LIVE)

    def _send(self, batch: Batch) -> None:
        if batch.is_stale:
            batch.payload = encode(batch.kind, batch.records, self._sub_devices.json_name)
            batch.is_stale = False
        pace = self._allowance.pace(is_own=batch.kind.is_own)
        points = batch.payload.count(b'":') if pace.counts_points else 0
        pace.take(is_telemetry=batch.kind.is_telemetry, points=points)
        self._batches[batch] = None
        self._publish(batch.kind.value, batch.payload, partial(self._answered, batch))

    def _publish(self, topic: str, payload: bytes, answered: Callable[[int], None]) -> None:
        uplink = self._uplink
        assert uplink is not None
        ticket = object()
        self._in_flight[ticket] = self._timers.seconds()
        self._counters.publishes += 1

        def published(code: int) -> None:
            if self._in_flight.pop(ticket, None) is not None:  # else: of a connection that is over
                answered(code)
                self.pump()

        uplink.publish(topic, payload, published)

    # -- the core's answers

    def _answered(self, batch: Batch, code: int) -> None:
        del self._batches[batch]
        self._is_answered = True
        batch.silent_ends = 0
        if code == 0:
            self._counters.sent += len(batch.records)
            self._finish(batch)
        elif code in TOO_MUCH:
            self._too_much(batch, code)
        elif len(batch.records) > 1:
            first = batch.halves()
            self._resend.appendleft(first)
            self._await_devices(first)
        elif code in AT_FAULT or suspicion.is_at_fault(batch, sent=self._counters.sent):
            self._counters.drop("refused by the core", len(batch.records), next(iter(batch.records), None))
            self._finish(batch)
        else:
            self._wait_and_repeat(batch, pauses_all=False)

    def _too_much(self, batch: Batch, code: int) -> None:
        if batch.attempts == 0:
            self._log.warn("the core takes no more for now (0x{code:02x})", code=code)
        if batch.attempts >= PATIENCE and len(batch.devices) > 1:  # one device may be the reason: let it wait alone
            for apart in batch.by_device():
                self._resend.append(apart)
                self._await_devices(apart)
        else:
            self._wait_and_repeat(batch, pauses_all=batch.attempts < PATIENCE)

    def _wait_and_repeat(self, batch: Batch, *, pauses_all: bool) -> None:
        wait_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2**batch.attempts)
        batch.attempts += 1
        batch.not_before_s = self._timers.seconds() + wait_s
        if pauses_all:
            self._paused_until_s = max(self._paused_until_s, batch.not_before_s)
        elif batch.attempts > PATIENCE:
            for device in batch.devices:
                self.queues.set_aside(device)
        self._counters.resent += 1
        self._resend.append(batch)
        self._await_devices(batch)

    def _finish(self, batch: Batch) -> None:
        """Its records are settled; its next piece follows, or its devices are free."""
        self.queues.done(batch.records)
        self._settle_soon()
        if batch.then is not None:
            self._resend.appendleft(batch.then)
            self._await_devices(batch.then)
        else:
            self.queues.free(batch.devices)

    def _dissolve(self, batch: Batch) -> None:
        """Its records become waiting ones again."""
        if batch in self._resend:
            self._resend.remove(batch)
        for device in batch.missing:
            self._awaited.pop(device, None)
        self.queues.put_back(batch.all_records())
        self.queues.free(batch.devices)
        for device in batch.devices:
            if self._sub_devices.is_barred(device):
                self.queues.set_aside(device)

    def _await_devices(self, batch: Batch) -> None:
        if batch.kind.is_own:
            return
        batch.missing = set()
        for device in {record.device for record in batch.records}:
            if not self._sub_devices.wants(device):
                batch.missing.add(device)
                self._awaited[device] = batch
        if any(self._sub_devices.is_barred(device) for device in batch.missing):
            self._dissolve(batch)

    # -- from the registry

    def _ready(self, device: str) -> None:
        batch = self._awaited.pop(device, None)
        if batch is not None:
            batch.missing.discard(device)
        self.queues.ready(device)
        self.wake()

    def _barred(self, device: str) -> None:
        batch = self._awaited.get(device)
        if batch is not None:
            self._dissolve(batch)
        self.queues.set_aside(device)
        self.wake()

    def _changed(self, device: str) -> None:
        for batch in (*self._batches, *self._resend):
            if device in batch.devices:
                for piece in batch.chain():
                    piece.is_stale = True
                if batch in self._resend and self._uplink is not None:
                    self._await_devices(batch)
        if self._uplink is not None:
            self.queues.ready(device)

    def _deleted(self, device: str) -> None:
        self.queues.delete(device, self._spool.next_number - 1)
        for batch in (*self._batches, *self._resend):
            if device in batch.devices:
                self._strip(batch, device)
        self._settle_soon()

    def _strip(self, batch: Batch, device: str) -> None:
        """Takes the records of a deleted device out of a batch, so that sending it again does not bring it back."""
        for piece in batch.chain():
            gone = [record for record in piece.records if record.device == device]
            self.queues.done(gone)
            self._counters.drop("deleted", len(gone))
            piece.records = [record for record in piece.records if record.device != device]
            piece.is_stale = True
        batch.missing.discard(device)
        self._awaited.pop(device, None)
        if batch in self._resend and not batch.records:
            self._resend.remove(batch)
            self._finish(batch)

    def _tell_disconnect(self, upstream_name: str) -> None:
        self.urgent("v1/gateway/disconnect", b'{"device":%b}' % _json(upstream_name))

    # -- time

    def _tick(self) -> None:
        self._tick_timer = self._timers.callLater(LOOK_ROUND_S, self._tick)
        self._sub_devices.look_round()
        oldest_s = next(iter(self._in_flight.values()), None)
        is_late = oldest_s is not None and self._timers.seconds() - oldest_s >= self._core.answer_timeout
        if is_late and not self._is_silent:
            self._is_silent = True
            self._log.warn(
                "the core has not answered for {s} s: the connection is given up", s=self._core.answer_timeout
            )
            self._on_silent()
        self.pump()

    def _pump_in(self, delay_s: float) -> None:
        at_s = self._timers.seconds() + delay_s
        timer = self._pump_timer
        if timer is not None and timer.active():
            if self._pump_at_s <= at_s:
                return
            timer.cancel()
        self._pump_at_s = at_s
        self._pump_timer = self._timers.callLater(delay_s, self._pump_later)

    def _pump_later(self) -> None:
        self._pump_timer = None
        self.pump()

    def _settle_soon(self) -> None:
        """What many acknowledgements of one turn of the loop settle is forgotten at once."""
        if self._settle_timer is None:
            self._settle_timer = self._timers.callLater(0.0, self._settle)

    def _settle(self) -> None:
        self._settle_timer = None
        self.queues.forget_settled()

    def _allow(
        self, limits: SessionLimits, *, receive_maximum: int = 1, max_packet_bytes: int = BATCH_BYTES
    ) -> Allowance:
        return Allowance(
            limits,
            self._timers.seconds,
            window=self._core.window,
            receive_maximum=receive_maximum,
            max_packet_bytes=max_packet_bytes,
            batch_bytes=self._batch_bytes,
        )

    def snapshot(self) -> dict[str, Json]:
        """For `status`."""
        return {
            "isConnected": self._uplink is not None,
            "inFlight": len(self._in_flight),
            "window": self._allowance.window,
            "toSendAgain": len(self._resend),
            "live": self.queues.live_records,
            "backlog": self.queues.backlog,
            "urgent": len(self._urgent),
        }


def _nobody(code: int) -> None:
    """Nobody waits for this acknowledgement."""


def _json(text: str) -> bytes:
    return msgspec.json.encode(text)
