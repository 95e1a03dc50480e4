"""The open database file: what can be done to it, without threads, queues or policies.

Used by one thread at a time. Between `begin` and `commit` nothing that is remembered here about the file changes:
`commit` makes it true, `rollback` forgets it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_gateway.model import Content, Lane, Record, SubDevice
from edge_gateway.storage import schema
from edge_gateway.storage.interface import Boot

MARK_AHEAD = 1_000  # numbers are reserved so many at a time: one page more written for a thousand records
BUSY_TIMEOUT_S = 2.0  # only a tool of somebody else can hold the file
WAL_KEPT_BYTES = 4 * 1024**2  # stays allocated, so that a full disk still takes deletions
WAL_TOO_LONG_PAGES = 16_384
CACHE_KIB = 16_384
RECORD_OVERHEAD_BYTES = 32  # header of a row, its numbers, its place in the page

CONTENTS = (Content.TELEMETRY, Content.ATTRIBUTES)
LANES = (Lane.LIVE, Lane.HISTORY)

Row = tuple[int, str, int, int, int, int, int, bytes]
Oldest = tuple[int, str, int, int, int]  # number, device, boot, elapsed_ms, length of the body


def to_row(record: Record) -> Row:
    return (
        record.number, record.device, int(record.content), int(record.lane), record.ts_ms, record.boot,
        record.elapsed_ms, record.body,
    )  # fmt: skip


def to_record(row: Row) -> Record:
    number, device, content, lane, ts_ms, boot, elapsed_ms, body = row
    return Record(number, device, CONTENTS[content], LANES[lane], ts_ms, boot, elapsed_ms, body)


def size_of(record: Record) -> int:
    """About what it takes in the file."""
    return len(record.body) + len(record.device) + RECORD_OVERHEAD_BYTES


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers as ranges (first, last) without gaps."""
    found: list[tuple[int, int]] = []
    first = last = -1
    for number in sorted(numbers):
        if number <= last + 1 and first >= 0:
            last = max(last, number)
            continue
        if first >= 0:
            found.append((first, last))
        first = last = number
    if first >= 0:
        found.append((first, last))
    return found


def connect(path: Path) -> sqlite3.Connection:
    """Opens the file for writing; a new one gets its format. Raises: sqlite3.Error, also for a damaged file."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)
    try:
        for pragma in (
            f"page_size = {schema.PAGE_BYTES}",
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            "synchronous = FULL",
            "wal_autocheckpoint = 4000",  # a net: this program checkpoints on its own, after the answers are out
            f"journal_size_limit = {WAL_KEPT_BYTES}",
            f"cache_size = -{CACHE_KIB}",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            schema.create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


class Damaged(sqlite3.DatabaseError):
    """`PRAGMA quick_check` found something."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclass(slots=True)
class _Changes:
    """Of the open transaction."""

    records: int = 0
    mark: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    boots: dict[int, Boot] = field(default_factory=dict)
    pages: int = 0


class SpoolFile:
    """The file, and what is known of its content."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = connect(path)
        self._cursor = self._connection.cursor()
        self._changes = _Changes()
        self._pages_in_wal = 0
        self._log_bytes = WAL_KEPT_BYTES
        self._telemetry_from = 0  # no telemetry has a smaller number
        self._no_history = (0, 0)  # no history between these two numbers; the first excluded, the last included
        self.backlog: dict[str, int] = {}
        self.boots: dict[int, Boot] = {}
        self.dropped: Counter[str] = Counter()  # by reason
        self.records = 0
        self.mark = 1
        self.newest = 0
        self.first_number = 1  # of this opening

    # --- opening and closing

    def load(self) -> None:
        """Reads everything that is kept in memory; one pass over the records."""
        run = self._cursor.execute
        self.boots = {number: Boot(number=number, known_ms=ms) for number, _, ms in run(schema.BOOTS)}
        backlog: Counter[str] = Counter()
        last_ms: dict[int, int] = {}  # by boot
        for device, boot, count, elapsed_ms in run(schema.COUNTS):
            backlog[device] += count
            last_ms[boot] = max(last_ms.get(boot, 0), elapsed_ms)
        for number, elapsed_ms in last_ms.items():
            known = self.boots.get(number) or Boot(number=number, known_ms=0)
            self.boots[number] = replace(known, last_ms=elapsed_ms)
        self.backlog = dict(backlog)
        self.records = backlog.total()
        for reason, _, readings in run(schema.DROPPED):
            self.dropped[reason] += readings
        self.newest = run(schema.NEWEST).fetchone()[0] or 0
        self.mark = max(self.state("mark", 1), self.newest + 1)
        self.first_number = self.mark
        self._forget_boots(set(self.boots) - last_ms.keys())

    def begin_opening(self, machine_start: str) -> Boot:
        """Marks the file as in use and finds, or adds, the present start of the machine."""
        number = 0
        for known, start, _ in self._cursor.execute(schema.BOOTS).fetchall():
            if start and start == machine_start:
                number = known
        number = number or max(self.boots, default=0) + 1
        present = self.boots.setdefault(number, Boot(number=number, known_ms=0))
        self._connection.execute("BEGIN IMMEDIATE")
        self._cursor.execute(schema.ADD_BOOT, (number, machine_start, present.known_ms))
        self._cursor.execute(schema.PUT_STATE, ("is_open", 1))
        self._connection.execute("COMMIT")
        return present

    def version(self) -> int:
        return int(self._cursor.execute("PRAGMA user_version").fetchone()[0])

    def check(self) -> None:
        """Raises: sqlite3.DatabaseError when the content is damaged."""
        found = [text for (text,) in self._cursor.execute("PRAGMA quick_check(10)")]
        if found != ["ok"]:
            raise Damaged("; ".join(map(str, found)))

    def state(self, name: str, default: int) -> int:
        return int(dict(self._cursor.execute(schema.STATE).fetchall()).get(name, default))

    def _forget_boots(self, unused: set[int]) -> None:
        """All but the newest, which may be the present one."""
        gone = sorted(unused - {max(self.boots, default=0)})
        self._cursor.executemany(schema.FORGET_BOOT, [(number,) for number in gone])
        for number in gone:
            del self.boots[number]

    def close(self, *, is_orderly: bool = True) -> None:
        """Raises: sqlite3.Error when even that cannot be written; the file is closed all the same."""
        try:
            if is_orderly:
                self._connection.execute("BEGIN IMMEDIATE")
                self._cursor.execute(schema.PUT_STATE, ("mark", max(self.newest + 1, self.first_number)))
                self._cursor.execute(schema.PUT_STATE, ("is_open", 0))
                self._connection.execute("COMMIT")
        finally:
            self._connection.close()

    def bound_log(self, size_bytes: int) -> None:
        """About how large the write-ahead log may become."""
        self._log_bytes = size_bytes
        self._connection.execute(f"PRAGMA journal_size_limit = {size_bytes}").fetchall()

    def drop_connection(self) -> None:
        """Whatever state it is in."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def go_on_from(self, other: SpoolFile) -> None:
        """This one takes the place of `other` within one opening."""
        self.first_number = other.first_number
        self.newest = max(self.newest, other.newest)
        self.mark = max(self.mark, other.mark)
        self.backlog = other.backlog
        self.boots = self.boots | other.boots
        self.bound_log(other._log_bytes)

    # --- one transaction

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._changes = _Changes()

    def commit(self) -> None:
        self._connection.execute("COMMIT")
        changes = self._changes
        self.records += changes.records
        self.newest = max(self.newest, changes.mark)
        if changes.mark >= self.mark:
            self.mark = changes.mark + MARK_AHEAD
        self.dropped += changes.dropped
        self.boots |= changes.boots
        self._pages_in_wal += changes.pages + 2

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def append(self, records: Sequence[Record]) -> None:
        """Raises: sqlite3.Error, and OverflowError or UnicodeError for what no database takes."""
        self._cursor.executemany(schema.APPEND, map(to_row, records))
        changes = self._changes
        changes.records += len(records)
        changes.mark = max(changes.mark, records[-1].number)
        changes.pages += 1 + sum(map(size_of, records)) // schema.PAGE_BYTES
        if changes.mark >= self.mark:
            self._cursor.execute(schema.PUT_STATE, ("mark", changes.mark + MARK_AHEAD))

    def forget(self, numbers: Iterable[int]) -> None:
        ranges = runs(numbers)
        if not ranges:
            return
        self._cursor.executemany(schema.FORGET, ranges)
        self._changes.records -= max(self._cursor.rowcount, 0)
        self._changes.pages += 2 * len(ranges)

    def put_devices(self, devices: Iterable[SubDevice]) -> None:
        self._cursor.executemany(
            schema.PUT_DEVICE,
            [(d.name, d.upstream_name, d.type, d.connector, d.last_seen_ms, int(d.is_deleted)) for d in devices],
        )
        self._changes.pages += 2

    def put_boot(self, boot: Boot) -> None:
        self._cursor.execute(schema.PUT_BOOT, (boot.number, "", boot.known_ms))
        self._changes.boots[boot.number] = boot

    def drop(self, records: Sequence[Oldest], reason: str) -> dict[str, int]:
        """Gives records up and counts them; by device."""
        self.forget([number for number, *_ in records])
        devices = Counter(device for _, device, *_ in records)
        self.count_dropped(devices, reason)
        return dict(devices)

    def count_dropped(self, devices: dict[str, int] | Counter[str], reason: str) -> None:
        self._cursor.executemany(schema.COUNT_DROPPED, [(reason, name, count) for name, count in devices.items()])
        self._changes.dropped[reason] += sum(devices.values())

    # --- reading

    def oldest_telemetry(self, limit: int) -> list[Oldest]:
        """What would be dropped first. Attributes at the head are passed over once, not at each call."""
        found = self._cursor.execute(schema.OLDEST_TELEMETRY, (self._telemetry_from, limit)).fetchall()
        self._telemetry_from = found[0][0] if found else self.newest + 1
        return found

    def oldest(self, limit: int) -> list[Oldest]:
        return self._cursor.execute(schema.OLDEST, (0, limit)).fetchall()

    def oldest_instant(self) -> tuple[int, int] | None:
        """Boot and elapsed ms of the oldest record."""
        found: tuple[int, int] | None = self._cursor.execute(schema.OLDEST_INSTANT, (1,)).fetchone()
        return found

    def read_history(self, after: int, limit_records: int, limit_bytes: int) -> list[Record]:
        """At least one record when there is any, whatever its size."""
        empty_from, empty_to = self._no_history
        start = empty_to if empty_from <= after < empty_to else after
        newest = self.newest
        records: list[Record] = []
        taken_bytes = 0
        rows = self._connection.execute(schema.HISTORY, (start, self.first_number, limit_records))
        for row in rows:
            record = to_record(row)
            taken_bytes += len(record.body)
            if records and taken_bytes > limit_bytes:
                rows.close()  # it would hold the log
                return records
            records.append(record)
        if len(records) < limit_records:  # nothing up to the end: the next call need not pass over live records again
            self._no_history = (records[-1].number if records else after, max(newest, after))
        return records

    def devices(self) -> list[SubDevice]:
        return [
            SubDevice(name, upstream_name, type, connector, last_seen_ms, bool(is_deleted))
            for name, upstream_name, type, connector, last_seen_ms, is_deleted in self._cursor.execute(schema.DEVICES)
        ]

    # --- sizes

    def pages(self) -> tuple[int, int]:
        """Pages of the file, and how many of them are free; inside a transaction as it would leave them."""
        (total,) = self._cursor.execute("PRAGMA page_count").fetchone()
        (free,) = self._cursor.execute("PRAGMA freelist_count").fetchone()
        return total, free

    def free_disk_bytes(self) -> int:
        disk = os.statvfs(self.path.parent)
        return disk.f_bavail * disk.f_frsize

    def checkpoint(self, *, is_due: bool = False) -> None:
        """Carries the write-ahead log over into the file, so that it starts again; never waits for a reader."""
        if not is_due and self._pages_in_wal < self._log_bytes // schema.PAGE_BYTES:
            return
        self._pages_in_wal = 0
        _, pages, _ = self._cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if pages > WAL_TOO_LONG_PAGES:  # a reader stayed for long: wait for it, a moment
            self._cursor.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

    def give_back(self, pages: int) -> None:
        """Makes the file smaller by so many of its free pages."""
        self._cursor.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
        self._pages_in_wal += 2 * pages
