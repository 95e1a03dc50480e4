"""Tenants, whose data are apart from each other."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, delete, select, update

from cloud_core.model import SYSTEM_TENANT, ChangeKind, Device, Page, Tenant
from cloud_core.storage.changes import RecordsChanges
from cloud_core.storage.connected import Connected
from cloud_core.storage.schema import (
    device,
    device_profile,
    metadata,
    package,
    package_assignment,
    package_rollout,
    tenant,
)
from cloud_core.storage.statements import device_of, device_rows

p = bindparam
_t = tenant.c
_ROWS = select(_t.id, _t.uuid, _t.name, _t.created_ms, _t.max_devices, _t.document)
_SORT = {"createdTime": _t.created_ms, "title": _t.name, "name": _t.name}
_BY_UUID = _ROWS.where(_t.uuid == p("uuid"))
_BY_NAME = _ROWS.where(_t.name == p("name"))
_MAX_DEVICES = select(_t.max_devices).where(_t.id == p("id"))
_SOME_DEVICES = device_rows.where(device.c.tenant_id == p("tenant_id")).order_by(device.c.id).limit(p("limit"))
_UPDATE = (
    update(tenant)
    .where(_t.id == p("b_id"))
    .values(name=p("name"), max_devices=p("max_devices"), document=p("document"))
)
_DELETE = delete(tenant).where(_t.id == p("id"))
_FORGET_ASSIGNMENTS = delete(package_assignment).where(
    package_assignment.c.package_id.in_(select(package.c.id).where(package.c.tenant_id == p("tenant_id")))
)
_FORGET_ROLLOUTS = delete(package_rollout).where(
    package_rollout.c.profile_id.in_(select(device_profile.c.id).where(device_profile.c.tenant_id == p("tenant_id")))
)
# Every table that says whose its rows are, those that refer to others first.
_CLEAR = [
    delete(table).where(table.c.tenant_id == p("tenant_id"))
    for table in reversed(metadata.sorted_tables)
    if "tenant_id" in table.c
]


def _insert(upsert: Any) -> Any:  # Any: the dialect's `insert`
    names = ("uuid", "name", "created_ms", "max_devices", "document")
    return upsert(tenant).values({name: p(name) for name in names}).on_conflict_do_nothing()


class ReadsTenants(Connected):
    """`ReadTenants` of the interface."""

    def tenant(self, uuid: UUID) -> Tenant | None:
        return _tenant(self._row(self._once(_BY_UUID), uuid=uuid.bytes))

    def tenant_by_name(self, name: str) -> Tenant | None:
        return _tenant(self._row(self._once(_BY_NAME), name=name))

    def tenants(self, page: Page) -> tuple[list[Tenant], int]:
        rows, total = self._page(_ROWS.where(_t.uuid != SYSTEM_TENANT.bytes), page, _SORT, [_t.name])
        return [one for row in rows if (one := _tenant(row))], total

    def max_devices(self, tenant_id: int) -> int:
        row = self._row(self._once(_MAX_DEVICES), id=tenant_id)
        return 0 if row is None else row[0]

    def some_devices(self, tenant_id: int, limit: int) -> list[Device]:
        rows = self._rows(self._once(_SOME_DEVICES), tenant_id=tenant_id, limit=limit)
        return [one for row in rows if (one := device_of(row))]


class WritesTenants(ReadsTenants, RecordsChanges):
    """`WriteTenants` of the interface."""

    def insert_tenant(
        self, uuid: UUID, name: str, *, now_ms: int, max_devices: int = 0, document: dict[str, Any] | None = None
    ) -> None:
        self._write(
            self._once(_insert), uuid=uuid.bytes, name=name, created_ms=now_ms, max_devices=max_devices,
            document=_json(document or {}),
        )  # fmt: skip

    def update_tenant(self, tenant: Tenant) -> None:
        self._write(
            self._once(_UPDATE), b_id=tenant.id, name=tenant.name, max_devices=tenant.max_devices,
            document=_json(tenant.document),
        )  # fmt: skip

    def delete_tenant(self, tenant_id: int) -> None:
        self._write(self._once(_FORGET_ASSIGNMENTS), tenant_id=tenant_id)
        self._write(self._once(_FORGET_ROLLOUTS), tenant_id=tenant_id)
        for clause in _CLEAR:
            self._write(self._once(clause), tenant_id=tenant_id)
        self._write(self._once(_DELETE), id=tenant_id)
        self.record_change(ChangeKind.PROFILE)  # they have gone with it, and so have its authorities


def _tenant(row: Any) -> Tenant | None:
    if row is None:
        return None
    return Tenant(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), name=row[2], created_ms=row[3], max_devices=row[4],
        document=msgspec.json.decode(row[5]),
    )  # fmt: skip


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
