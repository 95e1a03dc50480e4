"""TLS between a TCP connection and an application: handshakes good and bad, bytes, back-pressure, the end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from cloud_core.transports.handshakes import IN_ALL, PER_ADDRESS, Handshakes
from cloud_core.transports.tls_connection import LINGER_S, MAX_LINES, MAX_UNASKED_BYTES
from tests.support.tls import Site, TlsClient, TlsListener, client_context, is_resumed, outgoing


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def listener(site: Site) -> TlsListener:
    return TlsListener(site.tls)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the log hears of TLS."""
    from twisted.logger import formatEvent

    heard: list[str] = []

    def observe(event: Any) -> None:
        if "tls" in event["log_namespace"]:
            heard.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield heard
    globalLogPublisher.removeObserver(observe)


VERSIONS = pytest.mark.parametrize("newest", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])


# -- handshakes -----------------------------------------------------------------------------------


@VERSIONS
def test_bytes_pass_both_ways_and_the_chain_is_shown(site: Site, listener: TlsListener, newest: int) -> None:
    """The leaf first, then what stands above it as it came."""
    client = TlsClient(listener, site.device, newest=newest, trusted=site.server_root).shake_hands()
    client.send(b"hello")
    assert client.application.received == [b"hello"]
    client.application.transport.write(b"answer")
    client.to_client()
    assert client.data == b"answer"
    assert client.connection.presented() == site.device.presented


def test_a_client_without_a_certificate_is_let_in(listener: TlsListener) -> None:
    """It may have a token."""
    client = TlsClient(listener).shake_hands()
    client.send(b"hello")
    assert (client.application.received, client.connection.chain) == ([b"hello"], None)


@VERSIONS
def test_a_resumed_session_shows_what_the_full_handshake_showed(site: Site, listener: TlsListener, newest: int) -> None:
    """Resumption works, by ticket, and a path to a CA that was found stays found."""
    first = TlsClient(listener, site.device, newest=newest).shake_hands()
    before = first.connection.presented()  # as each login by certificate asks
    again = TlsClient(listener, context=first.context, session=first.ssl.get_session()).shake_hands()
    assert is_resumed(again.ssl)
    assert before is not None and len(before.others) == 2
    assert again.connection.presented() == before


def test_the_application_hears_nothing_before_the_handshake_is_over(listener: TlsListener) -> None:
    """Whoever only connects, or says half a greeting, costs nothing of MQTT or HTTP."""
    client = TlsClient(listener)
    client._step(client.ssl.do_handshake)
    greeting = outgoing(client.ssl)
    client.connection.dataReceived(greeting[:50])
    assert (listener.wrapped.built, client.wire.value()) == ([], b"")


def test_a_message_behind_the_handshake_is_handed_on_at_once(site: Site, listener: TlsListener) -> None:
    """TLS 1.3: the client speaks with its last flight; the answer leaves together with what TLS has to say."""
    client = TlsClient(listener, site.device)
    client._step(client.ssl.do_handshake)
    client.to_server()
    client.to_client()
    client._step(client.ssl.do_handshake)
    client.ssl.send(b"CONNECT")
    client.to_server()
    assert client.application.received == [b"CONNECT"]


def test_a_handshake_that_never_ends_is_cut(listener: TlsListener, lines: list[str]) -> None:
    """By the deadline of a connection, with a line in the log."""
    _, silent = listener.accept()
    client = TlsClient(listener)
    client._step(client.ssl.do_handshake)
    client.connection.dataReceived(outgoing(client.ssl)[:20])
    listener.clock.pump([1.0] * 9)
    assert not (silent.is_aborted or client.wire.is_aborted)
    listener.clock.pump([1.0] * 2)
    assert silent.is_aborted and client.wire.is_aborted
    assert any("did not finish in time" in line for line in lines)


def test_of_one_address_the_newest_handshake_is_turned_away(site: Site, lines: list[str]) -> None:
    """Those that have begun come to their end, and make room; other addresses are not concerned."""
    listener = TlsListener(site.tls, handshakes=Handshakes(max_per_address=2))
    clients = [TlsClient(listener) for _ in range(3)]
    assert [one.wire.is_aborted for one in clients] == [False, False, True]
    assert not listener.accept("192.0.2.2")[1].is_aborted
    assert any(PER_ADDRESS in line and "192.0.2.1" in line for line in lines)
    assert listener.factory.failed == 1
    clients[2].connection.dataReceived(b"\x16\x03\x01")  # what was on its way
    clients[2].connection.connectionLost()
    clients[0].shake_hands().send(b"hello")
    assert clients[0].application.received == [b"hello"]
    assert not listener.accept()[1].is_aborted
    clients[0].connection.connectionLost()
    assert listener.accept()[1].is_aborted


def test_in_all_the_oldest_handshake_gives_way(site: Site, lines: list[str]) -> None:
    """On whichever port it is; connections that are open do not count."""
    handshakes = Handshakes(max_per_address=2, max_in_all=3)
    mqtts, https = (TlsListener(site.tls, handshakes=handshakes) for _ in range(2))
    opened = TlsClient(mqtts, connected=mqtts.accept("192.0.2.9")).shake_hands()
    wires = [one.accept(f"192.0.2.{number}")[1] for number, one in enumerate((mqtts, https, mqtts, https, mqtts))]
    assert [wire.is_aborted for wire in wires] == [True, True, False, False, False]
    assert len(handshakes) == 3 and not opened.wire.is_aborted
    assert any(IN_ALL in line for line in lines)
    for listener in (mqtts, https):
        listener.clock.pump([1.0] * 12)
    assert len(handshakes) == 0


def test_without_limits_all_are_welcome(site: Site) -> None:
    listener = TlsListener(site.tls)
    assert not any(listener.accept()[1].is_aborted for _ in range(300))


def test_an_open_connection_has_no_deadline_of_tls(listener: TlsListener) -> None:
    client = TlsClient(listener).shake_hands()
    listener.clock.pump([1.0] * 60)
    assert not (client.wire.is_aborted or client.wire.disconnecting)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", "MQTT without TLS"),
        (b"POST /api/v1/provision HTTP/1.1\r\n", "use https://"),
        (b"\x00\x01\x02", "does not speak TLS"),
        (b"\x16\x03\x01\x00\x05nonsense", "unexpected message"),
    ],
)
def test_what_is_no_tls_ends_at_once_with_a_line_that_says_the_fix(
    listener: TlsListener, lines: list[str], data: bytes, hint: str
) -> None:
    connection, wire = listener.accept()
    connection.dataReceived(data)
    listener.clock.advance(LINGER_S + 1)
    assert wire.disconnecting
    assert [hint in line and "mqtts" in line for line in lines] == [True]
    assert listener.wrapped.built == []


@VERSIONS
def test_a_client_that_refuses_our_certificate_is_named_with_its_reason(
    site: Site, listener: TlsListener, lines: list[str], newest: int
) -> None:
    client = TlsClient(listener, site.device, trusted=site.factory_root, newest=newest).shake_hands()
    assert client.fault is not None
    assert ["client refused our certificate (unknown ca)" in line for line in lines] == [True]


def test_a_client_that_offers_only_old_ciphers_is_told_to_update(listener: TlsListener, lines: list[str]) -> None:
    """And hears an alert."""
    client = TlsClient(listener, newest=SSL.TLS1_2_VERSION, ciphers=b"AES128-SHA").shake_hands()
    assert "handshake failure" in str(client.fault)
    assert "no cipher of ours" in lines[0]


def test_a_refused_client_has_time_to_read_why(listener: TlsListener) -> None:
    """A connection that is cut with bytes unread loses the alert on its way."""
    client = TlsClient(listener, newest=SSL.TLS1_2_VERSION, ciphers=b"AES128-SHA").shake_hands()
    client.connection.dataReceived(b"more of it")
    assert not (client.wire.disconnecting or client.wire.is_aborted)
    listener.clock.pump([1.0] * 3)
    assert client.wire.is_aborted


def test_a_client_that_leaves_during_the_handshake_is_noted(listener: TlsListener, lines: list[str]) -> None:
    """Some refuse our certificate without a word; one that never spoke was only a look at the port."""
    client = TlsClient(listener)
    client._step(client.ssl.do_handshake)
    client.to_server()
    client.lose()
    silent, _ = listener.accept()
    silent.connectionLost()
    assert ["closed the connection" in line for line in lines] == [True]


def test_failed_handshakes_do_not_fill_the_log(listener: TlsListener, lines: list[str]) -> None:
    """A ration, and then how many were left out."""
    for _ in range(MAX_LINES + 5):
        listener.accept()[0].dataReceived(b"garbage")
    assert len(lines) == MAX_LINES
    listener.clock.advance(11)
    listener.accept()[0].dataReceived(b"garbage")
    assert "5 more lines" in lines[-2]


def test_chains_without_end_are_refused(site: Site, listener: TlsListener) -> None:
    """OpenSSL takes 100 KiB of certificates, whatever they are."""
    context = client_context(site.device)
    for number in range(250):
        context.add_extra_chain_cert(site.line.leaf(f"filler {number}", key=site.line.key).certificate)
    client = TlsClient(listener, context=context).shake_hands()
    assert client.application is None
    assert client.fault is not None


# -- open connections -----------------------------------------------------------------------------


def test_one_read_of_the_socket_is_one_call_of_the_application(site: Site, listener: TlsListener) -> None:
    """However many records it holds: what pauses while it is called is not called again before it resumes."""
    client = TlsClient(listener).shake_hands()
    paused: list[bool] = []

    def pausing(data: bytes) -> None:
        paused.append(client.wire.producerState == "paused")
        client.application.transport.pauseProducing()

    client.application.dataReceived = pausing
    for number in range(5):
        client.ssl.send(b"record %d" % number)
    client.to_server()
    assert paused == [False]
    client.application.transport.resumeProducing()
    assert client.wire.producerState == "producing"


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 1_000_000])
def test_large_writes_and_reads_arrive_whole(listener: TlsListener, size: int) -> None:
    client = TlsClient(listener).shake_hands()
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    client.application.transport.write(data)
    client.to_client()
    assert client.data == data
    client.send(data)
    assert b"".join(client.application.received) == data


def test_goodbye_is_said_before_the_connection_is_closed(listener: TlsListener) -> None:
    """After what was written; later writes are dropped."""
    client = TlsClient(listener).shake_hands()
    transport = client.application.transport
    transport.write(b"last")
    transport.loseConnection()
    transport.write(b"too late")
    client.to_client()
    assert client.data == b"last"
    assert isinstance(client.fault, SSL.ZeroReturnError)
    assert client.wire.disconnecting


def test_a_producer_ends_before_the_connection(listener: TlsListener) -> None:
    """As without TLS: what it still writes is sent."""
    client = TlsClient(listener).shake_hands()
    transport = client.application.transport
    producer = Protocol()
    transport.registerProducer(producer, True)
    assert client.wire.producer is producer
    transport.loseConnection()
    assert not client.wire.disconnecting
    transport.write(b"the rest")
    transport.unregisterProducer()
    client.to_client()
    assert (client.data, client.wire.disconnecting) == (b"the rest", True)


def test_a_client_that_says_goodbye_is_served_first(listener: TlsListener) -> None:
    """What it sent before counts; then the connection ends."""
    client = TlsClient(listener).shake_hands()
    client.ssl.send(b"DISCONNECT")
    client.close()
    assert client.application.received == [b"DISCONNECT"]
    assert client.wire.disconnecting
    application = client.application
    client.lose()
    assert len(application.lost) == 1


def test_bytes_that_were_changed_on_the_way_end_the_connection(listener: TlsListener, lines: list[str]) -> None:
    client = TlsClient(listener).shake_hands()
    client.ssl.send(b"hello")
    record = bytearray(outgoing(client.ssl))
    record[-1] ^= 1
    client.connection.dataReceived(bytes(record))
    assert (client.application.received, client.wire.disconnecting) == ([], True)
    assert "broke" in lines[-1]


def test_nothing_happens_to_a_connection_that_is_gone(listener: TlsListener) -> None:
    """Late answers of an application fall on the floor."""
    client = TlsClient(listener).shake_hands()
    transport = client.application.transport
    client.lose()
    transport.write(b"x")
    transport.loseConnection()
    client.connection.dataReceived(b"x")
    assert transport.presented() is None


def test_an_application_may_cut_the_connection_while_it_is_called(listener: TlsListener) -> None:
    client = TlsClient(listener).shake_hands()

    def cut(data: bytes) -> None:
        client.application.transport.abortConnection()
        client.lose()

    client.application.dataReceived = cut
    client.send(b"hello")
    assert client.wire.is_aborted


def test_whoever_makes_tls_talk_and_does_not_listen_is_cut(listener: TlsListener) -> None:
    """Requests for new keys are answered by TLS itself; the answers must not pile up."""
    client = TlsClient(listener).shake_hands()
    client.wire.unsent_bytes = MAX_UNASKED_BYTES + 1
    client.ssl.send(b"x")
    record = outgoing(client.ssl)
    client.connection.dataReceived(record[:5])
    assert client.wire.is_aborted


def test_another_application_may_take_over(listener: TlsListener) -> None:
    """As the fast front hands a connection to klein."""
    from tests.support.tls import Recorder

    client = TlsClient(listener).shake_hands()
    successor = Recorder()
    client.application.transport.protocol = successor
    client.send(b"hello")
    client.lose()
    assert (successor.received, len(successor.lost)) == ([b"hello"], 1)


def test_it_is_the_transport_that_twisted_expects(listener: TlsListener) -> None:
    client = TlsClient(listener).shake_hands()
    assert verifyObject(ISSLTransport, client.connection)
    assert verifyObject(IPushProducer, client.connection)
    assert client.connection.getPeer() == client.wire.getPeer()


def test_stopping_cuts_handshakes_that_are_under_way(listener: TlsListener) -> None:
    """And no timer stays behind."""
    _, wire = listener.accept()
    listener.factory.doStop()
    assert wire.is_aborted
    assert listener.clock.getDelayedCalls() == []


@pytest.mark.parametrize("end", ["goodbye", "lost", "refused", "broken"])
def test_a_connection_that_is_over_is_freed_at_once(site: Site, listener: TlsListener, end: str) -> None:
    """Without waiting for the collector: what OpenSSL holds of it is many times what Python sees."""
    gc.collect()
    gc.disable()
    try:
        connection, wire = listener.accept()
        if end == "refused":
            connection.dataReceived(b"\x16\x03\x01\x00\x05nonsense")
        else:
            client = TlsClient(listener, site.device, connected=(connection, wire)).shake_hands()
            if end == "goodbye":
                client.send(b"DISCONNECT")
                client.close()
            elif end == "broken":
                connection.dataReceived(b"\x17\x03\x03\x00\x20" + bytes(32))
            del client
        connection.connectionLost()
        listener.wrapped.built.clear()
        gone, ssl_gone = weakref.ref(connection), len(SSL.Connection._reverse_mapping)
        del connection, wire
        assert gone() is None
        assert ssl_gone == 0
    finally:
        gc.enable()
