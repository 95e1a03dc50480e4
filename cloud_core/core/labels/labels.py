"""`LabelsApi`: labels of devices, an import's or any, as a PDF."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from twisted.internet.threads import deferToThread

from cloud_core.core.asking import Asking
from cloud_core.core.bulk import manifest
from cloud_core.core.bulk.manifest import LABELS, LAST_ROW
from cloud_core.core.bulk.manifests import ManifestsApi, OneTime
from cloud_core.core.inventory import found
from cloud_core.core.labels.codes import DATA_MATRIX, NAME, PROVISIONING, QR, content_of
from cloud_core.core.labels.drawing import Label, drawn
from cloud_core.core.labels.sheets import DEFAULT_SHEET, Sheet, sheet_of
from cloud_core.core.people.logins import Operator
from cloud_core.storage.interface import ReadTx, Store
from cloud_core.storage.interface.batches import Batch
from cloud_core.storage.interface.manifests import BatchDevice
from shared.errors import InvalidArgument, Unavailable

MAX_LABELS = 5_000
MAX_DRAWING = 2  # PDFs at once
_PIECE_BYTES = 65_536
_SHORT_ID_CHARS = 8  # the last ones: ids begin with the time


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """Which labels, and how. Rows count as in the file; the last one is 0 for the end of it."""

    sheet: str = DEFAULT_SHEET
    code: str = QR
    content: str = NAME
    start: int = 1
    first_row: int = 1
    last_row: int = 0
    has_short_id: bool = False

    def checked_sheet(self) -> Sheet:
        """Raises: InvalidArgument for anything that cannot be."""
        if self.code not in (QR, DATA_MATRIX):
            raise InvalidArgument(f"The code must be {QR} or {DATA_MATRIX}")
        if self.content not in (NAME, PROVISIONING):
            raise InvalidArgument(
                f"The content must be {NAME}, or {PROVISIONING} for the name with the provision key of its profile"
            )
        if self.first_row < 1 or (self.last_row and not self.first_row <= self.last_row < LAST_ROW):
            raise InvalidArgument("from and to must be rows of the file, and from the first of them")
        sheet = sheet_of(self.sheet)
        next(sheet.places(1, self.start))
        return sheet

    @property
    def is_part(self) -> bool:
        return self.first_row > 1 or self.last_row > 0


@dataclass(frozen=True, slots=True)
class LabelSheet:
    """A PDF of so many labels and pages."""

    content: bytes
    labels: int
    pages: int


class LabelsApi(Asking):
    """Draws labels; those with secrets count as the manifest, which is shown once."""

    def __init__(self, *, store: Store, manifests: ManifestsApi) -> None:
        super().__init__(store)
        self._manifests = manifests
        self._drawing = 0

    async def sheet(self, operator: Operator, uuid: UUID, options: LabelOptions) -> LabelSheet:
        """Labels without secrets. Raises: NotFound, InvalidArgument, Unavailable."""
        options.checked_sheet()
        batch = await self._read(manifest.ready, operator.tenant_id, uuid)
        return await self._drawn(options, _title(batch), _labels, batch, options)

    async def sheet_of(self, operator: Operator, uuids: Sequence[UUID], options: LabelOptions) -> LabelSheet:
        """Labels of these devices, in their order, without secrets. Raises: NotFound, InvalidArgument, Unavailable."""
        options.checked_sheet()
        if not 0 < len(uuids) <= MAX_LABELS:
            raise InvalidArgument(f"Labels are made of 1 to {MAX_LABELS} devices at once; split the list")
        if options.is_part:
            raise InvalidArgument("from and to are rows of an import; name the devices alone that are to have labels")
        return await self._drawn(options, "Labels", _labels_of, operator.tenant_id, uuids, options)

    async def secret_sheet(self, operator: Operator, uuid: UUID, options: LabelOptions) -> OneTime:
        """Labels of the whole import, in whose codes the credentials are.

        Raises: NotFound; InvalidArgument, also where the manifest was taken; Unavailable.
        """
        options.checked_sheet()
        if options.is_part:
            raise InvalidArgument(
                "Labels with secrets are shown once, for the whole import: leave from and to out, or make labels"
                " without secrets"
            )
        batch = await self._read(manifest.ready, operator.tenant_id, uuid)
        if manifest.device_count(batch) > MAX_LABELS:
            raise InvalidArgument(
                f"Labels with secrets are made for imports of at most {MAX_LABELS} devices; import the devices in"
                " parts, or take the manifest and make labels without secrets"
            )
        batch, claim = await self._manifests.claim(operator, uuid, LABELS)
        try:
            made = await self._drawn(options, _title(batch), _labels, batch, options, True)
        except BaseException:
            self._manifests.one_time(operator, claim, batch, _pieces(b"")).give_back()
            raise
        return self._manifests.one_time(operator, claim, batch, _pieces(made.content))

    async def _drawn(
        self, options: LabelOptions, title: str, query: Callable[..., list[Label]], *args: Any
    ) -> LabelSheet:
        """The labels that a look-up finds, drawn."""
        if self._drawing >= MAX_DRAWING:
            raise Unavailable(
                f"{MAX_DRAWING} sheets of labels are being made; try again in a moment", retry_after_s=5.0
            )
        self._drawing += 1
        try:
            labels = await self._read(query, *args)
            sheet = options.checked_sheet()
            content = await deferToThread(drawn, labels, sheet, code=options.code, start=options.start, title=title)
        finally:
            self._drawing -= 1
        return LabelSheet(content, len(labels), sheet.pages(len(labels), options.start))


def _title(batch: Batch) -> str:
    return f"Labels of import {batch.uuid}"


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _PIECE_BYTES):
        yield content[start : start + _PIECE_BYTES]


def _labels(tx: ReadTx, batch: Batch, options: LabelOptions, has_secrets: bool = False) -> list[Label]:
    """Raises: InvalidArgument for too many, for none, and where a provision key is wanted that is not there."""
    rows = tx.batch_devices(
        batch.id, after=options.first_row - 1, up_to=options.last_row or LAST_ROW, limit=MAX_LABELS + 1,
        with_credentials=has_secrets,
    )  # fmt: skip
    if len(rows) > MAX_LABELS:
        first, last, following = rows[0].number, rows[-2].number, rows[-1].number
        raise InvalidArgument(
            f"At most {MAX_LABELS} labels are made at once; ask for them in parts: from={first}&to={last}, then"
            f" from={following}"
        )
    if not rows:
        raise InvalidArgument("There are no devices in these rows, or they were deleted since")
    return _labelled(tx, rows, options)


def _labels_of(tx: ReadTx, tenant_id: int, uuids: Sequence[UUID], options: LabelOptions) -> list[Label]:
    """Raises: NotFound; InvalidArgument as `_labels`."""
    rows = [
        BatchDevice(number, found(tx.device(tenant_id, uuid), "Device", uuid))
        for number, uuid in enumerate(uuids, start=1)
    ]
    return _labelled(tx, rows, options)


def _labelled(tx: ReadTx, rows: Sequence[BatchDevice], options: LabelOptions) -> list[Label]:
    keys: dict[UUID, str] = {}
    if options.content == PROVISIONING:
        for row in rows:
            if row.device.profile_uuid not in keys:
                keys[row.device.profile_uuid] = _provision_key(tx, row)
    return [_label(row, keys.get(row.device.profile_uuid), options) for row in rows]


def _provision_key(tx: ReadTx, row: BatchDevice) -> str:
    profile = tx.profile(row.device.tenant_id, row.device.profile_uuid)
    if profile is None or not profile.provision.key:
        raise InvalidArgument(
            f"The profile '{row.device.type}' of '{row.device.name}' has no provision key; give it a provision"
            " strategy, or use content=name"
        )
    return profile.provision.key


def _label(row: BatchDevice, provision_key: str | None, options: LabelOptions) -> Label:
    device = row.device
    details = [one for one in (device.label, device.type) if one]
    if options.has_short_id:
        details.append(f"…{str(device.uuid)[-_SHORT_ID_CHARS:]}")
    content = content_of(device.name, provision_key=provision_key, credentials=row.credentials)
    return Label(device.name, tuple(details), content)
