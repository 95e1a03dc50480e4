"""Persistent commands as decisions: their states, and what happens to them in one transaction.

Source: wire-contract.md section 6.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any
from uuid import UUID

from cloud_core.core.rpc.options import SubmitStrategy
from cloud_core.model import ChangeKind, Page, PersistentCommand, RpcStatus
from cloud_core.storage.interface import ReadTx, Tx
from shared.device_json import NotJson
from shared.errors import NotFound, RateLimited

# Numbers of commands that wait on disk begin here, so that a reply finds its command after a restart; commands
# that do not wait count from 0. Both stay below 2**31, which is what devices can read.
FIRST_NUMBER = 1_000_000_000


class RpcEvent(Enum):
    """What can happen to a persistent command."""

    SENT = auto()
    """It is about to be written to a connection of its device."""
    DELIVERED = auto()
    """The device has a two-way command."""
    COMPLETED = auto()
    """The device has a one-way command, or answered."""
    UNUSABLE = auto()
    """The device's answer is no JSON."""
    RETURNED = auto()
    """It did not get through and may be sent again."""
    EXHAUSTED = auto()
    """It did not get through and may not be sent again."""
    EXPIRED = auto()
    """Its time is over."""
    DELETED = auto()
    """An operator takes it back."""


_OPEN = (RpcStatus.QUEUED, RpcStatus.SENT, RpcStatus.DELIVERED)

# A pair that is missing is an event that comes too late, and changes nothing.
NEXT: dict[tuple[RpcStatus, RpcEvent], RpcStatus] = {
    (RpcStatus.QUEUED, RpcEvent.SENT): RpcStatus.SENT,
    (RpcStatus.SENT, RpcEvent.SENT): RpcStatus.SENT,  # again, after a restart
    (RpcStatus.SENT, RpcEvent.DELIVERED): RpcStatus.DELIVERED,
    (RpcStatus.SENT, RpcEvent.RETURNED): RpcStatus.QUEUED,
    (RpcStatus.SENT, RpcEvent.EXHAUSTED): RpcStatus.TIMEOUT,
    **{(one, RpcEvent.COMPLETED): RpcStatus.SUCCESSFUL for one in _OPEN},  # QUEUED: the reply overtook the retry
    **{(one, RpcEvent.UNUSABLE): RpcStatus.FAILED for one in _OPEN},
    **{(one, RpcEvent.EXPIRED): RpcStatus.EXPIRED for one in _OPEN},
    **{(one, RpcEvent.DELETED): RpcStatus.DELETED for one in RpcStatus if one is not RpcStatus.DELETED},
}


def number_of(command_id: int) -> int:
    """By what number the device knows a persistent command."""
    return FIRST_NUMBER + command_id % FIRST_NUMBER


def _apply(
    tx: Tx, command: PersistentCommand, event: RpcEvent, *, response: Any = None, retries_left: int | None = None
) -> bool:
    """Whether the command took the event."""
    status = NEXT.get((command.status, event))
    if status is None:
        return False
    if status is RpcStatus.DELETED:
        tx.delete_command(command.id)
        return True
    left = command.retries_left if retries_left is None else retries_left
    tx.update_command(command.id, status=status, retries_left=left, response=response)
    if status is RpcStatus.QUEUED:
        tx.record_change(ChangeKind.COMMAND, command.device_id)  # another node may have the device by now
    return True


def insert(tx: Tx, command: PersistentCommand, max_waiting: int) -> UUID:
    """Stores a new command. Raises: NotFound, RateLimited, InvalidArgument."""
    device = tx.device_by_id(command.device_id)
    if device is None or device.tenant_id != command.tenant_id:
        raise NotFound
    if tx.open_command_count(command.device_id) >= max_waiting:
        raise RateLimited(f"The device has {max_waiting} commands waiting; delete some, or let it fetch them first")
    tx.insert_command(command)
    return command.uuid


@dataclass(frozen=True, slots=True)
class Taken:
    """Commands that are marked as sent, and whether the device has any other that is not ended.

    `again_ms`: when to ask again for those that another node has sent a moment ago; 0 where there are none.
    """

    commands: list[PersistentCommand]
    has_open: bool
    again_ms: int = 0


def take(
    tx: Tx, device_id: int, on_their_way: frozenset[int], count: int, strategy: SubmitStrategy, now_ms: int,
    ack_timeout_ms: int = 0,
) -> Taken:  # fmt: skip
    """Marks the next commands, at most `count`, as sent; those whose time is over are expired instead.

    What another node has sent is that node's for `ack_timeout_ms`: then the device may get it once more from here.
    """
    taken: list[PersistentCommand] = []
    held = _held_elsewhere(tx, device_id, now_ms, ack_timeout_ms) if tx.node is not None else {}
    while len(taken) < count:
        skipped = on_their_way.union(held, (one.id for one in taken))
        fresh = _next(tx, device_id, skipped, count - len(taken), strategy)
        if not fresh:
            break
        for command in fresh:
            is_over = command.expires_ms <= now_ms
            _apply(tx, command, RpcEvent.EXPIRED if is_over else RpcEvent.SENT)
            if not is_over:
                tx.mark_command_sent(command.id, now_ms=now_ms)
                taken.append(command)
    has_open = bool(taken) or tx.open_command_count(device_id) > 0
    return Taken(taken, has_open, min(held.values(), default=0))


def _held_elsewhere(tx: Tx, device_id: int, now_ms: int, ack_timeout_ms: int) -> dict[int, int]:
    """Commands that another node has sent and not heard of yet -> until when they are that node's."""
    return {
        one.id: one.sent_ms + ack_timeout_ms
        for one in tx.undelivered_commands(device_id)
        if one.status is RpcStatus.SENT and one.sent_by not in ("", tx.node) and one.sent_ms + ack_timeout_ms > now_ms
    }


def _next(
    tx: Tx, device_id: int, skipped: frozenset[int], count: int, strategy: SubmitStrategy
) -> list[PersistentCommand]:
    """Those whose turn it is, oldest first."""
    if strategy is SubmitStrategy.BURST:
        waiting = tx.undelivered_commands(device_id, count + len(skipped))
        return [one for one in waiting if one.id not in skipped][:count]
    is_answer_awaited = strategy is SubmitStrategy.SEQUENTIAL_ON_RESPONSE_FROM_DEVICE
    oldest = tx.open_commands(device_id, 1) if is_answer_awaited else tx.undelivered_commands(device_id, 1)
    return [one for one in oldest if one.id not in skipped and one.status is not RpcStatus.DELIVERED]


def advance(tx: Tx, command_ids: Sequence[int], event: RpcEvent) -> None:
    for command_id in command_ids:
        command = tx.command_by_id(command_id)
        if command is None or (event is RpcEvent.RETURNED and _is_sent_elsewhere(tx, command)):
            continue  # an operator may have deleted it, or its device
        _apply(tx, command, event)


def _is_sent_elsewhere(tx: Tx, command: PersistentCommand) -> bool:
    """Whether another node has sent it since: what became of the attempt of this one says nothing of that.

    As when this node recorded an end of its attempt and did not hear that it is on disk.
    """
    return tx.node is not None and command.sent_by not in ("", tx.node)


def unacknowledged(tx: Tx, command_id: int) -> None:
    """One retry is spent; without any the command has failed."""
    command = tx.command_by_id(command_id)
    if command is None or _is_sent_elsewhere(tx, command):
        return
    if command.retries_left > 0:
        _apply(tx, command, RpcEvent.RETURNED, retries_left=command.retries_left - 1)
    else:
        _apply(tx, command, RpcEvent.EXHAUSTED)


def reply(tx: Tx, device_id: int, number: int, value: Any, is_waited_for: bool = False) -> int | None:
    """Which command the device answered; None for an unknown one, or one that has ended.

    `is_waited_for`: others wait for this one's end, and another node may be the one to send them.
    """
    command = _by_number(tx, device_id, number)
    if command is None:
        return None
    event = RpcEvent.UNUSABLE if isinstance(value, NotJson) else RpcEvent.COMPLETED
    response = str(value) if isinstance(value, NotJson) else value
    is_taken = _apply(tx, command, event, response=None if command.is_oneway else response)
    if is_taken and is_waited_for:
        tx.record_change(ChangeKind.COMMAND, device_id)
    return command.id if is_taken else None


def _by_number(tx: ReadTx, device_id: int, number: int) -> PersistentCommand | None:
    command = tx.command_by_id(number - FIRST_NUMBER)
    if command is not None and command.device_id == device_id:
        return command
    return next((one for one in tx.open_commands(device_id) if number_of(one.id) == number), None)


def delete(tx: Tx, tenant_id: int, uuid: UUID) -> None:
    _apply(tx, find(tx, tenant_id, uuid), RpcEvent.DELETED)


def find(tx: ReadTx, tenant_id: int, uuid: UUID) -> PersistentCommand:
    command = tx.command(tenant_id, uuid)
    if command is None:
        raise NotFound(f"Rpc with id [{uuid}] is not found")
    return command


def page_of(
    tx: ReadTx, tenant_id: int, device_id: int, page: Page, status: RpcStatus | None
) -> tuple[list[PersistentCommand], int]:
    return tx.commands(tenant_id, device_id, page, status)


def devices(tx: ReadTx) -> list[int]:
    return tx.devices_with_open_commands()


def expire(tx: Tx, now_ms: int) -> list[int]:
    return tx.expire_commands(now_ms)


def trim(tx: Tx, before_ms: int) -> int:
    return tx.trim_commands(before_ms=before_ms)
