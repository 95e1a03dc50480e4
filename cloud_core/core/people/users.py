"""Users: decisions, and the door for operators. Whatever changes who somebody is ends all of that user's logins.

Source: wire-contract.md section 6.1; ThingsBoard's UserController and AuthController.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from twisted.internet.threads import deferToThread

from cloud_core.core.asking import Asking, to_the_end
from cloud_core.core.assignments import entity_uuid
from cloud_core.core.inventory import found
from cloud_core.core.names import fault_of
from cloud_core.core.people.access import Access, end_login
from cloud_core.core.people.audit import Audit, Deed, Somebody, Subject
from cloud_core.core.people.logins import Operator, hash_password
from cloud_core.core.people.permissions import CUSTOMER_USER, SYS_ADMIN, TENANT_ADMIN
from cloud_core.core.tokens import new_secret, new_uuid
from cloud_core.model import SYSTEM_TENANT, Customer, EndedLogin, Page, User, UserRole
from cloud_core.storage.interface import ReadTx, Store, Tx
from shared.errors import InvalidArgument

MIN_PASSWORD_CHARS, MAX_PASSWORD_CHARS = 8, 200
KEPT_MEMBERS = ("firstName", "lastName", "phone", "additionalInfo")
LAST_ADMINISTRATOR = "This is the last administrator; make another one first"
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


@dataclass(frozen=True, slots=True)
class WantedUser:
    """What a posted user says, as far as it can be checked alone."""

    uuid: UUID | None  # None: a new one
    tenant_uuid: UUID | None  # None: that of whoever posts it
    email: str
    authority: str
    customer_uuid: UUID | None
    role: UserRole
    document: dict[str, Any]
    password_hash: str = field(default="", repr=False)  # of a new one


@dataclass(frozen=True, slots=True)
class PlacedUser:
    """A user, and the uuids of its tenant and of the customer whose user it is."""

    user: User
    tenant_uuid: UUID
    customer_uuid: UUID | None


@dataclass(frozen=True, slots=True)
class SavedUser:
    """A user as it was written; `password` only where it was generated here, to be shown once."""

    user: User
    tenant_uuid: UUID
    customer_uuid: UUID | None
    password: str = field(default="", repr=False)


class UsersApi(Asking):
    """What administrators can do with the users of their tenant; a system administrator with its like and with the
    users of all tenants, but not with those of their customers."""

    def __init__(self, *, store: Store, access: Access, now_ms: Callable[[], int], audit: Audit | None = None) -> None:
        super().__init__(store, audit)
        self._access = access
        self._now_ms = now_ms

    @to_the_end
    async def save(self, operator: Operator, members: dict[str, Any]) -> SavedUser:
        """A user from REST members; a new one (without `id`) gets a generated password where it has none.

        Raises: InvalidArgument, NotFound.
        """
        wanted = wanted_user(members, is_system=operator.authority == SYS_ADMIN)
        if wanted.uuid is not None:
            deed = Deed("UPDATED", "USER", lambda changed: _of_user(changed[0]))
            user, ended = await self._decide_by(operator, deed, change_user, _reach(operator), wanted, self._now_ms())
            self._access.end(*ended)
            placed = await self.find(operator, user.uuid)
            return SavedUser(placed.user, placed.tenant_uuid, placed.customer_uuid)
        given = members.get("password")
        password = new_secret() if given is None else checked_password(given)
        wanted = replace(wanted, password_hash=await deferToThread(hash_password, password))
        deed = Deed("CREATED", "USER", lambda made: _of_user(made.user))
        placed = await self._decide_by(operator, deed, make_user, operator.tenant_id, wanted, self._now_ms())
        return SavedUser(placed.user, placed.tenant_uuid, placed.customer_uuid, password if given is None else "")

    async def find(self, operator: Operator, uuid: UUID) -> PlacedUser:
        return await self._read(placed_user, _reach(operator), uuid)

    async def list_of_tenant(self, tenant_uuid: UUID, page: Page) -> tuple[list[PlacedUser], int]:
        """Without those of its customers. Raises: NotFound."""
        return await self._read(users_of_tenant, tenant_uuid, page)

    async def list(
        self, operator: Operator, page: Page, customer_uuid: UUID | None = None
    ) -> tuple[list[PlacedUser], int]:
        """Users of the tenant, or of a customer. Raises: NotFound."""
        return await self._read(users, operator.tenant_id, page, customer_uuid)

    @to_the_end
    async def delete(self, operator: Operator, uuid: UUID) -> None:
        """Its logins end. Raises: NotFound; InvalidArgument for oneself and for the last administrator."""
        if uuid == operator.user_uuid:
            raise InvalidArgument("You cannot delete yourself; another administrator can")
        deed = Deed("DELETED", "USER", lambda deleted: _of_user(deleted[0]))
        _, ended = await self._decide_by(operator, deed, delete_user, _reach(operator), uuid, self._now_ms())
        self._access.end(ended)

    @to_the_end
    async def set_password(self, operator: Operator, uuid: UUID, given: object) -> str:
        """In place of a forgotten one; all logins of the user end. Returns what was generated where none was given."""
        password = new_secret() if given is None else checked_password(given)
        hashed = await deferToThread(hash_password, password)
        user = (await self.find(operator, uuid)).user
        await self.replace_password(user, hashed, by=operator)
        return password if given is None else ""

    @to_the_end
    async def replace_password(self, user: User, hashed: str, *, by: Operator | None) -> User:
        """All logins of the user end; returns it as it is now. `by`: None for the configuration. Raises: NotFound."""
        who = by or Somebody("configuration", user.tenant_id)
        deed = Deed("PASSWORD_CHANGED", "USER", lambda changed: _of_user(changed[0]))
        changed, ended = await self._decide_by(
            who, deed, set_password, user.tenant_id, user.uuid, hashed, self._now_ms()
        )
        self._access.end(ended)
        return changed


def _of_user(user: User) -> Subject:
    return Subject(user.uuid, user.username, user.role.value if user.authority == TENANT_ADMIN else user.authority)


def _reach(operator: Operator) -> int | None:
    """The number of the tenant whose users these are; None for those of all tenants."""
    return None if operator.authority == SYS_ADMIN else operator.tenant_id


def wanted_user(members: dict[str, Any], *, is_system: bool = False) -> WantedUser:
    """`is_system`: posted by a system administrator. Raises: InvalidArgument."""
    email = members.get("email")
    if not isinstance(email, str) or not email.strip():
        raise InvalidArgument("User email should be specified!")
    email = email.strip()
    if not _EMAIL.fullmatch(email) or fault_of("email", email):
        raise InvalidArgument(f"Invalid email address format '{email[:80]}'!")
    authority = members.get("authority")
    allowed = (SYS_ADMIN, TENANT_ADMIN) if is_system else (TENANT_ADMIN, CUSTOMER_USER)
    if authority not in allowed:
        raise InvalidArgument(f"User authority must be {' or '.join(allowed)}!")
    tenant_uuid = entity_uuid(members.get("tenantId"), "tenantId") if is_system else None
    if is_system and authority == TENANT_ADMIN and tenant_uuid is None:
        raise InvalidArgument("Tenant administrator should be assigned to tenant!")
    customer_uuid = entity_uuid(members.get("customerId"), "customerId")
    if authority == CUSTOMER_USER and customer_uuid is None:
        raise InvalidArgument("Customer user should be assigned to customer!")
    return WantedUser(
        uuid=entity_uuid(members.get("id"), "id"),
        tenant_uuid=tenant_uuid if authority == TENANT_ADMIN else None, email=email, authority=authority,
        customer_uuid=customer_uuid if authority == CUSTOMER_USER else None, role=role_of(members.get("role")),
        document={name: members[name] for name in KEPT_MEMBERS if members.get(name) is not None},
    )  # fmt: skip


def role_of(value: object) -> UserRole:
    """ADMINISTRATOR where none is given. Raises: InvalidArgument."""
    if value is None:
        return UserRole.ADMINISTRATOR
    if not isinstance(value, str) or value not in set(UserRole):
        raise InvalidArgument(f"User role must be one of {', '.join(UserRole)}!")
    return UserRole(value)


def checked_password(password: object) -> str:
    """Raises: InvalidArgument, which does not repeat it."""
    if not isinstance(password, str) or not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
        raise InvalidArgument(f"The password must have {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters")
    return password


# -- decisions ------------------------------------------------------------------------------------


def make_user(tx: Tx, tenant_id: int, wanted: WantedUser, now_ms: int) -> PlacedUser:
    if wanted.tenant_uuid is not None:
        tenant = tx.tenant(wanted.tenant_uuid) if wanted.tenant_uuid != SYSTEM_TENANT else None
        if tenant is None:
            raise InvalidArgument("User is referencing to non-existent tenant!")
        tenant_id = tenant.id
    customer_id: int | None = None
    if wanted.customer_uuid is not None:
        owner = tx.customer(tenant_id, wanted.customer_uuid)
        if owner is None:
            raise InvalidArgument("User is referencing to non-existent customer!")
        customer_id = owner.id
    _check_email_is_free(tx, wanted.email)
    tx.insert_user(
        User(
            id=0, uuid=new_uuid(now_ms), tenant_id=tenant_id, username=wanted.email,
            password_hash=wanted.password_hash, authority=wanted.authority, created_ms=now_ms,
            customer_id=customer_id, role=wanted.role, document=wanted.document,
        )
    )  # fmt: skip
    return _placed(tx, found(tx.user_by_name(wanted.email), "User", wanted.email))


def _reached(tx: ReadTx, tenant_id: int | None, uuid: UUID) -> User:
    """A user of the tenant; without one a user of any tenant, but of no customer. Raises: NotFound."""
    user = tx.user(tenant_id, uuid) if tenant_id is not None else tx.user_by_uuid(uuid)
    is_hidden = tenant_id is None and user is not None and user.authority == CUSTOMER_USER
    return found(None if is_hidden else user, "User", uuid)


def change_user(tx: Tx, tenant_id: int | None, wanted: WantedUser, now_ms: int) -> tuple[User, list[EndedLogin]]:
    """Logins end where another address or role is written."""
    assert wanted.uuid is not None, "a user that exists"
    stored = _reached(tx, tenant_id, wanted.uuid)
    owner = tx.customer(stored.tenant_id, wanted.customer_uuid) if wanted.customer_uuid is not None else None
    if wanted.authority != stored.authority or (owner.id if owner is not None else None) != stored.customer_id:
        raise InvalidArgument("A user's authority and customer stay as they are; delete the user and make a new one")
    if wanted.email != stored.username:
        _check_email_is_free(tx, wanted.email)
    if stored.role is UserRole.ADMINISTRATOR and wanted.role is not UserRole.ADMINISTRATOR:
        _check_is_not_last(tx, stored)
    is_other = (wanted.email, wanted.role) != (stored.username, stored.role)
    changed = replace(
        stored, username=wanted.email, role=wanted.role, document=wanted.document,
        generation=stored.generation + is_other,
    )  # fmt: skip
    tx.update_user(changed)
    return changed, [end_login(tx, stored.uuid, now_ms, changed.generation)] if is_other else []


def delete_user(tx: Tx, tenant_id: int | None, uuid: UUID, now_ms: int) -> tuple[User, EndedLogin]:
    stored = _reached(tx, tenant_id, uuid)
    if stored.role is UserRole.ADMINISTRATOR:
        _check_is_not_last(tx, stored)
    tx.delete_user(stored.id)
    return stored, end_login(tx, uuid, now_ms)


def set_password(tx: Tx, tenant_id: int, uuid: UUID, hashed: str, now_ms: int) -> tuple[User, EndedLogin]:
    stored = found(tx.user(tenant_id, uuid), "User", uuid)
    changed = replace(stored, password_hash=hashed, generation=stored.generation + 1)
    tx.update_user(changed)
    return changed, end_login(tx, uuid, now_ms, changed.generation)


def placed_user(tx: ReadTx, tenant_id: int | None, uuid: UUID) -> PlacedUser:
    return _placed(tx, _reached(tx, tenant_id, uuid))


def users_of_tenant(tx: ReadTx, uuid: UUID, page: Page) -> tuple[list[PlacedUser], int]:
    tenant = found(tx.tenant(uuid) if uuid != SYSTEM_TENANT else None, "Tenant", uuid)
    rows, total = tx.users(tenant.id, page, authority=TENANT_ADMIN)
    return [PlacedUser(one, uuid, None) for one in rows], total


def users(tx: ReadTx, tenant_id: int, page: Page, customer_uuid: UUID | None) -> tuple[list[PlacedUser], int]:
    customer_id = None
    if customer_uuid is not None:
        customer_id = found(tx.customer(tenant_id, customer_uuid), "Customer", customer_uuid).id
    rows, total = tx.users(tenant_id, page, customer_id=customer_id)
    tenant_uuid = found(tx.tenant_uuid(tenant_id), "Tenant", tenant_id)
    known: dict[int, Customer | None] = {}
    return [PlacedUser(one, tenant_uuid, _customer_uuid(tx, one, known)) for one in rows], total


def _placed(tx: ReadTx, user: User) -> PlacedUser:
    tenant_uuid = found(tx.tenant_uuid(user.tenant_id), "Tenant", user.tenant_id)
    return PlacedUser(user, tenant_uuid, _customer_uuid(tx, user, {}))


def _customer_uuid(tx: ReadTx, user: User, known: dict[int, Customer | None]) -> UUID | None:
    if user.customer_id is None:
        return None
    if user.customer_id not in known:
        known[user.customer_id] = tx.customer_by_id(user.customer_id)
    owner = known[user.customer_id]
    return owner.uuid if owner is not None else None


def _check_email_is_free(tx: ReadTx, email: str) -> None:
    if tx.user_by_name(email) is not None:
        raise InvalidArgument(f"User with email '{email}' already present in database!")


def _check_is_not_last(tx: Tx, stored: User) -> None:
    """Two nodes that each take one away must not leave none."""
    tx.lock_name(f"administrators of {stored.tenant_id}")
    if stored.authority in (TENANT_ADMIN, SYS_ADMIN) and tx.administrator_count(stored.tenant_id) < 2:
        raise InvalidArgument(LAST_ADMINISTRATOR)
