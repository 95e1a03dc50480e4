"""The UDP socket: datagrams in batches to the fast path, the rest to aiocoap, all with bounded memory.

`Any` throughout stands for aiocoap's objects, which are not typed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

from aiocoap import Context
from aiocoap.messagemanager import MessageManager
from aiocoap.numbers.constants import TransportTuning
from aiocoap.tokenmanager import TokenManager
from aiocoap.transports.udp6 import MessageInterfaceUDP6
from twisted.logger import Logger

from cloud_core.transports.coap.exchanges import EXCHANGE_LIFETIME_S
from cloud_core.transports.coap.fast_path import PIGGYBACK_S, FastPath
from cloud_core.transports.coap.outbox import Address, Ancillary
from cloud_core.transports.coap.recent import Recent

log = Logger()

RECEIVE_BYTES = 4_096
_ANCILLARY_BYTES = socket.CMSG_SPACE(20) + 64
_BATCH = 256  # of one turn, as many as a TCP port may have events: else datagrams wait while connections are served
_SOCKET_BUFFER_BYTES = 4_194_304
_MAX_REMEMBERED = 10_000
_MAX_CONCURRENT = 1_000
_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK)


def open_socket(bind_address: str, port: int, name: str = "coap", *, is_shared: bool = False) -> socket.socket:
    """A bound UDP socket for IPv6 and IPv4, exclusively ours, or one of several (`workers/sockets.py`).

    Raises: OSError with one sentence.
    """
    place = f"{port} on {bind_address or '::'}"
    try:
        host = "::" if bind_address in ("", "*") else bind_address
        family = socket.AF_INET6
        found = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM, 0, socket.AI_V4MAPPED | socket.AI_ALL)
        opened = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise _explained(error, f"Cannot open the {name} port {place}: {error.strerror}.") from error
    try:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            opened.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)  # the kernel caps it
        opened.setblocking(False)
        if is_shared:  # otherwise a second instance must not share the port unnoticed
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(found[0][4])
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            text = f"The {name} port {place} is taken by another program; stop it or choose another with --{name}-port."
        elif error.errno == errno.EACCES:
            text = f"No permission to open the {name} port {port}; choose one above 1023."
        else:
            text = f"Cannot open the {name} port {place}: {error.strerror}."
        raise _explained(error, text) from error
    return opened


def _explained(error: OSError, text: str) -> OSError:
    explained = OSError(text)
    explained.errno = error.errno
    return explained


class Endpoint:
    """The transport of aiocoap's `MessageInterfaceUDP6`, reading many datagrams per wake-up."""

    max_datagram_bytes = RECEIVE_BYTES

    def __init__(self, opened: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = opened
        self._loop = loop
        self._is_reading = False
        self._is_closed = False
        self.protocol: Interface | None = None
        self.is_congested: Callable[[], bool] = lambda: False

    def get_extra_info(self, name: str) -> Any:
        return self._socket if name == "socket" else None

    def resume(self) -> None:
        if not self._is_reading and not self._is_closed:
            self._is_reading = True
            self._loop.add_reader(self._socket.fileno(), self.read)

    def pause(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._socket.fileno())

    def close(self) -> None:
        if self._is_closed:
            return
        self.pause()
        self._is_closed = True
        self._socket.close()
        if self.protocol is not None:
            self._loop.call_soon(self.protocol.connection_lost, None)

    def sendmsg(self, data: bytes, ancillary: Ancillary, flags: int, address: Address) -> None:
        """Sends or drops: the peer asks again and gets the remembered answer."""
        if self._is_closed:
            return
        for _attempt in range(2):  # an error may be an earlier datagram's
            try:
                self._socket.sendmsg((data,), ancillary, flags, address)
                return
            except OSError as error:
                if error.errno in _WOULD_BLOCK:
                    return

    def taker(self) -> Callable[[bytes, Ancillary, int, Address], None]:
        """What takes the datagrams of the socket, each with its flags and its sender."""
        assert self.protocol is not None
        taker: Callable[[bytes, Ancillary, int, Address], None] = self.protocol.datagram_msg_received
        return taker

    def read(self) -> None:
        """The socket is readable."""
        receive, take, max_bytes = self._socket.recvmsg, self.taker(), self.max_datagram_bytes
        for _datagram in range(_BATCH):
            try:
                data, ancillary, flags, address = receive(max_bytes, _ANCILLARY_BYTES)
            except OSError:
                break
            take(data, ancillary, flags, address)
            if not self._is_reading:
                break
        if self.is_congested():
            self.pause()  # the kernel's buffer holds the rest; resumed at the next delivery


class Interface(MessageInterfaceUDP6):  # type: ignore[misc]  # aiocoap's types are not checked
    """Asks the fast path first."""

    fast_path: FastPath | None = None

    def datagram_msg_received(self, data: bytes, ancillary: Ancillary, flags: int, address: Address) -> None:
        try:
            if self.fast_path is not None and self.fast_path.receive(data, ancillary, flags, address):
                return
        except Exception:
            log.failure("A datagram could not be handled")
            return
        if len(self._ctx.token_manager.incoming_requests) >= _MAX_CONCURRENT:
            return  # a confirmable request comes again
        try:
            super().datagram_msg_received(data, ancillary, flags, address)
        except Exception as error:  # aiocoap's parser lets ValueErrors of hostile options through
            log.debug("Datagram from {source} dropped: {error}", source=address[0], error=str(error))


class _Tuning(TransportTuning):  # type: ignore[misc]  # aiocoap's types are not checked
    EMPTY_ACK_DELAY = PIGGYBACK_S


class BoundedMessageManager(MessageManager):  # type: ignore[misc]  # aiocoap's types are not checked
    """aiocoap's message layer, whose memory of recent requests has no bound and a timer per entry."""

    def __init__(self, token_manager: Any) -> None:
        super().__init__(token_manager)
        self._remembered: Recent[Any, list[Any]] = Recent(max_entries=_MAX_REMEMBERED, lifetime_s=EXCHANGE_LIFETIME_S)

    def dispatch_message(self, message: Any) -> None:
        message.transport_tuning = _Tuning()
        super().dispatch_message(message)

    def _deduplicate_message(self, message: Any) -> bool:
        key, now_s = (message.remote, message.mid), self.loop.time()
        earlier = self._remembered.get(key)
        if earlier is None or now_s - earlier[0] >= EXCHANGE_LIFETIME_S:
            self._remembered.put(key, [now_s, None], now_s)
            return False
        if int(message.mtype) == 0 and earlier[1] is not None:
            self._send_via_transport(earlier[1])
        return True

    def _store_response_for_duplicates(self, message: Any) -> None:
        earlier = self._remembered.get((message.remote, message.mid))
        if earlier is not None:
            earlier[1] = message


async def make_context(endpoint: Endpoint, site: Any, loop: asyncio.AbstractEventLoop) -> tuple[Any, Interface]:
    """An aiocoap context on the endpoint; not reading yet. Returns it and its message interface."""
    context = Context(loop=loop, serversite=site, loggername="coap-server")
    _quieten(context.log)
    token_manager = TokenManager(context)
    message_manager = BoundedMessageManager(token_manager)
    interface = Interface(message_manager, log=context.log, loop=loop)
    message_manager.message_interface = interface
    token_manager.token_interface = message_manager
    context.request_interfaces.append(token_manager)
    endpoint.protocol = interface
    interface.connection_made(endpoint)
    return context, interface


def _quieten(logger: logging.Logger) -> None:
    """Only errors: aiocoap warns once per hostile datagram and once per vanished peer."""
    logger.setLevel(logging.ERROR)
