"""The fast front: whole, well-formed device requests are answered here, everything else goes to klein.

An accelerator, not a second server: it calls the same adapter as klein's routes, and the first
request of any other form hands its connection to klein's Site for good, bytes and all. Switched off
(`[http] fast_path = false`) nothing but speed and memory changes.

A keep-alive client repeats its head byte for byte, so a connection remembers what its last head
meant and parses only a different one. A client that waits for a command costs its connection and one
small object; what it sends meanwhile is kept, up to a bound, until it has its answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from cloud_core.model import PresentedChain
from cloud_core.transports.http.adapter import HttpDeviceAdapter
from cloud_core.transports.http.answers import JSON_TYPE, Caller
from cloud_core.transports.http.intake import speaks_tls
from cloud_core.transports.http.long_polls import INTERESTS, LongPoll
from cloud_core.transports.http.request_heads import POST, PROVISION, READ, WAIT, Call, ForwardedHead, Head
from cloud_core.transports.proxies import FORWARDED, X_FORWARDED_FOR, TrustedProxies

MAX_HEAD_BYTES = 16_384
MAX_PIPELINED = 100  # requests of one connection that wait for their answers
MAX_HELD_BYTES = 16_384  # received behind a request that must be answered first; above it reading stops
MAX_UNSENT_BYTES = 65_536  # of answers; above it klein's channel takes over, which knows back-pressure
SWEEP_S = 1.0
_PREFIXES = (b"POST /api/v1/", b"GET /api/v1/")
_OK_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_REASONS = {200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
            408: b"Request Timeout", 413: b"Content Too Large", 429: b"Too Many Requests",
            503: b"Service Unavailable"}  # fmt: skip
_REQUEST, _INCOMPLETE, _FOREIGN, _EARLY = range(4)  # what the start of the received data is


class _Slot:
    """A request whose answer is not known yet; an `Answer`. Answers leave in order."""

    __slots__ = ("_front", "_is_last", "data")

    def __init__(self, front: Front, is_last: bool) -> None:
        self._front = front
        self._is_last = is_last
        self.data: bytes | None = None

    def __call__(
        self, status: int, body: bytes, retry_after_s: int | None = None, content_type: bytes = JSON_TYPE
    ) -> None:
        if status == 200 and not body and not self._is_last:
            self.data = _OK_EMPTY
        else:
            self.data = _response(status, body, retry_after_s, content_type, self._is_last)
        self._front.flush()


class Front(Protocol):
    """One connection, until it is handed over."""

    __slots__ = (
        "_address", "_buffer", "_call", "_chain", "_factory", "_head", "_is_held", "_is_last", "_is_lost", "_is_paused",
        "_poll", "_proxy", "_slots", "idle_sweeps", "transport",
    )  # fmt: skip
    transport: Any  # ITCPTransport; mypy reads nothing from zope interfaces

    def __init__(self, factory: FrontFactory) -> None:
        self._factory = factory
        self._buffer = b""
        self._slots: deque[_Slot] = deque()
        self._poll: LongPoll | None = None  # waits, or its answer has not left yet; nothing is served behind it
        self._is_held = False  # what stands in the buffer has to wait until answers of ours are out
        self._is_paused = False
        self._is_last = False  # the client wants no more than the answers that are due
        self._is_lost = False
        self._address = ""
        self._proxy = ""  # the address of a trusted one, which speaks for others
        self._chain: PresentedChain | None = None  # read when it is asked for
        self._head = b""  # the last one, and what it meant
        self._call = Call(POST)
        self.idle_sweeps = 0  # since the last whole request or answer, or the first byte of an incomplete one

    def connectionMade(self) -> None:
        self._address = self.transport.getPeer().host
        if self._factory.proxies.covers(self._address):
            self._proxy = self._address
        self._factory.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        self._factory.connections.discard(self)
        self._slots.clear()
        self._buffer = b""
        poll, self._poll = self._poll, None
        if poll is not None:
            poll.abandon()

    def dataReceived(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        else:
            self.idle_sweeps = 0
            if not self._head and speaks_tls(data):
                self._factory.site.refuse_tls(self.transport)
                return
        if self._is_held:
            self._hold(data)
            return
        at, end = 0, len(data)
        while at < end:
            what = self._look(data, at)
            if what is _REQUEST:
                start = at + len(self._head)
                if end - start >= self._call.length:
                    at = start + self._call.length
                    self._serve(data[start:at])
                    continue
                what = _INCOMPLETE
            if what is _INCOMPLETE:
                self._buffer = data[at:]
            elif self._slots or what is _EARLY:
                self._hold(data[at:])
            else:
                self._hand_over(data[at:])
            return

    def flush(self) -> None:
        """Sends the answers that nothing holds back."""
        slots = self._slots
        ready: list[bytes] = []
        while slots and slots[0].data is not None:
            ready.append(slots.popleft().data or b"")
        if not ready or self._is_lost:
            return
        self.transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
        self.idle_sweeps = 0
        if slots:
            return
        if self._poll is not None:
            self._poll_answered()
        elif self._is_held or self._is_last:
            self._resume()

    def sweep(self, limit: int) -> None:
        """Called once a second: ends a connection that says nothing, never finishes its request or reads no answer."""
        if self._slots:
            return
        if self._poll is not None:
            self._poll_answered()
        self.idle_sweeps += 1
        if self.idle_sweeps > limit:
            is_in_work = self._buffer or self._poll is not None or self._unsent_bytes()
            self.transport.abortConnection() if is_in_work else self.transport.loseConnection()

    # -- inside -----------------------------------------------------------------------------------

    def _look(self, data: bytes, at: int) -> int:
        """For _REQUEST, `_head` and `_call` describe the one at `at`."""
        if self._poll is not None or self._is_last:
            return _EARLY
        if len(self._slots) >= MAX_PIPELINED or self._unsent_bytes() > MAX_UNSENT_BYTES:
            return _FOREIGN
        if not self._head or not data.startswith(self._head, at):
            if not data.startswith(_PREFIXES, at):
                start = data[at : at + len(_PREFIXES[0])]
                return _INCOMPLETE if any(one.startswith(start) for one in _PREFIXES) else _FOREIGN
            end = data.find(b"\r\n\r\n", at, at + MAX_HEAD_BYTES)
            if end < 0:
                return _INCOMPLETE if len(data) - at < MAX_HEAD_BYTES else _FOREIGN
            head = data[at : end + 4]
            parsed = ForwardedHead(head) if self._proxy else Head(head)
            call = parsed.call()
            if call is None:
                return _FOREIGN
            self._head, self._call = head, call
            if isinstance(parsed, ForwardedHead):
                told = parsed.told
                self._address = self._factory.proxies.client_of(self._proxy, told[X_FORWARDED_FOR], told[FORWARDED])
        return _EARLY if self._slots and self._call.kind is WAIT else _REQUEST

    def _unsent_bytes(self) -> int:
        """Written, and not taken by the system yet."""
        count: int = getattr(self.transport, "unsent_bytes", 0)  # not every transport can tell
        return count

    def _caller(self) -> Caller:
        """Who asks: by the token of the path, else by the certificate of the connection."""
        token = self._call.token
        if token is None and self._chain is None:
            self._chain = getattr(self.transport, "chain", None)  # without TLS there is none
        return self._chain if token is None else token

    def _serve(self, body: bytes) -> None:
        call, adapter = self._call, self._factory.adapter
        self._is_last = call.is_last
        slot = _Slot(self, call.is_last)
        self._slots.append(slot)
        if call.kind is POST:
            adapter.post(self._caller(), call.feature, body, self._address, slot)
        elif call.kind is PROVISION:
            adapter.provision(body, self._address, slot)
        elif call.kind is READ:
            adapter.get_attributes(self._caller(), call.query, self._address, slot)
        else:
            self._poll = poll = LongPoll(INTERESTS[call.feature], slot)
            adapter.wait(poll, self._caller(), call.query, self._address)

    def _hold(self, data: bytes) -> None:
        """Keeps what may be served only when the answers before it are out."""
        if self._is_last:
            return
        self._is_held = True
        self._buffer = data
        if len(data) > MAX_HELD_BYTES and not self._is_paused:
            self._is_paused = True
            self.transport.pauseProducing()

    def _poll_answered(self) -> None:
        """Its answer was written: once the system has it all, the command counts as delivered."""
        poll = self._poll
        if poll is None or self._unsent_bytes():
            return  # `sweep` looks again
        self._poll = None
        poll.written()
        if self._is_last:
            self._resume()
        elif self._is_held:
            self._factory.call_soon(self._resume)  # the core is still in the call that brought the answer

    def _resume(self) -> None:
        """All answers are out: what was held is served."""
        if self._is_lost:
            return
        if self._is_last:
            self.transport.loseConnection()
            return
        self._is_held = False
        if self._is_paused:
            self._is_paused = False
            self.transport.resumeProducing()
        data, self._buffer = self._buffer, b""
        self.dataReceived(data)

    def _hand_over(self, data: bytes) -> None:
        """klein's Site takes the connection."""
        self._factory.connections.discard(self)
        channel = self._factory.site.buildProtocol(self.transport.getPeer())
        self.transport.protocol = channel
        channel.makeConnection(self.transport)
        channel.dataReceived(data)


class FrontFactory(Factory[Front]):
    """Builds fronts and watches their deadlines in one sweep."""

    noisy = False

    def __init__(
        self, adapter: HttpDeviceAdapter, site: Any, *, reactor: Any, request_timeout_s: float,
        proxies: TrustedProxies,
    ) -> None:  # fmt: skip
        # `site` and `reactor` are twisted objects without usable types.
        self.adapter = adapter
        self.proxies = proxies
        self.site = site
        self.connections: set[Front] = set()
        self._reactor = reactor
        self._limit = max(1, round(request_timeout_s / SWEEP_S))
        self._sweep = LoopingCall(self._sweep_all)
        self._sweep.clock = reactor

    def startFactory(self) -> None:
        self.site.startFactory()
        self._sweep.start(SWEEP_S, now=False)

    def stopFactory(self) -> None:
        if self._sweep.running:
            self._sweep.stop()
        self.site.stopFactory()

    def call_soon(self, call: Callable[[], None]) -> None:
        """After the code that is running has returned."""
        self._reactor.callLater(0, call)

    def buildProtocol(self, addr: Any) -> Front:
        return Front(self)

    def _sweep_all(self) -> None:
        for connection in list(self.connections):
            connection.sweep(self._limit)


def _response(status: int, body: bytes, retry_after_s: int | None, content_type: bytes, is_last: bool) -> bytes:
    retry = b"" if retry_after_s is None else b"Retry-After: %d\r\n" % retry_after_s
    kind = b"Content-Type: %b\r\n" % content_type if body else b""
    end = b"Connection: close\r\n" if is_last else b""
    return b"HTTP/1.1 %d %b\r\n%b%b%bContent-Length: %d\r\n\r\n%b" % (
        status, _REASONS.get(status, b"Error"), kind, retry, end, len(body), body,
    )  # fmt: skip
