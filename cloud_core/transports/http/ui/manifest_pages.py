"""What a factory takes home of an import: the manifest, which is shown once, and sheets of labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloud_core.core.bulk.manifest import CSV, NDJSON, ManifestState
from cloud_core.core.labels.codes import DATA_MATRIX, NAME, PROVISIONING, QR
from cloud_core.core.labels.labels import LabelOptions
from cloud_core.core.people.permissions import Act
from cloud_core.storage.interface.batches import BatchState
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.one_time import send_once
from cloud_core.transports.http.rest.manifest_routes import PDF, TYPES, file_headers, pdf
from cloud_core.transports.http.ui.fields import number_of, said
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.errors import InvalidArgument, PlatformError

KINDS = ((CSV, "CSV, for spreadsheets"), (NDJSON, "NDJSON, for programs"))
SHEET_CHOICES = (
    ("a4-24", "A4, 24 labels of 70 × 37 mm"), ("a4-21", "A4, 21 labels of 63.5 × 38.1 mm"),
    ("letter-30", "Letter, 30 labels of 2 5/8 × 1 inch"), ("roll", "A roll of single labels"),
)  # fmt: skip
CODES = ((QR, "QR"), (DATA_MATRIX, "Data Matrix, for small labels"))
CONTENTS = ((NAME, "the name"), (PROVISIONING, "the name and the provision key of the device profile"))
_READY = (BatchState.APPLIED, BatchState.STOPPED)
_BASE = f"{PATH}/imports/<uuid>/manifest"
_NOTHING = Form({})


class ManifestPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(_BASE, methods=["GET"])
    @page
    async def manifest(self, request: Any, uuid: str) -> Shown:
        """Who has the secrets, and forms for them and for labels. Shows no secret."""
        visitor = await self.visitor(request, Act.IMPORT_DEVICES)
        return await self._show(request, visitor, uuid)

    @app.route(_BASE, methods=["POST"])
    @page
    async def take(self, request: Any, uuid: str) -> Shown:
        """The file itself. A complete answer ends it."""
        visitor, form = await self.sender(request, Act.READ_CREDENTIALS)
        import_id, kind = uuid_of(uuid), form["format"] or CSV
        try:
            download = await self._admin.manifests.open(visitor.operator, import_id, kind)
            await send_once(request, download, file_headers(TYPES[kind], f"import-{import_id}-manifest.{kind}"))
        except PlatformError as error:
            return await self._show(request, visitor, uuid, problem=said(error))
        return b""

    @app.route(f"{_BASE}/release", methods=["POST"])
    @page
    async def release(self, request: Any, uuid: str) -> Shown:
        visitor, _ = await self.sender(request, Act.RELEASE_MANIFESTS)
        await self._admin.manifests.release(visitor.operator, uuid_of(uuid))
        return Redirect(_url(uuid), "The manifest can be taken once more.")

    @app.route(f"{_BASE}/labels", methods=["POST"])
    @page
    async def labels(self, request: Any, uuid: str) -> Shown:
        """A PDF; with `secret`, the credentials are in its codes, and it counts as the manifest."""
        visitor, form = await self.sender(request, Act.IMPORT_DEVICES)
        import_id = uuid_of(uuid)
        name = f"import-{import_id}-labels.pdf"
        try:
            options = options_of(form)
            if not form["secret"]:
                made = await self._admin.labels.sheet(visitor.operator, import_id, options)
                return pdf(request, made.content, name)
            if not visitor.may(Act.READ_CREDENTIALS):
                raise InvalidArgument("Your role does not allow labels with credentials; make them without.")
            download = await self._admin.labels.secret_sheet(visitor.operator, import_id, options)
            await send_once(request, download, file_headers(PDF, name))
        except PlatformError as error:
            return await self._show(request, visitor, uuid, form, label_problem=said(error))
        return b""

    @app.route(f"{_BASE}/<any(release, labels):_deed>", methods=["GET"])
    @page
    async def shown_again(self, request: Any, uuid: str, _deed: str) -> Shown:
        """A page that a form has shown is loaded anew."""
        await self.visitor(request, Act.USE_OWN_LOGIN)
        return Redirect(_url(uuid))

    async def _show(
        self, request: Any, visitor: Visitor, uuid: str, typed: Form = _NOTHING, *, problem: str = "",
        label_problem: str = "",
    ) -> str:  # fmt: skip
        state = await self._admin.manifests.state(visitor.operator, uuid_of(uuid))
        return self.show(
            request, visitor, "import_manifest.html", status=400 if problem or label_problem else 200,
            title="Manifest and labels", state=state, batch=state.batch, url_of=_url(uuid), problem=problem,
            label_problem=label_problem, typed=typed, kinds=KINDS, sheets=SHEET_CHOICES, codes=CODES,
            contents=CONTENTS, has_devices=has_devices(state),
        )  # fmt: skip


def has_devices(state: ManifestState) -> bool:
    return state.batch.state in _READY and state.devices > 0


def options_of(form: Form) -> LabelOptions:
    """Of the form's words, as REST has them. Raises: InvalidArgument; the core checks the rest."""
    plain = LabelOptions()
    sheet = form["sheet"].lower() or plain.sheet
    if sheet == "roll":
        sheet = f"roll-{form['roll'].lower().replace(' ', '').replace('×', 'x') or '50x25'}"
    return replace(
        plain, sheet=sheet, code=form["code"] or plain.code, content=form["content"] or plain.content,
        start=number_of(form, "start", "The first label's place", 1), has_short_id=form.is_on("short_id"),
        first_row=number_of(form, "from", "The first row", 1), last_row=number_of(form, "to", "The last row", 0),
    )  # fmt: skip


def _url(uuid: str) -> str:
    return f"{PATH}/imports/{uuid_of(uuid)}/manifest"
