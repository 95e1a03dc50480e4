"""Provision keys beside a profile's own, who uses which secret, and requests that wait for an approval."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRules:
    """What a provision key lets in. Times in ms since the epoch."""

    budget: int = 0  # devices; 0: without limit
    valid_from_ms: int = 0
    valid_until_ms: int = 0  # 0: for ever
    networks: tuple[str, ...] = ()  # CIDR, whence devices may ask; empty: from anywhere
    name_pattern: str = ""  # that a device's whole name must match; empty: any
    allows_gateways: bool = False
    batch: str = ""  # a word of the operator's for what it is for


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionKey:
    """A named key of a profile, beside its own, with rules."""

    id: int
    uuid: UUID
    tenant_id: int
    profile_id: int
    name: str
    key: str = field(repr=False)
    secret: str = field(repr=False)
    rules: KeyRules
    used: int = 0
    is_enabled: bool = True
    created_ms: int = 0


@dataclass(frozen=True, slots=True)
class SecretUse:
    """How often a secret of a profile was shown by devices, and when last."""

    attempts: int = 0
    last_ms: int = 0


class RequestStatus(StrEnum):
    """Where a provision request stands that needs an operator's word."""

    PENDING = "PENDING"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """A provision request that waits for an operator, with the evidence. Times in ms since the epoch."""

    id: int = 0
    uuid: UUID
    tenant_id: int
    profile_id: int
    profile_name: str = ""  # filled in by the store
    digest: bytes = field(repr=False)
    status: RequestStatus = RequestStatus.PENDING
    name: str
    source: str
    transport: str
    key_name: str  # of a further provision key; empty for the profile's own
    is_gateway: bool
    first_ms: int
    last_ms: int
    count: int = 1
    until_ms: int  # then it is forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingFilter:
    """Which requests are meant; empty and None: any."""

    status: RequestStatus | None = RequestStatus.PENDING
    profile_uuid: UUID | None = None
    source: str = ""
    key_name: str = ""
