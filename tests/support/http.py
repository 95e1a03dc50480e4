"""HTTP connections in memory: the real listener's factory, adapter and store, no socket."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from cloud_core.core.admin import AdminApi
from cloud_core.transports.http.service import HttpService
from cloud_core.transports.proxies import TrustedProxies
from tests.support.api import ApiUnderTest

Response = tuple[int, dict[str, str], bytes]


class HttpServer:
    """The service with a clock of the test's own."""

    def __init__(self, api: ApiUnderTest, *, is_fast: bool, proxies: TrustedProxies | None = None) -> None:
        self.api = api
        self.clock = Clock()
        self.service = HttpService(
            api=api.api,
            admin=AdminApi(store=api.store.store, api=api.api, jwt_key=b"j" * 64),
            reactor=self.clock,
            is_fast_path_on=is_fast,
            request_timeout_s=20.0,
            proxies=proxies,
        )
        self.factory = self.service.factory()
        self.factory.startFactory()


class HttpPeer:
    """One connection, as the client sees it."""

    def __init__(self, api: ApiUnderTest, *, is_fast: bool = True, server: HttpServer | None = None) -> None:
        self.api = api
        self.server = server or HttpServer(api, is_fast=is_fast)
        self.clock, self.service, self.factory = self.server.clock, self.server.service, self.server.factory
        self.transport: Any = StringTransport()  # Any: tests look at what Twisted does not declare
        self.transport.protocol = self.factory.buildProtocol(None)
        self.transport.protocol.makeConnection(self.transport)

    def another(self) -> HttpPeer:
        """A second connection to the same server."""
        return HttpPeer(self.api, server=self.server)

    def send(self, data: bytes) -> None:
        self.transport.protocol.dataReceived(data)

    def settle(self) -> None:
        for _ in range(8):
            self.api.store.run(lambda tx: None)
            self.api.store.read(lambda tx: None)
            self.api.store.survey(lambda tx: None)
            self.clock.advance(0.02)

    def responses(self) -> list[Response]:
        self.settle()
        return self.received()

    def received(self) -> list[Response]:
        """What has been answered since the last call; no time passes."""
        data, found = self.transport.value(), []
        self.transport.clear()
        while data:
            head, _, rest = data.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines[1:]}
            if headers.get("transfer-encoding") == "chunked":
                body, data = _without_chunks(rest)
            else:
                length = int(headers.get("content-length", 0))
                body, data = rest[:length], rest[length:]
            found.append((int(lines[0].split()[1]), headers, body))
        return found

    def post(self, path: str, body: bytes, headers: str = "") -> Response:
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self.send(head.encode() + body)
        return self.responses()[0]

    def ask(self, path: str, headers: str = "", method: str = "GET") -> None:
        """Sends a request without a body and does not wait for the answer."""
        self.send(f"{method} {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n".encode())
        self.settle()

    def get(self, path: str, headers: str = "", method: str = "GET") -> Response:
        self.ask(path, headers, method)
        (answer,) = self.received()
        return answer

    def lose(self) -> None:
        """The client goes away."""
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))

    def close(self) -> None:
        self.factory.stopFactory()


def _without_chunks(data: bytes) -> tuple[bytes, bytes]:
    """The body, and what follows it."""
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
        if length == 0:
            return body, data
