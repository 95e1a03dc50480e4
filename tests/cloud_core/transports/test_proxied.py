"""Connections behind load balancers and reverse proxies: who they are for, in HTTP and before MQTT."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from cloud_core.core.limits import AttemptRations, Ration
from cloud_core.transports.proxied import ProxiedFactory
from cloud_core.transports.proxies import TrustedProxies
from shared.credentials import AccessToken
from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer, HttpServer
from tests.support.stores import StoreUnderTest

PROXIES = TrustedProxies(["192.168.1.1", "10.0.0.0/8"])  # the first one is StringTransport's peer
HEADER = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 1883\r\n"
HEADER_S = 10.0


class Spoken(Protocol):
    """What is behind the header."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)


class Balanced(StringTransport):
    """A connection of a load balancer."""

    def __init__(self, host: str) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 50_000))

    def stand_for(self, host: str, port: int) -> None:
        self.peerAddr = IPv4Address("TCP", host, port)


class Listener:
    def __init__(self) -> None:
        self.clock = Clock()
        self.spoken: list[Spoken] = []
        self.built_for: list[str] = []
        wrapped = Factory()
        wrapped.buildProtocol = self._build  # type: ignore[method-assign,assignment]
        self.factory = ProxiedFactory(wrapped, PROXIES, name="mqtt", reactor=self.clock, header_s=HEADER_S)
        self.factory.startFactory()

    def _build(self, address: Any) -> Spoken:
        self.built_for.append(address.host)
        self.spoken.append(Spoken())
        return self.spoken[-1]

    def connect(self, host: str = "10.1.2.3") -> Any:
        transport: Any = Balanced(host)
        transport.protocol = self.factory.buildProtocol(transport.getPeer())
        transport.protocol.makeConnection(transport)
        return transport


def test_the_protocol_begins_behind_the_header_with_the_clients_address() -> None:
    """Also where bytes come one by one; what is behind the header is left as it is."""
    listener = Listener()
    transport = listener.connect()
    for one in HEADER + b"hello":
        transport.protocol.dataReceived(bytes([one]))
    assert listener.built_for == ["203.0.113.7"]
    assert b"".join(listener.spoken[0].received) == b"hello"
    assert (transport.getPeer().host, transport.getPeer().port) == ("203.0.113.7", 4711)
    transport = listener.connect()
    transport.protocol.dataReceived(HEADER + b"at once")
    assert listener.spoken[1].received == [b"at once"]
    assert not listener.factory.waiting


def test_a_balancer_that_speaks_for_itself_keeps_its_address() -> None:
    listener = Listener()
    listener.connect().protocol.dataReceived(b"PROXY UNKNOWN\r\n")
    assert listener.built_for == ["10.1.2.3"]


def test_who_is_no_trusted_balancer_speaks_for_itself() -> None:
    """A header of its own is no more than bytes: otherwise anybody could choose an address."""
    listener = Listener()
    transport = listener.connect("203.0.113.66")
    transport.protocol.dataReceived(HEADER + b"hello")
    assert listener.built_for == ["203.0.113.66"] and transport.getPeer().host == "203.0.113.66"
    assert listener.spoken[0].received == [HEADER + b"hello"]


@pytest.mark.parametrize("data", [b"\x10\x0c\0\x04MQTT", b"GET / HTTP/1.1\r\n\r\n", b"PROXY nonsense\r\n"])
def test_a_connection_without_a_header_is_refused(data: bytes) -> None:
    listener = Listener()
    transport = listener.connect()
    transport.protocol.dataReceived(data)
    assert (transport.disconnected, listener.built_for, transport.value()) == (True, [], b"")


def test_a_header_that_does_not_come_in_time_ends_the_connection() -> None:
    """Silence, and a drip of bytes; who has shown its header is left alone."""
    listener = Listener()
    silent, dripping, done = (listener.connect() for _ in range(3))
    done.protocol.dataReceived(HEADER)
    for at in range(10):
        dripping.protocol.dataReceived(HEADER[at : at + 1])
        listener.clock.advance(1.0)
    assert (silent.disconnected, dripping.disconnected, done.disconnected) == (True, True, False)


def test_who_leaves_before_its_header_is_forgotten() -> None:
    listener = Listener()
    transport = listener.connect()
    transport.protocol.connectionLost()
    assert not listener.factory.waiting
    listener.connect()
    listener.factory.stopFactory()


# -- HTTP headers ---------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["front", "klein"])
def server(request: pytest.FixtureRequest, sqlite_store: StoreUnderTest) -> Any:
    sqlite_store.add_device("dev", sqlite_store.add_profile(), AccessToken("tok"))
    server = HttpServer(ApiUnderTest(sqlite_store), is_fast=request.param, proxies=PROXIES)
    yield server
    server.factory.stopFactory()


def peer_of(server: HttpServer, host: str = "192.168.1.1") -> HttpPeer:
    peer = HttpPeer(server.api, server=server)
    peer.transport = Balanced(host)
    peer.transport.protocol = server.factory.buildProtocol(None)
    peer.transport.protocol.makeConnection(peer.transport)
    return peer


def sources(peer: HttpPeer, *headers: str) -> list[str]:
    """The addresses in the log, of an attempt with each of these headers."""
    for header in headers:
        peer.post("/api/v1/provision", b'{"provisionDeviceKey": "k", "provisionDeviceSecret": "s"}', header)
    attempts = peer.api.store.run(lambda tx: tx.attempts())
    return [one.peer.address for one in sorted(attempts, key=lambda one: one.at_ms)][-len(headers) :]


def test_a_proxys_clients_have_addresses_of_their_own(server: HttpServer) -> None:
    """Request by request on one connection; without a header the proxy is the client."""
    told = (
        "X-Forwarded-For: 203.0.113.7\r\n", "x-forwarded-for: 1.1.1.1, 203.0.113.8, 10.9.9.9\r\n", "",
        "Forwarded: for=1.1.1.1\r\nForwarded: for=203.0.113.9\r\n", "X-Forwarded-For: nonsense\r\n",
    )  # fmt: skip
    peer = peer_of(server)
    found = sources(peer, *told)
    assert sorted(found) == sorted(["203.0.113.7", "203.0.113.8", "192.168.1.1", "203.0.113.9", "192.168.1.1"])


def test_who_is_no_trusted_proxy_speaks_for_itself(server: HttpServer) -> None:
    """Its headers change nothing."""
    assert sources(peer_of(server, "203.0.113.66"), "X-Forwarded-For: 203.0.113.7\r\n") == ["203.0.113.66"]


def test_a_proxys_connection_is_handed_over_with_its_clients(server: HttpServer) -> None:
    """What the front does not serve itself is told the same address."""
    body = b'{"provisionDeviceKey": "k", "provisionDeviceSecret": "s"}'
    peer = peer_of(server)
    peer.send(
        b"POST /api/v1/provision HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.7\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    )
    assert [status for status, _, _ in peer.responses()] == [200]
    (attempt,) = peer.api.store.run(lambda tx: tx.attempts())
    assert attempt.peer.address == "203.0.113.7"


@pytest.mark.parametrize("is_fast", [True, False], ids=["front", "klein"])
def test_who_fails_too_often_keeps_no_other_client_of_the_proxy_waiting(
    sqlite_store: StoreUnderTest, is_fast: bool
) -> None:
    """Failed attempts count by client: this is what the addresses are for."""
    rations = AttemptRations(per_source_and_key=Ration(2, 60.0), per_source=Ration(2, 60.0))
    server = HttpServer(ApiUnderTest(sqlite_store, rations=rations), is_fast=is_fast, proxies=PROXIES)
    peer = peer_of(server)
    told = ["203.0.113.7"] * 3 + ["203.0.113.8"]
    body = b'{"provisionDeviceKey": "k", "provisionDeviceSecret": "s"}'
    answers = [peer.post("/api/v1/provision", body, f"X-Forwarded-For: {one}\r\n")[2] for one in told]
    assert [b"RATE_LIMITED" in one for one in answers] == [False, False, True, False]
    server.factory.stopFactory()
