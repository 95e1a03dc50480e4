"""Answers of any length, as fast as the client reads them: a piece in memory at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from shared.errors import PlatformError

log = Logger()


class Outflow:
    """A push producer that says when the connection takes more."""

    def __init__(self) -> None:
        self._is_paused = False
        self._waiting: Deferred[None] | None = None

    async def ready(self) -> None:
        """A connection that is lost cancels whoever waits."""
        while self._is_paused:
            self._waiting = Deferred()
            await self._waiting

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:
        """The connection is gone: klein cancels the route."""


async def send_pieces(request: Any, pieces: AsyncIterator[bytes]) -> None:  # Any: as in `calls`
    """Sends all of them; the head of the answer must be set. What fails on the way cuts the connection, since only a
    body that ends too soon can say it. Raises: whatever fails while nothing has been sent.
    """
    flow = Outflow()
    is_begun = False
    request.registerProducer(flow, True)
    try:
        async for piece in pieces:
            is_begun = True
            request.write(piece)
            await flow.ready()
    except CancelledError:  # the client is gone
        raise
    except Exception as error:
        if not is_begun:
            raise
        await cut(request, error)
    finally:
        unregister(request)


async def cut(request: Any, error: Exception) -> None:
    """The head is out, and no error can be told: the body ends too soon. Never comes back."""
    if isinstance(error, PlatformError):
        log.warn("A download was not sent whole: {error}", error=str(error))
    else:
        log.failure("A download was not sent whole")
    request.loseConnection()
    await Deferred()  # klein cancels this once the connection is gone


def unregister(request: Any) -> None:
    if request.channel is not None:  # it is gone with the connection
        request.unregisterProducer()
