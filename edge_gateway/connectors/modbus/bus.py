"""One connection to slaves, with one request at a time; the only importer of pymodbus."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerType

from edge_gateway.connectors.modbus.addresses import Table
from edge_gateway.connectors.modbus.fields import Raw
from edge_gateway.connectors.modbus.links import Link

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
_PATH_UNAVAILABLE, _NO_RESPONSE = 10, 11  # a gateway box speaks for a slave that is silent
_CONNECT_S: Final = 3.0
_LIBRARY_SPARE_S: Final = 5.0  # the library's own timeout comes after ours
_BITS_OF_CHARACTER, _GAP_CHARACTERS, _GAP_MIN_S = 11, 3.5, 0.00175

_WORDS: Final = {
    1: "illegal function; it cannot read or write this table",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, but not done yet",
    6: "device busy",
    7: "negative acknowledge",
    8: "memory parity error",
}


class Silent(Exception):
    """The unit did not answer in time."""


class Refused(Exception):
    """The unit answered by an exception; `str()` is its text."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(_WORDS.get(code, f"exception {code}"))


class BusLost(Exception):
    """There is no connection (any more); `str()` says why."""


class Bus:
    """`turn` gives the right to ask; within one, `read` and `write`. Urgent turns go first."""

    def __init__(self, link: Link, *, timeout_s: float, pause_s: float = 0.0) -> None:
        self._link = link
        self._timeout_s = timeout_s
        self._pause_s = max(pause_s, _gap_s(link)) if link.is_serial else pause_s
        self._client: Any = None
        self._lost: asyncio.Future[None] | None = None
        self._is_taken = False
        self._waiting: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        self._free_at = 0.0
        self.last_s = 0.0  # how long the last answer took
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it reports as errors what we tell in our own words

    # --- connection ------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._lost is not None and not self._lost.done()

    async def open(self) -> None:
        """Raises: BusLost."""
        self.close()
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[None] = loop.create_future()

        def changed(is_connected: bool) -> None:
            if not is_connected and not lost.done():
                lost.set_result(None)

        self._client = self._new_client(changed)
        errors: list[Exception] = []
        create = self._client.ctx.call_create

        async def noting() -> Any:
            """The library forgets why it cannot connect."""
            try:
                return await create()
            except Exception as error:  # pyserial lets out what it likes, such as termios.error
                errors.append(error)
                raise OSError(str(error)) from error

        self._client.ctx.call_create = noting
        connecting = asyncio.ensure_future(self._client.connect())
        try:  # no wait_for: before Python 3.12 it can swallow a cancellation
            await asyncio.wait((connecting,), timeout=max(self._timeout_s, _CONNECT_S))
        finally:
            if not connecting.done():
                connecting.cancel()
                await asyncio.wait((connecting,))
        if connecting.cancelled():
            raise BusLost("nobody answers there")
        try:
            is_connected = connecting.result()
        except (ModbusException, ValueError) as error:
            raise BusLost(str(error)) from error
        if not is_connected:
            raise BusLost(_reason(errors))
        self._lost = lost

    def _new_client(self, changed: Any) -> Any:
        link = self._link
        common = {"reconnect_delay": 0, "retries": 0, "trace_connect": changed}
        timeout_s = self._timeout_s + _LIBRARY_SPARE_S
        if link.is_serial:
            return AsyncModbusSerialClient(
                link.host, baudrate=link.baud, parity=link.parity, stopbits=link.stop, bytesize=link.bits,
                timeout=timeout_s, **common,
            )  # fmt: skip
        framer = FramerType.RTU if link.is_rtu else FramerType.SOCKET
        return AsyncModbusTcpClient(link.host, port=link.port, framer=framer, timeout=timeout_s, **common)

    def close(self) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        if self._client is not None:
            self._client.close()
            self._client = None

    async def lost(self) -> None:
        """Returns when the connection has gone."""
        if self._lost is not None:
            await asyncio.shield(self._lost)

    # --- turns -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def turn(self, *, is_urgent: bool = False) -> AsyncIterator[Bus]:
        """Waits for the bus to be free."""
        if self._is_taken:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[0 if is_urgent else 1].append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._pass_on()
                raise
        self._is_taken = True
        try:
            yield self
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        for queue in self._waiting:
            while queue:
                waiter = queue.popleft()
                if not waiter.done():
                    waiter.set_result(None)  # the bus stays taken, by the one who waited
                    return
        self._is_taken = False

    # --- requests --------------------------------------------------------------------------------

    async def read(self, unit: int, table: Table, first: int, count: int, *, timeout_s: float | None = None) -> Raw:
        """Raises: Silent, Refused, BusLost."""
        client = self._open_client()
        function, method = {
            Table.COIL: (1, client.read_coils),
            Table.DISCRETE: (2, client.read_discrete_inputs),
            Table.HOLDING: (3, client.read_holding_registers),
            Table.INPUT: (4, client.read_input_registers),
        }[table]
        answer = await self._ask(method, timeout_s, first, count=count, device_id=unit)
        if answer.function_code != function:  # late, to a request before: RTU does not number them
            raise Silent("it answered another request")
        found = answer.bits[:count] if table.is_bits else answer.registers
        if len(found) != count:
            raise Silent(f"it answered {len(found)} registers instead of {count}")
        return list(found) if table.is_bits else b"".join(register.to_bytes(2, "big") for register in found)

    async def write(self, unit: int, table: Table, first: int, raw: Raw, *, multiple: bool) -> None:
        """`multiple`: with the function for several, even for one. Raises: Silent, Refused, BusLost."""
        client = self._open_client()
        values: list[Any]
        if isinstance(raw, list):
            values, one, several = raw, client.write_coil, client.write_coils
        else:
            values = [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]
            one, several = client.write_register, client.write_registers
        if len(values) > 1 or multiple:
            await self._ask(several, None, first, values, device_id=unit)
        else:
            await self._ask(one, None, first, values[0], device_id=unit)

    def _open_client(self) -> Any:
        if not self.is_open:
            raise BusLost("the connection is closed")
        return self._client

    async def _ask(self, method: Any, timeout_s: float | None, *args: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        if self._pause_s and (wait := self._free_at - loop.time()) > 0:
            await asyncio.sleep(wait)
        lost = self._lost
        assert lost is not None
        began = loop.time()
        asking = asyncio.ensure_future(method(*args, **options))
        try:
            await asyncio.wait((asking, lost), timeout=timeout_s or self._timeout_s, return_when="FIRST_COMPLETED")
        finally:
            self._free_at = loop.time() + self._pause_s
            if not asking.done():
                asking.cancel()
        self.last_s = loop.time() - began
        return _answer(asking, lost)


def _answer(asking: asyncio.Task[Any], lost: asyncio.Future[None]) -> Any:
    if not asking.done() or asking.cancelled():
        if lost.done():
            raise BusLost("the connection was closed by the other side")
        raise Silent("no answer")
    try:
        answer = asking.result()
    except (ModbusException, OSError) as error:
        if lost.done():
            raise BusLost("the connection was closed by the other side") from error
        raise Silent(str(error)) from error
    if answer.isError():
        code = answer.exception_code
        if code in (_PATH_UNAVAILABLE, _NO_RESPONSE):
            raise Silent("the gateway box gets no answer from it")
        raise Refused(code)
    return answer


def _reason(errors: list[Exception]) -> str:
    if not errors:
        return "it does not accept a connection"
    number = errors[-1].args[0] if errors[-1].args else None
    return os.strerror(number).lower() if isinstance(number, int) and number > 0 else str(errors[-1])


def _gap_s(link: Link) -> float:
    """The silence between two frames of RTU."""
    return max(_GAP_MIN_S, _GAP_CHARACTERS * _BITS_OF_CHARACTER / link.baud)
