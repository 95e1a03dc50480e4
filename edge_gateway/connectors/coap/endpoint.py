"""aiocoap's contexts: a server socket exclusively ours, with a bounded memory of recent requests.

`Any` stands for aiocoap's objects, which are not typed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from aiocoap import Context
from aiocoap.messagemanager import MessageManager
from aiocoap.tokenmanager import TokenManager
from aiocoap.transports.udp6 import MessageInterfaceUDP6
from twisted.logger import Logger

log = Logger()

_EXCHANGE_LIFETIME_S: Final = 247.0  # RFC 7252, 4.8.2: for so long a repeated request must be known
_MAX_REMEMBERED: Final = 10_000
_SOCKET_BUFFER_BYTES: Final = 1_048_576


def open_socket(host: str, port: int) -> socket.socket:
    """A bound UDP socket, for IPv4 too. Raises: OSError with one sentence."""
    place = f"CoAP port {port} on {host}"
    try:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    except OSError as error:
        text = f"cannot open {place}: {error.strerror}; the system needs IPv6 switched on, for CoAP over IPv4 too"
        raise OSError(error.errno, text) from error
    try:
        kind, flags = socket.SOCK_DGRAM, socket.AI_V4MAPPED | socket.AI_ALL
        found = socket.getaddrinfo(host, port, socket.AF_INET6, kind, 0, flags)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)  # the kernel caps it
        opened.setblocking(False)
        opened.bind(found[0][4])  # without SO_REUSEPORT: a second instance must not share the port unnoticed
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            text = f"{place} is taken by another program; stop it or give another in listen"
        elif error.errno == errno.EACCES:
            text = f"no permission to open {place}; choose one above 1023"
        else:
            text = f"cannot open {place}: {error.strerror}"
        raise OSError(error.errno, text) from error
    return opened


class _BoundedMessages(MessageManager):  # type: ignore[misc]  # aiocoap's types are not checked
    """aiocoap's message layer, whose own memory of recent requests has no bound."""

    def __init__(self, token_manager: Any, max_requests: int) -> None:
        super().__init__(token_manager)
        self._max_requests = max_requests
        self._remembered: OrderedDict[Any, list[Any]] = OrderedDict()

    def dispatch_message(self, message: Any) -> None:
        if message.code.is_request() and len(self.token_manager.incoming_requests) >= self._max_requests:
            return  # a confirmable request comes again
        super().dispatch_message(message)

    def _deduplicate_message(self, message: Any) -> bool:
        key, now_s = (message.remote, message.mid), self.loop.time()
        earlier = self._remembered.get(key)
        if earlier is None or now_s - earlier[0] >= _EXCHANGE_LIFETIME_S:
            self._remembered[key] = [now_s, None]
            self._remembered.move_to_end(key)
            if len(self._remembered) > _MAX_REMEMBERED:
                self._remembered.popitem(last=False)
            return False
        if int(message.mtype) == 0 and earlier[1] is not None:
            self._send_via_transport(earlier[1])
        return True

    def _store_response_for_duplicates(self, message: Any) -> None:
        earlier = self._remembered.get((message.remote, message.mid))
        if earlier is not None:
            earlier[1] = message


class _Interface(MessageInterfaceUDP6):  # type: ignore[misc]  # aiocoap's types are not checked
    """Lives through hostile datagrams."""

    def datagram_msg_received(self, data: bytes, ancillary: Any, flags: int, address: Any) -> None:
        try:
            super().datagram_msg_received(data, ancillary, flags, address)
        except Exception as error:  # aiocoap's parser lets ValueErrors of hostile options through
            log.debug("Datagram from {source} dropped: {error}", source=address[0], error=str(error))


async def server_context(opened: socket.socket, site: Any, *, max_requests: int) -> Any:
    """An aiocoap context that serves `site` on the socket, which it closes at `shutdown`. Of `max_requests`, those
    that are under way and observations, more are dropped."""
    loop = asyncio.get_running_loop()
    context = Context(loop=loop, serversite=site, loggername="edge-gateway.coap")
    _quieten(context.log)
    token_manager = TokenManager(context)
    messages = _BoundedMessages(token_manager, max_requests)
    messages.message_interface = await _Interface._create_transport_endpoint(opened, messages, context.log, loop)
    token_manager.token_interface = messages
    context.request_interfaces.append(token_manager)
    return context


async def client_context() -> Any:
    """An aiocoap context for requests."""
    context = await Context.create_client_context(transports=["udp6"], loggername="edge-gateway.coap")
    _quieten(context.log)
    return context


def listen_to(observation: Any, callback: Callable[[Any], None]) -> None:
    """Each notification, then an exception when there are no more; aiocoap's iterator loses what comes in quick
    succession, and does not survive a time-out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        observation.register_callback(callback)
        observation.register_errback(callback)


def _quieten(logger: logging.Logger) -> None:
    """aiocoap warns once per hostile datagram and once per vanished peer, with a traceback."""
    logger.setLevel(logging.CRITICAL)
