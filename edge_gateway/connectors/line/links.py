"""The wires: TCP, UDP and serial, all with the same few words."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

import serial

from edge_gateway.connectors.line.settings import Place

_MAX_UNSENT_BYTES: Final = 1_048_576
_READ_BYTES: Final = 65_536
_KEEP_ALIVE: Final = {  # after a minute of silence the other side is asked, after two it is given up
    "TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 120_000,
}  # fmt: skip


class Link(Protocol):
    """One connection."""

    def send(self, data: bytes) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...


class Receiver(Protocol):
    """Who listens to it."""

    def received(self, data: bytes) -> None: ...
    def lost(self, why: str) -> None: ...


class TcpLink(asyncio.Protocol):
    """A TCP connection; `opened` makes its receiver."""

    def __init__(self, opened: Callable[[TcpLink, str], Receiver | None]) -> None:
        self._opened = opened
        self._receiver: Receiver | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername") or ("",)
        _notice_its_end(transport.get_extra_info("socket"))
        self._transport.max_size = _READ_BYTES  # one read: asyncio's own is four times as much
        self._receiver = self._opened(self, str(peer[0]).removeprefix("::ffff:"))
        if self._receiver is None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.received(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._receiver is not None:
            self._receiver.lost(str(error) if error else "the other side closed the connection")

    def send(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self._transport.abort()  # the other side does not read
        elif not self._transport.is_closing():
            self._transport.write(data)

    def pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        self._transport.abort()


def _notice_its_end(opened: Any) -> None:
    """A peer that loses its power says nothing: the system asks, and ends the connection when nobody answers."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):  # not every system has all of them
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class SerialLink:
    """A serial port."""

    def __init__(self, place: Place) -> None:
        """Raises: OSError, also when another program has the port."""
        self._port = serial.Serial(
            place.path,
            baudrate=place.baud,
            bytesize=place.bits,
            parity=place.parity,
            stopbits=place.stop,
            timeout=0,
            exclusive=True,
        )
        self._fd: int = self._port.fileno()
        os.set_blocking(self._fd, False)
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._receiver: Receiver | None = None
        self._is_closed = False

    def start(self, receiver: Receiver) -> None:
        """Begins to read."""
        self._receiver = receiver
        self.resume()

    def resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._fd, self._read)

    def pause(self) -> None:
        if not self._is_closed:
            self._loop.remove_reader(self._fd)

    def send(self, data: bytes) -> None:
        if self._is_closed or len(self._unsent) > _MAX_UNSENT_BYTES:
            return
        self._unsent += data
        self._write()

    def close(self) -> None:
        if not self._is_closed:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._is_closed = True
            self._port.close()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                self._lose(error.strerror or str(error))
            return
        if not data:
            self._lose("the device was unplugged")
        elif self._receiver is not None:
            self._receiver.received(data)

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._fd, self._unsent)]
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                self._lose(error.strerror or str(error))
                return
            self._loop.add_writer(self._fd, self._write)
            return
        self._loop.remove_writer(self._fd)

    def _lose(self, why: str) -> None:
        self.close()
        if self._receiver is not None:
            self._receiver.lost(why)


class UdpLink:
    """The way back to one sender of datagrams."""

    def __init__(self, transport: asyncio.DatagramTransport, address: Any) -> None:
        self._transport, self._address = transport, address

    def send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(data, self._address)

    def pause(self) -> None:
        """Datagrams cannot be held back."""

    def resume(self) -> None:
        """See `pause`."""

    def close(self) -> None:
        """There is nothing to close."""


class UdpPort(asyncio.DatagramProtocol):
    """A UDP socket that hands on each datagram with its sender."""

    def __init__(self, received: Callable[[bytes, Any], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._received(data, address)

    def error_received(self, error: Exception) -> None:
        """A receiver of ours is not there; the next datagram tells."""
