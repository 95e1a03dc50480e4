"""Answers that take long, kept for a while: whoever asks gets the last one at once, and one asks anew for all."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloud_core.core.people.logins import Operator
from shared.errors import PlatformError

log = Logger()
MAX_KEPT = 1_000  # tenants
COST = 50  # an answer is good for so many times what it took: one reader is busy with it 2 % of the time at most

T = TypeVar("T")


@dataclass(slots=True)
class _Place(Generic[T]):
    answer: T | None = None
    asked_ms: int = 0
    good_ms: int = 0  # so long after `asked_ms`
    is_asking: bool = False
    waiting: list[Deferred[None]] = field(default_factory=list)


class Remembered(Generic[T]):
    """The answer to one question for each tenant. `ask` answers for an operator's tenant.

    Within `ask`, `let_go` sends on those who wait for a first answer that takes too long to wait for.
    """

    def __init__(
        self, ask: Callable[[Operator], Coroutine[Any, Any, T]], *, now_ms: Callable[[], int], fresh_ms: int
    ) -> None:
        self._ask = ask
        self._now_ms = now_ms
        self._fresh_ms = fresh_ms
        self._places: dict[int, _Place[T]] = {}

    def known(self, operator: Operator) -> T | None:
        """The last answer; None where there is none yet. Asks anew where it is old."""
        place = self._place(operator)
        if not place.is_asking and not 0 <= self._now_ms() - place.asked_ms < place.good_ms:
            self._begin(operator, place)
        return place.answer

    async def first(self, operator: Operator) -> T | None:
        """As `known`; waits where there is no answer yet, but not for one that takes long."""
        answer, place = self.known(operator), self._place(operator)
        if answer is None:
            await self._end(place)
        return place.answer

    async def anew(self, operator: Operator) -> None:
        """What is known is over: something has changed it. Comes back with the new answer."""
        place = self._place(operator)
        await self._end(place)  # of a look that may have been before the change
        if not place.is_asking:
            self._begin(operator, place)
        await self._end(place)

    async def _end(self, place: _Place[T]) -> None:
        if place.is_asking:
            waits: Deferred[None] = Deferred()
            place.waiting.append(waits)
            await waits

    def let_go(self, operator: Operator) -> None:
        self._go_on(self._place(operator))

    def _place(self, operator: Operator) -> _Place[T]:
        place = self._places.get(operator.tenant_id)
        if place is None:
            if len(self._places) >= MAX_KEPT:
                del self._places[next(iter(self._places))]
            place = self._places[operator.tenant_id] = _Place()
        return place

    def _begin(self, operator: Operator, place: _Place[T]) -> None:
        place.is_asking = True
        place.asked_ms = self._now_ms()

        def answered(outcome: T | Failure) -> None:
            place.is_asking = False
            place.good_ms = max(self._fresh_ms, COST * (self._now_ms() - place.asked_ms))
            if not isinstance(outcome, Failure):
                place.answer = outcome
            elif not outcome.check(PlatformError):  # a busy store has told so itself; the next who looks asks again
                log.failure("What pages show could not be counted", failure=outcome)
            self._go_on(place)

        Deferred.fromCoroutine(self._ask(operator)).addBoth(answered)

    def _go_on(self, place: _Place[T]) -> None:
        waiting, place.waiting = place.waiting, []
        for one in waiting:
            one.callback(None)
