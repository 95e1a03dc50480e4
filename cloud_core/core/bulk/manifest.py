"""The decisions on an import's manifest, and its lines.

It is shown once. A download holds a ticket, and its last piece is kept back until the commit that records it as taken.
So a download that breaks before that has taken nothing, of two at once one wins, and none is complete without being on
record. A ticket without a sign of life for `HELD_MS` (a client that does not read, a core that was killed) is lost to
the next one who asks. What has left for the connection counts as received: no server can know better, which is what
`release` is for.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from cloud_core.storage.interface import ReadTx, Tx
from cloud_core.storage.interface.batches import Batch, BatchState
from cloud_core.storage.interface.manifests import WITH_DEVICE, BatchDevice, ManifestClaim
from shared import certificates
from shared.credentials import AccessToken, Credentials, MqttBasic, X509Certificate, credentials_type
from shared.errors import InvalidArgument, NotFound, Unavailable

CSV, NDJSON = "csv", "ndjson"
MANIFEST, LABELS = "manifest", "labels"
HELD_MS = 60_000
LAST_ROW = 2**62
COLUMNS = (
    "name", "id", "type", "credentials_type", "access_token", "mqtt_client_id", "mqtt_username", "mqtt_password",
    "fingerprint", "common_name",
)  # fmt: skip
"""As an import calls them, where it has them."""
_READY = (BatchState.APPLIED, BatchState.STOPPED)
_LOST = (
    "This download was overtaken: it stood still for a minute and another one has begun. Nothing of it counts; see who"
    " has the manifest now, and ask again"
)


@dataclass(frozen=True, slots=True)
class ManifestState:
    """How it stands with the manifest of an import of `devices` devices."""

    batch: Batch
    devices: int
    claim: ManifestClaim | None

    @property
    def is_taken(self) -> bool:
        return self.claim is not None and self.claim.taken_ms is not None

    @property
    def released(self) -> ManifestState:
        """How it stands behind `release`."""
        return replace(self, claim=None) if self.is_taken else self


def device_count(batch: Batch) -> int:
    """How many rows have a device; some may have been deleted since."""
    return sum(batch.counts.get(status, 0) for status in WITH_DEVICE)


def state_of(tx: ReadTx, tenant_id: int, uuid: UUID) -> ManifestState:
    """Raises: NotFound."""
    batch = _found(tx, tenant_id, uuid)
    return ManifestState(batch, device_count(batch), tx.manifest_claim(batch.id))


def ready(tx: ReadTx, tenant_id: int, uuid: UUID) -> Batch:
    """The import, which has devices. Raises: NotFound, InvalidArgument."""
    return _checked(_found(tx, tenant_id, uuid))


def claim(
    tx: Tx, tenant_id: int, uuid: UUID, holder: str, content: str, ticket: bytes, now_ms: int
) -> tuple[Batch, ManifestClaim]:
    """Begins a download. Raises: NotFound; InvalidArgument where it was taken; Unavailable while somebody has it."""
    batch = _locked(tx, _checked(_found(tx, tenant_id, uuid)))
    known = tx.manifest_claim(batch.id)
    if known is not None and known.taken_ms is not None:
        raise InvalidArgument(taken_text(known, uuid))
    if known is not None and known.held_ms > now_ms - HELD_MS:
        raise Unavailable(
            f"{known.holder} is receiving the secrets of this import at the moment; whoever is first to receive all of"
            " them has them. If that download breaks, ask again",
            retry_after_s=HELD_MS / 1000,
        )
    made = ManifestClaim(batch_id=batch.id, ticket=ticket, holder=holder, content=content, held_ms=now_ms)
    tx.put_manifest_claim(made)
    return batch, made


def hold(tx: Tx, batch_id: int, ticket: bytes, now_ms: int) -> None:
    """The download goes on. Raises: InvalidArgument where another one has overtaken it."""
    tx.put_manifest_claim(replace(_held(tx, batch_id, ticket), held_ms=now_ms))


def take(tx: Tx, batch_id: int, ticket: bytes, now_ms: int) -> None:
    """All but the last piece was received; that leaves behind this. Raises: InvalidArgument as `hold`."""
    tx.put_manifest_claim(replace(_held(tx, batch_id, ticket), held_ms=now_ms, taken_ms=now_ms))


def give_back(tx: Tx, batch_id: int, ticket: bytes) -> ManifestClaim | None:
    """The download broke before its last piece left: as if it had not been asked for. None where it was not its to
    give."""
    known = _claim_locked(tx, batch_id)
    if known is None or known.ticket != ticket:
        return None
    tx.delete_manifest_claim(batch_id)
    return known


def release(tx: Tx, tenant_id: int, uuid: UUID) -> ManifestState:
    """Lets a manifest that was taken be taken once more; one that was not stays as it is. How it stood before.

    Raises: NotFound.
    """
    batch = _locked(tx, _found(tx, tenant_id, uuid))
    before = ManifestState(batch, device_count(batch), tx.manifest_claim(batch.id))
    if before.is_taken:
        tx.delete_manifest_claim(batch.id)
    return before


def taken_text(taken: ManifestClaim, uuid: UUID) -> str:
    when = datetime.fromtimestamp((taken.taken_ms or 0) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    what = "as labels with secrets " if taken.content == LABELS else ""
    return (
        f"The manifest of this import was taken {what}by {taken.holder} at {when} UTC, and is shown once. Ask there for"
        f" the file; where it is lost, an administrator can release it: POST /api/imports/{uuid}/manifest/release, or"
        f" cloud-core device manifest-release {uuid}"
    )


def _found(tx: ReadTx, tenant_id: int, uuid: UUID) -> Batch:
    batch = tx.batch(tenant_id, uuid)
    if batch is None:
        raise NotFound(f"Import with id [{uuid}] is not found")
    return batch


def _checked(batch: Batch) -> Batch:
    if batch.state is BatchState.APPLYING:
        raise Unavailable("The import is being applied; ask again when that is done", retry_after_s=5.0)
    if batch.state not in _READY:
        raise InvalidArgument(f"Only an import that is APPLIED or STOPPED has devices; this one is {batch.state}")
    if not device_count(batch):
        raise InvalidArgument("This import has no devices")
    return batch


def _locked(tx: Tx, batch: Batch) -> Batch:
    locked = tx.lock_batch(batch.id)
    if locked is None:
        raise NotFound(f"Import with id [{batch.uuid}] is not found")
    return locked


def _claim_locked(tx: Tx, batch_id: int) -> ManifestClaim | None:
    return tx.manifest_claim(batch_id) if tx.lock_batch(batch_id) is not None else None


def _held(tx: Tx, batch_id: int, ticket: bytes) -> ManifestClaim:
    known = _claim_locked(tx, batch_id)
    if known is None or known.ticket != ticket or known.taken_ms is not None:
        raise InvalidArgument(_LOST)
    return known


# -- lines ----------------------------------------------------------------------------------------


def head(kind: str) -> bytes:
    return _csv_line(COLUMNS) if kind == CSV else b""


def lines_of(rows: Sequence[BatchDevice], kind: str) -> bytes:
    """One line a device. What a device does not have is empty (CSV) or absent (NDJSON)."""
    if kind == CSV:
        return b"".join(_csv_line([members.get(column, "") for column in COLUMNS]) for members in map(_members, rows))
    return b"".join(msgspec.json.encode(_members(row)) + b"\n" for row in rows)


def _members(row: BatchDevice) -> dict[str, str]:
    members = {"name": row.device.name, "id": str(row.device.uuid), "type": row.device.type}
    return members if row.credentials is None else members | secrets_of(row.credentials)


def secrets_of(credentials: Credentials) -> dict[str, str]:
    members: dict[str, str] = {"credentials_type": f"{credentials_type(credentials)}"}
    match credentials:
        case AccessToken(token):
            members["access_token"] = token
        case MqttBasic(client_id, username, password):
            parts = {"mqtt_client_id": client_id, "mqtt_username": username, "mqtt_password": password}
            members |= {name: part for name, part in parts.items() if part}
        case X509Certificate(certificate):
            members |= _of_certificate(certificate)
    return members


def _of_certificate(text: str) -> dict[str, str]:
    """Fingerprint and common name; of an opaque text the text."""
    try:
        der = certificates.der_of(text)
        name = certificates.common_name(certificates.load(der))
    except certificates.MalformedCertificate:
        return {"fingerprint": text}
    return {"fingerprint": certificates.fingerprint(der).hex()} | ({"common_name": name} if name else {})


def _csv_line(cells: Sequence[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()
