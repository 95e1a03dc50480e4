"""Customers, their users, and the devices that belong to them: decisions, and the door for operators.

Decisions are plain functions of a transaction, as in `inventory`. Who may do what stands in `permissions`.

Source: wire-contract.md sections 6.1 and 6.3; ThingsBoard's CustomerController and UserController.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from twisted.internet.threads import deferToThread

from cloud_core.core.asking import Asking
from cloud_core.core.assignments import entity_uuid
from cloud_core.core.audit import Audit, Deed, Subject
from cloud_core.core.inventory import found
from cloud_core.core.logins import Operator, hash_password
from cloud_core.core.names import fault_of
from cloud_core.core.permissions import CUSTOMER_USER, TENANT_ADMIN
from cloud_core.core.tokens import new_secret, new_uuid
from cloud_core.model import Customer, Device, Page, Scope, User
from cloud_core.storage.interface import ReadTx, Store, Tx
from shared.errors import InvalidArgument, NotAuthorized, VersionConflict

MIN_PASSWORD_CHARS, MAX_PASSWORD_CHARS = 8, 200
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device and what a list shows beside it."""

    device: Device
    customer: Customer | None
    is_active: bool


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be made; the password is hashed by then."""

    email: str
    authority: str
    customer_uuid: UUID | None
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MadeUser:
    """A new user; `password` only where it was generated here, to be shown once."""

    user: User
    customer_uuid: UUID | None
    password: str = field(repr=False)


class CustomersApi(Asking):
    """What operators can do with customers and users; customers' users with their devices."""

    def __init__(self, *, store: Store, now_ms: Callable[[], int], audit: Audit | None = None) -> None:
        super().__init__(store, audit)
        self._now_ms = now_ms

    async def save(self, operator: Operator, members: dict[str, Any]) -> Customer:
        """Creates (no `id`) or updates from REST members. InvalidArgument, NotFound, VersionConflict."""
        deed = Deed("UPDATED" if members.get("id") else "CREATED", "CUSTOMER", _titled)
        return await self._decide_by(operator, deed, save_customer, operator.tenant_id, members, self._now_ms())

    async def find(self, operator: Operator, uuid: UUID) -> Customer:
        return found(await self._read(customer, operator.tenant_id, uuid), "Customer", uuid)

    async def delete(self, operator: Operator, uuid: UUID) -> None:
        """Its devices go back to nobody; its users go with it."""
        await self._decide_by(operator, Deed("DELETED", "CUSTOMER", _titled), delete_customer, operator.tenant_id, uuid)

    async def make_user(self, operator: Operator, members: dict[str, Any]) -> MadeUser:
        """A user from REST members; without `password` one is generated. InvalidArgument."""
        email, authority, customer_uuid = user_members(members)
        given = members.get("password")
        password = new_secret() if given is None else checked_password(given)
        hashed = await deferToThread(hash_password, password)
        new = NewUser(email, authority, customer_uuid, hashed)
        deed = Deed("CREATED", "USER", lambda made: Subject(made.uuid, made.username, made.authority))
        user = await self._decide_by(operator, deed, make_user, operator.tenant_id, new, self._now_ms())
        return MadeUser(user, customer_uuid, password if given is None else "")

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


def delete_customer(tx: Tx, tenant_id: int, uuid: UUID) -> Customer:
    customer = found(tx.customer(tenant_id, uuid), "Customer", uuid)
    tx.delete_relations_of(tenant_id, customer.uuid)
    tx.delete_customer(customer.id)
    return customer


# -- users ----------------------------------------------------------------------------------------


def user_members(members: dict[str, Any]) -> tuple[str, str, UUID | None]:
    """(email, authority, customer) of a posted user, as far as they can be checked alone. InvalidArgument."""
    if members.get("id") is not None:
        raise InvalidArgument("A user cannot be changed; make a new one without `id`")
    email = members.get("email")
    if not isinstance(email, str) or not email.strip():
        raise InvalidArgument("User email should be specified!")
    email = email.strip()
    if not _EMAIL.fullmatch(email) or fault_of("email", email):
        raise InvalidArgument(f"Invalid email address format '{email[:80]}'!")
    authority = members.get("authority")
    if authority not in (TENANT_ADMIN, CUSTOMER_USER):
        raise InvalidArgument(f"User authority must be {TENANT_ADMIN} or {CUSTOMER_USER}!")
    customer_uuid = entity_uuid(members.get("customerId"), "customerId")
    if authority == CUSTOMER_USER and customer_uuid is None:
        raise InvalidArgument("Customer user should be assigned to customer!")
    return email, authority, customer_uuid if authority == CUSTOMER_USER else None


def checked_password(password: object) -> str:
    """Raises: InvalidArgument, which does not repeat it."""
    if not isinstance(password, str) or not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
        raise InvalidArgument(f"The password must have {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters")
    return password


def make_user(tx: Tx, tenant_id: int, new: NewUser, now_ms: int) -> User:
    customer_id: int | None = None
    if new.customer_uuid is not None:
        owner = tx.customer(tenant_id, new.customer_uuid)
        if owner is None:
            raise InvalidArgument("User is referencing to non-existent customer!")
        customer_id = owner.id
    if tx.user_by_name(new.email) is not None:
        raise InvalidArgument(f"User with email '{new.email}' already present in database!")
    tx.insert_user(
        User(
            id=0, uuid=new_uuid(now_ms), tenant_id=tenant_id, username=new.email, password_hash=new.password_hash,
            authority=new.authority, created_ms=now_ms, customer_id=customer_id,
        )
    )  # fmt: skip
    return found(tx.user_by_name(new.email), "User", new.email)


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
    return tx.devices(tenant_id, page, kind, customer_id=owner.id)


def device_info(tx: ReadTx, tenant_id: int, uuid: UUID) -> DeviceInfo | None:
    device = tx.device(tenant_id, uuid)
    if device is None:
        return None
    owner = tx.customer_by_id(device.customer_id) if device.customer_id is not None else None
    return DeviceInfo(device, owner, tx.attribute(device.id, Scope.SERVER, "active") is True)
