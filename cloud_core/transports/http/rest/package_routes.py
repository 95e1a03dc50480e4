"""Firmware and software packages over REST, as ThingsBoard's OtaPackageController."""

from __future__ import annotations

import re
from typing import IO, Any, cast
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.web.http import Request

from cloud_core.core.admin import AdminApi, answered
from cloud_core.core.packages import PackagesApi
from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import Act
from cloud_core.model import Package
from cloud_core.storage.interface import Done
from cloud_core.transports.http.calls import CallSupport, answers, json_object, page_of, query, rest_app, uuid_of
from cloud_core.transports.http.downloads import Download, disposition, header_name, media_type
from cloud_core.transports.http.intake import MAX_REST_BODY_BYTES
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.rest.uploads import OVERHEAD_BYTES, uploaded_file
from shared.errors import InvalidArgument, PlatformError
from shared.messages import PackageChunk, PackageKind, PackageRequest

log = Logger()
DEFAULT_ALGORITHM = "SHA256"
_UPLOAD = re.compile(rb"/api/otaPackage/[0-9a-fA-F-]{36}(?:\?.*)?")


class PackageRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi, packages: PackagesApi) -> None:
        super().__init__(admin)
        self._packages = packages

    def body_limit(self, request: Request, method: bytes, path: bytes) -> int:
        """How large a body may be, asked before it is received. Raises: NotAuthenticated, NotAuthorized."""
        self.operator(request, Act.WRITE_DEVICES)
        if method != b"POST" or not _UPLOAD.fullmatch(path):
            return MAX_REST_BODY_BYTES
        return max(MAX_REST_BODY_BYTES, self._packages.max_bytes + OVERHEAD_BYTES)

    @app.route("/api/otaPackage", methods=["POST"])
    @answers
    async def save_info(self, request: Request) -> Any:
        operator = self.operator(request, Act.WRITE_PACKAGES)
        package = shapes.package_from(json_object(request))
        saved = await answered(lambda done: self._packages.save_info(operator.tenant_id, package, done, by=operator))
        return shapes.package_json(saved, operator.tenant_uuid)

    @app.route("/api/otaPackage/<uuid>", methods=["POST"])
    @answers
    async def upload(self, request: Request, uuid: str) -> Any:
        operator, package_uuid = self.operator(request, Act.WRITE_PACKAGES), uuid_of(uuid)
        body = cast(IO[bytes], request.content)  # a file of Twisted's: on disk when it is large
        file = await deferToThread(uploaded_file, body, request.getHeader("content-type") or "")

        def start(done: Done[Package]) -> None:
            def ended(outcome: Package | PlatformError) -> None:
                file.stream.close()
                done(outcome)

            self._packages.upload(
                operator.tenant_id, package_uuid, file_name=file.name, content_type=file.content_type,
                algorithm=query(request, "checksumAlgorithm", DEFAULT_ALGORITHM).upper(),
                checksum=query(request, "checksum"), data=file.stream, done=ended, by=operator,
            )  # fmt: skip

        return shapes.package_json(await answered(start), operator.tenant_uuid)

    @app.route("/api/otaPackage/<uuid>", methods=["GET"])
    @app.route("/api/otaPackage/info/<uuid>", methods=["GET"])
    @answers
    async def info(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ)
        return shapes.package_json(await self._find(operator, uuid_of(uuid)), operator.tenant_uuid)

    @app.route("/api/otaPackage/<uuid>", methods=["DELETE"])
    @answers
    async def delete(self, request: Request, uuid: str) -> Any:
        operator, package_uuid = self.operator(request, Act.DELETE_PACKAGES), uuid_of(uuid)
        await answered(lambda done: self._packages.delete(operator.tenant_id, package_uuid, done, by=operator))

    @app.route("/api/otaPackages", methods=["GET"])
    @answers
    async def list(self, request: Request) -> Any:
        return await self._list(request, None, None)

    @app.route("/api/otaPackages/<profile>/<kind>", methods=["GET"])
    @answers
    async def list_of_profile(self, request: Request, profile: str, kind: str) -> Any:
        """What can be assigned in this profile: packages that have bytes or a URL."""
        return await self._list(request, shapes.package_kind(kind), uuid_of(profile))

    async def _list(self, request: Request, kind: PackageKind | None, profile: UUID | None) -> dict[str, Any]:
        operator, page = self.operator(request, Act.READ), page_of(request)
        rows, total = await answered(lambda done: self._packages.list(operator.tenant_id, page, kind, profile, done))
        shaped = [shapes.package_json(one, operator.tenant_uuid) for one in rows]
        return shapes.page_json(shaped, total, page.size, page.page)

    async def _find(self, operator: Operator, uuid: UUID) -> Package:
        package: Package = await answered(lambda done: self._packages.find(operator.tenant_id, uuid, done))
        return package

    @app.route("/api/otaPackage/<uuid>/download", methods=["GET"])
    @answers
    async def download(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ)
        package = await self._find(operator, uuid_of(uuid))
        if not package.has_data:
            raise InvalidArgument(f"Download it from {package.url}" if package.url else "The package has no file yet")
        download = self._download_of(operator, package)
        await answered(download.open)
        request.setHeader("Content-Type", media_type(download.content_type))
        request.setHeader("Content-Length", str(download.length_bytes))
        request.setHeader("Content-Disposition", disposition(download.file_name))
        request.setHeader("x-filename", header_name(download.file_name))
        request.registerProducer(download, True)
        finished: Deferred[PlatformError | None] = Deferred()
        download.send(request.write, finished.callback)
        error = await finished
        request.unregisterProducer()
        if error is not None:  # the head is out: only a body that ends too soon can say it
            log.warn("A package was not sent whole: {error}", error=str(error))
            request.loseConnection()
            await Deferred()  # klein cancels this once the connection is gone

    def _download_of(self, operator: Operator, package: Package) -> Download:
        def fetch(wanted: PackageRequest, done: Done[PackageChunk]) -> None:
            def read(outcome: bytes | PlatformError) -> None:
                if isinstance(outcome, PlatformError):
                    done(outcome)
                    return
                done(
                    PackageChunk(
                        data=outcome, file_name=package.file_name or package.title, content_type=package.content_type,
                        total_bytes=package.size_bytes,
                    )
                )  # fmt: skip

            start = wanted.chunk * wanted.chunk_bytes
            self._packages.read(operator.tenant_id, package.uuid, start, wanted.chunk_bytes, read)

        return Download(fetch, PackageRequest(kind=package.kind))
