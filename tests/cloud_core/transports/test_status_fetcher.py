"""Fetching what CAs publish, from a real HTTP server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from cloud_core.core.certificates.revocation import FetchFailed
from cloud_core.transports.http import status_fetcher
from cloud_core.transports.http.status_fetcher import MAX_REDIRECTS, StatusFetcher


class Published(Resource):
    """Answers by path and keeps what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bytes, bytes, bytes, bytes]] = []

    def render(self, request: Any) -> Any:
        content_type = request.getHeader(b"content-type") or b""
        self.asked.append((request.method, request.path, request.content.read(), content_type))
        if request.path == b"/silent":
            return NOT_DONE_YET
        if request.path == b"/endless":
            request.write(b"x")
            return NOT_DONE_YET
        if request.path.startswith(b"/to"):
            request.setResponseCode(302)
            request.setHeader(b"location", request.args.get(b"place", [b"/to"])[0])
            return b"moved"
        if request.path == b"/lost":
            request.setResponseCode(404)
            return b"<html>"
        return b"x" * 100


class Server:
    def __init__(self) -> None:
        self.published = Published()
        port: Any = reactor
        self.port = port.listenTCP(0, Site(self.published), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"
        self.fetcher = StatusFetcher(reactor)

    async def get(self, path: str, body: bytes | None = None, content_type: str = "") -> Any:
        answered: Deferred[Any] = Deferred()
        self.fetcher.fetch(self.url + path, body, content_type, answered.callback)
        return await answered

    async def close(self) -> None:
        await self.fetcher.stop()
        await self.port.stopListening()


@pytest.fixture
def server() -> Iterator[Server]:
    opened = Server()
    yield opened
    pytest_twisted.blockon(Deferred.fromCoroutine(opened.close()))


@pytest_twisted.ensureDeferred
async def test_a_list_is_got_and_a_question_is_posted(server: Server) -> None:
    """With its content type."""
    assert await server.get("/list") == b"x" * 100
    assert await server.get("/ocsp", b"question", "application/ocsp-request") == b"x" * 100
    assert server.published.asked == [
        (b"GET", b"/list", b"", b""), (b"POST", b"/ocsp", b"question", b"application/ocsp-request"),
    ]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_anything_but_200_is_a_failure(server: Server) -> None:
    """The reason holds no address."""
    failed = await server.get("/lost")
    assert isinstance(failed, FetchFailed)
    assert str(failed) == "it answered with status 404"


@pytest_twisted.ensureDeferred
async def test_redirects_are_followed_over_http(server: Server) -> None:
    """Relative ones too, not without end, and not for questions."""
    assert await server.get("/to?place=/list") == b"x" * 100
    assert await server.get(f"/to?place={server.url}/list") == b"x" * 100
    server.published.asked.clear()
    assert "302" in str(await server.get("/to"))
    assert len(server.published.asked) == MAX_REDIRECTS + 1
    assert "302" in str(await server.get("/to?place=/list", b"question", "application/ocsp-request"))


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://ca.example/list", "gopher://x", "ldap://x"])
async def test_redirects_elsewhere_are_not_followed(server: Server, place: str) -> None:
    """The web alone."""
    assert "redirects" in str(await server.get(f"/to?place={place}"))


class Response:
    """An answer of an encrypted server that redirects to a plain one."""

    code = 302

    class headers:
        @staticmethod
        def getRawHeaders(_name: str, _default: list[str]) -> list[str]:
            return ["http://ca.example/list"]

    def deliverBody(self, receiver: Any) -> None:
        receiver.connectionLost(Failure(ResponseDone()))


class FakeAgent:
    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.asked: list[bytes] = []

    def request(self, method: bytes, url: bytes, headers: Any, body: Any) -> Deferred[Any]:
        self.asked.append(url)
        result = self.outcome
        if isinstance(result, Exception):
            return fail(result)
        answered: Deferred[Any] = Deferred()
        if result is not None:
            answered.callback(result)
        return answered


def test_what_is_encrypted_is_not_redirected_to_what_is_not() -> None:
    """It stops at the first."""
    agent, outcomes = FakeAgent(Response()), []
    StatusFetcher(Clock(), agent).fetch("https://ca.example/list", None, "", outcomes.append)
    assert "redirects" in str(outcomes[0])
    assert agent.asked == [b"https://ca.example/list"]


def test_a_server_that_is_silent_has_ten_seconds() -> None:
    """Then the request is given up, once."""
    clock, outcomes = Clock(), []
    StatusFetcher(clock, FakeAgent(None)).fetch("http://ca.example/list", None, "", outcomes.append)
    clock.advance(9.9)
    assert outcomes == []
    clock.advance(0.2)
    assert [str(one) for one in outcomes] == ["no answer in time"]
    assert clock.getDelayedCalls() == []


def test_a_server_that_is_not_there_is_a_failure() -> None:
    """At once, with no timer left behind."""
    clock, outcomes = Clock(), []
    fetcher = StatusFetcher(clock, FakeAgent(ConnectionRefusedError()))
    fetcher.fetch("http://ca.example/list", None, "", outcomes.append)
    assert [str(one) for one in outcomes] == ["ConnectionRefusedError"]
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("path", ["/silent", "/endless"])
async def test_the_connection_of_a_request_that_is_given_up_is_closed(
    server: Server, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the answer has begun or not."""
    monkeypatch.setattr(status_fetcher, "TIMEOUT_S", 0.05)
    failed = await server.get(path)
    assert isinstance(failed, FetchFailed)


@pytest_twisted.ensureDeferred
async def test_an_answer_is_read_up_to_its_bound(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte more is a failure."""
    monkeypatch.setattr(status_fetcher, "MAX_ANSWER_BYTES", 100)
    assert await server.get("/list") == b"x" * 100
    monkeypatch.setattr(status_fetcher, "MAX_ANSWER_BYTES", 99)
    assert str(await server.get("/list")) == "its answer is above 99 bytes"
