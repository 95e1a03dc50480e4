"""`ImportsApi`: what operators can do with imports of devices."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import BinaryIO
from uuid import UUID

from twisted.internet.threads import deferToThread

from cloud_core.core.api import DeviceApi
from cloud_core.core.asking import Asking, to_the_end
from cloud_core.core.bulk import applying, error_files
from cloud_core.core.bulk.applying import Piece
from cloud_core.core.bulk.columns import PLAIN
from cloud_core.core.bulk.planning import Seen
from cloud_core.core.bulk.reading import CSV, Format, Record, records, with_delimiter
from cloud_core.core.bulk.rows import RowFault, Wish, text_of, wish_of
from cloud_core.core.bulk.worker import ImportWorker
from cloud_core.core.downlinks import Ending
from cloud_core.core.inventory import found
from cloud_core.core.names import MAX_NAME_CHARS
from cloud_core.core.people.audit import Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.core.tokens import new_uuid
from cloud_core.model import Page
from cloud_core.storage.interface import ReadTx, Store, Tx
from cloud_core.storage.interface.batches import BAD, Batch, BatchRow, BatchState, RowStatus
from shared.errors import InvalidArgument, Unavailable

MAX_RECEIVING = 4  # files being read at once
MAX_KEY_CHARS = 255
PLANNED_AT_ONCE = 250
ERRORS_AT_ONCE = 500
RECEIVING_MS = 60_000  # without a row for so long, nobody is sending any more
KEPT_MS = 90 * 86_400_000
_HASHED_BYTES = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How a file is to be imported. `updates`: attributes of devices that are there already are written too."""

    format: Format = field(default_factory=Format)
    is_plan: bool = False
    is_atomic: bool = True
    updates: bool = True
    file_name: str = ""
    idempotency_key: str = ""


class ImportsApi(Asking):
    """Receives files, plans them, has them applied and undone."""

    def __init__(self, *, store: Store, api: DeviceApi) -> None:
        super().__init__(store, api.audit)
        self._api = api
        self._now_ms: Callable[[], int] = api.now_ms
        self._receiving = 0
        self.worker = ImportWorker(store=store, now_ms=api.now_ms, tell=self._tell, call_later=api.call_later)

    def start(self) -> None:
        """Goes on with what was under way when the core ended."""
        self.worker.wake()

    def stop(self) -> None:
        self.worker.stop()

    def maintain(self) -> None:
        """Every minute: forgets what nobody sends any more and what ended long ago, and tries again what has failed."""
        now_ms = self._now_ms()
        self._store.submit(_discard, (now_ms - RECEIVING_MS, now_ms - KEPT_MS), lambda _outcome: self.worker.wake())

    async def receive(self, operator: Operator, file: BinaryIO, options: ImportOptions) -> Batch:
        """Reads and plans a file; then has it applied unless only the plan is wanted. Nothing of the file is kept
        if it cannot be read. Of a key that was used before for the same file: the batch that came of it.

        Raises: InvalidArgument, Unavailable.
        """
        if len(options.idempotency_key) > MAX_KEY_CHARS:
            raise InvalidArgument(f"The Idempotency-Key is longer than {MAX_KEY_CHARS} characters")
        if self._receiving >= MAX_RECEIVING:
            raise Unavailable(f"{MAX_RECEIVING} imports are being received; try again in a moment", retry_after_s=5.0)
        self._receiving += 1
        try:
            digest = await deferToThread(_digest, file, options)
            options = replace(options, format=await deferToThread(with_delimiter, file, options.format))
            batch, is_new = await self._decide(applying.open_batch, self._new_batch(operator, digest, options))
            if is_new:
                batch = await self._fill(operator, batch, file, options)
        finally:
            self._receiving -= 1
        if batch.state is BatchState.APPLYING:
            self.worker.wake()
        return batch

    def _new_batch(self, operator: Operator, digest: bytes, options: ImportOptions) -> Batch:
        now_ms = self._now_ms()
        return Batch(
            uuid=new_uuid(now_ms), tenant_id=operator.tenant_id, created_ms=now_ms, touched_ms=now_ms,
            state=BatchState.RECEIVING, is_atomic=options.is_atomic, digest=digest,
            idempotency_key=options.idempotency_key or None,
            options={
                "file": options.file_name[:MAX_NAME_CHARS].replace("\0", ""), "casts": options.format.kind == CSV,
                "updates": options.updates, "delimiter": options.format.delimiter or ",",
            },
        )  # fmt: skip

    async def _fill(self, operator: Operator, batch: Batch, file: BinaryIO, options: ImportOptions) -> Batch:
        pieces = _pieces(records(file, options.format), Seen(), casts=options.format.kind == CSV)
        columns: dict[str, None] = {}
        try:
            while (rows := await deferToThread(next, pieces, None)) is not None:
                columns |= dict.fromkeys(column for row, _ in rows for column in row.cells)
                planned = await self._read(_plan, batch.tenant_id, rows, self._now_ms(), options.updates)
                await self._decide(applying.store_rows, batch.id, planned, self._now_ms())
            order = [one for one in PLAIN if one in columns] + sorted(set(columns) - set(PLAIN))
            args = (batch.id, order, options.is_plan, self._now_ms())
            return await self._decide_by(operator, Deed("IMPORTED", "IMPORT", _of_batch), applying.close_batch, *args)
        except Exception:  # also where the sender is gone, and with it the file: then nothing is waited for
            self._store.submit(applying.give_up, (batch.id,), lambda _outcome: self.worker.wake())
            raise

    async def receive_and_wait(self, operator: Operator, file: BinaryIO, options: ImportOptions) -> Batch:
        """As `receive`; answers when all rows are done."""
        batch = await self.receive(operator, file, options)
        return await self.worker.ended(batch) if batch.state is BatchState.APPLYING else batch

    async def find(self, operator: Operator, uuid: UUID) -> Batch:
        return found(await self._read(_batch, operator.tenant_id, uuid), "Import", uuid)

    async def batches(self, operator: Operator, page: Page) -> tuple[list[Batch], int]:
        return await self._read(_batches, operator.tenant_id, page)

    async def rows(self, operator: Operator, uuid: UUID, status: str, page: Page) -> tuple[list[BatchRow], int]:
        """One page of the rows, with `status` of those that have it. Raises: NotFound, InvalidArgument."""
        if status and status not in RowStatus.__members__:
            raise InvalidArgument(f"Unknown status '{status[:40]}'; use one of {', '.join(RowStatus)}")
        batch = await self.find(operator, uuid)
        total = batch.counts.get(status, 0) if status else batch.row_count
        return await self._read(_rows_page, batch.id, status, page), total

    async def bad_rows(self, batch: Batch) -> AsyncIterator[BatchRow]:
        """Those that were or would be refused, in the order of the file."""
        async for rows in self._bad_pieces(batch):
            for row in rows:
                yield row

    async def _bad_pieces(self, batch: Batch) -> AsyncIterator[list[BatchRow]]:
        after = 0
        while rows := await self._read(_bad_rows, batch.id, after):
            yield rows
            after = rows[-1].number

    async def error_file(self, operator: Operator, uuid: UUID, file_name: str) -> AsyncIterator[bytes]:
        """The bad rows with their reasons, a piece for some hundred: to be corrected and loaded again.

        `file_name` says in which format; the other one than the import's would lose types. Raises: NotFound,
        InvalidArgument.
        """
        batch = await self.find(operator, uuid)
        known = error_files.file_name_of(batch)
        if file_name != known:
            raise InvalidArgument(f"The bad rows of this import are in {known}, where values keep their types")
        columns, delimiter = batch.options.get("columns", []), batch.options.get("delimiter", ",")

        async def pieces() -> AsyncIterator[bytes]:
            is_csv = known == error_files.CSV_FILE
            if is_csv:
                yield error_files.csv_head(columns, delimiter)
            async for rows in self._bad_pieces(batch):
                yield b"".join(
                    error_files.csv_row(row, columns, delimiter) if is_csv else error_files.ndjson_row(row)
                    for row in rows
                )

        return pieces()

    @to_the_end
    async def apply(self, operator: Operator, uuid: UUID, *, is_atomic: bool | None) -> Batch:
        """Of what was only planned, or refused for its mode. Raises: NotFound, InvalidArgument."""
        args = (operator.tenant_id, uuid, is_atomic, self._now_ms())
        batch = await self._decide_by(operator, Deed("APPLIED", "IMPORT", _of_batch), applying.start_batch, *args)
        self.worker.wake()
        return batch

    @to_the_end
    async def undo(self, operator: Operator, uuid: UUID) -> Batch:
        """Deletes what it has created, where that is as it was. Raises: NotFound, InvalidArgument."""
        args = (operator.tenant_id, uuid, self._now_ms())
        batch = await self._decide_by(operator, Deed("UNDONE", "IMPORT", _of_batch), applying.start_undo, *args)
        self.worker.wake()
        return batch

    def _tell(self, piece: Piece) -> None:
        """Sessions and others hear of what is on disk now."""
        for device_id in piece.changed:
            self._api.device_changed(device_id, Ending.DEVICE_CHANGED)
        for device_id, news in piece.news:
            self._api.attributes.changed(device_id, news)
        for device_id, scope, values in piece.written:
            self._api.attributes.announce(device_id, scope, values)
        for gone in piece.deleted:
            self._api.device_changed(gone.device_id, Ending.DEVICE_DELETED)
            if gone.gateway_id:
                self._api.gateways.deleted(piece.batch.tenant_id, gone.gateway_id, gone.name)


def _of_batch(batch: Batch) -> Subject | None:
    """By its id, under which the rows say what became of each device. What was only planned, or is refused, changes
    nothing."""
    if batch.state in (BatchState.PLANNED, BatchState.REFUSED):
        return None
    how = "all rows or none" if batch.is_atomic else "the good rows"
    counts = ", ".join(f"{count} {status}" for status, count in sorted(batch.counts.items()) if count)
    detail = f"{batch.row_count} rows ({counts}), {how}, {batch.state}"
    return Subject(batch.uuid, str(batch.options.get("file", "")), detail)


def _digest(file: BinaryIO, options: ImportOptions) -> bytes:
    hashed = hashlib.sha256()
    columns = options.format.columns.names if options.format.columns is not None else None
    told = (
        options.is_plan, options.is_atomic, options.updates, options.format.kind, options.format.delimiter,
        options.format.encoding, options.format.has_header, columns, options.format.mapped,
    )  # fmt: skip
    hashed.update(json.dumps(told, sort_keys=True).encode())
    file.seek(0)
    while piece := file.read(_HASHED_BYTES):
        hashed.update(piece)
    return hashed.digest()


def _pieces(
    found_in_file: Iterator[Record], seen: Seen, *, casts: bool
) -> Generator[list[tuple[BatchRow, Wish | None]], None, None]:
    while piece := [_read_row(record, seen, casts=casts) for record in islice(found_in_file, PLANNED_AT_ONCE)]:
        yield piece


def _read_row(record: Record, seen: Seen, *, casts: bool) -> tuple[BatchRow, Wish | None]:
    """A row, and what it wishes unless the row alone shows that it cannot be applied."""
    name = text_of(record.cells.get("name", ""))[:MAX_NAME_CHARS].replace("\0", "\ufffd")
    row = BatchRow(number=record.number, status=RowStatus.ERROR, name=name, cells=record.cells)
    try:
        if record.fault:
            raise RowFault("MALFORMED", record.fault)
        wish = wish_of(record.number, record.cells, casts=casts)
    except RowFault as fault:
        row.code, row.detail = fault.code, str(fault).replace("\0", "\ufffd")
        return row, None
    clash = seen.clash(wish)
    if clash is not None:
        row.status, row.code, row.detail = clash.status, clash.code, clash.detail
        return row, None
    return row, wish


def _plan(
    tx: ReadTx, tenant_id: int, rows: list[tuple[BatchRow, Wish | None]], now_ms: int, updates: bool
) -> list[BatchRow]:
    return applying.plan_rows(tx, tenant_id, rows, now_ms, updates=updates)


def _batch(tx: ReadTx, tenant_id: int, uuid: UUID) -> Batch | None:
    return tx.batch(tenant_id, uuid)


def _batches(tx: ReadTx, tenant_id: int, page: Page) -> tuple[list[Batch], int]:
    return tx.batches(tenant_id, page)


def _rows_page(tx: ReadTx, batch_id: int, status: str, page: Page) -> list[BatchRow]:
    return tx.batch_row_page(batch_id, status=status, offset=page.page * page.size, limit=page.size)


def _bad_rows(tx: ReadTx, batch_id: int, after: int) -> list[BatchRow]:
    """The next ones of both kinds, in the order of the file."""
    lists = [tx.batch_rows(batch_id, after=after, limit=ERRORS_AT_ONCE, status=status) for status in BAD]
    rows = sorted((row for rows in lists for row in rows), key=lambda row: row.number)
    return rows[:ERRORS_AT_ONCE]


def _discard(tx: Tx, received_before_ms: int, ended_before_ms: int) -> int:
    return tx.discard_batches(received_before_ms=received_before_ms, ended_before_ms=ended_before_ms)
