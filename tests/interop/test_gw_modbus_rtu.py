"""Modbus RTU: over a serial cable, and over TCP through a serial server."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from edge_gateway.connectors.modbus import KINDS
from edge_gateway.model import Health
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_plc_sites import FakePlcSite, command, running, until
from tests.support.modbus_servers import Cable, Slaves, slaves

(MODBUS,) = KINDS


def table(connect: str, units: str = "3", **more: Any) -> dict[str, Any]:
    lines = [{"key": "power", "at": "holding:100", "as": "float32"}, {"key": "running", "at": "coil:2"}]
    device = {
        "units": units, "device": "meter-{unit}", "telemetry": lines, "rpc": {"set": {"write": "holding:0"}},
    }  # fmt: skip
    return {"connect": connect, "every": "100 ms", "timeout": "100 ms", "device": [device], **more}


@asynccontextmanager
async def serial_slaves(*units: int) -> AsyncIterator[tuple[Cable, Slaves]]:
    cable, serving = Cable(), Slaves(units)
    await serving.start_serial(cable.far, 115_200)
    try:
        yield cable, serving
    finally:
        await serving.stop()
        cable.close()


@asyncio_test
async def test_slaves_on_a_serial_cable_are_read_and_written() -> None:
    """RTU with its checksums, over a real terminal device."""
    async with serial_slaves(3, 4) as (cable, serving):
        serving.set(3, 100, 0x41AC, 0)
        serving.set_bit(3, 2)
        site = FakePlcSite()
        settings = table(f"serial://{cable.near}?baud=115200&parity=N", units="3,4")
        async with running(MODBUS, site, **settings) as connector:
            await until(lambda: site.latest("meter-3") and site.latest("meter-4"))
            assert await connector.call(command("meter-4", "set", 77)) == 77
        assert site.latest("meter-3") == {"power": 21.5, "running": True}
        assert serving.get(4, 0) == [77]
        assert site.healths == [(Health.HEALTHY, "")]


@asyncio_test
async def test_a_dead_slave_on_a_cable_is_tried_in_the_gaps() -> None:
    """There is one connection only; the other slave keeps its turns."""
    async with serial_slaves(3, 4) as (cable, serving):
        serving.silent = {4}
        site = FakePlcSite()
        async with running(
            MODBUS, site, **table(f"serial://{cable.near}?baud=115200&parity=N", units="3,4", every="300 ms")
        ):
            await until(lambda: "unit 4 does not answer" in (site.healths or [(Health.STARTING, "")])[-1][1])
            count = len(site.readings)
            await until(lambda: len(site.readings) > count + 4)
            times = site.times("meter-3")[-4:]
            assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 0.6


@asyncio_test
async def test_noise_on_the_line_costs_one_attempt() -> None:
    """A frame that cannot be read is asked for again."""
    async with serial_slaves(3) as (cable, _):
        site = FakePlcSite()
        async with running(MODBUS, site, **table(f"serial://{cable.near}?baud=115200&parity=N")):
            await until(lambda: site.readings)
            cable.noise = b"\x03\x03\x04\xff\xff\xff\xff\x00\x00"  # a frame with a wrong checksum
            count = len(site.readings)
            await until(lambda: len(site.readings) > count + 1)
        assert site.left == []


@asyncio_test
async def test_a_serial_port_that_is_not_there_is_told_with_the_fix() -> None:
    """The name of the port, the reason of the system and what to look at."""
    site = FakePlcSite()
    async with running(MODBUS, site, **table("serial:///dev/ttyUSB97?baud=9600")):
        await until(lambda: site.healths)
    health, reason = site.healths[0]
    assert health is Health.FAILED
    assert reason == (
        "cannot reach /dev/ttyUSB97 (9600 baud, 8E1): no such file or directory; check that the adapter is plugged in, "
        "its name (ls /dev/serial/by-id), the right to use it (group dialout), and that it can do this speed and parity"
    )


@asyncio_test
async def test_a_port_that_cannot_do_the_parity_is_told() -> None:
    """A pseudo terminal knows no parity; the system refuses it by an error of a kind of its own."""
    async with serial_slaves(3) as (cable, _):
        site = FakePlcSite()
        async with running(MODBUS, site, **table(f"serial://{cable.near}?parity=E")):
            await until(lambda: site.healths)
        assert f"cannot reach {cable.near} (19200 baud, 8E1): invalid argument; " in site.healths[0][1]


@asyncio_test
async def test_rtu_frames_go_through_a_serial_server() -> None:
    """`rtu+tcp` has one connection, since the line behind it has."""
    async with slaves(3, is_rtu=True) as serving:
        serving.set(3, 100, 0x41AC, 0)
        site = FakePlcSite()
        async with running(MODBUS, site, **table(f"rtu+tcp://127.0.0.1:{serving.port}")):
            assert await until(lambda: site.latest("meter-3")) == {"power": 21.5, "running": False}
            serving.silent = {3}
            await until(lambda: site.left)
        assert serving.connections == 1


@asyncio_test
async def test_an_adapter_that_is_pulled_out_and_put_in_again() -> None:
    """It is told at once; the bus works again by itself."""
    directory = tempfile.mkdtemp()
    link = os.path.join(directory, "ttyUSB0")
    site = FakePlcSite()
    cable, serving = Cable(), Slaves([3])
    os.symlink(cable.near, link)
    await serving.start_serial(cable.far, 115_200)
    async with running(MODBUS, site, **table(f"serial://{link}?baud=115200&parity=N")):
        await until(lambda: site.readings)
        await serving.stop()
        cable.close()
        os.remove(link)
        await until(lambda: site.healths[-1][0] is Health.FAILED)
        assert site.left == ["meter-3"]
        cable, serving = Cable(), Slaves([3])
        os.symlink(cable.near, link)
        await serving.start_serial(cable.far, 115_200)
        count = len(site.readings)
        await until(lambda: len(site.readings) > count)
    await serving.stop()
    cable.close()
    shutil.rmtree(directory)
