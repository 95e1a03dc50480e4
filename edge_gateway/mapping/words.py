"""Numbers and texts in bytes, as registers and binary payloads carry them.

Types: bool, int8/16/32/64, uint8/16/32/64, float16/32/64, string, hex, bcd16, bcd32, bits. Orders of bytes and 16-bit
words: big (ABCD), little (DCBA), big-swapped (CDAB: bytes big, words little), little-swapped (BADC).

A type of one byte is also read from a whole register of two. `string` ends at the first NUL, without blanks at its
end; `bits` is a list of booleans, the lowest bit of the first word first."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Final

from edge_gateway.mapping.interface import MappingError, NoValue
from edge_gateway.mapping.values import shown
from edge_gateway.model import Json

ORDERS: Final = ("big", "little", "big-swapped", "little-swapped")

_INTEGERS: Final = {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}
_FLOATS: Final = {"float16": ("e", 2, 3), "float32": ("f", 4, 6), "float64": ("d", 8, 15)}  # code, bytes, sure digits
_BCD: Final = {"bcd16": 2, "bcd32": 4}

TYPES: Final = ("bool", *_INTEGERS, *_FLOATS, "string", "hex", *_BCD, "bits")
_SIZES: Final[dict[str, int | None]] = {
    "bool": 1,
    **_INTEGERS,
    **{name: size for name, (_, size, _) in _FLOATS.items()},
    **_BCD,
    "string": None,
    "hex": None,
    "bits": None,
}


def size_bytes(type: str) -> int | None:
    """How many bytes a value takes; None: as many as there are (string, hex, bits). Raises: ValueError."""
    try:
        return _SIZES[type]
    except KeyError:
        raise ValueError(f"'{type}' is no type; known are {', '.join(TYPES)}") from None


def _swap_bytes(data: bytes) -> bytes:
    """The two bytes of each word exchanged; an odd last byte stays."""
    swapped = bytearray(data)
    even = len(data) & ~1
    swapped[0:even:2], swapped[1:even:2] = data[1:even:2], data[0:even:2]
    return bytes(swapped)


def _ordered(data: bytes, words: str) -> bytes:
    """`data` with the highest byte first, or such data in the order `words`: each order is its own way back."""
    if words == "big":
        return data
    if words == "little":
        return data[::-1]
    if words == "big-swapped":
        return _swap_bytes(data)[::-1]
    if words == "little-swapped":
        return _swap_bytes(data)
    raise ValueError(f"'{words}' is no order; known are {', '.join(ORDERS)}")


def _is_byte_swapped(words: str) -> bool:
    return words.startswith("little")


# --- reading -------------------------------------------------------------------------------------


def decode(data: bytes, type: str, words: str = "big") -> Json:
    """The value in `data`.

    Raises: MappingError (wrong length, no BCD, no text); NoValue for a float that is NaN or infinite. ValueError for
    an unknown type or order.
    """
    size = size_bytes(type)
    if words not in ORDERS:
        raise ValueError(f"'{words}' is no order; known are {', '.join(ORDERS)}")
    if size == 1 and len(data) == 2:
        return _READ[type](_ordered(data, words)[1:], type, "big")
    if size is not None and len(data) != size:
        raise MappingError(f"{type} needs {_bytes(size)}, here are {len(data)} (0x{data[:16].hex()})")
    if not data:
        raise MappingError(f"{type} needs at least one byte, here is none")
    return _READ[type](data, type, words)


def _bytes(count: int) -> str:
    return f"{count} byte" if count == 1 else f"{count} bytes"


def _read_bool(data: bytes, type: str, words: str) -> Json:
    return any(data)


def _read_integer(data: bytes, type: str, words: str) -> Json:
    return int.from_bytes(_ordered(data, words), "big", signed=type[0] == "i")


def _read_float(data: bytes, type: str, words: str) -> Json:
    code, _, digits = _FLOATS[type]
    number: float = struct.unpack(">" + code, _ordered(data, words))[0]
    if not math.isfinite(number):
        raise NoValue(f"0x{data.hex()} is no number as {type} ({number})")
    return _shortest(number, code, digits)


def _shortest(number: float, code: str, digits: int) -> float:
    """The number with the fewest digits that is this one in its own width: 21.1 instead of 21.100000381469727."""
    if code == "d":
        return number
    for precision in range(digits, 10):
        short = float(f"{number:.{precision}g}")
        try:
            if struct.unpack(">" + code, struct.pack(">" + code, short))[0] == number:
                return short
        except OverflowError:  # rounded beyond the greatest
            continue
    return number


def _read_string(data: bytes, type: str, words: str) -> Json:
    text = (_swap_bytes(data) if _is_byte_swapped(words) else data).partition(b"\0")[0]
    try:
        return text.decode("utf-8").rstrip()
    except UnicodeDecodeError:
        raise MappingError(f"0x{data[:16].hex()} is no text (UTF-8); read it as hex") from None


def _read_hex(data: bytes, type: str, words: str) -> Json:
    return _ordered(data, words).hex()


def _read_bcd(data: bytes, type: str, words: str) -> Json:
    digits = _ordered(data, words).hex()
    if not digits.isdecimal():
        raise MappingError(f"0x{data.hex()} is no {type}: a digit above 9")
    return int(digits)


def _read_bits(data: bytes, type: str, words: str) -> Json:
    lowest_first = data if _is_byte_swapped(words) else _swap_bytes(data)
    return [bool(byte >> bit & 1) for byte in lowest_first for bit in range(8)]


_READ: Final[dict[str, Callable[[bytes, str, str], Json]]] = {
    "bool": _read_bool,
    **dict.fromkeys(_INTEGERS, _read_integer),
    **dict.fromkeys(_FLOATS, _read_float),
    "string": _read_string,
    "hex": _read_hex,
    **dict.fromkeys(_BCD, _read_bcd),
    "bits": _read_bits,
}


# --- writing -------------------------------------------------------------------------------------


def encode(value: Json, type: str, words: str = "big", length: int | None = None) -> bytes:
    """The bytes of `value`. `length` in bytes fills string, hex and bits up with zeros, and makes whole registers of
    types of one byte.

    Raises: MappingError naming value, type and range. ValueError for an unknown type or order.
    """
    size = size_bytes(type)
    if words not in ORDERS:
        raise ValueError(f"'{words}' is no order; known are {', '.join(ORDERS)}")
    if size == 1:
        plain = _WRITE[type](value, type, "big")
        wide = max(length or 1, 1)
        filler = b"\xff" if type == "int8" and plain[0] & 0x80 else b"\0"
        return _ordered(plain.rjust(wide, filler), words)
    data = _WRITE[type](value, type, words)
    if length is None or size is not None:
        return data
    if len(data) > length:
        raise MappingError(f"{shown(value)} takes {_bytes(len(data))} as {type}; there is room for {length}")
    return _filled(data, length, words)


def _filled(data: bytes, length: int, words: str) -> bytes:
    if _is_byte_swapped(words) and len(data) % 2:
        data = data[:-1] + b"\0" + data[-1:]  # the last character stands in the second byte of its word
    return data[:length].ljust(length, b"\0")


def _number(value: Json, type: str) -> int | float:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        try:
            value = float(value) if any(sign in value for sign in ".eEnN") else int(value)
        except ValueError:
            raise MappingError(f"{shown(value)} is no number; {type} needs one") from None
    if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise MappingError(f"{shown(value)} is no number; {type} needs one")
    return value


def _whole(value: Json, type: str, low: int, high: int) -> int:
    number = _number(value, type)
    if number != int(number):
        raise MappingError(f"{shown(value)} is not whole; {type} takes whole numbers from {low} to {high}")
    if not low <= number <= high:
        raise MappingError(f"{shown(value)} is out of range; {type} goes from {low} to {high}")
    return int(number)


def _write_bool(value: Json, type: str, words: str) -> bytes:
    if isinstance(value, str) and value.lower() in ("true", "on", "yes", "false", "off", "no"):
        return b"\1" if value.lower() in ("true", "on", "yes") else b"\0"
    return b"\1" if _whole(value, type, 0, 1) else b"\0"


def _write_integer(value: Json, type: str, words: str) -> bytes:
    bits = 8 * _INTEGERS[type]
    low, high = (0, 2**bits - 1) if type[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    number = _whole(value, type, low, high)
    return _ordered(number.to_bytes(bits // 8, "big", signed=low < 0), words)


def _write_float(value: Json, type: str, words: str) -> bytes:
    number = _number(value, type)
    try:
        return _ordered(struct.pack(">" + _FLOATS[type][0], number), words)
    except (OverflowError, struct.error):  # the latter for whole numbers beyond any float
        limit = {"float16": "65504", "float32": "3.4e38", "float64": "1.8e308"}[type]
        raise MappingError(f"{shown(value)} is out of range; {type} goes from -{limit} to {limit}") from None


def _write_string(value: Json, type: str, words: str) -> bytes:
    text = value if isinstance(value, str) else shown(value)
    data = text.encode("utf-8", "replace")
    if not _is_byte_swapped(words):
        return data
    return _swap_bytes(data + b"\0" * (len(data) % 2))


def _write_hex(value: Json, type: str, words: str) -> bytes:
    try:
        return _ordered(bytes.fromhex(value.removeprefix("0x")), words)
    except (ValueError, AttributeError):
        raise MappingError(f'{shown(value)} is no hex; write two digits for each byte, such as "0a1b"') from None


def _write_bcd(value: Json, type: str, words: str) -> bytes:
    digits = 2 * _BCD[type]
    number = _whole(value, type, 0, 10**digits - 1)
    return _ordered(bytes.fromhex(f"{number:0{digits}d}"), words)


def _write_bits(value: Json, type: str, words: str) -> bytes:
    if not isinstance(value, list) or not all(isinstance(bit, bool) or bit in (0, 1) for bit in value):
        raise MappingError(f"{shown(value)} is no list of true and false, which bits needs")
    number = sum(1 << place for place, bit in enumerate(value) if bit)
    data = number.to_bytes(-(-len(value) // 8), "little")
    return data if _is_byte_swapped(words) else _swap_bytes(data)


_WRITE: Final[dict[str, Callable[[Json, str, str], bytes]]] = {
    "bool": _write_bool,
    **dict.fromkeys(_INTEGERS, _write_integer),
    **dict.fromkeys(_FLOATS, _write_float),
    "string": _write_string,
    "hex": _write_hex,
    **dict.fromkeys(_BCD, _write_bcd),
    "bits": _write_bits,
}
