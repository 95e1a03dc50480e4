"""The Modbus master against pymodbus's own server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import tty
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusUdpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge_gateway.connectors.modbus import KINDS
from edge_gateway.model import Call, CallFailed, Health
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_plc_sites import RecordingSite, running, until

MODBUS = KINDS[0]


class Plant:
    """A server with some slaves; `requests` are (unit, function, address, count) as they came."""

    def __init__(self, registers: dict[int, int], units: tuple[int, ...] = (1,), holes: tuple[int, ...] = ()) -> None:
        self.requests: list[tuple[int, int, int, int]] = []
        self.written: list[tuple[int, int, list[Any]]] = []
        self.silent: set[int] = set()
        self.holes = holes
        self.server: Any = None
        self.port = 0
        words = [registers.get(address, 0) for address in range(300)]
        self.devices = [self._device(unit, words) for unit in units]

    def _device(self, unit: int, words: list[int]) -> SimDevice:
        async def action(
            function: int, start: int, address: int, count: int, current: list[int], values: Any
        ) -> ExcCodes | None:
            self.requests.append((unit, function, address, count))
            if values is not None:
                self.written.append((function, address, list(values)))
            if any(address <= hole < address + count for hole in self.holes):
                return ExcCodes.ILLEGAL_ADDRESS
            return None

        bits = [SimData(0, values=[number % 3 == 0 for number in range(64)], datatype=DataType.BITS)]
        held = [SimData(0, values=words, datatype=DataType.REGISTERS)]
        return SimDevice(unit, simdata=(bits, bits, held, held), action=action)

    async def start(self, port: int = 0, kind: type = ModbusTcpServer, **options: Any) -> None:
        self.server = kind(
            self.devices, address=("127.0.0.1", port), ignore_missing_devices=True, trace_pdu=self.heard, **options
        )
        await self.server.serve_forever(background=True)
        if kind is ModbusTcpServer:
            self.port = self.server.transport.sockets[0].getsockname()[1]
        else:
            self.port = self.server.transport.get_extra_info("sockname")[1]

    def heard(self, is_sending: bool, pdu: Any) -> Any:
        if not is_sending and pdu.dev_id in self.silent:
            return None
        return pdu

    async def stop(self) -> None:
        await self.server.shutdown()


@contextlib.asynccontextmanager
async def plant(*args: Any, **kwargs: Any) -> AsyncIterator[Plant]:
    made = Plant(*args, **kwargs)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def table(port: int, *devices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "connect": f"tcp://127.0.0.1:{port}", "every": "100 ms", "timeout": "300 ms", "device": list(devices), **more
    }  # fmt: skip


def words_of(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 2}H", data))


SAMPLES = [
    ("int16", -2, struct.pack(">h", -2)),
    ("uint16", 65_000, struct.pack(">H", 65_000)),
    ("int32", -70_000, struct.pack(">i", -70_000)),
    ("uint32", 4_000_000_000, struct.pack(">I", 4_000_000_000)),
    ("int64", -(2**40), struct.pack(">q", -(2**40))),
    ("uint64", 2**40, struct.pack(">Q", 2**40)),
    ("float32", 1523.4, struct.pack(">f", 1523.4)),
    ("float64", 3.125, struct.pack(">d", 3.125)),
    ("bcd16", 1234, b"\x12\x34"),
    ("bcd32", 12345678, b"\x12\x34\x56\x78"),
]


def in_order(data: bytes, order: str) -> bytes:
    pairs = [data[at : at + 2] for at in range(0, len(data), 2)]
    if "swapped" in order:  # the words in the other order, or the bytes in each
        return b"".join(reversed(pairs)) if order == "big-swapped" else b"".join(pair[::-1] for pair in pairs)
    return data if order == "big" else data[::-1]


@asyncio_test
async def test_every_type_in_every_order_is_read_in_one_request() -> None:
    """Values of all types and word orders come out as they were put in, by one request for all of them."""
    registers: dict[int, int] = {}
    lines, expected, at = [], {}, 0
    for order in ("big", "little", "big-swapped", "little-swapped"):
        for type, value, data in SAMPLES:
            key = f"{type}_{order}"
            words = words_of(in_order(data, order))
            registers |= dict(enumerate(words, at))
            lines.append({"key": key, "at": f"holding:{at}", "as": type, "words": order})
            expected[key] = value
            at += len(words)
    async with plant(registers) as served:
        site = RecordingSite()
        device = {"unit": 1, "device": "d{unit}", "type": "t", "telemetry": lines}
        async with running(MODBUS, table(served.port, device), site):
            await until(lambda: site.readings)
        assert site.latest("d1") == expected
        assert {count for _, _, _, count in served.requests} == {at}
        assert site.seen_devices == [("d1", "t")]
        assert site.health_now is Health.HEALTHY


@asyncio_test
async def test_texts_bits_and_coils_are_read() -> None:
    """Strings, bits of a register, coils and discrete inputs become texts and booleans; scaling is exact."""
    text = words_of(b"SN-0042\0")
    async with plant({**dict(enumerate(text)), 20: 0b1000, 30: 1523}) as served:
        site = RecordingSite(wants_raw=True)
        device = {
            "unit": 1,
            "device": "m",
            "attributes": [{"key": "serial", "at": "holding:0-3", "as": "string"}],
            "telemetry": [
                {"key": "alarm", "at": "holding:20.3"}, {"key": "ok", "at": "input:20", "bit": 2},
                {"key": "power", "at": "40031", "scale": 0.1, "unit": "W"},
                "coil:3 -> pump", "discrete:4 -> door: bool",
                {"key": "lamps", "at": "coil:0-3"},
            ],
        }  # fmt: skip
        async with running(MODBUS, table(served.port, device), site):
            await until(lambda: len(site.latest("m")) == 7)
        assert site.latest("m") == {
            "serial": "SN-0042", "alarm": True, "ok": False, "power": 152.3, "pump": True, "door": False,
            "lamps": [True, False, False, True],
        }  # fmt: skip
        raws = next(reading.raw for reading in site.readings if reading.raw and "power" in reading.raw)
        assert (
            raws is not None and raws["power"].startswith("holding:30 raw 0x05F3, ") and raws["power"].endswith(" ms W")
        )


@asyncio_test
async def test_a_register_that_is_not_there_costs_only_itself() -> None:
    """A refused block is split until only the missing register is left out; health names it, with the remedy."""
    async with plant({address: address for address in range(40)}, holes=(7,)) as served:
        site = RecordingSite()
        lines = [{"key": f"k{address}", "at": f"holding:{address}"} for address in range(20)]
        async with running(MODBUS, table(served.port, {"unit": 1, "device": "m", "telemetry": lines}), site):
            await until(lambda: len(site.latest("m")) == 19)
            assert "k7" not in site.latest("m")
            assert site.health_now is Health.DEGRADED
            assert site.reason == "unit 1: illegal data address at holding:7; check `at` and `base`"
            served.requests.clear()
            await until(lambda: len(served.requests) >= 6)
            assert all(not address <= 7 < address + count for _, _, address, count in served.requests)


@asyncio_test
async def test_writes_reach_the_slave_and_are_verified() -> None:
    """Calls and shared attributes are written with type and scale, by the function for one or several registers."""
    async with plant({}) as served:
        site = RecordingSite()
        device = {
            "unit": 1,
            "device": "m",
            "rpc": {
                "setLimit": {"write": "holding:200", "value": "$.params.limit", "scale": 0.1, "verify": True},
                "setSpeed": {"write": "holding:210", "as": "float32", "words": "big-swapped"},
                "pump": {"write": "coil:5"},
                "stop": {"write": "coil:6", "value": True},
                "flag": {"write": "holding:220.4"},
                "limit": {"read": "holding:200", "scale": 0.1},
            },
            "shared": {"limit": {"write": "holding:230", "as": "int16", "multiple": True}},
        }  # fmt: skip
        async with running(MODBUS, table(served.port, device), site) as connector:
            await until(lambda: site.health_now is Health.HEALTHY)

            async def call(method: str, params: Any = None) -> Any:
                return await connector.call(Call(device="m", method=method, params=params, timeout_s=5))

            assert await call("setLimit", {"limit": 12.5}) == {"success": True}
            assert await call("limit") == 12.5
            await call("setSpeed", 3.5)
            await call("pump", "on")
            await call("stop")
            await call("flag", True)
            await connector.attributes_changed("m", {"limit": -5, "other": 1}, ["gone"])
            assert served.written == [
                (6, 200, [125]), (16, 210, [0, 0x4060]), (5, 5, [True]), (5, 6, [True]), (6, 220, [16]),
                (16, 230, [65_531]),
            ]  # fmt: skip
            with pytest.raises(CallFailed, match="known are flag, limit, pump"):
                await call("setLimt")
            with pytest.raises(CallFailed, match="out of range; uint16"):
                await call("setLimit", {"limit": 10_000})


@asyncio_test
async def test_dead_units_do_not_slow_the_others() -> None:
    """With three of eight units dead the others are read in each period; health names the dead; one that comes back
    is read again."""
    async with plant({0: 5}, units=tuple(range(1, 9))) as served:
        served.silent |= {2, 5, 6}
        site = RecordingSite()
        device = {"units": "1-8", "device": "m{unit}", "telemetry": ["holding:0 -> v"]}
        async with running(MODBUS, table(served.port, device), site):
            await until(lambda: "units 2, 5, 6 do not answer within 300 ms" in site.reason)
            site.readings.clear()
            await asyncio.sleep(1.5)
            for unit in (1, 3, 4, 7, 8):
                assert len([one for one in site.readings if one.device == f"m{unit}"]) >= 12
            served.silent.clear()
            await until(lambda: site.health_now is Health.HEALTHY)
            await until(lambda: site.latest("m2") == {"v": 5})


@asyncio_test
async def test_a_lost_connection_is_told_and_made_anew() -> None:
    """While the server is away health is FAILED with host and port and nothing is sent; then reading goes on."""
    served = Plant({0: 5})
    await served.start()
    port, site = served.port, RecordingSite()
    async with running(MODBUS, table(port, {"unit": 1, "device": "m", "telemetry": ["holding:0 -> v"]}), site) as one:
        await until(lambda: site.readings)
        await served.stop()
        await until(lambda: site.health_now is Health.FAILED)
        assert f"127.0.0.1:{port}" in site.reason
        count = len(site.readings)
        with pytest.raises(CallFailed):
            await one.call(Call(device="m", method="x", params=None, timeout_s=1))
        assert len(site.readings) == count
        again = Plant({0: 6})
        await again.start(port)
        await until(lambda: site.latest("m") == {"v": 6})
        assert site.health_now is Health.HEALTHY
    await again.stop()


@asyncio_test
async def test_polling_stops_while_the_gateway_has_no_room() -> None:
    """A congested gateway is not given more; polls go on when it has room again."""
    async with plant({0: 5}) as served:
        site = RecordingSite()
        site.is_congested = True
        async with running(
            MODBUS, table(served.port, {"unit": 1, "device": "m", "telemetry": ["holding:0 -> v"]}), site
        ):
            await until(lambda: site.health_now is Health.HEALTHY)
            await asyncio.sleep(0.3)
            assert not site.readings and not served.requests
            site.make_room()
            await until(lambda: site.readings)


@asyncio_test
async def test_udp_and_rtu_over_tcp_are_spoken() -> None:
    """The same settings read over UDP and over RTU frames in TCP."""
    for scheme, kind, options in (
        ("udp", ModbusUdpServer, {}),
        ("rtu+tcp", ModbusTcpServer, {"framer": FramerType.RTU}),
    ):
        served = Plant({0: 9})
        await served.start(0, kind, **options)
        site = RecordingSite()
        device = {"unit": 1, "device": "m", "telemetry": ["holding:0 -> v"]}
        async with running(
            MODBUS, {**table(served.port, device), "connect": f"{scheme}://127.0.0.1:{served.port}"}, site
        ):
            await until(lambda: site.latest("m") == {"v": 9})  # noqa: B023
        await served.stop()


class Line:
    """Two pseudo-terminals with their ends tied together: a serial line."""

    def __init__(self) -> None:
        (one, self.first), (other, self.second) = os.openpty(), os.openpty()
        self._ends = (one, other)
        for end in (*self._ends, self.first, self.second):
            tty.setraw(end)
        loop = asyncio.get_running_loop()
        loop.add_reader(one, lambda: os.write(other, os.read(one, 4096)))
        loop.add_reader(other, lambda: os.write(one, os.read(other, 4096)))
        self.paths = (os.ttyname(self.first), os.ttyname(self.second))

    def close(self) -> None:
        for end in self._ends:
            asyncio.get_running_loop().remove_reader(end)
        for end in (*self._ends, self.first, self.second):
            os.close(end)


@asyncio_test
async def test_a_serial_line_is_spoken_and_a_dead_slave_is_bearable() -> None:
    """RTU on a serial line: the slave that is there is read, though another one never answers."""
    line = Line()
    served = Plant({0: 77})
    served.silent.add(2)
    server = ModbusSerialServer(
        served.devices, framer=FramerType.RTU, port=line.paths[1], baudrate=115_200, ignore_missing_devices=True,
        trace_pdu=served.heard,
    )  # fmt: skip
    await server.serve_forever(background=True)
    site = RecordingSite()
    device = {"units": "1-2", "device": "m{unit}", "telemetry": ["holding:0 -> v"]}
    connect = f"serial://{line.paths[0]}?baud=115200"
    async with running(MODBUS, {**table(0, device), "connect": connect, "timeout": "100 ms"}, site):
        await until(lambda: "unit 2 does not answer within 100 ms" in site.reason)
        count = len(site.readings)
        await until(lambda: len(site.readings) >= count + 10)
        assert site.latest("m1") == {"v": 77}
    await server.shutdown()
    line.close()


@asyncio_test
async def test_a_serial_device_that_is_not_there_is_named() -> None:
    """Health says which device is missing and what to look at."""
    site = RecordingSite()
    device = {"unit": 1, "device": "m", "telemetry": ["holding:0 -> v"]}
    async with running(MODBUS, {**table(0, device), "connect": "serial:///dev/ttyNOT0"}, site):
        await until(lambda: site.health_now is Health.FAILED)
    assert "there is no /dev/ttyNOT0; is the adapter plugged in?" in site.reason
