"""Rows out of single pages of an SQLite file, without its tree.

Reads what https://www.sqlite.org/fileformat2.html describes: table leaf pages (type 13), records and overflow chains,
and the pages of the write-ahead log up to the first frame of an older generation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_gateway.storage.schema import PAGE_BYTES

LEAF = 13
WAL_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
LONGEST_PAYLOAD_BYTES = 16 * 1024**2

RECORD_TYPES: tuple[type | None, ...] = (None, str, int, int, int, int, int, bytes)
"""Of the columns in the file; None: the number, which is the row's id."""
DEVICE_TYPES: tuple[type | None, ...] = (str, str, str, str, int, int)

_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class _Broken(Exception):
    """This cell is none."""


def carve(path: Path, types: tuple[type | None, ...]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """(row id, values) of all rows of these types; those of the log come last, so that they win."""
    with path.open("rb") as file:
        pages = _Pages(file, path.with_name(path.name + "-wal"))
        for page in pages.leaves():
            yield from _rows(page, pages, types)


class _Pages:
    """Pages by number, the log's before the file's."""

    def __init__(self, file: Any, log: Path) -> None:  # Any: a binary file open for reading
        self._file = file
        self._count = (file.seek(0, 2) + PAGE_BYTES - 1) // PAGE_BYTES
        self._of_log = _pages_of_log(log)

    def page(self, number: int) -> bytes:
        if number in self._of_log:
            return self._of_log[number]
        if not 1 <= number <= self._count:
            raise _Broken
        return self._of_file(number)

    def _of_file(self, number: int) -> bytes:
        self._file.seek((number - 1) * PAGE_BYTES)
        data: bytes = self._file.read(PAGE_BYTES)
        return data.ljust(PAGE_BYTES, b"\0")

    def leaves(self) -> Iterator[bytes]:
        for number in range(2, self._count + 1):
            page = self._of_file(number)
            if page[0] == LEAF:
                yield page
        yield from (page for page in self._of_log.values() if page[0] == LEAF)


def _pages_of_log(path: Path) -> dict[int, bytes]:
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    salt = data[16:24]
    pages: dict[int, bytes] = {}
    at = WAL_HEADER_BYTES
    while at + FRAME_HEADER_BYTES + PAGE_BYTES <= len(data):
        if data[at + 8 : at + 16] == salt:  # otherwise damaged, or of an older generation
            (number,) = struct.unpack_from(">I", data, at)
            pages[number] = data[at + FRAME_HEADER_BYTES : at + FRAME_HEADER_BYTES + PAGE_BYTES]
        at += FRAME_HEADER_BYTES + PAGE_BYTES
    return pages


def _rows(page: bytes, pages: _Pages, types: tuple[type | None, ...]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    (count,) = struct.unpack_from(">H", page, 3)
    for index in range(min(count, PAGE_BYTES // 4)):
        try:
            (at,) = struct.unpack_from(">H", page, 8 + 2 * index)
            row_id, payload = _cell(page, at, pages)
            yield row_id, _values(payload, types)
        except (_Broken, IndexError, struct.error, UnicodeDecodeError):
            continue


def _cell(page: bytes, at: int, pages: _Pages) -> tuple[int, bytes]:
    size, at = _varint(page, at)
    row_id, at = _varint(page, at)
    if not 0 < size <= LONGEST_PAYLOAD_BYTES:
        raise _Broken
    longest = PAGE_BYTES - 35
    if size <= longest:
        return row_id, page[at : at + size]
    least = (PAGE_BYTES - 12) * 32 // 255 - 23
    local = least + (size - least) % (PAGE_BYTES - 4)
    local = local if local <= longest else least
    parts = [page[at : at + local]]
    (following,) = struct.unpack_from(">I", page, at + local)
    rest = size - local
    while rest > 0:
        overflow = pages.page(following)
        parts.append(overflow[4 : 4 + rest])
        rest -= PAGE_BYTES - 4
        (following,) = struct.unpack_from(">I", overflow, 0)
    return row_id, b"".join(parts)


def _values(payload: bytes, types: tuple[type | None, ...]) -> tuple[Any, ...]:
    header_bytes, at = _varint(payload, 0)
    body_at = header_bytes
    values: list[Any] = []
    for expected in types:
        if at >= header_bytes:
            raise _Broken
        serial, at = _varint(payload, at)
        value, body_at = _value(payload, body_at, serial)
        if (expected is None) != (value is None) or (expected is not None and type(value) is not expected):
            raise _Broken
        values.append(value)
    if at != header_bytes or body_at != len(payload):
        raise _Broken
    return tuple(values)


def _value(payload: bytes, at: int, serial: int) -> tuple[Any, int]:
    if serial == 0:
        return None, at
    if serial in (8, 9):
        return serial - 8, at
    if serial in _INTEGER_BYTES:
        end = at + _INTEGER_BYTES[serial]
        return int.from_bytes(payload[at:end], "big", signed=True), end
    if serial < 12:
        raise _Broken
    end = at + (serial - 12) // 2
    if end > len(payload):
        raise _Broken
    return (payload[at:end].decode() if serial % 2 else payload[at:end]), end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = data[at + index]
        if index == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + index + 1
    raise _Broken
