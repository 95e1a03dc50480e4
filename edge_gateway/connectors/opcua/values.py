"""Values of OPC UA as JSON, and JSON as values of a node's own type."""

from __future__ import annotations

import dataclasses
import enum
import math
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from edge_gateway.connectors.opcua.library import ua
from edge_gateway.mapping import values
from edge_gateway.mapping.interface import MappingError, NoValue
from edge_gateway.model import Json

_MAX_DEPTH: Final = 20


def to_json(value: Any, depth: int = 0) -> Json:
    """Arrays are lists, structures objects, times ISO 8601 in UTC, byte strings hex; what means nothing is None."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth >= _MAX_DEPTH:
        raise MappingError(f"the value is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, list | tuple):
        return [to_json(one, depth + 1) for one in value]
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, uuid.UUID):
        return str(value)
    return _of_ua(value, depth)


def _of_ua(value: Any, depth: int) -> Json:
    if isinstance(value, ua.Variant):
        return to_json(value.Value, depth + 1)
    if isinstance(value, ua.DataValue):
        return to_json(value.Value, depth + 1)
    if isinstance(value, ua.LocalizedText):
        return value.Text
    if isinstance(value, ua.QualifiedName):
        return value.Name
    if isinstance(value, ua.NodeId):
        return value.to_string()
    if isinstance(value, ua.StatusCode):
        return value.name
    if dataclasses.is_dataclass(value):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: to_json(one, depth + 1) for name, one in fields if name not in ("Encoding", "TypeId")}
    raise MappingError(f"a {type(value).__name__} has no form in JSON")


def converted(value: Any, type: str, scale: float, offset: float) -> Json:
    """What is sent. Raises: MappingError, NoValue."""
    plain = to_json(value)
    if plain is None:
        raise NoValue("the node has no value")
    return values.scaled(values.convert(plain, type), scale, offset)


_WHOLE: Final = {
    ua.VariantType.SByte: (-(2**7), 2**7 - 1),
    ua.VariantType.Byte: (0, 2**8 - 1),
    ua.VariantType.Int16: (-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: (0, 2**16 - 1),
    ua.VariantType.Int32: (-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: (0, 2**32 - 1),
    ua.VariantType.Int64: (-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: (0, 2**64 - 1),
}


def to_variant(value: Json, type: Any) -> Any:
    """`value` as `type`, a list as an array of it. Raises: MappingError naming value and type."""
    if isinstance(value, list):
        return ua.Variant([_one(each, type) for each in value], type, is_array=True)
    return ua.Variant(_one(value, type), type)


def _one(value: Json, type: Any) -> Any:
    if type in _WHOLE:
        low, high = _WHOLE[type]
        number = values.convert(value, "int")
        if not low <= number <= high:
            raise MappingError(f"{number} is out of range; {type.name} goes from {low} to {high}")
        return number
    if type is ua.VariantType.Boolean:
        return values.convert(value, "bool")
    if type in (ua.VariantType.Float, ua.VariantType.Double):
        return values.convert(value, "float")
    if type is ua.VariantType.String:
        return values.convert(value, "string")
    if type is ua.VariantType.LocalizedText:
        return ua.LocalizedText(values.convert(value, "string"))
    try:
        if type is ua.VariantType.DateTime:
            return datetime.fromisoformat(value).astimezone(UTC).replace(tzinfo=None)
        if type is ua.VariantType.ByteString:
            return bytes.fromhex(value)
        if type is ua.VariantType.Guid:
            return uuid.UUID(value)
    except (TypeError, ValueError, AttributeError):
        raise MappingError(f"{values.shown(value)} is no {type.name}") from None
    raise MappingError(f"values of the type {type.name} cannot be written")
