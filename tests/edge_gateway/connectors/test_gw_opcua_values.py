"""Values of OPC UA as JSON and back."""

from __future__ import annotations

import dataclasses
import math
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from edge_gateway.connectors.opcua.library import ua
from edge_gateway.connectors.opcua.values import as_json, as_variant, epoch_ms, of_variant
from edge_gateway.mapping.interface import MappingError

Kind: Any = ua.VariantType
GUID = "6fa459ea-ee8a-3ca4-894e-db77e160355e"


@dataclasses.dataclass
class Point:
    """A structure as the library makes them."""

    X: Any = 1.5
    Count: Any = 2
    Name: Any = "n"


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (None, None),
        (True, True),
        (2**63, 2**63),
        ([1, [2.5, math.nan]], [1, [2.5, None]]),
        (datetime(2026, 1, 2, 3, 4, 5, 678000), "2026-01-02T03:04:05.678Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), "2026-01-02T03:04:05.678901Z"),
        (uuid.UUID(GUID), GUID),
        (b"ab", "YWI="),
        (ua.LocalizedText("warm", "en"), "warm"),
        (ua.LocalizedText(None), None),
        (ua.QualifiedName("Temp", 2), "2:Temp"),
        (ua.NodeId("a", 2), "ns=2;s=a"),
        (ua.StatusCode(ua.StatusCodes.BadTimeout), "BadTimeout"),
        (ua.ServerState.Suspended, 3),
        (ua.Variant(7, Kind.Int16), 7),
        (Point(), {"X": 1.5, "Count": 2, "Name": "n"}),
        (ua.ExtensionObject(ua.NodeId(9, 2), b"ab"), {"type": "ns=2;i=9", "body": "YWI="}),
    ],
)
def test_each_type_has_its_json(value: Any, json: Any) -> None:
    """Times are ISO 8601, bytes base64, structures objects, enumerations numbers."""
    assert as_json(value) == json


def test_a_float_is_its_shortest_number() -> None:
    """A Float has no digits that its width cannot have; a Double keeps them all."""
    assert of_variant(ua.Variant([21.100000381469727, math.nan], Kind.Float)) == [21.1, None]
    assert of_variant(ua.Variant(21.100000381469727, Kind.Double)) == 21.100000381469727
    assert of_variant(None) is None


def test_endless_nesting_is_refused() -> None:
    """A value is at most 32 levels deep."""
    value: Any = 1
    for _ in range(40):
        value = [value]
    with pytest.raises(MappingError, match="more than 32 levels"):
        as_json(value)


def test_times_that_cannot_be_meant_are_none() -> None:
    """The beginning and the end of OPC UA's time stand for no time."""
    assert epoch_ms(datetime(2026, 1, 1, tzinfo=UTC)) == 1_767_225_600_000
    assert epoch_ms(datetime(2026, 1, 1)) == 1_767_225_600_000
    assert epoch_ms(datetime(1601, 1, 1, tzinfo=UTC)) is None
    assert epoch_ms(datetime(9999, 12, 31, tzinfo=UTC)) is None
    assert epoch_ms(None) is None


@pytest.mark.parametrize(
    ("json", "kind", "value"),
    [
        (7, Kind.Int16, 7),
        ("7", Kind.UInt64, 7),
        (7.0, Kind.Byte, 7),
        (7, Kind.Double, 7.0),
        ("on", Kind.Boolean, True),
        (7, Kind.String, "7"),
        ("2026-01-02T03:04:05Z", Kind.DateTime, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (1_767_225_600_000, Kind.DateTime, datetime(2026, 1, 1, tzinfo=UTC)),
        (GUID, Kind.Guid, uuid.UUID(GUID)),
        ("YWI=", Kind.ByteString, b"ab"),
        ("ns=2;s=a", Kind.NodeId, ua.NodeId("a", 2)),
        ("warm", Kind.LocalizedText, ua.LocalizedText("warm")),
    ],
)
def test_json_becomes_the_nodes_type(json: Any, kind: Any, value: Any) -> None:
    """What is written has the type that the node has."""
    variant = as_variant(json, kind, is_array=False)
    assert (variant.Value, variant.VariantType) == (value, kind)


@pytest.mark.parametrize(
    ("json", "kind", "told"),
    [
        (-1, Kind.Byte, "out of range; Byte goes from 0 to 255"),
        (1.5, Kind.Int32, "not whole"),
        ("x", Kind.Int32, '"x" is no Int32, which the node takes'),
        ("x", Kind.Double, "is no number"),
        ("soon", Kind.DateTime, 'write "2027-01-31T12:00:00Z"'),
        ("%", Kind.ByteString, "write it in base64"),
        (5, Kind.Guid, "is no Guid"),
        (1, Kind.DiagnosticInfo, "cannot be written from here"),
        ({}, Kind.ExtensionObject, "does not describe this structure"),
    ],
)
def test_what_does_not_fit_a_node_is_told(json: Any, kind: Any, told: str) -> None:
    """The refusal names the value and what the node takes."""
    with pytest.raises(MappingError, match=told):
        as_variant(json, kind, is_array=False)


def test_arrays_go_to_arrays_only() -> None:
    """An array is converted one by one; a single value is no array."""
    assert as_variant([1, "2"], Kind.Int16, is_array=True).Value == [1, 2]
    assert as_variant([], Kind.Int16, is_array=True).is_array
    with pytest.raises(MappingError, match="is no array"):
        as_variant(1, Kind.Int16, is_array=True)


def test_fields_of_a_structure_are_replaced() -> None:
    """An object replaces the fields that it names; an unknown one is refused with those that there are."""
    written = as_variant({"Count": 3, "X": 2}, Kind.ExtensionObject, is_array=False, template=Point()).Value
    assert written == Point(X=2.0, Count=3)
    with pytest.raises(MappingError, match="has no 'Cuont'; it has Count, Name, X"):
        as_variant({"Cuont": 3}, Kind.ExtensionObject, is_array=False, template=Point())
