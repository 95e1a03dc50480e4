"""What a `[[modbus]]` table may say, and what is told about mistakes in it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from edge_gateway.connectors.modbus import KINDS
from edge_gateway.connectors.modbus.faults import ranges
from edge_gateway.connectors.modbus.links import Link, parse_link
from edge_gateway.connectors.modbus.slaves import compile_plant
from edge_gateway.model import ReportOn
from tests.support.gateway_plc_sites import problems_of, settings_of

(MODBUS,) = KINDS

EXAMPLE = """
connect = "tcp://10.0.0.20:502"
every = "5 s"
timeout = "800 ms"
  [[device]]
  unit = 3
  device = "meter-{unit}"
  type = "energy-meter"
  telemetry = [
    { key = "power", at = "holding:100", as = "float32", words = "big", scale = 0.1, report = "change 0.5 | 1 min" },
    { key = "alarm", at = "coil:7", every = "1 s", report = "change" },
  ]
  attributes = [{ key = "serial", at = "holding:0-7", as = "string", every = "1 d" }]
  rpc.setLimit = { write = "holding:200", as = "uint16", value = "$.params.limit" }
"""


def test_the_example_of_the_manual_is_understood() -> None:
    """Three periods, an attribute, a command."""
    plant = compile_plant(settings_of(MODBUS, **tomllib.loads(EXAMPLE)))
    (slave,) = plant.slaves
    assert (slave.unit, slave.device, slave.type) == (3, "meter-3", "energy-meter")
    assert [(group.period_s, [point.key for point in group.points]) for group in slave.groups] == [
        (1.0, ["alarm"]), (5.0, ["power"]), (86_400.0, ["serial"]),
    ]  # fmt: skip
    report = slave.groups[0].points[0].report
    assert report is not None and report.on is ReportOn.CHANGE
    assert list(slave.rpc) == ["setLimit"]


def test_a_table_counts_for_each_of_its_units() -> None:
    """`{unit}` and `{connector}` stand in names and types."""
    device = {"units": "1-3,9", "device": "{connector}-{unit}", "type": "t{unit}", "telemetry": ["40001 -> a"]}
    plant = compile_plant(settings_of(MODBUS, connect="tcp://h", device=[device]))
    assert [(slave.unit, slave.device, slave.type) for slave in plant.slaves] == [
        (1, "plant-1", "t1"), (2, "plant-2", "t2"), (3, "plant-3", "t3"), (9, "plant-9", "t9"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("tcp://10.0.0.20", Link("tcp", "10.0.0.20", 502)),
        ("tcp://[::1]:1502", Link("tcp", "::1", 1502)),
        ("rtu+tcp://box:4001", Link("rtu+tcp", "box", 4001)),
        ("serial:///dev/ttyUSB0", Link("serial", "/dev/ttyUSB0")),
        ("serial:///dev/ttyS1?baud=9600&parity=n&stop=2&bits=7", Link("serial", "/dev/ttyS1", 0, 9600, "N", 2, 7)),
        ("serial://COM3?baud=9600", Link("serial", "COM3", 0, 9600)),
    ],
)
def test_links_are_understood(text: str, link: Link) -> None:
    """Host and port, or a serial port and its settings."""
    assert parse_link(text) == link


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.20:502", "leads to no slave"),
        ("tpc://h:502", "did you mean 'tcp'?"),
        ("tcp://h:99999", "has no port from 1 to 65535"),
        ("tcp://h:502/3", "is more, or less, than a host and a port"),
        ("serial://?baud=9600", "names no port"),
        ("serial:///dev/x?baudrate=9600", "unknown option 'baudrate'"),
        ("serial:///dev/x?baud=fast", "is no speed"),
        ("serial:///dev/x?parity=X", "is none of N, E, O"),
    ],
)
def test_a_link_that_leads_nowhere_is_explained(text: str, why: str) -> None:
    """With an example of what is right."""
    with pytest.raises(ValueError) as error:
        parse_link(text)
    assert why in str(error.value)


DEVICE = {"unit": 1, "device": "m", "telemetry": [{"key": "a", "at": "holding:1"}]}


def point(**more: Any) -> dict[str, Any]:
    return {"device": [{**DEVICE, "telemetry": [{"key": "a", "at": "holding:1", **more}]}]}


def action(**more: Any) -> dict[str, Any]:
    return {"device": [{**DEVICE, "rpc": {"x": more}}]}


WRONG: list[tuple[dict[str, Any], tuple[str | int, ...], str]] = [
    ({"device": []}, (), "nothing would be read"),
    ({"connect": "h"}, ("connect",), "leads to no slave"),
    ({"timeout": "2 min"}, ("timeout",), '"10 ms" to "60 s"'),
    ({"every": "0 s"}, ("every",), '"10 ms"'),
    ({"max_block": 126}, ("max_block",), "1 to 125 registers"),
    ({"device": [{"device": "m"}]}, ("device", 0), "either unit = 3, or units"),
    ({"device": [{"unit": 1, "device": "m"}]}, ("device", 0), "nothing would be read or written"),
    ({"device": [{**DEVICE, "unit": 256}]}, ("device", 0, "unit"), "256 is no unit"),
    ({"connect": "rtu+tcp://h", "device": [{**DEVICE, "unit": 0}]}, ("device", 0, "unit"), "0 is for everybody"),
    ({"device": [{**DEVICE, "device": "m-{unti}"}]}, ("device", 0, "device"), "did you mean 'unit'?"),
    ({"device": [{**DEVICE, "device": "{$.a}"}]}, ("device", 0, "device"), "sends no document"),
    ({"device": [DEVICE, DEVICE]}, ("device", 1, "device"), "would both be 'm'"),
    ({"device": [{**DEVICE, "unit": None, "units": "1-2"}]}, ("device", 0, "unit"), "a whole number"),
    (point(at="holding"), ("device", 0, "telemetry", 0), "write holding:100"),
    (point(**{"as": "float"}), ("device", 0, "telemetry", 0), "'float' is no type"),
    (point(**{"as": "string"}), ("device", 0, "telemetry", 0), "needs a range of registers"),
    (point(at="holding:1-3", **{"as": "int32"}), ("device", 0, "telemetry", 0), "int32 takes 2 registers"),
    (point(at="holding:0-200", **{"as": "hex"}), ("device", 0, "telemetry", 0), "at most 125"),
    (point(at="holding:65535", **{"as": "int32"}), ("device", 0, "telemetry", 0), "beyond the last register"),
    (point(scale=0), ("device", 0, "telemetry", 0), "scale = 0"),
    (point(bit=16), ("device", 0, "telemetry", 0), "the bits 0 to 15"),
    (point(report="sometimes"), ("device", 0, "telemetry", 0, "report"), "is no report strategy"),
    (point(words="middle"), ("device", 0, "telemetry", 0, "words"), "is none of big, "),
    (point(key=""), ("device", 0, "telemetry", 0, "key"), "the key is empty"),
    (action(), ("device", 0, "rpc", "x"), "say what it does"),
    (action(write="input:1"), ("device", 0, "rpc", "x"), "cannot be written"),
    (action(write="holding:1", value="params"), ("device", 0, "rpc", "x", "value"), "a path begins with $"),
    (action(read="holding:1", verify=True), ("device", 0, "rpc", "x"), "belong to write"),
]


@pytest.mark.parametrize(("more", "path", "why"), WRONG)
def test_mistakes_are_told_where_they_stand(more: dict[str, Any], path: tuple[str | int, ...], why: str) -> None:
    """One mistake, one problem, with what is right."""
    problems = problems_of(MODBUS, **{"connect": "tcp://h", "device": [DEVICE], **more})
    assert list(problems) == [path]
    assert why in problems[path]


def test_all_mistakes_of_a_table_are_told_at_once() -> None:
    """In several devices, and for a device of many units only once."""
    devices = [
        {"units": "1-100", "device": "a{unit}", "telemetry": [{"key": "a", "at": "x"}, {"key": "a", "at": "coil:1"}]},
        {"unit": 101, "device": "b", "telemetry": [{"key": "a", "at": "coil:1"}]},
        {"unit": 102, "device": "c", "attributes": [{"key": "a", "at": "y"}]},
    ]
    assert list(problems_of(MODBUS, connect="tcp://h", device=devices)) == [
        ("device", 0, "telemetry", 0), ("device", 0, "telemetry", 1, "key"), ("device", 2, "attributes", 0),
    ]  # fmt: skip


def test_units_are_told_as_ranges() -> None:
    """As people write them."""
    assert ranges({9, 1, 2, 3, 5}) == "1-3, 5, 9"
