"""Imports of devices: batches and their rows; look-ups and insertions of many devices at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from cloud_core.entropy import random_bytes
from cloud_core.model import ChangeKind, Device, Page
from cloud_core.storage.changes import RecordsChanges
from cloud_core.storage.connected import Connected
from cloud_core.storage.interface import NewDevice
from cloud_core.storage.interface.batches import BAD, UNDER_WAY, Batch, BatchRow, BatchState
from cloud_core.storage.schema import batch, batch_row, credentials, device
from cloud_core.storage.statements import Statement, device_rows
from shared.credentials import AccessToken, Credentials, X509Certificate, credentials_id

p = bindparam
_b, _r = batch.c, batch_row.c
_BATCHES = select(
    _b.id, _b.uuid, _b.tenant_id, _b.created_ms, _b.touched_ms, _b.state, _b.is_atomic, _b.options,
    _b.idempotency_key, _b.digest, _b.row_count, _b.position, _b.counts, _b.problem,
)  # fmt: skip
_BY_UUID = _BATCHES.where(_b.tenant_id == p("tenant_id"), _b.uuid == p("uuid"), _b.state != BatchState.DISCARDED.value)
_BY_KEY = _BATCHES.where(_b.tenant_id == p("tenant_id"), _b.idempotency_key == p("idempotency_key"))
_UNDER_WAY = _BATCHES.where(or_(*(_b.state == one.value for one in UNDER_WAY))).order_by(_b.id)
_FIRST = _BATCHES.where(_b.tenant_id == p("tenant_id")).order_by(_b.id).limit(1)
_LOCK = _BATCHES.where(_b.id == p("id")).with_for_update()
_NAMES = tuple(column.name for column in batch.columns if column.name != "id")
_INSERT = insert(batch).values({name: p(name) for name in _NAMES}).returning(_b.id)
_CHANGING = ("touched_ms", "state", "is_atomic", "options", "row_count", "position", "counts", "problem")
_UPDATE = update(batch).where(_b.id == p("b_id")).values({name: p(name) for name in _CHANGING})
_DELETE = delete(batch).where(_b.id == p("id"))
_ENDED = (BatchState.PLANNED, BatchState.REFUSED, BatchState.APPLIED, BatchState.STOPPED, BatchState.UNDONE)
_DISCARD = (
    update(batch)
    .where(
        or_(
            (_b.state == BatchState.RECEIVING.value) & (_b.touched_ms < p("b_received_before_ms")),
            or_(*(_b.state == one.value for one in _ENDED)) & (_b.touched_ms < p("b_ended_before_ms")),
        )
    )
    .values(state=p("state"), idempotency_key=None)
)
_DISCARD_ONE = update(batch).where(_b.id == p("b_id")).values(state=p("state"), idempotency_key=None)
_DISCARD_ALL = update(batch).where(_b.tenant_id == p("b_tenant_id")).values(state=p("state"), idempotency_key=None)

_ROWS = select(_r.number, _r.status, _r.name, _r.code, _r.detail, _r.device_uuid, _r.source_sealed).order_by(_r.number)
_NEXT_ROWS = _ROWS.where(_r.batch_id == p("batch_id"), _r.number > p("after")).limit(p("limit"))
_NEXT_ROWS_OF = _NEXT_ROWS.where(_r.status == p("status"))
_ROW_PAGE = _ROWS.where(_r.batch_id == p("batch_id")).limit(p("limit")).offset(p("offset"))
_ROW_PAGE_OF = _ROW_PAGE.where(_r.status == p("status"))
_ROW_NUMBERS = select(_r.number).where(_r.batch_id == p("batch_id")).order_by(_r.number).limit(p("limit"))
_INSERT_ROW = insert(batch_row).values({column.name: p(column.name) for column in batch_row.columns})
_ROW_AT = (_r.batch_id == p("b_batch_id"), _r.number == p("b_number"))
_OUTCOME: dict[str, Any] = {name: p(name) for name in ("status", "code", "detail", "device_uuid")}
_UPDATE_ROW = update(batch_row).where(*_ROW_AT).values(_OUTCOME)
_END_ROW = update(batch_row).where(*_ROW_AT).values({**_OUTCOME, "source_sealed": None})
_DELETE_ROWS = delete(batch_row).where(_r.batch_id == p("batch_id"), _r.number <= p("up_to"))

# One statement for any number: the rest of its places is filled with the last value.
LOOKED_UP_AT_ONCE = 250
_PLACES = tuple(f"one_{place}" for place in range(LOOKED_UP_AT_ONCE))
_DEVICES = device_rows.where(device.c.tenant_id == p("tenant_id"), device.c.name.in_([p(one) for one in _PLACES]))
_NUMBERS = select(device.c.name, device.c.id).where(
    device.c.tenant_id == p("tenant_id"), device.c.name.in_([p(one) for one in _PLACES])
)
_OWNERS = select(credentials.c.id_hash, credentials.c.device_id).where(
    credentials.c.id_hash.in_([p(one) for one in _PLACES])
)
_INSERT_DEVICE = insert(device).values({one.name: p(one.name) for one in device.columns if one.name != "id"})
_INSERT_CREDENTIALS = insert(credentials).values({one.name: p(one.name) for one in credentials.columns})
_CONTEXT = b"batch row"


class ReadsBatches(Connected):
    """`ReadBatches` of the interface."""

    def batch(self, tenant_id: int, uuid: UUID) -> Batch | None:
        return _batch(self._row(self._once(_BY_UUID), tenant_id=tenant_id, uuid=uuid.bytes))

    def batch_by_key(self, tenant_id: int, idempotency_key: str) -> Batch | None:
        return _batch(self._row(self._once(_BY_KEY), tenant_id=tenant_id, idempotency_key=idempotency_key))

    def batches(self, tenant_id: int, page: Page) -> tuple[list[Batch], int]:
        wanted = (_b.tenant_id == tenant_id, _b.state != BatchState.DISCARDED.value)
        total = self._query(select(func.count()).select_from(batch).where(*wanted))[0][0]
        rows = _BATCHES.where(*wanted).order_by(_b.id.desc()).limit(page.size).offset(page.page * page.size)
        return [one for row in self._query(rows) if (one := _batch(row))], total

    def batches_under_way(self) -> list[Batch]:
        return [one for row in self._rows(self._once(_UNDER_WAY)) if (one := _batch(row))]

    def first_batch(self, tenant_id: int) -> Batch | None:
        return _batch(self._row(self._once(_FIRST), tenant_id=tenant_id))

    def batch_rows(self, batch_id: int, *, after: int, limit: int, status: str = "") -> list[BatchRow]:
        params: dict[str, Any] = {"batch_id": batch_id, "after": after, "limit": limit}
        if status:
            return self._batch_rows(self._rows(self._once(_NEXT_ROWS_OF), status=f"{status}", **params))
        return self._batch_rows(self._rows(self._once(_NEXT_ROWS), **params))

    def batch_row_page(self, batch_id: int, *, status: str, offset: int, limit: int) -> list[BatchRow]:
        params: dict[str, Any] = {"batch_id": batch_id, "offset": offset, "limit": limit}
        if status:
            return self._batch_rows(self._rows(self._once(_ROW_PAGE_OF), status=status, **params))
        return self._batch_rows(self._rows(self._once(_ROW_PAGE), **params))

    def _batch_rows(self, rows: list[Any]) -> list[BatchRow]:
        return [
            BatchRow(
                number=row[0], status=row[1], name=row[2], code=row[3], detail=row[4],
                device_uuid=None if row[5] is None else UUID(bytes=bytes(row[5])),
                cells={} if row[6] is None else msgspec.msgpack.decode(
                    self._vault.unseal(bytes(row[6]), context=_CONTEXT)
                ),
            )
            for row in rows
        ]  # fmt: skip

    def batch_row_numbers(self, batch_id: int, *, limit: int) -> list[int]:
        return [row[0] for row in self._rows(self._once(_ROW_NUMBERS), batch_id=batch_id, limit=limit)]

    def devices_by_name(self, tenant_id: int, names: Sequence[str]) -> dict[str, Device]:
        found = (self._found_device(row) for row in self._look_up(_DEVICES, names, tenant_id=tenant_id))
        return {device.name: device for device in found}

    def credentials_owners(self, credentials_ids: Sequence[str]) -> dict[str, int]:
        hashes = {self._vault.hash_id(one): one for one in credentials_ids}
        return {hashes[bytes(row[0])]: row[1] for row in self._look_up(_OWNERS, list(hashes))}

    def _look_up(self, clause: Any, values: Sequence[Any], **params: Any) -> list[Any]:
        rows: list[Any] = []
        for start in range(0, len(values), LOOKED_UP_AT_ONCE):
            asked = list(values[start : start + LOOKED_UP_AT_ONCE])
            asked += asked[-1:] * (LOOKED_UP_AT_ONCE - len(asked))
            rows += self._rows(self._once(clause), **params, **dict(zip(_PLACES, asked, strict=True)))
        return rows

    def _found_device(self, row: Any) -> Device:
        raise NotImplementedError


class WritesBatches(ReadsBatches, RecordsChanges):
    """`WriteBatches` of the interface."""

    def insert_batch(self, batch: Batch) -> int:
        self.writes += 1
        number: int = self._row(
            self._once(_INSERT), uuid=batch.uuid.bytes, tenant_id=batch.tenant_id, created_ms=batch.created_ms,
            idempotency_key=batch.idempotency_key, digest=batch.digest, **_changing(batch),
        )[0]  # fmt: skip
        return number

    def lock_batch(self, batch_id: int) -> Batch | None:
        return _batch(self._row(self._once(_LOCK), id=batch_id))

    def update_batch(self, batch: Batch) -> None:
        self._write(self._once(_UPDATE), b_id=batch.id, **_changing(batch))

    def delete_batch(self, batch_id: int) -> None:
        self._write(self._once(_DELETE), id=batch_id)

    def discard_batch(self, batch_id: int) -> None:
        self._write(self._once(_DISCARD_ONE), b_id=batch_id, state=BatchState.DISCARDED.value)

    def discard_batches(self, *, received_before_ms: int, ended_before_ms: int) -> int:
        self._write(
            self._once(_DISCARD), b_received_before_ms=received_before_ms, b_ended_before_ms=ended_before_ms,
            state=BatchState.DISCARDED.value,
        )  # fmt: skip
        count: int = self._cursor.rowcount
        return count

    def discard_batches_of(self, tenant_id: int) -> None:
        self._write(self._once(_DISCARD_ALL), b_tenant_id=tenant_id, state=BatchState.DISCARDED.value)

    def insert_batch_rows(self, batch_id: int, rows: Sequence[BatchRow]) -> None:
        self._write_many(
            self._once(_INSERT_ROW),
            [
                {
                    **_outcome(row), "batch_id": batch_id, "number": row.number, "name": row.name,
                    "source_sealed": self._vault.seal(msgspec.msgpack.encode(row.cells), context=_CONTEXT),
                }
                for row in rows
            ],
        )  # fmt: skip

    def update_batch_rows(self, batch_id: int, rows: Sequence[BatchRow]) -> None:
        ended: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for row in rows:
            values = {**_outcome(row), "b_batch_id": batch_id, "b_number": row.number}
            (bad if row.status in BAD else ended).append(values)
        self._write_many(self._once(_END_ROW), ended)
        self._write_many(self._once(_UPDATE_ROW), bad)

    def delete_batch_rows(self, batch_id: int, *, up_to: int) -> None:
        self._write(self._once(_DELETE_ROWS), batch_id=batch_id, up_to=up_to)

    def insert_devices(self, devices: Sequence[NewDevice]) -> list[int]:
        self._write_many(
            self._once(_INSERT_DEVICE),
            [
                {
                    "uuid": one.uuid.bytes, "tenant_id": one.tenant_id, "profile_id": one.profile_id,
                    "name": one.name, "label": one.label, "is_gateway": one.is_gateway,
                    "document": msgspec.json.encode(one.document or {}).decode(), "created_ms": one.created_ms,
                    "version": 1, "customer_id": one.customer_id,
                }
                for one in devices
            ],
        )  # fmt: skip
        names = [one.name for one in devices]
        numbers = dict(self._look_up(_NUMBERS, names, tenant_id=devices[0].tenant_id)) if devices else {}
        made = [numbers[name] for name in names]
        if self.node is not None:
            self._new_devices.update(made)
        return made

    def insert_credentials(self, credentials: Sequence[tuple[int, Credentials]], *, now_ms: int) -> None:
        simple = []
        for device_id, one in credentials:
            if isinstance(one, X509Certificate):  # what is known of a certificate is kept beside it
                self.put_credentials(device_id, one, now_ms=now_ms, is_new_device=True)
                continue
            if not isinstance(one, AccessToken):
                self.record_change(ChangeKind.NEW_CREDENTIALS, device_id)
            simple.append(
                {
                    "device_id": device_id, "uuid": random_bytes(16), "created_ms": now_ms, "issued_ms": None,
                    "id_hash": self._vault.hash_id(credentials_id(one)), "sealed": self._sealed(one),
                    "confirmed_ms": None, "request_digest": None, "version": 1,
                }
            )  # fmt: skip
        self._write_many(self._once(_INSERT_CREDENTIALS), simple)

    def put_credentials(
        self, device_id: int, credentials: Credentials, *, now_ms: int, is_new_device: bool = False
    ) -> None:
        raise NotImplementedError

    def _sealed(self, credentials: Credentials) -> bytes:
        raise NotImplementedError

    def _write_many(self, statement: Statement, rows: list[dict[str, Any]]) -> None:
        if rows:
            self.writes += 1
            self._cursor.executemany(statement.sql, [statement.values(row) for row in rows])


def _changing(batch: Batch) -> dict[str, Any]:
    return {
        "touched_ms": batch.touched_ms, "state": batch.state.value, "is_atomic": batch.is_atomic,
        "options": msgspec.json.encode(batch.options).decode(), "row_count": batch.row_count,
        "position": batch.position, "counts": msgspec.json.encode(batch.counts).decode(), "problem": batch.problem,
    }  # fmt: skip


def _outcome(row: BatchRow) -> dict[str, Any]:
    uuid = row.device_uuid.bytes if row.device_uuid is not None else None
    return {"status": f"{row.status}", "code": row.code, "detail": row.detail, "device_uuid": uuid}


def _batch(row: Any) -> Batch | None:
    if row is None:
        return None
    return Batch(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], created_ms=row[3], touched_ms=row[4],
        state=BatchState(row[5]), is_atomic=bool(row[6]), options=msgspec.json.decode(row[7]), idempotency_key=row[8],
        digest=bytes(row[9]), row_count=row[10], position=row[11], counts=msgspec.json.decode(row[12]),
        problem=row[13],
    )  # fmt: skip
