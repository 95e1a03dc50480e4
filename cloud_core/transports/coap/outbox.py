"""What leaves a socket: messages, and confirmable ones of ours again until they are acknowledged.

Source: RFC 7252 section 4.2. One sweep serves all that wait; there is no timer for each.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from cloud_core.transports.coap.blockwise import Downloads
from cloud_core.transports.coap.wire import RST

ACK_TIMEOUT_S = 2.0
ACK_RANDOM_FACTOR = 1.5
MAX_RETRANSMIT = 4
MAX_UNACKNOWLEDGED = 20_000  # responses; notifications are as many as there are observations, at most
_SWEEP_S = 0.25

MSG_TRUNC = int(socket.MSG_TRUNC)  # of the flags of a datagram; as a number, for `&` of an enum's members is slow
# (address, port, flow, scope) as `recvmsg` gives it for IPv6; on DTLS the number of the session is in the place of
# the flow label, which is 0 elsewhere (see `dtls`).
Address = tuple[Any, ...]
Ancillary = list[tuple[int, int, bytes]]
Send = Callable[[bytes, Ancillary, Address], None]
# Endpoint and message id.
Key = tuple[Address, int]


class Loop(Protocol):
    """What is used of the asyncio loop."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[[], None]) -> Any: ...


class Fate(Enum):
    """How a confirmable message ended."""

    ACKNOWLEDGED = auto()
    """The peer has it."""
    REJECTED = auto()
    """The peer does not know what it is about (RST)."""
    LOST = auto()
    """Never acknowledged."""


class Outbox:
    """Sends, one per socket. `in_work` counts requests that are not answered yet."""

    def __init__(self, *, loop: Loop, send: Send, next_message_id: Callable[[], int], downloads: Downloads) -> None:
        self.loop = loop
        self.send = send
        self.next_message_id = next_message_id
        self.downloads = downloads
        self.in_work = 0
        self._waiting: dict[Key, _Confirmable] = {}
        self._is_sweeping = False

    def confirm(
        self,
        message: bytes,
        message_id: int,
        ancillary: Ancillary,
        address: Address,
        ended: Callable[[Fate], None] | None = None,
    ) -> None:
        """Sends a confirmable message until it is acknowledged, at most five times in all.

        `ended` is told the outcome, once, unless the message is taken back.
        """
        self.send(message, ancillary, address)
        if ended is None and len(self._waiting) >= MAX_UNACKNOWLEDGED:
            return
        timeout_s = ACK_TIMEOUT_S * random.uniform(1.0, ACK_RANDOM_FACTOR)
        self._waiting[address, message_id] = _Confirmable(
            message, ancillary, self.loop.time() + timeout_s, timeout_s, ended
        )
        self._sweep_soon()

    def is_waiting_for(self, address: Address, message_id: int) -> bool:
        return (address, message_id) in self._waiting

    def take_back(self, address: Address, message_id: int) -> None:
        """Nothing of this message is sent or told any more."""
        self._waiting.pop((address, message_id), None)

    def answered(self, kind: int, address: Address, message_id: int) -> bool:
        """Whether the empty ACK or RST belonged to a message of ours."""
        found = self._waiting.pop((address, message_id), None)
        if found is None:
            return False
        if found.ended is not None:
            found.ended(Fate.REJECTED if kind == RST else Fate.ACKNOWLEDGED)
        return True

    def _sweep_soon(self) -> None:
        if self._waiting and not self._is_sweeping:
            self._is_sweeping = True
            self.loop.call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._is_sweeping = False
        now_s = self.loop.time()
        lost = []
        for key, one in self._waiting.items():
            if one.due_s > now_s:
                continue
            if one.retransmissions >= MAX_RETRANSMIT:
                lost.append(key)
                continue
            one.retransmissions += 1
            one.timeout_s *= 2
            one.due_s = now_s + one.timeout_s
            self.send(one.message, one.ancillary, key[0])
        for key in lost:
            gone = self._waiting.pop(key, None)
            if gone is not None and gone.ended is not None:
                gone.ended(Fate.LOST)
        self._sweep_soon()


class _Confirmable:
    """A confirmable message of ours that is not acknowledged yet."""

    __slots__ = ("ancillary", "due_s", "ended", "message", "retransmissions", "timeout_s")

    def __init__(
        self,
        message: bytes,
        ancillary: Ancillary,
        due_s: float,
        timeout_s: float,
        ended: Callable[[Fate], None] | None,
    ) -> None:
        self.message = message
        self.ancillary = ancillary
        self.due_s = due_s
        self.timeout_s = timeout_s
        self.ended = ended
        self.retransmissions = 0


def plain_address(address: Address) -> str:
    """The IP address as people write it: IPv4 without its IPv6 prefix, no scope."""
    host: str = address[0]
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    return host.partition("%")[0] if "%" in host else host
