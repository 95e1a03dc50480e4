"""Checksums of packages, in the forms that devices compare.

The texts are those of ThingsBoard, whose CRC and Murmur sums are written with the lowest byte first (Guava's
`HashCode`); the Python client library reverses them likewise.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import mmh3

from shared.errors import InvalidArgument

PART_BYTES = 262_144


class _Sum(Protocol):
    def update(self, data: bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


class _Crc32:
    def __init__(self) -> None:
        self._sum = 0

    def update(self, data: bytes) -> None:
        self._sum = zlib.crc32(data, self._sum)

    def hexdigest(self) -> str:
        return self._sum.to_bytes(4, "little").hex()


class _Murmur:
    """One of mmh3's hashers, which give bytes and no text."""

    def __init__(self, hasher: mmh3.mmh3_32 | mmh3.mmh3_x64_128) -> None:
        self._hasher = hasher

    def update(self, data: bytes) -> None:
        self._hasher.update(data)

    def hexdigest(self) -> str:
        return self._hasher.digest().hex()


ALGORITHMS: dict[str, Callable[[], _Sum]] = {
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
    "SHA256": hashlib.sha256,
    "SHA384": hashlib.sha384,
    "SHA512": hashlib.sha512,
    "CRC32": _Crc32,
    "MURMUR3_32": lambda: _Murmur(mmh3.mmh3_32()),
    "MURMUR3_128": lambda: _Murmur(mmh3.mmh3_x64_128()),
}


@dataclass(frozen=True, slots=True)
class Summed:
    """Lower-case hexadecimal checksum and length of a file."""

    checksum: str
    size_bytes: int


def check_algorithm(name: str) -> None:
    """Raises: InvalidArgument."""
    if name not in ALGORITHMS:
        raise InvalidArgument(f"checksumAlgorithm must be one of {', '.join(ALGORITHMS)}")


def summed(data: BinaryIO, algorithm: str, max_bytes: int) -> Summed:
    """Reads the file from its beginning, in parts, and no further than one part behind `max_bytes`."""
    data.seek(0)
    total, size_bytes = ALGORITHMS[algorithm](), 0
    while size_bytes <= max_bytes and (part := data.read(PART_BYTES)):
        total.update(part)
        size_bytes += len(part)
    return Summed(total.hexdigest(), size_bytes)
