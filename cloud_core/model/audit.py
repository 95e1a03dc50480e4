"""What operators have done, in a chain that shows tampering."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One decision of an operator; never holds a secret. `digest` is SHA-256 over the one before it and this."""

    tenant_id: int
    number: int  # from 1, without a gap
    at_ms: int
    actor: str
    action: str
    entity_type: str
    entity_uuid: UUID  # nil where the entity has none
    name: str
    detail: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The newest entry of a tenant's chain, and the last one that was removed for its age."""

    number: int = 0
    digest: bytes = bytes(32)
    first_number: int = 0
    first_digest: bytes = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries are wanted; empty and None: any. `start_ms` ≤ time < `end_ms`."""

    start_ms: int | None = None
    end_ms: int | None = None
    actor: str = ""
    action: str = ""
    entity_type: str = ""
    entity_uuid: UUID | None = None
