"""Numbers and texts in bytes, as registers and binary payloads carry them.

Types: bool, int8/16/32/64, uint8/16/32/64, float16/32/64, string, hex, bcd16, bcd32, bits. Orders of bytes and 16-bit
words: big (ABCD), little (DCBA), big-swapped (CDAB: bytes big, words little), little-swapped (BADC)."""

from __future__ import annotations

from typing import Final

from edge_gateway.model import Json

ORDERS: Final = ("big", "little", "big-swapped", "little-swapped")


def size_bytes(type: str) -> int | None:
    """How many bytes a value takes; None: as many as there are (string, hex, bits). Raises: ValueError."""
    raise NotImplementedError


def decode(data: bytes, type: str, words: str = "big") -> Json:
    """The value in `data`. Raises: MappingError (wrong length, no BCD, no text, NaN or infinity)."""
    raise NotImplementedError


def encode(value: Json, type: str, words: str = "big", length: int | None = None) -> bytes:
    """The bytes of `value`; `length` pads string, hex and bits with zeros.

    Raises: MappingError naming value, type and range.
    """
    raise NotImplementedError
