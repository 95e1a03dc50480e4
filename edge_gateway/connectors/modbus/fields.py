"""A value in registers or coils: how it is read and how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_gateway.connectors.modbus.addresses import Address, parse_address, shown_place
from edge_gateway.mapping import values, words
from edge_gateway.mapping.interface import MappingError
from edge_gateway.model import Json

MAX_REGISTERS: Final = 125
MAX_BITS: Final = 2000
MAX_WRITTEN_REGISTERS: Final = 123
MAX_WRITTEN_BITS: Final = 1968

Raw = bytes | list[bool]
"""What a request brings: registers as two bytes each, the higher first; coils and discrete inputs as booleans."""

_UNSCALED: Final = ("string", "bool", "hex", "bits")


@dataclass(frozen=True, slots=True)
class Field:
    """`count` registers or bits from `address.first` on, of a type."""

    address: Address
    count: int
    type: str
    words: str
    scale: float
    offset: float
    base: int

    @property
    def place(self) -> str:
        place = shown_place(self.address.table, self.address.first, self.count, self.base)
        return place if self.address.bit is None else f"{place}.{self.address.bit}"

    def decode(self, raw: Raw) -> Json:
        """Raises: MappingError, NoValue."""
        if isinstance(raw, list):
            bits: Json = list(raw) if self.count > 1 else raw[0]
            return int(bits) if self.type.startswith(("int", "uint")) else bits
        if self.address.bit is not None:
            return bool(int.from_bytes(raw, "big") >> self.address.bit & 1)
        return values.scaled(values.convert(words.decode(raw, self.type, self.words), ""), self.scale, self.offset)

    def encode(self, value: Json) -> Raw:
        """What is to be written; one boolean for a bit of a register. Raises: MappingError."""
        if self.address.table.is_bits:
            given = value if self.count > 1 else [value]
            if not isinstance(given, list) or len(given) != self.count:
                raise MappingError(
                    f"{values.shown(value)} is no list of {self.count} booleans, which {self.place} needs"
                )
            return [bool(values.convert(one, "bool")) for one in given]
        if self.address.bit is not None:
            return [bool(values.convert(value, "bool"))]
        number = values.unscaled(value, self.scale, self.offset)
        if isinstance(number, float) and self.type.startswith(("int", "uint", "bcd")) and self.scale != 1:
            number = round(number)  # between two steps of the scale: the nearest
        return words.encode(number, self.type, self.words, self.count * 2)


def make_field(
    at: str, type: str, order: str, scale: float, offset: float, bit: int | None, base: int, *, is_written: bool = False
) -> Field:
    """Raises: ValueError whose text says the fix."""
    address = parse_address(at, base)
    if bit is not None:
        address = _with_bit(at, address, bit)
    if order not in words.ORDERS:
        raise ValueError(f"'{order}' is no order of words; known are {', '.join(words.ORDERS)}")
    if is_written and not address.table.is_writable:
        raise ValueError(f"'{at}' cannot be written; only coil and holding can")
    if address.table.is_bits:
        count = address.count or 1
        type = _type_of_bits(at, type, count)
    elif address.bit is not None:
        count = 1
        if type not in ("", "bool"):
            raise ValueError(f"'{at}' is one bit: leave `as` out, or write as = \"bool\"")
        type = "bool"
    else:
        type = type or "uint16"
        count = _registers(at, address, type)
    _check_size(at, address, count, is_written)
    if (scale, offset) != (1, 0) and type in _UNSCALED:
        raise ValueError(f"scale and offset need a number, not {type}")
    if scale == 0:
        raise ValueError("scale = 0 would make every value the same; leave it out or give a factor")
    return Field(address, count, type, order, scale, offset, base)


def _with_bit(at: str, address: Address, bit: int) -> Address:
    if address.table.is_bits or address.bit is not None or (address.count or 1) != 1 or not 0 <= bit <= 15:
        raise ValueError(f"bit = {bit} does not fit '{at}'; it picks one of the bits 0 to 15 of one register")
    return Address(address.table, address.first, 1, bit)


def _type_of_bits(at: str, type: str, count: int) -> str:
    if count > 1:
        if type not in ("", "bits"):
            raise ValueError(f"'{at}' gives a list of booleans; leave `as` out")
        return "bits"
    if type in ("", "bool") or type.startswith(("int", "uint")):
        return type or "bool"
    raise ValueError(f"'{at}' is one bit; as = \"bool\" or an integer, not {type}")


def _registers(at: str, address: Address, type: str) -> int:
    size = words.size_bytes(type)
    if size is None:
        if address.count is None and type != "bits":
            raise ValueError(f"{type} needs a range of registers; write it as in holding:0-7, not '{at}'")
        return address.count or 1
    needed = max(1, size // 2)
    if address.count not in (None, needed):
        raise ValueError(f"{type} takes {needed} register{'s' if needed > 1 else ''}; '{at}' has {address.count}")
    return needed


def _check_size(at: str, address: Address, count: int, is_written: bool) -> None:
    if address.table.is_bits:
        limit = MAX_WRITTEN_BITS if is_written else MAX_BITS
    else:
        limit = MAX_WRITTEN_REGISTERS if is_written else MAX_REGISTERS
    if count > limit:
        raise ValueError(f"'{at}' is {count} long; one request carries at most {limit}. Split it into several keys")
    if address.first + count > 65_536:
        raise ValueError(f"'{at}' reaches beyond the last register")
