"""Columns of rows as PostgreSQL arrays in its binary format: thousands of rows are four parameters of one statement.

psycopg packs a list value by value in Python, which takes longer than the server needs to store the rows.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Any, cast

from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, SmallInteger, Text

_HEADER = struct.Struct(">iiIii")  # dimensions, whether there are NULLs, type of an element; length, first index
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)
_EIGHT = b"\0\0\0\x08" + bytes(8)


class BigintArray(bytes):
    """A `bigint[]`, packed."""


class ByteaArray(bytes):
    """A `bytea[]`, packed."""


class TextArray(bytes):
    """A `text[]`, packed."""


class BooleanArray(bytes):
    """A `boolean[]`, packed."""


def bigints(values: Sequence[int | None]) -> BigintArray:
    """Packed; the usual case, without NULLs, by strides instead of one by one."""
    count = len(values)
    if None in values:
        return BigintArray(_header(20, count) + b"".join([_bigint(value) for value in values]))
    numbers = array("q", cast(Sequence[int], values))
    if sys.byteorder == "little":
        numbers.byteswap()
    raw = numbers.tobytes()
    packed = bytearray(_EIGHT * count)
    for place in range(8):
        packed[4 + place :: 12] = raw[place::8]
    return BigintArray(_header(20, count) + packed)


def byteas(values: Sequence[bytes | None]) -> ByteaArray:
    """Packed."""
    return ByteaArray(_header(17, len(values)) + _joined(values))


def texts(values: Sequence[str | None]) -> TextArray:
    """Packed; NUL, which PostgreSQL's text cannot hold, as the replacement character (see `Connected._execute`)."""
    return TextArray(_header(25, len(values)) + _joined([None if one is None else _encoded(one) for one in values]))


def booleans(values: Sequence[bool | None]) -> BooleanArray:
    """Packed."""
    return BooleanArray(_header(16, len(values)) + _joined([None if one is None else bytes((one,)) for one in values]))


def packing(column_type: Any) -> tuple[Callable[[Sequence[Any]], bytes], str]:
    """How the values of a column of this type are packed, and the type of their array."""
    if isinstance(column_type, BigInteger | Integer | SmallInteger):
        return bigints, "bigint[]"
    if isinstance(column_type, LargeBinary):
        return byteas, "bytea[]"
    if isinstance(column_type, Text):
        return texts, "text[]"
    assert isinstance(column_type, Boolean), f"no column of {column_type} is written by arrays"
    return booleans, "boolean[]"


def register(adapters: Any) -> None:
    """Teaches a connection to send them."""
    for kind, oid in ((BigintArray, 1016), (ByteaArray, 1001), (TextArray, 1009), (BooleanArray, 1000)):
        adapters.register_dumper(kind, type(f"{kind.__name__}Dumper", (_PackedDumper,), {"oid": oid}))


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


def _header(element_oid: int, count: int) -> bytes:
    return _HEADER.pack(1, 1, element_oid, count, 1)


def _bigint(value: int | None) -> bytes:
    return _NULL if value is None else b"\0\0\0\x08" + value.to_bytes(8, "big", signed=True)


def _joined(values: Sequence[bytes | None]) -> bytes:
    pack = _LENGTH.pack
    return b"".join([one for value in values for one in ((_NULL,) if value is None else (pack(len(value)), value))])


def _encoded(text: str) -> bytes:
    return (text.replace("\0", "\ufffd") if "\0" in text else text).encode()
