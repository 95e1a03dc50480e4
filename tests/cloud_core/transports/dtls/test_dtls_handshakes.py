"""DTLS in memory: handshakes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from cloud_core.transports.coap.dtls_hello import (
    COOKIE_PERIOD_S,
    Cookies,
)
from cloud_core.transports.tls import ServerTls
from tests.support.coap import PEER
from tests.support.dtls import DtlsClient, DtlsUnderTest, client_context, peer_at, server_tls
from tests.support.pki import Leaf, Pki
from tests.support.tls import is_resumed


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
