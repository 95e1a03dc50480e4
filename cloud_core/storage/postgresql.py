"""`ReadTx` and `Tx` on PostgreSQL: round trips are what costs there, so a batch makes few of them.

What decisions ask is looked up ahead for the whole batch, what they insert is gathered and written as arrays, and
nothing waits for an answer that nobody reads. Decisions see none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from sqlalchemy import Dialect

from cloud_core.model import DevicePresence
from cloud_core.storage import partitions, schema
from cloud_core.storage.documents import encode_document, encode_value, merge_documents
from cloud_core.storage.gathered import ArrayStatement, Gathered, insertion
from cloud_core.storage.partitions import BUCKETS_OF_DAY
from cloud_core.storage.postgresql_reading import LooksAhead, PostgresqlReadTx, Unit
from cloud_core.storage.schema import BUCKET_MS
from cloud_core.storage.sql import DROPPED_AT_ONCE, OutcomeUnknown, SqlTx
from cloud_core.storage.statements import Statement, Statements
from cloud_core.storage.vault import Vault
from shared.messages import Sample

NUMBERS_AT_ONCE = 500
PARTITIONS_AT_ONCE = 24

_TELEMETRY = ("bucket", "device_id", "ts", "document")
_PUT = insertion(schema.telemetry, _TELEMETRY, "ON CONFLICT DO NOTHING")
_PUT_BUCKETS = insertion(schema.telemetry_bucket, ("bucket",), "ON CONFLICT DO NOTHING")
_PUT_LATEST = insertion(
    schema.latest, ("device_id", "key_id", "ts", "value"),
    "ON CONFLICT (device_id, key_id) DO UPDATE SET ts = excluded.ts, value = excluded.value"
    " WHERE excluded.ts >= latest.ts",
)  # fmt: skip
_THESE = "t.bucket = r.bucket AND t.device_id = r.device_id AND t.ts = r.ts"
_LOCK = ArrayStatement(
    schema.telemetry, _TELEMETRY[:3],
    f"SELECT t.bucket, t.device_id, t.ts, t.document FROM {{rows}} JOIN telemetry t ON {_THESE}"
    " WHERE t.bucket = ANY(%s::bigint[]) ORDER BY t.bucket, t.device_id, t.ts FOR UPDATE OF t",
)  # fmt: skip
_MERGE = ArrayStatement(
    schema.telemetry, _TELEMETRY,
    f"UPDATE telemetry AS t SET document = r.document FROM {{rows}} WHERE {_THESE} AND t.bucket = ANY(%s::bigint[])",
)  # fmt: skip
_CONFIRM = ArrayStatement(
    schema.credentials, ("device_id", "confirmed_ms"),
    "UPDATE credentials AS c SET confirmed_ms = r.confirmed_ms FROM {rows}"
    " WHERE c.device_id = r.device_id AND c.confirmed_ms IS NULL",
)  # fmt: skip
_NUMBERS = "SELECT nextval(pg_get_serial_sequence('device', 'id')) FROM generate_series(1, %s)"
_TIMES = ("last_connect_ms", "last_disconnect_ms", "last_activity_ms", "inactivity_alarm_ms")
_PRESENCE = ("device_id", "is_active", *_TIMES)
_PUT_PRESENCE = ArrayStatement(
    schema.presence, _PRESENCE,  # not for devices that are gone
    f"INSERT INTO presence ({', '.join(_PRESENCE)}) SELECT r.* FROM {{rows}} JOIN device ON device.id = r.device_id"
    " ON CONFLICT (device_id) DO UPDATE SET is_active = excluded.is_active, "
    + ", ".join(f"{one} = CASE excluded.{one} WHEN 0 THEN presence.{one} ELSE excluded.{one} END" for one in _TIMES),
)  # fmt: skip
# Where other nodes write of the same devices (`presence._put_shared` says the rule): made, locked in order, changed.
_SHARED = (*_PRESENCE, "silent_since_ms")
_MAKE_PRESENCE = ArrayStatement(
    schema.presence, _PRESENCE[:1],
    f"INSERT INTO presence ({', '.join(_PRESENCE)}) SELECT r.device_id, false, 0, 0, 0, 0 FROM {{rows}}"
    " JOIN device ON device.id = r.device_id ORDER BY r.device_id ON CONFLICT DO NOTHING",
)  # fmt: skip
_LOCK_PRESENCE = ArrayStatement(
    schema.presence, _PRESENCE[:1],
    "SELECT p.device_id FROM {rows} JOIN presence p ON p.device_id = r.device_id ORDER BY p.device_id FOR UPDATE OF p",
)  # fmt: skip
_REFUTED = "NOT r.is_active AND p.last_activity_ms > r.silent_since_ms"
_CHANGE_PRESENCE = ArrayStatement(
    schema.presence, _SHARED,
    f"UPDATE presence AS p SET is_active = CASE WHEN {_REFUTED} THEN p.is_active ELSE r.is_active END, "
    + ", ".join(f"{one} = greatest(p.{one}, r.{one})" for one in _TIMES[:3])
    + f", inactivity_alarm_ms = CASE WHEN {_REFUTED} THEN p.inactivity_alarm_ms"
    " ELSE greatest(p.inactivity_alarm_ms, r.inactivity_alarm_ms) END"
    " FROM {rows} WHERE p.device_id = r.device_id",
    types={"silent_since_ms": schema.presence.c.last_activity_ms.type},
)  # fmt: skip


class PostgresqlTx(PostgresqlReadTx, SqlTx):
    """A decision's view, and what the batch writes together."""

    def __init__(
        self, connection: psycopg.Connection[Any], dialect: Dialect, statements: Statements, vault: Vault,
        node: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(connection, dialect, statements, vault, node)
        self._device_numbers: list[int] = []  # of devices to come, ours alone; the smallest last
        self._numbers_at_once = 10
        self._known_days: set[int] = set()
        s = statements
        # In the order of their foreign keys.
        self._gathered = {
            id(s.insert_device): _gathering(schema.device, ("id", *s.insert_device.names), order=("tenant_id", "name")),
            id(s.insert_credentials): _gathering(schema.credentials, s.insert_credentials.names, order=("id_hash",)),
            id(s.put_attribute): _gathering(
                schema.attribute, ("device_id", "scope", "key_id", "value", "updated_ms"),
                "ON CONFLICT (device_id, scope, key_id)"
                " DO UPDATE SET value = excluded.value, updated_ms = excluded.updated_ms",
                key=("device_id", "scope", "key_id"), order=("device_id", "scope", "key_id"),
            ),
            id(s.mark_confirmed): Gathered(_CONFIRM, key=(0,), order=(0,)),
            id(s.log_attempt): _gathering(schema.provisioning_log, s.log_attempt.names),
        }  # fmt: skip
        self._harmless = {id(s.insert_key), id(s.delete_attribute)}

    # -- the transaction --------------------------------------------------------------------------

    def _begin(self) -> None:
        self._looked_up.clear()
        self.cursor.send("BEGIN")

    def foresee(self, batch: Sequence[Unit]) -> None:
        super().foresee(batch)
        self.writes = 0  # nothing was written
        self._begin_changes()

    def _commit(self) -> None:
        self._write_gathered()
        try:
            done = self.cursor.send("COMMIT")
            self.cursor.sync()
        except psycopg.Error as error:
            if self.connection.closed:
                raise OutcomeUnknown from error
            raise
        if done.statusmessage != "COMMIT":  # a transaction that has failed answers ROLLBACK, and no error
            raise psycopg.InternalError("the transaction had failed before")

    def _roll_back(self) -> None:
        for gathered in self._gathered.values():
            gathered.clear()
        self._looked_up.clear()
        self._known_days.clear()
        self.cursor.roll_back()

    # -- rows that are gathered -------------------------------------------------------------------

    def _before(self) -> None:
        super()._before()
        self._write_gathered()

    def _write_gathered(self) -> None:
        for gathered in self._gathered.values():
            gathered.send(self.cursor)

    def _write(self, statement: Statement, **params: Any) -> None:
        gathered = self._gathered.get(id(statement))
        if gathered is None:
            super()._write(statement, **params)
            return
        if self._is_ahead:
            raise LooksAhead
        self.writes += 1
        values = statement.values(params)
        if statement is self._s.mark_confirmed:
            values = (params["b_device_id"], params["confirmed_ms"])
            self._looked_up.pop((id(self._s.credentials), (params["b_device_id"],)), None)
        elif statement is self._s.insert_credentials:
            self._looked_up.pop((id(self._s.credentials_owner), (params["id_hash"],)), None)
            self._looked_up.pop((id(self._s.credentials), (params["device_id"],)), None)
        gathered.add(values)

    def _row(self, statement: Statement, **params: Any) -> Any:
        if statement is not self._s.insert_device:
            return super()._row(statement, **params)
        if self._is_ahead:
            raise LooksAhead
        number = self._next_number()
        values = statement.values(params)
        self._looked_up.pop((id(self._s.device_by_name), (params["tenant_id"], params["name"])), None)
        self._gathered[id(statement)].add((number, *values))
        return (number,)

    def _execute(self, statement: Statement, params: dict[str, Any]) -> None:
        if not statement.sql.startswith("SELECT") and id(statement) not in self._harmless:
            self._looked_up.clear()  # whatever it changes may be among it
        super()._execute(statement, params)

    def _next_number(self) -> int:
        """A device's, of a block of the sequence: no other node has it, and no round trip is needed for each."""
        if not self._device_numbers:
            self.cursor.send(_NUMBERS, (self._numbers_at_once,))
            self._device_numbers = [row[0] for row in reversed(self.cursor.fetchall())]
            self._numbers_at_once = min(NUMBERS_AT_ONCE, self._numbers_at_once * 2)
        return self._device_numbers.pop()

    def put_presence(self, rows: Sequence[DevicePresence]) -> None:
        self.writes += 1
        self._before()
        by_device = {row.device_id: tuple(getattr(row, name) for name in _SHARED) for row in rows}
        put = [by_device[device_id] for device_id in sorted(by_device)]
        if not put:
            return
        if self.node is None:
            self._send(_PUT_PRESENCE, [row[:-1] for row in put])
            return
        numbers = [row[:1] for row in put]
        self._send(_MAKE_PRESENCE, numbers)
        self._send(_LOCK_PRESENCE, numbers)
        self._send(_CHANGE_PRESENCE, put)

    def _send(self, statement: ArrayStatement, rows: Sequence[Sequence[Any]]) -> None:
        self.cursor.send(statement.sql, statement.parameters(rows), prepare=True)

    # -- samples ----------------------------------------------------------------------------------

    def append_samples(self, device_id: int, samples: Sequence[Sample]) -> None:
        if self._is_ahead:
            raise LooksAhead
        super().append_samples(device_id, samples)

    def _flush_samples(self) -> None:
        """The table first, which `partitions.drop` waits for, then the list of its buckets."""
        if self._is_ahead:
            raise LooksAhead
        rows = self._rows_to_put
        if not rows:
            return
        self._make_partitions({place[0] // BUCKETS_OF_DAY for place in rows})
        put = [(*place, encode_document(rows[place])) for place in sorted(rows)]
        newest = [
            (device_id, key_id, ts, encode_value(value))
            for device_id, keys in sorted(self._latest_to_put.items())
            for key_id, (ts, value) in sorted(keys.items(), key=_by_key)
        ]
        inserted = self.cursor.send(_PUT.sql, _PUT.parameters(put), prepare=True)
        buckets = sorted({(place[0],) for place in rows})
        self.cursor.send(_PUT_BUCKETS.sql, _PUT_BUCKETS.parameters(buckets), prepare=True)
        if newest:
            self.cursor.send(_PUT_LATEST.sql, _PUT_LATEST.parameters(newest), prepare=True)
        self.cursor.sync()
        if inserted.rowcount < len(put):
            self._merge_existing(put)
        rows.clear()
        self._latest_to_put.clear()

    def _make_partitions(self, days: set[int]) -> None:
        now = partitions.today()
        unknown = sorted(partitions.wanted(days, now) - self._known_days)[-PARTITIONS_AT_ONCE:]
        if unknown:  # the rest of a long backlog goes to the default partition, until their day is asked for again
            partitions.make(self.cursor, unknown)
            self._known_days.update(unknown)

    def _merge_existing(self, rows: list[tuple[int, int, int, bytes]]) -> None:
        """PostgreSQL has no function that merges documents: lock those of before, merge here, write back."""
        given = {row[:3]: row[3] for row in rows}
        buckets = list({row[0] for row in rows})
        places = [row[:3] for row in rows]
        self.cursor.send(_LOCK.sql, [*_LOCK.parameters(places), buckets], prepare=False)
        merged = []
        for *place, stored in self.cursor.fetchall():
            document = merge_documents(stored, given[tuple(place)])
            if document != stored:
                merged.append((*place, document))
        if merged:
            self.cursor.send(_MERGE.sql, [*_MERGE.parameters(merged), buckets], prepare=False)

    def drop_buckets(self, before_ms: int) -> int:
        """By whole days; rows that lie in no day's partition by their buckets."""
        limit = before_ms // BUCKET_MS
        old = [row[0] for row in self._rows(self._s.buckets, first=-(2**62), last=limit - 1)]
        there = partitions.existing(self.cursor)
        ended = set(sorted(day for day in there if day < limit // BUCKETS_OF_DAY)[:PARTITIONS_AT_ONCE])
        alone = [bucket for bucket in old if bucket // BUCKETS_OF_DAY not in there][:DROPPED_AT_ONCE]
        gone = [bucket for bucket in old if bucket // BUCKETS_OF_DAY in ended] + alone
        if not gone and not ended:
            return 0
        self.writes += 1
        if not partitions.drop(self.cursor, ended, gone):
            return 0
        self._known_days -= ended
        return len(gone)


def _gathering(
    table: Any, names: Sequence[str], conflict: str = "", *, key: Sequence[str] = (), order: Sequence[str] = ()
) -> Gathered:
    places = {name: place for place, name in enumerate(names)}
    return Gathered(
        insertion(table, names, conflict),
        key=[places[name] for name in key] or None,
        order=[places[name] for name in order] or None,
    )


def _by_key(item: tuple[int, Any]) -> int:
    return item[0]
