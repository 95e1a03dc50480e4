"""Plain POST requests from datagram to answer, without aiocoap's machinery: 3.8 k/s there, tens of thousands here.

Message layer only (RFC 7252 section 4): duplicates, piggy-backed and separate responses,
retransmission. What is not a plain CON or NON POST is left to aiocoap untouched; equal bytes always
go the same way, so deduplication holds on both.

Source: wire-contract.md section 4.3; engineering.md sections 2.3 and 3.3.
"""

from __future__ import annotations

import random
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from cloud_core.transports.coap.adapter import POST, CoapDeviceAdapter
from cloud_core.transports.coap.blockwise import BLOCK_BYTES, BLOCK_EXPONENT, Answered, Downloads
from cloud_core.transports.coap.errors import INTERNAL_ERROR, TOO_LARGE
from cloud_core.transports.coap.recent import Recent
from cloud_core.transports.coap.wire import ACK, CON, NON, HeadReader, response
from shared.topics import Feature

log = Logger()

EXCHANGE_LIFETIME_S = 247.0
PIGGYBACK_S = 0.5
ACK_TIMEOUT_S = 2.0
ACK_RANDOM_FACTOR = 1.5
MAX_RETRANSMIT = 4
MAX_REMEMBERED = 200_000  # of provision requests, and of all others: the latter cannot displace the former
MAX_UNACKNOWLEDGED = 20_000
_SWEEP_S = 0.25

# (address, port, flow, scope) as `recvmsg` gives it for IPv6.
Address = tuple[Any, ...]
Ancillary = list[tuple[int, int, bytes]]
Send = Callable[[bytes, Ancillary, Address], None]
Key = tuple[Address, int]
# What is left of an answered exchange: (time of the request, empty ACK or b"", response or b""). A bare
# tuple, because the garbage collector does not visit those: 200,000 objects cost pauses of 70 ms.
Finished = tuple[float, bytes, bytes]


class Loop(Protocol):
    """What is used of the asyncio loop."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[[], None]) -> Any: ...


class FastPath:
    """Answers plain requests; one per socket."""

    def __init__(
        self,
        adapter: CoapDeviceAdapter,
        *,
        loop: Loop,
        send: Send,
        next_message_id: Callable[[], int],
        downloads: Downloads,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        self._adapter = adapter
        self.loop = loop
        self.send = send
        self.next_message_id = next_message_id
        self.downloads = downloads
        self.in_work = 0
        self._heads = HeadReader()
        self._provisionings: Recent[Key, Exchange | Finished] = _memory(max_remembered)
        self._others: Recent[Key, Exchange | Finished] = _memory(max_remembered)
        self._unanswered: deque[Exchange] = deque()
        self._is_ack_due = False
        self._separate: dict[Key, _Separate] = {}
        self._is_sweeping = False

    def receive(self, data: bytes, ancillary: Ancillary, flags: int, address: Address) -> bool:
        """Handles one datagram; False leaves it to aiocoap."""
        if len(data) < 4:
            return True  # no CoAP message
        first, code = data[0], data[1]
        kind, token_end = first >> 4 & 3, 4 + (first & 15)
        if flags & socket.MSG_TRUNC:
            self._refuse_truncated(data, ancillary, address)
            return True
        if first >> 6 != 1 or kind > NON or code != POST or token_end > 12 or len(data) < token_end:
            return kind >= ACK and code == 0 and self._acknowledged(data, address)
        if len(ancillary) != 1 or ancillary[0][2][0] == 0xFF:
            return False  # sent to a multicast address
        read = self._heads.read(data, token_end)
        if read is None:
            return False
        head, body_start = read
        path = head.path
        is_provision = path is not None and path.feature is Feature.PROVISION
        memory = self._provisionings if is_provision else self._others
        message_id = data[2] << 8 | data[3]
        key = (address, message_id)
        now_s = self.loop.time()
        earlier = memory.get(key)
        if earlier is not None and self._repeated(earlier, kind, ancillary, address, now_s):
            return True
        exchange = Exchange(self, memory, kind, message_id, data[4:token_end], ancillary, address, now_s)
        memory.put(key, exchange, now_s)
        exchange.download_key = head.segments
        self.in_work += 1
        try:
            self._adapter.perform(
                POST, path, head.content_format, data[body_start:], plain_address(address), exchange.answer
            )
        except Exception:
            log.failure("CoAP request failed")
            exchange.answer(INTERNAL_ERROR, b"", None, None)
        if kind == CON and exchange.path is not None:
            self._wait(exchange)
        return True

    def _repeated(
        self, earlier: Exchange | Finished, kind: int, ancillary: Ancillary, address: Address, now_s: float
    ) -> bool:
        """Whether the message id is a duplicate's; it then gets the same bytes, or nothing while in work."""
        if isinstance(earlier, Exchange):
            started_s, empty_ack, sent = earlier.so_far()
        else:
            started_s, empty_ack, sent = earlier
        if now_s - started_s >= EXCHANGE_LIFETIME_S:
            return False
        if kind == CON:
            for message in (empty_ack, sent):
                if message:
                    self.send(message, ancillary, address)
        return True

    # -- acknowledgements that cannot wait for the answer -----------------------------------------

    def _wait(self, exchange: Exchange) -> None:
        self._unanswered.append(exchange)
        if not self._is_ack_due:
            self._is_ack_due = True
            self.loop.call_later(PIGGYBACK_S, self._acknowledge_overdue)

    def _acknowledge_overdue(self) -> None:
        waiting, now_s = self._unanswered, self.loop.time()
        while waiting:
            oldest = waiting[0]
            if oldest.path is not None:
                left_s = oldest.started_s + PIGGYBACK_S - now_s
                if left_s > 0.001:
                    self.loop.call_later(left_s, self._acknowledge_overdue)
                    return
                oldest.acknowledge(self)
            waiting.popleft()
        self._is_ack_due = False

    # -- separate responses -----------------------------------------------------------------------

    def send_separate(self, message: bytes, message_id: int, ancillary: Ancillary, address: Address) -> None:
        """Sends a confirmable response until it is acknowledged, at most five times in all."""
        self.send(message, ancillary, address)
        if len(self._separate) >= MAX_UNACKNOWLEDGED:
            return
        timeout_s = ACK_TIMEOUT_S * random.uniform(1.0, ACK_RANDOM_FACTOR)
        self._separate[address, message_id] = _Separate(message, ancillary, self.loop.time() + timeout_s, timeout_s)
        self._sweep_soon()

    def _acknowledged(self, data: bytes, address: Address) -> bool:
        """Whether the empty ACK or RST belonged to a separate response of ours."""
        return self._separate.pop((address, data[2] << 8 | data[3]), None) is not None

    def _sweep_soon(self) -> None:
        if self._separate and not self._is_sweeping:
            self._is_sweeping = True
            self.loop.call_later(_SWEEP_S, self._retransmit)

    def _retransmit(self) -> None:
        self._is_sweeping = False
        now_s = self.loop.time()
        for key, one in list(self._separate.items()):
            if one.due_s > now_s:
                continue
            if one.retransmissions >= MAX_RETRANSMIT:
                del self._separate[key]
                continue
            one.retransmissions += 1
            one.timeout_s *= 2
            one.due_s = now_s + one.timeout_s
            self.send(one.message, one.ancillary, key[0])
        self._sweep_soon()

    def _refuse_truncated(self, data: bytes, ancillary: Ancillary, address: Address) -> None:
        """A datagram above the receive buffer: its sender should use blocks (RFC 7959 section 2.9.3)."""
        token_end = 4 + (data[0] & 15)
        kind = data[0] >> 4 & 3
        if data[0] >> 6 != 1 or kind > NON or not 0 < data[1] < 0x20 or token_end > 12:
            return
        message_id = data[2] << 8 | data[3] if kind == CON else self.next_message_id()
        answer = response(ACK if kind == CON else NON, TOO_LARGE, message_id, data[4:token_end])
        self.send(answer, ancillary, address)


class Exchange:
    """One request in work."""

    __slots__ = ("_is_acknowledged", "_memory", "address", "ancillary", "download_key", "kind",
                 "message_id", "path", "started_s", "token")  # fmt: skip

    def __init__(
        self,
        path: FastPath,
        memory: Recent[Key, Exchange | Finished],
        kind: int,
        message_id: int,
        token: bytes,
        ancillary: Ancillary,
        address: Address,
        started_s: float,
    ) -> None:
        self.path: FastPath | None = path  # None once answered
        self._memory = memory
        self.kind = kind
        self.message_id = message_id
        self.token = token
        self.ancillary = ancillary
        self.address = address
        self.started_s = started_s
        self.download_key: tuple[str, ...] | None = None
        self._is_acknowledged = False

    def answer(self, code: int, payload: bytes, content_format: int | None, max_age_s: int | None) -> None:
        """Sends the response the way the request wants it, once."""
        path = self.path
        if path is None:
            return
        self.path = None
        path.in_work -= 1
        if self.kind == CON and not self._is_acknowledged:
            kind, message_id = ACK, self.message_id
        else:
            kind, message_id = self.kind, path.next_message_id()
        if not payload and max_age_s is None:
            head = bytes((0x40 | kind << 4 | len(self.token), code, message_id >> 8, message_id & 255))
            message = head + self.token
        else:
            message = self._with_payload(path, kind, message_id, Answered(code, payload, content_format, max_age_s))
        if kind == CON:
            path.send_separate(message, message_id, self.ancillary, self.address)
        else:
            path.send(message, self.ancillary, self.address)
        sent = message if self.kind == CON else b""
        key = (self.address, self.message_id)
        self._memory.put(key, (self.started_s, self.so_far()[1], sent), path.loop.time())

    def _with_payload(self, path: FastPath, kind: int, message_id: int, answered: Answered) -> bytes:
        payload, block2 = answered.payload, None
        if len(payload) > BLOCK_BYTES:
            path.downloads.keep((self.address[:2], self.download_key), answered)
            payload, block2 = payload[:BLOCK_BYTES], 8 | BLOCK_EXPONENT  # block 0, more follow
        return response(
            kind, answered.code, message_id, self.token, payload=payload,
            content_format=answered.content_format, max_age_s=answered.max_age_s, block2=block2,
        )  # fmt: skip

    def acknowledge(self, path: FastPath) -> None:
        """The empty ACK that stops the peer from repeating; the response comes by itself."""
        self._is_acknowledged = True
        path.send(self._empty_ack(), self.ancillary, self.address)

    def so_far(self) -> Finished:
        """What a duplicate gets while the request is in work."""
        return self.started_s, self._empty_ack() if self._is_acknowledged else b"", b""

    def _empty_ack(self) -> bytes:
        return bytes((0x40 | ACK << 4, 0, self.message_id >> 8, self.message_id & 255))


class _Separate:
    """A confirmable response that is not acknowledged yet."""

    __slots__ = ("ancillary", "due_s", "message", "retransmissions", "timeout_s")

    def __init__(self, message: bytes, ancillary: Ancillary, due_s: float, timeout_s: float) -> None:
        self.message = message
        self.ancillary = ancillary
        self.due_s = due_s
        self.timeout_s = timeout_s
        self.retransmissions = 0


def _memory(max_entries: int) -> Recent[Key, Exchange | Finished]:
    return Recent(max_entries=max_entries, lifetime_s=EXCHANGE_LIFETIME_S)


def plain_address(address: Address) -> str:
    """The IP address as people write it: IPv4 without its IPv6 prefix, no scope."""
    host: str = address[0]
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    return host.partition("%")[0] if "%" in host else host
