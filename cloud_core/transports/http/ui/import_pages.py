"""Imports of devices: choose a file, see the plan, have it applied, read the report, take it back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, BinaryIO, NamedTuple, cast

from twisted.internet.threads import deferToThread

from cloud_core.core.bulk.error_files import CSV_FILE, NDJSON_FILE, file_name_of
from cloud_core.core.bulk.imports import ImportOptions
from cloud_core.core.bulk.manifest import device_count
from cloud_core.core.people.permissions import Act
from cloud_core.core.tokens import new_secret
from cloud_core.storage.interface.batches import BAD, Batch, BatchState, RowStatus
from cloud_core.transports.http.calls import query, uuid_of
from cloud_core.transports.http.rest.bulk_routes import (
    MAX_FILE_BYTES,
    atomic_mode,
    batch_json,
    check_size,
    error_file_head,
    import_options,
)
from cloud_core.transports.http.rest.uploads import UploadedForm, uploaded_form
from cloud_core.transports.http.streaming import send_pieces
from cloud_core.transports.http.ui.fields import said
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shown, page, page_from, pager_of, pages_app
from cloud_core.transports.http.ui.visits import (
    FORM_TOKEN,
    PATH,
    Form,
    Visitor,
    check_form_token,
    check_site,
)
from shared.errors import InvalidArgument, PlatformError

ROWS_SHOWN = 50
EXAMPLE = (
    "name,type,label\r\n"
    "SN-0001,default,Line 1\r\n"
    "SN-0002,default,Line 1\r\n"
)  # fmt: skip
_FRESH = Form({"update": ["yes"]})
_ACTIVE = (BatchState.RECEIVING, BatchState.APPLYING, BatchState.UNDOING)
_OPEN = (BatchState.PLANNED, BatchState.REFUSED)
_ENDED = (BatchState.APPLIED, BatchState.STOPPED)
_STATES = {
    BatchState.RECEIVING: ("being read", "idle"),
    BatchState.PLANNED: ("planned, nothing changed yet", "warn"),
    BatchState.REFUSED: ("refused, nothing changed", "bad"),
    BatchState.APPLYING: ("being applied", "idle"),
    BatchState.APPLIED: ("applied", "good"),
    BatchState.STOPPED: ("stopped on the way", "bad"),
    BatchState.UNDOING: ("being undone", "idle"),
    BatchState.UNDONE: ("undone", "idle"),
    BatchState.DISCARDED: ("forgotten", "idle"),
}
_STATUSES = {
    RowStatus.CREATE: ("to create", "good"),
    RowStatus.UPDATE: ("to update", "warn"),
    RowStatus.CREATED: ("created", "good"),
    RowStatus.UPDATED: ("updated", "good"),
    RowStatus.UNCHANGED: ("unchanged", "idle"),
    RowStatus.CONFLICT: ("conflict", "bad"),
    RowStatus.ERROR: ("error", "bad"),
    RowStatus.UNDONE: ("undone", "idle"),
    RowStatus.KEPT: ("kept", "warn"),
}
_COUNTED = {RowStatus.CONFLICT: "in conflict", RowStatus.ERROR: "with an error"}  # where that reads better
_SHOWN_AT_ZERO = {
    BatchState.PLANNED: (RowStatus.CREATE, RowStatus.UPDATE, RowStatus.UNCHANGED, *BAD),
    BatchState.REFUSED: (RowStatus.CREATE, RowStatus.UPDATE, RowStatus.UNCHANGED, *BAD),
    BatchState.APPLIED: (RowStatus.CREATED, RowStatus.UPDATED, RowStatus.UNCHANGED, *BAD),
}


class Count(NamedTuple):
    """How many rows have a status, for people."""

    status: str
    text: str
    kind: str
    number: int


class ImportPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(f"{PATH}/imports", methods=["GET"])
    @page
    async def imports(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.IMPORT_DEVICES)
        wanted = page_from(request)
        found, total = await self._admin.imports.batches(visitor.operator, wanted)
        return self.show(
            request, visitor, "imports.html", title="Imports", pager=pager_of(request, wanted, total),
            batches=[(one, _STATES[one.state], counts_of(one, with_zeros=False)) for one in found],
        )  # fmt: skip

    @app.route(f"{PATH}/imports/new", methods=["GET"])
    @page
    async def choose(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.IMPORT_DEVICES)
        return self._form(request, visitor, _FRESH)

    @app.route(f"{PATH}/imports/new", methods=["POST"])
    @page
    async def upload(self, request: Any) -> Shown:
        """The file is planned; nothing is changed. The same form sent twice makes one import."""
        visitor = await self.visitor(request, Act.IMPORT_DEVICES)
        check_site(request)
        body = cast(BinaryIO, request.content)  # a file of Twisted's: on disk when it is large
        try:
            sent = await deferToThread(uploaded_form, body, request.getHeader("content-type") or "")
        except PlatformError as error:
            return self._form(request, visitor, _FRESH, problem=said(error))
        form = Form(sent.fields)
        try:
            check_form_token(form[FORM_TOKEN], visitor)
            return Redirect(_url(await self._planned(visitor, form, sent)))
        except PlatformError as error:
            return self._form(request, visitor, form, problem=said(error))
        finally:
            sent.file.stream.close()

    async def _planned(self, visitor: Visitor, form: Form, sent: UploadedForm) -> Batch:
        check_size(sent.file.stream)
        if not sent.file.name and not sent.file.stream.read(1):
            raise InvalidArgument("Choose a file first.")
        return await self._admin.imports.receive(visitor.operator, sent.file.stream, options_of(form, sent))

    def _form(self, request: Any, visitor: Visitor, form: Form, problem: str = "") -> str:
        return self.show(
            request, visitor, "import_new.html", status=400 if problem else 200, title="Import devices", form=form,
            problem=problem, once=new_secret(), max_bytes=MAX_FILE_BYTES, example=EXAMPLE,
        )  # fmt: skip

    @app.route(f"{PATH}/imports/example.csv", methods=["GET"])
    @page
    async def example(self, request: Any) -> Shown:
        await self.visitor(request, Act.IMPORT_DEVICES)
        request.setHeader("Content-Type", "text/csv; charset=utf-8")
        request.setHeader("Content-Disposition", 'attachment; filename="devices.csv"')
        return EXAMPLE.encode()

    @app.route(f"{PATH}/imports/<uuid>", methods=["GET"])
    @page
    async def batch(self, request: Any, uuid: str) -> Shown:
        """The plan before it is applied, how far it is, the report afterwards: one page in four steps."""
        visitor = await self.visitor(request, Act.IMPORT_DEVICES)
        return await self._batch(request, visitor, uuid)

    async def _batch(self, request: Any, visitor: Visitor, uuid: str, problem: str = "") -> str:
        imports, wanted = self._admin.imports, page_from(request, size=ROWS_SHOWN)
        found = await imports.find(visitor.operator, uuid_of(uuid))
        status = query(request, "status").upper()
        status = status if status in RowStatus.__members__ else ""
        rows, total = await imports.rows(visitor.operator, found.uuid, status, wanted)
        return self.show(
            request, visitor, "import.html", status=400 if problem else 200,
            title=found.options.get("file") or "Import",
            batch=found, url_of=_url(found), state=_STATES[found.state], step=step_of(found), counts=counts_of(found),
            status_shown=status, rows=[(one, _STATUSES[RowStatus(one.status)]) for one in rows],
            pager=replace(pager_of(request, wanted, total, "status"), path=_url(found)), problem=problem,
            is_active=found.state in _ACTIVE, is_open=found.state in _OPEN, is_ended=found.state in _ENDED,
            has_devices=device_count(found) > 0,
            done=batch_json(found)["done"], errors_file=file_name_of(found), doable=doable_of(found),
            created=found.counts.get(RowStatus.CREATED, 0),
        )  # fmt: skip

    @app.route(f"{PATH}/imports/<uuid>/errors.csv", methods=["GET"])
    @page
    async def errors(self, request: Any, uuid: str) -> Shown:
        """The bad rows, to be corrected and loaded again; holds what was loaded, credentials too."""
        return await self._send_errors(request, uuid, CSV_FILE)

    @app.route(f"{PATH}/imports/<uuid>/errors.ndjson", methods=["GET"])
    @page
    async def typed_errors(self, request: Any, uuid: str) -> Shown:
        """As `errors.csv`, of a file that came as JSON."""
        return await self._send_errors(request, uuid, NDJSON_FILE)

    async def _send_errors(self, request: Any, uuid: str, name: str) -> Shown:
        visitor = await self.visitor(request, Act.IMPORT_DEVICES)
        pieces = await self._admin.imports.error_file(visitor.operator, uuid_of(uuid), name)
        error_file_head(request, uuid_of(uuid), name)
        await send_pieces(request, pieces)
        return b""

    @app.route(f"{PATH}/imports/<uuid>/apply", methods=["POST"])
    @page
    async def apply(self, request: Any, uuid: str) -> Shown:
        """`mode`: partial applies the good rows where there are bad ones."""
        visitor, form = await self.sender(request, Act.IMPORT_DEVICES)
        try:
            is_atomic = atomic_mode(form["mode"]) if form["mode"] else None
            begun = await self._admin.imports.apply(visitor.operator, uuid_of(uuid), is_atomic=is_atomic)
        except InvalidArgument as error:
            return await self._batch(request, visitor, uuid, problem=said(error))
        return Redirect(_url(begun), "" if begun.state is BatchState.REFUSED else "The import has begun.")

    @app.route(f"{PATH}/imports/<uuid>/undo", methods=["POST"])
    @page
    async def undo(self, request: Any, uuid: str) -> Shown:
        visitor, _ = await self.sender(request, Act.IMPORT_DEVICES)
        try:
            begun = await self._admin.imports.undo(visitor.operator, uuid_of(uuid))
        except InvalidArgument as error:
            return await self._batch(request, visitor, uuid, problem=said(error))
        return Redirect(_url(begun), "The import is being undone.")


def options_of(form: Form, sent: UploadedForm) -> ImportOptions:
    """Of the form's words; it is always a plan first. Raises: InvalidArgument."""
    words = {"plan": "true", "update": "true" if form.is_on("update") else "false"}
    once = form["once"]
    return import_options(
        lambda word: words.get(word) or form[word], [], sent.file.content_type, sent.file.name,
        f"ui-{once}" if once else "",
    )  # fmt: skip


def counts_of(batch: Batch, *, with_zeros: bool = True) -> list[Count]:
    """In the order of a row's life; those that a reader looks for are there with 0 too."""
    always = _SHOWN_AT_ZERO.get(batch.state, ()) if with_zeros else ()
    return [
        Count(status, _COUNTED.get(status, text), kind, batch.counts.get(status, 0))
        for status, (text, kind) in _STATUSES.items()
        if batch.counts.get(status, 0) or status in always
    ]


def doable_of(batch: Batch) -> int:
    """Rows of the plan that would change something."""
    return batch.counts.get(RowStatus.CREATE, 0) + batch.counts.get(RowStatus.UPDATE, 0)


def step_of(batch: Batch) -> int:
    """Of: file, plan, apply, report; from 1."""
    if batch.state is BatchState.RECEIVING:
        return 1
    if batch.state in _OPEN:
        return 2
    return 3 if batch.state in _ACTIVE else 4


def _url(batch: Batch) -> str:
    return f"{PATH}/imports/{batch.uuid}"
