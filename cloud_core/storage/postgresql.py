"""`ReadTx` and `Tx` on PostgreSQL: round trips are what costs there, so a batch makes few of them.

What decisions ask is looked up ahead for the whole batch, what they insert is gathered and written as arrays, and
nothing waits for an answer that nobody reads. Decisions see none of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from sqlalchemy import Dialect

from cloud_core.model import DevicePresence
from cloud_core.storage import partitions, schema, tenants
from cloud_core.storage.arrays import bigints, byteas, texts
from cloud_core.storage.documents import encode_document, encode_value, merge_documents
from cloud_core.storage.gathered import ArrayStatement, Gathered, insertion
from cloud_core.storage.partitions import BUCKETS_OF_DAY
from cloud_core.storage.pipelined import PipelinedCursor
from cloud_core.storage.reading import SqlReadTx
from cloud_core.storage.schema import BUCKET_MS
from cloud_core.storage.sql import DROPPED_AT_ONCE, OutcomeUnknown, SqlTx
from cloud_core.storage.statements import Statement, Statements
from cloud_core.storage.vault import Vault
from shared.messages import Sample

Unit = tuple[Callable[..., Any] | None, tuple[Any, ...], Any]

_LAST = re.compile(r"= %s(::\w+)?\s*$")
FEW = 3  # so few decisions are not worth a look ahead
NUMBERS_AT_ONCE = 500
TRIES, SKIPPED = 20, 1_000  # rehearsals that bring nothing, decisions that are not rehearsed then
KINDS_KNOWN = 1_000
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


class LooksAhead(BaseException):
    """Ends a rehearsal: what the decision asks next has to be asked for real. Nothing catches it but the rehearsal."""


class Ahead:
    """One kind of look-up of a single row that can be made for many at once.

    `many` takes an array of the last parameter in the place of one; `told` is where a row of it says which.
    """

    def __init__(self, statement: Statement, told: int | None, extra: str = "") -> None:
        self.one = statement
        sql = statement.sql
        if told is None:  # the row does not say it: another column does
            sql = sql.replace("SELECT ", f"SELECT {extra} AS told, ", 1)
        self.many, found = _LAST.subn("= ANY(%s)", sql)
        assert found == 1, "the statement ends with the one parameter that differs"
        self.told = 0 if told is None else told
        self.is_extra = told is None
        self.wanted: dict[tuple[Any, ...], set[Any]] = {}  # the other parameters -> the last ones


class PostgresqlReadTx(SqlReadTx):
    """Look-ups, several in one transaction and their answers looked up together."""

    def __init__(
        self, connection: psycopg.Connection[Any], dialect: Dialect, statements: Statements, vault: Vault
    ) -> None:
        super().__init__(connection, dialect, statements, vault)
        self.cursor = self._cursor = PipelinedCursor(connection)
        self.cursor.before = self._before
        self._known: dict[tuple[int, tuple[Any, ...]], Any] = {}  # (statement, its parameters) -> row
        self._is_ahead = False
        self._has_asked = False  # in this rehearsal, for something that is kept
        self._worth: dict[Any, int] = {}  # of rehearsing a kind of decision, by its code
        self._ahead = {id(one.one): one for one in self._made_ahead()}
        self._kept_rows = {id(one) for one in (statements.profile_by_key, self._once(tenants._MAX_DEVICES))}

    def _made_ahead(self) -> list[Ahead]:
        return [
            Ahead(self._s.device_by_name, 6),
            Ahead(self._s.credentials_owner, None, "credentials.id_hash"),
            Ahead(self._s.login, None, "credentials.id_hash"),
            Ahead(self._s.credentials, 0),
        ]

    def foresee(self, batch: Sequence[Unit]) -> None:
        """Runs the batch's decisions up to where they would have to wait, then looks up for all of them at once."""
        units = [unit for unit in batch if unit[0] is not None and self._is_worth_it(_code(unit[0]))]
        if len(units) < FEW:
            return
        self._is_ahead = True
        try:
            for work, args, _ in units:
                assert work is not None
                self._rehearse(work, args)
        finally:
            self._is_ahead = False
        for one in self._ahead.values():
            for others, lasts in one.wanted.items():
                self._ask_together(one, others, lasts)
            one.wanted.clear()

    def _is_worth_it(self, kind: Any) -> bool:
        """Not after many in a row that brought nothing; from time to time it is tried again."""
        worth = self._worth.get(kind, TRIES)
        if worth <= 0:
            self._worth[kind] = worth = worth - 1 if worth > -SKIPPED else TRIES
        return worth > 0

    def _rehearse(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._has_asked = False
        try:
            work(self, *args)
        except LooksAhead:
            pass
        except psycopg.Error:
            raise
        except Exception:  # whatever is wrong with it, it says so when its turn comes
            pass
        kind = _code(work)
        if self._has_asked:
            self._worth.pop(kind, None)
        elif len(self._worth) < KINDS_KNOWN:
            self._worth[kind] = self._worth.get(kind, TRIES) - 1

    def _ask_together(self, one: Ahead, others: tuple[Any, ...], lasts: set[Any]) -> None:
        for last in lasts:
            self._known[id(one.one), (*others, last)] = None
        asked = list(lasts)
        self.cursor.send(one.many, (*others, _packed(asked)))
        for row in self.cursor.fetchall():
            key = (id(one.one), (*others, row[one.told]))
            self._known[key] = row[1:] if one.is_extra else row

    def _row(self, statement: Statement, **params: Any) -> Any:
        number = id(statement)
        ahead = self._ahead.get(number)
        if ahead is None and number not in self._kept_rows:
            return super()._row(statement, **params)
        values = statement.values(params)
        key = (number, values)
        if key in self._known:
            self._has_asked = True
            return self._known[key]
        if self._is_ahead:
            self._has_asked = True
            if ahead is not None:
                ahead.wanted.setdefault(values[:-1], set()).add(values[-1])
                raise LooksAhead
            self.cursor.send(statement.sql, values)
            row = self._known[key] = self.cursor.fetchone()
            return row
        row = self._known[key] = super()._row(statement, **params)
        return row

    def _before(self) -> None:
        """Ahead of each statement."""
        if self._is_ahead:
            raise LooksAhead

    def begin_reading(self) -> None:
        """One state of the database for all look-ups of a batch, which were all asked before it."""
        self._known.clear()
        self.cursor.send("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def end_reading(self) -> None:
        """Raises: psycopg.OperationalError for a lost connection."""
        self._known.clear()
        self.cursor.roll_back()

    def close(self) -> None:
        self.cursor.close()


class PostgresqlTx(PostgresqlReadTx, SqlTx):
    """A decision's view, and what the batch writes together."""

    def __init__(
        self, connection: psycopg.Connection[Any], dialect: Dialect, statements: Statements, vault: Vault
    ) -> None:
        super().__init__(connection, dialect, statements, vault)
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

    def begin(self) -> None:
        self.writes = 0
        self._known.clear()
        self.cursor.send("BEGIN")

    def foresee(self, batch: Sequence[Unit]) -> None:
        super().foresee(batch)
        self.writes = 0  # nothing was written

    def commit(self) -> None:
        self._flush_samples()
        self._write_gathered()
        self.cursor.send("COMMIT")
        try:
            self.cursor.sync()
        except psycopg.Error as error:
            if self.connection.closed:
                raise OutcomeUnknown from error
            raise

    def rollback(self) -> None:
        self._forget()
        for gathered in self._gathered.values():
            gathered.clear()
        self._known.clear()
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
            self._known.pop((id(self._s.credentials), (params["b_device_id"],)), None)
        elif statement is self._s.insert_credentials:
            self._known.pop((id(self._s.credentials_owner), (params["id_hash"],)), None)
            self._known.pop((id(self._s.credentials), (params["device_id"],)), None)
        gathered.add(values)

    def _row(self, statement: Statement, **params: Any) -> Any:
        if statement is not self._s.insert_device:
            return super()._row(statement, **params)
        if self._is_ahead:
            raise LooksAhead
        number = self._next_number()
        values = statement.values(params)
        self._known.pop((id(self._s.device_by_name), (params["tenant_id"], params["name"])), None)
        self._gathered[id(statement)].add((number, *values))
        return (number,)

    def _execute(self, statement: Statement, params: dict[str, Any]) -> None:
        if not statement.sql.startswith("SELECT") and id(statement) not in self._harmless:
            self._known.clear()  # whatever it changes may be among it
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
        by_device = {row.device_id: tuple(getattr(row, name) for name in _PRESENCE) for row in rows}
        if by_device:
            put = [by_device[device_id] for device_id in sorted(by_device)]
            self.cursor.send(_PUT_PRESENCE.sql, _PUT_PRESENCE.parameters(put), prepare=True)

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
        unknown = partitions.wanted(days, now) - self._known_days
        if unknown:
            partitions.make(self.cursor, unknown)
            self._known_days |= unknown

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


def _packed(values: list[Any]) -> bytes:
    """Parameters of one type."""
    if isinstance(values[0], int):
        return bigints(values)
    return byteas(values) if isinstance(values[0], bytes) else texts(values)


def _code(work: Callable[..., Any]) -> Any:
    """What tells one kind of decision from another, also where each is a closure of its own."""
    inner = getattr(work, "func", work)  # of a partial
    return getattr(inner, "__code__", inner)


def _by_key(item: tuple[int, Any]) -> int:
    return item[0]
