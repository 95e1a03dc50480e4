"""Looks into a spool without changing it, also while the agent works with it.

Records are read in short pieces, each a read of its own, so that a long export never holds the agent's log back. What
is forgotten or dropped meanwhile may be missing from the rest; what is appended meanwhile comes at the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from edge_gateway.model import Record, SubDevice
from edge_gateway.storage import schema
from edge_gateway.storage.errors import SpoolUnavailable, is_damage
from edge_gateway.storage.file import to_record
from edge_gateway.storage.interface import Boot
from edge_gateway.storage.limits import acceptance_ms

CHUNK = 1_000
LAST_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """`file_bytes` without the log; `oldest_ms` is 0 when the spool is empty or the time was not known; `dropped` by
    (reason, device)."""

    records: int
    devices: dict[str, int]
    used_bytes: int
    file_bytes: int
    oldest_ms: int
    dropped: dict[tuple[str, str], int]


class SpoolReader:
    """A spool's file, open for reading; a context manager. All methods raise SpoolUnavailable."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> SpoolReader:
        if not self._path.is_file():
            raise SpoolUnavailable(f"There is no spool at {self._path}: see [store] path, or start the agent.")
        try:
            self._connection = self._connect("mode=ro")
        except SpoolUnavailable:
            # A folder that we may not write, and no agent at work: then nothing changes the file either.
            if self._path.with_name(self._path.name + "-wal").exists():
                raise
            self._connection = self._connect("mode=ro&immutable=1")
        return self

    def _connect(self, options: str) -> sqlite3.Connection:
        uri = f"file:{quote(str(self._path.absolute()))}?{options}"
        try:
            connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            connection.execute(schema.STATE).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        return connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def _unreadable(self, error: sqlite3.Error) -> SpoolUnavailable:
        fix = "start the agent, which repairs it" if is_damage(error) else "run this as the user that runs the agent"
        return SpoolUnavailable(f"The spool {self._path} cannot be read ({error}): {fix}.")

    def _rows(self, statement: str, *parameters: int) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def records(self, first: int = 1) -> Iterator[Record]:
        """From this number on, oldest first."""
        while True:
            rows = self._rows(schema.RECORDS, first, LAST_NUMBER, CHUNK)
            if not rows:
                return
            for row in rows:
                yield to_record(row)
            first = int(rows[-1][0]) + 1

    def boots(self) -> dict[int, Boot]:
        """What is needed to find the time of records whose `ts_ms` is 0."""
        return {
            int(number): Boot(number=int(number), known_ms=int(known_ms))
            for number, _, known_ms in self._rows(schema.BOOTS)
        }

    def sub_devices(self) -> list[SubDevice]:
        return [
            SubDevice(name, upstream_name, type, connector, seen_ms, bool(is_deleted))
            for name, upstream_name, type, connector, seen_ms, is_deleted in self._rows(schema.DEVICES)
        ]

    def overview(self) -> Overview:
        """Counts all records: about a second for a million."""
        devices: dict[str, int] = {}
        for device, _, count, _ in self._rows(schema.COUNTS):
            devices[str(device)] = devices.get(str(device), 0) + int(count)
        ((total,),) = self._rows("PRAGMA page_count")
        ((free,),) = self._rows("PRAGMA freelist_count")
        oldest = self._rows(schema.OLDEST_INSTANT, 1)
        return Overview(
            records=sum(devices.values()),
            devices=devices,
            used_bytes=(int(total) - int(free)) * schema.PAGE_BYTES,
            file_bytes=int(total) * schema.PAGE_BYTES,
            oldest_ms=acceptance_ms(self.boots(), *oldest[0]) if oldest else 0,
            dropped={
                (str(reason), str(device)): int(readings) for reason, device, readings in self._rows(schema.DROPPED)
            },
        )
