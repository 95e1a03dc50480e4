"""One connection to a bus: requests one after the other, with what went wrong told apart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient, AsyncModbusUdpClient
from pymodbus.exceptions import ModbusException

from edge_gateway.connectors.modbus.addresses import Table
from edge_gateway.connectors.modbus.fields import Raw

logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # what it says there, health says in words

FORMS: Final = (
    "write tcp://host:502, rtu+tcp://host:502, udp://host:502 or serial:///dev/ttyUSB0?baud=19200&parity=E&stop=1"
)
_SCHEMES: Final = ("tcp", "rtu+tcp", "udp", "serial")
_NEVER: Final = 2**31
_GATEWAY_PATH_UNAVAILABLE, _GATEWAY_TARGET_SILENT = 10, 11

EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, not done yet",
    6: "device busy",
    7: "negative acknowledgement",
    8: "memory parity error",
}


class CannotConnect(Exception):
    """`str()` says what to look at."""


class ConnectionGone(Exception):
    """The connection went while it was needed."""


class Silence(Exception):
    """The unit did not answer in time, or the box before it says so."""


class Refused(Exception):
    """The slave answers with an exception; `code` as in the protocol."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(EXCEPTIONS.get(code, f"exception {code}"))


@dataclass(frozen=True, slots=True)
class Target:
    """A `connect` taken apart."""

    scheme: str
    host: str
    port: int
    baud: int = 19_200
    parity: str = "N"
    stop: int = 1
    bits: int = 8
    echo: bool = False  # the adapter hears itself

    @property
    def is_serial(self) -> bool:
        return self.scheme == "serial"

    def __str__(self) -> str:
        return self.host if self.is_serial else f"{self.host}:{self.port}"


def parse_target(text: str) -> Target:
    """Raises: ValueError whose text says the forms."""
    try:
        parts = urlsplit(text)
        port = parts.port or 502
    except ValueError:
        raise ValueError(f"'{text}' is no connection; {FORMS}") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"'{text}' is no connection; {FORMS}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme != "serial":
        if not parts.hostname or parts.path not in ("", "/") or options:
            raise ValueError(f"'{text}' is no connection; {FORMS}")
        return Target(parts.scheme, parts.hostname, port)
    device = parts.netloc + parts.path
    if not device:
        raise ValueError(f"'{text}' names no serial device; {FORMS}")
    return _serial_target(text, device, options)


def _serial_target(text: str, device: str, options: dict[str, str]) -> Target:
    known = ("baud", "parity", "stop", "bits", "echo")
    for name in options:
        if name not in known:
            raise ValueError(f"'{name}' in '{text}' is no option of a serial line; known are {', '.join(known)}")
    parity = options.get("parity", "N").upper()[:1]
    try:
        baud, stop, bits = (
            int(options.get("baud", "19200")),
            int(options.get("stop", "1")),
            int(options.get("bits", "8")),
        )
    except ValueError:
        raise ValueError(f"baud, stop and bits in '{text}' are whole numbers") from None
    if parity not in ("N", "E", "O") or stop not in (1, 2) or bits not in (7, 8) or not 50 <= baud <= 4_000_000:
        raise ValueError(f"'{text}': parity is N, E or O; stop 1 or 2; bits 7 or 8; baud such as 9600 or 19200")
    return Target("serial", device, 0, baud, parity, stop, bits, options.get("echo", "0") not in ("0", "false", "no"))


class Bus:
    """Opened by `open`; every other method raises ConnectionGone when the connection is lost."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._client: Any = None
        self.lost: asyncio.Future[None] | None = None  # done when the connection is lost
        # 3.5 characters of silence part two frames of a serial line
        self._pause_s = max(3.5 * 11 / target.baud, 0.00175) if target.is_serial else 0.0

    @property
    def is_open(self) -> bool:
        return self._client is not None and bool(self._client.connected)

    async def open(self) -> None:
        """Raises: CannotConnect."""
        self.close()
        self._check_device()
        self._client = self._make_client()
        self._client.set_max_no_responses(_NEVER)  # whether a connection is dead is decided by the connector
        self.lost = asyncio.get_running_loop().create_future()
        try:
            is_connected = await self._client.connect()
        except (ModbusException, OSError, ValueError) as error:
            raise CannotConnect(f"{self._target} cannot be opened: {error}") from error
        if not is_connected:
            self.close()
            hint = "is it in use by another program?" if self._target.is_serial else "check address, port and cable"
            raise CannotConnect(f"{self._target} cannot be reached; {hint}")

    def _check_device(self) -> None:
        if not self._target.is_serial or "://" in self._target.host:
            return
        if not os.path.exists(self._target.host):
            raise CannotConnect(f"there is no {self._target.host}; is the adapter plugged in?")
        if not os.access(self._target.host, os.R_OK | os.W_OK):
            raise CannotConnect(f"no permission for {self._target.host}; add the gateway's user to the group dialout")

    def _make_client(self) -> Any:
        target = self._target
        common: dict[str, Any] = {
            "timeout": max(self._timeout_s, 3.0),
            "retries": 0,
            "reconnect_delay": 0,
            "trace_connect": self._connection_changed,
        }
        if target.is_serial:
            return AsyncModbusSerialClient(
                target.host, baudrate=target.baud, parity=target.parity, stopbits=target.stop, bytesize=target.bits,
                handle_local_echo=target.echo, **common,
            )  # fmt: skip
        if target.scheme == "udp":
            return AsyncModbusUdpClient(target.host, port=target.port, **common)
        framer = FramerType.RTU if target.scheme == "rtu+tcp" else FramerType.SOCKET
        return AsyncModbusTcpClient(target.host, port=target.port, framer=framer, **common)

    def _connection_changed(self, is_connected: bool) -> None:
        if not is_connected and self.lost is not None and not self.lost.done():
            self.lost.set_result(None)

    def close(self) -> None:
        client, self._client, self.lost = self._client, None, None
        if client is not None:
            client.close()

    # --- requests ------------------------------------------------------------------------------

    async def read(self, unit: int, table: Table, first: int, count: int, timeout_s: float | None = None) -> Raw:
        """Raises: Silence, Refused, ConnectionGone."""
        answer = await self._ask(lambda client: _READ[table](client)(first, count=count, device_id=unit), timeout_s)
        if table.is_bits:
            if len(answer.bits) < count:
                raise Silence(f"an answer of {len(answer.bits)} bits to a request for {count}")
            return [bool(bit) for bit in answer.bits[:count]]
        if len(answer.registers) != count:
            raise Silence(f"an answer of {len(answer.registers)} registers to a request for {count}")
        return b"".join(register.to_bytes(2, "big") for register in answer.registers)

    async def write(self, unit: int, table: Table, first: int, raw: Raw, *, multiple: bool = False) -> None:
        """One coil or register by the function for one, unless `multiple` or the slave does not know it.

        Raises: Silence, Refused, ConnectionGone."""
        if isinstance(raw, list):
            one, several, values = "write_coil", "write_coils", list[Any](raw)
        else:
            one, several = "write_register", "write_registers"
            values = [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]
        if len(values) == 1 and not multiple:
            try:
                await self._ask(lambda client: getattr(client, one)(first, values[0], device_id=unit))
                return
            except Refused as refused:
                if refused.code != 1:
                    raise
        await self._ask(lambda client: getattr(client, several)(first, values, device_id=unit))

    async def _ask(self, request: Callable[[Any], Awaitable[Any]], timeout_s: float | None = None) -> Any:
        client, lost = self._client, self.lost
        if client is None or lost is None or not client.connected:
            raise ConnectionGone(f"no connection to {self._target}")
        if self._pause_s:
            await asyncio.sleep(self._pause_s)
        client.ctx.comm_params.timeout_connect = timeout_s or self._timeout_s  # its name for that of requests too
        asking = asyncio.ensure_future(request(client))
        try:
            await asyncio.wait((asking, lost), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not asking.done():
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError, ModbusException):
                    await asking
        if asking.cancelled():
            raise ConnectionGone(f"{self._target} closed the connection")
        try:
            answer = asking.result()
        except ModbusException as error:
            if lost.done():
                raise ConnectionGone(f"{self._target} closed the connection") from error
            raise Silence from error
        except OSError as error:
            raise ConnectionGone(f"{self._target}: {error}") from error
        if answer.isError():
            if answer.exception_code in (_GATEWAY_PATH_UNAVAILABLE, _GATEWAY_TARGET_SILENT):
                raise Silence
            raise Refused(answer.exception_code)
        return answer


_READ: Final[dict[Table, Callable[[Any], Callable[..., Awaitable[Any]]]]] = {
    Table.COIL: lambda client: client.read_coils,
    Table.DISCRETE: lambda client: client.read_discrete_inputs,
    Table.HOLDING: lambda client: client.read_holding_registers,
    Table.INPUT: lambda client: client.read_input_registers,
}
