"""Users, the end of their logins, and API keys."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from cloud_core.model import ApiKey, ChangeKind, EndedLogin, Page, User, UserRole
from cloud_core.storage.changes import RecordsChanges
from cloud_core.storage.connected import Connected
from cloud_core.storage.schema import admin_user, api_key, ended_login, tenant

p = bindparam
_u, _e, _k = admin_user.c, ended_login.c, api_key.c


def _insert(table: Any) -> Any:  # Any: Table; its columns are not declared
    return insert(table).values({column.name: p(column.name) for column in table.columns if column.name != "id"})


# -- users ----------------------------------------------------------------------------------------

_USERS = select(
    _u.id, _u.uuid, _u.tenant_id, _u.username, _u.password_hash, _u.authority, _u.created_ms, _u.customer_id, _u.role,
    _u.generation, _u.document,
)  # fmt: skip
_USER_SORT = {
    "createdTime": _u.created_ms, "email": _u.username, "name": _u.username, "authority": _u.authority, "role": _u.role,
}  # fmt: skip
_BY_NAME = _USERS.where(_u.username == p("username"))
_BY_UUID = _USERS.where(_u.tenant_id == p("tenant_id"), _u.uuid == p("uuid"))
_ANYWHERE = _USERS.where(_u.uuid == p("uuid"))
_ALL = _USERS.where(_u.tenant_id == p("tenant_id"))
_ALL_OF_CUSTOMER = _ALL.where(_u.customer_id == p("customer_id"))
_is_administrator = or_(
    (_u.authority == "TENANT_ADMIN") & (_u.role == UserRole.ADMINISTRATOR.value), _u.authority == "SYS_ADMIN"
)
_COUNT_ADMINISTRATORS = (
    select(func.count()).select_from(admin_user).where(_u.tenant_id == p("tenant_id"), _is_administrator)
)
_INSERT_USER = _insert(admin_user)
_UPDATE_USER = (
    update(admin_user)
    .where(_u.id == p("b_id"))
    .values({name: p(name) for name in ("username", "password_hash", "role", "generation", "document")})
)
_DELETE_USER = delete(admin_user).where(_u.id == p("id"))

# -- ended logins ---------------------------------------------------------------------------------

_ENDED = select(_e.id, _e.subject, _e.generation, _e.until_ms).where(_e.id > p("after_id")).order_by(_e.id)
_INSERT_ENDED = _insert(ended_login)
_FORGET_ENDED = delete(ended_login).where(_e.subject == p("subject"))
_TRIM_ENDED = delete(ended_login).where(_e.until_ms < p("before_ms"))

# -- API keys -------------------------------------------------------------------------------------

_KEYS = select(
    _k.id, _k.uuid, _k.tenant_id, _k.name, _k.role, _k.hint, _k.created_ms, _k.created_by, _k.ends_ms, _k.used_ms
)
_KEY_SORT = {"createdTime": _k.created_ms, "name": _k.name, "role": _k.role, "lastUsedTime": _k.used_ms}
_KEY = _KEYS.where(_k.tenant_id == p("tenant_id"), _k.uuid == p("uuid"))
_KEY_BY_NAME = _KEYS.where(_k.tenant_id == p("tenant_id"), _k.name == p("name"))
_COUNT_KEYS = select(func.count()).select_from(api_key).where(_k.tenant_id == p("tenant_id"))
_IN_USE = (
    _KEYS.add_columns(_k.key_hash, tenant.c.uuid)
    .join(tenant, tenant.c.id == _k.tenant_id)
    .where(_k.id > p("after_id"))
    .order_by(_k.id)
)
_INSERT_KEY = _insert(api_key)
_MARK_USED = update(api_key).where(_k.id == p("b_id")).values(used_ms=p("used_ms"))
_DELETE_KEY = delete(api_key).where(_k.id == p("id"))


class ReadsPeople(Connected):
    """`ReadPeople` of the interface."""

    def user_by_name(self, username: str) -> User | None:
        return _user(self._row(self._once(_BY_NAME), username=username))

    def user(self, tenant_id: int, uuid: UUID) -> User | None:
        return _user(self._row(self._once(_BY_UUID), tenant_id=tenant_id, uuid=uuid.bytes))

    def user_by_uuid(self, uuid: UUID) -> User | None:
        return _user(self._row(self._once(_ANYWHERE), uuid=uuid.bytes))

    def users(
        self, tenant_id: int, page: Page, *, customer_id: int | None = None, authority: str = ""
    ) -> tuple[list[User], int]:
        wanted = _USERS.where(_u.tenant_id == tenant_id)
        if authority:
            wanted = wanted.where(_u.authority == authority)
        if customer_id is not None:
            wanted = wanted.where(_u.customer_id == customer_id)
        rows, total = self._page(wanted, page, _USER_SORT, [_u.username])
        return [one for row in rows if (one := _user(row))], total

    def all_users(self, tenant_id: int, *, customer_id: int | None = None) -> list[User]:
        if customer_id is None:
            rows = self._rows(self._once(_ALL), tenant_id=tenant_id)
        else:
            rows = self._rows(self._once(_ALL_OF_CUSTOMER), tenant_id=tenant_id, customer_id=customer_id)
        return [one for row in rows if (one := _user(row))]

    def administrator_count(self, tenant_id: int) -> int:
        count: int = self._row(self._once(_COUNT_ADMINISTRATORS), tenant_id=tenant_id)[0]
        return count

    def ended_logins(self, after_id: int) -> list[EndedLogin]:
        rows = self._rows(self._once(_ENDED), after_id=after_id)
        return [EndedLogin(UUID(bytes=bytes(row[1])), row[2], row[3], row[0]) for row in rows]

    def api_key(self, tenant_id: int, uuid: UUID) -> ApiKey | None:
        row = self._row(self._once(_KEY), tenant_id=tenant_id, uuid=uuid.bytes)
        return None if row is None else _key(row)

    def api_key_by_name(self, tenant_id: int, name: str) -> ApiKey | None:
        row = self._row(self._once(_KEY_BY_NAME), tenant_id=tenant_id, name=name)
        return None if row is None else _key(row)

    def api_keys(self, tenant_id: int, page: Page) -> tuple[list[ApiKey], int]:
        rows, total = self._page(_KEYS.where(_k.tenant_id == tenant_id), page, _KEY_SORT, [_k.name])
        return [_key(row) for row in rows], total

    def all_api_keys(self, tenant_id: int) -> list[ApiKey]:
        return [_key(row) for row in self._query(_KEYS.where(_k.tenant_id == tenant_id))]

    def api_key_count(self, tenant_id: int) -> int:
        count: int = self._row(self._once(_COUNT_KEYS), tenant_id=tenant_id)[0]
        return count

    def keys_in_use(self, after_id: int) -> list[tuple[ApiKey, bytes, UUID]]:
        rows = self._rows(self._once(_IN_USE), after_id=after_id)
        return [(_key(row), bytes(row[10]), UUID(bytes=bytes(row[11]))) for row in rows]


class WritesPeople(ReadsPeople, RecordsChanges):
    """`WritePeople` of the interface."""

    def insert_user(self, user: User) -> None:
        self._write(
            self._once(_INSERT_USER), uuid=user.uuid.bytes, tenant_id=user.tenant_id, username=user.username,
            password_hash=user.password_hash, authority=user.authority, created_ms=user.created_ms,
            customer_id=user.customer_id, role=user.role.value, generation=user.generation,
            document=_json(user.document),
        )  # fmt: skip

    def update_user(self, user: User) -> None:
        self._write(
            self._once(_UPDATE_USER), b_id=user.id, username=user.username, password_hash=user.password_hash,
            role=user.role.value, generation=user.generation, document=_json(user.document),
        )  # fmt: skip

    def delete_user(self, user_id: int) -> None:
        self._write(self._once(_DELETE_USER), id=user_id)

    def put_ended_login(self, ended: EndedLogin) -> None:
        self._write(self._once(_FORGET_ENDED), subject=ended.subject.bytes)
        self._write(
            self._once(_INSERT_ENDED), subject=ended.subject.bytes, generation=ended.generation, until_ms=ended.until_ms
        )
        self.record_change(ChangeKind.LOGINS)

    def trim_ended_logins(self, before_ms: int) -> None:
        self._write(self._once(_TRIM_ENDED), before_ms=before_ms)

    def insert_api_key(self, key: ApiKey, key_hash: bytes) -> None:
        self._write(
            self._once(_INSERT_KEY), uuid=key.uuid.bytes, tenant_id=key.tenant_id, name=key.name, role=key.role.value,
            key_hash=key_hash, hint=key.hint, created_ms=key.created_ms, created_by=key.created_by,
            ends_ms=key.ends_ms, used_ms=key.used_ms,
        )  # fmt: skip
        self.record_change(ChangeKind.LOGINS)

    def mark_api_key_used(self, key_id: int, *, used_ms: int) -> None:
        self._write(self._once(_MARK_USED), b_id=key_id, used_ms=used_ms)

    def delete_api_key(self, key_id: int) -> None:
        self._write(self._once(_DELETE_KEY), id=key_id)


def _user(row: Any) -> User | None:
    if row is None:
        return None
    return User(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], username=row[3], password_hash=row[4],
        authority=row[5], created_ms=row[6], customer_id=row[7], role=UserRole(row[8]), generation=row[9],
        document=msgspec.json.decode(row[10]),
    )  # fmt: skip


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], name=row[3], role=UserRole(row[4]), hint=row[5],
        created_ms=row[6], created_by=row[7], ends_ms=row[8], used_ms=row[9],
    )  # fmt: skip


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
