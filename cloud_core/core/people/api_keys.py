"""API keys, with which programs log in: decisions, and the door for operators. A key is shown once, when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from cloud_core.core.asking import Asking, to_the_end
from cloud_core.core.inventory import found
from cloud_core.core.names import fault_of
from cloud_core.core.people.access import Access, end_login
from cloud_core.core.people.audit import Audit, Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.core.people.users import role_of
from cloud_core.core.tokens import new_secret, new_uuid
from cloud_core.model import ApiKey, EndedLogin, Page, UserRole
from cloud_core.storage.interface import ReadTx, Store, Tx
from shared.errors import InvalidArgument

PREFIX = "muster_"  # by which tools that look for lost secrets know one
HINT_CHARS = len(PREFIX) + 4
MAX_KEYS = 500  # of a tenant: every node holds them in memory


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key and what it stands as."""

    stored: ApiKey
    value: str = field(repr=False)


class ApiKeysApi(Asking):
    """Makes, lists and revokes the keys of a tenant."""

    def __init__(self, *, store: Store, access: Access, now_ms: Callable[[], int], audit: Audit | None = None) -> None:
        super().__init__(store, audit)
        self._access = access
        self._now_ms = now_ms

    @to_the_end
    async def create(self, operator: Operator, members: dict[str, Any]) -> MadeKey:
        """From `name`, `role` and `expirationTime` (ms). Raises: InvalidArgument."""
        now_ms = self._now_ms()
        name, role, ends_ms = _members(members, now_ms)
        value = f"{PREFIX}{new_secret()}{new_secret()}"
        new = ApiKey(
            id=0, uuid=new_uuid(now_ms), tenant_id=operator.tenant_id, name=name, role=role, hint=value[:HINT_CHARS],
            created_ms=now_ms, created_by=operator.username, ends_ms=ends_ms,
        )  # fmt: skip
        key_hash = self._access.hash_of(value)
        stored = await self._decide_by(operator, Deed("CREATED", "API_KEY", _of_key), insert, new, key_hash)
        self._access.add_key(stored, key_hash, operator.tenant_uuid)
        return MadeKey(stored, value)

    async def list(self, operator: Operator, page: Page) -> tuple[list[ApiKey], int]:
        return await self._read(keys, operator.tenant_id, page)

    @to_the_end
    async def delete(self, operator: Operator, uuid: UUID) -> None:
        """Nobody logs in with it from now on. Raises: NotFound."""
        deed = Deed("DELETED", "API_KEY", lambda deleted: _of_key(deleted[0]))
        _, ended = await self._decide_by(operator, deed, delete, operator.tenant_id, uuid, self._now_ms())
        self._access.end(ended)


def _of_key(key: ApiKey) -> Subject:
    return Subject(key.uuid, key.name, key.role.value)


def _members(members: dict[str, Any], now_ms: int) -> tuple[str, UserRole, int | None]:
    name = members.get("name")
    if not isinstance(name, str) or not name.strip():
        raise InvalidArgument("API key name should be specified!")
    fault = fault_of("name", name)
    if fault:
        raise InvalidArgument(f"Validation error: {fault}")
    if members.get("role") is None:
        raise InvalidArgument(f"API key role must be one of {', '.join(UserRole)}!")
    ends_ms = members.get("expirationTime") or None
    if ends_ms is not None and (isinstance(ends_ms, bool) or not isinstance(ends_ms, int)):
        raise InvalidArgument("Validation error: expirationTime must be a time in ms")
    if ends_ms is not None and not now_ms < ends_ms < 2**63:
        raise InvalidArgument("Validation error: expirationTime must lie in the future")
    return name.strip(), role_of(members["role"]), ends_ms


def insert(tx: Tx, key: ApiKey, key_hash: bytes) -> ApiKey:
    if tx.api_key_by_name(key.tenant_id, key.name) is not None:
        raise InvalidArgument("API key with such name already exists!")
    if tx.api_key_count(key.tenant_id) >= MAX_KEYS:
        raise InvalidArgument(f"A tenant has at most {MAX_KEYS} API keys; delete those that are not used")
    tx.insert_api_key(key, key_hash)
    return found(tx.api_key(key.tenant_id, key.uuid), "API key", key.uuid)


def keys(tx: ReadTx, tenant_id: int, page: Page) -> tuple[list[ApiKey], int]:
    return tx.api_keys(tenant_id, page)


def delete(tx: Tx, tenant_id: int, uuid: UUID, now_ms: int) -> tuple[ApiKey, EndedLogin]:
    key = found(tx.api_key(tenant_id, uuid), "API key", uuid)
    tx.delete_api_key(key.id)
    return key, end_login(tx, key.uuid, now_ms)
