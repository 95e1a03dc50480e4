"""Where a value stands: `holding:100`, `input:0-7`, `coil:7`, `holding:5.3`, `40101`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LAST: Final = 65_535


class Table(StrEnum):
    """The four tables of a slave."""

    COIL = "coil"
    DISCRETE = "discrete"
    HOLDING = "holding"
    INPUT = "input"

    @property
    def is_bits(self) -> bool:
        return self in (Table.COIL, Table.DISCRETE)

    @property
    def is_writable(self) -> bool:
        return self in (Table.COIL, Table.HOLDING)


_TABLES: Final = {
    **{table.value: table for table in Table},
    **{f"{table.value}s": table for table in Table},
    "hr": Table.HOLDING,
    "ir": Table.INPUT,
    "di": Table.DISCRETE,
    "co": Table.COIL,
}
_MODICON: Final = {"0": Table.COIL, "1": Table.DISCRETE, "3": Table.INPUT, "4": Table.HOLDING}

_PLACE = re.compile(r"([a-z]+)\s*:\s*(0x[0-9a-f]+|\d+)(?:\s*-\s*(0x[0-9a-f]+|\d+)|\.(\d+))?", re.IGNORECASE)
_MODICON_PLACE = re.compile(r"([0134])x?(\d{4,5})(?:\s*-\s*([0134])x?(\d{4,5})|\.(\d+))?", re.IGNORECASE)
_EXAMPLES = (
    "write holding:100, input:100, coil:7 or discrete:7, a range such as holding:0-7, a bit such as holding:5.3, "
    "or the Modicon number 40101"
)


@dataclass(frozen=True, slots=True)
class Address:
    """`first` is the number on the wire, from 0; `count` None: as many as the type needs."""

    table: Table
    first: int
    count: int | None
    bit: int | None = None


def parse_address(text: str, base: int = 0) -> Address:
    """`base` is the number of the first register in `table:number`; Modicon numbers begin with 1 whatever it is.

    Raises: ValueError whose text says how to write it.
    """
    stripped = text.strip()
    if found := _MODICON_PLACE.fullmatch(stripped):
        table = _MODICON[found[1]]
        if found[3] is not None and found[3] != found[1]:
            raise ValueError(f"'{text}' begins in one table and ends in another; {_EXAMPLES}")
        return _address(text, table, int(found[2]) - 1, _number(found[4], 1), found[5])
    found = _PLACE.fullmatch(stripped)
    if found is None or found[1].lower() not in _TABLES:
        raise ValueError(f"'{text}' is no place in a slave; {_EXAMPLES}")
    first, last = _number(found[2], base), _number(found[3], base)
    assert first is not None
    if first < 0:
        raise ValueError(f"'{text}' lies before the first register, which is {base} here (`base = {base}`)")
    return _address(text, _TABLES[found[1].lower()], first, last, found[4])


def _number(text: str | None, base: int) -> int | None:
    return None if text is None else int(text, 16 if text.lower().startswith("0x") else 10) - base


def _address(text: str, table: Table, first: int, last: int | None, bit: str | None) -> Address:
    if not 0 <= first <= (first if last is None else last) <= LAST:
        raise ValueError(f"'{text}' goes from 0 to {LAST} on the wire, and a range ends behind its beginning")
    if bit is None:
        return Address(table, first, None if last is None else last - first + 1)
    if table.is_bits:
        raise ValueError(f"'{text}': a {table} is one bit already; leave .{bit} out")
    if int(bit) > 15:
        raise ValueError(f"'{text}': a register has the bits 0 to 15, the lowest is 0")
    return Address(table, first, 1, int(bit))


def shown_place(table: Table, first: int, count: int, base: int) -> str:
    """The place as the settings write it."""
    number = first + base
    return f"{table}:{number}" if count == 1 else f"{table}:{number}-{number + count - 1}"


def parse_units(text: str) -> list[int]:
    """`"1-32,40"`. Raises: ValueError."""
    units: dict[int, None] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,3})\s*(?:-\s*(\d{1,3})\s*)?", part)
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not low <= high <= 255:
            raise ValueError(f"'{text}' is no list of units; write numbers from 0 to 255, such as \"1-32,40\"")
        units.update(dict.fromkeys(range(low, high + 1)))
    return list(units)
