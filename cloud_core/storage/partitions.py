"""`telemetry` on PostgreSQL: a partition for each day, made when its first rows come, dropped as a whole.

Rows of days far from today, which clocks that are wrong send, lie in the default partition: each day of them would
cost a table. A day that comes near takes its rows out of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from psycopg.errors import LockNotAvailable

from cloud_core.storage import arrays
from cloud_core.storage.schema import BUCKET_MS

BUCKETS_OF_DAY = 86_400_000 // BUCKET_MS
PAST_DAYS, FUTURE_DAYS = 400, 2
LOCK = 7361746573  # of `pg_advisory_xact_lock`: one node makes a partition, the others find it
DROP_WAITS_MS = 2_000
DEFAULT = "telemetry_default"

# From the catalogue's rows: `to_regclass` may answer from a cache of before another node's commit.
_ALL = (
    "SELECT substr(c.relname, 12)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = 'telemetry'::regclass AND c.relname LIKE 'telemetry\\_d%%' AND c.relname <> %s"
)


class Runs(Protocol):
    """A cursor."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any: ...

    def fetchall(self) -> Sequence[Any]: ...


def today() -> int:
    """The number of the day, as partitions are numbered: from the Unix epoch."""
    return int(time.time()) // 86_400


def wanted(days: Iterable[int], now: int) -> set[int]:
    """Those that get a partition, seen from the day `now`; the next day's is made a day ahead."""
    return {day for day in days if now - PAST_DAYS <= day <= now + FUTURE_DAYS} | {now, now + 1}


def make(cursor: Runs, days: Iterable[int]) -> None:
    """Partitions for these days, in the transaction of the cursor, where they are missing."""
    asked = set(days)
    if not asked - existing(cursor):
        return
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    for day in sorted(asked - existing(cursor)):
        _make(cursor, day)


def _make(cursor: Runs, day: int) -> None:
    """A table that is filled first and attached then, for which nobody has to wait who writes other days."""
    name, first, end = f"telemetry_d{day}", day * BUCKETS_OF_DAY, (day + 1) * BUCKETS_OF_DAY
    columns = "bucket, device_id, ts, document"
    cursor.execute(f"CREATE TABLE {name} (LIKE telemetry INCLUDING ALL)")
    cursor.execute(f"LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE")
    cursor.execute(
        f"WITH moved AS (DELETE FROM {DEFAULT} WHERE bucket >= {first} AND bucket < {end} RETURNING {columns})"
        f" INSERT INTO {name} ({columns}) SELECT {columns} FROM moved"
    )
    cursor.execute(f"ALTER TABLE telemetry ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end})")


def existing(cursor: Runs) -> set[int]:
    """The days that have a partition."""
    cursor.execute(_ALL, (DEFAULT,))
    return {row[0] for row in cursor.fetchall()}


def drop(cursor: Any, days: Iterable[int], buckets: list[int]) -> bool:
    """Removes the days' partitions and rows of `buckets` that lie in none; False if others keep the table busy.

    Whoever writes samples holds the table until its commit, and lists the bucket after that: what is dropped here is
    either seen by them or sees them.
    """
    names = [f"telemetry_d{day}" for day in sorted(days)]
    cursor.execute("SAVEPOINT dropping")
    cursor.execute(f"SET LOCAL lock_timeout = {DROP_WAITS_MS}")
    try:
        mode = "ACCESS EXCLUSIVE" if names else "SHARE ROW EXCLUSIVE"
        cursor.execute(f"LOCK TABLE telemetry IN {mode} MODE")
        cursor.sync()
    except LockNotAvailable:
        cursor.abandon()
        cursor.execute("ROLLBACK TO SAVEPOINT dropping")
        return False
    cursor.execute("SET LOCAL lock_timeout = 0")
    packed = arrays.bigints(buckets)
    cursor.execute("DELETE FROM telemetry_bucket WHERE bucket = ANY(%s::bigint[])", (packed,))
    cursor.execute(f"DELETE FROM {DEFAULT} WHERE bucket = ANY(%s::bigint[])", (packed,))
    for name in names:
        cursor.execute(f"DROP TABLE {name}")
    return True


def convert(cursor: Runs) -> None:
    """Makes the plain table `telemetry` a partitioned one that holds the same rows; in one transaction."""
    cursor.execute("SELECT relkind FROM pg_class WHERE oid = 'telemetry'::regclass")
    if cursor.fetchall()[0][0] in ("p", b"p"):
        return
    cursor.execute("LOCK TABLE telemetry IN ACCESS EXCLUSIVE MODE")
    cursor.execute("ALTER TABLE telemetry RENAME TO telemetry_plain")
    cursor.execute("ALTER TABLE telemetry_plain RENAME CONSTRAINT telemetry_pkey TO telemetry_plain_pkey")
    cursor.execute(
        "CREATE TABLE telemetry (bucket bigint NOT NULL, device_id bigint NOT NULL, ts bigint NOT NULL,"
        " document bytea NOT NULL, PRIMARY KEY (bucket, device_id, ts)) PARTITION BY RANGE (bucket)"
    )
    cursor.execute(f"CREATE TABLE {DEFAULT} PARTITION OF telemetry DEFAULT")
    cursor.execute("SELECT DISTINCT bucket FROM telemetry_bucket")
    now = today()
    make(cursor, wanted((row[0] // BUCKETS_OF_DAY for row in cursor.fetchall()), now))
    cursor.execute("INSERT INTO telemetry SELECT bucket, device_id, ts, document FROM telemetry_plain")
    cursor.execute("DROP TABLE telemetry_plain")
