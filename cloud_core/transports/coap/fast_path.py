"""Requests from datagram to answer, without aiocoap's machinery: 3.8 k/s there, tens of thousands here.

Message layer only (RFC 7252 section 4): duplicates, piggy-backed and separate responses. CON and NON, GET and
POST are served here, observations included; what has unusual options is left to aiocoap untouched. Equal bytes
always go the same way, so deduplication holds on both.

Source: wire-contract.md section 4.3; engineering.md sections 2.3 and 3.3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.logger import Logger

from cloud_core.transports.coap import est
from cloud_core.transports.coap.adapter import CoapDeviceAdapter
from cloud_core.transports.coap.blockwise import Downloads
from cloud_core.transports.coap.errors import GATEWAY_TIMEOUT, INTERNAL_ERROR, NOT_ACCEPTABLE, TOO_LARGE
from cloud_core.transports.coap.exchanges import EXCHANGE_LIFETIME_S, Exchange, Finished, Memory, new_memory
from cloud_core.transports.coap.observations import Observations
from cloud_core.transports.coap.outbox import MSG_TRUNC, Address, Ancillary, Loop, Outbox, Send, plain_address
from cloud_core.transports.coap.requests import (
    ANSWER_TIMEOUT_S,
    GET,
    POST,
    Answered,
    NoSessions,
    Request,
    Sessions,
)
from cloud_core.transports.coap.wire import ACCEPTED_FORMATS, ACK, CON, NON, RST, Head, HeadReader, encode
from shared.device_paths import Feature

log = Logger()

PIGGYBACK_S = 0.5
MAX_REMEMBERED = 200_000  # of provision requests, and of all others: the latter cannot displace the former
_PACKAGES = (Feature.FIRMWARE, Feature.SOFTWARE)


class FastPath:
    """Answers requests; one per socket."""

    def __init__(
        self,
        adapter: CoapDeviceAdapter,
        *,
        loop: Loop,
        send: Send,
        next_message_id: Callable[[], int],
        downloads: Downloads,
        sessions: Sessions | None = None,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        self._adapter = adapter
        sessions = sessions or NoSessions()
        self._session_of = sessions.of
        self._loop = loop
        self._outbox = Outbox(loop=loop, send=send, next_message_id=next_message_id, downloads=downloads)
        self.observations = Observations(adapter, self._outbox, sessions)
        self._heads = HeadReader()
        self._provisionings: Memory = new_memory(max_remembered)
        self._others: Memory = new_memory(max_remembered)
        self._reads: Memory = new_memory(max(2, max_remembered // 10))  # cheap to evaluate again
        self._unanswered: deque[Exchange] = deque()
        self._is_ack_due = False
        self._slow: deque[Exchange] = deque()
        self._is_timeout_due = False

    @property
    def in_work(self) -> int:
        """Requests that are not answered yet."""
        return self._outbox.in_work

    def receive(self, data: bytes, ancillary: Ancillary, flags: int, address: Address) -> bool:
        """Handles one datagram; False leaves it to aiocoap."""
        if len(data) < 4:
            return True  # no CoAP message
        first, code = data[0], data[1]
        kind, token_end = first >> 4 & 3, 4 + (first & 15)
        if flags & MSG_TRUNC:
            self._refuse_truncated(data, ancillary, address)
            return True
        if first >> 6 != 1 or kind > NON or (code != POST and code != GET) or token_end > 12 or len(data) < token_end:
            return kind >= ACK and code == 0 and self._acknowledged(kind, data, address)
        if len(ancillary) != 1 or ancillary[0][2][0] == 0xFF:
            return False  # sent to a multicast address
        read = self._heads.read(data, token_end)
        if read is None or (code == POST and not read[0].is_plain):
            return False
        head, body_start = read
        memory = self._memory_for(code, head)
        message_id = data[2] << 8 | data[3]
        now_s = self._loop.time()
        earlier = memory.get((address, message_id))
        if earlier is not None and self._repeated(earlier, kind, ancillary, address, now_s):
            return True
        exchange = Exchange(self._outbox, memory, kind, message_id, data[4:token_end], ancillary, address, now_s, head)
        memory.put((address, message_id), exchange, now_s)
        self._carry_out(exchange, code, head, data[body_start:])
        return True

    def _memory_for(self, code: int, head: Head) -> Memory:
        if code == GET:
            return self._reads
        is_provision = head.path is not None and head.path.feature is Feature.PROVISION
        return self._provisionings if is_provision else self._others

    def _carry_out(self, exchange: Exchange, code: int, head: Head, payload: bytes) -> None:
        request = Request(
            segments=head.segments, accept=head.accept,
            code=code, path=head.path, content_format=head.content_format, payload=payload,
            peer_address=plain_address(exchange.address), queries=head.queries, block2=head.block2,
            session=self._session_of(exchange.address),
        )  # fmt: skip
        try:
            if code == POST:
                self._adapter.perform(request, exchange.answer)
            else:
                exchange.is_read, exchange.block2 = True, head.block2
                self._get(exchange, request, head)
        except Exception:
            log.failure("CoAP request failed")
            exchange.answer(Answered(INTERNAL_ERROR))
        if exchange.outbox is not None:
            exchange.can_time_out = request.changes_nothing_here
            self._wait(exchange)

    def _get(self, exchange: Exchange, request: Request, head: Head) -> None:
        feature = None if head.path is None else head.path.feature
        if head.accept is not None and head.accept not in ACCEPTED_FORMATS and not est.is_est(head.segments):
            exchange.answer(Answered(NOT_ACCEPTABLE))
        elif head.block2 is not None and head.block2 >> 4 and feature not in _PACKAGES:
            exchange.answer(self._outbox.downloads.later_block(exchange.download_key, head.block2))
        elif head.observe in (0, 1) and feature in (Feature.ATTRIBUTES, Feature.RPC):
            self.observations.receive(request, exchange, is_wanted=head.observe == 0)
        else:
            self._adapter.perform(request, exchange.answer)

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
                    self._outbox.send(message, ancillary, address)
        return True

    def _acknowledged(self, kind: int, data: bytes, address: Address) -> bool:
        """Whether the empty ACK or RST belonged to a message of ours."""
        message_id = data[2] << 8 | data[3]
        if self._outbox.answered(kind, address, message_id):
            return True
        return kind == RST and self.observations.rejected(address, message_id)

    # -- answers that take their time -------------------------------------------------------------

    def _wait(self, exchange: Exchange) -> None:
        self._unanswered.append(exchange)
        if not self._is_ack_due:
            self._is_ack_due = True
            self._loop.call_later(PIGGYBACK_S, self._acknowledge_overdue)

    def _acknowledge_overdue(self) -> None:
        waiting, now_s = self._unanswered, self._loop.time()
        while waiting:
            oldest = waiting[0]
            if oldest.outbox is not None:
                left_s = oldest.started_s + PIGGYBACK_S - now_s
                if left_s > 0.001:
                    self._loop.call_later(left_s, self._acknowledge_overdue)
                    return
                if oldest.kind == CON:
                    oldest.acknowledge(self._outbox)
                if oldest.can_time_out:
                    self._slow.append(oldest)
            waiting.popleft()
        self._is_ack_due = False
        if self._slow and not self._is_timeout_due:
            self._is_timeout_due = True
            self._loop.call_later(ANSWER_TIMEOUT_S - PIGGYBACK_S, self._give_up_overdue)

    def _give_up_overdue(self) -> None:
        """5.04 instead of silence."""
        slow, now_s = self._slow, self._loop.time()
        while slow:
            oldest = slow[0]
            if oldest.outbox is not None:
                left_s = oldest.started_s + ANSWER_TIMEOUT_S - now_s
                if left_s > 0.001:
                    self._loop.call_later(left_s, self._give_up_overdue)
                    return
                oldest.answer(Answered(GATEWAY_TIMEOUT))
            slow.popleft()
        self._is_timeout_due = False

    def _refuse_truncated(self, data: bytes, ancillary: Ancillary, address: Address) -> None:
        """A datagram above the receive buffer: its sender should use blocks (RFC 7959 section 2.9.3)."""
        token_end = 4 + (data[0] & 15)
        kind = data[0] >> 4 & 3
        if data[0] >> 6 != 1 or kind > NON or not 0 < data[1] < 0x20 or token_end > 12:
            return
        message_id = data[2] << 8 | data[3] if kind == CON else self._outbox.next_message_id()
        answer = encode(ACK if kind == CON else NON, message_id, data[4:token_end], Answered(TOO_LARGE))
        self._outbox.send(answer, ancillary, address)
