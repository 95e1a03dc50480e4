"""When devices connect, speak and fall silent: gathered in memory, written together every few seconds.

Memory holds the devices that are active, those that are connected, and what is still to be written. Time of activity
is kept to the interval of `flush`, as ThingsBoard reports it.

Where several nodes share the database, each holds those that it has heard of itself, and none of them alone knows that
a device is silent: it becomes inactive where the database has no later sign of it. Devices that no living node has
heard of are looked for by one node for all. When a node dies, nobody has seen its devices leave: the time of their
last disconnect stays as it was, and they are inactive when they have been silent for too long.

Source: wire-contract.md section 6.3 (`active`, `lastConnectTime` and so on), G8 and G9 of section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from twisted.logger import Logger

from cloud_core.core.nodes.leases import Leases
from cloud_core.model import DevicePresence
from cloud_core.storage.interface import ReadTx, Store, Tx
from shared.errors import PlatformError

DEFAULT_INACTIVITY_S = 600.0
DEFAULT_FLUSH_S = 3.0
CHECK_S = 60.0  # how often `check` is due
LEASE_S = 90.0
MAX_ROWS_PER_FLUSH = 2_000  # some 10 ms of the writer's time

log = Logger()
_NO_FLUSH_YET_MS = 2**62
_TIMES = ("last_connect_ms", "last_disconnect_ms", "last_activity_ms", "inactivity_alarm_ms")


class Presence:
    """Nothing here waits for the disk: what a crash loses is a few seconds of presence."""

    def __init__(
        self,
        *,
        store: Store,
        now_ms: Callable[[], int],
        inactivity_s: float = DEFAULT_INACTIVITY_S,
        flush_s: float = DEFAULT_FLUSH_S,
        leases: Leases | None = None,
    ) -> None:
        self._store = store
        self._is_shared = store.node is not None
        self._leases = leases or Leases(store, now_ms)
        self._now_ms = now_ms
        self._inactivity_ms = int(inactivity_s * 1000)
        self._flush_ms = int(flush_s * 1000)
        self._active: dict[int, int] = {}  # device number -> last activity as it was written, longest silent first
        self._spoke: dict[int, int] = {}  # active ones heard of since -> not later than when; longest waiting first
        self._changed: dict[int, DevicePresence] = {}  # other changes to be written
        self._connected: set[int] = set()
        self._timeouts: dict[int, int] = {}  # ms, where a device has its own
        self._next_flush_ms = _NO_FLUSH_YET_MS
        self._is_writing = False

    def start(self) -> None:
        """Reads who was active when the core stopped."""
        if self._is_shared:
            self.read_timeouts()
        else:
            self._store.read(_known, (), self._started)

    def read_timeouts(self) -> None:
        """Reads the times that devices have of their own."""
        self._store.read(_timeouts, (), self._timeouts_read)

    def _timeouts_read(self, outcome: dict[int, int] | PlatformError) -> None:
        if isinstance(outcome, PlatformError):
            log.error(
                "Which devices have an inactivity time-out of their own is not known: {error}", error=str(outcome)
            )
        else:
            self._timeouts = outcome

    def _started(self, outcome: tuple[list[DevicePresence], dict[int, int]] | PlatformError) -> None:
        if isinstance(outcome, PlatformError):
            log.error("Who was active before is not known: {error}", error=str(outcome))
            return
        were_active, timeouts = outcome
        self._active = {one.device_id: one.last_activity_ms for one in were_active} | self._active
        self._timeouts = timeouts | self._timeouts

    # -- what happens to devices ------------------------------------------------------------------

    def connected(self, device_id: int) -> None:
        """A session was opened, which counts as activity."""
        self._connected.add(device_id)
        self._change(device_id).last_connect_ms = self._now_ms()
        self.seen(device_id)

    def disconnected(self, device_id: int) -> None:
        """The device's last session ended."""
        self._connected.discard(device_id)
        self._change(device_id).last_disconnect_ms = self._now_ms()

    def moved(self, device_id: int, since_ms: int) -> None:
        """Another node has the device: that its sessions here have ended since is no news."""
        self._connected.discard(device_id)
        change = self._changed.get(device_id)
        if change is not None and change.last_disconnect_ms >= since_ms:
            change.last_disconnect_ms = 0

    def seen(self, device_id: int) -> None:
        """The device said something. On the path of every message."""
        if device_id in self._active:
            self._spoke[device_id] = self._next_flush_ms
        else:
            self._woke(device_id)

    def all_seen(self, device_ids: Iterable[int]) -> None:
        """As `seen` for many."""
        for device_id in device_ids:
            self.seen(device_id)

    def forget(self, device_id: int) -> None:
        """The device was deleted."""
        self._connected.discard(device_id)
        for known in (self._active, self._spoke, self._changed, self._timeouts):
            known.pop(device_id, None)

    def timeout_changed(self, device_id: int, timeout_ms: int | None) -> None:
        """The server attribute `inactivityTimeout` was written or deleted; counts from the next `check` on."""
        if timeout_ms is None:
            self._timeouts.pop(device_id, None)
        else:
            self._timeouts[device_id] = timeout_ms

    def _woke(self, device_id: int) -> None:
        self._active[device_id] = now_ms = self._now_ms()
        change = self._change(device_id)
        change.is_active = True
        change.last_activity_ms = now_ms

    def _change(self, device_id: int) -> DevicePresence:
        change = self._changed.get(device_id)
        if change is None:
            change = DevicePresence(device_id=device_id, is_active=device_id in self._active)
            self._changed[device_id] = change
        return change

    # -- what is done about it --------------------------------------------------------------------

    def check(self) -> None:
        """Called once a minute: who has been silent for too long is not active any more."""
        now_ms = self._now_ms()
        for device_id in self._silent(now_ms):
            del self._active[device_id]
            self._spoke.pop(device_id, None)
            change = self._change(device_id)
            change.is_active = False
            change.inactivity_alarm_ms = now_ms
            change.silent_since_ms = now_ms - self._timeouts.get(device_id, self._inactivity_ms)
        if self._is_shared:
            self._leases.having("presence", LEASE_S, self._look_for_the_lost)

    def _look_for_the_lost(self) -> None:
        """Devices that are active as far as the database says, and silent for everybody: of nodes that are gone."""
        slack_ms = 2 * self._flush_ms  # what other nodes have heard may not be written yet
        args = (self._now_ms() - slack_ms, self._inactivity_ms, dict(self._timeouts))
        self._store.survey(_lost, args, self._found_lost)

    def _found_lost(self, outcome: list[DevicePresence] | PlatformError) -> None:
        if isinstance(outcome, PlatformError):
            log.warn("Devices of nodes that are gone are looked for later: {error}", error=str(outcome))
            return
        rows = [row for row in outcome if row.device_id not in self._active]
        for start in range(0, len(rows), MAX_ROWS_PER_FLUSH):
            self._store.submit(_put, (rows[start : start + MAX_ROWS_PER_FLUSH],), _written)

    def _silent(self, now_ms: int) -> list[int]:
        """From the longest silent to the first that is not silent for too long; and those with times of their own."""
        silent = []
        for device_id, last_ms in self._active.items():
            if now_ms - last_ms < self._inactivity_ms:
                break
            if device_id not in self._timeouts and self._silence_ms(device_id, now_ms) >= self._inactivity_ms:
                silent.append(device_id)
        for device_id, timeout_ms in self._timeouts.items():
            if device_id in self._active and self._silence_ms(device_id, now_ms) >= timeout_ms:
                silent.append(device_id)
        return silent

    def _silence_ms(self, device_id: int, now_ms: int) -> int:
        return now_ms - min(now_ms, self._spoke.get(device_id, self._active[device_id]))

    def flush(self) -> None:
        """Called every few seconds: writes what has changed; when it is much, the rest next time."""
        now_ms = self._now_ms()
        self._next_flush_ms = now_ms + self._flush_ms
        if not self._is_writing:  # else the store is slow: what comes in meanwhile is one row for each device
            self._write(self._take(MAX_ROWS_PER_FLUSH, now_ms))

    def stop(self) -> None:
        """The core stops: whoever is still connected is disconnected, and all that is unwritten is handed over."""
        for device_id in list(self._connected):
            self.disconnected(device_id)
        self._write(self._take(len(self._changed) + len(self._spoke), self._now_ms()))

    def _take(self, most: int, now_ms: int) -> list[DevicePresence]:
        """Changes first: they are what people watch. Both queues first come, first served."""
        rows = []
        for device_id in list(islice(self._changed, most)):
            rows.append(self._changed.pop(device_id))
        for device_id in list(islice(self._spoke, most - len(rows))):
            last_ms = min(now_ms, self._spoke.pop(device_id))
            del self._active[device_id]
            self._active[device_id] = last_ms  # to the end: `check` starts at the longest silent
            rows.append(DevicePresence(device_id=device_id, is_active=True, last_activity_ms=last_ms))
        return rows

    def _write(self, rows: list[DevicePresence]) -> None:
        if not rows:
            return

        def written(outcome: PlatformError | None) -> None:
            self._is_writing = False
            if outcome is not None:
                log.warn("Presence is written later: {error}", error=str(outcome))
                self._put_back(rows)

        self._is_writing = True
        self._store.submit(_put, (rows,), written)

    def _put_back(self, rows: list[DevicePresence]) -> None:
        """What could not be written goes with the next flush, unless something newer is known."""
        for row in rows:
            newer = self._change(row.device_id)
            for name in (*_TIMES, "silent_since_ms"):
                setattr(newer, name, max(getattr(newer, name), getattr(row, name)))


def _known(tx: ReadTx) -> tuple[list[DevicePresence], dict[int, int]]:
    return tx.active_devices(), tx.inactivity_timeouts()


def _timeouts(tx: ReadTx) -> dict[int, int]:
    return tx.inactivity_timeouts()


def _lost(tx: ReadTx, now_ms: int, inactivity_ms: int, timeouts: dict[int, int]) -> list[DevicePresence]:
    """Each as it is to be written."""
    rows = []
    for one in tx.silent_devices(now_ms - min(inactivity_ms, *timeouts.values(), inactivity_ms)):
        since_ms = now_ms - timeouts.get(one.device_id, inactivity_ms)
        if one.last_activity_ms <= since_ms:
            rows.append(DevicePresence(device_id=one.device_id, inactivity_alarm_ms=now_ms, silent_since_ms=since_ms))
    return rows


def _written(outcome: object) -> None:
    if isinstance(outcome, PlatformError):
        log.warn("Devices of nodes that are gone become inactive later: {error}", error=str(outcome))


def _put(tx: Tx, rows: list[DevicePresence]) -> None:
    tx.put_presence(rows)
