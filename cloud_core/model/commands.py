"""Commands that wait for their device, and methods that devices may call."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from cloud_core.model.devices import NIL_UUID


class RpcStatus(StrEnum):
    """Where a persistent command stands (wire-contract.md section 6.7)."""

    QUEUED = "QUEUED"
    """Waits for its device."""
    SENT = "SENT"
    """Written to a connection of the device, not acknowledged yet."""
    DELIVERED = "DELIVERED"
    """The device has it; a two-way command waits for the reply."""
    SUCCESSFUL = "SUCCESSFUL"
    """Delivered (one-way) or answered (two-way)."""
    TIMEOUT = "TIMEOUT"
    """Sent as often as allowed, never acknowledged."""
    EXPIRED = "EXPIRED"
    """Its time was over before that."""
    FAILED = "FAILED"
    """The device's reply could not be used."""
    DELETED = "DELETED"
    """Taken back by an operator: the word for it, which no stored command has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentCommand:
    """A command that waits on disk for its device. Times in ms since the epoch."""

    id: int
    uuid: UUID
    tenant_id: int
    device_id: int
    device_uuid: UUID = NIL_UUID  # filled in by the store
    created_ms: int
    expires_ms: int
    is_oneway: bool
    method: str
    params: Any  # decoded JSON
    status: RpcStatus = RpcStatus.QUEUED
    retries_left: int = 0
    response: Any = None  # decoded JSON
    additional_info: Any = None  # decoded JSON, kept for REST
    sent_ms: int = 0  # by one of several nodes, the last time
    sent_by: str = ""  # that node


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMethod:
    """A method that devices may call, bound to a webhook. `secret` signs the requests to `url`."""

    tenant_id: int
    method: str
    url: str
    secret: str = field(default="", repr=False)
    timeout_ms: int = 10_000
