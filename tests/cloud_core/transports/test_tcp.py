"""Connections on real sockets: nothing is lost, nobody is told twice, and nothing spins."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from cloud_core.transports import tcp
from cloud_core.transports.listener import listen_tcp
from cloud_core.transports.tcp import FastPort

reactor: Any = installed


class Recording(Protocol):
    """Remembers what happened; `on_data` acts."""

    def __init__(self, on_data: Callable[[Recording, bytes], None]) -> None:
        self.received = b""
        self.ends: list[Failure] = []
        self._on_data = on_data

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._on_data(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ends.append(reason)


class Listening:
    """A port and the protocols it built."""

    def __init__(self) -> None:
        self.built: list[Recording] = []
        self.on_data: Callable[[Recording, bytes], None] = lambda protocol, data: None
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self._build  # type: ignore[method-assign]
        self.port: FastPort = listen_tcp(reactor, 0, factory, "127.0.0.1", name="test")

    def _build(self, _address: object) -> Recording:
        self.built.append(Recording(lambda protocol, data: self.on_data(protocol, data)))
        return self.built[-1]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port.getHost().port))


@pytest.fixture
def listening() -> Iterator[Listening]:
    made = Listening()
    yield made
    for protocol in made.built:
        if protocol.transport is not None:
            protocol.transport.abortConnection()  # type: ignore[attr-defined]
    pytest_twisted.blockon(ensureDeferred(until(lambda: all(one.ends for one in made.built))))
    made.port.stopListening()
    pytest_twisted.blockon(ensureDeferred(pause()))


async def pause() -> None:
    await deferLater(reactor, 0.02)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("waited for 5 s in vain")


@pytest_twisted.ensureDeferred
async def test_an_answer_leaves_while_the_read_is_being_handled(listening: Listening) -> None:
    """`write()` sends at once: the peer has the bytes before the reactor turns again."""
    peer = listening.connect()
    peer.setblocking(False)
    answers = []

    def echo(protocol: Recording, data: bytes) -> None:
        protocol.transport.write(b"answer")  # type: ignore[union-attr]
        answers.append(peer.recv(100))

    listening.on_data = echo
    peer.send(b"question")
    await until(lambda: bool(answers))
    assert answers == [b"answer"]
    peer.close()


@pytest_twisted.ensureDeferred
async def test_the_end_of_input_is_announced_once(listening: Listening) -> None:
    """A peer that closes is seen, with everything it had sent before."""
    peer = listening.connect()
    peer.send(b"last words")
    peer.close()
    await until(lambda: bool(listening.built and listening.built[0].ends))
    await pause()
    assert listening.built[0].received == b"last words"
    assert len(listening.built[0].ends) == 1


@pytest_twisted.ensureDeferred
async def test_what_was_written_before_the_close_arrives_whole(listening: Listening) -> None:
    """Far more than the socket buffer, then loseConnection: the peer gets all of it, then the end."""
    body = b"0123456789abcdef" * 500_000

    def send(protocol: Recording, data: bytes) -> None:
        protocol.transport.write(body)  # type: ignore[union-attr]
        protocol.transport.loseConnection()  # type: ignore[union-attr]

    listening.on_data = send
    peer = listening.connect()
    peer.send(b"go")
    peer.setblocking(False)
    received = bytearray()
    is_over = False
    for _ in range(5_000):
        try:
            chunk = peer.recv(1_000_000)
        except BlockingIOError:
            await deferLater(reactor, 0.001)
            continue
        is_over = not chunk
        received += chunk
        if is_over:
            break
    assert is_over and received == body
    await until(lambda: bool(listening.built[0].ends))
    peer.close()


@pytest_twisted.ensureDeferred
async def test_a_close_is_announced_after_the_code_that_asked_for_it(listening: Listening) -> None:
    """`loseConnection` within `dataReceived` never calls `connectionLost` under its caller's feet."""
    ends_seen = []

    def close(protocol: Recording, data: bytes) -> None:
        protocol.transport.loseConnection()  # type: ignore[union-attr]
        protocol.transport.loseConnection()  # type: ignore[union-attr]
        ends_seen.append(len(protocol.ends))

    listening.on_data = close
    peer = listening.connect()
    peer.send(b"x")
    await until(lambda: bool(listening.built and listening.built[0].ends))
    assert ends_seen == [0] and len(listening.built[0].ends) == 1
    peer.setblocking(True)
    assert peer.recv(10) == b""
    peer.close()


@pytest_twisted.ensureDeferred
async def test_a_paused_connection_hears_nothing_and_does_not_spin(listening: Listening) -> None:
    """A peer that resets while nobody reads must not turn the loop in circles; resuming shows the end."""
    peer = listening.connect()
    peer.send(b"first")
    await until(lambda: bool(listening.built and listening.built[0].received))
    protocol = listening.built[0]
    transport: Any = protocol.transport
    transport.pauseProducing()
    peer.send(b" second")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    before = time.process_time()
    await deferLater(reactor, 0.3)
    assert time.process_time() - before < 0.2
    assert protocol.received == b"first" and not protocol.ends
    transport.resumeProducing()
    await until(lambda: bool(protocol.ends))


@pytest_twisted.ensureDeferred
async def test_an_exception_ends_its_own_connection_only(listening: Listening) -> None:
    """The others on the same descriptor of readiness go on."""

    def fail(protocol: Recording, data: bytes) -> None:
        if data == b"bad":
            raise ValueError("on purpose")
        protocol.transport.write(data)  # type: ignore[union-attr]

    listening.on_data = fail
    good, bad = listening.connect(), listening.connect()
    bad.send(b"bad")
    await until(lambda: any(one.ends for one in listening.built))
    good.send(b"good")
    await until(lambda: any(one.received == b"good" for one in listening.built))
    assert good.recv(10) == b"good"
    assert sum(len(one.ends) for one in listening.built) == 1
    good.close()
    bad.close()


@pytest_twisted.ensureDeferred
async def test_a_descriptor_number_that_is_used_again_belongs_to_its_new_connection(listening: Listening) -> None:
    """Hundreds of short connections reuse the same numbers; every one is heard and ended once."""
    for number in range(300):
        peer = listening.connect()
        peer.send(b"%d" % number)
        peer.close()
        if number % 20 == 0:
            await pause()
    await until(lambda: len(listening.built) == 300 and all(one.ends for one in listening.built))
    assert [one.received for one in listening.built] == [b"%d" % number for number in range(300)]
    assert all(len(one.ends) == 1 for one in listening.built)


@pytest_twisted.ensureDeferred
async def test_after_the_last_connection_of_a_closed_port_nothing_is_left() -> None:
    """The descriptor that watches the connections outlives the port, not the connections."""
    made = Listening()
    peer = made.connect()
    await until(lambda: bool(made.built))
    made.port.stopListening()
    await pause()
    peer.send(b"still here")
    await until(lambda: made.built[0].received == b"still here")
    poller = made.port.poller
    peer.close()
    await until(lambda: bool(made.built[0].ends))
    assert poller._epoll.closed
    assert poller not in reactor.getReaders()


@pytest_twisted.ensureDeferred
async def test_an_error_at_the_end_of_one_connection_harms_no_other(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged; all others go on, and new ones are heard."""
    other = listening.connect()
    other.send(b"a")
    await until(lambda: bool(listening.built and listening.built[0].received))
    failing = listening.connect()
    failing.send(b"b")
    await until(lambda: len(listening.built) == 2 and bool(listening.built[1].received))
    told = listening.built[1].connectionLost

    def fail(reason: Failure = connectionDone) -> None:
        told(reason)
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(listening.built[1], "connectionLost", fail)
    failing.close()
    await until(lambda: bool(listening.built[1].ends))
    await pause()
    assert not listening.built[0].ends
    other.send(b"c")
    await until(lambda: listening.built[0].received == b"ac")
    late = listening.connect()
    late.send(b"d")
    await until(lambda: len(listening.built) == 3 and listening.built[2].received == b"d")
    for peer in (other, late):
        peer.close()


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_behind_accepts_few(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a turn has more events than it may handle, peers wait in the system's queue; then all are served."""
    if not hasattr(listening.port, "poller"):
        pytest.skip("only with epoll")
    monkeypatch.setattr(tcp, "ACCEPTS_WHEN_BEHIND", 2)
    listening.port.poller.is_behind = True
    clients = [listening.connect() for _ in range(20)]
    listening.port.doRead()
    assert len(listening.built) == 2
    await until(lambda: len(listening.built) == 20)
    assert listening.port.numberAccepts <= tcp.MAX_ACCEPTS
    for client in clients:
        client.close()


def test_a_storm_without_descriptors_does_not_fill_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few lines in ten seconds, and then one that says how many were left out."""
    now_s = 100.0
    heard: list[str] = []
    monkeypatch.setattr(tcp.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(tcp, "globalLogPublisher", lambda event: heard.append(event["log_format"]))
    monkeypatch.setattr(tcp.log, "observer", lambda event: heard.append(f"left out: {event['left_out']}"))
    turned_away = tcp.TurnedAway()
    for _ in range(1_000):
        turned_away({"log_format": "EMFILE"})
    now_s += 11
    turned_away({"log_format": "EMFILE"})
    assert heard == ["EMFILE"] * tcp.MAX_LINES + [f"left out: {1_000 - tcp.MAX_LINES}", "EMFILE"]
