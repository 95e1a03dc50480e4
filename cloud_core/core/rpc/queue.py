"""Persistent commands on their way: which devices have any, what is being sent, what to send next.

The truth is on disk and changes by `rpc_decisions`; here is only what a restart may forget. Everything runs in
the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from twisted.logger import Logger

from cloud_core.core.downlinks import Downlink, Downlinks, Ending
from cloud_core.core.people.audit import Audit, Deed, Subject, Who
from cloud_core.core.rpc import decisions as decisions
from cloud_core.core.rpc.decisions import RpcEvent, Taken
from cloud_core.core.rpc.options import RpcOptions, SubmitStrategy
from cloud_core.model import PersistentCommand
from cloud_core.storage.interface import Done, Store
from shared.errors import PlatformError
from shared.messages import RpcCommand

log = Logger()
MAX_ON_THEIR_WAY = 32  # of one device, not acknowledged yet
RETRY_S = 1.0  # after the store was busy
KEEP_ENDED_MS = 7 * 86_400_000
_TRIM_EVERY = 60  # calls of `maintain`


class _Line:
    """What a device is being sent."""

    __slots__ = ("count", "has_more", "is_taking", "is_wanted", "on_their_way")

    def __init__(self) -> None:
        self.on_their_way: dict[int, _Attempt] = {}
        self.is_taking = False
        self.is_wanted = False  # something came up while `is_taking`
        self.has_more = False
        self.count = 1  # doubled while the downlink takes them: a long poll takes one, a session all

    @property
    def is_idle(self) -> bool:
        return not self.on_their_way and not self.is_taking


class _Attempt:
    """One command on one downlink: the `Delivery` that the downlink answers to."""

    __slots__ = ("_queue", "command", "downlink", "is_settled", "line", "timer")

    def __init__(self, queue: CommandQueue, line: _Line, command: PersistentCommand, downlink: Downlink) -> None:
        self._queue = queue
        self.line = line
        self.command = command
        self.downlink = downlink
        self.is_settled = False
        self.timer: Any = None  # IDelayedCall: what `call_later` gives

    def delivered(self) -> None:
        event = RpcEvent.COMPLETED if self.command.is_oneway else RpcEvent.DELIVERED
        self._queue.settle(self, event)

    def failed(self) -> None:
        self._queue.failed(self)


class CommandQueue:
    """Sends what waits as soon as its device is reachable."""

    def __init__(
        self,
        *,
        store: Store,
        downlinks: Downlinks,
        now_ms: Callable[[], int],
        call_later: Callable[..., Any],
        options: RpcOptions,
        audit: Audit,
    ) -> None:
        self._store = store
        self._audit = audit
        self._downlinks = downlinks
        self._now_ms = now_ms
        self._call_later = call_later
        self._options = options
        self._is_sequential = options.submit_strategy is not SubmitStrategy.BURST
        self._devices: set[int] = set()  # that may have something waiting
        self._asked_again: set[int] = set()  # once another node's time for what it has sent is over
        self._lines: dict[int, _Line] = {}
        self._early: set[int] | None = set()  # reachable before `_devices` was read from disk; None: it has been
        self._is_loading = False
        self._maintained = 0
        downlinks.on_reachable(self._reachable)

    # -- what comes in ----------------------------------------------------------------------------

    def add(self, command: PersistentCommand, done: Done[UUID], by: Who | None = None) -> None:
        """`done(uuid)` once it is on disk."""

        def stored(outcome: UUID | PlatformError) -> None:
            if isinstance(outcome, UUID):
                self._devices.add(command.device_id)
                self._pump(command.device_id)
            done(outcome)

        deed = Deed("CREATED", "RPC", lambda uuid: Subject(uuid, command.method, f"for device {command.device_id}"))
        self._audit.submit(by, deed, decisions.insert, (command, self._options.max_waiting_per_device), stored)

    def reply(self, device_id: int, number: int, value: Any, done: Done[None]) -> None:
        def recorded(outcome: int | PlatformError | None) -> None:
            if isinstance(outcome, int):
                self._answered(device_id, outcome)
            done(outcome if isinstance(outcome, PlatformError) else None)

        self._store.submit(decisions.reply, (device_id, number, value, self._is_sequential), recorded)

    def _answered(self, device_id: int, command_id: int) -> None:
        """The reply says that the device has it, whatever becomes of the acknowledgement."""
        line = self._lines.get(device_id)
        attempt = line.on_their_way.get(command_id) if line is not None else None
        if attempt is not None and not attempt.is_settled:
            attempt.is_settled = True
            if attempt.timer.active():
                attempt.timer.cancel()
            self._over(attempt)
        elif self._is_sequential:
            self._pump(device_id)

    def maintain(self) -> None:
        """Once a minute: expires what is over; now and then removes what ended long ago."""
        self._store.submit(decisions.expire, (self._now_ms(),), self._expired)
        if self._maintained % _TRIM_EVERY == 0:
            self._store.submit(decisions.trim, (self._now_ms() - KEEP_ENDED_MS,), _maintained)
        self._maintained += 1

    def _expired(self, outcome: list[int] | PlatformError) -> None:
        if isinstance(outcome, PlatformError):
            _maintained(outcome)
            return
        for device_id in outcome:
            self._pump(device_id)  # something may have waited for the answer to an expired one

    # -- other nodes ------------------------------------------------------------------------------

    def waits(self, device_id: int) -> None:
        """Another node has stored a command for the device, or let go of one."""
        self._devices.add(device_id)
        self._pump(device_id)

    def read_waiting(self) -> None:
        """Reads anew who has something waiting: what other nodes have stored may have been missed."""
        if self._early is None:
            self._store.read(decisions.devices, (), self._read_again)

    def _read_again(self, outcome: list[int] | PlatformError) -> None:
        if isinstance(outcome, PlatformError):
            self._call_later(RETRY_S, self.read_waiting)
            return
        for device_id in outcome:
            self.waits(device_id)

    # -- reachable devices ------------------------------------------------------------------------

    def _reachable(self, device_id: int) -> None:
        if self._early is None:
            self._pump(device_id)
            return
        self._early.add(device_id)
        self._load()

    def _load(self) -> None:
        """Reads once who has something waiting, so that the others may come and go without a look-up."""
        if not self._is_loading:
            self._is_loading = True
            self._store.read(decisions.devices, (), self._loaded)

    def _loaded(self, outcome: list[int] | PlatformError) -> None:
        self._is_loading = False
        if isinstance(outcome, PlatformError):
            self._call_later(RETRY_S, self._load)
            return
        early, self._early = self._early or set(), None
        self._devices.update(outcome)
        for device_id in early & self._devices:
            self._pump(device_id)

    # -- sending ----------------------------------------------------------------------------------

    def _pump(self, device_id: int) -> None:
        """Takes the next commands from disk, if there may be any and the device can hear them."""
        if device_id not in self._devices or self._downlinks.for_commands(device_id) is None:
            return
        line = self._lines.get(device_id)
        if line is None:
            line = self._lines[device_id] = _Line()
        if line.is_taking:
            line.is_wanted = True
            return
        room = (1 if self._is_sequential else MAX_ON_THEIR_WAY) - len(line.on_their_way)
        if room <= 0:
            return  # until one of them is settled
        line.is_taking, line.is_wanted = True, False
        count = min(line.count, room)
        on_their_way = frozenset(line.on_their_way)

        def taken(outcome: Taken | PlatformError) -> None:
            self._taken(device_id, line, count, outcome)

        strategy, now_ms = self._options.submit_strategy, self._now_ms()
        ack_timeout_ms = int(self._options.ack_timeout_s * 1000)
        args = (device_id, on_their_way, count, strategy, now_ms, ack_timeout_ms)
        self._store.submit(decisions.take, args, taken)

    def _taken(self, device_id: int, line: _Line, count: int, outcome: Taken | PlatformError) -> None:
        line.is_taking = False
        if isinstance(outcome, PlatformError):
            self._call_later(RETRY_S, self._pump, device_id)
            self._tidy(device_id, line)
            return
        line.has_more = len(outcome.commands) == count
        line.count = min(2 * count, MAX_ON_THEIR_WAY) if line.has_more else 1
        if not outcome.has_open and not line.is_wanted:
            self._devices.discard(device_id)
        if outcome.again_ms:
            self._ask_again(device_id, outcome.again_ms)
        self._send(device_id, line, outcome.commands)
        if line.is_wanted or (line.has_more and not self._is_sequential):
            self._pump(device_id)
        self._tidy(device_id, line)

    def _ask_again(self, device_id: int, at_ms: int) -> None:
        def ask() -> None:
            self._asked_again.discard(device_id)
            self._pump(device_id)

        if device_id not in self._asked_again:
            self._asked_again.add(device_id)
            self._call_later(max(0, at_ms - self._now_ms()) / 1000, ask)

    def _send(self, device_id: int, line: _Line, commands: list[PersistentCommand]) -> None:
        now_ms = self._now_ms()
        over = tuple(one.id for one in commands if one.expires_ms <= now_ms)
        if over:  # the store was slow, or this process stood still
            commands = [one for one in commands if one.id not in over]
            self._store.submit(decisions.advance, (over, RpcEvent.EXPIRED), lambda _: self._pump(device_id))
        for at, command in enumerate(commands):
            downlink = self._downlinks.for_commands(device_id)
            if downlink is None:
                rest = tuple(one.id for one in commands[at:])
                # Should the store be too busy they stay SENT, and are taken again all the same.
                self._store.submit(decisions.advance, (rest, RpcEvent.RETURNED), _maintained)
                return
            attempt = _Attempt(self, line, command, downlink)
            line.on_their_way[command.id] = attempt
            attempt.timer = self._call_later(self._options.ack_timeout_s, self._unacknowledged, attempt)
            number = decisions.number_of(command.id)
            message = RpcCommand(
                number=number, method=command.method, params=command.params, is_oneway=command.is_oneway
            )
            downlink.command(message, attempt)

    # -- what becomes of it -----------------------------------------------------------------------

    def failed(self, attempt: _Attempt) -> None:
        """Looked at in a moment: a connection that is lost may say so before its downlink is closed."""
        if not attempt.is_settled:
            self._call_later(0.0, self._failed, attempt)

    def _failed(self, attempt: _Attempt) -> None:
        """A lost connection spends no retry: the device comes back, and the command has its own end."""
        if self._downlinks.interest(attempt.command.device_id, attempt.downlink) is None:
            self.settle(attempt, RpcEvent.RETURNED)
        else:
            self._unacknowledged(attempt)

    def _unacknowledged(self, attempt: _Attempt) -> None:
        if attempt.is_settled:
            return
        if not self._options.closes_session_on_delivery_timeout:
            self.settle(attempt, None)
            return
        device_id = attempt.command.device_id
        log.warn("A command was not acknowledged: the session of device {device} ends", device=device_id)
        self.settle(attempt, RpcEvent.RETURNED)
        self._downlinks.end_one(device_id, attempt.downlink, Ending.COMMAND_UNACKNOWLEDGED)

    def settle(self, attempt: _Attempt, event: RpcEvent | None) -> None:
        """Records what became of an attempt, once; until that is on disk the command is not sent again.

        None: it was not acknowledged, and its retries decide.
        """
        if attempt.is_settled:
            return
        attempt.is_settled = True
        if attempt.timer.active():
            attempt.timer.cancel()
        self._record(attempt, event)

    def _record(self, attempt: _Attempt, event: RpcEvent | None) -> None:
        command_id = attempt.command.id

        def recorded(outcome: PlatformError | None) -> None:
            if isinstance(outcome, PlatformError):
                self._call_later(RETRY_S, self._record, attempt, event)
            else:
                self._over(attempt, comes_back=event in (None, RpcEvent.RETURNED))

        if event is None:
            self._store.submit(decisions.unacknowledged, (command_id,), recorded)
        else:
            self._store.submit(decisions.advance, ((command_id,), event), recorded)

    def _over(self, attempt: _Attempt, *, comes_back: bool = False) -> None:
        line, device_id = attempt.line, attempt.command.device_id
        line.on_their_way.pop(attempt.command.id, None)
        if self._is_sequential or line.has_more or comes_back:
            self._pump(device_id)
        self._tidy(device_id, line)

    def _tidy(self, device_id: int, line: _Line) -> None:
        if line.is_idle and self._lines.get(device_id) is line:
            del self._lines[device_id]


def _maintained(outcome: object) -> None:
    if isinstance(outcome, PlatformError):
        log.warn("Commands could not be tidied up, which is tried again: {error}", error=str(outcome))
