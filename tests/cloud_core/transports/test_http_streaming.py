"""Answers of any length: as fast as they are read, and cut where they end too soon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloud_core.transports.http.streaming import send_pieces
from shared.errors import Unavailable

Pieces = Callable[[], AsyncIterator[bytes]]


class Request:
    """As much of Twisted's as a sender uses. `full_at`: after so many pieces the client reads no more."""

    def __init__(self, full_at: int = 99) -> None:
        self.sent: list[bytes] = []
        self.is_cut = False
        self.producer: Any = None
        self.channel: object | None = object()
        self._full_at = full_at

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, piece: bytes) -> None:
        self.sent.append(piece)
        if len(self.sent) == self._full_at:
            self.producer.pauseProducing()

    def loseConnection(self) -> None:
        self.is_cut = True


def pieces(*made: bytes | Exception) -> Pieces:
    async def all_of_them() -> AsyncIterator[bytes]:
        for one in made:
            if isinstance(one, Exception):
                raise one
            yield one

    return all_of_them


def sending(request: Request, made: Pieces) -> Deferred[None]:
    return Deferred.fromCoroutine(send_pieces(request, made()))


def test_a_client_that_reads_slowly_holds_it_up() -> None:
    """The next piece is made when the connection has taken the one before."""
    request = Request(full_at=1)
    running = sending(request, pieces(b"a", b"b"))
    assert request.sent == [b"a"] and not running.called
    request.producer.resumeProducing()
    assert request.sent == [b"a", b"b"] and running.called and request.producer is None


def test_a_refusal_before_the_first_piece_is_an_answer() -> None:
    """It goes to whoever answers refusals, and the connection stays."""
    request = Request()
    with pytest.raises(Unavailable):
        raised(sending(request, pieces(Unavailable("busy"))))
    assert request.sent == [] and not request.is_cut and request.producer is None


@pytest.mark.parametrize("fault", [Unavailable("busy"), ValueError("a fault of ours")])
def test_what_fails_on_the_way_cuts_the_connection(fault: Exception) -> None:
    """Nobody takes a part for the whole, and no error page is written behind it."""
    request = Request()
    running = sending(request, pieces(b"a", fault))
    assert request.is_cut and request.sent == [b"a"] and not running.called
    running.addErrback(lambda _: None)
    running.cancel()  # as klein does, once the connection is gone
    assert running.called


def raised(running: Deferred[None]) -> None:
    found: list[Failure] = []
    running.addErrback(found.append)
    found[0].raiseException()
