"""From DataValues to readings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from edge_gateway.connectors.opcua.compiled import compile_device
from edge_gateway.connectors.opcua.library import ua
from edge_gateway.connectors.opcua.surveying import Point, PointKey
from edge_gateway.connectors.opcua.taking import Taking
from edge_gateway.connectors.opcua.troubles import Troubles
from edge_gateway.model import Health, Refusal
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_opcua_sites import OpcuaSite, settings_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOON_MS = 1_767_268_800_000


def points(*lines: Any, attributes: tuple[Any, ...] = ()) -> list[Point]:
    """Points of the device "B1", a node for each line."""
    entry = {"device": "B1", "telemetry": list(lines), "attributes": list(attributes)}
    device = compile_device(settings_of(device=[entry]).device[0])
    return [
        Point(PointKey("B1", line.content, line.key.render({}), ua.NodeId(number, 2)), "boiler", line)
        for number, line in enumerate(device.lines)
    ]


def value(json: Any, *, status: int = 0, source: datetime | None = NOON, server: datetime | None = None) -> Any:
    return ua.DataValue(ua.Variant(json), ua.StatusCode(status), source, server)


def taking(site: OpcuaSite, timestamp: str = "source") -> Taking:
    return Taking(site, Troubles(site, "opc.tcp://plant"), timestamp)


def test_keys_of_the_same_time_are_one_reading() -> None:
    """Telemetry and attributes of one device and time go together; another time, or the same key, is another one."""
    site = OpcuaSite()
    temp, level, serial = points("Temp -> temp", "Level -> level", attributes=("Serial -> serial",))
    later = datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC)
    readings = taking(site).readings(
        [(temp, value(1)), (level, value(2)), (serial, value("s")), (temp, value(3)), (temp, value(4, source=later))]
    )
    assert [(one.ts_ms, one.telemetry, one.attributes) for one in readings] == [
        (NOON_MS, {"temp": 1, "level": 2}, {"serial": "s"}),
        (NOON_MS, {"temp": 3}, None),
        (NOON_MS + 1000, {"temp": 4}, None),
    ]
    assert {(one.device, one.type) for one in readings} == {("B1", "boiler")}


@pytest.mark.parametrize(
    ("timestamp", "source", "server", "ts_ms"),
    [
        ("source", NOON, None, NOON_MS),
        ("source", None, NOON, NOON_MS),
        ("source", datetime(1601, 1, 1, tzinfo=UTC), NOON, NOON_MS),
        ("server", datetime(2025, 1, 1, tzinfo=UTC), NOON, NOON_MS),
        ("gateway", NOON, NOON, None),
        ("source", None, None, None),
    ],
)
def test_the_time_is_the_one_of_the_settings(
    timestamp: str, source: datetime | None, server: datetime | None, ts_ms: int | None
) -> None:
    """The source's time, else the server's; or as the settings say."""
    [temp] = points("Temp -> temp")
    [reading] = taking(OpcuaSite(), timestamp).readings([(temp, value(1, source=source, server=server))])
    assert reading.ts_ms == ts_ms


def test_what_is_no_value_is_left_out() -> None:
    """Null and NaN are no readings and no faults."""
    site = OpcuaSite()
    [temp] = points("Temp -> temp")
    assert taking(site).readings([(temp, value(None)), (temp, value(float("nan")))]) == []
    assert site.rejected == []


def test_uncertain_values_are_taken_and_bad_ones_are_not() -> None:
    """Bad quality is counted and told until a value is good; the other keys go on."""
    site = OpcuaSite()
    temp, level = points("Temp -> temp", "Level -> level")
    under_test = taking(site)
    uncertain, bad = ua.StatusCodes.UncertainLastUsableValue, ua.StatusCodes.BadNotConnected
    [reading] = under_test.readings([(temp, value(1, status=uncertain)), (level, value(2, status=bad))])
    assert reading.telemetry == {"temp": 1}
    assert site.rejected == [("B1/Level (ns=2;i=1)", b"2", "bad quality: BadNotConnected")]
    told = "opc.tcp://plant: B1/Level (ns=2;i=1): bad quality: BadNotConnected"
    assert site.state == (Health.DEGRADED, told)
    under_test.readings([(level, value(3))])
    assert site.state == (Health.HEALTHY, "")


def test_values_that_do_not_fit_are_rejected() -> None:
    """A type that cannot be had, and a value that is too great, are told with the node."""
    site = OpcuaSite()
    temp, text, many = points("Temp -> temp: float", "Text -> text", "Many -> many")
    values = [(temp, value("warm")), (text, value("x" * 65_537)), (many, value(["y" * 1000] * 70))]
    assert taking(site).readings(values) == []
    assert [why.partition(";")[0] for _, _, why in site.rejected] == [
        '"warm" is no number, which float needs',
        "the value has 65537 bytes",
        "the value has 70211 bytes",
    ]
    assert all(len(payload) <= 1024 for _, payload, _ in site.rejected)


def test_values_that_the_server_dropped_are_told() -> None:
    """The overflow bit of a value says that its queue in the server was too short."""
    site = OpcuaSite()
    [temp] = points("Temp -> temp")
    under_test = taking(site)
    [reading] = under_test.readings([(temp, value(1, status=0x480))])
    assert reading.telemetry == {"temp": 1}
    assert "the server dropped values before this one; raise queue" in site.state[1]
    under_test.readings([(temp, value(2))])
    assert site.state == (Health.HEALTHY, "")


@asyncio_test
async def test_refused_readings_are_offered_again() -> None:
    """What can be taken later is offered until it is taken; what never can is dropped."""
    site = OpcuaSite()
    [temp] = points("Temp -> temp")
    site.outcomes = [Refusal(reason="full", retry_after_s=0.0), Refusal(reason="full", retry_after_s=0.01)]
    await taking(site).accept([(temp, value(1))])
    assert site.values("B1", "temp") == [1]
    site.outcomes = [Refusal(reason="never")]
    await taking(site).accept([(temp, value(2))])
    assert site.values("B1", "temp") == [1]
