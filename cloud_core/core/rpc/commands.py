"""Commands of the server to devices (RPC): one-way and two-way, at once or waiting on disk.

Source: wire-contract.md sections 2.9 and 6.7, and R1 to R8 of section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import randrange
from typing import Any
from uuid import UUID

from cloud_core.core.downlinks import Downlink, Downlinks, Ending
from cloud_core.core.nodes.commands import LOST_TEXT, CommandsElsewhere, Way
from cloud_core.core.nodes.questions import Questions
from cloud_core.core.people.audit import Audit, Deed, Subject, Who
from cloud_core.core.people.permissions import may
from cloud_core.core.rpc import decisions as decisions
from cloud_core.core.rpc.options import RpcOptions, SubmitStrategy
from cloud_core.core.rpc.queue import CommandQueue
from cloud_core.core.tokens import new_uuid
from cloud_core.fabric.alone import Alone
from cloud_core.fabric.interface import Fabric
from cloud_core.model import Identity, Page, PersistentCommand, RpcStatus
from cloud_core.storage.interface import Done, Store
from shared.device_json import MAX_METHOD_CHARS, render_command, render_json
from shared.errors import (
    DeviceOffline,
    DeviceTimeout,
    InvalidArgument,
    NotAuthorized,
    PlatformError,
    RateLimited,
    RequestTooLarge,
    Unavailable,
)
from shared.json_bodies import MAX_BODY_BYTES
from shared.messages import RpcCommand
from shared.operations import Operation
from shared.values import MAX_INT64

__all__ = ["Answer", "RpcApi", "RpcOptions", "ServerRpc", "SubmitStrategy"]

MAX_WAITING = 20_000  # commands that wait in memory, of all devices
MAX_WAIT_MS = 3_600_000  # so long such a command waits at the most
_MAX_COUNTERS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRpc:
    """What an operator asks for. `expires_ms` is absolute; `params` is decoded JSON."""

    method: str
    params: Any
    is_oneway: bool
    expires_ms: int
    is_persistent: bool = False
    retries: int = 0
    additional_info: Any = None
    uuid: UUID | None = None  # of a persistent command, where the caller chooses it


@dataclass(frozen=True, slots=True)
class Answer:
    """The device's reply to a two-way command; None for one that is only delivered."""

    value: Any = None  # decoded JSON, or text that is none (`NotJson`)


class _Waiting:
    """A command in memory: the `Delivery` that its downlink answers to."""

    __slots__ = ("_rpc", "command", "device_id", "done", "downlink", "expires_ms", "is_delivered", "timer")

    def __init__(
        self, rpc: RpcApi, device_id: int, command: RpcCommand, downlink: Downlink, expires_ms: int, done: Done[Answer]
    ) -> None:
        self._rpc = rpc
        self.device_id = device_id
        self.command = command
        self.downlink = downlink
        self.expires_ms = expires_ms
        self.done = done
        self.is_delivered = False
        self.timer: Any = None  # IDelayedCall: what `call_later` gives

    def delivered(self) -> None:
        self._rpc._delivered(self)

    def failed(self) -> None:
        self._rpc._failed(self)


class RpcApi:
    """Commands on their way. Everything runs in the reactor thread; `call_later` is the reactor's.

    `is_outdated(device_id)`: whether another node has a newer way to a device than there is here.
    """

    def __init__(
        self,
        *,
        store: Store,
        downlinks: Downlinks,
        now_ms: Callable[[], int],
        call_later: Callable[..., Any],
        options: RpcOptions,
        audit: Audit | None = None,
        fabric: Fabric | None = None,
        questions: Questions | None = None,
        is_outdated: Callable[[int], bool] = lambda _device_id: False,
    ) -> None:
        self._store = store
        self._audit = audit or Audit(store)
        self._fabric = fabric or Alone()
        self._is_outdated = is_outdated
        self._downlinks = downlinks
        self._now_ms = now_ms
        self._call_later = call_later
        self._options = options
        self._waiting: dict[int, dict[int, _Waiting]] = {}  # device number -> command number -> command
        self._waiting_count = 0
        self._counters: dict[int, int] = {}  # device number -> number of its next command
        self._elsewhere = CommandsElsewhere(
            fabric=self._fabric, questions=questions or Questions(fabric=self._fabric, call_later=call_later),
            now_ms=now_ms, call_later=call_later, here=self,
        )  # fmt: skip
        self._queue = CommandQueue(
            store=store, downlinks=downlinks, now_ms=now_ms, call_later=call_later, options=options, audit=self._audit
        )

    def send(
        self, tenant_id: int, device_id: int, command: ServerRpc, done: Done[Answer | UUID], *, by: Who | None = None
    ) -> None:
        """Sends at once and answers when delivered (one-way) or answered (two-way); DeviceOffline, DeviceTimeout.

        A persistent command is stored first: `done(uuid)` once it is on disk, whether the device is there or not.
        Also InvalidArgument, MalformedRequest, RequestTooLarge; RateLimited and Unavailable where too many wait.
        """
        fault = _fault_of(command)
        if fault is not None:
            done(fault)
        elif command.is_persistent:
            self._store_command(tenant_id, device_id, command, done, by)
        else:
            self._send_now(device_id, command, done)

    def reply(self, identity: Identity, number: int, value: Any, done: Done[None]) -> None:
        """The device answers command `number`; an unknown or late one is dropped, and `done(None)` all the same."""
        if may(identity.role, Operation.ANSWER_RPC):
            self.reply_of(identity.device_id, number, value, done)
        else:
            done(NotAuthorized())

    def reply_of(self, device_id: int, number: int, value: Any, done: Done[None]) -> None:
        """As `reply`, for a device that a gateway speaks for. `done` after a persistent command's reply is on disk."""
        if number >= decisions.FIRST_NUMBER:
            self._queue.reply(device_id, number, value, done)
            return
        if not self._replied(device_id, number, value) and self._fabric.others:
            self._elsewhere.tell_reply(device_id, number, value)  # HTTP and CoAP devices may answer at any node
        done(None)

    def _replied(self, device_id: int, number: int, value: Any) -> bool:
        """Whether a command here has waited for it."""
        waiting = self._waiting.get(device_id, {}).get(number)
        if waiting is None:
            return False
        self._finish(waiting, self.answer(value, waiting.command.is_oneway))
        return True

    def find(self, tenant_id: int, uuid: UUID, done: Done[PersistentCommand]) -> None:
        """A persistent command; NotFound."""
        self._store.read(decisions.find, (tenant_id, uuid), done)

    def list(
        self,
        tenant_id: int,
        device_id: int,
        page: Page,
        status: RpcStatus | None,
        done: Done[tuple[Sequence[PersistentCommand], int]],
    ) -> None:
        self._store.survey(decisions.page_of, (tenant_id, device_id, page, status), done)

    def delete(self, tenant_id: int, uuid: UUID, done: Done[None], *, by: Who | None = None) -> None:
        """Takes a persistent command back; one that is on its way is not sent again."""
        deed = Deed("DELETED", "RPC", lambda _: Subject(uuid, ""))
        self._audit.submit(by, deed, decisions.delete, (tenant_id, uuid), done)

    def command_waits(self, device_id: int) -> None:
        """Another node has stored a persistent command for the device, or let go of one."""
        self._queue.waits(device_id)

    def read_waiting(self) -> None:
        """Reads anew which devices have persistent commands waiting."""
        self._queue.read_waiting()

    def maintain(self) -> None:
        """Called once a minute: expires what is over."""
        if len(self._counters) > _MAX_COUNTERS:
            self._counters = {one: number for one, number in self._counters.items() if one in self._waiting}
        self._queue.maintain()

    # -- for other nodes (`nodes.commands.CommandsHere`) ----------------------------------------------------

    def way(self, device_id: int) -> Way:
        if self._downlinks.for_commands(device_id) is None:
            return Way.NONE
        return Way.OUTDATED if self._is_outdated(device_id) else Way.NEWEST

    def take(
        self, device_id: int, method: str, params: Any, is_oneway: bool, rest_ms: int, done: Done[Answer]
    ) -> Callable[[], None]:
        command = ServerRpc(
            method=method, params=params, is_oneway=is_oneway, expires_ms=self._now_ms() + min(rest_ms, MAX_WAIT_MS)
        )
        waiting = self.send_here(device_id, command, done)
        return lambda: self._finish(waiting, DeviceOffline(LOST_TEXT)) if waiting is not None else None

    def answer(self, value: Any, is_oneway: bool) -> Answer:
        return Answer() if is_oneway else Answer(value)

    def replied(self, device_id: int, number: int, value: Any) -> None:
        self._replied(device_id, number, value)

    # -- waiting on disk --------------------------------------------------------------------------

    def _store_command(
        self, tenant_id: int, device_id: int, command: ServerRpc, done: Done[Answer | UUID], by: Who | None
    ) -> None:
        now_ms = self._now_ms()
        if command.expires_ms <= now_ms:
            done(InvalidArgument("The command would have expired already; choose a later expirationTime"))
            return
        stored = PersistentCommand(
            id=0, uuid=command.uuid or new_uuid(now_ms), tenant_id=tenant_id, device_id=device_id, created_ms=now_ms,
            expires_ms=command.expires_ms, is_oneway=command.is_oneway, method=command.method, params=command.params,
            retries_left=max(0, min(command.retries, self._options.max_retries)),
            additional_info=command.additional_info,
        )  # fmt: skip
        self._queue.add(stored, done, by)

    # -- waiting in memory ------------------------------------------------------------------------

    def _send_now(self, device_id: int, command: ServerRpc, done: Done[Answer | UUID]) -> None:
        if self._fabric.others and self.way(device_id) is not Way.NEWEST:
            self._ask_others(device_id, command, done)
        else:
            self.send_here(device_id, command, done)

    def _ask_others(self, device_id: int, command: ServerRpc, done: Done[Answer | UUID]) -> None:
        elsewhere = self._elsewhere
        waiting = len(self._waiting.get(device_id, ())) + elsewhere.count_of(device_id)
        refusal = self._refusal(command, waiting, self._waiting_count + elsewhere.count)
        if refusal is None:
            elsewhere.ask(device_id, command, done)
        else:
            done(refusal)

    def _refusal(self, command: ServerRpc, waiting: int, waiting_of_all: int) -> PlatformError | None:
        if command.expires_ms <= self._now_ms():
            return DeviceTimeout()
        if waiting >= self._options.max_waiting_per_device:
            return RateLimited(f"{waiting} commands wait for the device; let it answer first", retry_after_s=1.0)
        if waiting_of_all >= MAX_WAITING:
            return Unavailable(retry_after_s=1.0)
        return None

    def send_here(self, device_id: int, command: ServerRpc, done: Done[Any]) -> _Waiting | None:
        """By the newest downlink of this node; None where it was refused."""
        downlink = self._downlinks.for_commands(device_id)
        mine = self._waiting.get(device_id, {})
        refusal = DeviceOffline() if downlink is None else self._refusal(command, len(mine), self._waiting_count)
        if downlink is None or refusal is not None:
            done(refusal or DeviceOffline())
            return None
        number = self._next_number(device_id)
        message = RpcCommand(number=number, method=command.method, params=command.params, is_oneway=command.is_oneway)
        waiting = _Waiting(self, device_id, message, downlink, command.expires_ms, done)
        self._waiting.setdefault(device_id, {})[number] = waiting
        self._waiting_count += 1
        wait_s = min(self._rest_s(waiting), self._options.ack_timeout_s)
        waiting.timer = self._call_later(wait_s, self._unacknowledged, waiting)
        downlink.command(message, waiting)
        return waiting

    def _next_number(self, device_id: int) -> int:
        """Counts from 0; where there are other nodes from a random place, so that two of them use different ones."""
        number = self._counters.get(device_id)
        if number is None:
            number = randrange(decisions.FIRST_NUMBER) if self._fabric.others else 0
        self._counters[device_id] = (number + 1) % decisions.FIRST_NUMBER
        return number

    def _rest_s(self, waiting: _Waiting) -> float:
        return min(max(0, waiting.expires_ms - self._now_ms()), MAX_WAIT_MS) / 1000

    def _is_waiting(self, waiting: _Waiting) -> bool:
        return self._waiting.get(waiting.device_id, {}).get(waiting.command.number) is waiting

    def _finish(self, waiting: _Waiting, outcome: Answer | PlatformError) -> None:
        """The first outcome counts; what comes later is dropped."""
        if not self._is_waiting(waiting):
            return
        mine = self._waiting[waiting.device_id]
        del mine[waiting.command.number]
        if not mine:
            del self._waiting[waiting.device_id]
        self._waiting_count -= 1
        if waiting.timer.active():
            waiting.timer.cancel()
        waiting.done(outcome)

    def _delivered(self, waiting: _Waiting) -> None:
        if waiting.command.is_oneway:
            self._finish(waiting, Answer())
        elif self._is_waiting(waiting) and not waiting.is_delivered:
            waiting.is_delivered = True
            waiting.timer.cancel()
            waiting.timer = self._call_later(self._rest_s(waiting), self._finish, waiting, DeviceTimeout())

    def _failed(self, waiting: _Waiting) -> None:
        """Looked at in a moment: a connection that is lost may say so before its downlink is closed."""
        if self._is_waiting(waiting):
            self._call_later(0.0, self._conclude_failure, waiting)

    def _conclude_failure(self, waiting: _Waiting) -> None:
        if self._downlinks.interest(waiting.device_id, waiting.downlink) is None:
            self._finish(waiting, DeviceOffline(LOST_TEXT))
        else:
            self._unacknowledged(waiting)

    def _unacknowledged(self, waiting: _Waiting) -> None:
        if not self._is_waiting(waiting):
            return
        self._finish(waiting, DeviceTimeout("The device did not acknowledge the command in time."))
        if self._options.closes_session_on_delivery_timeout:
            self._downlinks.end_one(waiting.device_id, waiting.downlink, Ending.COMMAND_UNACKNOWLEDGED)


def _fault_of(command: ServerRpc) -> PlatformError | None:
    """What keeps a command from being written to any device."""
    if not 0 < len(command.method) <= MAX_METHOD_CHARS:
        return InvalidArgument(f"'method' must have 1 to {MAX_METHOD_CHARS} characters")
    if not 0 <= command.expires_ms <= MAX_INT64:
        return InvalidArgument("'expirationTime' is out of range; give ms since 1970")
    try:
        size = len(render_command(RpcCommand(number=0, method=command.method, params=command.params), with_id=True))
        info_size = len(render_json(command.additional_info))
    except PlatformError as error:  # nested too deeply
        return error
    if max(size, info_size) > MAX_BODY_BYTES:
        return RequestTooLarge(f"A command may have {MAX_BODY_BYTES} bytes, and so may its additionalInfo")
    return None
