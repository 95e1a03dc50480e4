"""Imports of devices over REST: ThingsBoard's bulk import, and files with a plan, progress, an error file and undo.

Source: wire-contract.md section 6.5.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, BinaryIO, cast
from uuid import UUID

from twisted.internet.threads import deferToThread
from twisted.web.http import Request
from werkzeug.http import parse_options_header

from cloud_core.core.admin import AdminApi
from cloud_core.core.bulk.columns import columns_of_mapping
from cloud_core.core.bulk.error_files import CSV_FILE, NDJSON_FILE, file_name_of
from cloud_core.core.bulk.imports import ImportOptions, ImportsApi
from cloud_core.core.bulk.reading import CSV, JSON, NDJSON, Format
from cloud_core.core.people.permissions import Act
from cloud_core.model import Page
from cloud_core.storage.interface.batches import Batch, BatchRow, BatchState, RowStatus
from cloud_core.transports.http.calls import (
    CallSupport,
    answers,
    json_object,
    page_bounds,
    query,
    rest_app,
    uuid_of,
)
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.rest.uploads import OVERHEAD_BYTES, uploaded_file
from cloud_core.transports.http.streaming import send_pieces
from shared.errors import InvalidArgument, MalformedRequest, RequestTooLarge

MAX_FILE_BYTES = 67_108_864
MAX_ERRORS_LISTED = 10_000
DEFAULT_PAGE_SIZE = 100
MULTIPART = "multipart/form-data"
_KINDS = {
    "text/csv": CSV, "text/plain": CSV, "text/tab-separated-values": CSV, "application/vnd.ms-excel": CSV,
    "application/x-ndjson": NDJSON, "application/ndjson": NDJSON, "application/jsonl": NDJSON,
    "application/x-jsonlines": NDJSON, "application/json": JSON,
}  # fmt: skip
_BY_ENDING = {"ndjson": NDJSON, "jsonl": NDJSON, "json": JSON}
_UPLOAD = re.compile(rb"/api/imports/?(?:\?.*)?")
_MODES = {"atomic": True, "partial": False}
# What ThingsBoard's exceptions are called, for scripts that read them.
_EXCEPTIONS = {"MALFORMED": "DataValidationException", "NAME_MISSING": "DataValidationException"}
_EXCEPTION = "IllegalArgumentException"


def with_uploads(limit: Callable[[Any, bytes, bytes], int]) -> Callable[[Any, bytes, bytes], int]:
    """How large a body may be, where files of devices may be larger than the others."""

    def limited(request: Any, method: bytes, path: bytes) -> int:
        allowed = limit(request, method, path)
        is_upload = method == b"POST" and _UPLOAD.fullmatch(path)
        return max(allowed, MAX_FILE_BYTES + OVERHEAD_BYTES) if is_upload else allowed

    return limited


class BulkRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._imports: ImportsApi = admin.imports

    @app.route("/api/device/bulk_import", methods=["POST"])
    @answers
    async def bulk_import(self, request: Request) -> Any:
        operator = self.operator(request, Act.IMPORT_DEVICES)
        file, options = _of_thingsboard(json_object(request))
        batch = await self._imports.receive_and_wait(operator, file, options)
        errors: list[str] = []
        async for row in self._imports.bad_rows(batch):
            if len(errors) < MAX_ERRORS_LISTED:
                errors.append(f"Line {row.number}: {_EXCEPTIONS.get(row.code, _EXCEPTION)}: {row.detail}")
        counts = batch.counts
        return {
            "created": counts.get(RowStatus.CREATED, 0),
            "updated": counts.get(RowStatus.UPDATED, 0) + counts.get(RowStatus.UNCHANGED, 0),
            "errors": batch.bad_count, "errorsList": errors,
        }  # fmt: skip

    @app.route("/api/imports", methods=["POST"])
    @answers
    async def upload(self, request: Request) -> Any:
        operator = self.operator(request, Act.IMPORT_DEVICES)
        content_type = request.getHeader("content-type") or ""
        kind, parameters = parse_options_header(content_type)
        body = cast(BinaryIO, request.content)  # a file of Twisted's: on disk when it is large
        encoding, name = parameters.get("charset", ""), query(request, "fileName")
        if kind != MULTIPART:
            check_size(body)
            batch = await self._imports.receive(operator, body, _options(request, kind, encoding, name))
            return batch_json(batch)
        file = await deferToThread(uploaded_file, body, content_type)
        try:
            check_size(file.stream)
            options = _options(request, file.content_type, "", file.name)
            return batch_json(await self._imports.receive(operator, file.stream, options))
        finally:
            file.stream.close()

    @app.route("/api/imports", methods=["GET"])
    @answers
    async def batches(self, request: Request) -> Any:
        operator, page = self.operator(request, Act.IMPORT_DEVICES), _page(request)
        batches, total = await self._imports.batches(operator, page)
        return shapes.page_json([batch_json(one) for one in batches], total, page.size, page.page)

    @app.route("/api/imports/<uuid>", methods=["GET"])
    @answers
    async def find(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.IMPORT_DEVICES)
        return batch_json(await self._imports.find(operator, uuid_of(uuid)))

    @app.route("/api/imports/<uuid>/rows", methods=["GET"])
    @answers
    async def rows(self, request: Request, uuid: str) -> Any:
        operator, page = self.operator(request, Act.IMPORT_DEVICES), _page(request)
        status = query(request, "status").upper()
        rows, total = await self._imports.rows(operator, uuid_of(uuid), status, page)
        return shapes.page_json([_row_json(one) for one in rows], total, page.size, page.page)

    @app.route("/api/imports/<uuid>/errors.csv", methods=["GET"])
    @answers
    async def errors(self, request: Request, uuid: str) -> Any:
        """The bad rows of a CSV file with their reasons, to be corrected and loaded again. Holds what was loaded,
        credentials too: nobody but who may load it gets it."""
        await self._send_errors(request, uuid, CSV_FILE)

    @app.route("/api/imports/<uuid>/errors.ndjson", methods=["GET"])
    @answers
    async def typed_errors(self, request: Request, uuid: str) -> Any:
        """As `errors.csv`, of a file that came as JSON or NDJSON: an object a line, values with their types."""
        await self._send_errors(request, uuid, NDJSON_FILE)

    async def _send_errors(self, request: Request, uuid: str, name: str) -> None:
        operator = self.operator(request, Act.IMPORT_DEVICES)
        pieces = await self._imports.error_file(operator, uuid_of(uuid), name)
        error_file_head(request, uuid_of(uuid), name)
        request.setHeader("Cache-Control", "no-store")
        await send_pieces(request, pieces)

    @app.route("/api/imports/<uuid>/apply", methods=["POST"])
    @answers
    async def apply(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.IMPORT_DEVICES)
        mode = atomic_mode(query(request, "mode")) if query(request, "mode") else None
        return batch_json(await self._imports.apply(operator, uuid_of(uuid), is_atomic=mode))

    @app.route("/api/imports/<uuid>/undo", methods=["POST"])
    @answers
    async def undo(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.IMPORT_DEVICES)
        return batch_json(await self._imports.undo(operator, uuid_of(uuid)))


def error_file_head(request: Any, uuid: UUID, name: str) -> None:  # Any: Request, of which mypy reads too little
    """Type and name of a file of bad rows."""
    request.setHeader("Content-Type", "text/csv; charset=utf-8" if name == CSV_FILE else "application/x-ndjson")
    request.setHeader("Content-Disposition", f'attachment; filename="import-{uuid}-{name}"')


def batch_json(batch: Batch) -> dict[str, Any]:
    """`done` counts the rows of the step under way; `counts` has what will happen, or has happened, to how many."""
    done = batch.row_count
    if batch.state in (BatchState.APPLYING, BatchState.UNDOING):
        pending = (RowStatus.CREATED,) if batch.state is BatchState.UNDOING else (RowStatus.CREATE, RowStatus.UPDATE)
        done -= sum(batch.counts.get(status, 0) for status in pending)
    return {
        "id": str(batch.uuid), "createdTime": batch.created_ms, "state": batch.state.value,
        "mode": "atomic" if batch.is_atomic else "partial", "fileName": batch.options.get("file", ""),
        "rows": batch.row_count, "done": done, "counts": {key: count for key, count in batch.counts.items() if count},
        "errors": batch.bad_count, "errorsFile": file_name_of(batch) if batch.bad_count else None,
        "problem": batch.problem,
    }  # fmt: skip


def _row_json(row: BatchRow) -> dict[str, Any]:
    return {
        "row": row.number, "name": row.name, "status": row.status, "code": row.code or None,
        "error": row.detail or None, "id": str(row.device_uuid) if row.device_uuid is not None else None,
    }  # fmt: skip


def _page(request: Request) -> Page:
    size, number = page_bounds(request, DEFAULT_PAGE_SIZE)
    return Page(size, number)


def check_size(file: BinaryIO) -> None:
    """Raises: RequestTooLarge."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size > MAX_FILE_BYTES:
        raise RequestTooLarge(f"the file is above {MAX_FILE_BYTES} bytes; split it")


def _options(request: Request, content_type: str, encoding: str, name: str) -> ImportOptions:
    """Of `?plan=`, `?mode=`, `?update=`, `?delimiter=`, `?encoding=`, `?format=` and any `?map=NAME IN FILE=column`.

    Raises: InvalidArgument.
    """
    mapped = [one.decode("utf-8", "replace") for one in request.args.get(b"map", ())]
    key = (request.getHeader("idempotency-key") or "").strip()
    options = import_options(lambda word: query(request, word), mapped, content_type, name, key)
    return options if options.format.encoding else replace(options, format=replace(options.format, encoding=encoding))


def import_options(
    given: Callable[[str], str], mapped: Iterable[str], content_type: str, name: str, idempotency_key: str
) -> ImportOptions:
    """From words that a client has given, empty where it has not: `plan`, `mode`, `update`, `delimiter`, `encoding`,
    `format`; `mapped` holds texts `NAME IN FILE=column`. The file is called `name`.

    Raises: InvalidArgument.
    """
    ending = name.rsplit(".", 1)[-1].lower()
    kind = given("format").lower() or _KINDS.get(content_type.lower()) or _BY_ENDING.get(ending) or CSV
    if kind not in (CSV, NDJSON, JSON):
        raise InvalidArgument("The format must be csv, ndjson or json")
    delimiter = given("delimiter")
    return ImportOptions(
        format=Format(
            kind=kind, delimiter={"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter),
            encoding=given("encoding"), mapped=_mapped(mapped),
        ),
        is_plan=_flag("plan", given("plan"), default=False), is_atomic=atomic_mode(given("mode")),
        updates=_flag("update", given("update"), default=True), file_name=name, idempotency_key=idempotency_key,
    )  # fmt: skip


def _mapped(texts: Iterable[str]) -> dict[str, str]:
    mapped = {}
    for one in texts:
        header, equals, column = one.rpartition("=")
        if not equals:
            raise InvalidArgument("A mapping is written map=NAME IN THE FILE=column, for instance map=Serial=name")
        mapped[header.strip()] = column.strip()
    return mapped


def atomic_mode(mode: str) -> bool:
    """Which it is unless it is said otherwise. Raises: InvalidArgument."""
    is_atomic = _MODES.get(mode.lower() or "atomic")
    if is_atomic is None:
        raise InvalidArgument("The mode must be atomic (all rows or none) or partial (the good rows)")
    return is_atomic


def _flag(name: str, text: str, *, default: bool) -> bool:
    if text.lower() not in ("", "true", "false"):
        raise InvalidArgument(f"The parameter '{name}' must be true or false")
    return text.lower() == "true" if text else default


def _of_thingsboard(body: dict[str, Any]) -> tuple[BinaryIO, ImportOptions]:
    """Raises: InvalidArgument, MalformedRequest."""
    text, mapping = body.get("file"), body.get("mapping") or {}
    if not isinstance(text, str):
        raise InvalidArgument("Validation error: file must be the text of a CSV file")
    if not isinstance(mapping, dict):
        raise MalformedRequest("mapping must be an object")
    delimiter = mapping.get("delimiter", ",")
    if not isinstance(delimiter, str):
        raise InvalidArgument("Validation error: delimiter must be a character")
    given = mapping.get("columns")
    options = ImportOptions(
        format=Format(
            kind=CSV, delimiter=delimiter, encoding="utf-8", has_header=mapping.get("header", True) is not False,
            columns=columns_of_mapping(given) if given is not None else None,
        ),
        is_atomic=False, updates=mapping.get("update") is True,
    )  # fmt: skip
    return io.BytesIO(text.encode()), options
