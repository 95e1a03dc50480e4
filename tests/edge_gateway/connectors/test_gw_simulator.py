"""The simulator: its values, its rhythm, its answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edge_gateway.connectors.plugin.conformance import check_connector
from edge_gateway.connectors.simulator import KINDS
from edge_gateway.model import Call, CallFailed
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_coap_sites import RecordingSite, problems_of, running, settings_of

KIND = KINDS[0]
KEYS = [
    {"key": "sine", "min": 10, "max": 20, "period": "1 s"},
    {"key": "walk", "kind": "walk", "min": 0, "max": 5, "step": 2},
    {"key": "count", "kind": "counter", "min": 1, "max": 3},
    {"key": "fixed", "kind": "constant", "value": "x"},
    {"key": "state", "kind": "enum", "values": ["on", "off"]},
]


@asyncio_test
async def test_each_generator_keeps_its_promise() -> None:
    """Between the limits, counting round, of the given values."""
    site = RecordingSite()
    async with running(KIND.build(settings_of(KIND, every="2 ms", telemetry=KEYS), site), site):
        await site.until(lambda: len(site.values) >= 40)
    assert all(10 <= one["sine"] <= 20 and 0 <= one["walk"] <= 5 for one in site.values)
    assert [one["count"] for one in site.values[:7]] == [1, 2, 3, 1, 2, 3, 1]
    assert {one["fixed"] for one in site.values} == {"x"}
    assert {one["state"] for one in site.values} == {"on", "off"}
    assert len({one["walk"] for one in site.values}) > 10


@asyncio_test
async def test_all_devices_speak_and_a_seed_repeats_them() -> None:
    """Names with numbers; the same seed gives the same walk."""
    walks = []
    for _run in range(2):
        site = RecordingSite()
        settings = settings_of(
            KIND, devices=3, every="2 ms", seed=7, type="t", telemetry=KEYS[1:2], attributes={"fw": "1"}
        )
        async with running(KIND.build(settings, site), site):
            await site.until(lambda site=site: len(site.readings) >= 30)  # type: ignore[misc]
        walks.append([(one.device, one.telemetry) for one in site.readings[3:30]])
        assert [(one.device, one.type, one.attributes) for one in site.readings[:3]] == [
            (f"sim-{number}", "t", {"fw": "1"}) for number in (1, 2, 3)
        ]
    assert walks[0] == walks[1]


@asyncio_test
async def test_it_waits_for_room() -> None:
    """A congested gateway gets nothing more until there is room."""
    site = RecordingSite()
    site.is_congested = True
    async with running(KIND.build(settings_of(KIND, every="1 ms", jitter="1 ms", telemetry=KEYS), site), site):
        await asyncio.sleep(0.05)
        assert site.readings == []
        site.make_room()
        await site.until(lambda: len(site.readings) > 3)


@asyncio_test
async def test_calls_are_echoed_and_attributes_told_back() -> None:
    """For devices that there are."""
    site = RecordingSite()
    connector = KIND.build(settings_of(KIND, telemetry=KEYS), site)
    answer = await connector.call(Call(device="sim-1", method="m", params=[1], timeout_s=1))
    assert answer == {"method": "m", "params": [1]}
    with pytest.raises(CallFailed, match="no device 'x'"):
        await connector.call(Call(device="x", method="m", params=None, timeout_s=1))
    await connector.attributes_changed("sim-1", {"a": 1}, [])
    assert site.readings[-1].attributes == {"a": 1}


@asyncio_test
async def test_it_keeps_the_contract() -> None:
    """As third parties are asked to, but that it knows every method."""
    (found,) = await check_connector(KIND, {"every": "10 ms", "telemetry": KEYS})
    assert "unknown method" in found


@pytest.mark.parametrize(
    "table, words",
    [
        ({}, "nothing to send"),
        ({"devices": 2, "device": "x", "telemetry": KEYS}, "{number}"),
        ({"every": "0 s", "telemetry": KEYS}, "every"),
        ({"telemetry": [{"key": "k", "kind": "enum"}]}, "telemetry.0: an enum needs"),
        ({"telemetry": [{"key": "k", "min": 5, "max": 5}]}, "greater than min"),
    ],
)
def test_mistakes_are_named(table: dict[str, Any], words: str) -> None:
    """`check` finds what the types cannot say."""
    assert any(words in problem for problem in problems_of(KIND, **table)), problems_of(KIND, **table)
