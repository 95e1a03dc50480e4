"""Files that are made while they are sent: one piece in memory, at the pace at which the browser takes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred


class Sender:
    """A push producer."""

    def __init__(self) -> None:
        self.is_gone = False
        self._room: Deferred[None] | None = None  # while the browser takes nothing

    def pauseProducing(self) -> None:
        if self._room is None:
            self._room = Deferred()

    def resumeProducing(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.is_gone = True
        self.resumeProducing()

    async def room(self) -> None:
        if self._room is not None:
            await self._room


async def send_pieces(request: Any, pieces: AsyncIterator[bytes]) -> None:  # Any: as in `calls`
    """Writes them all; ends early where the browser has gone. A failure on the way ends the connection unfinished, so
    that nobody takes a part for the whole."""
    sender = Sender()
    request.notifyFinish().addBoth(lambda _: sender.stopProducing())
    request.registerProducer(sender, True)
    try:
        async for piece in pieces:
            await sender.room()
            if sender.is_gone:
                return
            request.write(piece)
    except Exception:
        request.unregisterProducer()
        request.loseConnection()
        raise
    request.unregisterProducer()
