"""Values of telemetry points and attributes: their typing, their names, their stored form.

Decoded JSON becomes a `Value` by ThingsBoard's rules; a `Value` becomes bytes for the store, text for
ThingsBoard's "latest" strings and JSON for REST. The shapes of messages are in `payloads`.

Source: wire-contract.md section 7.1 (ThingsBoard `JsonConverter`, `KvUtils`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from shared.errors import MalformedRequest
from shared.lenient_json import NumberText
from shared.messages import JsonValue, Scalar, Value

MAX_KEY_CHARS = 255  # ThingsBoard: KvUtils
MAX_VALUE_DEPTH = 32  # of an object or array inside a value
MIN_INT32 = -(2**31)
MAX_INT32 = 2**31 - 1
MIN_INT64 = -(2**63)
MAX_INT64 = 2**63 - 1

_MAX_DECIMALS = 16  # more become a string; ThingsBoard: JsonConverter
_MAX_PLAIN_CHARS = 1024  # a number written out longer (1E+999999999) keeps its text instead
_MAX_EXPONENT_CHARS = 7
_MAX_INT64_DIGITS = 19
_JSON_EXT = 1  # MessagePack extension code of a JsonValue

_INTEGER = re.compile(r"-?[0-9]{1,10}")
_NUMBER_PARTS = re.compile(r"(-?)(?=\.?[0-9])([0-9]*+)(?:\.([0-9]*+))?(?:[eE]([+-]?[0-9]++))?")
_NUMERIC = re.compile(r"-?(?:[0-9]++(?:\.[0-9]++)?|\.[0-9]++)")
_MARKUP = re.compile(r"<[A-Za-z!/?]")

_DIGITS = frozenset("0123456789")
_NUMBER_STARTS = _DIGITS | {"-", "."}

_MAX_REMEMBERED_KEYS = 4096  # at most 255 characters each: about 4 MB if a peer fills it with junk

# Names found storable, whoever sent them. A cache and nothing else: emptying it is harmless.
_storable_keys: set[str] = set()

BadKeySink = Callable[[str], object]
"""Called with each dropped key: untrusted text of any length, to be counted rather than logged."""


# --- names ---------------------------------------------------------------------------------------


def looks_like_markup(text: str) -> bool:
    """Whether a browser would see a tag, comment or instruction in `text`.

    Source: wire-contract.md section 1.9 (ThingsBoard `NoXss`).
    """
    return _MARKUP.search(text) is not None


def is_storable_key(key: str) -> bool:
    """Whether telemetry or an attribute may have this name.

    Not blank, at most 255 characters, no markup, and no NUL, which PostgreSQL cannot store.
    """
    if key in _storable_keys:
        return True
    if len(key) > MAX_KEY_CHARS or not key.strip() or "\0" in key or looks_like_markup(key):
        return False
    if len(_storable_keys) >= _MAX_REMEMBERED_KEYS:
        _storable_keys.clear()
    _storable_keys.add(key)
    return True


# --- typing --------------------------------------------------------------------------------------


def typed_number(text: str) -> int | float | str:
    """The value of a number by its written form: a long, a double, or its digits as a string.

    `text` is a JSON number or one with leading zeros or no digit before the point. `1E+1` is 10,
    `1.0` is a double, an integer beyond 64 bits or more than 16 decimal places stay text.
    """
    parts = _NUMBER_PARTS.fullmatch(text)
    if parts is None:
        return text
    sign, whole, fraction, exponent = parts.groups("")
    if len(exponent) > _MAX_EXPONENT_CHARS:
        return text
    digits = (whole + fraction).lstrip("0")
    scale = len(fraction) - int(exponent or 0)  # the value is digits / 10 ** scale
    is_integral = not digits or scale <= len(digits) - len(digits.rstrip("0"))
    if is_integral and (exponent or "." not in text):
        return _typed_integer(text, sign, digits, scale)
    number = float(text) if scale <= _MAX_DECIMALS else math.inf
    return number if math.isfinite(number) else _written_out(text, sign, digits, scale)


def _typed_integer(text: str, sign: str, digits: str, scale: int) -> int | str:
    if not digits:
        return 0
    if len(digits) - scale <= _MAX_INT64_DIGITS:
        unsigned = digits[: len(digits) - scale] if scale > 0 else digits + "0" * -scale
        number = int(sign + unsigned)
        if MIN_INT64 <= number <= MAX_INT64:
            return number
    return _written_out(text, sign, digits, scale)


def _written_out(text: str, sign: str, digits: str, scale: int) -> str:
    """The number without exponent, as Java's `BigDecimal.toPlainString`; `text` if that is too long."""
    if len(digits) + abs(scale) > _MAX_PLAIN_CHARS:
        return text
    if scale <= 0:
        return sign + digits + "0" * -scale
    padded = digits.rjust(scale + 1, "0")
    return f"{sign}{padded[:-scale]}.{padded[-scale:]}"


def typed_text(text: str) -> int | float | str:
    """A JSON string: a number if it looks like one (`"007"` is 7), else itself."""
    return typed_number(text) if _NUMERIC.fullmatch(text) else text


def int32(text: str, what: str) -> int:
    """Decimal digits of a topic or path. Raises: MalformedRequest, which begins with `what`."""
    if _INTEGER.fullmatch(text) and MIN_INT32 <= int(text) <= MAX_INT32:
        return int(text)
    raise MalformedRequest(f"{what} must be a 32-bit integer.")


def typed_member(value: object) -> object:
    """Decoded JSON where a number is expected: numbers and what looks like one by their value, all else as it is."""
    if isinstance(value, NumberText):
        return typed_number(value.text)
    return typed_text(value) if isinstance(value, str) else value


def milliseconds(value: object) -> int | None:
    """Decoded JSON as a time: any number or numeric text within 64 bits, whose fraction is cut off; else None."""
    value = typed_member(value)
    if isinstance(value, float) and MIN_INT64 <= value < MAX_INT64:
        value = int(value)
    return value if type(value) is int and MIN_INT64 <= value <= MAX_INT64 else None


def typed_value(value: Any) -> Value:  # Any: decoded JSON
    """Decoded JSON other than null as it is stored.

    Raises: MalformedRequest if it nests deeper than 32 levels.
    """
    kind = type(value)
    if kind is str:
        return typed_text(value)
    if kind is int:
        return int(value) if MIN_INT64 <= value <= MAX_INT64 else str(value)
    if kind is NumberText:
        return typed_number(value.text)
    if kind is dict or kind is list:
        return JsonValue(msgspec.json.encode(encodable(value)).decode())
    scalar: Scalar = value
    return scalar


def encodable(value: Any, levels: int = MAX_VALUE_DEPTH) -> Any:  # Any: decoded JSON
    """`value` with every number that msgspec would change or refuse replaced by its text."""
    kind = type(value)
    if kind is dict or kind is list:
        if not levels:
            raise MalformedRequest(f"A value is nested deeper than {MAX_VALUE_DEPTH} levels; flatten it.")
        if kind is dict:
            return {name: encodable(member, levels - 1) for name, member in value.items()}
        return [encodable(element, levels - 1) for element in value]
    if kind is NumberText:
        return msgspec.Raw(value.text.encode())
    if kind is int and not MIN_INT64 <= value <= MAX_INT64:
        return msgspec.Raw(str(value).encode())
    return value


def typed_values(members: dict[str, Any], on_bad_key: BadKeySink | None = None) -> dict[str, Value]:
    """Every member with a storable name and a value other than null; `members` itself if that is all.

    The common message changes nothing: known names; short numbers, words and booleans. It is on the
    path of every telemetry message, hence the plain loop: about 0.06 µs per value.

    Raises: MalformedRequest if a value nests deeper than 32 levels.
    """
    for key, value in members.items():
        if key in _storable_keys:
            kind = type(value)
            if kind is float or kind is bool:
                continue
            if kind is int:
                if MIN_INT64 <= value <= MAX_INT64:
                    continue
            elif kind is str and (value[-1:] not in _DIGITS or value[0] not in _NUMBER_STARTS):
                continue
        return _retyped_values(members, on_bad_key)
    return members


def _retyped_values(members: dict[str, Any], on_bad_key: BadKeySink | None) -> dict[str, Value]:
    typed: dict[str, Value] = {}
    for key, value in members.items():
        if not is_storable_key(key):
            if on_bad_key is not None:
                on_bad_key(key)
        elif value is not None:
            typed[key] = typed_value(value)
    return typed


# --- stored and shown forms ----------------------------------------------------------------------


def _from_extension(code: int, data: memoryview) -> JsonValue:
    if code != _JSON_EXT:
        raise ValueError(f"unknown MessagePack extension {code}")
    return JsonValue(str(data, "utf-8"))


_encode = msgspec.msgpack.Encoder().encode
_decode_value = msgspec.msgpack.Decoder(ext_hook=_from_extension).decode
_decode_document = msgspec.msgpack.Decoder(dict[int, Any], ext_hook=_from_extension).decode


def _packable(value: Value) -> Scalar | msgspec.msgpack.Ext:
    # msgspec writes a dataclass as a map and asks no hook about it.
    return msgspec.msgpack.Ext(_JSON_EXT, value.text.encode()) if isinstance(value, JsonValue) else value


def encode_value(value: Value) -> bytes:
    """MessagePack: bool, int64, float64, str, or extension 1 with the UTF-8 text of a JsonValue."""
    return _encode(_packable(value))


def decode_value(data: bytes) -> Value:
    """The inverse of `encode_value`."""
    value: Value = _decode_value(data)
    return value


def encode_document(document: dict[int, Value]) -> bytes:
    """MessagePack map from key id to value, each value as in `encode_value`."""
    if JsonValue in map(type, document.values()):
        return _encode({key_id: _packable(value) for key_id, value in document.items()})
    return _encode(document)


def decode_document(data: bytes) -> dict[int, Value]:
    """The inverse of `encode_document`."""
    return _decode_document(data)


def value_to_json(value: Value) -> Scalar | msgspec.Raw:
    """What `msgspec.json.encode` writes as the value's JSON."""
    return msgspec.Raw(value.text.encode()) if isinstance(value, JsonValue) else value


def value_to_text(value: Value) -> str:
    """ThingsBoard's string form of a latest value: `3.0`, `4`, `true`, JSON without spaces."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.text if isinstance(value, JsonValue) else str(value)
