"""Customers and the devices that belong to them: decisions, and the door for operators.

Decisions are plain functions of a transaction, as in `inventory`. Who may do what stands in `permissions`.

Source: wire-contract.md sections 6.1 and 6.3; ThingsBoard's CustomerController and UserController.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from cloud_core.core.asking import Asking, to_the_end
from cloud_core.core.assignments import entity_uuid
from cloud_core.core.inventory import found
from cloud_core.core.names import fault_of
from cloud_core.core.people.access import Access, end_login
from cloud_core.core.people.audit import Audit, Deed, Subject
from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import TENANT_ADMIN
from cloud_core.core.tokens import new_uuid
from cloud_core.model import Customer, Device, DeviceFilter, EndedLogin, Page, Scope
from cloud_core.storage.interface import ReadTx, Store, Tx
from shared.errors import InvalidArgument, NotAuthorized, VersionConflict


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device and what a list shows beside it."""

    device: Device
    customer: Customer | None
    is_active: bool


class CustomersApi(Asking):
    """What operators can do with customers; customers' users with their devices."""

    def __init__(self, *, store: Store, access: Access, now_ms: Callable[[], int], audit: Audit | None = None) -> None:
        super().__init__(store, audit)
        self._access = access
        self._now_ms = now_ms

    async def save(self, operator: Operator, members: dict[str, Any]) -> Customer:
        """Creates (no `id`) or updates from REST members. InvalidArgument, NotFound, VersionConflict."""
        deed = Deed("UPDATED" if members.get("id") else "CREATED", "CUSTOMER", _titled)
        return await self._decide_by(operator, deed, save_customer, operator.tenant_id, members, self._now_ms())

    async def find(self, operator: Operator, uuid: UUID) -> Customer:
        return found(await self._read(customer, operator.tenant_id, uuid), "Customer", uuid)

    @to_the_end
    async def delete(self, operator: Operator, uuid: UUID) -> None:
        """Its devices go back to nobody; its users go with it, and their logins end."""
        deed = Deed("DELETED", "CUSTOMER", lambda deleted: _titled(deleted[0]))
        _, ended = await self._decide_by(operator, deed, delete_customer, operator.tenant_id, uuid, self._now_ms())
        self._access.end(*ended)

    async def give(self, operator: Operator, customer_uuid: UUID, device_uuid: UUID) -> Device:
        """The device is the customer's from now on, whoever had it before. NotFound."""
        deed = Deed(
            "ASSIGNED", "DEVICE", lambda device: Subject(device.uuid, device.name, f"to customer {customer_uuid}")
        )
        return await self._decide_by(operator, deed, give_device, operator.tenant_id, customer_uuid, device_uuid)

    async def take_back(self, operator: Operator, device_uuid: UUID) -> Device:
        """The device is nobody's from now on. NotFound; InvalidArgument where it was before."""
        deed = Deed("UNASSIGNED", "DEVICE", lambda device: Subject(device.uuid, device.name))
        return await self._decide_by(operator, deed, take_device_back, operator.tenant_id, device_uuid)

    async def devices(self, operator: Operator, uuid: UUID, page: Page, kind: str) -> tuple[list[Device], int]:
        """A page of the customer's devices. NotAuthorized for the user of another customer."""
        if operator.authority != TENANT_ADMIN and operator.customer_uuid != uuid:
            raise NotAuthorized
        return await self._read(devices, operator.tenant_id, uuid, page, kind)

    async def device_info(self, operator: Operator, uuid: UUID) -> DeviceInfo:
        """NotAuthorized for the user of a customer that it does not belong to."""
        info = found(await self._read(device_info, operator.tenant_id, uuid), "Device", uuid)
        operator.check_owner(info.device)
        return info

    async def device_infos(
        self, operator: Operator, page: Page, wanted: DeviceFilter
    ) -> tuple[Sequence[DeviceInfo], int]:
        """A page of the tenant's devices and what a list shows beside them."""
        return await self._read(device_infos, operator.tenant_id, page, wanted)

    async def list(self, operator: Operator, page: Page) -> tuple[list[Customer], int]:
        return await self._read(customers, operator.tenant_id, page)


# -- customers ------------------------------------------------------------------------------------

_OWN_MEMBERS = frozenset(("id", "createdTime", "tenantId", "title", "name", "version"))


def _titled(customer: Customer) -> Subject:
    return Subject(customer.uuid, customer.title)


def customer(tx: ReadTx, tenant_id: int, uuid: UUID) -> Customer | None:
    return tx.customer(tenant_id, uuid)


def customers(tx: ReadTx, tenant_id: int, page: Page) -> tuple[list[Customer], int]:
    return tx.customers(tenant_id, page)


def save_customer(tx: Tx, tenant_id: int, members: dict[str, Any], now_ms: int) -> Customer:
    title = _title(members)
    uuid = entity_uuid(members.get("id"), "id")
    stored = found(tx.customer(tenant_id, uuid), "Customer", uuid) if uuid else None
    same_title = tx.customer_by_title(tenant_id, title)
    if same_title is not None and (stored is None or same_title.id != stored.id):
        raise InvalidArgument("Customer with such title already exists!")
    document = {key: value for key, value in members.items() if key not in _OWN_MEMBERS}
    if stored is None:
        number = tx.insert_customer(
            uuid=new_uuid(now_ms), tenant_id=tenant_id, title=title, document=document, created_ms=now_ms
        )
        return found(tx.customer_by_id(number), "Customer", title)
    version = members.get("version")
    if version is not None and version != stored.version:
        raise VersionConflict
    tx.update_customer(replace(stored, title=title, document=document))
    return found(tx.customer_by_id(stored.id), "Customer", uuid)


def _title(members: dict[str, Any]) -> str:
    title = members.get("title")
    if not isinstance(title, str) or not title.strip():
        raise InvalidArgument("Customer title should be specified!")
    fault = fault_of("title", title)
    if fault:
        raise InvalidArgument(f"Validation error: {fault}")
    return title


def delete_customer(tx: Tx, tenant_id: int, uuid: UUID, now_ms: int) -> tuple[Customer, list[EndedLogin]]:
    customer = found(tx.customer(tenant_id, uuid), "Customer", uuid)
    ended = [end_login(tx, one.uuid, now_ms) for one in tx.all_users(tenant_id, customer_id=customer.id)]
    tx.delete_relations_of(tenant_id, customer.uuid)
    tx.delete_customer(customer.id)
    return customer, ended


# -- their devices --------------------------------------------------------------------------------


def give_device(tx: Tx, tenant_id: int, customer_uuid: UUID, device_uuid: UUID) -> Device:
    owner = found(tx.customer(tenant_id, customer_uuid), "Customer", customer_uuid)
    device = found(tx.device(tenant_id, device_uuid), "Device", device_uuid)
    if device.customer_id != owner.id:
        tx.delete_claim_offer(device.id)  # it was made to whoever claims a device without an owner
        tx.assign_device(device.id, owner.id)
    return found(tx.device(tenant_id, device_uuid), "Device", device_uuid)


def take_device_back(tx: Tx, tenant_id: int, device_uuid: UUID) -> Device:
    device = found(tx.device(tenant_id, device_uuid), "Device", device_uuid)
    if device.customer_id is None:
        raise InvalidArgument("Device isn't assigned to any customer!")
    tx.assign_device(device.id, None)
    return found(tx.device(tenant_id, device_uuid), "Device", device_uuid)


def devices(tx: ReadTx, tenant_id: int, uuid: UUID, page: Page, kind: str) -> tuple[list[Device], int]:
    owner = found(tx.customer(tenant_id, uuid), "Customer", uuid)
    return tx.devices(tenant_id, page, DeviceFilter(profile_name=kind), customer_id=owner.id)


def device_infos(tx: ReadTx, tenant_id: int, page: Page, wanted: DeviceFilter) -> tuple[list[DeviceInfo], int]:
    rows, total = tx.devices(tenant_id, page, wanted)
    places = zip(rows, tx.device_places(rows), strict=True)
    return [DeviceInfo(device, owner, is_active) for device, (owner, is_active) in places], total


def device_info(tx: ReadTx, tenant_id: int, uuid: UUID) -> DeviceInfo | None:
    device = tx.device(tenant_id, uuid)
    if device is None:
        return None
    owner = tx.customer_by_id(device.customer_id) if device.customer_id is not None else None
    return DeviceInfo(device, owner, tx.attribute(device.id, Scope.SERVER, "active") is True)
