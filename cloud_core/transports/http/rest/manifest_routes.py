"""What a factory takes home of an import, over REST: the manifest, which is shown once, and sheets of labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.bulk.manifest import CSV, NDJSON, ManifestState
from cloud_core.core.labels.labels import LabelOptions
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import CallSupport, answers, integer, json_object, query, rest_app, uuid_of
from cloud_core.transports.http.one_time import send_once
from shared.errors import InvalidArgument

PDF = "application/pdf"
TYPES = {CSV: "text/csv; charset=utf-8", NDJSON: "application/x-ndjson"}


class ManifestRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._manifests = admin.manifests
        self._labels = admin.labels

    @app.route("/api/imports/<uuid>/manifest", methods=["GET"])
    @answers
    async def manifest_state(self, request: Request, uuid: str) -> Any:
        """Whether the manifest was taken, by whom and when. Shows no secrets."""
        operator = self.operator(request, Act.IMPORT_DEVICES)
        return manifest_json(await self._manifests.state(operator, uuid_of(uuid)))

    @app.route("/api/imports/<uuid>/manifest", methods=["POST"])
    @answers
    async def take_manifest(self, request: Request, uuid: str) -> Any:
        """The credentials of all devices of the import, as CSV or NDJSON. Shown once: a complete answer ends it."""
        operator, import_id = self.operator(request, Act.READ_CREDENTIALS), uuid_of(uuid)
        kind = query(request, "format", CSV).lower()
        download = await self._manifests.open(operator, import_id, kind)
        await send_once(request, download, file_headers(TYPES[kind], f"import-{import_id}-manifest.{kind}"))

    @app.route("/api/imports/<uuid>/manifest/release", methods=["POST"])
    @answers
    async def release_manifest(self, request: Request, uuid: str) -> Any:
        """Lets a manifest that was taken be taken once more."""
        operator = self.operator(request, Act.RELEASE_MANIFESTS)
        return manifest_json(await self._manifests.release(operator, uuid_of(uuid)))

    @app.route("/api/imports/<uuid>/labels.pdf", methods=["GET"])
    @answers
    async def labels(self, request: Request, uuid: str) -> Any:
        """A sheet of labels as PDF, 5,000 at most, without secrets; `from` and `to` are rows of the file."""
        operator, import_id = self.operator(request, Act.IMPORT_DEVICES), uuid_of(uuid)
        if query(request, "secret", "false").lower() != "false":
            raise InvalidArgument(
                "Labels with secrets are shown once: ask for them with POST, which takes the manifest"
            )
        first, last = integer(request, "from", 1), integer(request, "to", 0)
        options = replace(_options(request), first_row=first, last_row=last)
        made = await self._labels.sheet(operator, import_id, options)
        return pdf(request, made.content, f"import-{import_id}-labels.pdf")

    @app.route("/api/imports/<uuid>/labels.pdf", methods=["POST"])
    @answers
    async def secret_labels(self, request: Request, uuid: str) -> Any:
        """Labels with the credentials in their codes, as PDF. Shown once: a complete answer takes the manifest."""
        operator, import_id = self.operator(request, Act.READ_CREDENTIALS), uuid_of(uuid)
        first, last = integer(request, "from", 1), integer(request, "to", 0)
        options = replace(_options(request), first_row=first, last_row=last)
        download = await self._labels.secret_sheet(operator, import_id, options)
        await send_once(request, download, file_headers(PDF, f"import-{import_id}-labels.pdf"))

    @app.route("/api/devices/labels.pdf", methods=["POST"])
    @answers
    async def device_labels(self, request: Request) -> Any:
        """Labels of any devices, `{"deviceIds": ["…"]}`, in this order, as PDF, without secrets."""
        operator = self.operator(request, Act.READ)
        ids = json_object(request).get("deviceIds")
        if not isinstance(ids, list):
            raise InvalidArgument("deviceIds must be an array of ids")
        made = await self._labels.sheet_of(operator, [uuid_of(str(one)) for one in ids], _options(request))
        return pdf(request, made.content, "labels.pdf")


def manifest_json(state: ManifestState) -> dict[str, Any]:
    """`takenBy` and the rest are null as long as nobody has the secrets; `heldBy` names whoever is receiving them."""
    claim, is_taken = state.claim, state.is_taken
    return {
        "importId": str(state.batch.uuid), "devices": state.devices, "taken": is_taken,
        "takenBy": claim.holder if claim is not None and is_taken else None,
        "takenTime": claim.taken_ms if claim is not None else None,
        "takenAs": claim.content if claim is not None and is_taken else None,
        "heldBy": claim.holder if claim is not None and not is_taken else None,
    }  # fmt: skip


def _options(request: Request) -> LabelOptions:
    """Raises: InvalidArgument."""
    plain = LabelOptions()
    return LabelOptions(
        sheet=query(request, "sheet", plain.sheet).lower(), code=query(request, "code", plain.code).lower(),
        content=query(request, "content", plain.content).lower(), start=integer(request, "start", plain.start),
        has_short_id=_flag(request, "shortId"),
    )  # fmt: skip


def _flag(request: Request, name: str) -> bool:
    text = query(request, name, "false").lower()
    if text not in ("true", "false"):
        raise InvalidArgument(f"The parameter '{name}' must be true or false")
    return text == "true"


def pdf(request: Request, content: bytes, file_name: str) -> bytes:
    for name, value in file_headers(PDF, file_name).items():
        request.setHeader(name, value)
    return content


def file_headers(content_type: str, file_name: str) -> dict[str, str]:
    return {
        "Content-Type": content_type, "Content-Disposition": f'attachment; filename="{file_name}"',
        "Cache-Control": "no-store",
    }  # fmt: skip
