"""People and programs that administer, tenants, and customers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID


class UserRole(StrEnum):
    """What a user of a tenant may do there; `core.permissions` maps it to acts."""

    ADMINISTRATOR = "ADMINISTRATOR"
    OPERATOR = "OPERATOR"
    VIEWER = "VIEWER"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person or program that administers a tenant."""

    id: int
    uuid: UUID
    tenant_id: int
    username: str
    password_hash: str = field(repr=False)
    authority: str  # SYS_ADMIN, TENANT_ADMIN or CUSTOMER_USER
    created_ms: int
    customer_id: int | None = None
    role: UserRole = UserRole.ADMINISTRATOR  # means something for TENANT_ADMIN alone
    generation: int = 0  # grows with whatever ends all logins of the user; theirs carry the number
    document: dict[str, Any] = field(default_factory=dict)  # JSON: REST members kept as given


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Whose data are apart from those of others."""

    id: int
    uuid: UUID
    name: str
    created_ms: int
    max_devices: int = 0  # 0: without limit
    document: dict[str, Any] = field(default_factory=dict)  # JSON: REST members kept as given


@dataclass(frozen=True, slots=True)
class EndedLogin:
    """Tokens of `subject` (uuid of a session, a user or an API key) whose generation is smaller are refused."""

    subject: UUID
    generation: int
    until_ms: int  # no token lives longer
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What a program logs in with; the key itself is kept by nobody but the program."""

    id: int
    uuid: UUID
    tenant_id: int
    name: str
    role: UserRole
    hint: str  # how the key begins
    created_ms: int
    created_by: str
    ends_ms: int | None = None
    used_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Somebody to whom devices can be given. `document` keeps the other REST members."""

    id: int
    uuid: UUID
    tenant_id: int
    title: str
    document: dict[str, Any]
    created_ms: int
    version: int
