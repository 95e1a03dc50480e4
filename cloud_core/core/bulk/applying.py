"""The decisions of an import's life: opened, filled, closed, applied and undone some rows at a time.

Each piece is one transaction with the rows' outcomes and the batch's position in it: after a crash the next piece
begins where the last one on disk has ended, so nothing is done twice and nothing is left out. The pieces are small
because devices wait behind them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from cloud_core.core import inventory
from cloud_core.core.assignments import has_packages, tell_assigned
from cloud_core.core.bulk.planning import (
    Surroundings,
    Verdict,
    lack_of_room,
    planned,
    surroundings,
    verdict_on,
    within_room,
)
from cloud_core.core.bulk.rows import Wish, wish_of
from cloud_core.core.tokens import new_secret, new_uuid
from cloud_core.model import PRESENCE_KEYS, Device, DeviceProfile, ProvisionConfiguration, Scope
from cloud_core.storage.interface import NewDevice, NewProfile, ReadTx, Tx
from cloud_core.storage.interface.batches import BAD, Batch, BatchRow, BatchState, RowStatus
from shared.credentials import AccessToken
from shared.errors import InvalidArgument, NotFound, PlatformError, Unavailable
from shared.messages import Attributes, AttributesChange, Value

APPLIED_AT_ONCE = 250  # at most, whatever the pace is
UNDONE_AT_ONCE = 250
DISCARDED_AT_ONCE = 1_000
_DONE_AS = {RowStatus.CREATE: RowStatus.CREATED, RowStatus.UPDATE: RowStatus.UPDATED}
SENT_OTHERWISE = "This Idempotency-Key was used for another file or other options; use a new one"
STILL_SENT = "An import with this Idempotency-Key is being received"


@dataclass(slots=True)
class Piece:
    """What a piece of work has done, and whom to tell once it is on disk."""

    batch: Batch
    is_ended: bool = False
    changed: list[int] = field(default_factory=list)  # numbers of devices whose sessions end
    deleted: list[inventory.Deleted] = field(default_factory=list)
    written: list[tuple[int, Scope, Attributes]] = field(default_factory=list)
    news: list[tuple[int, tuple[AttributesChange, ...]]] = field(default_factory=list)


# -- receiving ------------------------------------------------------------------------------------


def open_batch(tx: Tx, batch: Batch) -> tuple[Batch, bool]:
    """The batch with its number, and whether it is new: a key that was used before brings its batch back.

    Raises: InvalidArgument for a key of another file, Unavailable while that is still being received.
    """
    known = tx.batch_by_key(batch.tenant_id, batch.idempotency_key) if batch.idempotency_key is not None else None
    if known is None:
        return replace(batch, id=tx.insert_batch(batch)), True
    if known.digest != batch.digest:
        raise InvalidArgument(SENT_OTHERWISE)
    if known.state is BatchState.RECEIVING:
        raise Unavailable(STILL_SENT, retry_after_s=5.0)
    return known, False


def plan_rows(
    tx: ReadTx, tenant_id: int, rows: list[tuple[BatchRow, Wish | None]], now_ms: int, *, updates: bool
) -> list[BatchRow]:
    """Gives each row that has a wish its verdict; the others have theirs."""
    around = surroundings(tx, tenant_id, [wish for _, wish in rows if wish is not None])
    return [
        row if wish is None else planned(row, verdict_on(tx, around, wish, now_ms, updates=updates))
        for row, wish in rows
    ]


def store_rows(tx: Tx, batch_id: int, rows: list[BatchRow], now_ms: int) -> None:
    """Raises: InvalidArgument where the batch was given up meanwhile."""
    batch = tx.lock_batch(batch_id)
    if batch is None or batch.state is not BatchState.RECEIVING:
        raise InvalidArgument("The import took too long to receive and was given up; send it again")
    for row in rows:
        batch.count(row.status)
    batch.row_count += len(rows)
    batch.touched_ms = now_ms
    tx.insert_batch_rows(batch_id, rows)
    tx.update_batch(batch)


def close_batch(tx: Tx, batch_id: int, columns: Sequence[str], is_plan: bool, now_ms: int) -> Batch:
    """All rows are here: what comes next depends on them. Raises: InvalidArgument as `store_rows`."""
    batch = tx.lock_batch(batch_id)
    if batch is None or batch.state is not BatchState.RECEIVING:
        raise InvalidArgument("The import took too long to receive and was given up; send it again")
    batch.options = {**batch.options, "columns": list(columns)}
    batch.touched_ms = now_ms
    batch.state, batch.problem = BatchState.PLANNED, lack_of_room(tx, batch)
    if not is_plan:
        _start(tx, batch)
    tx.update_batch(batch)
    return batch


def _start(tx: ReadTx, batch: Batch) -> None:
    batch.position = 0
    if not batch.is_atomic:
        batch.problem = ""
    elif batch.bad_count:
        batch.problem = (
            f"{batch.bad_count} of {batch.row_count} rows cannot be applied, so none was; correct them, or choose"
            " the mode partial"
        )
    else:
        batch.problem = lack_of_room(tx, batch)
    batch.state = BatchState.REFUSED if batch.problem else BatchState.APPLYING


def give_up(tx: Tx, batch_id: int) -> None:
    """Of a file that turns out to be unreadable: as if it had never been sent."""
    batch = tx.lock_batch(batch_id)
    if batch is not None and batch.state is BatchState.RECEIVING:
        tx.discard_batch(batch_id)


def start_batch(tx: Tx, tenant_id: int, uuid: UUID, is_atomic: bool | None, now_ms: int) -> Batch:
    """Applies what was planned (or refused because of its mode). Raises: NotFound, InvalidArgument."""
    batch = _locked(tx, tenant_id, uuid)
    if batch.state not in (BatchState.PLANNED, BatchState.REFUSED):
        raise InvalidArgument(f"Only an import that is PLANNED or REFUSED can be applied; this one is {batch.state}")
    if is_atomic is not None:
        batch.is_atomic = is_atomic
    batch.touched_ms = now_ms
    _start(tx, batch)
    tx.update_batch(batch)
    return batch


def _locked(tx: Tx, tenant_id: int, uuid: UUID) -> Batch:
    known = tx.batch(tenant_id, uuid)
    batch = tx.lock_batch(known.id) if known is not None else None
    if batch is None:
        raise NotFound(f"Import with id [{uuid}] is not found")
    return batch


# -- applying -------------------------------------------------------------------------------------


def apply_piece(tx: Tx, batch_id: int, now_ms: int, row_count: int) -> Piece | None:
    """The next rows of a batch; None where it is not being applied (any more)."""
    batch = tx.lock_batch(batch_id)
    if batch is None or batch.state is not BatchState.APPLYING:
        return None
    piece = Piece(batch)
    rows = tx.batch_rows(batch.id, after=batch.position, limit=min(row_count, APPLIED_AT_ONCE))
    batch.touched_ms = now_ms
    if not rows:
        batch.state, piece.is_ended = BatchState.APPLIED, True
        tx.update_batch(batch)
        return piece
    open_rows = [row for row in rows if row.status in _DONE_AS]
    wishes = [wish_of(row.number, row.cells, casts=batch.options["casts"]) for row in open_rows]
    around = surroundings(tx, batch.tenant_id, wishes)
    verdicts = [_still(tx, around, row, wish, batch, now_ms) for row, wish in zip(open_rows, wishes, strict=True)]
    verdicts = within_room(tx, batch.tenant_id, verdicts)
    stopper = next((one for one in zip(open_rows, verdicts, strict=True) if one[1].status in BAD), None)
    if batch.is_atomic and stopper is not None:
        return _stop(tx, piece, *stopper)
    before = Counter(row.status for row in rows)
    refused = _write(tx, piece, around, list(zip(open_rows, wishes, verdicts, strict=True)), now_ms)
    for status, count in before.items():
        batch.count(status, -count)
    for status, count in Counter(row.status for row in rows).items():
        batch.count(status, count)
    batch.position = rows[-1].number
    if refused is not None:
        batch.state, piece.is_ended, batch.position = BatchState.STOPPED, True, refused.number
        batch.problem = (
            f"Row {refused.number}: {refused.detail}. What was done so far stands, as the rows' status says; undo the"
            " import, or load the rest again"
        )
    ended = [row for row in rows if row.status not in _DONE_AS and (row.status not in BAD or row in open_rows)]
    tx.update_batch_rows(batch.id, ended)
    tx.update_batch(batch)
    return piece


def _still(tx: ReadTx, around: Surroundings, row: BatchRow, wish: Wish, batch: Batch, now_ms: int) -> Verdict:
    """The verdict as of now. A row never does what the plan did not say."""
    verdict = verdict_on(tx, around, wish, now_ms, updates=batch.options["updates"])
    if row.status == RowStatus.CREATE and verdict.device is not None:
        text = f"A device '{wish.name}' was made since the plan; load the row again to update it"
        return Verdict(RowStatus.CONFLICT, "CHANGED_SINCE_PLAN", text)
    if row.status == RowStatus.UPDATE and verdict.status is RowStatus.CREATE:
        text = f"The device '{wish.name}' was deleted since the plan; load the row again to make it anew"
        return Verdict(RowStatus.CONFLICT, "CHANGED_SINCE_PLAN", text)
    return verdict


def _stop(tx: Tx, piece: Piece, row: BatchRow, verdict: Verdict) -> Piece:
    batch = piece.batch
    batch.count(row.status, -1)
    planned(row, verdict)
    batch.count(row.status)
    batch.state, piece.is_ended = BatchState.STOPPED, True
    batch.problem = (
        f"Row {row.number}: {row.detail}. The rows up to {batch.position} are applied; undo the import, or load the"
        " rest again"
    )
    tx.update_batch_rows(batch.id, [row])
    tx.update_batch(batch)
    return piece


def _write(
    tx: Tx, piece: Piece, around: Surroundings, work: list[tuple[BatchRow, Wish, Verdict]], now_ms: int
) -> BatchRow | None:
    """Sets the outcome of each row. An atomic import ends at the first that is refused, which is returned."""
    _create(tx, piece, around, [one for one in work if one[2].status is RowStatus.CREATE], now_ms)
    for row, wish, verdict in work:
        if verdict.status is RowStatus.UPDATE:
            try:
                _update(tx, piece, around, wish, verdict, now_ms)
            except PlatformError as error:  # raised before its first write
                verdict = Verdict(RowStatus.ERROR, "REFUSED", str(error), verdict.device)
        if verdict.status is not RowStatus.CREATE:
            planned(row, verdict)
            row.status = _DONE_AS.get(verdict.status, verdict.status)
            if row.status in BAD and piece.batch.is_atomic:
                return row
    return None


def _create(
    tx: Tx, piece: Piece, around: Surroundings, work: list[tuple[BatchRow, Wish, Verdict]], now_ms: int
) -> None:
    tenant_id = piece.batch.tenant_id
    profiles = {kind: _profile(tx, around, tenant_id, kind, now_ms) for kind in {wish.type for _, wish, _ in work}}
    with_packages = {kind for kind, profile in profiles.items() if has_packages(profile.document)}
    devices = [_new_device(tenant_id, around, wish, profiles[wish.type].id, now_ms) for _, wish, _ in work]
    numbers = tx.insert_devices(devices)
    credentials = [wish.credentials or AccessToken(new_secret()) for _, wish, _ in work]
    tx.insert_credentials(list(zip(numbers, credentials, strict=True)), now_ms=now_ms)
    for number, device, (row, wish, _) in zip(numbers, devices, work, strict=True):
        row.status, row.device_uuid, row.code, row.detail = RowStatus.CREATED, device.uuid, "", ""
        if wish.type in with_packages:
            tell_assigned(tx, number, now_ms=now_ms)
        _write_data(tx, number, wish, now_ms)
        if Scope.SERVER in wish.attributes:  # the time after which it counts as inactive may be among them
            piece.written.append((number, Scope.SERVER, wish.attributes[Scope.SERVER]))
        if wish.credentials is not None:
            piece.changed.append(number)  # a login with them may have been refused, and remembered


def _new_device(tenant_id: int, around: Surroundings, wish: Wish, profile_id: int, now_ms: int) -> NewDevice:
    info = _info({}, wish)
    customer = around.customers[wish.customer] if wish.customer else None
    return NewDevice(
        uuid=new_uuid(now_ms), tenant_id=tenant_id, profile_id=profile_id, name=wish.name, created_ms=now_ms,
        label=wish.label or "", is_gateway=bool(wish.is_gateway), document={"additionalInfo": info} if info else {},
        customer_id=customer.id if customer is not None else None,
    )  # fmt: skip


def _profile(tx: Tx, around: Surroundings, tenant_id: int, kind: str, now_ms: int) -> DeviceProfile:
    """Found, or made: a device's type is the name of its profile."""
    known = around.profiles[kind]
    if known is None:
        new = NewProfile(
            uuid=new_uuid(now_ms), tenant_id=tenant_id, name=kind or inventory.DEFAULT_PROFILE,
            provision=ProvisionConfiguration(), document={}, created_ms=now_ms,
        )  # fmt: skip
        same = tx.profile_by_name(tenant_id, new.name)  # "" and "default" in one piece
        if same is None:
            tx.insert_profile(new)
        known = around.profiles[kind] = inventory.found(tx.profile_by_name(tenant_id, new.name), "Profile", new.name)
    return known


def _update(tx: Tx, piece: Piece, around: Surroundings, wish: Wish, verdict: Verdict, now_ms: int) -> None:
    stored, tenant_id = verdict.device, piece.batch.tenant_id
    assert stored is not None, "an update is one of a device"
    saved = inventory.write_device(
        tx, tenant_id, _members(around, wish, stored), wish.credentials if verdict.has_new_credentials else None, now_ms
    )
    if saved.ends_sessions:
        piece.changed.append(stored.id)
    if saved.news:
        piece.news.append((stored.id, saved.news))
    if piece.batch.options["updates"]:
        _write_data(tx, stored.id, wish, now_ms)
        piece.written += [(stored.id, scope, values) for scope, values in wish.attributes.items()]


def _members(around: Surroundings, wish: Wish, stored: Device) -> dict[str, Any]:
    """REST members: those that the row says nothing of stay as they are."""
    info = stored.document.get("additionalInfo")
    members: dict[str, Any] = {
        **stored.document, "id": str(stored.uuid), "name": wish.name, "type": wish.type,
        "label": stored.label if wish.label is None else wish.label,
        "additionalInfo": _info(info if isinstance(info, dict) else {}, wish),
    }  # fmt: skip
    if wish.is_gateway is None and stored.is_gateway:
        members["additionalInfo"] |= {"gateway": True}
    if wish.customer:
        customer = around.customers[wish.customer]
        assert customer is not None, "a row of an unknown customer is refused"
        members["customerId"] = str(customer.uuid)
    return members


def _info(info: dict[str, Any], wish: Wish) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if wish.description is not None:
        given["description"] = wish.description
    if wish.is_gateway is not None:
        given["gateway"] = wish.is_gateway
    return info | given


def _write_data(tx: Tx, device_id: int, wish: Wish, now_ms: int) -> None:
    for scope, values in wish.attributes.items():
        tx.put_attributes(device_id, scope, values, now_ms=now_ms)
    if wish.time_series:
        samples: dict[str, Value] = wish.time_series
        tx.append_samples(device_id, [(now_ms, samples)])


# -- undoing and forgetting -----------------------------------------------------------------------


def start_undo(tx: Tx, tenant_id: int, uuid: UUID, now_ms: int) -> Batch:
    """Raises: NotFound, InvalidArgument."""
    batch = _locked(tx, tenant_id, uuid)
    if batch.state not in (BatchState.APPLIED, BatchState.STOPPED):
        raise InvalidArgument(f"Only an import that is APPLIED or STOPPED can be undone; this one is {batch.state}")
    batch.state, batch.position, batch.touched_ms, batch.problem = BatchState.UNDOING, 0, now_ms, ""
    tx.update_batch(batch)
    return batch


def undo_piece(tx: Tx, batch_id: int, now_ms: int, row_count: int) -> Piece | None:
    """Deletes devices that the batch has created and nobody has touched since; None where it is not being undone."""
    batch = tx.lock_batch(batch_id)
    if batch is None or batch.state is not BatchState.UNDOING:
        return None
    piece = Piece(batch)
    at_most = min(row_count, UNDONE_AT_ONCE)
    rows = tx.batch_rows(batch.id, after=batch.position, limit=at_most, status=RowStatus.CREATED)
    batch.touched_ms = now_ms
    if not rows:
        batch.state, piece.is_ended = BatchState.UNDONE, True
        kept, updated = batch.counts.get(RowStatus.KEPT, 0), batch.counts.get(RowStatus.UPDATED, 0)
        batch.problem = "; ".join(
            text
            for count, text in (
                (kept, f"{kept} devices were left: they were changed or used since"),
                (updated, f"{updated} devices that were updated keep what the import gave them"),
            )
            if count
        )
        tx.update_batch(batch)
        return piece
    for row in rows:
        batch.count(row.status, -1)
        device = tx.device(batch.tenant_id, row.device_uuid) if row.device_uuid is not None else None
        why = _touched(tx, device) if device is not None else ""
        row.status, row.detail = (RowStatus.KEPT if why else RowStatus.UNDONE), why
        row.code = "CHANGED_SINCE" if why else ""
        batch.count(row.status)
        if device is not None and not why:
            piece.deleted.append(inventory.delete_device(tx, batch.tenant_id, device.uuid, now_ms))
    batch.position = rows[-1].number
    tx.update_batch_rows(batch.id, rows)
    tx.update_batch(batch)
    return piece


def _touched(tx: ReadTx, device: Device) -> str:
    """What has happened to a device since it was imported; empty for nothing."""
    credentials = tx.credentials(device.id)
    if device.version != 1:
        return "The device was changed since the import"
    if credentials is None or credentials.version != 1 or credentials.issued_ms is not None:
        return "The device got its credentials since the import"
    if credentials.confirmed_ms is not None or tx.sub_device(device.id) is not None:
        return "The device has logged in since the import"
    entries = [entry for scope in Scope for entry in tx.attributes(device.id, scope) if entry.key not in PRESENCE_KEYS]
    if any(entry.updated_ms > device.created_ms for entry in entries):
        return "The device got attributes since the import"
    if any(ts_ms != device.created_ms for ts_ms, _ in tx.latest(device.id).values()):
        return "The device got telemetry since the import"
    return ""


def discard_piece(tx: Tx, batch_id: int, now_ms: int, row_count: int = 0) -> Piece | None:
    """Forgets some rows, in the end the batch; they cost so little that they need no pace."""
    batch = tx.lock_batch(batch_id)
    if batch is None or batch.state is not BatchState.DISCARDED:
        return None
    rows = tx.batch_row_numbers(batch_id, limit=DISCARDED_AT_ONCE)
    if rows:
        tx.delete_batch_rows(batch_id, up_to=rows[-1])
    else:
        tx.delete_batch(batch_id)
    return Piece(batch, is_ended=not rows)
