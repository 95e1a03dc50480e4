"""Slaves that do not answer, connections that break, and boxes that take one connection only."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from edge_gateway.connectors.modbus import KINDS
from edge_gateway.connectors.modbus import connector as connector_module
from edge_gateway.model import Health
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_plc_sites import FakePlcSite, command, running, settings_of, until
from tests.support.modbus_servers import Slaves, slaves

(MODBUS,) = KINDS


def table(serving: Slaves, units: str, **more: Any) -> dict[str, Any]:
    """Fifty registers of each unit in a period."""
    lines = [{"key": f"k{at}", "at": f"holding:{at}"} for at in range(50)]
    device = {
        "units": units, "device": "m{unit}", "telemetry": lines, "rpc": {"set": {"write": "holding:60"}},
    }  # fmt: skip
    usual = {"connect": f"tcp://127.0.0.1:{serving.port}", "every": "1 s", "timeout": "800 ms"}
    return {**usual, "device": [device], **more}


def worst_gap(site: FakePlcSite, device: str, since: float) -> float:
    times = [at for at in site.times(device) if at >= since]
    return max((later - earlier for earlier, later in itertools.pairwise(times)), default=99.0)


@asyncio_test
async def test_dead_slaves_do_not_slow_the_others() -> None:
    """20 units with 50 registers each second; five die at once: nobody else misses a turn."""
    async with slaves(*range(1, 21)) as serving:
        site = FakePlcSite()
        dead = {3, 7, 8, 9, 20}
        async with running(MODBUS, site, **table(serving, "1-20", every="200 ms")):
            await until(lambda: len(site.present) == 20)
            began = asyncio.get_running_loop().time()
            serving.silent = dead
            await until(lambda: len(site.left) == 5)
            await asyncio.sleep(1.0)
        alive = [f"m{unit}" for unit in range(1, 21) if unit not in dead]
        gaps = [worst_gap(site, device, began + 0.7) for device in alive]
        assert max(gaps) < 0.5, gaps
        assert sorted(site.left) == sorted(f"m{unit}" for unit in dead)
        assert site.healths[-1] == (
            Health.DEGRADED,
            f"units 3, 7-9, 20 do not answer at 127.0.0.1:{serving.port}; check power, wiring and the unit number",
        )


@asyncio_test
async def test_a_slave_that_comes_back_is_read_again() -> None:
    """Tried after 1 s; then it is as before."""
    async with slaves(1, 2) as serving:
        site = FakePlcSite()
        serving.silent = {2}
        async with running(MODBUS, site, **table(serving, "1-2", every="50 ms", timeout="100 ms")):
            await until(lambda: site.healths[-1:] and site.healths[-1][0] is Health.DEGRADED)
            assert site.present == [("m1", "")]
            serving.silent = set()
            await until(lambda: len(site.times("m2")) > 3)
            assert site.healths[-1] == (Health.HEALTHY, "")
        assert ("m2", "") in site.present


@asyncio_test
async def test_with_one_connection_dead_slaves_are_tried_in_the_gaps() -> None:
    """An attempt waits until its timeout fits between two polls."""
    async with slaves(1, 2, 3) as serving:
        site = FakePlcSite()
        serving.silent = {2, 3}
        settings = table(serving, "1-3", every="400 ms", timeout="300 ms", connections=1)
        async with running(MODBUS, site, **settings):
            await until(lambda: "units 2-3 do not answer" in (site.healths[-1][1] if site.healths else ""))
            began = asyncio.get_running_loop().time()
            count = len(site.times("m1"))
            await until(lambda: len(site.times("m1")) > count + 6)
        assert worst_gap(site, "m1", began) < 0.6
        assert serving.connections == 1


@asyncio_test
async def test_a_slow_slave_is_not_taken_for_dead() -> None:
    """Slower than the first connection waits, but within the timeout: it is read, and after a while without detours."""
    async with slaves(1, 2) as serving:
        serving.delays[2] = 0.25
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, "1-2", every="500 ms")):
            await until(lambda: len(site.times("m2")) > 2)
        assert site.left == []
        assert site.healths == [(Health.HEALTHY, "")]


@asyncio_test
async def test_a_lost_connection_is_told_and_taken_up_again() -> None:
    """Health names the place and the fix; devices leave and come back."""
    async with slaves(1) as serving:
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, "1", every="50 ms")):
            await until(lambda: site.readings)
            await serving.stop()
            await until(lambda: site.healths[-1][0] is Health.FAILED)
            place = f"cannot reach 127.0.0.1:{serving.port}: "
            lost, failed = site.healths[-2:]
            assert lost == (
                Health.DEGRADED, place + "the connection was lost; trying again in 1 s; check its power and network, "
                "the address and the port in `connect`, and that it allows Modbus TCP",
            )  # fmt: skip
            assert failed[1].startswith(place + "connection refused; check ")
            assert site.left == ["m1"]
            await serving.start()
            count = len(site.readings)
            await until(lambda: len(site.readings) > count)
            assert site.healths[-1] == (Health.HEALTHY, "")
            assert site.present == [("m1", ""), ("m1", "")]


@asyncio_test
async def test_a_call_to_a_dead_slave_holds_nobody_up_and_may_wake_it() -> None:
    """It goes over the second connection; an answer brings the unit back at once."""
    async with slaves(1, 2) as serving:
        site = FakePlcSite()
        serving.silent = {2}
        async with running(MODBUS, site, **table(serving, "1-2", every="100 ms", timeout="200 ms")) as connector:
            await until(lambda: site.healths[-1][0] is Health.DEGRADED if site.healths else False)
            serving.silent = set()
            await connector.call(command("m2", "set", 5))
            await until(lambda: site.times("m2"), timeout_s=0.5)
        assert serving.get(2, 60) == [5]


@asyncio_test
async def test_a_box_that_takes_one_connection_is_polled_all_the_same() -> None:
    """Without a second connection the attempts go over the first one, with the full timeout."""
    async with slaves(1, 2) as serving:
        serving.max_connections = 1
        serving.silent = {2}
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, "1-2", every="100 ms", timeout="100 ms")):
            await until(lambda: len(site.times("m1")) > 10)
            await until(lambda: "unit 2 does not answer" in site.healths[-1][1])


@asyncio_test
async def test_a_connection_on_which_nobody_answers_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side may have forgotten it long ago; what is told does not change by that."""
    monkeypatch.setattr(connector_module, "STALE_S", 0.3)
    async with slaves(1) as serving:
        serving.silent = {1}
        site = FakePlcSite()
        async with running(MODBUS, site, **table(serving, "1", timeout="50 ms", connections=1)):
            await until(lambda: serving.connections > 3)
            serving.silent = set()
            await until(lambda: site.readings)
        assert [health for health, _ in site.healths] == [Health.HEALTHY, Health.DEGRADED, Health.HEALTHY]


@asyncio_test
async def test_answers_that_are_no_modbus_end_the_connection_and_not_the_connector() -> None:
    """Another protocol on the port: it is told, and tried again."""
    seen = []

    def rogue() -> asyncio.Protocol:
        class Rogue(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                seen.append(data)
                self.transport.write(data[:2] + b"\0\0\0\x03" + data[6:7] + b"\x00\x00HTTP/1.1 400 Bad Request\r\n")

        return Rogue()

    server = await asyncio.get_running_loop().create_server(rogue, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    site = FakePlcSite()
    settings = table(Slaves([]), "1", timeout="100 ms", every="100 ms") | {"connect": f"tcp://127.0.0.1:{port}"}
    try:
        async with running(MODBUS, site, **settings):
            await until(lambda: len(seen) > 2)
            await until(lambda: site.healths[-1][0] is Health.DEGRADED)
    finally:
        server.close()
    assert not site.readings


@asyncio_test
async def test_a_connector_ends_at_whatever_moment_it_is_cancelled() -> None:
    """While it connects, the moment it is connected, while it asks."""
    async with slaves(1) as serving:
        for turns in range(40):
            connector = MODBUS.build(settings_of(MODBUS, **table(serving, "1", every="10 ms")), FakePlcSite())
            task = asyncio.ensure_future(connector.run())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,), timeout=5)
            assert task.cancelled(), turns
