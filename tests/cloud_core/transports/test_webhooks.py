"""Webhooks against a real HTTP server on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from cloud_core.model import ServerMethod
from cloud_core.transports.http.webhooks import MAX_ANSWER_BYTES, SIGNATURE, Webhooks, signature

BODY = b'{"method":"m"}'


class Hook(Resource):
    """Answers by path and keeps what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bytes, bytes, dict[bytes, bytes]]] = []

    def render_POST(self, request: Any) -> Any:
        self.asked.append((request.path, request.content.read(), request.getAllHeaders()))
        if request.path == b"/silent":
            return NOT_DONE_YET
        if request.path == b"/redirect":
            request.redirect(b"/elsewhere")
            return b""
        if request.path == b"/broken":
            request.setResponseCode(500)
            return b"{}"
        if request.path == b"/huge":
            return b"x" * (MAX_ANSWER_BYTES + 1)
        if request.path == b"/endless":
            request.write(b"x")
            return NOT_DONE_YET
        return b'{"degrees":21}'


class HookServer:
    def __init__(self) -> None:
        self.hook = Hook()
        port: Any = reactor
        self.port = port.listenTCP(0, Site(self.hook), interface="127.0.0.1")
        self.webhooks = Webhooks(reactor)

    def method(self, path: str, timeout_ms: int = 5_000) -> ServerMethod:
        url = f"http://127.0.0.1:{self.port.getHost().port}{path}"
        return ServerMethod(tenant_id=1, method="m", url=url, secret="CANARY-secret", timeout_ms=timeout_ms)

    def post(self, method: ServerMethod) -> Deferred[Any]:
        answered: Deferred[Any] = Deferred()
        self.webhooks.post(method, BODY, answered.callback)
        return answered

    async def close(self) -> None:
        await self.webhooks.stop()
        await self.stop_listening()

    async def stop_listening(self) -> None:
        stopped = self.port.stopListening()
        if stopped is not None:  # None: it has stopped before
            await stopped


@pytest.fixture
def server() -> Iterator[HookServer]:
    opened = HookServer()
    yield opened
    pytest_twisted.blockon(Deferred.fromCoroutine(opened.close()))


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


@pytest_twisted.ensureDeferred
async def test_a_call_is_posted_signed_and_answered(server: HookServer) -> None:
    """The receiver can verify the body with the secret, and no request carries the secret itself."""
    assert await server.post(server.method("/ok?x=1")) == b'{"degrees":21}'
    [(path, body, headers)] = server.hook.asked
    assert (path, body, headers[b"content-type"]) == (b"/ok", BODY, b"application/json")
    assert headers[SIGNATURE.lower().encode()] == b"sha256=" + signature("CANARY-secret", BODY).encode()
    assert b"CANARY" not in b"".join(headers.values())


def test_a_signature_is_hmac_sha256_in_hex() -> None:
    """RFC 4231 test case 2."""
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature("Jefe", b"what do ya want for nothing?") == expected


@pytest.mark.parametrize("path", ["/redirect", "/broken", "/huge"])
@pytest_twisted.ensureDeferred
async def test_any_other_answer_is_a_failure(server: HookServer, path: str, logged: list[Any]) -> None:
    """Redirects are not followed, large answers not read; the log names the method, but no secret and no path."""
    assert await server.post(server.method(path)) is None
    assert [asked for asked, _, _ in server.hook.asked] == [path.encode()]
    [event] = [one for one in logged if "webhook" in (one.get("log_format") or "")]
    assert event["method"] == "m" and "CANARY" not in str(event) and path not in event["host"]


@pytest.mark.parametrize("path", ["/silent", "/endless"])
@pytest_twisted.ensureDeferred
async def test_a_webhook_has_its_time_and_no_longer(server: HookServer, path: str) -> None:
    """Before its answer begins, and while it comes."""
    started_s = time.monotonic()
    assert await server.post(server.method(path, timeout_ms=200)) is None
    assert time.monotonic() - started_s < 4.0


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_there_is_a_failure(server: HookServer) -> None:
    method = server.method("/ok")
    await server.stop_listening()
    assert await server.post(method) is None
