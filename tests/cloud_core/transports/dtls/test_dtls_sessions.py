"""DTLS in memory: clients that come back, and ends."""

from __future__ import annotations

from OpenSSL import SSL

from cloud_core.transports.coap.dtls_hello import (
    COOKIE_PERIOD_S,
    read_hello,
)
from tests.support.coap import PEER
from tests.support.dtls import DtlsClient, DtlsUnderTest, peer_at

# -- a client that comes back ----------------------------------------------------------------------


def test_a_rebooted_client_replaces_its_session(it: DtlsUnderTest, context: SSL.Context) -> None:
    """From the same port; the former session lives until the new handshake has finished (RFC 6347 section 4.2.8)."""
    former = it.connect(context)
    former.send(b"before")
    it.exchange(former)
    address = it.delivered[0][1]
    latter = DtlsClient(context)
    it.receive(it.confirmed_hello(latter))
    former.send(b"meanwhile")
    for datagram in former.taken():
        it.receive(datagram)
    assert it.delivered[-1] == (b"meanwhile", address) and not it.ended
    for answer, _peer in it.taken():
        latter.receive(answer)
    it.exchange(latter)
    assert latter.is_open and it.ended == [address] and it.server.session_count == 1
    latter.send(b"after")
    it.exchange(latter)
    assert it.delivered[-1][0] == b"after" and it.delivered[-1][1] != address
    former.send(b"too late")
    for datagram in former.taken():
        it.receive(datagram)
    assert it.delivered[-1][0] == b"after" and not it.server.is_open(address)


def test_a_former_session_is_closed_beside_a_handshake(it: DtlsUnderTest, context: SSL.Context) -> None:
    """Its alerts are its own, and do not disturb the new handshake."""
    former, latter = it.connect(context), DtlsClient(context)
    it.receive(it.confirmed_hello(latter))
    answers = it.taken()
    former.connection.shutdown()
    for datagram in former.taken():
        it.receive(datagram)
    assert len(it.ended) == 1 and it.server.session_count == 0
    for answer, _peer in answers:
        latter.receive(answer)
    assert it.exchange(latter).is_open and it.server.session_count == 1


def test_a_device_that_reboots_within_its_handshake_begins_anew(it: DtlsUnderTest, context: SSL.Context) -> None:
    """Its first handshake is forgotten, and is no failure."""
    it.receive(it.confirmed_hello(DtlsClient(context)))
    it.taken()
    assert it.connect(context).is_open
    assert (it.server.handshake_count, it.server.session_count, it.failures) == (0, 1, [])


def test_a_late_copy_of_the_hello_changes_nothing(it: DtlsUnderTest, context: SSL.Context) -> None:
    """Neither during the handshake nor after it."""
    client = DtlsClient(context)
    hello = it.confirmed_hello(client)
    it.receive(hello)
    it.receive(hello)
    for answer, _peer in it.taken():
        client.receive(answer)
    it.exchange(client)
    it.receive(hello)
    assert client.is_open and (it.server.handshake_count, it.server.session_count) == (0, 1)


def test_a_device_with_bad_random_numbers_can_reboot(it: DtlsUnderTest, context: SSL.Context) -> None:
    """Its ClientHello is the same at each start but for the cookie; that it is a new one shows a minute later."""
    client = DtlsClient(context)
    hello = it.confirmed_hello(client)
    it.receive(hello)
    for answer, _peer in it.taken():
        client.receive(answer)
    it.exchange(client)
    it.now_s += COOKIE_PERIOD_S
    former = read_hello(hello)
    assert former is not None and it.server.session_count == 1
    it.receive(hello.replace(former.cookie, it.server._cookies.make(PEER, it.now_s)))
    assert it.server.handshake_count == 1


# -- ends -----------------------------------------------------------------------------------------


def test_a_close_notify_is_answered(it: DtlsUnderTest, context: SSL.Context) -> None:
    """And the session is over; what comes later gets no answer."""
    client = it.connect(context)
    client.connection.shutdown()
    it.exchange(client)
    assert client.is_closed and len(it.ended) == 1 and it.server.session_count == 0
    it.receive(b"\x17\xfe\xfd\0\1\0\0\0\0\0\x09\0\x20" + bytes(32))
    assert not it.sent


def test_a_handshake_has_ten_seconds(it: DtlsUnderTest, context: SSL.Context) -> None:
    """Then it is dropped, and told."""
    it.receive(it.confirmed_hello(DtlsClient(context)))
    it.server.sweep(it.now_s + 9.9)
    assert it.server.handshake_count == 1
    it.server.sweep(it.now_s + 10)
    assert it.server.handshake_count == 0 and it.failures == [(PEER, "not finished within 10 s")]


def test_an_idle_session_ends(it: DtlsUnderTest, context: SSL.Context) -> None:
    """After a day without a message, with a close_notify."""
    idle, lively = it.connect(context), it.connect(context, peer_at(1))
    it.now_s += 86_399
    lively.send(b"x")
    it.exchange(lively, peer_at(1))
    it.server.drop_idle(it.now_s)
    assert it.server.session_count == 2
    it.server.drop_idle(it.now_s + 1)
    it.exchange(idle)
    assert idle.is_closed and it.server.session_count == 1 and it.ended[0][:2] == PEER[:2]


def test_open_sessions_are_told_that_the_server_stops(it: DtlsUnderTest, context: SSL.Context) -> None:
    """By close_notify."""
    client = it.connect(context)
    it.receive(it.confirmed_hello(DtlsClient(context), peer_at(1)), peer_at(1))
    it.taken()
    it.server.close()
    it.exchange(client)
    assert client.is_closed and it.server.handshake_count == it.server.session_count == 0
