"""Imports of devices: batches, their rows, and set-based look-ups and insertions for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from cloud_core.model import Device, Page
from shared.credentials import Credentials

if TYPE_CHECKING:
    from cloud_core.storage.interface import NewDevice


class BatchState(StrEnum):
    """Where an import stands."""

    RECEIVING = "RECEIVING"
    """Its rows are being read and planned."""
    PLANNED = "PLANNED"
    """Every row has a verdict; nothing has been changed."""
    REFUSED = "REFUSED"
    """Atomic, and a row cannot be applied: nothing has been changed."""
    APPLYING = "APPLYING"
    APPLIED = "APPLIED"
    STOPPED = "STOPPED"
    """Atomic, and what a row needs was changed by somebody else meanwhile: the rows before it are applied."""
    UNDOING = "UNDOING"
    UNDONE = "UNDONE"
    DISCARDED = "DISCARDED"
    """Its rows are being forgotten; nobody sees it any more."""


UNDER_WAY = (BatchState.APPLYING, BatchState.UNDOING, BatchState.DISCARDED)


class RowStatus(StrEnum):
    """What will happen to a row (the first five), what has happened to it."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    UNCHANGED = "UNCHANGED"
    CONFLICT = "CONFLICT"
    ERROR = "ERROR"
    CREATED = "CREATED"
    UPDATED = "UPDATED"
    UNDONE = "UNDONE"
    KEPT = "KEPT"
    """Created, and left by the undo of its batch: it was changed or used since."""


BAD = (RowStatus.CONFLICT, RowStatus.ERROR)


@dataclass(slots=True, kw_only=True)
class Batch:
    """One import. `counts` says how many of its rows have which status."""

    id: int = 0
    uuid: UUID
    tenant_id: int
    created_ms: int
    touched_ms: int
    state: BatchState
    is_atomic: bool
    options: dict[str, Any]
    idempotency_key: str | None
    digest: bytes
    row_count: int = 0
    position: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    def count(self, status: str, by: int = 1) -> None:
        self.counts[status] = self.counts.get(status, 0) + by

    @property
    def bad_count(self) -> int:
        return sum(self.counts.get(status, 0) for status in BAD)


@dataclass(slots=True, kw_only=True)
class BatchRow:
    """One row; `number` counts from 1 and the header, if any. `cells` is empty once it is done with."""

    number: int
    status: str
    name: str
    code: str = ""
    detail: str = ""
    device_uuid: UUID | None = None
    cells: dict[str, Any] = field(default_factory=dict, repr=False)  # credentials among them


class ReadBatches(Protocol):
    def batch(self, tenant_id: int, uuid: UUID) -> Batch | None: ...
    def batch_by_key(self, tenant_id: int, idempotency_key: str) -> Batch | None: ...
    def batches(self, tenant_id: int, page: Page) -> tuple[list[Batch], int]:
        """Newest first, without those that are discarded."""

    def batches_under_way(self) -> list[Batch]:
        """Of all tenants, those that the worker has to go on with, oldest first."""

    def first_batch(self, tenant_id: int) -> Batch | None:
        """The oldest there is, discarded or not."""

    def batch_rows(self, batch_id: int, *, after: int, limit: int, status: str = "") -> list[BatchRow]:
        """The next rows in their order; with `status` those alone."""

    def batch_row_page(self, batch_id: int, *, status: str, offset: int, limit: int) -> list[BatchRow]: ...

    def batch_row_numbers(self, batch_id: int, *, limit: int) -> list[int]:
        """Of the first rows."""

    def devices_by_name(self, tenant_id: int, names: Sequence[str]) -> dict[str, Device]:
        """Those of the names that there are."""

    def credentials_owners(self, credentials_ids: Sequence[str]) -> dict[str, int]:
        """As `credentials_owner`, for many at once; ids that nobody holds are absent."""


class WriteBatches(ReadBatches, Protocol):
    def insert_batch(self, batch: Batch) -> int: ...
    def lock_batch(self, batch_id: int) -> Batch | None:
        """As it stands now; no other node changes it until the end of the transaction."""

    def update_batch(self, batch: Batch) -> None:
        """Writes everything that changes in a batch's life."""

    def delete_batch(self, batch_id: int) -> None:
        """Its rows have been deleted before (`delete_batch_rows`)."""

    def discard_batch(self, batch_id: int) -> None:
        """Marks it as DISCARDED; its idempotency key is free again."""

    def discard_batches(self, *, received_before_ms: int, ended_before_ms: int) -> int:
        """Marks as DISCARDED what nobody is sending any more, and what ended long ago; returns how many."""

    def discard_batches_of(self, tenant_id: int) -> None:
        """Marks all as DISCARDED, whatever they are at."""

    def insert_batch_rows(self, batch_id: int, rows: Sequence[BatchRow]) -> None: ...
    def update_batch_rows(self, batch_id: int, rows: Sequence[BatchRow]) -> None:
        """Writes status, code, detail and device; the source of a row that is done is forgotten."""

    def delete_batch_rows(self, batch_id: int, *, up_to: int) -> None: ...

    def insert_devices(self, devices: Sequence[NewDevice]) -> list[int]:
        """As `insert_device`, for some hundred of one tenant at once; their numbers in the order given."""

    def insert_credentials(self, credentials: Sequence[tuple[int, Credentials]], *, now_ms: int) -> None:
        """The first credentials of devices that have just been inserted: [(device number, credentials), …]."""
