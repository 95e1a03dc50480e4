"""Provision keys beside those of profiles, and the use of secrets."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import BigInteger, LargeBinary, bindparam, delete, exists, func, insert, or_, select, update

from cloud_core.model import DeviceProfile, KeyRules, ProvisionKey, SecretUse
from cloud_core.storage.connected import Connected
from cloud_core.storage.schema import device_profile, provision_key, secret_use
from cloud_core.storage.statements import profile_rows

p = bindparam
_k, _u = provision_key.c, secret_use.c
_CONTEXT = b"provision key"
_COLUMNS = (
    _k.id, _k.uuid, _k.tenant_id, _k.profile_id, _k.name, _k.sealed, _k.rules, _k.used, _k.is_enabled, _k.created_ms,
)  # fmt: skip
_ROWS = select(*_COLUMNS)
_BY_KEY = _ROWS.where(_k.key_hash == p("key_hash"))
_PROFILE = profile_rows.where(device_profile.c.id == p("id"))
_OF_PROFILE = _ROWS.where(_k.profile_id == p("profile_id")).order_by(_k.id)
_BY_UUID = _ROWS.where(_k.profile_id == p("profile_id"), _k.uuid == p("uuid"))
_INSERT = insert(provision_key).values({one.name: p(one.name) for one in provision_key.columns if one.name != "id"})
_UPDATE = update(provision_key).where(_k.id == p("b_id")).values(rules=p("rules"), is_enabled=p("is_enabled"))
_DELETE = delete(provision_key).where(_k.id == p("id"))
_LOCK_USE = select(_k.used).where(_k.id == p("id")).with_for_update()  # SQLite has one writer, and ignores it
_COUNT_USE = update(provision_key).where(_k.id == p("b_id")).values(used=_k.used + 1)
_USES = select(_u.tag, _u.attempts, _u.last_ms).where(_u.profile_id == p("profile_id"))
_FORGET_USE = delete(secret_use).where(_u.profile_id == p("profile_id"), _u.tag == p("tag"))
_USE = ("profile_id", "tag", "attempts", "last_ms")


def _add_use(upsert: Any) -> Any:  # Any: the insert of either dialect
    """Not for profiles that are gone: what was gathered may come in after a deletion."""
    given: list[Any] = [
        p("profile_id", type_=BigInteger), p("tag", type_=LargeBinary), p("attempts", type_=BigInteger),
        p("last_ms", type_=BigInteger),
    ]  # fmt: skip
    is_there = exists(select(device_profile.c.id).where(device_profile.c.id == p("b_profile_id", type_=BigInteger)))
    put = upsert(secret_use).from_select(_USE, select(*given).where(is_there))
    latest = func.max if upsert.__module__.startswith("sqlalchemy.dialects.sqlite") else func.greatest
    added = {"attempts": _u.attempts + put.excluded.attempts, "last_ms": latest(_u.last_ms, put.excluded.last_ms)}
    return put.on_conflict_do_update(index_elements=[_u.profile_id, _u.tag], set_=added)


class ReadsKeys(Connected):
    """`ReadKeys` of the interface."""

    def provision_key(self, key: str) -> tuple[ProvisionKey, DeviceProfile] | None:
        row = self._row(self._once(_BY_KEY), key_hash=self._vault.hash_id(key))
        if row is None:
            return None
        return self._key(row), self._profile_of(self._row(self._once(_PROFILE), id=row[3]))

    def _profile_of(self, row: Any) -> DeviceProfile:
        raise NotImplementedError

    def provision_keys(self, profile_id: int) -> list[ProvisionKey]:
        return [self._key(row) for row in self._rows(self._once(_OF_PROFILE), profile_id=profile_id)]

    def provision_key_counts(self, profile_ids: Sequence[int]) -> dict[int, int]:
        if not profile_ids:
            return {}
        counted = select(_k.profile_id, func.count()).where(or_(*(_k.profile_id == one for one in profile_ids)))
        return {int(row[0]): int(row[1]) for row in self._query(counted.group_by(_k.profile_id))}

    def provision_key_by_uuid(self, profile_id: int, uuid: UUID) -> ProvisionKey | None:
        row = self._row(self._once(_BY_UUID), profile_id=profile_id, uuid=uuid.bytes)
        return None if row is None else self._key(row)

    def secret_uses(self, profile_id: int) -> dict[bytes, SecretUse]:
        rows = self._rows(self._once(_USES), profile_id=profile_id)
        return {bytes(tag): SecretUse(attempts, last_ms) for tag, attempts, last_ms in rows}

    def _key(self, row: Any) -> ProvisionKey:
        key, secret = msgspec.msgpack.decode(self._vault.unseal(bytes(row[5]), context=_CONTEXT), type=tuple[str, str])
        return ProvisionKey(
            id=row[0], uuid=UUID(bytes=bytes(row[1])), tenant_id=row[2], profile_id=row[3], name=row[4], key=key,
            secret=secret, rules=msgspec.json.decode(row[6], type=KeyRules), used=row[7], is_enabled=bool(row[8]),
            created_ms=row[9],
        )  # fmt: skip


class WritesKeys(ReadsKeys):
    """`WriteKeys` of the interface."""

    def insert_provision_key(self, key: ProvisionKey) -> None:
        self._write(
            self._once(_INSERT), uuid=key.uuid.bytes, tenant_id=key.tenant_id, profile_id=key.profile_id,
            name=key.name, key_hash=self._vault.hash_id(key.key), used=0, is_enabled=key.is_enabled,
            sealed=self._vault.seal(msgspec.msgpack.encode((key.key, key.secret)), context=_CONTEXT),
            rules=msgspec.json.encode(key.rules).decode(), created_ms=key.created_ms,
        )  # fmt: skip

    def update_provision_key(self, key: ProvisionKey) -> None:
        rules = msgspec.json.encode(key.rules).decode()
        self._write(self._once(_UPDATE), b_id=key.id, rules=rules, is_enabled=key.is_enabled)

    def delete_provision_key(self, key_id: int) -> None:
        self._write(self._once(_DELETE), id=key_id)

    def lock_key_use(self, key_id: int) -> int | None:
        row = self._row(self._once(_LOCK_USE), id=key_id)
        return None if row is None else int(row[0])

    def count_key_use(self, key_id: int) -> None:
        self._write(self._once(_COUNT_USE), b_id=key_id)

    def add_secret_uses(self, rows: Sequence[tuple[int, bytes, SecretUse]]) -> None:
        statement = self._once(_add_use)
        for profile_id, tag, use in sorted(rows, key=itemgetter(0, 1)):  # nodes lock in one order
            self._write(
                statement, profile_id=profile_id, b_profile_id=profile_id, tag=tag, attempts=use.attempts,
                last_ms=use.last_ms,
            )  # fmt: skip

    def keep_secret_uses(self, profile_id: int, tags: Sequence[bytes]) -> None:
        for tag in self.secret_uses(profile_id):
            if tag not in tags:
                self._write(self._once(_FORGET_USE), profile_id=profile_id, tag=tag)
