"""Sub-devices, aliases, tombstones and relations."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import bindparam as p
from sqlalchemy import delete, or_, select, update

from cloud_core.model import Relation, SubDevice
from cloud_core.storage.connected import Connected
from cloud_core.storage.schema import device, device_alias, relation, sub_device, tombstone

_SUB_DEVICE = select(
    sub_device.c.device_id, sub_device.c.gateway_id, sub_device.c.connected_ms,
    sub_device.c.is_created_by_gateway, sub_device.c.is_type_guessed,
).where(sub_device.c.device_id == p("device_id"))  # fmt: skip
_ALIAS = select(device_alias.c.device_id).where(
    device_alias.c.gateway_id == p("gateway_id"), device_alias.c.name == p("name")
)
_DELETE_ALIAS = delete(device_alias).where(
    device_alias.c.gateway_id == p("gateway_id"), device_alias.c.name == p("name")
)
_DELETE_ALIASES_OF = delete(device_alias).where(
    device_alias.c.gateway_id == p("gateway_id"), device_alias.c.device_id == p("device_id")
)
_ALIASES_OF = select(device_alias.c.name, device_alias.c.device_id).where(device_alias.c.gateway_id == p("gateway_id"))
_MOVE_SUB_DEVICES = (
    update(sub_device).where(sub_device.c.gateway_id == p("b_gateway_id")).values(gateway_id=p("gateway_id"))
)
_TOMBSTONE = select(tombstone.c.deleted_ms).where(
    tombstone.c.tenant_id == p("tenant_id"), tombstone.c.name == p("name")
)
_DELETE_TOMBSTONE = delete(tombstone).where(tombstone.c.tenant_id == p("tenant_id"), tombstone.c.name == p("name"))
_TRIM_TOMBSTONES = delete(tombstone).where(tombstone.c.deleted_ms < p("before_ms"))
_RELATION_COLUMNS = (
    relation.c.tenant_id, relation.c.from_type, relation.c.from_uuid, relation.c.to_type, relation.c.to_uuid,
    relation.c.type, relation.c.type_group, relation.c.document,
)  # fmt: skip
_DELETE_RELATION = delete(relation).where(
    relation.c.tenant_id == p("tenant_id"), relation.c.from_uuid == p("from_uuid"),
    relation.c.to_uuid == p("to_uuid"), relation.c.type == p("type"), relation.c.type_group == p("type_group"),
)  # fmt: skip
_DELETE_RELATIONS_OF = delete(relation).where(
    relation.c.tenant_id == p("tenant_id"), or_(relation.c.from_uuid == p("uuid"), relation.c.to_uuid == p("uuid"))
)
_ENTITY_OF = select(device.c.tenant_id, device.c.uuid).where(device.c.id == p("id"))


def _put_sub_device(upsert: Any) -> Any:  # Any: the dialect's `insert`
    rest = ("gateway_id", "connected_ms", "is_created_by_gateway", "is_type_guessed")
    return _put(upsert, sub_device, ("device_id",), rest)


def _put_alias(upsert: Any) -> Any:
    return _put(upsert, device_alias, ("gateway_id", "name"), ("device_id",))


def _put_tombstone(upsert: Any) -> Any:
    return _put(upsert, tombstone, ("tenant_id", "name"), ("deleted_ms",))


def _put_relation(upsert: Any) -> Any:
    key = ("tenant_id", "from_uuid", "to_uuid", "type", "type_group")
    return _put(upsert, relation, key, ("from_type", "to_type", "document"))


def _put(upsert: Any, table: Any, key: tuple[str, ...], rest: tuple[str, ...]) -> Any:
    """Inserts a row, or replaces what is not its key."""
    insert = upsert(table).values({name: p(name) for name in (*key, *rest)})
    return insert.on_conflict_do_update(
        index_elements=[table.c[name] for name in key], set_={name: insert.excluded[name] for name in rest}
    )


class ReadsGateways(Connected):
    """`ReadGateways` of the interface."""

    def sub_device(self, device_id: int) -> SubDevice | None:
        row = self._row(self._once(_SUB_DEVICE), device_id=device_id)
        if row is None:
            return None
        return SubDevice(
            device_id=row[0], gateway_id=row[1], connected_ms=row[2], is_created_by_gateway=bool(row[3]),
            is_type_guessed=bool(row[4]),
        )  # fmt: skip

    def alias(self, gateway_id: int, name: str) -> int | None:
        row = self._row(self._once(_ALIAS), gateway_id=gateway_id, name=name)
        return None if row is None else row[0]

    def tombstone(self, tenant_id: int, name: str) -> int | None:
        row = self._row(self._once(_TOMBSTONE), tenant_id=tenant_id, name=name)
        return None if row is None else row[0]

    def relations(
        self, tenant_id: int, *, from_uuid: UUID | None = None, to_uuid: UUID | None = None, type_: str = "",
        type_group: str = "", limit: int | None = None,
    ) -> list[Relation]:  # fmt: skip
        c = relation.c
        wanted = select(*_RELATION_COLUMNS).where(c.tenant_id == tenant_id)
        if from_uuid is not None:
            wanted = wanted.where(c.from_uuid == from_uuid.bytes)
        if to_uuid is not None:
            wanted = wanted.where(c.to_uuid == to_uuid.bytes)
        if type_:
            wanted = wanted.where(c.type == type_)
        if type_group:
            wanted = wanted.where(c.type_group == type_group)
        rows = self._query(wanted.order_by(c.from_uuid, c.to_uuid, c.type, c.type_group).limit(limit))
        return [_relation(row) for row in rows]


class WritesGateways(ReadsGateways):
    """`WriteGateways` of the interface."""

    def put_sub_device(self, sub_device: SubDevice) -> None:
        self._write(
            self._once(_put_sub_device), device_id=sub_device.device_id, gateway_id=sub_device.gateway_id,
            connected_ms=sub_device.connected_ms, is_created_by_gateway=sub_device.is_created_by_gateway,
            is_type_guessed=sub_device.is_type_guessed,
        )  # fmt: skip

    def move_sub_devices(self, from_gateway_id: int, to_gateway_id: int) -> None:
        self._write(self._once(_MOVE_SUB_DEVICES), b_gateway_id=from_gateway_id, gateway_id=to_gateway_id)
        for name, device_id in self._rows(self._once(_ALIASES_OF), gateway_id=from_gateway_id):
            self.put_alias(to_gateway_id, name, device_id)

    def put_alias(self, gateway_id: int, name: str, device_id: int) -> None:
        self._write(self._once(_put_alias), gateway_id=gateway_id, name=name, device_id=device_id)

    def delete_alias(self, gateway_id: int, name: str) -> None:
        self._write(self._once(_DELETE_ALIAS), gateway_id=gateway_id, name=name)

    def delete_aliases_of(self, gateway_id: int, device_id: int) -> None:
        self._write(self._once(_DELETE_ALIASES_OF), gateway_id=gateway_id, device_id=device_id)

    def put_tombstone(self, tenant_id: int, name: str, *, deleted_ms: int) -> None:
        self._write(self._once(_put_tombstone), tenant_id=tenant_id, name=name, deleted_ms=deleted_ms)

    def delete_tombstone(self, tenant_id: int, name: str) -> None:
        self._write(self._once(_DELETE_TOMBSTONE), tenant_id=tenant_id, name=name)

    def trim_tombstones(self, before_ms: int) -> None:
        self._write(self._once(_TRIM_TOMBSTONES), before_ms=before_ms)

    def put_relation(self, relation: Relation) -> None:
        self._write(
            self._once(_put_relation), tenant_id=relation.tenant_id, from_type=relation.from_type,
            from_uuid=relation.from_uuid.bytes, to_type=relation.to_type, to_uuid=relation.to_uuid.bytes,
            type=relation.type, type_group=relation.type_group,
            document=msgspec.json.encode(relation.additional_info).decode(),
        )  # fmt: skip

    def delete_relation(self, relation: Relation) -> bool:
        self._write(
            self._once(_DELETE_RELATION), tenant_id=relation.tenant_id, from_uuid=relation.from_uuid.bytes,
            to_uuid=relation.to_uuid.bytes, type=relation.type, type_group=relation.type_group,
        )  # fmt: skip
        return bool(self._cursor.rowcount)

    def delete_relations_of(self, tenant_id: int, uuid: UUID) -> None:
        self._write(self._once(_DELETE_RELATIONS_OF), tenant_id=tenant_id, uuid=uuid.bytes)

    def _clear_relations(self, device_id: int) -> None:
        """For `delete_device`: relations name their ends by uuid and have no foreign keys."""
        row = self._row(self._once(_ENTITY_OF), id=device_id)
        if row is not None:
            self.delete_relations_of(row[0], UUID(bytes=bytes(row[1])))


def _relation(row: Any) -> Relation:
    return Relation(
        tenant_id=row[0], from_type=row[1], from_uuid=UUID(bytes=bytes(row[2])), to_type=row[3],
        to_uuid=UUID(bytes=bytes(row[4])), type=row[5], type_group=row[6],
        additional_info=msgspec.json.decode(row[7]),
    )  # fmt: skip
