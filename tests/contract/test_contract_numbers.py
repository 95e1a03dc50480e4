"""Values by their written form, as telemetry of every transport (D6 of section 10, the table of section 7.1)."""

from __future__ import annotations

from typing import Any

import paho.mqtt.client as paho
import pytest

from tests.contract.drivers import Driver, MqttDevice, Refused
from tests.contract.operators import attributes_of, telemetry_path
from tests.support.server import CoreProcess

# Written in JSON, stored with its type, and as ThingsBoard shows the latest value.
TABLE: list[tuple[str, Any, str]] = [
    ("true", True, "true"),
    ("false", False, "false"),
    # longs
    ("0", 0, "0"),
    ("-7", -7, "-7"),
    ("9223372036854775807", 2**63 - 1, "9223372036854775807"),
    ("-9223372036854775808", -(2**63), "-9223372036854775808"),
    ("1E+1", 10, "10"),
    ("1e1", 10, "10"),
    ("12.5e1", 125, "125"),
    # doubles
    ("1.0", 1.0, "1.0"),
    ("42.0", 42.0, "42.0"),
    ("0.1", 0.1, "0.1"),
    ("101E-1", 10.1, "10.1"),
    ("0.1234567890123456", 0.1234567890123456, "0.1234567890123456"),
    # beyond 64 bits, or more than 16 decimal places: plain digits
    ("9223372036854775808", "9223372036854775808", "9223372036854775808"),
    ("-9223372036854775809", "-9223372036854775809", "-9223372036854775809"),
    ("1" * 40, "1" * 40, "1" * 40),
    ("1e30", "1" + "0" * 30, "1" + "0" * 30),
    ("0.12345678901234567", "0.12345678901234567", "0.12345678901234567"),
    ("1.5e-20", "0.000000000000000000015", "0.000000000000000000015"),
    # strings that look like numbers
    ('"42"', 42, "42"),
    ('"-1.5"', -1.5, "-1.5"),
    ('"007"', 7, "7"),
    ('".5"', 0.5, "0.5"),
    ('"9223372036854775808"', "9223372036854775808", "9223372036854775808"),
    # and those that do not
    ('"1e5"', "1e5", "1e5"),
    ('"+1"', "+1", "+1"),
    ('" 1"', " 1", " 1"),
    ('"1."', "1.", "1."),
    ('"0x1F"', "0x1F", "0x1F"),
    ('"NaN"', "NaN", "NaN"),
    ('"true"', "true", "true"),
    # objects and arrays keep their text
    ('{ "a" : [ 1, 2.50, "7" ] }', {"a": [1, 2.5, "7"]}, '{"a":[1,2.5,"7"]}'),
    ("[ ]", [], "[]"),
]
BODY = "{" + ",".join(f'"k{number}":{written}' for number, (written, *_) in enumerate(TABLE)) + ',"none":null}'


def typed(values: dict[str, Any]) -> dict[str, tuple[type, Any]]:
    """1, 1.0 and True are equal but not the same."""
    return {key: (type(value), value) for key, value in values.items()}


EXPECTED = typed({f"k{number}": value for number, (_, value, _) in enumerate(TABLE)})


@pytest.mark.parametrize("shape", ["{}", '{{"ts":1527863043000,"values":{}}}', "[{}]"], ids=["flat", "ts", "list"])
def test_a_value_is_typed_by_its_written_form(
    driver: Driver, core: CoreProcess, token: str, name: str, shape: str
) -> None:
    """Long, double, digits, text or JSON; a null is left out (D6)."""
    body = BODY if shape == "{}" else shape.format(BODY)
    with driver.device(token) as device:
        device.post("telemetry", body.encode())
    assert typed(core.latest(name)) == EXPECTED
    shown = core.rest.get(f"{telemetry_path(core, name)}/values/timeseries")
    assert {key: points[0]["value"] for key, points in shown.items()} == {
        f"k{number}": text for number, (_, _, text) in enumerate(TABLE)
    }


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5])
def test_what_a_gateway_says_is_typed_alike(cores: dict[bool, CoreProcess], protocol: int) -> None:
    """Telemetry and attributes of a sub-device (D6)."""
    core, name = cores[True], f"numbers-gateway-{protocol}"
    gateway = {"name": name, "type": "contract", "additionalInfo": {"gateway": True}}
    core.rest.post(f"/api/device?accessToken=token-{name}", gateway)
    device = MqttDevice(core.mqtt_port, protocol, f"token-{name}")
    try:
        device.publish("v1/gateway/telemetry", f'{{"{name}-sub":[{BODY}]}}'.encode())
        device.publish("v1/gateway/attributes", f'{{"{name}-sub":{BODY}}}'.encode())
    finally:
        device.close()
    assert typed(core.latest(f"{name}-sub")) == EXPECTED
    assert typed(attributes_of(core, f"{name}-sub", "CLIENT_SCOPE")) == EXPECTED


def test_attributes_are_typed_alike(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """And come back to the device as they are stored (D6)."""
    with driver.device(token) as device:
        device.post("attributes", BODY.encode())
        back = device.attributes(client=",".join(EXPECTED))["client"]
    assert typed(back) == typed(attributes_of(core, name, "CLIENT_SCOPE")) == EXPECTED


def test_a_time_may_be_written_as_text(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """Any number of milliseconds; one that is none is refused where the transport can say so (D6)."""
    with driver.device(token) as device:
        device.post("telemetry", b'{"ts":"1527863043000","values":{"t":1}}')
        device.post("telemetry", b'{"ts":1.527863044E+12,"values":{"t":2}}')
        try:
            device.post("telemetry", b'{"ts":"yesterday","values":{"t":3}}')
        except Refused:
            assert driver.name != "mqtt3"
        else:
            assert driver.name == "mqtt3"
    found = core.rest.get(
        f"{telemetry_path(core, name)}/values/timeseries",
        keys="t", startTs="0", endTs="1927863044000", orderBy="ASC", useStrictDataTypes="true",
    )  # fmt: skip
    assert [(point["ts"], point["value"]) for point in found["t"]] == [(1_527_863_043_000, 1), (1_527_863_044_000, 2)]
