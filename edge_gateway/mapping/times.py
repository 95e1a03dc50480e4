"""The source's own time: numbers of seconds or milliseconds, ISO 8601, or a `strptime` format."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from edge_gateway.mapping.interface import MappingError
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.mapping.values import shown
from edge_gateway.model import Json

_YEARS = ("%Y", "%y", "%G", "%c", "%x", "%D", "%F")
_UP_TO_S, _UP_TO_MS, _UP_TO_US = 1e11, 1e14, 1e17  # the year 5138 in each unit

TimeReader = Callable[[Json], int]


def time_reader(format: str) -> TimeReader:
    """Milliseconds since 1970 (UTC) from what stands in a message; raises MappingError there.

    Raises: MappingProblems for a format that is none.
    """
    if format in _BY_NAME:
        return _BY_NAME[format]
    if "%" not in format:
        raise MappingProblems.of(
            f"'{format}' is no ts_format; write ms, s, iso8601, or a format such as \"%d.%m.%Y %H:%M:%S\", "
            "or leave it out to have it told by its look"
        )
    if not any(year in format for year in _YEARS):
        raise MappingProblems.of(f"'{format}' has no year; a ts_format needs one, such as %Y")
    try:
        datetime.strptime(datetime(2024, 2, 29, 12, tzinfo=UTC).strftime(format), format)
    except ValueError as error:
        raise MappingProblems.of(f"'{format}' is no format of date and time: {error}") from None
    return lambda value: _by_format(value, format)


def _number(value: Json) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value) if len(value) < 30 else None
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e30 else None  # NaN too


def _in_ms(value: Json) -> int:
    number = _number(value)
    if number is None:
        raise MappingError(f"{shown(value)} is no number of milliseconds")
    return int(number)


def _in_s(value: Json) -> int:
    number = _number(value)
    if number is None:
        raise MappingError(f"{shown(value)} is no number of seconds")
    return round(number * 1000)


def _by_look(value: Json) -> int:
    number = _number(value)
    if number is None:
        return _instant(value, needs_zone=True)
    size = abs(number)
    if size < _UP_TO_S:
        return round(number * 1000)
    if size < _UP_TO_MS:
        return int(number)
    return int(number // (1000 if size < _UP_TO_US else 1_000_000))


def _iso8601(value: Json) -> int:
    return _instant(value, needs_zone=False)


def _instant(value: Json, *, needs_zone: bool) -> int:
    try:
        instant = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        instant = None
    if instant is None:
        raise MappingError(
            f"{shown(value)} is no time; expected seconds or milliseconds since 1970, or such as 2026-05-01T12:00:00Z"
        )
    if instant.tzinfo is None and needs_zone:
        raise MappingError(f'{shown(value)} has no time zone; ts_format = "iso8601" takes such times for UTC')
    return _ms_of(instant)


def _by_format(value: Json, format: str) -> int:
    try:
        return _ms_of(datetime.strptime(value.strip() if isinstance(value, str) else shown(value), format))
    except (ValueError, OverflowError):
        raise MappingError(f"{shown(value)} is no time of the form {format}") from None


def _ms_of(instant: datetime) -> int:
    """Milliseconds; a time without a zone is UTC."""
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    delta = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


_BY_NAME: Final[dict[str, TimeReader]] = {"": _by_look, "ms": _in_ms, "s": _in_s, "iso8601": _iso8601}
