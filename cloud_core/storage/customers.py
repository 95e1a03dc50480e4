"""Customers, their users and their devices."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update

from cloud_core.model import Customer, Page
from cloud_core.storage.connected import Connected
from cloud_core.storage.schema import customer, device
from shared.errors import VersionConflict

p = bindparam
_c = customer.c
_rows = select(_c.id, _c.uuid, _c.tenant_id, _c.title, _c.document, _c.created_ms, _c.version)
_SORT = {"createdTime": _c.created_ms, "title": _c.title, "name": _c.title}

_BY_UUID = _rows.where(_c.tenant_id == p("tenant_id"), _c.uuid == p("uuid"))
_BY_ID = _rows.where(_c.id == p("id"))
_BY_TITLE = _rows.where(_c.tenant_id == p("tenant_id"), _c.title == p("title"))
_INSERT = (
    insert(customer)
    .values({name: p(name) for name in ("uuid", "tenant_id", "title", "document", "created_ms", "version")})
    .returning(_c.id)
)
_UPDATE = (
    update(customer)
    .where(_c.id == p("b_id"), _c.version == p("b_version"))
    .values(title=p("title"), document=p("document"), version=p("b_version") + 1)
)
_FREE_DEVICES = (
    update(device)
    .where(device.c.customer_id == p("b_customer_id"))
    .values(customer_id=None, version=device.c.version + 1)
)
_DELETE = delete(customer).where(_c.id == p("id"))  # its users go with it: ON DELETE CASCADE
_ASSIGN = (
    update(device)
    .where(device.c.id == p("b_device_id"))
    .values(customer_id=p("customer_id"), version=device.c.version + 1)
)


class ReadsCustomers(Connected):
    """`ReadCustomers` of the interface."""

    def customer(self, tenant_id: int, uuid: UUID) -> Customer | None:
        return _customer(self._row(self._once(_BY_UUID), tenant_id=tenant_id, uuid=uuid.bytes))

    def customer_by_id(self, customer_id: int) -> Customer | None:
        return _customer(self._row(self._once(_BY_ID), id=customer_id))

    def customer_by_title(self, tenant_id: int, title: str) -> Customer | None:
        return _customer(self._row(self._once(_BY_TITLE), tenant_id=tenant_id, title=title))

    def customers(self, tenant_id: int, page: Page) -> tuple[list[Customer], int]:
        rows, total = self._page(_rows.where(_c.tenant_id == tenant_id), page, _SORT, [_c.title])
        return [one for row in rows if (one := _customer(row))], total


class WritesCustomers(ReadsCustomers):
    """`WriteCustomers` of the interface."""

    def insert_customer(
        self, *, uuid: UUID, tenant_id: int, title: str, document: dict[str, Any], created_ms: int
    ) -> int:
        self.writes += 1
        row = self._row(
            self._once(_INSERT), uuid=uuid.bytes, tenant_id=tenant_id, title=title,
            document=msgspec.json.encode(document).decode(), created_ms=created_ms, version=1,
        )  # fmt: skip
        number: int = row[0]
        return number

    def update_customer(self, customer: Customer) -> None:
        self._write(
            self._once(_UPDATE), b_id=customer.id, b_version=customer.version, title=customer.title,
            document=msgspec.json.encode(customer.document).decode(),
        )  # fmt: skip
        if self._cursor.rowcount != 1:
            raise VersionConflict

    def delete_customer(self, customer_id: int) -> None:
        self._write(self._once(_FREE_DEVICES), b_customer_id=customer_id)
        self._write(self._once(_DELETE), id=customer_id)

    def assign_device(self, device_id: int, customer_id: int | None) -> None:
        self._write(self._once(_ASSIGN), b_device_id=device_id, customer_id=customer_id)


def _customer(row: Any) -> Customer | None:
    if row is None:
        return None
    return Customer(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], title=row[3],
        document=msgspec.json.decode(row[4]), created_ms=row[5], version=row[6],
    )  # fmt: skip
