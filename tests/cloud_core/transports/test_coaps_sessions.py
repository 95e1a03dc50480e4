"""DTLS in memory: handshakes, sessions, their bounds and their ends."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from cloud_core.transports.coap.dtls import DtlsLimits
from cloud_core.transports.coap.dtls_hello import (
    COOKIE_PERIOD_S,
    Cookies,
    datagrams,
    hello_verify_request,
    is_framed,
    read_hello,
)
from cloud_core.transports.coap.dtls_session import MAX_EARLY
from cloud_core.transports.tls import ServerTls
from tests.support.coap import PEER
from tests.support.dtls import DtlsClient, DtlsUnderTest, client_context, peer_at, server_tls
from tests.support.pki import Leaf, Pki
from tests.support.tls import is_resumed


@pytest.fixture(scope="module")
def device() -> Leaf:
    return Pki().chain_of_length(2)


@pytest.fixture(scope="module")
def context(device: Leaf) -> SSL.Context:
    return client_context(device)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    folder: Path = tmp_path_factory.mktemp("server")
    return server_tls(folder)


@pytest.fixture
def it(tls: ServerTls) -> DtlsUnderTest:
    return DtlsUnderTest(tls)


# -- handshakes -----------------------------------------------------------------------------------


def test_a_session_carries_messages_and_the_certificate(it: DtlsUnderTest, device: Leaf, context: SSL.Context) -> None:
    """Messages go both ways under an address of the session's own, which leads to what the peer showed."""
    client = it.connect(context)
    client.send(b"one")
    it.exchange(client)
    ((message, address),) = it.delivered
    assert message == b"one" and address[:2] == PEER[:2] and it.server.is_open(address)
    assert it.shown(address) == device.presented
    it.server.send(b"two", address)
    it.exchange(client)
    assert client.messages == [b"two"]


def test_a_peer_without_certificate_is_welcome(it: DtlsUnderTest) -> None:
    """It shows nothing, and its requests need a token."""
    client = it.connect(client_context())
    client.send(b"x")
    it.exchange(client)
    assert it.shown(it.delivered[0][1]) is None


def test_nothing_is_kept_before_the_cookie_is_back(it: DtlsUnderTest, context: SSL.Context) -> None:
    """A flood of ClientHellos from everywhere leaves no state, and each answer is smaller than its question."""
    (hello,) = DtlsClient(context).taken()
    for number in range(2_000):
        it.receive(hello, peer_at(number))
    assert it.server.handshake_count == it.server.session_count == 0
    assert len(it.sent) == 2_000 and all(len(answer) < len(hello) for answer, _peer in it.sent)


def test_a_cookie_is_good_for_its_address_and_for_a_while(it: DtlsUnderTest, context: SSL.Context) -> None:
    """From another address, or two periods later, it is asked for again."""
    hello = it.confirmed_hello(DtlsClient(context))
    it.receive(hello, peer_at(1))
    it.now_s += 2 * COOKIE_PERIOD_S
    it.receive(hello)
    assert it.server.handshake_count == 0 and len(it.sent) == 2
    assert not Cookies().is_right(Cookies().make(PEER, 0), PEER, 0)


def test_a_cookie_outlives_its_period(it: DtlsUnderTest, context: SSL.Context) -> None:
    """A client that is asked at the end of one answers in the next."""
    hello = it.confirmed_hello(DtlsClient(context))
    it.now_s += COOKIE_PERIOD_S
    it.receive(hello)
    assert it.server.handshake_count == 1


def test_flights_are_cut_to_the_path(tls: ServerTls) -> None:
    """A long chain comes in fragments from a client with a small MTU; no datagram of ours is above 1,200 bytes."""
    it, device = DtlsUnderTest(tls), Pki().chain_of_length(5)
    client = DtlsClient(client_context(device), mtu_bytes=300)
    sizes = []
    while going := client.taken():
        assert all(len(datagram) <= 300 for datagram in going)
        for datagram in going:
            it.receive(datagram)
        for answer, _peer in it.taken():
            sizes.append(len(answer))
            client.receive(answer)
    assert client.is_open and max(sizes) <= 1_200
    client.send(b"x")
    it.exchange(client)
    assert it.shown(it.delivered[0][1]) == device.presented


def over_bad_link(
    it: DtlsUnderTest, clients: dict[Any, DtlsClient], carried: Callable[[Any, list[bytes]], list[bytes]]
) -> None:
    """Connects all clients; `carried` says what arrives of what was sent from or to a peer, and in which order."""
    deadline_s = time.monotonic() + 20  # OpenSSL repeats after 1, 2, 4 seconds of the real clock
    while not all(client.is_open for client in clients.values()):
        assert time.monotonic() < deadline_s
        for peer, client in clients.items():
            client.repeat()
            for datagram in carried(peer, client.taken()):
                it.receive(datagram, peer)
        it.server.sweep(it.now_s)
        coming: dict[Any, list[bytes]] = {}
        for answer, peer in it.taken():
            coming.setdefault(peer, []).append(answer)
        for peer, answers in coming.items():
            for answer in carried(peer, answers):
                clients[peer].receive(answer)
        time.sleep(0.005)


def test_reordered_and_repeated_datagrams_do_no_harm(it: DtlsUnderTest, context: SSL.Context) -> None:
    """Every datagram twice and each flight shuffled: one session each, every message once."""
    dice = random.Random(1)

    def carried(_peer: Any, sent: list[bytes]) -> list[bytes]:
        return dice.sample(sent * 2, 2 * len(sent))

    clients = {peer_at(number): DtlsClient(context, mtu_bytes=400) for number in range(20)}
    over_bad_link(it, clients, carried)
    for peer, client in clients.items():
        client.send(b"1")
        client.send(b"2")
        for datagram in carried(peer, client.taken()):
            it.receive(datagram, peer)
    assert sorted(message for message, _address in it.delivered) == [b"1"] * 20 + [b"2"] * 20
    assert it.server.session_count == 20 and not it.failures and not it.ended


def test_lost_datagrams_are_repeated(it: DtlsUnderTest, context: SSL.Context) -> None:
    """Clients that lose one datagram each, at any place of the handshake, are connected in spite of it."""
    clients = {peer_at(number): DtlsClient(context, mtu_bytes=600) for number in range(12)}
    passed = dict.fromkeys(clients, 0)

    def carried(peer: Any, sent: list[bytes]) -> list[bytes]:
        first, passed[peer] = passed[peer], passed[peer] + len(sent)
        return [datagram for place, datagram in enumerate(sent, first) if place != peer[1] - 10_000]

    over_bad_link(it, clients, carried)
    assert it.server.session_count == 12 and not it.failures


def test_a_lost_flight_is_repeated_without_being_asked(it: DtlsUnderTest, context: SSL.Context) -> None:
    """A second later, by the sweep: not every client repeats its own in time."""
    client = DtlsClient(context)
    it.receive(it.confirmed_hello(client))
    lost = it.taken()
    deadline_s = time.monotonic() + 5
    while not it.sent:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
        it.server.sweep(it.now_s)
    assert [len(datagram) for datagram, _peer in it.sent] == [len(datagram) for datagram, _peer in lost]
    for answer, _peer in it.taken():
        client.receive(answer)
    assert it.exchange(client).is_open


def test_a_session_is_resumed(it: DtlsUnderTest, device: Leaf, context: SSL.Context) -> None:
    """With less work, and with the chain of the full handshake."""
    former = it.connect(context)
    session = former.connection.get_session()
    client = it.connect(context, session=session)  # from the same port, which ends the former session
    client = it.connect(context, peer_at(1), session=session)
    client.send(b"x")
    it.exchange(client, peer_at(1))
    chain = it.shown(it.delivered[0][1])
    assert is_resumed(client.connection)
    assert chain is not None and (chain.leaf, len(chain.others)) == (device.der, 1)


def test_a_handshake_that_is_refused_is_told(it: DtlsUnderTest) -> None:
    """A client that does not trust the server says so; the reason is passed on, and nothing is left."""
    suspicious = client_context()
    suspicious.set_verify(SSL.VERIFY_PEER, lambda *_: False)
    client = DtlsClient(suspicious)
    with pytest.raises(SSL.Error):
        it.exchange(client)
    for datagram in client.taken():
        it.receive(datagram)
    ((peer, reason),) = it.failures
    assert peer == PEER and "alert" in reason and it.server.handshake_count == 0


@pytest.mark.parametrize("name", [b"ECDHE-ECDSA-AES128-CCM", b"ECDHE-ECDSA-AES128-GCM-SHA256"])
def test_small_devices_have_a_cipher(it: DtlsUnderTest, device: Leaf, name: bytes) -> None:
    """CCM as well as GCM."""
    context = client_context(device)
    context.set_cipher_list(name)
    assert it.connect(context).connection.get_cipher_name() == name.decode()


def test_small_devices_have_their_cipher_after_new_files_too(tmp_path: Path, device: Leaf) -> None:
    tls = server_tls(tmp_path)
    it = DtlsUnderTest(tls)
    assert tls.reload()
    context = client_context(device)
    context.set_cipher_list(b"ECDHE-ECDSA-AES128-CCM")
    assert it.connect(context).connection.get_cipher_name() == "ECDHE-ECDSA-AES128-CCM"


def test_a_client_without_common_cipher_is_refused(it: DtlsUnderTest) -> None:
    """By an alert, with the reason told."""
    old = client_context()
    old.set_cipher_list(b"AES128-SHA:@SECLEVEL=0")
    client = DtlsClient(old)
    it.receive(it.confirmed_hello(client))
    assert it.failures == [(PEER, "no shared cipher")] and it.sent[-1][0][0] == 21
    assert it.server.handshake_count == 0


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
