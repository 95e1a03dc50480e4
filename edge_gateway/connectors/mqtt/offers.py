"""Messages of one source on their way into the gateway: in order, and settled in order.

One batch is with the gateway at a time; what comes meanwhile is the next one. So a batch that is refused for now can
be offered again without anything having overtaken it. A batch that is refused for good is offered again one by one:
only the messages that are at fault are refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_gateway.connectors.interface import Site
from edge_gateway.model import Reading, Refusal

MAX_BATCH_READINGS = 500


@dataclass(slots=True)
class Offer:
    """One message: what it says, or without readings the reason code that it is answered with (0: success)."""

    message: Any  # the source's own: a PUBLISH
    readings: Sequence[Reading] = ()
    reason: int = 0


Settled = Callable[[list[Offer], Refusal | None], None]
"""All on disk (None), or refused: for good, or (only after `abandon`) for now."""


class Offers:
    """See the module. `add`, then `push` when a read is over."""

    __slots__ = ("_is_abandoned", "_is_pushing", "_loop", "_out", "_settled", "_single", "_site", "_timer", "_waiting")

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop, settled: Settled) -> None:
        self._site = site
        self._loop = loop
        self._settled = settled
        self._waiting: deque[Offer] | None = None  # None when empty: most sources are quiet most of the time
        self._out: list[Offer] | None = None
        self._single = 0  # so many of the next messages go alone
        self._timer: asyncio.TimerHandle | None = None
        self._is_pushing = False
        self._is_abandoned = False

    @property
    def count(self) -> int:
        """Messages that are not settled."""
        return len(self._waiting or ()) + len(self._out or ())

    @property
    def is_refused(self) -> bool:
        """Whether the gateway has no room for now: the source should not be read."""
        return self._timer is not None

    def add(self, offer: Offer) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(offer)

    def push(self) -> None:
        """Offers what waits, unless something is with the gateway already."""
        if self._is_pushing:
            return
        self._is_pushing = True
        try:
            while self._waiting and self._out is None and self._timer is None:
                self._push_next(self._waiting)
        finally:
            self._is_pushing = False
        if not self._waiting:
            self._waiting = None

    def abandon(self, is_kept: Callable[[Any], bool] | None = None) -> None:
        """The source is gone: what it sent is offered once more, and not kept if it is refused. Messages that are
        not with the gateway yet and that `is_kept` denies are dropped: the source sends them again."""
        self._is_abandoned = True
        if is_kept is not None and self._waiting is not None:
            self._waiting = deque(offer for offer in self._waiting if is_kept(offer.message))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.push()

    def _push_next(self, waiting: deque[Offer]) -> None:
        if not waiting[0].readings:
            answered = [waiting.popleft()]
            while waiting and not waiting[0].readings:
                answered.append(waiting.popleft())
            self._settled(answered, None)
            return
        batch = [waiting.popleft()]
        readings = batch[0].readings
        if not self._single and waiting and waiting[0].readings:
            readings = list(readings)
            while waiting and waiting[0].readings and len(readings) < MAX_BATCH_READINGS:
                batch.append(waiting.popleft())
                readings += batch[-1].readings
        self._out = batch
        self._site.accept(readings, self._done)

    def _done(self, refusal: Refusal | None) -> None:
        batch, self._out = self._out or [], None
        if refusal is not None and not self._is_last_word(batch, refusal):
            if self._waiting is None:
                self._waiting = deque()
            self._waiting.extendleft(reversed(batch))
            if refusal.retry_after_s is None:
                self._single = len(batch)
            else:
                self._timer = self._loop.call_later(refusal.retry_after_s, self._again)
        else:
            self._single = max(0, self._single - 1)
            self._settled(batch, refusal)
        self.push()

    def _is_last_word(self, batch: list[Offer], refusal: Refusal) -> bool:
        return self._is_abandoned if refusal.retry_after_s is not None else len(batch) == 1

    def _again(self) -> None:
        self._timer = None
        self.push()
