"""Twisted's HTTP server with bounds: size of bodies, number of connections, time for a request; no access log."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site


def error_body(text: str, **more: Any) -> bytes:
    """`{"error": …}`: what is wrong and how to mend it."""
    return msgspec.json.encode({"error": text, **more})


class BoundedRequest(Request):
    """Refuses a body that is too large before it is stored, whether its length is declared or not."""

    _received_bytes = 0
    _is_refused = False

    @property
    def _limit_bytes(self) -> int:
        channel: Any = self.channel  # HTTPChannel, which twisted declares more loosely
        limit_bytes: int = channel.site.max_body_bytes
        return limit_bytes

    def gotLength(self, length: int | None) -> None:
        is_too_large = length is not None and length > self._limit_bytes
        super().gotLength(0 if is_too_large else length)  # type: ignore[no-untyped-call]
        if is_too_large:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._received_bytes > self._limit_bytes:
            self._refuse()
        if not self._is_refused:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._is_refused:
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]

    def _refuse(self) -> None:
        """Answers past the request's own machinery, which could answer only after the whole body."""
        if self._is_refused:
            return
        self._is_refused = True
        body = error_body(f"the body is above {self._limit_bytes} bytes; send less at once or raise max_payload")
        channel: Any = self.channel
        channel.transport.write(
            b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        channel.loseConnection()


class BoundedChannel(HTTPChannel):
    """Here a drip of headers does not hold a connection open: Twisted's timer starts anew with every byte."""

    site: Any  # BoundedSite; Twisted sets it

    def resetTimeout(self) -> None:
        if not self.line_mode:  # a body is coming in
            super().resetTimeout()  # type: ignore[no-untyped-call]

    def allHeadersReceived(self) -> None:
        super().resetTimeout()  # type: ignore[no-untyped-call]
        super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.site.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.connections.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class BoundedSite(Site):
    """Serves klein over `BoundedChannel`s."""

    noisy = False
    requestFactory = BoundedRequest
    protocol: Any = BoundedChannel  # without Twisted's wrapper, which is for HTTP/2

    def __init__(self, resource: Any, *, max_body_bytes: int, max_connections: int, **options: Any) -> None:
        # `resource` and `options` are Twisted's, which declares no types.
        super().__init__(resource, parsePOSTFormSubmission=False, **options)  # type: ignore[no-untyped-call]
        self.max_body_bytes = max_body_bytes
        self.max_connections = max_connections
        self.connections: set[Any] = set()

    def buildProtocol(self, addr: Any) -> Any:
        if len(self.connections) >= self.max_connections:
            return None  # Twisted closes the connection
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]

    def log(self, request: Any) -> None:
        """No access log: a message for every reading would fill the disk."""
