"""Commands and shared attributes at pymodbus's own server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymodbus.constants import ExcCodes

from edge_gateway.connectors.interface import Connector
from edge_gateway.connectors.modbus import KINDS
from edge_gateway.model import CallFailed, Health
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_plc_sites import FakePlcSite, command, running, until
from tests.support.modbus_servers import Slaves, slaves

(MODBUS,) = KINDS

RPC = {
    "setLimit": {"write": "holding:200", "value": "$.params.limit", "scale": 0.1},
    "setPower": {"write": "holding:202", "as": "float32", "words": "big-swapped"},
    "setMode": {"write": "holding:204", "multiple": True},
    "setChecked": {"write": "holding:205", "verify": True},
    "setFlag": {"write": "holding:206.3", "verify": True},
    "switch": {"write": "coil:7"},
    "switchAll": {"write": "coil:8-11"},
    "readTemp": {"read": "input:5", "as": "int16", "scale": 0.1},
    "readCoil": {"read": "coil:7"},
}


def table(serving: Slaves, **more: Any) -> dict[str, Any]:
    device = {"unit": 3, "device": "meter-{unit}", "rpc": RPC, "shared": {"limit": {"write": "holding:210"}}}
    usual = {"connect": f"tcp://127.0.0.1:{serving.port}", "timeout": "200 ms", "every": "50 ms"}
    return {**usual, "device": [{**device, **more}]}


@asynccontextmanager
async def connected(serving: Slaves, **more: Any) -> AsyncIterator[Connector]:
    """A connector that has its connection."""
    site = FakePlcSite()
    async with running(MODBUS, site, **table(serving, **more)) as connector:
        await until(lambda: site.healths)
        assert site.healths[0][0] is Health.HEALTHY
        yield connector


@asyncio_test
async def test_values_are_written_with_the_function_that_fits() -> None:
    """One register by function 6, several by 16, a coil by 5, several by 15; `multiple` takes 16 for one."""
    async with slaves(3) as serving:
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving)) as connector:
            await until(lambda: site.present)
            assert await connector.call(command("meter-3", "setLimit", {"limit": 12.5})) == 12.5
            await connector.call(command("meter-3", "setPower", 21.5))
            await connector.call(command("meter-3", "setMode", 4))
            await connector.call(command("meter-3", "switch", True))
            await connector.call(command("meter-3", "switchAll", [True, False, True, True]))
            assert await connector.call(command("meter-3", "readCoil")) is True
        assert serving.get(3, 200) == [125]
        assert serving.get(3, 202, 2) == [0, 0x41AC]
        assert serving.get(3, 204) == [4]
        assert serving.get(3, 0, table="c") == [0b1101_1000_0000]
        assert [request[1] for request in serving.requests] == [6, 16, 16, 5, 15, 1]


@asyncio_test
async def test_a_bit_is_written_without_touching_its_neighbours() -> None:
    """Read, changed, written, read back."""
    async with slaves(3) as serving:
        serving.set(3, 206, 0b10001)
        async with connected(serving) as connector:
            await connector.call(command("meter-3", "setFlag", True))
            assert serving.get(3, 206) == [0b11001]
            await connector.call(command("meter-3", "setFlag", False))
            assert serving.get(3, 206) == [0b10001]


@asyncio_test
async def test_a_slave_without_the_function_for_one_is_written_by_the_one_for_several() -> None:
    """Function 6 is refused, function 16 is taken."""
    async with slaves(3) as serving:
        serving.refused_functions = {6}
        async with connected(serving) as connector:
            await connector.call(command("meter-3", "setChecked", 9))
        assert serving.get(3, 205) == [9]


@asyncio_test
async def test_a_value_is_read_for_a_call() -> None:
    """Typed and scaled as telemetry is."""
    async with slaves(3) as serving:
        serving.set(3, 5, 65_536 - 55, table="i")
        async with connected(serving) as connector:
            assert await connector.call(command("meter-3", "readTemp")) == -5.5


async def failure(connector: Any, method: str, params: Any = None, device: str = "meter-3") -> str:
    with pytest.raises(CallFailed) as failed:
        await connector.call(command(device, method, params))
    return str(failed.value)


@asyncio_test
async def test_a_call_that_fails_says_why_and_what_to_do() -> None:
    """Unknown names, missing and impossible values, exceptions and silence of the slave."""
    async with slaves(3) as serving:
        serving.refused[3, 200] = ExcCodes.ILLEGAL_VALUE
        serving.refused[3, 204] = ExcCodes.ILLEGAL_ADDRESS
        async with connected(serving) as connector:
            assert await failure(connector, "setLimits") == (
                "meter-3 has no method 'setLimits'; did you mean 'setLimit'?"
            )
            assert await failure(connector, "x", device="m") == "'m' is no slave of plant"
            assert await failure(connector, "setLimit", {"max": 3}) == (
                'there is no value to write to holding:200 in {"method":"setLimit","params":{"max":3}}; '
                "see `value` of the mapping"
            )
            assert "goes from 0 to 65535" in await failure(connector, "setMode", 70_000)
            assert await failure(connector, "setLimit", {"limit": 1}) == (
                "unit 3: illegal data value at holding:200; it does not take this value; see its manual for the range"
            )
            assert await failure(connector, "setMode", 1) == (
                "unit 3: illegal data address at holding:204; check `at` and `base`"
            )
            serving.silent = {3}
            assert await failure(connector, "setMode", 1) == (
                f"unit 3 does not answer at 127.0.0.1:{serving.port} (no answer); check power, wiring and the unit "
                "number"
            )


@asyncio_test
async def test_verify_finds_a_value_that_was_not_kept() -> None:
    """The slave acknowledges, and keeps what it had."""
    async with slaves(3) as serving, connected(serving) as connector:
        assert await connector.call(command("meter-3", "setChecked", 7)) == 7
        serving.clamped[3, 205] = 100
        assert await failure(connector, "setChecked", 5000) == (
            "unit 3 took the value at holding:205, but 0x0064 stands there and not 0x1388; it may be limited, "
            "read-only or locked"
        )


@asyncio_test
async def test_shared_attributes_are_written_and_all_are_tried() -> None:
    """Keys without a mapping are ignored; what fails is named."""
    async with slaves(3) as serving:
        shared = {"limit": {"write": "holding:210"}, "mode": {"write": "holding:211", "as": "int16"}}
        async with connected(serving, shared=shared) as connector:
            await connector.attributes_changed("meter-3", {"limit": 8, "colour": "red"}, ["mode"])
            assert serving.get(3, 210, 2) == [8, 0]
            with pytest.raises(CallFailed, match=r"^limit: .*out of range"):
                await connector.attributes_changed("meter-3", {"limit": -1, "mode": -1}, [])
            assert serving.get(3, 210, 2) == [8, 65_535]


@asyncio_test
async def test_a_call_waits_for_one_request_only() -> None:
    """However long the queue of polls is, a call goes before them."""
    async with slaves(3) as serving:
        line = [{"key": f"k{at}", "at": f"holding:{at}"} for at in range(0, 300, 10)]
        settings = table(serving, telemetry=line) | {"max_gap": 0, "every": "10 ms"}
        site = FakePlcSite()
        async with running(MODBUS, site, **settings) as connector:
            await until(lambda: site.readings)
            serving.requests.clear()
            await connector.call(command("meter-3", "switch", True))
            functions = [request[1] for request in serving.requests]
            assert functions.index(5) <= 2


@asyncio_test
async def test_without_a_connection_a_call_says_what_to_check() -> None:
    """At once, not after its timeout."""
    async with slaves(3) as serving:
        port = serving.port
    site = FakePlcSite()
    settings = table(serving) | {"connect": f"tcp://127.0.0.1:{port}"}
    async with running(MODBUS, site, **settings) as connector:
        await until(lambda: site.healths)
        assert f"cannot reach 127.0.0.1:{port}: " in await failure(connector, "switch", True)
