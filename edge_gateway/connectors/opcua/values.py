"""Values of OPC UA as JSON, and JSON as values of a node's own type."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import math
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from edge_gateway.connectors.opcua.library import ua
from edge_gateway.mapping import words
from edge_gateway.mapping.interface import MappingError
from edge_gateway.mapping.values import convert, shown
from edge_gateway.model import Json

_MAX_DEPTH: Final = 32


def of_variant(variant: Any) -> Json:
    """`as_json` of a Variant's value; a Float is the shortest number that it can be: 21.1, not 21.100000381469727."""
    if variant is None:
        return None
    json = as_json(variant.Value)
    return _short(json) if variant.VariantType is ua.VariantType.Float else json


def _short(value: Json) -> Json:
    if type(value) is list:
        return [_short(one) for one in value]
    return words.decode(struct.pack(">f", value), "float32", "big") if type(value) is float else value


def as_json(value: Any, depth: int = 0) -> Json:
    """DateTime as ISO 8601, ByteString as base64, Guid, NodeId and QualifiedName as their text, LocalizedText as its
    text, StatusCode as its name, enumerations as their number, structures as objects.

    NaN and infinity are null. Raises: MappingError when it is nested too deeply.
    """
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if value is None or kind is int or kind is bool or kind is str:
        return value
    if depth > _MAX_DEPTH:
        raise MappingError(f"the value is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, list | tuple):
        return [as_json(one, depth + 1) for one in value]
    return _special(value, depth)


def _special(value: Any, depth: int) -> Json:
    for kind, text in _TEXTS:
        if isinstance(value, kind):
            return text(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        return as_json(float(value), depth)
    if isinstance(value, ua.Variant | ua.DataValue):
        return as_json(value.Value, depth + 1)
    if isinstance(value, ua.ExtensionObject):  # of a type that the server does not describe
        return {"type": value.TypeId.to_string(), "body": _base64(value.Body or b"")}
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.name != "Encoding"]
        return {name: as_json(getattr(value, name), depth + 1) for name in fields}
    return str(value)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _iso(value: datetime) -> str:
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    text = aware.astimezone(UTC).isoformat(timespec="microseconds" if aware.microsecond % 1000 else "milliseconds")
    return text.replace("+00:00", "Z")


_TEXTS: Final[tuple[tuple[Any, Callable[[Any], Json]], ...]] = (
    (str, str),
    (bytes, _base64),
    (datetime, _iso),
    (uuid.UUID, str),
    (ua.LocalizedText, lambda value: value.Text),
    (ua.QualifiedName, lambda value: value.to_string()),
    (ua.NodeId, lambda value: value.to_string()),
    (ua.StatusCode, lambda value: value.name),
)


def epoch_ms(value: datetime | None) -> int | None:
    """Milliseconds of a timestamp; None for one that cannot be meant (before 1970, or the end of time)."""
    if value is None or value.year >= 9999:
        return None
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    milliseconds = round(aware.timestamp() * 1000)
    return milliseconds if milliseconds > 0 else None


# --- JSON to a node's type -----------------------------------------------------------------------

_RANGES: Final = {
    ua.VariantType.SByte: (-(2**7), 2**7 - 1),
    ua.VariantType.Byte: (0, 2**8 - 1),
    ua.VariantType.Int16: (-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: (0, 2**16 - 1),
    ua.VariantType.Int32: (-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: (0, 2**32 - 1),
    ua.VariantType.Int64: (-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: (0, 2**64 - 1),
}


def as_variant(value: Json, kind: Any, *, is_array: bool, template: Any = None) -> Any:
    """`value` as a Variant of the VariantType `kind`. `template` is a structure of the type that is wanted, of which
    `value` may replace some fields. Raises: MappingError naming what the node takes."""
    if is_array:
        if not isinstance(value, list):
            raise MappingError(f"{shown(value)} is no array, which the node takes")
        return ua.Variant(_elements(value, kind, template), kind, is_array=True)
    return ua.Variant(_single(value, kind, template), kind)


def _elements(values: list[Json], kind: Any, template: Any) -> list[Any]:
    return [_elements(one, kind, template) if isinstance(one, list) else _single(one, kind, template) for one in values]


def _single(value: Json, kind: Any, template: Any) -> Any:
    try:
        if kind in _RANGES:
            return _whole(value, kind)
        if kind is ua.VariantType.ExtensionObject:
            return _structure(value, template)
        if kind in _FROM_JSON:
            return _FROM_JSON[kind](value)
    except (ValueError, TypeError, AttributeError, OverflowError, binascii.Error, ua.UaError):
        raise MappingError(f"{shown(value)} is no {kind.name}, which the node takes{_HINTS.get(kind, '')}") from None
    raise MappingError(f"a node of the type {kind.name} cannot be written from here")


def _whole(value: Json, kind: Any) -> int:
    low, high = _RANGES[kind]
    whole = value if type(value) is int else int(value) if isinstance(value, str) else convert(value, "int")
    if not low <= whole <= high:
        raise MappingError(f"{shown(value)} is out of range; {kind.name} goes from {low} to {high}")
    return int(whole)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else str(convert(value, "string"))


def _moment(value: Json) -> datetime:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(value / 1000, UTC)
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _structure(value: Json, template: Any) -> Any:
    if not dataclasses.is_dataclass(template) or isinstance(template, type | ua.ExtensionObject):
        raise MappingError("the server does not describe this structure, so that it cannot be written")
    if not isinstance(value, dict):
        raise MappingError(f"{shown(value)} is no object, which the node takes")
    known = {field.name for field in dataclasses.fields(template)} - {"Encoding"}
    unknown = sorted(set(value) - known)
    if unknown:
        raise MappingError(f"the structure has no '{unknown[0]}'; it has {', '.join(sorted(known))}")
    return dataclasses.replace(template, **{name: _like(one, getattr(template, name)) for name, one in value.items()})


def _like(value: Json, template: Any) -> Any:
    """`value` as the type of the field that it replaces."""
    kind = type(template)
    if template is None or kind in (list, tuple):
        return value
    if isinstance(template, Enum):
        return kind(value)
    if dataclasses.is_dataclass(template) and not isinstance(template, ua.LocalizedText | ua.NodeId):
        return _structure(value, template)
    for variant in (kind for kind, python in _PYTHON.items() if type(template) is python):
        return _single(value, variant, None)
    return _single(value, ua.Variant(template).VariantType, None)


_PYTHON: Final = {ua.VariantType.Int64: int, ua.VariantType.Double: float}
_HINTS: Final = {
    ua.VariantType.DateTime: '; write "2027-01-31T12:00:00Z" or milliseconds',
    ua.VariantType.ByteString: "; write it in base64",
}
_FROM_JSON: Final[dict[Any, Callable[[Json], Any]]] = {
    ua.VariantType.Boolean: lambda value: convert(value, "bool"),
    ua.VariantType.Float: lambda value: convert(value, "float"),
    ua.VariantType.Double: lambda value: convert(value, "float"),
    ua.VariantType.String: _text,
    ua.VariantType.XmlElement: lambda value: ua.XmlElement(_text(value)),
    ua.VariantType.DateTime: _moment,
    ua.VariantType.Guid: lambda value: uuid.UUID(value),
    ua.VariantType.ByteString: lambda value: base64.b64decode(value, validate=True),
    ua.VariantType.NodeId: lambda value: ua.NodeId.from_string(value),
    ua.VariantType.ExpandedNodeId: lambda value: ua.NodeId.from_string(value),
    ua.VariantType.QualifiedName: lambda value: ua.QualifiedName.from_string(value),
    ua.VariantType.LocalizedText: lambda value: ua.LocalizedText(_text(value)),
    ua.VariantType.StatusCode: lambda value: ua.StatusCode(_whole(value, ua.VariantType.UInt32)),
}
