"""Types of values: `string`, `int`, `float`, `bool`, `json`, converted leniently; scaling.

What comes out is always storable: no NaN, no infinity, and whole numbers beyond 64 bits as their digits in a text, as
the core keeps them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import msgspec

from edge_gateway.mapping.interface import MappingError, NoValue
from edge_gateway.model import Json
from shared.errors import MalformedRequest
from shared.json_bodies import decode_json
from shared.lenient_json import NumberText
from shared.values import MAX_INT64, MIN_INT64, encodable, typed_number

TYPES: Final = ("string", "int", "float", "bool", "json")

_BOOLEANS: Final = {
    **dict.fromkeys(("true", "on", "yes", "1"), True),
    **dict.fromkeys(("false", "off", "no", "0"), False),
}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_MAX_DIGITS = 400  # of a number as text; longer ones are no measurement
_MAX_SHOWN_CHARS = 40


def shown(value: Json) -> str:
    """`value` as a message quotes it: JSON, shortened."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "…"


def convert(value: Json, type: str) -> Json:
    """`value` as `type`; "" leaves it. "12.5" is 12.5 for float; true/on/yes/1 is True for bool; a text is read as
    JSON for json.

    Raises: MappingError naming value and type; NoValue for null and NaN. ValueError for an unknown type.
    """
    return converter(type)(value)


def converter(type: str) -> Callable[[Json], Json]:
    """`convert` for one type. Raises: ValueError."""
    try:
        return _CONVERTERS[type]
    except KeyError:
        raise ValueError(f"'{type}' is no type; known are {', '.join(TYPES)}") from None


def by_look(text: str) -> Json:
    """A text without a type: a number if it is written as JSON writes it ("007" is not), true, false, or itself."""
    if _NUMBER.fullmatch(text) and len(text) <= _MAX_DIGITS:
        return typed_number(text)
    return {"true": True, "false": False}.get(text, text)


def _as_it_is(value: Json) -> Json:
    kind = type(value)
    if kind is str or kind is float or kind is bool:
        return value
    if kind is int:
        return value if MIN_INT64 <= value <= MAX_INT64 else _digits(value)
    if value is None:
        raise NoValue("null is no value")
    if kind is NumberText:
        return typed_number(value.text)
    try:
        return encodable(value)
    except MalformedRequest as error:
        raise MappingError(str(error)) from None


def _digits(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # thousands of digits
        raise MappingError("a whole number of more than 4000 digits") from None


def _to_string(value: Json) -> Json:
    value = _as_it_is(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _to_float(value: Json) -> Json:
    kind = type(value)
    if kind is float:
        number = value
    elif kind is int or kind is bool or kind is str or kind is NumberText:
        text = value.text if kind is NumberText else value
        try:
            number = float(text)
        except (ValueError, OverflowError):
            raise MappingError(f"{shown(value)} is no number, which float needs") from None
    elif value is None:
        raise NoValue("null is no value")
    else:
        raise MappingError(f"{shown(value)} is no number, which float needs")
    if math.isfinite(number):
        return number
    raise NoValue(f"{shown(value)} is no value")


def _to_int(value: Json) -> Json:
    if type(value) is not int:
        value = _whole(value)
    if MIN_INT64 <= value <= MAX_INT64:
        return value
    raise MappingError(f"{shown(value)} is out of range; int goes from {MIN_INT64} to {MAX_INT64}")


def _whole(value: Json) -> int:
    if isinstance(value, str):
        text = value.strip()
        if len(text) <= _MAX_DIGITS and text.removeprefix("-").removeprefix("+").isdecimal():
            return int(text)
    number = _to_float(value)
    if number != int(number):
        raise MappingError(f"{shown(value)} is not whole, which int needs; use float")
    return int(number)


def _to_bool(value: Json) -> Json:
    if type(value) is bool:
        return value
    if value is None:
        raise NoValue("null is no value")
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        return _BOOLEANS[value.strip().lower()]
    raise MappingError(f"{shown(value)} is neither true/on/yes/1 nor false/off/no/0, which bool needs")


def _to_json(value: Json) -> Json:
    if isinstance(value, str):
        try:
            value = decode_json(value.encode("utf-8", "replace"))
        except (MalformedRequest, ValueError):
            raise MappingError(f"{shown(value)} is no JSON") from None
    return _as_it_is(value)


_CONVERTERS: Final[dict[str, Callable[[Json], Json]]] = {
    "": _as_it_is,
    "string": _to_string,
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "json": _to_json,
}


# --- scaling -------------------------------------------------------------------------------------


def scaled(value: Json, scale: float = 1.0, offset: float = 0.0) -> Json:
    """`value * scale + offset` without the dust of binary fractions (1523 * 0.1 is 152.3); whole numbers stay whole
    where scale and offset are.

    Raises: MappingError when it is no number, or too great.
    """
    if scale == 1 and offset == 0:
        return value
    return _calculated(value, lambda number: number * _decimal(scale) + _decimal(offset), scale, offset)


def unscaled(value: Json, scale: float = 1.0, offset: float = 0.0) -> Json:
    """The way back: `(value - offset) / scale`; a whole result is an int. Raises: MappingError."""
    if scale == 1 and offset == 0:
        return value
    result = _calculated(value, lambda number: (number - _decimal(offset)) / _decimal(scale), 0.5, 0.0)
    return int(result) if isinstance(result, float) and result.is_integer() and abs(result) <= MAX_INT64 else result


def _calculated(value: Json, formula: Callable[[Decimal], Decimal], scale: float, offset: float) -> Json:
    number = value
    if isinstance(value, str) and len(value) <= _MAX_DIGITS and _NUMBER.fullmatch(value.strip()):
        number = float(value) if "." in value or "e" in value.lower() else int(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(_float(number)):
        raise MappingError(f"{shown(value)} is no number, which scale and offset need")
    exact = formula(_decimal(number))
    if isinstance(number, int) and float(scale).is_integer() and float(offset).is_integer():
        return _as_it_is(int(exact))
    result = _float(exact)
    if not math.isfinite(result):
        raise MappingError(f"{shown(value)} is too great to be scaled")
    return result


def _decimal(number: float) -> Decimal:
    return Decimal(number) if isinstance(number, int) else Decimal(repr(number))


def _float(number: int | float | Decimal) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def json_or_text(payload: bytes) -> Json:
    """What a device says in reply: JSON, else its text; nothing is None."""
    if not payload.strip():
        return None
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload.decode("utf-8", "replace")
