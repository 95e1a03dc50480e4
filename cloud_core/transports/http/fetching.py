"""What every call of ours to somebody else's HTTP server needs: a body at once, an answer up to a bound, a reason."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss


class AnswerRefused(Exception):
    """The server's answer is none that is wanted; `str()` is the reason, without any address."""


class WholeBody:
    """A request's body, written at once: twisted's IBodyProducer, in as much as `Agent` asks for it."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is written already."""

    def resumeProducing(self) -> None:
        """It is written already."""

    def stopProducing(self) -> None:
        """It is written already."""


class _Body(Protocol):
    """Gathers an answer's body, up to the bound."""

    transport: Any  # twisted's TransportProxyProducer

    def __init__(self, done: Deferred[bytes], max_bytes: int) -> None:
        self._done = done
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._max_bytes:
            self._parts.append(data)
        elif not self._done.called:
            self._done.errback(AnswerRefused(f"its answer is above {self._max_bytes} bytes"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self._done.callback(b"".join(self._parts))
        else:
            self._done.errback(reason)


def body_of(response: Any, max_bytes: int) -> Deferred[bytes]:
    """The body of `Agent`'s response; cancelling it ends the connection. Fails by AnswerRefused or twisted's errors."""
    gathered: Deferred[bytes] = Deferred(lambda _: receiver.transport.loseConnection())
    receiver = _Body(gathered, max_bytes)
    response.deliverBody(receiver)
    return gathered


def reason_of(failure: Failure) -> str:
    """In words that name no address."""
    if failure.check(CancelledError):
        return "no answer in time"
    if failure.check(AnswerRefused):
        return failure.getErrorMessage()
    return failure.type.__name__ if failure.type else "unknown"
