"""Manifests of imports: who has them, and the devices that stand in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from cloud_core.model import Device
from cloud_core.storage.interface.batches import RowStatus
from shared.credentials import Credentials

WITH_DEVICE = (RowStatus.CREATED, RowStatus.UPDATED, RowStatus.UNCHANGED, RowStatus.KEPT)
"""Rows whose device is one of the import's, as long as it exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestClaim:
    """Somebody receives the secrets of an import, or has received them: then `taken_ms` says when."""

    batch_id: int
    ticket: bytes = field(repr=False)  # 16 bytes, of one download
    holder: str
    content: str  # what it is that is received: `manifest` or `labels`
    held_ms: int  # the last sign that the download goes on
    taken_ms: int | None = None


@dataclass(frozen=True, slots=True)
class BatchDevice:
    """A device of an import and the number of its row; credentials where they were asked for, and it has any."""

    number: int
    device: Device
    credentials: Credentials | None = field(default=None, repr=False)


class ReadManifests(Protocol):
    def manifest_claim(self, batch_id: int) -> ManifestClaim | None: ...

    def batch_devices(
        self, batch_id: int, *, after: int, up_to: int, limit: int, with_credentials: bool = False
    ) -> list[BatchDevice]:
        """The next ones in the order of the file, up to the row `up_to`; deleted devices are left out."""


class WriteManifests(ReadManifests, Protocol):
    def put_manifest_claim(self, claim: ManifestClaim) -> None:
        """In place of one that is there."""

    def delete_manifest_claim(self, batch_id: int) -> None: ...
