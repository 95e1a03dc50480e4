"""Durations and sizes with their units."""

from __future__ import annotations

import math
import re
from typing import Final

_SECONDS: Final = {
    **dict.fromkeys(("ms",), 0.001),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
}
_BYTES: Final = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_AMOUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")
_MAX_CHARS = 60

_DURATION_UNITS = 'write a number with ms, s, min, h or d, such as "800 ms", "5 s", "1 min" or "30 d"'
_SIZE_UNITS = 'write a number with B, KiB, MiB, GiB, TiB (or kB, MB, GB, TB), such as "64 KiB" or "2 GiB"'


def parse_duration(text: str | int | float) -> float:
    """Seconds: "800 ms", "5 s", "1 min", "1 h", "30 d", "1 h 30 min", or a number of seconds.

    Raises: ValueError whose text says the units.
    """
    if isinstance(text, str):
        seconds = math.fsum(_amounts(text, _SECONDS, "duration", _DURATION_UNITS))
    else:
        seconds = _plain(text, "duration", _DURATION_UNITS)
    return round(seconds, 9)


def parse_size(text: str | int) -> int:
    """Bytes: "64 KiB", "2 GiB", "1 MB" (10^6), or a number of bytes. Raises: ValueError whose text says the units."""
    if isinstance(text, str):
        return round(sum(_amounts(text, _BYTES, "size", _SIZE_UNITS)))
    size = _plain(text, "size", _SIZE_UNITS)
    if size != int(size):
        raise ValueError(f"{text} is no size; {_SIZE_UNITS}")
    return int(size)


def format_duration(seconds: float) -> str:
    """The other way round, in the greatest unit that leaves a whole number: "30 d", "90 s", "2.5 s"."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds and seconds % length == 0:
            return f"{int(seconds // length)} {unit}"
    return f"{seconds * 1000:g} ms" if 0 < seconds < 1 else f"{seconds:g} s"


def format_size(size: int) -> str:
    """The other way round: "2 GiB", "1500 B"."""
    for unit, length in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size and size % length == 0:
            return f"{size // length} {unit}"
    return f"{size} B"


def _plain(number: int | float, what: str, units: str) -> float:
    """`number` if it is one, finite and not negative."""
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not 0 <= number < 10**15:
        raise ValueError(f"{number!r} is no {what}; {units}")
    return number


def _amounts(text: str, units: dict[str, float] | dict[str, int], what: str, explained: str) -> list[float]:
    """Each number times its unit. A number without a unit is the basic unit's, if it stands alone."""
    found: list[float] = []
    at = 0
    while at < len(text) or not found:
        amount = _AMOUNT.match(text, at) if len(text) <= _MAX_CHARS else None
        unit = amount[2].lower() if amount else ""
        is_alone = amount is not None and amount.span() == (0, len(text))
        if amount is None or (unit not in units and not (is_alone and not unit)):
            raise ValueError(f"'{text[:_MAX_CHARS]}' is no {what}; {explained}")
        found.append(float(amount[1]) * (units[unit] if unit else 1))
        at = amount.end()
    return found
