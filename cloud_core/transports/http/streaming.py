"""Answers of any length, as fast as the client reads them: a piece in memory at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred
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
    body that ends too soon can say it. Raises: PlatformError while nothing has been sent.
    """
    flow = Outflow()
    is_begun = False
    request.registerProducer(flow, True)
    try:
        async for piece in pieces:
            is_begun = True
            request.write(piece)
            await flow.ready()
    except PlatformError as error:
        if not is_begun:
            raise
        log.warn("A download was not sent whole: {error}", error=str(error))
        request.loseConnection()
        await Deferred()  # klein cancels this once the connection is gone
    finally:
        if request.channel is not None:
            request.unregisterProducer()
