"""The fast front: whole, well-formed device POSTs are answered here, everything else goes to klein.

An accelerator, not a second server: it calls the same adapter as klein's routes, and the first
request of any other form hands its connection to klein's Site for good, bytes and all. Switched off
(`[http] fast_path = false`) nothing but speed changes.

A keep-alive client repeats its head byte for byte, so a connection remembers what its last head
meant and parses only a different one.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import httptools
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from cloud_core.transports.http.adapter import MAX_BODY_BYTES, HttpDeviceAdapter

MAX_HEAD_BYTES = 16_384
MAX_PIPELINED = 100  # requests of one connection that wait for their answers
MAX_UNSENT_BYTES = 65_536  # of answers; above it klein's channel takes over, which knows back-pressure
SWEEP_S = 1.0
_PREFIX = b"POST /api/v1/"
_OK_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_REASONS = {200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 413: b"Content Too Large",
            429: b"Too Many Requests", 503: b"Service Unavailable"}  # fmt: skip
_ODD_HEADERS = frozenset((b"expect", b"transfer-encoding", b"upgrade"))  # want more than the short cut offers
_FEATURES = {b"telemetry": "telemetry", b"attributes": "attributes"}
PROVISION = "provision"
_REQUEST, _INCOMPLETE, _FOREIGN = range(3)  # what the start of the received data is


class _Head:
    """What a request's head says; filled by httptools' callbacks."""

    __slots__ = ("_is_odd", "_length", "_parser", "_url")

    def __init__(self, data: bytes) -> None:
        self._url = b""
        self._length = -1
        self._is_odd = False
        self._parser: Any = httptools.HttpRequestParser(self)  # untyped
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._is_odd = True

    def on_url(self, url: bytes) -> None:
        self._is_odd = self._is_odd or bool(self._url)  # a second request: the head ended before we thought
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            is_good = self._length < 0 and value.isdigit() and len(value) <= 7
            self._length = int(value) if is_good else MAX_BODY_BYTES + 1
        elif name in _ODD_HEADERS:
            self._is_odd = True

    def on_body(self, body: bytes) -> None:
        self._is_odd = True  # the head ended before we thought

    def target(self) -> tuple[str, str, int] | None:
        """(feature, token, body length); None when the request is not for the short cut."""
        if self._is_odd or not 0 <= self._length <= MAX_BODY_BYTES:
            return None
        if self._parser.get_http_version() != "1.1" or not self._parser.should_keep_alive():
            return None
        if b"?" in self._url or not self._url.isascii():
            return None
        parts = self._url.split(b"/")
        if self._url == b"/api/v1/provision":
            return PROVISION, "", self._length
        if len(parts) == 5 and parts[3] and parts[4] in _FEATURES:
            return _FEATURES[parts[4]], parts[3].decode(), self._length
        return None


class _Slot:
    """A request whose answer is not known yet; called with the answer. Answers leave in order."""

    __slots__ = ("_front", "data")

    def __init__(self, front: Front) -> None:
        self._front = front
        self.data: bytes | None = None

    def __call__(self, status: int, body: bytes, retry_after_s: int | None) -> None:
        self.data = _OK_EMPTY if status == 200 and not body else _response(status, body, retry_after_s)
        self._front.flush()


class Front(Protocol):
    """One connection, until it is handed over."""

    __slots__ = (
        "_address", "_buffer", "_factory", "_feature", "_head", "_is_leaving", "_is_lost", "_length", "_slots",
        "_token", "idle_sweeps", "transport",
    )  # fmt: skip
    transport: Any  # ITCPTransport; mypy reads nothing from zope interfaces

    def __init__(self, factory: FrontFactory) -> None:
        self._factory = factory
        self._buffer = b""
        self._slots: deque[_Slot] = deque()
        self._is_leaving = False  # a request for klein has come; answers of ours go out first
        self._is_lost = False
        self._address = ""
        self._head = b""  # the last one, and what it meant
        self._feature = self._token = ""
        self._length = 0
        self.idle_sweeps = 0  # since the last whole request or answer, or the first byte of an incomplete one

    def connectionMade(self) -> None:
        self._address = self.transport.getPeer().host
        self._factory.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        self._factory.connections.discard(self)

    def dataReceived(self, data: bytes) -> None:
        if self._buffer or self._is_leaving:
            data = self._buffer + data
            self._buffer = b""
        else:
            self.idle_sweeps = 0
        at, end = 0, len(data)
        while at < end:
            what = _FOREIGN if self._is_leaving else self._look(data, at)
            if what is _REQUEST:
                start = at + len(self._head)
                if end - start >= self._length:
                    at = start + self._length
                    self._serve(data[start:at])
                    continue
                what = _INCOMPLETE
            if what is _INCOMPLETE:
                self._buffer = data[at:]
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
        if self._is_leaving and not slots:
            self.transport.resumeProducing()
            data, self._buffer = self._buffer, b""
            self._hand_over(data)

    def sweep(self, limit: int) -> None:
        """Called once a second: ends a connection that says nothing or never finishes its request."""
        if self._slots:
            return
        self.idle_sweeps += 1
        if self.idle_sweeps > limit:
            self.transport.abortConnection() if self._buffer else self.transport.loseConnection()

    # -- inside -----------------------------------------------------------------------------------

    def _look(self, data: bytes, at: int) -> int:
        """For _REQUEST, `_head`, `_feature`, `_token` and `_length` describe the one at `at`."""
        if len(self._slots) >= MAX_PIPELINED or self._unsent_bytes() > MAX_UNSENT_BYTES:
            return _FOREIGN
        if self._head and data.startswith(self._head, at):
            return _REQUEST
        if not data.startswith(_PREFIX, at):
            return _INCOMPLETE if _PREFIX.startswith(data[at : at + len(_PREFIX)]) else _FOREIGN
        end = data.find(b"\r\n\r\n", at, at + MAX_HEAD_BYTES)
        if end < 0:
            return _INCOMPLETE if len(data) - at < MAX_HEAD_BYTES else _FOREIGN
        head = data[at : end + 4]
        target = _Head(head).target()
        if target is None:
            return _FOREIGN
        self._head = head
        self._feature, self._token, self._length = target
        return _REQUEST

    def _unsent_bytes(self) -> int:
        """What the peer has not read; as `listener.FastServer`, Twisted's buffer has no public measure."""
        transport = self.transport
        return getattr(transport, "_tempDataLen", 0) + len(getattr(transport, "dataBuffer", b""))

    def _serve(self, body: bytes) -> None:
        slot = _Slot(self)
        self._slots.append(slot)
        if self._feature is PROVISION:
            self._factory.adapter.provision(body, self._address, slot)
        else:
            self._factory.adapter.post(self._token, self._feature, body, self._address, slot)

    def _hand_over(self, data: bytes) -> None:
        """klein's Site takes the connection; requests of ours that are in work are answered first."""
        if self._slots:
            self._buffer = data
            if not self._is_leaving:
                self._is_leaving = True
                self.transport.pauseProducing()
            return
        self._factory.connections.discard(self)
        channel = self._factory.site.buildProtocol(self.transport.getPeer())
        self.transport.protocol = channel
        channel.makeConnection(self.transport)
        channel.dataReceived(data)


class FrontFactory(Factory[Front]):
    """Builds fronts and watches their deadlines in one sweep."""

    noisy = False

    def __init__(self, adapter: HttpDeviceAdapter, site: Any, *, reactor: Any, request_timeout_s: float) -> None:
        # `site` and `reactor` are twisted objects without usable types.
        self.adapter = adapter
        self.site = site
        self.connections: set[Front] = set()
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

    def buildProtocol(self, addr: Any) -> Front:
        return Front(self)

    def _sweep_all(self) -> None:
        for connection in list(self.connections):
            connection.sweep(self._limit)


def _response(status: int, body: bytes, retry_after_s: int | None) -> bytes:
    retry = b"" if retry_after_s is None else b"Retry-After: %d\r\n" % retry_after_s
    kind = b"Content-Type: application/json\r\n" if body else b""
    return b"HTTP/1.1 %d %b\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
        status, _REASONS.get(status, b"Error"), kind, retry, len(body), body,
    )  # fmt: skip
