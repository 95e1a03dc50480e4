"""What HTTP peers cannot do: hold a connection open, fill memory or disk, or be taken for somebody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_core.core.people.logins import Tokens
from cloud_core.transports.http.front import MAX_PIPELINED, MAX_UNSENT_BYTES, Front
from cloud_core.transports.http.intake import MAX_REST_BODY_BYTES, BoundedSite
from shared.credentials import AccessToken
from shared.json_bodies import MAX_BODY_BYTES
from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer
from tests.support.rest import ADMINISTRATOR, Rest
from tests.support.stores import StoreUnderTest

ONE = b"POST /api/v1/tok/telemetry HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"


def _peer(store: StoreUnderTest, *, is_fast: bool) -> HttpPeer:
    profile = store.add_profile()
    store.add_device("dev", profile, AccessToken("tok"))
    store.add_device("escaped", profile, AccessToken("t%6Fk"))  # looks like "tok", percent-encoded
    return HttpPeer(ApiUnderTest(store), is_fast=is_fast)


@pytest.fixture
def front(sqlite_store: StoreUnderTest) -> Iterator[HttpPeer]:
    peer = _peer(sqlite_store, is_fast=True)
    yield peer
    peer.close()


@pytest.fixture(params=[True, False], ids=["front", "klein"])
def http(request: pytest.FixtureRequest, sqlite_store: StoreUnderTest) -> Iterator[HttpPeer]:
    peer = _peer(sqlite_store, is_fast=request.param)
    yield peer
    peer.close()


def protocol_of(http: HttpPeer) -> Any:
    return http.transport.protocol  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["close", " close", "keep-alive, close", "Close"])
def test_connection_close_is_honoured_however_it_is_written(http: HttpPeer, value: str) -> None:
    status, headers, _ = http.post("/api/v1/tok/telemetry", b"{}", f"Connection:{value}\r\n")
    assert (status, headers.get("connection"), http.transport.disconnecting) == (200, "close", True)


@pytest.mark.parametrize(
    "head",
    [
        b"X: y\nContent-Length: 0\n\n",
        b"Transfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\n",
        b"Content-Length : 2\r\n\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
    ],
)
def test_two_readings_of_one_head_end_the_connection(http: HttpPeer, head: bytes) -> None:
    """What a proxy could understand differently is answered 400, never served."""
    http.send(b"POST /api/v1/tok/telemetry HTTP/1.1\r\nHost: h\r\n" + head + ONE)
    assert [status for status, _, _ in http.responses()] == [400]
    assert http.transport.disconnecting


def test_an_encoded_token_is_never_compared_undecoded(http: HttpPeer) -> None:
    """The device whose token looks encoded is not taken for the one whose token it encodes."""
    assert http.post("/api/v1/t%256Fk/telemetry", b'{"a":1}')[0] == 200  # caches the token t%6Fk
    assert http.post("/api/v1/t%6Fk/telemetry", b'{"b":2}')[0] == 200
    devices = {name: http.api.store.read(lambda tx, n=name: tx.device_by_name(1, n)) for name in ("dev", "escaped")}
    latest = {name: set(http.api.store.read(lambda tx, d=one: tx.latest(d.id))) for name, one in devices.items()}
    assert latest == {"dev": {"b"}, "escaped": {"a"}}


def test_a_repeated_head_is_read_anew_when_it_differs(front: HttpPeer) -> None:
    """A connection remembers its last head; a longer body or another token is another head."""
    nobody = ONE.replace(b"/tok/", b"/nix/")
    longer = ONE.replace(b"Content-Length: 2\r\n\r\n{}", b'Content-Length: 7\r\n\r\n{"c":3}')
    front.send(ONE + ONE + nobody + longer + ONE)
    assert [status for status, _, _ in front.responses()] == [200, 200, 401, 200, 200]
    assert isinstance(protocol_of(front), Front)


def test_a_request_for_klein_waits_for_the_answers_before_it(front: HttpPeer) -> None:
    front.send(ONE.replace(b"{}", b"1}") + b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n")
    front.send(ONE)
    assert [status for status, _, _ in front.responses()] == [400, 404, 200]
    assert not isinstance(protocol_of(front), Front)


def test_too_many_pipelined_requests_are_all_answered_in_order(front: HttpPeer) -> None:
    one = ONE.replace(b"Content-Length: 2\r\n\r\n{}", b'Content-Length: 7\r\n\r\n{"a":1}')
    front.send(one * (MAX_PIPELINED + 20))
    answered: list[int] = []
    for _ in range(30):
        answered += [status for status, _, _ in front.responses()]
    assert answered == [200] * (MAX_PIPELINED + 20)


def test_who_does_not_read_its_answers_is_no_longer_read_from(front: HttpPeer) -> None:
    front.transport.unsent_bytes = MAX_UNSENT_BYTES + 1  # type: ignore[attr-defined]
    front.send(ONE)
    channel = protocol_of(front)
    assert not isinstance(channel, Front)
    channel.pauseProducing()  # what Twisted calls when its buffer is full
    assert front.transport.producerState == "paused"  # type: ignore[attr-defined]


def test_who_does_not_read_its_answers_is_cut_in_the_end(front: HttpPeer) -> None:
    """A connection that is closed once all is sent would stay for as long as the peer likes."""
    front.send(ONE)
    assert front.responses()
    front.transport.unsent_bytes = 40  # type: ignore[attr-defined]
    for _ in range(22):
        front.clock.advance(1.0)
    assert front.transport.disconnected


@pytest.mark.parametrize("path", ["/api/device", "/api/v1/tok/telemetry"])
def test_a_declared_body_above_the_bound_is_refused_unread(http: HttpPeer, path: str) -> None:
    http.send(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {MAX_REST_BODY_BYTES + 1}\r\n\r\nx".encode())
    (answer,) = http.responses()
    assert (answer[0], answer[1]["connection"], http.transport.disconnecting) == (413, "close", True)


def test_an_undeclared_body_is_counted(http: HttpPeer) -> None:
    login = f"Authorization: Bearer {Rest.token_of(ADMINISTRATOR)}\r\n".encode()
    http.send(b"POST /api/device HTTP/1.1\r\nHost: h\r\n" + login + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    for _ in range(17):
        http.send(chunk)
    assert [status for status, _, _ in http.responses()] == [413]
    assert http.transport.disconnecting


@pytest.mark.parametrize(
    ("path", "status"), [("/api/v1/tok/telemetry", 413), ("/api/v1/provision", 413), ("/api/device", 401),
                         ("/api/auth/login", 401), ("/api/customer", 401), ("/nowhere", 401)],
)  # fmt: skip
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
def test_who_has_not_logged_in_sends_no_more_than_a_device(
    http: HttpPeer, path: str, status: int, is_declared: bool
) -> None:
    """Neither memory nor disk is to be had without a login."""
    size = MAX_BODY_BYTES + 1
    how, sent = (f"Content-Length: {size}", b"") if is_declared else ("Transfer-Encoding: chunked", b"")
    http.send(f"POST {path} HTTP/1.1\r\nHost: h\r\n{how}\r\n\r\n".encode())
    if not is_declared:
        assert http.received() == []
        sent = b"%x\r\n" % size + b"x" * size + b"\r\n"
        http.send(sent)
    ((answered, headers, _),) = http.received()
    assert (answered, headers["connection"], http.transport.disconnecting) == (status, "close", True)


def test_a_login_that_has_expired_is_told_so_before_a_large_body(http: HttpPeer) -> None:
    """So that the client refreshes its token and sends again."""
    token = Tokens(b"j" * 64).issue(ADMINISTRATOR, 1)["token"]
    head = f"POST /api/devices HTTP/1.1\r\nHost: h\r\nX-Authorization: Bearer {token}\r\nContent-Length: 1000000"
    http.send(head.encode() + b"\r\n\r\n")
    ((status, _, body),) = http.received()
    assert (status, json.loads(body)["errorCode"]) == (401, 11)


@pytest.mark.parametrize("start", [b"POST /api/v1/tok", b"GET /api/auth/user HTTP/1.1\r\n"])
def test_a_drip_of_headers_does_not_hold_a_connection_open(http: HttpPeer, start: bytes) -> None:
    http.send(start)
    for _ in range(22):
        http.clock.advance(1.0)
        if not (http.transport.disconnected or http.transport.disconnecting):
            http.send(b"x")
    assert http.transport.disconnected or http.transport.disconnecting


def test_an_idle_connection_is_closed_in_order(front: HttpPeer) -> None:
    assert front.post("/api/v1/tok/telemetry", b"{}")[0] == 200
    for _ in range(22):
        front.clock.advance(1.0)
    assert front.transport.disconnecting


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/api/v1/tok", 404),
        ("PUT", "/api/v1/tok/telemetry", 405),
        ("GET", "/api/v1/provision", 405),
        ("PUT", "/api/device", 405),
    ],
)
def test_what_no_route_takes_is_answered_in_json(http: HttpPeer, method: str, path: str, status: int) -> None:
    http.send(f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode())
    (answer,) = http.responses()
    assert (answer[0], answer[1]["content-type"]) == (status, "application/json")
    assert b'"errorCode"' in answer[2]


def test_no_access_log_is_written(http: HttpPeer) -> None:
    """Paths hold access tokens."""
    site = http.service._site
    assert isinstance(site, BoundedSite)
    written: list[str] = []
    site._logFile = type("File", (), {"write": lambda _, line: written.append(line)})()
    http.send(b"GET /api/v1/tok/telemetry HTTP/1.1\r\nHost: h\r\n\r\n")
    assert http.responses()
    site._logFile = None
    assert written == []
