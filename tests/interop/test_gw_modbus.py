"""The Modbus connector against pymodbus's own server."""

from __future__ import annotations

from typing import Any

from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.constants import ExcCodes

from edge_gateway.connectors.modbus import KINDS
from edge_gateway.model import Health
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_plc_sites import FakePlcSite, command, running, until
from tests.support.modbus_servers import Slaves, slaves

(MODBUS,) = KINDS


def table(serving: Slaves, *devices: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A `[[modbus]]` table."""
    usual = {"connect": f"tcp://127.0.0.1:{serving.port}", "every": "50 ms", "timeout": "300 ms"}
    return {**usual, "device": list(devices), **more}


def device(unit: int = 3, **more: Any) -> dict[str, Any]:
    return {"unit": unit, "device": "meter-{unit}", "type": "energy-meter", **more}


D = ModbusClientMixin.DATATYPE
VALUES = [
    ("int16", D.INT16, -1234), ("uint16", D.UINT16, 65_000), ("int32", D.INT32, -70_000),
    ("uint32", D.UINT32, 4_000_000_000), ("int64", D.INT64, -(2**40)), ("uint64", D.UINT64, 2**40 + 5),
    ("float32", D.FLOAT32, 21.5), ("float64", D.FLOAT64, 3.25),
]  # fmt: skip


@asyncio_test
async def test_all_types_are_read_as_the_servers_library_writes_them() -> None:
    """Numbers of every width, in both orders of registers, and a text."""
    async with slaves(3) as serving:
        lines, expected, at = [], {}, 0
        for type, theirs, value in VALUES:
            for words, order in (("big", "big"), ("big-swapped", "little")):
                registers = ModbusClientMixin.convert_to_registers(value, theirs, word_order=order)  # type: ignore[arg-type]
                serving.set(3, at, *registers)
                key = f"{type}_{words}"
                lines.append({"key": key, "at": f"holding:{at}", "as": type, "words": words})
                expected[key] = value
                at += len(registers)
        serving.set(3, 200, *ModbusClientMixin.convert_to_registers("SN-4711", D.STRING))
        lines.append({"key": "serial", "at": "holding:200-205", "as": "string"})
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, device(telemetry=lines))):
            await until(lambda: site.latest("meter-3"))
        assert site.latest("meter-3") == {**expected, "serial": "SN-4711"}
        assert site.present == [("meter-3", "energy-meter")]
        assert site.healths == [(Health.HEALTHY, "")]


@asyncio_test
async def test_bits_and_scales_and_base_and_modicon_numbers() -> None:
    """Coils, discrete inputs, a bit of a register, a scaled value, input registers; `base = 1` counts from 1."""
    async with slaves(3) as serving:
        serving.set_bit(3, 7)
        serving.set_bit(3, 20, "d")
        serving.set(3, 9, 0b1000)
        serving.set(3, 10, 1523)
        serving.set(3, 11, 77, table="i")
        lines = [
            {"key": "running", "at": "coil:8"},
            {"key": "stopped", "at": "coil:9"},
            {"key": "door", "at": "discrete:21", "report": "change"},
            {"key": "alarm", "at": "holding:10", "bit": 3},
            {"key": "power", "at": "40011", "scale": 0.1, "offset": -2},
            "30012 -> level: uint16",
        ]
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, device(base=1, telemetry=lines))):
            found = await until(lambda: site.latest("meter-3"))
        assert found == {
            "running": True, "stopped": False, "door": True, "alarm": True, "power": 150.3, "level": 77,
        }  # fmt: skip
        reading = site.readings[0][1]
        assert set(reading.reports or {}) == {"door"}
        assert reading.raw is None


@asyncio_test
async def test_neighbours_share_a_request_and_attributes_have_their_own_period() -> None:
    """One request for a block with small gaps, another behind a wide one; the attribute is read once."""
    async with slaves(3) as serving:
        lines = [{"key": f"k{at}", "at": f"holding:{at}"} for at in (100, 101, 105, 140)]
        attributes = [{"key": "version", "at": "holding:300", "every": "1 d"}]
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, device(telemetry=lines, attributes=attributes))):
            await until(lambda: len(site.readings) > 4)
        reads = serving.reads(3)
        assert reads.count((3, 300, 1)) == 1
        assert {read for read in reads if read[1] != 300} == {(3, 100, 6), (3, 140, 1)}


@asyncio_test
async def test_a_refused_block_is_split_for_good_and_the_place_is_named() -> None:
    """What the slave has not is found, told and asked seldom; everything else goes on, in fewer and fewer requests."""
    async with slaves(3) as serving:
        serving.refused[3, 14] = ExcCodes.ILLEGAL_ADDRESS
        lines = [{"key": f"k{at}", "at": f"holding:{at}"} for at in range(10, 20)]
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, device(telemetry=lines))):
            await until(lambda: len(site.readings) > 2)
            before = len(serving.requests)
            count = len(site.readings)
            await until(lambda: len(site.readings) > count + 3)
            later = serving.requests[before:]
        assert set(site.latest("meter-3")) == {f"k{at}" for at in range(10, 20) if at != 14}
        assert all(not address <= 14 < address + size for _, _, address, size in later)
        assert site.healths[-1] == (
            Health.DEGRADED, "unit 3: illegal data address at holding:14; check `at` and `base`",
        )  # fmt: skip


@asyncio_test
async def test_a_gap_that_the_slave_does_not_have_costs_nothing() -> None:
    """Registers that nobody asked for are left out when the slave refuses them."""
    async with slaves(3) as serving:
        serving.refused[3, 13] = ExcCodes.ILLEGAL_ADDRESS
        lines = [{"key": f"k{at}", "at": f"holding:{at}"} for at in (10, 11, 15)]
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, device(telemetry=lines))):
            await until(lambda: len(site.readings) > 2)
        assert serving.reads(3)[:3] == [(3, 10, 6), (3, 10, 2), (3, 15, 1)]
        assert (3, 10, 6) not in serving.reads(3)[1:]
        assert site.healths == [(Health.HEALTHY, "")]


@asyncio_test
async def test_raw_shows_what_stood_on_the_wire() -> None:
    """Place, registers and the time of the answer."""
    async with slaves(3) as serving:
        serving.set(3, 100, 0x447F, 0x2000)
        site = FakePlcSite()
        site.wants_raw = True
        lines = [{"key": "power", "at": "holding:100", "as": "float32"}, {"key": "on", "at": "coil:0"}]
        async with running(MODBUS, site, **table(serving, device(telemetry=lines))):
            await until(lambda: site.readings)
        raw = site.readings[0][1].raw or {}
        assert raw["power"].startswith("holding:100-101 raw 0x447F 0x2000, ") and raw["power"].endswith(" ms")
        assert raw["on"].startswith("coil:0 raw 0, ")


@asyncio_test
async def test_a_value_that_does_not_fit_its_type_is_rejected_alone() -> None:
    """The other keys are read; NaN means that there is no value."""
    async with slaves(3) as serving:
        serving.set(3, 0, 0xABCD, 7, 0x7FC0, 0)
        lines = [
            {"key": "count", "at": "holding:0", "as": "bcd16"},
            {"key": "level", "at": "holding:1"},
            {"key": "flow", "at": "holding:2", "as": "float32"},
        ]
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, device(telemetry=lines))):
            assert await until(lambda: site.latest("meter-3")) == {"level": 7}
        source, payload, why = site.rejected[0]
        assert (source, payload) == ("unit 3 holding:0", b"\xab\xcd")
        assert why.startswith("count: ") and "check `as` and `words`" in why


@asyncio_test
async def test_a_congested_gateway_is_not_asked_to_take_more() -> None:
    """Polling stops until there is room; the periods in between are skipped."""
    async with slaves(3) as serving:
        site = FakePlcSite()
        site.is_congested = True
        line = {"key": "level", "at": "holding:1"}
        calls = {"read": {"read": "holding:1"}}
        async with running(MODBUS, site, **table(serving, device(telemetry=[line], rpc=calls))) as connector:
            await until(lambda: site.healths)
            assert await connector.call(command("meter-3", "read")) == 0  # a call is no reading
            assert len(serving.requests) == 1 and not site.readings
            site.make_room()
            await until(lambda: site.readings)


@asyncio_test
async def test_a_block_that_gets_no_answer_does_not_make_the_slave_a_dead_one() -> None:
    """Some slaves say nothing where they should refuse; everything else is read, and the place is named."""
    async with slaves(3) as serving:
        serving.mute.add((3, 100))
        lines = [{"key": "good", "at": "holding:1"}, {"key": "bad", "at": "holding:100"}]
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, device(telemetry=lines), timeout="100 ms")):
            await until(lambda: len(site.readings) > 5)
        assert site.latest("meter-3") == {"good": 0} and site.left == []
        assert len([read for read in serving.reads(3) if read[1] == 100]) == 2
        assert site.healths[-1] == (
            Health.DEGRADED, "unit 3: no answer, though it answers elsewhere; check `at` (holding:100)",
        )  # fmt: skip
