"""The fast path: plain POSTs are answered without aiocoap's message layers.

Stock aiocoap answers some 4,000 requests a second and keeps 3.5 KiB of each for 247 s. Plain
requests (CON or NON POST, no options but Uri-Path, Uri-Host, Uri-Port, Content-Format and Accept)
are parsed here, deduplicated in bounded memory and answered on the same socket; everything odd goes
to aiocoap untouched. The same datagram always takes the same way, so deduplication holds.

Source: RFC 7252 sections 3 (format), 4.2 to 4.5 (message layer, deduplication), 5.2 (responses).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from typing import Any

from cloud_core.transports.coap.adapter import JSON_FORMAT, POST, CoapDeviceAdapter
from cloud_core.transports.coap.resource import plain_address

CON, NON, ACK = 0, 1, 2
URI_HOST, URI_PORT, URI_PATH, CONTENT_FORMAT, ACCEPT = 3, 7, 11, 12, 17
_KNOWN_OPTIONS = frozenset((URI_HOST, URI_PORT, URI_PATH, CONTENT_FORMAT, ACCEPT))
MAX_PATH_CACHE = 50_000

# EXCHANGE_LIFETIME is 247 s (RFC 7252 section 4.8.2): an answer is remembered for one to two periods.
GENERATION_S = 247.0
MAX_GENERATION_ENTRIES = 200_000

PIGGYBACK_S = 0.5  # then an empty ACK, and the answer as a message of its own
ACK_TIMEOUT_S = 3.0  # ACK_TIMEOUT * ACK_RANDOM_FACTOR
MAX_RETRANSMIT = 4
SWEEP_S = 0.1

Address = Any  # a socket address as the kernel gives it
Key = tuple[Address, int]


class Plain:
    """The parts of a plain request that its answer needs."""

    __slots__ = ("content_format", "kind", "message_id", "path", "payload", "token")

    def __init__(
        self, kind: int, message_id: int, token: bytes, path: bytes, content_format: int | None, payload: bytes
    ) -> None:
        self.kind = kind
        self.message_id = message_id
        self.token = token
        self.path = path  # Uri-Path options joined by NUL
        self.content_format = content_format
        self.payload = payload


def parse_plain(data: bytes) -> Plain | None:
    """The request in `data`; None for anything that is not a plain POST, malformed datagrams included."""
    if len(data) < 4 or data[1] != POST:
        return None
    first = data[0]
    kind = (first >> 4) & 3
    token_length = first & 15
    if first >> 6 != 1 or kind > NON or token_length > 8:
        return None
    at = 4 + token_length
    end = len(data)
    number = 0
    path: list[bytes] = []
    content_format: int | None = None
    while at < end and data[at] != 0xFF:
        head = data[at]
        delta, length = head >> 4, head & 15
        at += 1
        if delta > 12 or length > 13:
            return None  # an extended option number is none of ours; a value of 269 bytes and more neither
        if length == 13:
            if at >= end:
                return None
            length = data[at] + 13
            at += 1
        number += delta
        if number not in _KNOWN_OPTIONS or at + length > end:
            return None
        if number == URI_PATH:
            path.append(data[at : at + length])
        elif number == CONTENT_FORMAT:
            if length > 2:
                return None
            content_format = int.from_bytes(data[at : at + length], "big")
        at += length
    payload = data[at + 1 :]
    if at < end and not payload:
        return None  # a payload marker without payload is a format error (RFC 7252 section 3)
    return Plain(kind, data[2] << 8 | data[3], data[4 : 4 + token_length], b"\0".join(path), content_format, payload)


def encode_response(
    kind: int,
    message_id: int,
    token: bytes,
    code: int,
    payload: bytes,
    content_format: int | None,
    max_age_s: int | None,
) -> bytes:
    """A response datagram; options in the order of their numbers (12 Content-Format, 14 Max-Age)."""
    parts = [bytes((0x40 | kind << 4 | len(token), code, message_id >> 8, message_id & 255)), token]
    number = 0
    if payload:
        value = _uint(JSON_FORMAT if content_format is None else content_format)
        parts.append(bytes((CONTENT_FORMAT << 4 | len(value),)) + value)
        number = CONTENT_FORMAT
    if max_age_s is not None:
        value = _uint(max_age_s)
        delta = 14 - number
        parts.append(
            (bytes((delta << 4 | len(value),)) if delta < 13 else bytes((0xD0 | len(value), delta - 13))) + value
        )
    if payload:
        parts.append(b"\xff" + payload)
    return b"".join(parts)


def _uint(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


class _Exchange:
    """A request in work, or one whose answer is on its way."""

    __slots__ = ("ancillary", "due_s", "is_acknowledged", "key", "request", "response", "tries")

    def __init__(self, key: Key, request: Plain, ancillary: Any, due_s: float) -> None:
        self.key = key
        self.request = request
        self.ancillary = ancillary
        self.due_s = due_s
        self.is_acknowledged = False  # an empty ACK went out; the answer will be a CON of its own
        self.response: bytes | None = None
        self.tries = 0


class FastPath:
    """Stands before aiocoap's `datagram_msg_received` of one UDP interface."""

    def __init__(self, interface: Any, adapter: CoapDeviceAdapter) -> None:
        # `interface`: aiocoap's MessageInterfaceUDP6; aiocoap is untyped.
        self._interface = interface
        self._adapter = adapter
        self._to_aiocoap = interface.datagram_msg_received
        self._loop = asyncio.get_running_loop()
        self._answered: dict[Key, bytes] = {}
        self._answered_before: dict[Key, bytes] = {}
        self._generation_ends_s = self._loop.time() + GENERATION_S
        self._in_work: dict[Key, _Exchange] = {}
        self._waiting: deque[_Exchange] = deque()  # in work, oldest first
        self._separate: dict[Key, _Exchange] = {}  # (peer, our message id): answers that await their ACK
        self._paths: dict[bytes, tuple[str, ...]] = {}
        self._next_message_id = int.from_bytes(os.urandom(2), "big")
        self._sweep_handle = self._loop.call_later(SWEEP_S, self._sweep)

    def stop(self) -> None:
        self._sweep_handle.cancel()

    def datagram_msg_received(self, data: bytes, ancillary: Any, flags: int, address: Address) -> None:
        """Called by aiocoap's transport for each datagram."""
        request = parse_plain(data)
        if request is None:
            if len(data) == 4 and data[1] == 0 and (data[0] >> 4) & 3 >= ACK and self._separate:
                # ACK or RST to an answer of ours; aiocoap has message ids of its own
                if self._separate.pop((address, data[2] << 8 | data[3]), None) is not None:
                    return
            self._to_aiocoap(data, ancillary, flags, address)
            return
        key = (address, request.message_id)
        known = self._answered.get(key) or self._answered_before.get(key)
        if known is not None:
            self._send(known, ancillary, address)  # a retransmission: the same answer, nothing done twice
            return
        if key in self._in_work:
            if self._in_work[key].is_acknowledged:
                self._send(_empty_ack(request.message_id), ancillary, address)
            return
        self._work(key, request, ancillary, address)

    def _work(self, key: Key, request: Plain, ancillary: Any, address: Address) -> None:
        segments = self._paths.get(request.path)
        if segments is None:
            try:
                segments = tuple(request.path.decode().split("\0"))
            except UnicodeDecodeError:
                segments = ("",)
            if len(self._paths) >= MAX_PATH_CACHE:
                self._paths.clear()
            self._paths[request.path] = segments
        exchange = _Exchange(key, request, ancillary, self._loop.time() + PIGGYBACK_S)
        self._in_work[key] = exchange
        self._waiting.append(exchange)

        def answer(code: int, payload: bytes, max_age_s: int | None) -> None:
            self._answer(exchange, code, payload, max_age_s)

        self._adapter.handle(POST, segments, request.payload, plain_address(address[0]), answer)

    def _answer(self, exchange: _Exchange, code: int, payload: bytes, max_age_s: int | None) -> None:
        request = exchange.request
        kind, message_id = (ACK, request.message_id)
        if request.kind == NON or exchange.is_acknowledged:
            kind, message_id = (NON if request.kind == NON else CON), self._new_message_id()
        response = encode_response(kind, message_id, request.token, code, payload, request.content_format, max_age_s)
        self._in_work.pop(exchange.key, None)
        exchange.response = response
        self._remember(exchange.key, response)
        address = exchange.key[0]
        if kind == CON:
            exchange.due_s = self._loop.time() + ACK_TIMEOUT_S
            self._separate[(address, message_id)] = exchange
        self._send(response, exchange.ancillary, address)

    def _remember(self, key: Key, response: bytes) -> None:
        if len(self._answered) >= MAX_GENERATION_ENTRIES:
            self._rotate()
        self._answered[key] = response

    def _rotate(self) -> None:
        self._answered_before, self._answered = self._answered, {}
        self._generation_ends_s = self._loop.time() + GENERATION_S

    def _new_message_id(self) -> int:
        self._next_message_id = (self._next_message_id + 1) & 0xFFFF
        return self._next_message_id

    def _send(self, data: bytes, ancillary: Any, address: Address) -> None:
        """On the socket and from the local address that the request came to."""
        pktinfo = [one for one in ancillary if one[0] == socket.IPPROTO_IPV6 and one[1] == socket.IPV6_PKTINFO]
        self._interface.transport.sendmsg(data, pktinfo, 0, address)

    def _sweep(self) -> None:
        """Late answers, lost answers, old answers: one timer for all."""
        self._sweep_handle = self._loop.call_later(SWEEP_S, self._sweep)
        now_s = self._loop.time()
        waiting = self._waiting
        while waiting and (waiting[0].response is not None or waiting[0].due_s <= now_s):
            exchange = waiting.popleft()
            if exchange.response is None and exchange.request.kind == CON:
                exchange.is_acknowledged = True
                self._send(_empty_ack(exchange.request.message_id), exchange.ancillary, exchange.key[0])
        for place, exchange in list(self._separate.items()):
            if exchange.due_s <= now_s:
                self._retransmit(place, exchange, now_s)
        if now_s >= self._generation_ends_s:
            self._rotate()

    def _retransmit(self, place: Key, exchange: _Exchange, now_s: float) -> None:
        exchange.tries += 1
        if exchange.tries > MAX_RETRANSMIT or exchange.response is None:
            del self._separate[place]
            return
        exchange.due_s = now_s + ACK_TIMEOUT_S * 2**exchange.tries
        self._send(exchange.response, exchange.ancillary, place[0])


def _empty_ack(message_id: int) -> bytes:
    return bytes((0x60, 0, message_id >> 8, message_id & 255))


def install(context: Any, adapter: CoapDeviceAdapter) -> list[FastPath]:
    """Puts a fast path before every UDP interface of an aiocoap context; stop them before it."""
    paths = []
    for token_interface in context.request_interfaces:
        interface = getattr(getattr(token_interface, "token_interface", None), "message_interface", None)
        if interface is not None and hasattr(interface, "datagram_msg_received"):
            path = FastPath(interface, adapter)
            interface.datagram_msg_received = path.datagram_msg_received
            paths.append(path)
    return paths
