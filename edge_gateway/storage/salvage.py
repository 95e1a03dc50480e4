"""What can still be read of a damaged file, into a new one.

Two ways, one after the other. SQLite's own: walking the numbers from both ends towards the damage and halving what
lies between, so that one broken page costs no more than its records. Then, for what lies below a broken inner page,
every page of the file and of its log is looked at by itself (carving.py); that may bring back records that were
already forgotten, which are sent again and do no harm.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edge_gateway.storage import schema
from edge_gateway.storage.carving import DEVICE_TYPES, RECORD_TYPES, carve
from edge_gateway.storage.errors import is_trouble_with_disk
from edge_gateway.storage.file import MARK_AHEAD, connect

LAST_NUMBER = 2**63 - 1
MOST_SEEKS = 4_000
CHUNK = 5_000
UNKNOWN_NUMBERS = 1_000_000  # skipped when the mark of the used ones is lost


class _NoRoom(Exception):
    """The disk does not take more of what was saved."""


def salvage(path: Path, into: sqlite3.Connection) -> tuple[int, int]:
    """Copies from the file at `path`, which has been set aside, into the tables of a new one; never fails because of
    what is in it. Records kept, and lost at the most.

    Raises: sqlite3.Error when not even the first things can be written to the new one.
    """
    return _Salvage(path, into).run()


class _Salvage:
    def __init__(self, path: Path, into: sqlite3.Connection) -> None:
        self._path = path
        self._into = into
        self._gaps: list[tuple[int, int]] = []
        self._seeks = 0

    def run(self) -> tuple[int, int]:
        connection = _open(self._path)
        state: dict[str, int] = {}
        try:
            if connection is None:
                self._gaps.append((1, LAST_NUMBER))
            else:
                state = self._small_tables(connection)
                self._walk(connection)
            if self._gaps:
                self._carve()
        except _NoRoom:
            self._gaps.append((1, LAST_NUMBER))
        finally:
            if connection is not None:
                connection.close()
        return self._finish(state)

    def _finish(self, state: dict[str, int]) -> tuple[int, int]:
        run = self._into.execute
        count, oldest, newest = run(schema.EXTENT).fetchone()
        newest = newest or 0
        mark = max(state["mark"], newest + 1) if "mark" in state else newest + UNKNOWN_NUMBERS
        lost = self._lost(oldest, max(newest, state.get("mark", 0) - 1))
        run("BEGIN IMMEDIATE")
        for number in [number for (number,) in run(schema.USED_BOOTS)]:
            run(schema.ADD_BOOT, (number, "", 0))
        run(schema.PUT_STATE, ("mark", mark + MARK_AHEAD))
        if lost:
            run(schema.COUNT_DROPPED, ("damaged", "", lost))
        run("COMMIT")
        return count, lost

    def _lost(self, oldest: int | None, newest: int) -> int:
        """Numbers in the gaps that nothing was found of: an estimate from above, since some may have been forgotten.

        Before the first record found nothing is counted, since what was delivered is deleted there; behind the last
        one everything up to the mark, which is at most a thousand too high.
        """
        run = self._into.execute
        gaps = []
        for first, last in self._gaps:  # a page that is broken in part hides its rows without an error: up to the next
            before, after = run(schema.BELOW, (first,)).fetchone()[0], run(schema.ABOVE, (last,)).fetchone()[0]
            gaps.append(((before or oldest or newest) + 1, (after or newest + 1) - 1))
        return sum(
            last - first + 1 - run(schema.COUNT_BETWEEN, (first, last)).fetchone()[0]
            for first, last in _merged(gaps)
            if first <= last
        )

    # --- by SQL

    def _small_tables(self, connection: sqlite3.Connection) -> dict[str, int]:
        for read, write in (
            (schema.DEVICES, schema.PUT_DEVICE),
            (schema.BOOTS, schema.ADD_BOOT),
            (schema.DROPPED, schema.COUNT_DROPPED),
        ):
            self._keep(write, _readable(connection, read))
        return dict(_readable(connection, schema.STATE))

    def _keep(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Raises: _NoRoom."""
        try:
            self._into.execute("BEGIN IMMEDIATE")
            for row in rows:
                try:
                    self._into.execute(statement, row)
                except sqlite3.IntegrityError:
                    continue  # a value that the tables do not take: it is damaged too
            self._into.execute("COMMIT")
        except sqlite3.Error as error:
            if self._into.in_transaction:
                self._into.execute("ROLLBACK")
            if not is_trouble_with_disk(error):
                raise
            raise _NoRoom from error

    def _walk(self, connection: sqlite3.Connection) -> None:
        """From both ends; what is between is halved, as long as the count allows it."""
        ranges = [(1, LAST_NUMBER)]
        while ranges:
            first, last = ranges.pop()
            broken_at = self._run(connection, schema.RECORDS, first, last, is_up=True)
            if broken_at is None:
                continue
            first = broken_at
            broken_at = self._run(connection, schema.RECORDS_DOWN, first, last, is_up=False)
            if broken_at is None:
                continue
            last = broken_at
            if first >= last or self._seeks > MOST_SEEKS:
                self._gaps.append((first, last))
                continue
            middle = (first + last) // 2
            ranges += [(middle + 1, last), (first, middle)]

    def _run(self, connection: sqlite3.Connection, statement: str, first: int, last: int, *, is_up: bool) -> int | None:
        """Reads from one end; the number at which it broke off, None when there was no damage."""
        self._seeks += 1
        is_broken = False
        while not is_broken and first <= last:
            rows: list[tuple[Any, ...]] = []
            number = 0
            try:
                for row in connection.execute(statement, (first, last, CHUNK)):
                    number = row[0]
                    if is_plausible(row):
                        rows.append(row)
                    else:
                        self._gaps.append((number, number))
            except (sqlite3.Error, ValueError):
                is_broken = True
            self._keep(schema.KEEP, rows)
            if not number:
                break
            first, last = (number + 1, last) if is_up else (first, number - 1)
        if not is_broken:
            return None
        return first if is_up else last

    # --- by pages

    def _carve(self) -> None:
        is_in_gap = _within(_merged(self._gaps))
        records = ((number, *values[1:]) for number, values in carve(self._path, RECORD_TYPES) if is_in_gap(number))
        rows: list[tuple[Any, ...]] = []
        for row in records:
            if is_plausible(row):
                rows.append(row)
            if len(rows) >= CHUNK:
                self._keep(schema.KEEP, rows)
                rows = []
        self._keep(schema.KEEP, rows)
        known = {name for name, *_ in self._into.execute(schema.DEVICES)}
        found = [values for _, values in carve(self._path, DEVICE_TYPES)]
        self._keep(schema.PUT_DEVICE, [row for row in found if row[0] not in known])


def _readable(connection: sqlite3.Connection, statement: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a small table up to the first that cannot be read."""
    try:
        yield from connection.execute(statement)
    except sqlite3.Error:
        return


def _open(path: Path) -> sqlite3.Connection | None:
    """With the first page of a fresh file in the place of one that cannot be read: it holds the schema only."""
    for has_fresh_page in (False, True):
        try:
            if has_fresh_page:
                _put_first_page(path)
            connection = sqlite3.connect(path, isolation_level=None)
        except (sqlite3.Error, OSError):
            continue
        try:
            connection.execute(schema.RECORDS, (1, LAST_NUMBER, 0)).fetchone()
            return connection
        except sqlite3.Error:
            connection.close()
    return None


def _put_first_page(path: Path) -> None:
    with TemporaryDirectory() as folder:
        fresh = Path(folder) / "fresh.db"
        connect(fresh).close()
        page = fresh.read_bytes()[: schema.PAGE_BYTES]
    with path.open("r+b") as file:
        file.write(page)


def is_plausible(row: tuple[Any, ...]) -> bool:
    """A damaged page that SQLite does not notice holds anything."""
    number, device, content, lane, ts_ms, boot, elapsed_ms, body = row
    return (
        isinstance(number, int)
        and number > 0
        and isinstance(device, str)
        and content in (0, 1)
        and lane in (0, 1)
        and all(isinstance(value, int) for value in (ts_ms, boot, elapsed_ms))
        and isinstance(body, bytes)
        and body[:1] == b"{"
        and body[-1:] == b"}"
    )


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _within(ranges: list[tuple[int, int]]) -> Callable[[int], bool]:
    starts = [first for first, _ in ranges]

    def is_within(number: int) -> bool:
        index = bisect_right(starts, number) - 1
        return index >= 0 and number <= ranges[index][1]

    return is_within
