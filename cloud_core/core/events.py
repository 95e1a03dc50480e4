"""What happens, told to operators as it happens: a hub in memory; other nodes' come in with each flush.

Each event has a number; the newest stay in a buffer, and a listener is a place in it, so that one who lost its
connection goes on where it was. An event costs the buffer one entry, however many listen: they are woken together,
some times a second. Who is behind by much, because it is slow or much happens, gets one event `gap` in the place of
what it has missed: the lists over REST have it all.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import msgspec

from cloud_core.core.people.logins import Operator
from cloud_core.core.provisioning import SUCCESS, Decided
from cloud_core.core.tokens import new_reference
from cloud_core.core.traffic import Traffic
from cloud_core.fabric.alone import Alone
from cloud_core.fabric.interface import Fabric
from cloud_core.model import Attempt, AuditEntry, Identity, ProvisionStrategy
from shared.errors import ApprovalPending, Reason, Unavailable

KEPT = 2_000  # events that can be asked for again
MAX_AT_ONCE = 250  # events, of whichever tenants, that a listener may be behind
FLUSH_S = 0.25
MAX_LISTENERS = 400
MAX_OF_ONE = 20  # connections of one user or API key
MAX_BEATS = 240  # then a listener has to come again, with a token that is still good
GAP = "gap"


@dataclass(frozen=True)
class Event:
    """`tenant_id` None: of nobody's, as the attempts of devices that showed no known key are."""

    number: int
    kind: str
    tenant_id: int | None
    data: dict[str, Any]
    at_ms: int = 0

    @cached_property
    def encoded(self) -> bytes:
        """`data` as JSON: made once for all who listen."""
        return msgspec.json.encode(self.data)


@dataclass(slots=True, eq=False)
class Listener:
    """A connection's place. `wake` is called when there may be something to take, and for each beat."""

    operator: Operator
    wake: Callable[[], None]
    end: Callable[[], None]
    seen: int  # number of the last event that was taken or passed over
    beats: int = 0

    def may_hear(self, event: Event) -> bool:
        """As the lists show it."""
        if event.tenant_id is None:
            return self.operator.sees_unassigned
        return event.tenant_id == self.operator.tenant_id


class Events:
    """Everything runs in the reactor thread.

    `call_later`: as the reactor's; without it listeners are woken for each event, at once.
    """

    def __init__(self, call_later: Callable[..., Any] | None = None, *, fabric: Fabric | None = None) -> None:
        self.traffic = Traffic()
        self.untold: deque[Event] = deque(maxlen=MAX_AT_ONCE)  # published here since other nodes were told
        self.untold_count = 0  # how many there were, with those that `untold` has lost
        self.on_flush: Callable[[], None] = _nothing  # other nodes are told
        self._fabric = fabric or Alone()
        self.epoch = new_reference()  # numbers of another run of the program mean nothing here
        self._call_later = call_later
        self._is_flush_due = False
        self._number = 0
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[Listener] = set()
        self._last: dict[tuple[int | None, str], int] = {}  # tenant and kind -> number of the newest

    def last_number(self, tenant_id: int, kind: str) -> int:
        """Of the newest event of this kind, kept or not; 0 for none."""
        return self._last.get((tenant_id, kind), 0)

    def publish(self, tenant_id: int | None, kind: str, data: dict[str, Any]) -> None:
        """`data` holds no secret."""
        self._number += 1
        self._last[tenant_id, kind] = self._number
        event = Event(self._number, kind, tenant_id, data, int(time.time() * 1000))
        self._kept.append(event)
        if self._fabric.others:
            self.untold.append(event)
            self.untold_count += 1
            self._wake_soon()
        elif self._listeners:
            self._wake_soon()

    def heard(self, events: Iterable[Event], left_out: int) -> None:
        """What was published at another node, which gets numbers of this one. `left_out`: of before, not told."""
        if left_out:
            self._number += max(left_out, MAX_AT_ONCE + 1)  # whoever was listening hears of a gap
        for one in events:
            self._number += 1
            self._last[one.tenant_id, one.kind] = self._number
            self._kept.append(Event(self._number, one.kind, one.tenant_id, one.data, one.at_ms))
        if self._listeners:
            self._wake_soon()

    def _wake_soon(self) -> None:
        if self._is_flush_due:
            return
        if self._call_later is None:
            self._flush()
        else:
            self._is_flush_due = True
            self._call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        for listener in tuple(self._listeners):
            if listener.seen < self._number:
                listener.wake()
        if self._fabric.others:
            self.on_flush()

    def take(self, listener: Listener) -> list[Event]:
        """What has come since the last time, oldest first."""
        behind = self._number - listener.seen
        listener.seen = self._number
        if behind > min(MAX_AT_ONCE, len(self._kept)):
            return [Event(self._number, GAP, None, {})]
        return [one for one in islice(self._kept, len(self._kept) - behind, None) if listener.may_hear(one)]

    def listen(self, operator: Operator, last_id: str, wake: Callable[[], None], end: Callable[[], None]) -> Listener:
        """`last_id`: of the last event that was seen, empty for none. Raises: Unavailable."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise Unavailable(f"{MAX_LISTENERS} listen already", retry_after_s=30.0)
        if sum(one.operator.user_uuid == operator.user_uuid for one in self._listeners) >= MAX_OF_ONE:
            raise Unavailable(f"This login listens on {MAX_OF_ONE} connections already; close one", retry_after_s=30.0)
        listener = Listener(operator, wake, end, self._seen_by(last_id))
        self._listeners.add(listener)
        return listener

    def _seen_by(self, last_id: str) -> int:
        """The number behind which to go on; one that is too far behind, for a gap, where that is not known."""
        if not last_id:
            return self._number
        epoch, _, text = last_id.rpartition("-")
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else -1
        return number if epoch == self.epoch and 0 <= number <= self._number else self._number - KEPT - 1

    def recent(self, operator: Operator, kind: str, most: int, **members: Any) -> list[Event]:
        """Of those that are kept, the newest whose data have these members; newest first."""
        mine = Listener(operator, _nothing, _nothing, seen=0)
        found = (
            event for event in reversed(self._kept)
            if event.kind == kind and mine.may_hear(event) and members.items() <= event.data.items()
        )  # fmt: skip
        return list(islice(found, most))

    def id_of(self, event: Event) -> str:
        return f"{self.epoch}-{event.number}"

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    def beat(self) -> None:
        """Called every some seconds: connections stay open, and dead ones are found."""
        for listener in tuple(self._listeners):
            listener.beats += 1
            if listener.beats > MAX_BEATS:
                listener.end()
            else:
                listener.wake()

    def stop(self) -> None:
        """The core stops: all connections end."""
        for listener in tuple(self._listeners):
            listener.end()

    # -- what is told -----------------------------------------------------------------------------

    def recorded(self, entry: AuditEntry) -> None:
        """An operator has decided something."""
        data = {
            "number": entry.number, "actor": entry.actor, "action": entry.action, "entityType": entry.entity_type,
            "entityName": entry.name, "detail": entry.detail, "time": entry.at_ms,
        }  # fmt: skip
        self.publish(entry.tenant_id, "audit", data)
        if entry.entity_type == "PROVISION_REQUEST":
            decided = {"status": entry.action, "deviceName": entry.name, "actor": entry.actor, "time": entry.at_ms}
            self.publish(entry.tenant_id, "approval", decided)

    def attempted(self, decision: Decided) -> None:
        """A device has asked to be provisioned."""
        line = decision.line
        profile = decision.shown.profile if decision.shown is not None else None
        creates = profile is not None and profile.provision.strategy is ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES
        profile_name = profile.name if profile is not None else None
        self.logged(line, profile_name, is_new_device=creates and line.outcome == SUCCESS)
        if isinstance(decision.outcome, ApprovalPending):
            self.publish(line.tenant_id, "approval", {"status": "PENDING"} | _device_of(line, profile_name))

    def logged(self, line: Attempt, profile_name: str | None = None, *, is_new_device: bool = False) -> None:
        """A line of the provisioning log, by whichever door. Rationed ones are in the lists alone: whoever is refused
        in masses shall not push everything else out of the buffer."""
        self.traffic.count(line)
        if self._fabric.others:
            self.traffic.note(line)
            self._wake_soon()
        if line.outcome == Reason.RATE_LIMITED.value:
            return
        device = _device_of(line, profile_name)
        said = {"ref": line.ref or None, "outcome": line.outcome, "stage": line.stage, "detail": line.detail}
        self.publish(line.tenant_id, "attempt", said | device)
        if is_new_device:
            self.publish(line.tenant_id, "deviceCreated", device)

    def gateway_session(self, identity: Identity, is_open: bool) -> None:
        """A gateway's session has begun or ended."""
        data = {"deviceName": identity.device_name, "deviceId": str(identity.device_uuid), "connected": is_open}
        self.publish(identity.tenant_id, "gateway", data)


def _nothing() -> None:
    """Nobody listens."""


def _device_of(line: Attempt, profile_name: str | None) -> dict[str, Any]:
    return {
        "deviceName": line.device_name, "profileName": profile_name, "source": line.peer.address,
        "transport": line.peer.transport.value, "time": line.at_ms,
    }  # fmt: skip
