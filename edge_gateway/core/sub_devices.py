"""The devices behind the gateway: who they are, and what the core has been told of them.

Here: names and types, the states of `presence.NEXT`, the order of announcements. Not here: publishing (the relay asks
`next_announcement`), records (the relay), connectors.

Announcements after a reconnect: those with waiting data first, then the rest, all through the relay's window. A device
that another connector or another type claims is changed at most once a minute, so that two sources that contradict
each other cannot flood the core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from edge_gateway.core.admission import Admission, shown, type_refusal
from edge_gateway.core.clock import Timers
from edge_gateway.core.presence import Event, State, next_state
from edge_gateway.model import Refusal, SubDevice
from edge_gateway.settings import Devices
from edge_gateway.storage.interface import SubDeviceStore

GRACE_S = 10.0
CHANGE_S = 60.0  # between two changes of connector or type
RETRY_MIN_S = 10.0  # after the core refused a connect; doubles
RETRY_MAX_S = 600.0
KEEP_SEEN_S = 600.0  # how often "last seen" is remembered
NAME_HELD_S = 600.0  # so long after its last word nobody else takes the name that a device has at the core
LOOK_ROUND_S = 1.0

AT_THE_CORE = (State.ANNOUNCING, State.ONLINE, State.LEAVING)
MAY_SEND = (State.ONLINE, State.LEAVING)


class RenameRefused(Exception):
    """`str()` is the answer to the core."""


@dataclass(slots=True, eq=False)
class Entry:
    """One device. `json_name` is the core's name as JSON, ready for payloads; `connect` the last connect's payload."""

    kept: SubDevice
    json_name: bytes
    state: State = State.KNOWN
    seen_s: float = 0.0
    changed_s: float = float("-inf")
    until_s: float = 0.0  # of grace, or of the wait after a refusal
    refusals: int = 0
    has_spoken: bool = False  # since the start of the gateway
    is_away: bool = False
    is_first: bool = False  # among the first to be announced
    is_queued: bool = False
    denied: Refusal | None = None
    connect: bytes = b""


class SubDevices:
    """The registry.

    Whoever sends sets `ready(device)`: data of it may go now; `wake()`: there is something to announce;
    `disconnect(upstream_name)`: tell the core; `on_changed(device)`: it must be announced anew, maybe by another name;
    `on_barred(device)`: the core refused it; `on_deleted(device)`: drop what waits of it. Whoever remembers
    what devices said sets `on_forgotten(device)`. `wall_ms` gives 0 while the time is unknown.
    """

    def __init__(self, *, settings: Devices, store: SubDeviceStore, timers: Timers, wall_ms: Callable[[], int]) -> None:
        self._store = store
        self._timers = timers
        self._wall_ms = wall_ms
        self.ready: Callable[[str], None] = lambda device: None
        self.wake: Callable[[], None] = lambda: None
        self.disconnect: Callable[[str], None] = lambda upstream_name: None
        self.on_changed: Callable[[str], None] = lambda device: None
        self.on_barred: Callable[[str], None] = lambda device: None
        self.on_deleted: Callable[[str], None] = lambda device: None
        self.on_forgotten: Callable[[str], None] = lambda device: None
        self._settings = settings
        self._admission = Admission(settings)
        self._entries: dict[str, Entry] = {}
        self._by_upstream: dict[str, str] = {}
        self._first: deque[Entry] = deque()
        self._rest: deque[Entry] = deque()
        self._waiting: set[str] = set()  # in grace, or refused by the core
        self._seen_since: set[str] = set()
        self._kept_seen_s = timers.seconds()
        self._count = 0
        self._is_connected = False
        self.contradictions = 0
        for device in store.sub_devices():
            entry = Entry(device, msgspec.json.encode(device.upstream_name))
            entry.state = State.DELETED if device.is_deleted else State.KNOWN
            entry.denied = self._admission.refusal(device.name)
            entry.is_away = entry.denied is not None
            self._add(entry)

    # -- from the connectors

    def admit(self, name: str, type: str, connector: str) -> Refusal | None:
        """A device speaks or was seen: registers it, or says why it may not come in. Called for every reading."""
        entry = self._entries.get(name)
        if entry is None or entry.state is State.DELETED:
            admission = self._admission
            refusal = (
                admission.refusal(name)
                or type_refusal(name, type)
                or self._taken(name)
                or admission.full(name, self._count)
            )
            if refusal is None:
                self._register(name, type, connector, entry)
            return refusal
        if entry.denied is not None:
            return entry.denied
        if type and type != entry.kept.type and (refusal := type_refusal(name, type)) is not None:
            return refusal
        entry.seen_s, entry.has_spoken = self._timers.seconds(), True
        self._seen_since.add(name)
        if entry.is_away or entry.state is State.LEFT:
            entry.is_away = False
            self._advance(entry, Event.SPOKE)
        kept = entry.kept
        if kept.connector != connector or (type and kept.type != type):
            self._correct(entry, type or kept.type, connector)
        return None

    def gone(self, name: str) -> None:
        """A connector saw the device go; unknown ones are fine."""
        entry = self._entries.get(name)
        if entry is not None and entry.state is not State.DELETED and not entry.is_away:
            self._went(entry)

    def apply(self, settings: Devices) -> None:
        """New settings. Devices that they refuse leave the core; what they said before is still sent."""
        self._settings = settings
        self._admission = Admission(settings)
        for entry in self._entries.values():
            entry.denied = self._admission.refusal(entry.kept.name)
            if entry.denied is not None and entry.state is not State.DELETED and not entry.is_away:
                self._went(entry)

    # -- from the core

    def renamed(self, names: Mapping[str, str]) -> None:
        """The core renamed devices, old name to new; all at once, so that names may be exchanged.

        Raises: RenameRefused, before anything is changed."""
        found = [(self._entries[self._by_upstream[old]], new) for old, new in names.items() if old in self._by_upstream]
        moving = {entry.kept.name for entry, _ in found}
        taken = [new for _, new in found if self._by_upstream.get(new, next(iter(moving))) not in moving]
        if taken:
            raise RenameRefused(
                f"another device behind this gateway is called {shown(taken[0])}: rename that one first"
            )
        if len({new for _, new in found}) != len(found):
            raise RenameRefused("two devices cannot get the same name")
        for _, new in found:
            refusal = Admission(Devices()).refusal(new)  # a possible name; allow and deny are for the mapping's names
            if refusal is not None:
                raise RenameRefused(refusal.reason)
        for entry, _ in found:
            self._by_upstream.pop(entry.kept.upstream_name, None)
        for entry, new in found:
            self._change(entry, replace(entry.kept, upstream_name=new))

    def deleted(self, upstream_name: str) -> bool:
        """The core deleted a device: it is forgotten, with all that waits of it, until it speaks again. Whether it
        was known."""
        entry = self._entries.get(self._by_upstream.get(upstream_name, ""))
        if entry is None or entry.state is State.DELETED:
            return False
        self._advance(entry, Event.DELETED)
        self._count -= 1
        del self._by_upstream[upstream_name]
        entry.kept = replace(entry.kept, upstream_name=entry.kept.name, is_deleted=True)
        self._store.remember([entry.kept])
        self.on_forgotten(entry.kept.name)
        self.on_deleted(entry.kept.name)
        return True

    # -- for the relay

    def connected(self) -> None:
        """A new connection: everybody is announced again."""
        self._is_connected = True
        for entry in self._entries.values():
            if entry.state is State.KNOWN and not entry.is_away:
                self._queue(entry)

    def ended(self) -> None:
        """The connection is over."""
        self._is_connected = False
        self._first.clear()
        self._rest.clear()
        self._waiting.clear()
        for entry in self._entries.values():
            entry.is_queued = entry.is_first = False
            entry.connect = b""
            self._advance(entry, Event.ENDED)

    def wants(self, name: str) -> bool:
        """Data of the device waits. Whether it may go now; if not, `ready` is called when it may."""
        entry = self._entries.get(name)
        if entry is None:
            return self._adopt(name)
        if entry.state in MAY_SEND:
            return True
        if entry.state is not State.DELETED:
            self._advance(entry, Event.DATA_WAITS)
            self._queue(entry, is_first=True)
        return False

    def may_send(self, name: str) -> bool:
        """Whether the core has been told of the device on this connection."""
        entry = self._entries.get(name)
        return entry is not None and entry.state in MAY_SEND

    def is_barred(self, name: str) -> bool:
        """Whether data of the device must wait for long: the core refused it."""
        entry = self._entries.get(name)
        return entry is not None and entry.state is State.REFUSED

    def is_deleted(self, name: str) -> bool:
        """Whether the core deleted it and it has not spoken since."""
        entry = self._entries.get(name)
        return entry is not None and entry.state is State.DELETED

    def json_name(self, name: str) -> bytes:
        """The core's name of the device, as JSON."""
        return self._entries[name].json_name

    def next_announcement(self, *, only_first: bool = False) -> tuple[str, bytes] | None:
        """The next device to announce with the payload of its connect; it is taken for published then."""
        while self._first or (self._rest and not only_first):
            entry = (self._first or self._rest).popleft()
            if entry.state is not State.KNOWN or not entry.is_queued:
                continue
            entry.is_queued = entry.is_first = False
            entry.connect = b'{"device":%b,"type":%b}' % (entry.json_name, msgspec.json.encode(entry.kept.type))
            self._advance(entry, Event.SENT)
            return entry.kept.name, entry.connect
        return None

    def announced(self, name: str, payload: bytes, code: int) -> None:
        """The core's answer to a connect."""
        entry = self._entries[name]
        if entry.state not in (State.ANNOUNCING, State.LEAVING) or entry.connect is not payload:
            return  # renamed or deleted meanwhile
        if entry.state is State.LEAVING:
            self.ready(name)
        elif code == 0:
            entry.refusals = 0
            self._advance(entry, Event.ACKNOWLEDGED)
            if entry.is_away:
                self._went(entry)
            self.ready(name)
        else:
            self._advance(entry, Event.REJECTED)
            wait_s = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(entry.refusals, 10))
            entry.refusals += 1
            self._wait(entry, wait_s)
            self.on_barred(name)

    # -- time

    def look_round(self) -> None:
        """Ends graces and waits, and finds the silent; call it once a second."""
        now_s = self._timers.seconds()
        for name in [name for name in self._waiting if self._entries[name].until_s <= now_s]:
            self._waiting.discard(name)
            entry = self._entries[name]
            if entry.state is State.REFUSED:
                self._advance(entry, Event.RETRY)
                self._queue(entry)
            elif entry.state is State.LEAVING:
                self._advance(entry, Event.GRACE_OVER)
                self.disconnect(entry.kept.upstream_name)
        silent_s = self._settings.inactivity
        if silent_s > 0 and self._is_connected:
            for entry in self._entries.values():
                if entry.state is State.ONLINE and not entry.is_away and now_s - entry.seen_s >= silent_s:
                    self._went(entry, grace_s=0.0)
        if now_s - self._kept_seen_s >= KEEP_SEEN_S:
            self.keep_seen()

    def keep_seen(self) -> None:
        """Remembers when devices were last seen."""
        self._kept_seen_s = self._timers.seconds()
        wall_ms = self._wall_ms()
        seen = [self._entries[name] for name in self._seen_since]
        self._seen_since.clear()
        if not wall_ms or not seen:
            return
        for entry in seen:
            ago_ms = round((self._kept_seen_s - entry.seen_s) * 1000)
            entry.kept = replace(entry.kept, last_seen_ms=wall_ms - ago_ms)
        self._store.remember([entry.kept for entry in seen])

    # -- for people and for calls

    def by_upstream_name(self, upstream_name: str) -> SubDevice | None:
        """The device that the core calls so."""
        entry = self._entries.get(self._by_upstream.get(upstream_name, ""))
        return entry.kept if entry is not None and entry.state is not State.DELETED else None

    def device(self, name: str) -> SubDevice | None:
        """The device that the mapping calls so."""
        entry = self._entries.get(name)
        return entry.kept if entry is not None and entry.state is not State.DELETED else None

    def listing(self) -> list[tuple[SubDevice, State]]:
        """All devices that are not deleted, with their states."""
        return [(entry.kept, entry.state) for entry in self._entries.values() if entry.state is not State.DELETED]

    @property
    def count(self) -> int:
        return self._count

    # -- inside

    def _register(self, name: str, type: str, connector: str, entry: Entry | None) -> None:
        device = SubDevice(
            name=name,
            upstream_name=name,
            type=type or self._settings.default_type,
            connector=connector,
            last_seen_ms=self._wall_ms(),
        )
        if entry is None:
            entry = Entry(device, msgspec.json.encode(name))
            self._add(entry)
        else:
            self._set(entry, device)
            self._count += 1
            entry.is_away, entry.denied = False, None
            self._advance(entry, Event.SPOKE)
        entry.seen_s, entry.has_spoken = self._timers.seconds(), True
        self._store.remember([device])
        self._queue(entry)

    def _taken(self, name: str) -> Refusal | None:
        """A device goes by its own name at first; another one may have it at the core after a rename. A silent one
        gives it up: then it is the same machine, and the mapping follows the rename."""
        other = self._entries.get(self._by_upstream.get(name, ""))
        if other is None or not other.has_spoken or self._timers.seconds() - other.seen_s >= NAME_HELD_S:
            return None
        return Refusal(
            reason=f"device {shown(name)} would be taken for device {shown(other.kept.name)}, which was renamed to "
            f"{shown(name)} at the core: rename that one, or change `device` of the map",
            retry_after_s=60.0,
        )

    def _adopt(self, name: str) -> bool:
        """A record of a device that nobody remembers: the table of devices was lost; the record shall not be."""
        self._register(name, "", "", None)
        self._queue(self._entries[name], is_first=True)
        return False

    def _add(self, entry: Entry) -> None:
        self._entries[entry.kept.name] = entry
        if entry.state is not State.DELETED:
            self._by_upstream[entry.kept.upstream_name] = entry.kept.name
            self._count += 1

    def _set(self, entry: Entry, device: SubDevice) -> None:
        if self._by_upstream.get(entry.kept.upstream_name) == device.name:
            del self._by_upstream[entry.kept.upstream_name]
        self._by_upstream[device.upstream_name] = device.name
        entry.json_name = msgspec.json.encode(device.upstream_name)
        entry.kept = device

    def _correct(self, entry: Entry, type: str, connector: str) -> None:
        if entry.seen_s - entry.changed_s < CHANGE_S:
            self.contradictions += 1
            return
        entry.changed_s = entry.seen_s
        self._change(entry, replace(entry.kept, type=type, connector=connector))

    def _change(self, entry: Entry, device: SubDevice) -> None:
        must_tell = (device.type, device.upstream_name) != (entry.kept.type, entry.kept.upstream_name)
        self._set(entry, device)
        self._store.remember([device])
        if must_tell:
            self._advance(entry, Event.CHANGED)
            if not entry.is_away:
                self._queue(entry)
            self.on_changed(device.name)

    def _went(self, entry: Entry, grace_s: float = GRACE_S) -> None:
        entry.is_away = True
        self._advance(entry, Event.WENT)
        if entry.state is State.LEAVING:
            self._wait(entry, grace_s)

    def _wait(self, entry: Entry, wait_s: float) -> None:
        entry.until_s = self._timers.seconds() + wait_s
        self._waiting.add(entry.kept.name)

    def _advance(self, entry: Entry, event: Event) -> None:
        entry.state = next_state(entry.state, event)
        if entry.state is State.KNOWN and event is Event.SPOKE:
            self._queue(entry)

    def _queue(self, entry: Entry, *, is_first: bool = False) -> None:
        """Among the rest, or moved up to the first."""
        if not self._is_connected or entry.state is not State.KNOWN:
            return
        if entry.is_queued and (entry.is_first or not is_first):
            return
        entry.is_queued, entry.is_first = True, is_first
        (self._first if is_first else self._rest).append(entry)
        self.wake()
