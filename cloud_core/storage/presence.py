"""Presence of devices, and how it shows as server attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, bindparam, case, delete, exists, func, select

from cloud_core.model import (
    ACTIVE,
    INACTIVITY_ALARM_TIME,
    INACTIVITY_TIMEOUT,
    LAST_ACTIVITY_TIME,
    LAST_CONNECT_TIME,
    LAST_DISCONNECT_TIME,
    AttributeEntry,
    DevicePresence,
    Scope,
    inactivity_timeout_ms,
)
from cloud_core.storage.changes import RecordsChanges
from cloud_core.storage.connected import Connected
from cloud_core.storage.documents import decode_value
from cloud_core.storage.schema import attribute, device, presence, ts_key

p = bindparam
c = presence.c
_TIMES = ("last_connect_ms", "last_disconnect_ms", "last_activity_ms", "inactivity_alarm_ms")
_NAMES = ("device_id", "is_active", *_TIMES)

_rows = select(*(c[name] for name in _NAMES))
_of_device = _rows.where(c.device_id == p("device_id"))
_active = _rows.where(c.is_active.is_(True)).order_by(c.last_activity_ms)
_silent = _active.where(c.last_activity_ms <= p("before_ms"))
_timeouts = (
    select(attribute.c.device_id, attribute.c.value)
    .join(ts_key, ts_key.c.id == attribute.c.key_id)
    .where(ts_key.c.name == p("name"), attribute.c.scope == p("scope"))
)
_delete = delete(presence).where(c.device_id == p("device_id"))


def _given(upsert: Any) -> Any:  # Any: the dialect's insert
    """Not for devices that are gone: what was gathered may come in after a deletion."""
    given: list[Any] = [
        p("device_id", type_=BigInteger),
        p("is_active", type_=Boolean),
        *(p(name, type_=BigInteger) for name in _TIMES),
    ]
    is_there = exists(select(device.c.id).where(device.c.id == p("b_device_id", type_=BigInteger)))
    return upsert(presence).from_select(_NAMES, select(*given).where(is_there))


def _put(upsert: Any) -> Any:  # Any: the dialect's insert
    put = _given(upsert)
    kept = {name: case((put.excluded[name] == 0, c[name]), else_=put.excluded[name]) for name in _TIMES}
    return put.on_conflict_do_update(index_elements=[c.device_id], set_={"is_active": put.excluded.is_active, **kept})


def _put_shared(upsert: Any) -> Any:  # Any: the dialect's insert
    """As `_put`, where other nodes write of the same devices: times never go back, and a device is inactive only
    where nobody has heard of it lately."""
    put = _given(upsert)
    new = put.excluded
    newer = func.max if upsert.__module__.startswith("sqlalchemy.dialects.sqlite") else func.greatest
    times: dict[str, Any] = {name: newer(new[name], c[name]) for name in _TIMES}
    is_refuted = ~new.is_active & (c.last_activity_ms > p("silent_since_ms", type_=BigInteger))
    is_active = case((is_refuted, c.is_active), else_=new.is_active)
    times["inactivity_alarm_ms"] = case((is_refuted, c.inactivity_alarm_ms), else_=times["inactivity_alarm_ms"])
    return put.on_conflict_do_update(index_elements=[c.device_id], set_={"is_active": is_active, **times})


class ReadsPresence(Connected):
    """`ReadPresence` of the interface."""

    def presence(self, device_id: int) -> DevicePresence | None:
        row = self._row(self._once(_of_device), device_id=device_id)
        return None if row is None else _presence(row)

    def active_devices(self) -> list[DevicePresence]:
        return [_presence(row) for row in self._rows(self._once(_active))]

    def silent_devices(self, before_ms: int) -> list[DevicePresence]:
        return [_presence(row) for row in self._rows(self._once(_silent), before_ms=before_ms)]

    def inactivity_timeouts(self) -> dict[int, int]:
        rows = self._rows(self._once(_timeouts), name=INACTIVITY_TIMEOUT, scope=int(Scope.SERVER))
        found = ((device_id, inactivity_timeout_ms(decode_value(value))) for device_id, value in rows)
        return {device_id: timeout_ms for device_id, timeout_ms in found if timeout_ms is not None}

    def presence_entries(self, device_id: int) -> list[AttributeEntry]:
        """Presence as server attributes; what never happened is absent."""
        known = self.presence(device_id)
        if known is None:
            return []
        times = {
            INACTIVITY_ALARM_TIME: known.inactivity_alarm_ms,
            LAST_ACTIVITY_TIME: known.last_activity_ms,
            LAST_CONNECT_TIME: known.last_connect_ms,
            LAST_DISCONNECT_TIME: known.last_disconnect_ms,
        }
        decided_ms = known.last_activity_ms if known.is_active else known.inactivity_alarm_ms
        return [
            AttributeEntry(ACTIVE, known.is_active, decided_ms),
            *(AttributeEntry(name, at_ms, at_ms) for name, at_ms in times.items() if at_ms),
        ]


class WritesPresence(ReadsPresence, RecordsChanges):
    """`WritePresence` of the interface."""

    def put_presence(self, rows: Sequence[DevicePresence]) -> None:
        is_shared = self.node is not None
        statement = self._once(_put_shared if is_shared else _put)
        put = []
        for row in sorted(rows, key=_device_id):  # neighbours share pages; nodes lock in one order
            members = {name: getattr(row, name) for name in _NAMES}
            if is_shared:
                members["silent_since_ms"] = row.silent_since_ms
            put.append(statement.values(members | {"b_device_id": row.device_id}))
        self.writes += 1
        self._cursor.executemany(statement.sql, put)

    def delete_presence(self, device_id: int) -> None:
        """For the deletion of a device: there is no foreign key that would do it."""
        self._write(self._once(_delete), device_id=device_id)


def _device_id(row: DevicePresence) -> int:
    return row.device_id


def _presence(row: Any) -> DevicePresence:
    return DevicePresence(**dict(zip(_NAMES, row, strict=True)) | {"is_active": bool(row[1])})
