"""The uplink when something in paho fails in a way that nobody foresaw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from edge_gateway.model import Credentials
from edge_gateway.settings import Core
from edge_gateway.uplink.interface import Ended
from edge_gateway.uplink.paho import PahoUplink


class Reactor(Clock):  # type: ignore[misc]  # untyped in Twisted
    """One without sockets."""

    def callFromThread(self, work: Callable[..., Any], *args: Any) -> None:
        work(*args)

    def addReader(self, reader: object) -> None:
        """Nothing comes."""

    removeReader = addWriter = removeWriter = addReader


class Listener:
    """Who hears of the end."""

    def __init__(self) -> None:
        self.ends: list[tuple[Ended, str]] = []

    def connected(self, *, max_packet_bytes: int, receive_maximum: int) -> None:
        raise AssertionError

    def received(self, topic: str, payload: bytes) -> None:
        raise AssertionError

    def ended(self, why: Ended, text: str) -> None:
        self.ends.append((why, text))


def uplink(reactor: Reactor) -> tuple[PahoUplink, Listener]:
    made = PahoUplink(
        core=Core(url="mqtt://127.0.0.1:1"),
        credentials=Credentials(kind="ACCESS_TOKEN", token="t0ken"),
        version="5",
        reactor=reactor,
    )
    listener = Listener()
    made._events = listener
    return made, listener


def test_whatever_fails_while_it_connects_ends_the_attempt() -> None:
    """Otherwise the gateway would wait for it for ever."""
    made, listener = uplink(Reactor())

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    made._client.connect = fail
    made._connect()
    assert [why for why, _ in listener.ends] == [Ended.UNREACHABLE]
    assert "a mistake" in listener.ends[0][1] and "t0ken" not in listener.ends[0][1]


def test_a_failure_of_the_housekeeping_ends_the_connection() -> None:
    """Without it nobody would notice a dead core."""
    reactor = Reactor()
    made, listener = uplink(reactor)

    def fail() -> None:
        raise RuntimeError("a mistake")

    made._client.socket = lambda: object()  # type: ignore[assignment, return-value]
    made._client.loop_misc = fail  # type: ignore[assignment]
    made._attach()
    made._socket = Socket()
    reactor.advance(1.0)
    assert [why for why, _ in listener.ends] == [Ended.LOST]
    made.close()
    reactor.advance(5.0)
    assert len(listener.ends) == 1 and reactor.getDelayedCalls() == []


class Socket:
    """Open until it is closed."""

    def close(self) -> None:
        """Closed."""
