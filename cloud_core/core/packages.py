"""Firmware and software (OTA): packages in blocks, whom they are assigned to, and what devices are told.

Source: wire-contract.md sections 2.10, 3.1 and 4.1; ThingsBoard's OtaPackageController and its validators.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, BinaryIO
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloud_core.core.asking import Asking, answered
from cloud_core.core.assignments import tell
from cloud_core.core.attributes import AttributesApi
from cloud_core.core.checksums import Summed, check_algorithm, summed
from cloud_core.core.inventory import found
from cloud_core.core.names import fault_of
from cloud_core.core.people.audit import Audit, Deed, Subject, Who
from cloud_core.core.people.permissions import may
from cloud_core.core.tokens import new_uuid
from cloud_core.model import Identity, Package, Page
from cloud_core.storage.interface import Done, ReadTx, Store, Tx
from cloud_core.storage.interface.packages import BLOCK_BYTES, Rollout
from shared.errors import (
    InvalidArgument,
    NotAuthorized,
    NotFound,
    PackageNotFound,
    PlatformError,
    RequestTooLarge,
    Unavailable,
)
from shared.messages import AttributesChange, PackageChunk, PackageKind, PackageRequest
from shared.operations import Operation

log = Logger()
MAX_PACKAGE_BYTES = 536_870_912
MAX_PIECE_BYTES = 16_777_216  # of one answer to a device
BLOCKS_PER_COMMIT = 4  # of an upload: devices' messages wait for no more than that
DEVICES_PER_COMMIT = 50  # that are told of an assignment
ROLL_OUT = "package rollout"
ROLL_OUT_MS = 30_000  # a batch takes some milliseconds
UPLOAD_MS = 60_000  # between two pieces of a file
NIL_PACKAGE = UUID(int=0)
MAX_URL_CHARS = 1024

News = list[tuple[int, tuple[AttributesChange, ...]]]


class PackagesApi(Asking):
    """What devices and operators can do with packages."""

    def __init__(
        self,
        *,
        store: Store,
        attributes: AttributesApi,
        now_ms: Callable[[], int],
        max_bytes: int = MAX_PACKAGE_BYTES,
        audit: Audit | None = None,
    ) -> None:
        super().__init__(store, audit)
        self._attributes = attributes
        self._now_ms = now_ms
        self.max_bytes = max_bytes
        self._uploading: set[UUID] = set()
        self._is_rolling_out = False

    # -- devices ----------------------------------------------------------------------------------

    def fetch(self, identity: Identity, request: PackageRequest, done: Done[PackageChunk]) -> None:
        """A piece of the assigned package. PackageNotFound; InvalidArgument where title or version are another's.

        At most MAX_PIECE_BYTES at once, whole packages included; InvalidArgument above.
        """
        if may(identity.role, Operation.DOWNLOAD):
            self._store.read(_piece, (identity.device_id, request), done)
        else:
            done(NotAuthorized())

    # -- operators --------------------------------------------------------------------------------

    def save_info(self, tenant_id: int, package: Package, done: Done[Package], *, by: Who | None = None) -> None:
        """Creates (nil uuid) or updates what is known of a package, not its bytes. InvalidArgument, NotFound."""
        action = "CREATED" if package.uuid == NIL_PACKAGE else "UPDATED"
        deed = Deed(action, "OTA_PACKAGE", _subject)
        self._audit.submit(by, deed, _save_info, (tenant_id, package, self._now_ms()), done)

    def upload(
        self, tenant_id: int, uuid: UUID, *, file_name: str, content_type: str, algorithm: str, checksum: str,
        data: BinaryIO, done: Done[Package], by: Who | None = None,
    ) -> None:  # fmt: skip
        """The bytes of a package, checked against `checksum` or, where that is empty, summed here. InvalidArgument.

        `data` is read from its beginning, in other threads; it belongs to the caller again after `done`. A package
        gets its bytes once: what devices have verified never changes.
        """
        if uuid in self._uploading:
            done(InvalidArgument("This package is being uploaded already; wait for that to end"))
            return
        self._uploading.add(uuid)
        named = (file_name[:255], content_type[:255])

        def ended(outcome: Package | PlatformError) -> None:
            self._uploading.discard(uuid)
            done(outcome)

        _run(self._upload(tenant_id, uuid, named, algorithm, checksum, data, by), ended)

    def find(self, tenant_id: int, uuid: UUID, done: Done[Package]) -> None:
        """NotFound."""
        self._store.read(_package, (tenant_id, uuid), done)

    def read(self, tenant_id: int, uuid: UUID, start: int, count: int, done: Done[bytes]) -> None:
        """Some of the bytes. NotFound."""
        self._store.read(_bytes, (tenant_id, uuid, start, count), done)

    def list(
        self, tenant_id: int, page: Page, kind: PackageKind | None, profile_uuid: UUID | None,
        done: Done[tuple[Sequence[Package], int]],
    ) -> None:  # fmt: skip
        """A page; of a profile only what can be assigned: packages that have bytes or a URL. NotFound."""
        self._store.survey(_packages, (tenant_id, page, kind, profile_uuid), done)

    def delete(self, tenant_id: int, uuid: UUID, done: Done[None], *, by: Who | None = None) -> None:
        """InvalidArgument while it is assigned to anybody."""
        deed = Deed("DELETED", "OTA_PACKAGE", lambda _: Subject(uuid, ""))
        self._audit.submit(by, deed, _delete, (tenant_id, uuid), done)

    # -- what devices are told --------------------------------------------------------------------

    def assigned(self, tenant_id: int, device_ids: Sequence[int], kind: PackageKind) -> None:
        """After an assignment has changed: writes the shared attributes `fw_*` or `sw_*` of the devices, and the time
        series that ThingsBoard keeps (`fw_state` QUEUED, `target_fw_title` and so on).

        Saves of devices and of profiles do this themselves; it is for whoever assigns otherwise.
        """
        for start in range(0, len(device_ids), DEVICES_PER_COMMIT):
            batch = tuple(device_ids[start : start + DEVICES_PER_COMMIT])
            self._store.submit(_tell_all, (tenant_id, batch, kind, self._now_ms()), self._told)

    def roll_out(self) -> None:
        """Tells the devices of profiles whose package has changed, batch by batch; goes on where it was stopped."""
        if not self._is_rolling_out:
            self._is_rolling_out = True
            self._store.submit(_roll_out, (self._now_ms(),), self._rolled_out)

    def maintain(self) -> None:
        """Called at start and once a minute: goes on with what a stop or a failure has interrupted."""
        self.roll_out()

    def _rolled_out(self, outcome: News | PlatformError | None) -> None:
        self._is_rolling_out = False
        if outcome is not None:
            self._told(outcome)
            if not isinstance(outcome, PlatformError):
                self.roll_out()

    def _told(self, outcome: News | PlatformError) -> None:
        if isinstance(outcome, PlatformError):
            log.error("Devices could not be told of their packages: {error}", error=str(outcome))
            return
        for device_id, news in outcome:
            self._attributes.changed(device_id, news)

    # -- uploads ----------------------------------------------------------------------------------

    async def _upload(
        self, tenant_id: int, uuid: UUID, named: tuple[str, str], algorithm: str, checksum: str, data: BinaryIO,
        by: Who | None,
    ) -> Package:  # fmt: skip
        check_algorithm(algorithm)
        package = await self._read(_open_for_bytes, tenant_id, uuid)
        whole: Summed = await deferToThread(summed, data, algorithm, self.max_bytes)
        if whole.size_bytes > self.max_bytes:
            raise RequestTooLarge(f"A package may have {self.max_bytes} bytes; raise [packages] max_bytes")
        if not whole.size_bytes:
            raise InvalidArgument("The file is empty")
        if checksum and checksum.strip().lower() != whole.checksum:
            raise InvalidArgument(f"Wrong otaPackage file! Its {algorithm} checksum is {whole.checksum}")
        if self._store.node is not None:
            await self._decide(_begin_upload, uuid, self._now_ms())
        await deferToThread(data.seek, 0)
        number = 0
        while number * BLOCK_BYTES < whole.size_bytes:
            part: bytes = await deferToThread(data.read, BLOCKS_PER_COMMIT * BLOCK_BYTES)
            await self._decide(_put_blocks, package, number, part, self._now_ms())
            number += BLOCKS_PER_COMMIT
        uploaded = replace(
            package, file_name=named[0], content_type=named[1],
            size_bytes=whole.size_bytes, checksum=whole.checksum, checksum_algorithm=algorithm,
            has_data=True,
        )  # fmt: skip
        finished: Package = await answered(
            lambda done: self._audit.submit(
                by,
                Deed("UPLOADED", "OTA_PACKAGE", _subject),
                _finish_upload,
                (tenant_id, uploaded, self._now_ms()),
                done,
            )
        )
        return finished


def _subject(package: Package) -> Subject:
    return Subject(package.uuid, package.title, f"{package.kind.value} version {package.version}")


def _run(work: Coroutine[Deferred[Any], Any, Package], done: Done[Package]) -> None:
    def failed(failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, PlatformError):
            log.failure("An upload failed", failure)
            error = Unavailable(retry_after_s=5.0)
        done(error)

    Deferred.fromCoroutine(work).addCallbacks(done, failed)


# -- look-ups -------------------------------------------------------------------------------------


def _piece(tx: ReadTx, device_id: int, request: PackageRequest) -> PackageChunk:
    package = tx.assigned_package(device_id, request.kind)
    if package is None:
        raise PackageNotFound
    for name, asked, has in (("title", request.title, package.title), ("version", request.version, package.version)):
        if asked and asked != has:
            raise InvalidArgument(f"The assigned package has the {name} '{has}'")
    if not package.has_data:
        raise PackageNotFound(f"The package is to be fetched from {package.url}")
    if request.chunk_bytes < 0 or request.chunk < 0:
        raise InvalidArgument("Chunk number and chunk size must not be negative")
    count = request.chunk_bytes or package.size_bytes
    start = min(request.chunk * count, package.size_bytes)
    count = min(count, package.size_bytes - start)
    if count > MAX_PIECE_BYTES:
        raise InvalidArgument(f"At most {MAX_PIECE_BYTES} bytes at once; ask for the package in chunks")
    return PackageChunk(
        data=tx.package_data(package.id, start, count), file_name=package.file_name or package.title,
        content_type=package.content_type or "application/octet-stream", total_bytes=package.size_bytes,
    )  # fmt: skip


def _package(tx: ReadTx, tenant_id: int, uuid: UUID) -> Package:
    return found(tx.package(tenant_id, uuid), "OtaPackage", uuid)


def _bytes(tx: ReadTx, tenant_id: int, uuid: UUID, start: int, count: int) -> bytes:
    package = _package(tx, tenant_id, uuid)
    return tx.package_data(package.id, start, max(0, min(count, package.size_bytes - start)))


def _packages(
    tx: ReadTx, tenant_id: int, page: Page, kind: PackageKind | None, profile_uuid: UUID | None
) -> tuple[Sequence[Package], int]:
    if profile_uuid is None:
        return tx.packages(tenant_id, page, kind)
    profile = found(tx.profile(tenant_id, profile_uuid), "Device profile", profile_uuid)
    return tx.packages(tenant_id, page, kind, profile.id, is_usable=True)


# -- decisions ------------------------------------------------------------------------------------


def _save_info(tx: Tx, tenant_id: int, package: Package, now_ms: int) -> Package:
    _check_texts(package)
    profile = tx.profile(tenant_id, package.profile_uuid)
    if profile is None:
        raise InvalidArgument("OtaPackage is referencing to non-existent device profile!")
    package = replace(package, tenant_id=tenant_id, profile_id=profile.id)
    if package.uuid != NIL_PACKAGE:
        return _update_info(tx, _package(tx, tenant_id, package.uuid), package)
    if tx.package_by_name(tenant_id, package.title, package.version) is not None:
        raise InvalidArgument("OtaPackage with such title and version already exists!")
    number = tx.insert_package(replace(package, uuid=new_uuid(now_ms), created_ms=now_ms))
    return found(tx.package_by_id(number), "OtaPackage", number)


def _check_texts(package: Package) -> None:
    for name, value in (("title", package.title), ("version", package.version)):
        if not value.strip():
            raise InvalidArgument(f"OtaPackage {name} should be specified!")
    for name, value in (("title", package.title), ("version", package.version), ("tag", package.tag)):
        fault = fault_of(name, value)
        if fault:
            raise InvalidArgument(f"Validation error: {fault}")
    if len(package.url) > MAX_URL_CHARS or (package.url and not package.url.isprintable()):
        raise InvalidArgument(f"Validation error: url must be printable and of at most {MAX_URL_CHARS} characters")


_FIXED = ("profile_id", "kind", "title", "version", "tag", "url")


def _update_info(tx: Tx, stored: Package, given: Package) -> Package:
    """What devices have been told, or verify, stays; notes of the operator may change."""
    for name in _FIXED:
        if getattr(stored, name) != getattr(given, name):
            word = {"profile_id": "deviceProfileId", "kind": "type"}.get(name, name)
            raise InvalidArgument(f"Updating {word} is prohibited! Make another package")
    tx.update_package(replace(stored, document=given.document))
    return found(tx.package_by_id(stored.id), "OtaPackage", stored.uuid)


def _open_for_bytes(tx: ReadTx, tenant_id: int, uuid: UUID) -> Package:
    package = _package(tx, tenant_id, uuid)
    if package.url:
        raise InvalidArgument("This package lies at its URL; make another one for a file")
    if package.has_data:
        raise InvalidArgument("Updating otaPackage data is prohibited! Make another package")
    return package


def _lease(uuid: UUID) -> str:
    """Of whoever uploads a package: blocks of two files must not mix."""
    return f"upload {uuid}"


def _begin_upload(tx: Tx, uuid: UUID, now_ms: int) -> None:
    if not tx.take_lease(_lease(uuid), now_ms=now_ms, for_ms=UPLOAD_MS):
        raise InvalidArgument("This package is being uploaded already; wait for that to end")


def _put_blocks(tx: Tx, begun: Package, number: int, part: bytes, now_ms: int) -> None:
    package_id = begun.id
    package = tx.package_by_id(package_id)
    if package is None or package.has_data or not tx.keep_lease(_lease(begun.uuid), now_ms=now_ms, for_ms=UPLOAD_MS):
        raise NotFound("The package was deleted, or uploaded by somebody else, meanwhile")
    for start in range(0, len(part), BLOCK_BYTES):
        tx.put_package_block(package_id, number + start // BLOCK_BYTES, part[start : start + BLOCK_BYTES])


def _finish_upload(tx: Tx, tenant_id: int, uploaded: Package, now_ms: int) -> Package:
    package = _open_for_bytes(tx, tenant_id, uploaded.uuid)
    if not tx.keep_lease(_lease(uploaded.uuid), now_ms=now_ms, for_ms=UPLOAD_MS):
        raise NotFound("The package was uploaded by somebody else meanwhile")
    tx.release_lease(_lease(uploaded.uuid))
    tx.trim_package_blocks(package.id, -(-uploaded.size_bytes // BLOCK_BYTES))  # of a longer upload that failed
    tx.update_package(replace(uploaded, document=package.document))
    return found(tx.package_by_id(package.id), "OtaPackage", package.uuid)


def _delete(tx: Tx, tenant_id: int, uuid: UUID) -> None:
    package = _package(tx, tenant_id, uuid)
    if tx.package_users(package.id):
        raise InvalidArgument("The otaPackage referenced by the devices or device profiles cannot be deleted!")
    tx.delete_package(package.id)


def _tell_all(tx: Tx, tenant_id: int, device_ids: tuple[int, ...], kind: PackageKind, now_ms: int) -> News:
    there = (device for one in device_ids if (device := tx.device_by_id(one)) and device.tenant_id == tenant_id)
    return [(device.id, tell(tx, device.id, kind, now_ms=now_ms)) for device in there]


def _roll_out(tx: Tx, now_ms: int) -> News | None:
    """One batch of the first rollout; None when there is none, or another node is at it."""
    if not tx.take_lease(ROLL_OUT, now_ms=now_ms, for_ms=ROLL_OUT_MS):
        return None
    rollout = next(iter(tx.package_rollouts()), None)
    if rollout is None:
        tx.release_lease(ROLL_OUT)
        return None
    device_ids = tx.devices_with_profile_package(
        rollout.profile_id, rollout.kind, after=rollout.after_device_id, count=DEVICES_PER_COMMIT
    )
    if len(device_ids) < DEVICES_PER_COMMIT:
        tx.delete_package_rollout(rollout)
    else:
        tx.put_package_rollout(Rollout(rollout.profile_id, rollout.kind, device_ids[-1]))
    return [(device_id, tell(tx, device_id, rollout.kind, now_ms=now_ms)) for device_id in device_ids]
