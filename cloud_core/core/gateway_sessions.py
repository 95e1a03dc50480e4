"""One gateway's connection and the sub-devices on it; offered to others through `gateways`.

The store's writer is first in, first out: samples of known devices are appended as they are, the first word
of an unknown one is a decision that finds or creates it and stores in one. So what a gateway sends takes
effect in the order it was sent, and two gateways that race for a name end with one device.

Source: wire-contract.md section 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from twisted.logger import Logger

from cloud_core.core import sub_devices
from cloud_core.core.attributes import AttributesApi
from cloud_core.core.claiming import ClaimsApi
from cloud_core.core.downlinks import Delivery, Downlinks, Ending, Interest, Whereabouts
from cloud_core.core.gateway_metrics import GatewayMetrics
from cloud_core.core.presence import Presence
from cloud_core.core.rpc.commands import RpcApi
from cloud_core.core.sub_devices import Context, Joined, Outcomes, Rules, Wanted
from cloud_core.model import Identity
from cloud_core.storage.interface import Done, Store, Tx
from shared.errors import NotFound, PlatformError, QuotaExceeded, RateLimited
from shared.messages import (
    Attributes,
    AttributesAnswer,
    AttributesChange,
    AttributesRequest,
    ClaimRequest,
    RpcCommand,
    Sample,
)

log = Logger()
MAX_LOGGED_REFUSALS = 1_000  # of one session; each device once
PING_INTERVAL_MS = 1_000  # a ping sooner after the last says nothing new: activity is written every few seconds
_EVERYTHING = Interest.ATTRIBUTES | Interest.COMMANDS


class Dropped(IntEnum):
    """Why data of a sub-device were dropped; the number is what MQTT 5 gateways are told."""

    OTHER = 128
    MALFORMED = 129
    RATE_LIMITED = 150


class GatewayLink(Protocol):
    """The gateway's connection, as its session needs it; called in the reactor thread."""

    def attributes_changed(self, device: str, change: AttributesChange) -> None: ...
    def command(self, device: str, command: RpcCommand, delivery: Delivery) -> None: ...
    def dropped(self, device: str, why: Dropped) -> None:
        """Tell the gateway, where its protocol can (wire-contract.md section 5.6)."""

    def ended(self, device: str) -> None:
        """The sub-device's session ended here: deleted, or taken over by another connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all sessions share."""

    store: Store
    downlinks: Downlinks
    attributes: AttributesApi
    rpc: RpcApi
    claims: ClaimsApi
    presence: Presence
    now_ms: Callable[[], int]
    rules: Rules
    max_sub_devices: int
    on_session: Callable[[Identity, bool], None]  # a session has begun (True) or ended
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)
    dropped: Counter[Dropped] = field(default_factory=Counter)  # messages and entries since the start
    sessions: set[GatewaySession] = field(default_factory=set)


class SubSession:
    """One sub-device as a downlink. There may be tens of thousands on one connection: slots only."""

    __slots__ = ("device_id", "name", "session", "type_open_until_ms")

    def __init__(self, session: GatewaySession, name: str, joined: Joined) -> None:
        self.session = session
        self.name = name
        self.device_id = joined.device_id
        self.type_open_until_ms = joined.type_open_until_ms

    @property
    def whereabouts(self) -> Whereabouts:
        return Whereabouts("gateway", self.session.identity.device_name)

    def attributes_changed(self, change: AttributesChange) -> None:
        self.session.link.attributes_changed(self.name, change)

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        self.session.link.command(self.name, command, delivery)

    def ended(self, why: Ending) -> None:
        """Only a deletion ends it: it logged in with no credentials, and copies nothing of the device."""
        self.session.downlink_ended(self, is_deleted=Ending.DEVICE_DELETED in why)


class GatewaySession:
    """One gateway's connection. What is asked takes effect in the order of the calls.

    Each answer comes after what it says is on disk. Where some devices of a message are refused, the others are
    served, `GatewayLink.dropped` names those refused, and the first refusal is the answer; data of a deleted
    device are dropped with a notice alone, because a refused message makes gateways send all of it again.
    """

    def __init__(self, parts: Parts, identity: Identity, link: GatewayLink) -> None:
        self.identity = identity
        self.link = link
        self.has_spoken = False  # since its activity was last passed on
        self._parts = parts
        parts.sessions.add(self)
        self._devices: dict[str, SubSession] = {}
        self._joining: dict[str, int] = {}  # name -> the first decision whose answer may open its session
        self._decisions = 0
        self._refused: set[str] = set()  # logged already
        self._is_closed = False
        self._next_ping_ms = 0

    @property
    def device_ids(self) -> list[int]:
        """Of all sub-devices that are connected."""
        return [one.device_id for one in self._devices.values()]

    def is_connected(self, device: str) -> bool:
        """Whether the sub-device is connected here; while a connect is on its way it is not."""
        return device in self._devices

    def is_expected(self, device: str) -> bool:
        """Whether it is connected, or on its way."""
        return device in self._devices or device in self._joining

    def connect(self, device: str, type_: str, done: Done[None]) -> None:
        """Opens the sub-device's session; it is created when the tenant has none of this name."""
        self.has_spoken = True
        known = self._devices.get(device)
        if known is not None and not (type_ and known.type_open_until_ms >= self._parts.now_ms()):
            self._parts.presence.seen(known.device_id)
            self._parts.store.submit(_nothing, (), done)
        else:
            self._decide(sub_devices.join, [Wanted(device, True, type_)], (), done)

    def disconnect(self, device: str, done: Done[None]) -> None:
        """Ends it; an unknown name is fine."""
        self.has_spoken = True
        self._joining.pop(device, None)
        known = self._devices.get(device)
        if known is not None:
            self._close(known)
        self._parts.store.submit(_nothing, (), done)

    def post_telemetry(self, samples: Mapping[str, list[Sample]], done: Done[None]) -> None:
        """Samples by sub-device; those that are not connected are, as of type `default`."""
        known, unknown = self._split(samples)
        if unknown:
            self._decide(sub_devices.join_and_append, unknown, (known, samples), done)
        else:
            self._parts.store.append_all(known, done)

    def post_attributes(self, values: Mapping[str, Attributes], done: Done[None]) -> None:
        known, unknown = self._split(values)
        self._decide(sub_devices.join_and_put, unknown, (known, values), done)

    def request_attributes(self, device: str, request: AttributesRequest, done: Done[AttributesAnswer]) -> None:
        """Answered after what the gateway has sent before is on disk, so that it reads what it wrote."""

        def answer(numbers: dict[str, int]) -> None:
            self._parts.attributes.read(numbers[device], request, done)

        self._with_numbers([device], answer, done)

    def reply(self, device: str, number: int, value: Any, done: Done[None]) -> None:
        """The sub-device's answer to a command."""

        def answer(numbers: dict[str, int]) -> None:
            self._parts.rpc.reply_of(numbers[device], number, value, done)

        self._with_numbers([device], answer, done)

    def claim(self, offers: Mapping[str, ClaimRequest], done: Done[None]) -> None:
        def offer(numbers: dict[str, int]) -> None:
            made = [(numbers[name], offers[name]) for name in numbers]
            self._parts.claims.offer_all(self.identity.tenant_id, made, done)

        self._with_numbers(list(offers), offer, done)

    def measured(self, latencies: list[tuple[str, int, int]]) -> None:
        """Of messages with `metadata`: (connector, ms from reading to publishing, ms from publishing to receipt)."""
        self._parts.metrics.add(self.identity.device_id, latencies)

    def pinged(self) -> None:
        """A PINGREQ: activity of all sub-devices, where the gateway overwrites activity times."""
        now_ms = self._parts.now_ms()
        self.has_spoken = now_ms < self._next_ping_ms  # then it is passed on with the next report
        if self.has_spoken or not self._devices:
            return
        self._next_ping_ms = now_ms + PING_INTERVAL_MS

        def read(outcome: bool | PlatformError) -> None:
            if outcome is True and not self._is_closed:
                self._parts.presence.all_seen(self.device_ids)

        # Read each time: the mark may change while the gateway is connected.
        self._parts.store.read(sub_devices.overwrites_activity, (self.identity.device_id,), read)

    def drop(self, device: str, why: Dropped, reason: str) -> None:
        """Data of a device are dropped: counted, told to the gateway, and logged once for each device."""
        self._parts.dropped[why] += 1
        self.link.dropped(device, why)
        if device not in self._refused and len(self._refused) < MAX_LOGGED_REFUSALS:
            self._refused.add(device)
            log.warn(
                "Data of '{device}' behind gateway '{gateway}' are dropped: {reason}",
                device=device[:100], gateway=self.identity.device_name, reason=reason,
            )  # fmt: skip

    def skipped(self, count: int) -> None:
        """Messages or entries that could not be read at all, and so are no device's."""
        self._parts.dropped[Dropped.MALFORMED] += count

    def skip_key(self, _key: str) -> None:
        """A value whose name cannot be stored."""
        self._parts.dropped[Dropped.MALFORMED] += 1

    def close(self) -> None:
        """The connection is gone, and all sub-sessions with it."""
        if not self._is_closed:
            self._parts.on_session(self.identity, False)
        self._is_closed = True
        self._joining.clear()
        for one in list(self._devices.values()):
            self._close(one)
        self._parts.sessions.discard(self)

    # -- joining ----------------------------------------------------------------------------------

    def _split(self, by_name: Mapping[str, Any]) -> tuple[list[tuple[int, Any]], list[Wanted]]:
        """What is said of connected devices, by number; and those that are not connected."""
        self.has_spoken = True
        devices = self._devices
        known: list[tuple[int, Any]] = []
        unknown: list[Wanted] = []
        for name, said in by_name.items():
            one = devices.get(name)
            if one is None:
                unknown.append(Wanted(name, is_under_way=name in self._joining))
            else:
                known.append((one.device_id, said))
        self._parts.presence.all_seen([device_id for device_id, _ in known])
        return known, unknown

    def _with_numbers(
        self, names: list[str], work: Callable[[dict[str, int]], None], done: Callable[[PlatformError], None]
    ) -> None:
        """Calls `work` with the numbers of those that could be joined, or `done` when there are none."""
        _, unknown = self._split(dict.fromkeys(names))
        numbers = {name: self._devices[name].device_id for name in names if name in self._devices}

        def joined(outcomes: Outcomes | PlatformError) -> None:
            if isinstance(outcomes, PlatformError):
                done(outcomes)
                return
            refusal = self._settle(outcomes)
            numbers.update({name: one.device_id for name, one in outcomes.items() if isinstance(one, Joined)})
            if numbers:
                work(numbers)
            else:
                done(refusal or NotFound("the device was deleted by an operator"))

        self._submit(sub_devices.join, unknown, (), joined)

    def _decide(
        self, work: Callable[..., Outcomes], wanted: list[Wanted], rest: tuple[Any, ...], done: Done[None]
    ) -> None:
        """Runs a decision that joins devices; `done` with the first refusal."""

        def decided(outcomes: Outcomes | PlatformError) -> None:
            done(outcomes if isinstance(outcomes, PlatformError) else self._settle(outcomes))

        self._submit(work, wanted, rest, decided)

    def _submit(
        self, work: Callable[..., Outcomes], wanted: list[Wanted], rest: tuple[Any, ...], done: Done[Outcomes]
    ) -> None:
        self._decisions += 1
        number = self._decisions
        admitted, refused = self._admitted(wanted)
        for one in admitted:
            self._joining.setdefault(one.name, number)

        def decided(outcomes: Outcomes | PlatformError) -> None:
            if isinstance(outcomes, PlatformError):
                self._give_up(admitted, number)
                done(outcomes)
            else:
                self._take_in(outcomes, number)
                done({**refused, **outcomes})

        context = Context(self.identity, self._parts.rules, self._parts.now_ms())
        self._parts.store.submit(work, (context, admitted, *rest), decided)

    def _admitted(self, wanted: list[Wanted]) -> tuple[list[Wanted], Outcomes]:
        """Those that fit into the session."""
        most = self._parts.max_sub_devices
        room = most - len(self._devices) - len(self._joining)
        if len(wanted) <= room:
            return wanted, {}
        admitted = [one for one in wanted if one.name in self._joining or one.name in self._devices]
        new = [one for one in wanted if one.name not in self._joining and one.name not in self._devices]
        fitting = max(room, 0)
        refusal = QuotaExceeded(f"the session has its {most} sub-devices; see [gateway] max_sub_devices")
        return admitted + new[:fitting], {one.name: refusal for one in new[fitting:]}

    def _give_up(self, wanted: Iterable[Wanted], number: int) -> None:
        for one in wanted:
            if self._joining.get(one.name) == number:
                del self._joining[one.name]

    def _take_in(self, outcomes: Outcomes, number: int) -> None:
        for name, outcome in outcomes.items():
            known = self._devices.get(name)
            if known is not None and isinstance(outcome, Joined) and known.device_id == outcome.device_id:
                known.type_open_until_ms = min(known.type_open_until_ms, outcome.type_open_until_ms)
            first = self._joining.get(name)
            if first is None or number < first:
                continue  # disconnected since, or opened already
            del self._joining[name]
            if isinstance(outcome, Joined):
                self._open(name, outcome)

    def _settle(self, outcomes: Outcomes) -> PlatformError | None:
        """Drops what was refused; the first refusal that the gateway shall hear of."""
        first: PlatformError | None = None
        for name, outcome in outcomes.items():
            if isinstance(outcome, PlatformError):
                why = Dropped.RATE_LIMITED if isinstance(outcome, RateLimited) else Dropped.OTHER
                self.drop(name, why, str(outcome))
                if first is None and not isinstance(outcome, NotFound):
                    first = outcome
        return first

    # -- sub-sessions -----------------------------------------------------------------------------

    def _open(self, name: str, joined: Joined) -> None:
        if self._is_closed:
            return
        known = self._devices.get(name)
        if known is not None:
            if known.device_id == joined.device_id:
                return
            self._close(known)
        one = self._devices[name] = SubSession(self, name, joined)
        if one.device_id == self.identity.device_id:
            return  # the gateway speaks for itself under its own name; its own session hears the news
        leave_gateway(self._parts.downlinks, one.device_id, taker=self)
        self._parts.downlinks.open(one.device_id, one, _EVERYTHING)
        self._parts.presence.connected(one.device_id)
        self._parts.presence.seen(one.device_id)

    def _forget(self, one: SubSession) -> None:
        if self._devices.get(one.name) is one:
            del self._devices[one.name]

    def _close(self, one: SubSession) -> None:
        self._forget(one)
        downlinks = self._parts.downlinks
        downlinks.close(one.device_id, one)
        if one.device_id != self.identity.device_id and not downlinks.is_open(one.device_id):
            self._parts.presence.disconnected(one.device_id)

    def taken_over(self, one: SubSession, *, is_told: bool) -> None:
        """Another connection has the device now."""
        self._forget(one)
        self._parts.downlinks.close(one.device_id, one)
        if is_told:
            self.link.ended(one.name)

    def downlink_ended(self, one: SubSession, *, is_deleted: bool) -> None:
        """The core ended the downlink, which is forgotten there already."""
        if is_deleted:
            self._forget(one)
            self.link.ended(one.name)
        elif not self._is_closed:
            self._parts.downlinks.open(one.device_id, one, _EVERYTHING)


def leave_gateway(downlinks: Downlinks, device_id: int, *, taker: GatewaySession | None = None) -> None:
    """Ends the device's sub-session: it connects by itself, or through the gateway of `taker`."""
    for one in downlinks.of(device_id):
        if isinstance(one, SubSession):
            one.session.taken_over(one, is_told=one.session is not taker)


def _nothing(_tx: Tx) -> None:
    """Its answer comes after everything that was asked before."""
