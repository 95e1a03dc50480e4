"""Operators' decisions on what a device logs in with: plain functions of a transaction, checks before writes.

Source: wire-contract.md sections 1.7 and 6.3.
"""

from __future__ import annotations

from uuid import UUID

from cloud_core.core.holders import holder
from cloud_core.core.inventory import checked, found
from cloud_core.model import StoredCredentials
from cloud_core.storage.interface import ReadTx, Tx
from shared.credentials import Credentials
from shared.errors import InvalidArgument, NotFound, VersionConflict


def find(tx: ReadTx, device_id: int) -> StoredCredentials | None:
    return tx.credentials(device_id)


def save(
    tx: Tx, tenant_id: int, uuid: UUID, credentials: Credentials, known_uuid: UUID | None, version: int | None,
    now_ms: int,
) -> StoredCredentials:  # fmt: skip
    """`known_uuid` and `version`: of the credentials that the caller means to change, where it says so."""
    device = tx.device(tenant_id, uuid)
    if device is None:
        raise NotFound("Can't assign device credentials to non-existent device!")
    stored = tx.credentials(device.id)
    if known_uuid is not None and (stored is None or known_uuid != stored.uuid):
        raise InvalidArgument("Unable to update non-existent device credentials!")
    if stored is not None and version is not None and version != stored.version:
        raise VersionConflict
    kept = checked(credentials)
    if holder(tx, kept, now_ms) not in (None, device.id):
        raise InvalidArgument("Specified credentials are already registered!")
    tx.put_credentials(device.id, kept, now_ms=now_ms)
    return found(tx.credentials(device.id), "Device credentials", uuid)
