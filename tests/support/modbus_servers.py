"""Slaves: pymodbus's own server, with eyes on what it is asked and units that can be silenced."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerType
from pymodbus.pdu import ModbusPDU
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

REGISTERS = 400


class Slaves:
    """`registers` and `coils` of each unit count from 0; holding and input registers, coils and discrete inputs are
    different. `requests` are (unit, function, address, count)."""

    def __init__(self, units: Sequence[int], *, registers: int = REGISTERS, is_rtu: bool = False) -> None:
        self._is_rtu = is_rtu
        self._units = units
        self._registers = registers
        self.requests: list[tuple[int, int, int, int]] = []
        self.silent: set[int] = set()
        self.refused: dict[tuple[int, int], ExcCodes] = {}  # (unit, address): asked for it, the unit answers so
        self.refused_functions: set[int] = set()
        self.clamped: dict[tuple[int, int], int] = {}  # (unit, address): the greatest value that it keeps
        self.mute: set[tuple[int, int]] = set()  # (unit, address): asked for it, the unit says nothing
        self.delays: dict[int, float] = {}  # seconds that a unit takes to answer
        self.max_connections = 100  # more are closed at once
        self.connections = 0
        self.port = 0
        self._server: Any = None

    def _device(self, unit: int) -> SimDevice:
        async def action(
            function: int, start: int, address: int, count: int, registers: list[int], values: Any
        ) -> ExcCodes | None:
            size = len(values) if values else count
            if unit in self.delays:
                await asyncio.sleep(self.delays[unit])
            if function in self.refused_functions:
                return ExcCodes.ILLEGAL_FUNCTION
            for place in range(address, address + size):
                if (unit, place) in self.mute:
                    await asyncio.get_running_loop().create_future()
                if code := self.refused.get((unit, place)):
                    return code
                if values and (most := self.clamped.get((unit, place))) is not None:
                    values[place - address] = min(values[place - address], most)
            return None

        def words() -> list[SimData]:
            return [SimData(0, values=[0] * self._registers, datatype=DataType.REGISTERS)]

        def bits() -> list[SimData]:
            return [SimData(0, values=[False] * 160, datatype=DataType.BITS)]

        return SimDevice(unit, simdata=(bits(), bits(), words(), words()), action=action)

    def _packet(self, is_sent: bool, data: bytes) -> bytes:
        unit = data[0] if self._is_rtu else data[6] if len(data) > 6 else 0
        return b"" if is_sent and unit in self.silent else data

    def _pdu(self, is_sent: bool, pdu: ModbusPDU) -> ModbusPDU:
        if not is_sent:
            size = pdu.count or len(pdu.registers) or len(pdu.bits)
            self.requests.append((pdu.dev_id, pdu.function_code, pdu.address, size))
        return pdu

    async def start_serial(self, path: str, baud: int) -> None:
        """On a serial port, by RTU."""
        self._is_rtu = True
        self._server = ModbusSerialServer(
            [self._device(unit) for unit in self._units],
            port=path,
            baudrate=baud,
            framer=FramerType.RTU,
            trace_packet=self._packet,
            trace_pdu=self._pdu,
        )
        await self._server.serve_forever(background=True)

    async def start(self) -> None:
        """On the same port as before, if it ran before."""
        self._server = ModbusTcpServer(
            [self._device(unit) for unit in self._units],
            address=("127.0.0.1", self.port),
            framer=FramerType.RTU if self._is_rtu else FramerType.SOCKET,
            trace_packet=self._packet,
            trace_pdu=self._pdu,
            trace_connect=self._connected,
        )
        await self._server.serve_forever(background=True)
        self.port = self._server.transport.sockets[0].getsockname()[1]

    def _connected(self, is_connected: bool) -> None:
        self.connections += is_connected
        if is_connected and len(self._server.active_connections) > self.max_connections:
            newest = list(self._server.active_connections.values())[-1]
            asyncio.get_running_loop().call_soon(newest.close)

    async def stop(self) -> None:
        await self._server.shutdown()

    def block(self, unit: int, table: str) -> tuple[int, list[int]]:
        """(first, registers) as the server keeps them: `h`, `i`; `c` and `d` with sixteen bits in each."""
        first, _, registers, _ = self._server.context.devices[unit].block[table]
        return first, registers

    def set(self, unit: int, address: int, *values: int, table: str = "h") -> None:
        first, registers = self.block(unit, table)
        registers[address - first : address - first + len(values)] = values

    def set_bit(self, unit: int, address: int, table: str = "c") -> None:
        self.block(unit, table)[1][address // 16] |= 1 << address % 16

    def get(self, unit: int, address: int, count: int = 1, table: str = "h") -> list[int]:
        first, registers = self.block(unit, table)
        return registers[address - first : address - first + count]

    def reads(self, unit: int) -> list[tuple[int, int, int]]:
        """(function, address, count) of what was read of a unit."""
        return [(function, at, count) for one, function, at, count in self.requests if one == unit and function <= 4]


class Cable:
    """Two pseudo terminals, joined. `noise` is put before the next answer."""

    def __init__(self) -> None:
        self._ends = [os.openpty(), os.openpty()]
        for master, slave in self._ends:
            tty.setraw(master)
            tty.setraw(slave)
        self.near, self.far = (os.ttyname(slave) for _, slave in self._ends)
        self.noise = b""
        (one, _), (other, _) = self._ends
        loop = asyncio.get_running_loop()
        loop.add_reader(one, self._carry, one, other, False)
        loop.add_reader(other, self._carry, other, one, True)

    def _carry(self, source: int, target: int, is_answer: bool) -> None:
        data = os.read(source, 4096)
        if is_answer and self.noise:
            data, self.noise = self.noise + data, b""
        os.write(target, data)

    def close(self) -> None:
        for master, slave in self._ends:
            asyncio.get_running_loop().remove_reader(master)
            os.close(master)
            os.close(slave)


@asynccontextmanager
async def slaves(*units: int, **options: Any) -> AsyncIterator[Slaves]:
    serving = Slaves(units, **options)
    await serving.start()
    try:
        yield serving
    finally:
        await serving.stop()
