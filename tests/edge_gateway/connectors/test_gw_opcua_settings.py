"""Places, settings and values of the OPC UA client: no sockets."""

from __future__ import annotations

import subprocess
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from edge_gateway.connectors.opcua import KINDS, compiling
from edge_gateway.connectors.opcua.places import parse_place
from tests.support.gateway_plc_sites import problems_of

OPCUA = KINDS[0]


def test_node_ids_and_paths_are_told_apart() -> None:
    """A NodeId of each kind; a path with root, namespace, wildcard and captures."""
    for text in ("i=85", "ns=2;i=5", "ns=2;s=Boiler.Temp/x", "ns=1;g=09087e75-8e5e-499b-954f-f2a9603db28a"):
        assert parse_place(text).node_id == text
    place = parse_place("Objects/2:Plant/Boiler*/{name}-{n}")
    assert (place.node_id, place.root, place.is_open) == ("", "Objects", True)
    assert place.captures == {"name", "n"}
    plant, boiler, last = place.segments
    assert plant.match(2, "Plant") == {} and plant.match(3, "Plant") is None
    assert boiler.match(9, "Boiler.7") == {} and boiler.match(9, "Kettle") is None
    assert last.match(2, "hall-a-7") == {"name": "hall", "n": "a-7"}
    assert parse_place("Temp.1").segments[0].match(0, "TempX1") is None


@pytest.mark.parametrize("text", ["", "Objects//Temp", "{n}/{n}", "Objects/{n", "Boiler{x y}"])
def test_what_is_no_place_is_refused(text: str) -> None:
    """The error says how to write it."""
    with pytest.raises(ValueError, match=r"write|twice"):
        parse_place(text)


def test_every_mistake_in_the_settings_is_told_at_once() -> None:
    """Problems lead to their places and say the fix; a password in the address is not quoted."""
    table: dict[str, Any] = {
        "connect": "opc.tcp://me:geheim@host:4840",
        "security": "Basic256Sha256",
        "password": "x",
        "device": [
            {
                "at": "Objects/Boiler*",
                "device": "boiler",
                "telemetry": ["* -> value", {"at": "T", "key": "t", "as": "flot"}, "T -> t_{nme}"],
                "rpc": {"set": {"write": "L", "read": "L"}, "all": {"write": "Objects/*"}},
            },
            {"device": "x", "telemetry": ["Temp -> t"]},
        ],
    }
    problems = "\n".join(problems_of(OPCUA, table))
    for expected in (
        "connect: write user and password into",
        'certificate: security = "Basic256Sha256" needs `certificate`',
        "user: there is a password without a user",
        "device.0.device: 'Objects/Boiler*' finds several devices",
        "device.0.telemetry.0.key: '*' finds several values",
        "device.0.telemetry.1.as: 'flot' is no type here; did you mean 'float'?",
        "device.0.telemetry.2.key: '{nme}' in 't_{nme}' is not captured",
        "device.0.rpc.set: write one of",
        "device.0.rpc.all: 'Objects/*' may find several nodes",
        "device.1.telemetry.0.at: 'Temp' begins nowhere",
    ):
        assert expected in problems
    assert "geheim" not in problems


def test_a_missing_library_is_a_problem_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings can be checked without the extra, and the answer says how to get it."""
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    table = {"connect": "opc.tcp://host:4840", "device": [{"device": "x", "telemetry": ["i=5 -> t"]}]}
    assert problems_of(OPCUA, table) == [": OPC UA needs the package asyncua: pip install 'muster[opcua]'"]


def test_the_library_is_not_imported_with_the_kind() -> None:
    """A gateway without OPC UA does not pay for asyncua."""
    code = "import sys, edge_gateway.connectors.opcua; print('asyncua' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout.strip()) == (0, "False"), run.stderr


def test_values_become_json() -> None:
    """Times are ISO 8601 in UTC, byte strings hex, NaN nothing, enumerations their numbers."""
    from asyncua import ua

    from edge_gateway.connectors.opcua.values import to_json

    guid = uuid.UUID("09087e75-8e5e-499b-954f-f2a9603db28a")
    assert to_json(datetime(2026, 5, 1, 12, tzinfo=UTC)) == "2026-05-01T12:00:00.000Z"
    assert to_json([b"\x01", guid, float("nan"), ua.NodeClass.Object]) == ["01", str(guid), None, 1]
    assert to_json(ua.Variant([ua.QualifiedName("a", 2), ua.NodeId("x", 3)])) == ["a", "ns=3;s=x"]


def test_values_are_written_in_the_nodes_type() -> None:
    """Numbers are checked against the range; texts of times, bytes and guids are read."""
    from asyncua import ua

    from edge_gateway.connectors.opcua.values import to_variant
    from edge_gateway.mapping.interface import MappingError

    assert to_variant("7", ua.VariantType.Byte).Value == 7
    assert to_variant([1, 2], ua.VariantType.Double).Value == [1.0, 2.0]
    assert to_variant("2026-05-01T12:00:00Z", ua.VariantType.DateTime).Value == datetime(2026, 5, 1, 12)
    assert to_variant("0aff", ua.VariantType.ByteString).Value == b"\x0a\xff"
    for value, type in ((256, ua.VariantType.Byte), ("x", ua.VariantType.Guid), ("x", ua.VariantType.Boolean)):
        with pytest.raises(MappingError):
            to_variant(value, type)
