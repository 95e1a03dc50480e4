"""Devices on CoAP over UDP: confirmable requests with retransmission (RFC 7252 section 4.2), observed commands.

Devices share sockets, as they do behind a router that translates addresses; each has one request outstanding.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Protocol

import msgspec

from cloud_core.simulator.bodies import reply
from cloud_core.simulator.clock import Clock
from cloud_core.simulator.links import Listener
from cloud_core.simulator.plan import Fault
from shared.credentials import AccessToken

ACK_TIMEOUT_S, ACK_RANDOM_FACTOR, MAX_RETRANSMIT = 2.0, 1.5, 4
SEPARATE_S = 60.0
"""How long a response may stay out after its empty acknowledgement."""
LATE_S = 3.0
"""How late a slow device reads an answer: after its first retransmission."""
CON, NON, ACK, RST = range(4)
GET, POST = 1, 2
CREATED, VALID, CHANGED, CONTENT, UNAUTHORIZED, FORBIDDEN = 0x41, 0x43, 0x44, 0x45, 0x81, 0x83
OBSERVE, URI_PATH, CONTENT_FORMAT, MAX_AGE = 6, 11, 12, 14
_JSON = b"\x32"
_TOKEN_BYTES = 4
READ_BYTES = 65_536
_READS_AT_A_TIME = 256


class Message:
    """A message taken apart; `options` by number, the last of each."""

    __slots__ = ("code", "kind", "message_id", "options", "payload", "token")

    def __init__(
        self, kind: int, code: int, message_id: int, token: int, options: dict[int, bytes], payload: bytes
    ) -> None:
        self.kind, self.code, self.message_id, self.token = kind, code, message_id, token
        self.options = options
        self.payload = payload


def read_message(data: bytes) -> Message | None:
    """None for bytes that are no CoAP, or an answer to nobody here (another length of the token)."""
    if len(data) < 4 or data[0] >> 6 != 1:
        return None
    kind, length, code = data[0] >> 4 & 3, data[0] & 15, data[1]
    message_id = data[2] << 8 | data[3]
    if not code:
        return Message(kind, 0, message_id, 0, {}, b"")
    if length != _TOKEN_BYTES or len(data) < 4 + length:
        return None
    found = _read_options(data, 4 + length)
    if found is None:
        return None
    options, payload = found
    return Message(kind, code, message_id, int.from_bytes(data[4 : 4 + length], "big"), options, payload)


def _read_options(data: bytes, at: int) -> tuple[dict[int, bytes], bytes] | None:
    options: dict[int, bytes] = {}
    number, end = 0, len(data)
    try:
        while at < end:
            first = data[at]
            at += 1
            if first == 0xFF:
                return options, data[at:]
            delta, at = _extended(first >> 4, data, at)
            length, at = _extended(first & 15, data, at)
            number += delta
            options[number] = data[at : at + length]
            at += length
    except (IndexError, ValueError):
        return None
    return options, b""


def _extended(nibble: int, data: bytes, at: int) -> tuple[int, int]:
    if nibble == 13:
        return data[at] + 13, at + 1
    if nibble == 14:
        return (data[at] << 8 | data[at + 1]) + 269, at + 2
    if nibble == 15:
        raise ValueError("reserved")
    return nibble, at


def encode_request(code: int, message_id: int, token: int, path: list[str], payload: bytes, *, observe: bool) -> bytes:
    """A confirmable request."""
    options = [(OBSERVE, b"")] if observe else []
    options += [(URI_PATH, part.encode()) for part in path]
    if payload:
        options.append((CONTENT_FORMAT, _JSON))
    parts = [bytes((0x40 | _TOKEN_BYTES, code)), message_id.to_bytes(2, "big"), token.to_bytes(_TOKEN_BYTES, "big")]
    previous = 0
    for number, value in options:
        delta, previous, length = number - previous, number, len(value)
        if length < 13:
            parts.append(bytes((delta << 4 | length,)))
        elif length < 269:
            parts.append(bytes((delta << 4 | 13, length - 13)))
        else:
            parts.append(bytes((delta << 4 | 14,)) + (length - 269).to_bytes(2, "big"))
        parts.append(value)
    if payload:
        parts.append(b"\xff" + payload)
    return b"".join(parts)


class Answered(Protocol):
    def response(self, exchange: Exchange, message: Message) -> None: ...
    def silence(self, exchange: Exchange) -> None: ...


class Exchange:
    """One confirmable request: sent again until something comes, given up after the last time."""

    __slots__ = ("_owner", "_port", "_sent", "_wait_s", "data", "is_dropping", "message_id", "ticket", "token")

    def __init__(self, port: CoapPort, owner: Answered, token: int, message_id: int, data: bytes) -> None:
        self._port = port
        self._owner = owner
        self.token = token
        self.message_id = message_id
        self.data = data
        self.ticket = 0
        self.is_dropping = False  # the next answer is lost on its way
        self._sent = 0
        self._wait_s = ACK_TIMEOUT_S * random.uniform(1.0, ACK_RANDOM_FACTOR)

    def send(self) -> None:
        self._sent += 1
        self._port.send(self.data)
        self._port.clock.after(self._wait_s, self)
        self._wait_s *= 2

    def wake(self) -> None:
        if self._sent > MAX_RETRANSMIT or not self.data:
            self._port.forget(self)
            self._owner.silence(self)
            return
        self._port.retransmitted()
        self.send()

    def acknowledged(self) -> None:
        """The response comes by itself (section 5.2.2)."""
        self.data = b""
        self._port.clock.after(SEPARATE_S, self)

    def response(self, message: Message) -> None:
        self._port.forget(self)
        self._owner.response(self, message)


class CoapPort:
    """A UDP socket, the endpoint of many devices. Raises: OSError."""

    def __init__(self, sock: socket.socket, clock: Clock, retransmitted: Callable[[], None]) -> None:
        self.clock = clock
        self.sock = sock
        self.retransmitted = retransmitted
        self._exchanges: dict[int, Exchange] = {}
        self._by_message_id: dict[int, Exchange] = {}
        self._observers: dict[int, CoapLink] = {}
        self._token = random.getrandbits(8 * _TOKEN_BYTES)
        self._message_id = random.getrandbits(16)

    def request(
        self, owner: Answered, code: int, path: list[str], payload: bytes, *, observe: bool = False
    ) -> Exchange:
        self._token = (self._token + 1) & 0xFFFFFFFF
        self._message_id = (self._message_id + 1) & 0xFFFF
        data = encode_request(code, self._message_id, self._token, path, payload, observe=observe)
        exchange = Exchange(self, owner, self._token, self._message_id, data)
        self._exchanges[exchange.token] = self._by_message_id[exchange.message_id] = exchange
        return exchange

    def forget(self, exchange: Exchange) -> None:
        self.clock.cancel(exchange)
        self._exchanges.pop(exchange.token, None)
        if self._by_message_id.get(exchange.message_id) is exchange:
            del self._by_message_id[exchange.message_id]

    def observe(self, token: int, link: CoapLink) -> None:
        self._observers[token] = link

    def unobserve(self, token: int) -> None:
        self._observers.pop(token, None)

    def send(self, data: bytes) -> None:
        try:
            self.sock.send(data)
        except OSError:
            return  # as good as lost on the way: sent again later

    def ready(self, _mask: int) -> None:
        for _ in range(_READS_AT_A_TIME):
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                return  # nobody listens there (ICMP); retransmission finds out
            message = read_message(data)
            if message is not None:
                self._received(message)

    def _received(self, message: Message) -> None:
        if not message.code:
            exchange = self._by_message_id.get(message.message_id)
            if exchange is not None and message.kind == ACK:
                exchange.acknowledged()
            return
        exchange = self._exchanges.get(message.token)
        if exchange is not None and exchange.is_dropping:
            exchange.is_dropping = False  # lost on its way: not acknowledged either, so that it comes again
            return
        observer = self._observers.get(message.token)
        if message.kind == CON:
            known = exchange is not None or observer is not None
            self.send(bytes((0x40 | (ACK if known else RST) << 4, 0)) + message.message_id.to_bytes(2, "big"))
        if exchange is not None:
            exchange.response(message)
        elif observer is not None:
            observer.notified(message)


class CoapLink:
    """One device's requests, and its observation of commands."""

    __slots__ = ("_asks", "_commands_token", "_device", "_exchange", "_last_command", "_late", "_port", "ticket")
    awaits_more = False
    stays = True

    def __init__(self, port: CoapPort, device: Listener) -> None:
        self._port = port
        self._device = device
        self._exchange: Exchange | None = None
        self._commands_token = -1
        self._last_command = -1
        self._late: Message | None = None
        self._asks = False
        self.ticket = 0

    def ask(self, body: bytes) -> None:
        self._asks = True
        exchange = self._request(["api", "v1", "provision"], body)
        exchange.is_dropping = Fault.LOST_ANSWER in self._device.plan.faults
        if Fault.DUPLICATE in self._device.plan.faults:
            self._port.send(exchange.data)

    def connect(self, report: bytes) -> None:
        self.post(report)

    def post(self, report: bytes) -> None:
        self._request(self._path("telemetry"), report)

    def close(self, *, abruptly: bool = False) -> None:
        if self._exchange is not None:
            self._port.forget(self._exchange)
            self._exchange = None
        self._port.clock.cancel(self)
        self._port.unobserve(self._commands_token)

    def ping(self) -> None:
        """Nobody waits for one."""

    def response(self, exchange: Exchange, message: Message) -> None:
        if exchange is not self._exchange:
            return  # of a reply or of the observation
        self._exchange = None
        if self._asks and Fault.SLOW in self._device.plan.faults:
            self._late = message
            self._port.send(exchange.data)  # what its retransmission would be
            self._port.clock.after(LATE_S, self)
            return
        self._answer(message)

    def silence(self, exchange: Exchange) -> None:
        if exchange is self._exchange:
            self._exchange = None
            self._device.broken("no answer over CoAP")

    def wake(self) -> None:
        message, self._late = self._late, None
        if message is not None:
            self._answer(message)

    def notified(self, message: Message) -> None:
        """A command, by the observation."""
        command = read_command(message.payload)
        if command is None or command.id == self._last_command:
            return  # the first notification is empty; one that was not acknowledged in time comes again
        self._last_command = command.id
        self._port.request(self, POST, self._path("rpc", str(command.id)), reply(command.method)).send()
        self._device.commanded()

    def _answer(self, message: Message) -> None:
        max_age = message.options.get(MAX_AGE)
        retry_after_s = None if max_age is None else float(int.from_bytes(max_age, "big"))
        if self._asks:
            self._device.answered(message.payload, retry_after_s)
        elif message.code in (CREATED, CHANGED):
            self._observe_commands()
            self._device.accepted()
            self._device.acknowledged()
        else:
            name = f"CoAP {message.code >> 5}.{message.code & 31:02d}"
            is_final = message.code in (UNAUTHORIZED, FORBIDDEN)
            self._device.turned_away(name, retry_after_s=retry_after_s, is_final=is_final)

    def _observe_commands(self) -> None:
        if self._commands_token >= 0:
            return
        exchange = self._port.request(self, GET, self._path("rpc"), b"", observe=True)
        self._commands_token = exchange.token
        self._port.observe(exchange.token, self)
        exchange.send()

    def _request(self, path: list[str], payload: bytes) -> Exchange:
        self._exchange = self._port.request(self, POST, path, payload)
        self._exchange.send()
        return self._exchange

    def _path(self, *feature: str) -> list[str]:
        credentials = self._device.credentials
        token = credentials.token if isinstance(credentials, AccessToken) else ""
        return ["api", "v1", token, *feature]


class _Command(msgspec.Struct):
    id: int
    method: str


def read_command(payload: bytes) -> _Command | None:
    """A command out of a notification; None where it is none."""
    try:
        return msgspec.json.decode(payload, type=_Command)
    except msgspec.MsgspecError:
        return None
