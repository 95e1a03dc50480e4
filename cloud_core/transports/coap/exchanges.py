"""One request from its receipt to its answer, and what a duplicate of it gets (RFC 7252 sections 4.5 and 5.2)."""

from __future__ import annotations

from collections.abc import Hashable

from cloud_core.transports.coap.blockwise import download_key
from cloud_core.transports.coap.outbox import Address, Ancillary, Key, Outbox
from cloud_core.transports.coap.recent import Recent
from cloud_core.transports.coap.requests import Answered
from cloud_core.transports.coap.wire import ACK, CON, Head, empty, encode

EXCHANGE_LIFETIME_S = 247.0
_MAX_REMEMBERED_READ_BYTES = 256

# What is left of an answered exchange: (time of the request, empty ACK or b"", response or b""). A bare
# tuple, because the garbage collector does not visit those: 200,000 objects cost pauses of 70 ms.
Finished = tuple[float, bytes, bytes]


class Exchange:
    """One request in work."""

    __slots__ = ("_is_acknowledged", "_memory", "address", "ancillary", "block2", "can_time_out", "head",
                 "is_read", "kind", "message_id", "outbox", "started_s", "token")  # fmt: skip

    def __init__(
        self,
        outbox: Outbox,
        memory: Memory,
        kind: int,
        message_id: int,
        token: bytes,
        ancillary: Ancillary,
        address: Address,
        started_s: float,
        head: Head,
    ) -> None:
        self.outbox: Outbox | None = outbox  # None once answered
        self._memory = memory
        self.kind = kind
        self.message_id = message_id
        self.token = token
        self.ancillary = ancillary
        self.address = address
        self.started_s = started_s
        self.head = head
        self.block2: int | None = None  # of a read: how large its blocks shall be
        self.is_read = False  # evaluating it again does no harm
        self.can_time_out = False
        self._is_acknowledged = False
        outbox.in_work += 1

    def answer(self, answered: Answered) -> None:
        """Sends the response the way the request wants it, once."""
        outbox = self.outbox
        if outbox is None:
            return
        self.outbox = None
        outbox.in_work -= 1
        if self.kind == CON and not self._is_acknowledged:
            kind, message_id = ACK, self.message_id
        else:
            kind, message_id = self.kind, outbox.next_message_id()
        if answered.payload:
            answered = outbox.downloads.first_block(self.download_key, answered, self.block2)
        message = encode(kind, message_id, self.token, answered)
        if kind == CON:
            outbox.confirm(message, message_id, self.ancillary, self.address)
        else:
            outbox.send(message, self.ancillary, self.address)
        key = (self.address, self.message_id)
        if self.is_read and len(message) > _MAX_REMEMBERED_READ_BYTES:
            self._memory.discard(key)
            return
        sent = message if self.kind == CON else b""
        self._memory.put(key, (self.started_s, self.so_far()[1], sent), outbox.loop.time())

    @property
    def download_key(self) -> Hashable:
        """Where later blocks of the answer are found."""
        return download_key(self.address, self.head.segments, self.head.queries)

    def acknowledge(self, outbox: Outbox) -> None:
        """The empty ACK that stops the peer from repeating; the response comes by itself."""
        self._is_acknowledged = True
        outbox.send(empty(ACK, self.message_id), self.ancillary, self.address)

    def so_far(self) -> Finished:
        """What a duplicate gets while the request is in work."""
        return self.started_s, empty(ACK, self.message_id) if self._is_acknowledged else b"", b""


Memory = Recent[Key, Exchange | Finished]


def new_memory(max_entries: int) -> Memory:
    """Of exchanges, for as long as their duplicates may come."""
    return Recent(max_entries=max_entries, lifetime_s=EXCHANGE_LIFETIME_S)
