"""Records that wait to be sent, by device: the live ones in memory, and the history that is read back from disk.

A device has at most one publish on its way, so that its order holds whatever the core answers. Two rings name the
devices whose turn it is, one for each lane. With order "device" a device that has history gets new records into the
history too; its live records, when it has both, are older and go first.

What the core refused a device for (`bar`) is passed over while reading, and read again from there later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from edge_gateway.core.batches import DEVICE_BYTES, ENTRY_BYTES, Batch, Kind, kind_of, points_in
from edge_gateway.core.clock import Clock
from edge_gateway.core.sub_devices import SubDevices
from edge_gateway.model import Content, Lane, Record
from edge_gateway.settings import Store
from edge_gateway.storage.interface import Spool

MAX_LIVE_RECORDS = 20_000
MAX_LIVE_BYTES = 16 * 1024 * 1024
RECORD_BYTES = 200  # of memory beside the body
READ_RECORDS = 2_000
READ_BYTES = 2 * 1024 * 1024
READ_BELOW = 1_000  # records of the history in memory
MAX_STUCK_RECORDS = 20_000  # in publishes of devices that were set aside: they do not count for `READ_BELOW`
MAX_PASSED_BY = 32  # devices whose next record is of another kind, while a batch is gathered


@dataclass(slots=True, eq=False)
class DeviceQueue:
    """What waits of one device. `backlog` counts its records in the history, on disk, in memory and on their way."""

    device: str
    live: deque[Record] = field(default_factory=deque)
    history: deque[Record] = field(default_factory=deque)
    backlog: int = 0
    is_busy: bool = False
    is_in_ring: list[bool] = field(default_factory=lambda: [False, False])  # by lane
    passed_over: int = 0  # first number that was not read because the device was barred
    deleted_up_to: int = 0  # records up to this number are of a device that the core deleted


class Queues:
    """All devices' queues. `count_dropped(reason, count, sample)` is told what is given up."""

    def __init__(
        self,
        *,
        spool: Spool,
        settings: Store,
        sub_devices: SubDevices,
        clock: Clock,
        count_dropped: Callable[[str, int, Record | None], None],
        wake: Callable[[], None],
        max_live_records: int = MAX_LIVE_RECORDS,
        max_live_bytes: int = MAX_LIVE_BYTES,
    ) -> None:
        self._spool = spool
        self._is_live_first = settings.order == "live-first"
        self._sub_devices = sub_devices
        self._clock = clock
        self._count_dropped = count_dropped
        self._wake = wake
        self._max_live_records = max_live_records
        self._max_live_bytes = max_live_bytes
        self._queues: dict[str, DeviceQueue] = {}
        self._rings: tuple[deque[DeviceQueue], deque[DeviceQueue]] = (deque(), deque())
        self._timeless: dict[str, DeviceQueue] = {}
        self._out: dict[int, Record] = {}  # on their way
        self._held: set[int] = set()  # numbers of the history that are in memory or on their way
        self._stuck: set[int] = set()  # those of them in publishes of devices that were set aside
        self._cursor = 0
        self._is_reading = False
        self._is_at_end = False
        self._reading_no = 0
        self._appended_since = False
        self._settled_meanwhile: set[int] = set()  # while a reading is under way, which may still bring them
        self._to_be_stored = 0  # assigned to the history, not durable yet
        self._forgotten: list[int] = []
        self.live_records = 0
        self.live_bytes = 0
        self.backlog = 0
        for device, count in spool.backlog.items():
            queue = self._queue(device)
            queue.backlog = count
            self.backlog += count
            if device and sub_devices.is_deleted(device):
                queue.deleted_up_to = spool.next_number - 1
        spool.on_dropped(self.dropped)
        clock.on_known(self._time_is_known)

    # -- on the way into the spool

    def assign(self, records: Iterable[Record]) -> None:
        """Chooses the lanes, just before the records are stored."""
        for record in records:
            queue = self._queues.get(record.device) or self._queue(record.device)
            if (
                (queue.backlog and not self._is_live_first)
                or self.live_records >= self._max_live_records
                or self.live_bytes >= self._max_live_bytes
                or (record.device and self._sub_devices.is_barred(record.device))
            ):
                record.lane = Lane.HISTORY
                queue.backlog += 1
                self.backlog += 1
                self._to_be_stored += 1
            else:
                self.live_records += 1
                self.live_bytes += len(record.body) + RECORD_BYTES

    def stored(self, records: Sequence[Record]) -> None:
        """They are durable."""
        for record in records:
            if record.lane is Lane.LIVE:
                queue = self._queues[record.device]
                queue.live.append(record)
                if record.number <= queue.deleted_up_to:
                    self.delete(record.device, queue.deleted_up_to)
                elif not queue.is_busy and not queue.is_in_ring[Lane.LIVE]:
                    self._offer(queue)
            else:
                self._to_be_stored -= 1
                self._appended_since = True
                self._is_at_end = False

    def not_stored(self, records: Sequence[Record]) -> None:
        """The spool refused them."""
        for record in records:
            self._to_be_stored -= record.lane is Lane.HISTORY
            self._leave(record)

    # -- on the way out

    def gather(
        self, lane: Lane, *, max_bytes: int, packet_bytes: int, points_room: Callable[[Kind], float | None]
    ) -> Batch | None:
        """The next publish of a lane, its devices busy from now on; None when nothing may go. `points_room` says how
        many data points of a kind may go; None: nothing of it."""
        ring = self._rings[lane]
        passed_by: list[DeviceQueue] = []
        batch: Batch | None = None
        left_bytes, left_points = float(max_bytes), 0.0
        while ring and len(passed_by) < MAX_PASSED_BY:
            queue = ring.popleft()
            queue.is_in_ring[lane] = False
            records = self._eligible(queue, lane, packet_bytes)
            if not records:
                continue
            kind = kind_of(records[0])
            if batch is None and (room := points_room(kind)) is not None:
                batch = Batch(kind, lane, [], set(), is_stale=True)
                left_points = room
            if batch is None or kind is not batch.kind:
                queue.is_in_ring[lane] = True
                passed_by.append(queue)
                continue
            left_bytes, left_points = self._take(queue, records, batch, left_bytes, left_points)
            if not queue.is_busy:
                queue.is_in_ring[lane] = True
                ring.appendleft(queue)
                break
            if left_bytes <= 0 or left_points <= 0:
                break
        ring.extendleft(reversed(passed_by))
        return batch

    def _take(
        self, queue: DeviceQueue, records: deque[Record], batch: Batch, left_bytes: float, left_points: float
    ) -> tuple[float, float]:
        """Moves the device's next records into the batch; at least one into an empty batch."""
        kind = batch.kind
        name_bytes = DEVICE_BYTES + (len(self._sub_devices.json_name(queue.device)) if queue.device else 0)
        while records and kind_of(records[0]) is kind and self._has_time(records[0]):
            record = records[0]
            size = len(record.body) + ENTRY_BYTES + name_bytes
            points = points_in(record) if kind.is_telemetry and left_points != float("inf") else 0
            if batch.records and (size > left_bytes or points > left_points):
                break
            records.popleft()
            batch.records.append(record)
            self._out[record.number] = record
            left_bytes -= size
            left_points -= points
            name_bytes = 0
            if left_bytes <= 0 or left_points <= 0:
                break
        if name_bytes == 0:
            batch.devices.add(queue.device)
            queue.is_busy = True
        return left_bytes, left_points

    def done(self, records: Iterable[Record]) -> None:
        """They are settled for good: the spool forgets them."""
        for record in records:
            if self._out.pop(record.number, None) is not None:
                self._leave(record)
                self._forgotten.append(record.number)
                if self._is_reading:
                    self._settled_meanwhile.add(record.number)

    def put_back(self, records: Sequence[Record]) -> None:
        """They were taken and shall be taken anew, ahead of the others of their devices."""
        for record in reversed(records):
            if self._out.pop(record.number, None) is not None:
                self._stuck.discard(record.number)
                queue = self._queues[record.device]
                (queue.live if record.lane is Lane.LIVE else queue.history).appendleft(record)

    def free(self, devices: Iterable[str]) -> None:
        """Nothing of these devices is on its way any more."""
        for device in devices:
            queue = self._queues[device]
            queue.is_busy = False
            if queue.passed_over and not self._sub_devices.is_barred(device):
                self._read_again(queue)
            self._offer(queue)

    def set_aside(self, device: str) -> None:
        """The device cannot send for long: its history waits on disk, where it takes no room from that of others."""
        queue = self._queues.get(device)
        if queue is None:
            return
        if queue.is_busy:
            self._stuck.update(
                number for number, one in self._out.items() if one.device == device and one.lane is Lane.HISTORY
            )
        if queue.history:
            first = queue.history[0].number
            queue.passed_over = min(queue.passed_over or first, first)
            self._held.difference_update([record.number for record in queue.history])
            queue.history.clear()

    def ready(self, device: str) -> None:
        """The core knows the device now."""
        queue = self._queues.get(device)
        if queue is None:
            return
        if queue.passed_over:
            self._read_again(queue)
        self._offer(queue)

    def connected(self) -> None:
        """Offers everything anew: asks for the announcement of the devices that have data."""
        for queue in list(self._queues.values()):
            self._offer(queue)

    def ended(self) -> None:
        """Nobody may send any more."""
        for ring in self._rings:
            ring.clear()
        for queue in self._queues.values():
            queue.is_in_ring = [False, False]

    def forget_settled(self) -> None:
        """Tells the spool, in bulk."""
        if self._forgotten:
            numbers, self._forgotten = self._forgotten, []
            self._spool.forget(numbers)

    def has(self, lane: Lane) -> bool:
        """Whether a device has its turn in this lane."""
        return bool(self._rings[lane])

    # -- given up

    def delete(self, device: str, up_to: int) -> None:
        """The core deleted the device: what it said before is dropped."""
        queue = self._queues.get(device)
        if queue is None:
            return
        queue.deleted_up_to = up_to
        waiting = [*queue.live, *queue.history]
        queue.live.clear()
        queue.history.clear()
        self._settle_deleted(waiting)
        if queue.passed_over:
            self._read_again(queue)

    def dropped(self, numbers: list[int], counts: dict[str, int]) -> None:
        """The spool gave records up: they are not sent."""
        gone = set(numbers)
        live: dict[str, int] = {}
        for number in gone & self._out.keys():
            record = self._out.pop(number)
            if record.lane is Lane.LIVE:
                live[record.device] = live.get(record.device, 0) + 1
                self._leave(record)
            self._held.discard(number)
        for device, count in counts.items():
            queue = self._queues.get(device)
            if queue is None:
                continue
            for record in [one for one in queue.live if one.number in gone]:
                live[device] = live.get(device, 0) + 1
                self._leave(record)
            queue.live = deque(one for one in queue.live if one.number not in gone)
            queue.history = deque(one for one in queue.history if one.number not in gone)
            self._lower(queue, count - live.get(device, 0))
            self._offer(queue)
        self._held -= gone
        self._stuck -= gone
        self._wake()

    # -- the history

    def read_on(self) -> None:
        """Reads more of the history when there is room for it."""
        waiting = len(self._held) - min(len(self._stuck), MAX_STUCK_RECORDS)
        if self._is_reading or self._is_at_end or waiting >= READ_BELOW:
            return
        self._is_reading = True
        self._appended_since = False
        self._settled_meanwhile.clear()
        number = self._reading_no
        self.forget_settled()
        self._spool.read_history(
            self._cursor, READ_RECORDS, READ_BYTES, lambda records: self._have_read(number, records)
        )

    def _have_read(self, reading_no: int, records: list[Record]) -> None:
        if reading_no != self._reading_no:
            return  # begun before the reading was set back
        self._is_reading = False
        if not records:
            self._is_at_end = not self._appended_since
            self._recount()
        deleted = []
        for record in records:
            self._cursor = record.number
            if record.number in self._held or record.number in self._settled_meanwhile:
                continue
            record.lane = Lane.HISTORY
            queue = self._queues.get(record.device) or self._queue(record.device)
            if record.number <= queue.deleted_up_to:
                deleted.append(record)
            elif record.device and self._sub_devices.is_barred(record.device):
                queue.passed_over = queue.passed_over or record.number
            elif not queue.passed_over:
                self._held.add(record.number)
                queue.history.append(record)
                if not queue.is_in_ring[Lane.HISTORY]:
                    self._offer(queue)
        self._settle_deleted(deleted)
        self._wake()

    def _read_again(self, queue: DeviceQueue) -> None:
        """From the first record that was passed over."""
        self._cursor = min(self._cursor, queue.passed_over - 1)
        queue.passed_over = 0
        self._reading_no += 1
        self._is_reading = self._is_at_end = False

    def _recount(self) -> None:
        """At the end of the history, with nothing of it in memory, there is none."""
        if not self._is_at_end or self._held or self._to_be_stored or not self.backlog:
            return
        if any(queue.passed_over for queue in self._queues.values()):
            return
        self.backlog = 0
        for queue in self._queues.values():
            queue.backlog = 0

    # -- inside

    def _queue(self, device: str) -> DeviceQueue:
        queue = self._queues.get(device)
        if queue is None:
            queue = self._queues[device] = DeviceQueue(device)
        return queue

    def _offer(self, queue: DeviceQueue) -> None:
        """Gives the device its turn when it may send; otherwise asks for its announcement."""
        if queue.is_busy or not (queue.live or queue.history or queue.backlog):
            return
        if queue.device and not self._sub_devices.wants(queue.device):
            return
        if queue.live:
            self._enter(queue, Lane.LIVE)
        if queue.history and (self._is_live_first or not queue.live):
            self._enter(queue, Lane.HISTORY)

    def _enter(self, queue: DeviceQueue, lane: Lane) -> None:
        if not queue.is_in_ring[lane]:
            queue.is_in_ring[lane] = True
            self._rings[lane].append(queue)

    def _eligible(self, queue: DeviceQueue, lane: Lane, packet_bytes: int) -> deque[Record]:
        """The device's records of the lane if the first may go now, else nothing."""
        records = queue.live if lane is Lane.LIVE else queue.history
        nothing: deque[Record] = deque()
        if queue.is_busy or (queue.device and not self._sub_devices.may_send(queue.device)):
            return nothing
        if lane is Lane.HISTORY and queue.live and not self._is_live_first:
            return nothing
        name_bytes = DEVICE_BYTES + (len(self._sub_devices.json_name(queue.device)) if queue.device else 0)
        while records and len(records[0].body) + ENTRY_BYTES + name_bytes > packet_bytes:
            record = records.popleft()
            self._out[record.number] = record
            self.done([record])
            self._count_dropped("too large", 1, record)
        if records and not self._has_time(records[0]):
            self._timeless[queue.device] = queue
            return nothing
        if not records:
            self._offer(queue)
        return records

    def _has_time(self, record: Record) -> bool:
        if not record.ts_ms and record.content is Content.TELEMETRY:
            ts_ms = self._clock.resolve(record)
            if ts_ms is None:
                return False
            record.ts_ms = ts_ms
        return True

    def _time_is_known(self) -> None:
        waiting, self._timeless = self._timeless, {}
        for queue in waiting.values():
            self._offer(queue)
        if waiting:
            self._wake()

    def _settle_deleted(self, records: list[Record]) -> None:
        for record in records:
            self._out[record.number] = record
        self.done(records)
        if records:
            self._count_dropped("deleted", len(records), None)

    def _leave(self, record: Record) -> None:
        if record.lane is Lane.LIVE:
            self.live_records -= 1
            self.live_bytes -= len(record.body) + RECORD_BYTES
        else:
            self._held.discard(record.number)
            self._stuck.discard(record.number)
            self._lower(self._queues[record.device], 1)

    def _lower(self, queue: DeviceQueue, count: int) -> None:
        count = min(count, queue.backlog)
        queue.backlog -= count
        self.backlog -= count
