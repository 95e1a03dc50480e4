"""Tenants: decisions, and the door of system administrators, who see nothing of what a tenant has.

Source: ThingsBoard's TenantController.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from cloud_core.core import inventory
from cloud_core.core.asking import Asking, to_the_end
from cloud_core.core.assignments import entity_uuid
from cloud_core.core.bulk.applying import discard_piece
from cloud_core.core.inventory import found
from cloud_core.core.names import fault_of
from cloud_core.core.people.access import Access, end_login
from cloud_core.core.people.audit import Audit, Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import SYS_ADMIN
from cloud_core.core.tokens import new_uuid
from cloud_core.model import (
    DEFAULT_TENANT,
    SYSTEM_TENANT,
    AuditHead,
    EndedLogin,
    Page,
    ProvisionConfiguration,
    Tenant,
    User,
)
from cloud_core.storage.interface import ReadTx, Store, Tx
from shared.errors import InvalidArgument, NotFound

DELETED_AT_ONCE = 20  # devices, in a transaction: others have their turn in between
MAX_LIMIT = 1_000_000_000
_OWN_MEMBERS = frozenset(("id", "createdTime", "title", "name", "maxDevices", "tenantProfileId", "version"))


class TenantsApi(Asking):
    """What system administrators can do.

    `device_deleted` and `tenant_deleted` are told so that sessions end and nothing stays in memory.
    """

    def __init__(
        self, *, store: Store, access: Access, now_ms: Callable[[], int], device_deleted: Callable[[int], None],
        tenant_deleted: Callable[[], None], audit: Audit | None = None,
    ) -> None:  # fmt: skip
        super().__init__(store, audit)
        self._access = access
        self._now_ms = now_ms
        self._device_deleted = device_deleted
        self._tenant_deleted = tenant_deleted

    async def save(self, operator: Operator, members: dict[str, Any]) -> Tenant:
        """Creates (no `id`) or updates from REST members. Raises: InvalidArgument, NotFound."""
        deed = Deed("UPDATED" if members.get("id") else "CREATED", "TENANT", _of_tenant)
        return await self._decide_by(operator, deed, save_tenant, members, self._now_ms())

    async def find(self, uuid: UUID) -> Tenant:
        return found(await self._read(tenant, uuid), "Tenant", uuid)

    async def list(self, page: Page) -> tuple[list[Tenant], int]:
        return await self._read(tenants, page)

    @to_the_end
    async def delete(self, operator: Operator, uuid: UUID, *, with_devices: bool) -> None:
        """With all that it has, its audit too; what was begun and not ended is ended by another call. Both deeds
        are in the chain of the system, whose administrators alone delete tenants, the last with the last number and
        hash of the tenant's own chain, which ends with it: a copy of that chain can still be judged.

        Raises: NotFound; InvalidArgument for the first tenant, and where it has devices unless `with_devices`.
        """
        closed = Deed("CLOSED", "TENANT", lambda done: _of_tenant(done[0]))
        _, ended = await self._decide_by(operator, closed, close, uuid, with_devices, self._now_ms())
        self._access.end(*ended)
        while await self._decide(forget_some_imports, uuid, self._now_ms()):
            pass
        is_deleted = False
        while not is_deleted:
            for device_id in await self._decide(delete_some_devices, uuid, self._now_ms()):
                self._device_deleted(device_id)
            is_deleted = (await self._decide_by(operator, _DELETED, delete_empty, uuid, self._now_ms())).is_gone
        self._tenant_deleted()


@dataclass(frozen=True, slots=True)
class DeletedTenant:
    """A tenant that is gone, and where its audit ended. `tenant` None: it was gone, or it is still there."""

    tenant: Tenant | None
    is_gone: bool = True
    last: AuditHead = field(default_factory=AuditHead)

    def subject(self) -> Subject | None:
        if self.tenant is None:
            return None
        ended = f"its audit ended with entry {self.last.number}, {self.last.digest.hex()}"
        return Subject(self.tenant.uuid, self.tenant.name, ended)


GONE, STILL_THERE = DeletedTenant(None), DeletedTenant(None, is_gone=False)
_DELETED = Deed("DELETED", "TENANT", DeletedTenant.subject)


def _of_tenant(tenant: Tenant) -> Subject:
    return Subject(tenant.uuid, tenant.name, f"maxDevices {tenant.max_devices}" if tenant.max_devices else "")


def tenant(tx: ReadTx, uuid: UUID) -> Tenant | None:
    return tx.tenant(uuid) if uuid != SYSTEM_TENANT else None


def tenants(tx: ReadTx, page: Page) -> tuple[list[Tenant], int]:
    return tx.tenants(page)


def save_tenant(tx: Tx, members: dict[str, Any], now_ms: int) -> Tenant:
    title, max_devices = _title(members), _max_devices(members)
    uuid = entity_uuid(members.get("id"), "id")
    stored = found(tenant(tx, uuid), "Tenant", uuid) if uuid else None
    same_name = tx.tenant_by_name(title)
    if same_name is not None and (stored is None or same_name.id != stored.id):
        raise InvalidArgument("Tenant with such title already exists!")
    document = {key: value for key, value in members.items() if key not in _OWN_MEMBERS}
    if stored is not None:
        tx.update_tenant(replace(stored, name=title, max_devices=max_devices, document=document))
        return found(tx.tenant(stored.uuid), "Tenant", uuid)
    new = new_uuid(now_ms)
    tx.insert_tenant(new, title, now_ms=now_ms, max_devices=max_devices, document=document)
    made = found(tx.tenant(new), "Tenant", new)
    inventory.make_default_profile(tx, made.id, now_ms)
    return made


def _title(members: dict[str, Any]) -> str:
    title = members.get("title")
    if not isinstance(title, str) or not title.strip():
        raise InvalidArgument("Tenant title should be specified!")
    fault = fault_of("title", title)
    if fault:
        raise InvalidArgument(f"Validation error: {fault}")
    return title.strip()


def _max_devices(members: dict[str, Any]) -> int:
    value = members.get("maxDevices") or 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LIMIT:
        raise InvalidArgument(f"Validation error: maxDevices must be 0 (without limit) to {MAX_LIMIT}")
    return value


# -- the end of a tenant --------------------------------------------------------------------------


def close(tx: Tx, uuid: UUID, with_devices: bool, now_ms: int) -> tuple[Tenant, list[EndedLogin]]:
    """Nobody logs in any more, and no device comes in by a profile."""
    stored = found(tenant(tx, uuid), "Tenant", uuid)
    if uuid == DEFAULT_TENANT:
        raise InvalidArgument("The first tenant cannot be deleted: the installation's own administrators are its users")
    count = tx.device_count(stored.id)
    if count and not with_devices:
        raise InvalidArgument(f"The tenant has {count} devices; delete them first, or say withDevices=true")
    ended = []
    for user in tx.all_users(stored.id):
        tx.delete_user(user.id)
        ended.append(end_login(tx, user.uuid, now_ms))
    for key in tx.all_api_keys(stored.id):
        tx.delete_api_key(key.id)
        ended.append(end_login(tx, key.uuid, now_ms))
    tx.discard_batches_of(stored.id)
    for profile in tx.all_profiles(stored.id):
        tx.update_profile(replace(profile, provision=ProvisionConfiguration()))
    return stored, ended


def forget_some_imports(tx: Tx, uuid: UUID, now_ms: int) -> bool:
    """Whether there is more to forget: files hold credentials, and one being applied would make devices."""
    stored = tx.tenant(uuid)
    batch = tx.first_batch(stored.id) if stored is not None else None
    if batch is None:
        return False
    tx.discard_batches_of(batch.tenant_id)
    discard_piece(tx, batch.id, now_ms)
    return True


def delete_some_devices(tx: Tx, uuid: UUID, now_ms: int) -> list[int]:
    """Numbers of the devices that were."""
    stored = tx.tenant(uuid)
    devices = tx.some_devices(stored.id, DELETED_AT_ONCE) if stored is not None else []
    for device in devices:
        tx.delete_device(device.id)
    return [device.id for device in devices]


def delete_empty(tx: Tx, uuid: UUID, now_ms: int) -> DeletedTenant:
    """STILL_THERE as long as it has devices or imports; GONE where somebody else has deleted it."""
    stored = tx.tenant(uuid)
    if stored is None:
        return GONE
    if tx.some_devices(stored.id, 1) or forget_some_imports(tx, uuid, now_ms):
        return STILL_THERE
    last = tx.lock_audit_head(stored.id)
    tx.delete_tenant(stored.id)
    return DeletedTenant(stored, last=last)


# -- the first system administrator ---------------------------------------------------------------


def first_system_administrator(tx: Tx, username: str, hashed: str, now_ms: int) -> None:
    """Nothing is left to do where another node, started in the same moment, came first."""
    if tx.user_by_name(username) is not None:
        return
    tx.insert_tenant(SYSTEM_TENANT, str(SYSTEM_TENANT), now_ms=now_ms)
    place = tx.tenant(SYSTEM_TENANT)
    if place is None:
        raise NotFound("There is no place for system administrators")
    tx.insert_user(
        User(
            id=0, uuid=new_uuid(now_ms), tenant_id=place.id, username=username, password_hash=hashed,
            authority=SYS_ADMIN, created_ms=now_ms,
        )
    )  # fmt: skip
