"""Users."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, insert, select, update

from cloud_core.model import User, UserRole
from cloud_core.storage.connected import Connected
from cloud_core.storage.schema import admin_user

p = bindparam
_u = admin_user.c
_USERS = select(
    _u.id, _u.uuid, _u.tenant_id, _u.username, _u.password_hash, _u.authority, _u.created_ms, _u.customer_id, _u.role,
    _u.generation, _u.document,
)  # fmt: skip
_BY_NAME = _USERS.where(_u.username == p("username"))
_INSERT_USER = insert(admin_user).values(
    {
        name: p(name)
        for name in (
            "uuid", "tenant_id", "username", "password_hash", "authority", "created_ms", "customer_id", "role",
            "generation", "document",
        )
    }
)  # fmt: skip
_UPDATE_PASSWORD = update(admin_user).where(_u.username == p("b_username")).values(password_hash=p("password_hash"))


class ReadsPeople(Connected):
    """`ReadPeople` of the interface."""

    def user_by_name(self, username: str) -> User | None:
        return _user(self._row(self._once(_BY_NAME), username=username))


class WritesPeople(ReadsPeople):
    """`WritePeople` of the interface."""

    def insert_user(self, user: User) -> None:
        self._write(
            self._once(_INSERT_USER), uuid=user.uuid.bytes, tenant_id=user.tenant_id, username=user.username,
            password_hash=user.password_hash, authority=user.authority, created_ms=user.created_ms,
            customer_id=user.customer_id, role=user.role.value, generation=user.generation,
            document=_json(user.document),
        )  # fmt: skip

    def update_password(self, username: str, password_hash: str) -> None:
        self._write(self._once(_UPDATE_PASSWORD), b_username=username, password_hash=password_hash)


def _user(row: Any) -> User | None:
    if row is None:
        return None
    return User(
        id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], username=row[3], password_hash=row[4],
        authority=row[5], created_ms=row[6], customer_id=row[7], role=UserRole(row[8]), generation=row[9],
        document=msgspec.json.decode(row[10]),
    )  # fmt: skip


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
