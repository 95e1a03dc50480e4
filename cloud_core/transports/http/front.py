"""The fast front: whole, well-formed device POSTs are answered here, everything else goes to klein.

An accelerator, not a second server: it calls the same adapter as klein's routes, and the first
request of any other form hands its connection to klein's Site for good, bytes and all. Switched off
(`[http] fast_path = false`) nothing but speed changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import httptools
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from cloud_core.transports.http.adapter import MAX_BODY_BYTES, HttpDeviceAdapter

MAX_HEAD_BYTES = 16_384
MAX_PIPELINED = 100  # requests of one connection that wait for their answers
_PREFIX = b"POST /api/v1/"
_OK_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_REASONS = {200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 413: b"Content Too Large",
            429: b"Too Many Requests", 503: b"Service Unavailable"}  # fmt: skip
# A head with one of these wants more than the short cut offers.
_ODD = (b"\r\nexpect:", b"\r\ntransfer-encoding:", b"\r\nupgrade:", b"\r\nconnection: close", b"\r\nconnection:close")


class _Slot:
    """A request whose answer is not known yet; answers leave in the order of the requests."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data: bytes | None = None


class Front(Protocol):
    """One connection, until it is handed over."""

    __slots__ = (
        "_address",
        "_body",
        "_buffer",
        "_factory",
        "_is_lost",
        "_parser",
        "_slots",
        "_url",
        "busy_since_s",
        "transport",
    )
    transport: Any  # ITCPTransport; mypy reads nothing from zope interfaces

    def __init__(self, factory: FrontFactory) -> None:
        self._factory = factory
        self._buffer = b""
        self._parser: Any = None  # httptools is untyped
        self._slots: deque[_Slot] = deque()
        self._url = b""
        self._body = b""
        self._is_lost = False
        self._address = ""
        self.busy_since_s: float | None = None  # an incomplete request has been waiting since then

    def connectionMade(self) -> None:
        self._address = self.transport.getPeer().host
        self.busy_since_s = self._factory.now_s()  # a connection that never says anything ends as well
        self._factory.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        self._factory.connections.discard(self)

    def dataReceived(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while data:
            length = _length_of_simple_request(data)
            if length < 0:
                self._hand_over(data)
                return
            if length == 0 or length > len(data):
                if len(self._slots) == 0 and self.busy_since_s is None:
                    self.busy_since_s = self._factory.now_s()
                self._buffer = data
                return
            self.busy_since_s = None
            if not self._serve(data[:length]):
                self._hand_over(data)
                return
            data = data[length:]
        self.busy_since_s = None if self._slots else self._factory.now_s()

    # -- httptools callbacks ----------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    # -- inside -----------------------------------------------------------------------------------

    def _serve(self, request: bytes) -> bool:
        """Answers one whole request; False when it is not for this short cut after all."""
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        self._url = self._body = b""
        try:
            self._parser.feed_data(request)
        except httptools.HttpParserError:
            return False
        parts = self._url.split(b"/")
        if len(self._slots) >= MAX_PIPELINED or b"?" in self._url:
            return False
        adapter = self._factory.adapter
        if self._url == b"/api/v1/provision":
            adapter.provision(self._body, self._address, self._answer_in(self._new_slot()))
        elif len(parts) == 5 and parts[3] and parts[4] in (b"telemetry", b"attributes"):
            feature = parts[4].decode()
            slot = self._new_slot()
            adapter.post(parts[3].decode("latin-1"), feature, self._body, self._address, self._answer_in(slot))
        else:
            return False
        return True

    def _new_slot(self) -> _Slot:
        slot = _Slot()
        self._slots.append(slot)
        return slot

    def _answer_in(self, slot: _Slot) -> Callable[[int, bytes, int | None], None]:
        def answer(status: int, body: bytes, retry_after_s: int | None) -> None:
            slot.data = _response(status, body, retry_after_s)
            self._flush()

        return answer

    def _flush(self) -> None:
        slots = self._slots
        ready: list[bytes] = []
        while slots and slots[0].data is not None:
            ready.append(slots.popleft().data or b"")
        if ready and not self._is_lost:
            self.transport.write(b"".join(ready) if len(ready) > 1 else ready[0])
            if not slots:
                self.busy_since_s = self._factory.now_s()

    def _hand_over(self, data: bytes) -> None:
        """klein's Site takes the connection; requests of ours that are in work are answered first."""
        if self._slots:
            self._buffer = data
            self.transport.pauseProducing()
            self._factory.later(self._retry_hand_over)
            return
        self._factory.connections.discard(self)
        channel = self._factory.site.buildProtocol(self.transport.getPeer())
        self.transport.protocol = channel
        channel.makeConnection(self.transport)
        channel.dataReceived(data)

    def _retry_hand_over(self) -> None:
        if self._is_lost:
            return
        if self._slots:
            self._factory.later(self._retry_hand_over)
            return
        self.transport.resumeProducing()
        data, self._buffer = self._buffer, b""
        self._hand_over(data)

    def check_deadline(self, now_s: float, limit_s: float) -> None:
        if self.busy_since_s is not None and not self._slots and now_s - self.busy_since_s > limit_s:
            self.transport.abortConnection()


class FrontFactory(Factory[Front]):
    """Builds fronts and watches their deadlines in one sweep."""

    noisy = False

    def __init__(self, adapter: HttpDeviceAdapter, site: Any, *, reactor: Any, request_timeout_s: float) -> None:
        # `site` and `reactor` are twisted objects without usable types.
        self.adapter = adapter
        self.site = site
        self.connections: set[Front] = set()
        self.now_s: Callable[[], float] = reactor.seconds
        self._reactor = reactor
        self._request_timeout_s = request_timeout_s
        self._sweep = LoopingCall(self._check_deadlines)
        self._sweep.clock = reactor

    def startFactory(self) -> None:
        self.site.startFactory()
        self._sweep.start(1.0, now=False)

    def stopFactory(self) -> None:
        if self._sweep.running:
            self._sweep.stop()
        self.site.stopFactory()

    def buildProtocol(self, addr: Any) -> Front:
        return Front(self)

    def later(self, call: Callable[[], None]) -> None:
        self._reactor.callLater(0.01, call)

    def _check_deadlines(self) -> None:
        now_s = self.now_s()
        for connection in list(self.connections):
            connection.check_deadline(now_s, self._request_timeout_s)


def _length_of_simple_request(data: bytes) -> int:
    """Bytes of the whole request at the start of `data`; 0: more is needed to say; -1: not for us."""
    if not data.startswith(_PREFIX):
        return 0 if _PREFIX.startswith(data) else -1
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0 if len(data) <= MAX_HEAD_BYTES else -1
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0 or head.find(b"\r\ncontent-length:", at + 1) >= 0 or any(odd in head for odd in _ODD):
        return -1
    if not head.split(b"\r\n", 1)[0].endswith(b" http/1.1"):
        return -1
    stop = head.find(b"\r\n", at + 2)
    number = head[at + 17 : stop if stop >= 0 else end].strip()
    if not number.isdigit() or len(number) > 7 or int(number) > MAX_BODY_BYTES:
        return -1
    return end + 4 + int(number)


def _response(status: int, body: bytes, retry_after_s: int | None) -> bytes:
    if status == 200 and not body:
        return _OK_EMPTY
    retry = b"" if retry_after_s is None else b"Retry-After: %d\r\n" % retry_after_s
    kind = b"Content-Type: application/json\r\n" if body else b""
    return b"HTTP/1.1 %d %b\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
        status, _REASONS.get(status, b"Error"), kind, retry, len(body), body,
    )  # fmt: skip
