"""DTLS in memory: bounds, and hostile datagrams."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from cloud_core.transports.coap.dtls import DtlsLimits
from cloud_core.transports.coap.dtls_hello import (
    datagrams,
    hello_verify_request,
    is_framed,
    read_hello,
)
from cloud_core.transports.coap.dtls_session import MAX_EARLY
from cloud_core.transports.tls import ServerTls
from tests.support.coap import PEER
from tests.support.dtls import DtlsClient, DtlsUnderTest, client_context, peer_at

# -- bounds ---------------------------------------------------------------------------------------


def test_handshakes_are_bounded(tls: ServerTls, context: SSL.Context) -> None:
    """In all and per host; the least recently heard gives way."""
    it = DtlsUnderTest(tls, DtlsLimits(max_handshakes=3, max_handshakes_per_host=2))
    for number in range(3):
        it.receive(it.confirmed_hello(DtlsClient(context), peer_at(number)), peer_at(number))
        it.taken()
    assert it.failures == [(peer_at(0), "too many handshakes of this host are under way")]
    for number in range(2):
        other = (f"2001:db8::{number}", 5, 0, 0)
        it.receive(it.confirmed_hello(DtlsClient(context), other), other)
        it.taken()
    assert it.failures[1:] == [(peer_at(1), "too many handshakes are under way")]
    assert it.server.handshake_count == 3


def fragment(number: int, length: int, sequence: int) -> bytes:
    """One byte of a Certificate message that is said to be so long, as an unprotected record."""
    body = b"\x0b" + length.to_bytes(3, "big") + number.to_bytes(2, "big") + bytes(5) + b"\x01z"
    return b"\x16\xfe\xfd\0\0" + sequence.to_bytes(6, "big") + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(("number", "length"), [(2, 100_000), (2, 32_769), (8, 100)])
def test_messages_that_are_announced_beyond_reason_end_the_handshake(
    it: DtlsUnderTest, context: SSL.Context, number: int, length: int
) -> None:
    """OpenSSL would set memory aside for each: a megabyte for ten kilobytes of datagrams."""
    it.receive(it.confirmed_hello(DtlsClient(context)))
    it.receive(fragment(2, 32_768, 5) + fragment(7, 100, 6))
    assert it.server.handshake_count == 1
    it.receive(fragment(3, 100, 7) + fragment(number, length, 8))
    assert it.server.handshake_count == 0 and "too large" in it.failures[0][1]


def test_protected_records_ahead_of_the_handshake_are_bounded(it: DtlsUnderTest, context: SSL.Context) -> None:
    """OpenSSL keeps up to a hundred of them, each with a buffer of its own."""
    it.receive(it.confirmed_hello(DtlsClient(context)))
    (handshake,) = it.server._handshakes.values()
    heard: set[float] = set()
    for sequence in range(100):
        it.now_s += 0.01
        it.receive(b"\x17\xfe\xfd\0\1" + sequence.to_bytes(6, "big") + b"\0\1z")
        heard.add(handshake.heard_s)
    assert len(heard) == MAX_EARLY


def test_sessions_are_bounded(tls: ServerTls, context: SSL.Context) -> None:
    """The least recently heard ends, and is told."""
    it = DtlsUnderTest(tls, DtlsLimits(max_sessions=2))
    clients = [it.connect(context, peer_at(number)) for number in range(2)]
    for session in it.server._sessions.values():
        session.is_identified = True
    clients[0].send(b"x")
    it.exchange(clients[0], peer_at(0))
    newest = DtlsClient(context)
    it.receive(it.confirmed_hello(newest))
    for _round in range(3):
        for answer, peer in it.taken():
            (newest if peer == PEER else clients[peer[1] - 10_000]).receive(answer)
        for datagram in newest.taken():
            it.receive(datagram)
    assert newest.is_open and clients[1].is_closed and not clients[0].is_closed
    assert it.server.session_count == 2 and [address[1] for address in it.ended] == [10_001]


def test_sessions_of_strangers_give_way_first(tls: ServerTls, context: SSL.Context) -> None:
    """Whoever opens many cannot displace a device that was identified, however long that is silent."""
    it = DtlsUnderTest(tls, DtlsLimits(max_sessions=3))
    it.connect(context, peer_at(0)).send(b"x")
    known = it.server.of((PEER[0], 10_000, 1, 0))
    assert known is not None
    known.is_identified = True
    for number in range(1, 10):
        it.connect(context, peer_at(number))
    assert it.server.session_count == 3 and [address[1] - 10_000 for address in it.ended] == list(range(1, 8))
    for peer in (peer_at(8), peer_at(9)):
        session = it.server._sessions[peer]
        session.is_identified = True
    it.connect(context, peer_at(10))
    assert it.ended[-1][1] == 10_000 and not it.server._strangers.keys() - it.server._by_number.keys()


# -- hostile datagrams ----------------------------------------------------------------------------


def test_noise_harms_nobody(it: DtlsUnderTest, context: SSL.Context) -> None:
    """Any records from a session's address, forged alerts included: it goes on."""
    client, dice = it.connect(context), random.Random(1)
    for kind in (20, 21, 22, 23, 24, 25):
        for epoch in (0, 1, 2):
            for body in (b"", b"\1\0", b"\2\0", b"\2\x28", dice.randbytes(40), b"\1" + dice.randbytes(60)):
                head = bytes((kind,)) + b"\xfe\xfd" + bytes((0, epoch)) + bytes(5) + bytes((dice.randrange(256),))
                it.receive(head + len(body).to_bytes(2, "big") + body)
    client.send(b"still here")
    it.exchange(client)
    assert [message for message, _ in it.delivered] == [b"still here"] and not it.ended


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3), st.data())
def test_no_datagram_raises(tls: ServerTls, noise: bytes, place: int, data: st.DataObject) -> None:
    """Bytes, records and damaged ClientHellos: an answer or silence."""
    it = DtlsUnderTest(tls)
    client = DtlsClient(client_context())
    (hello,) = client.taken()
    if place == 0:
        it.receive(noise)
    elif place == 1:
        it.receive(b"\x16\xfe\xfd" + bytes(8) + len(noise).to_bytes(2, "big") + noise)
    else:
        damaged = bytearray(hello if place == 2 else it.confirmed_hello(DtlsClient(client_context())))
        for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)))):
            damaged[at] = value
        it.receive(bytes(damaged))
        it.receive(bytes(damaged[: len(damaged) // 2]))
    it.server.sweep(it.now_s + 20)
    assert it.server.handshake_count == it.server.session_count == 0


@given(st.binary(max_size=100))
def test_readers_take_any_bytes(noise: bytes) -> None:
    """Nothing raises, and nothing that is no ClientHello is one."""
    is_framed(noise)
    assert read_hello(noise) is None
    read_hello(b"\x16\xfe\xfd" + bytes(8) + len(noise).to_bytes(2, "big") + b"\1" + noise)


def test_flights_are_packed_by_whole_records() -> None:
    """As many as fit; one that does not fit goes alone."""
    records = [b"\x16\xfe\xfd" + bytes(8) + size.to_bytes(2, "big") + bytes(size) for size in (10, 10, 500, 1_300, 5)]
    packed = datagrams(b"".join(records), 600)
    assert packed == [records[0] + records[1] + records[2], records[3], records[4]]
    assert datagrams(b"", 600) == []


def test_the_request_for_a_cookie_repeats_the_record_number(context: SSL.Context) -> None:
    """As RFC 6347 section 4.2.1 asks, for the client's replay window."""
    (first,) = DtlsClient(context).taken()
    hello = read_hello(first)
    assert hello is not None and hello.cookie == b"" and len(hello.identity) == 32
    answer = hello_verify_request(hello, bytes(16))
    assert answer[3:11] == first[3:11] and is_framed(answer) and len(answer) < len(first)
