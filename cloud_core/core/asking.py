"""Coroutines over callbacks: how the operators' side asks the store and the device API."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloud_core.core.people.audit import Audit, Deed, Who
from cloud_core.storage.interface import Store
from shared.errors import PlatformError

log = Logger()
R = TypeVar("R")
P = ParamSpec("P")


async def answered(start: Callable[[Callable[[Any], None]], None]) -> Any:  # Any: whatever the work returns
    """The result of something that answers through `done`; a refusal is raised."""
    deferred: Deferred[Any] = Deferred()
    start(deferred.callback)
    outcome = await deferred
    if isinstance(outcome, PlatformError):
        raise outcome
    return outcome


def to_the_end(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Of a decision with effects beside the database: sessions that end, caches, logins, work that begins.

    It has all of them, though its caller is gone before it is answered and its call is cancelled: what is decided may
    be on disk by then.
    """

    @wraps(method)
    async def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return await _apart(Deferred.fromCoroutine(method(*args, **kwargs)))

    return called


def _apart(running: Deferred[R]) -> Deferred[R]:
    """Its result; cancelling this leaves `running` alone."""
    told: Deferred[R] = Deferred()

    def ended(result: R | Failure) -> None:
        if not told.called:
            told.callback(result)
        elif isinstance(result, Failure) and not result.check(PlatformError):
            log.failure("What a caller that is gone had decided failed", failure=result)

    running.addBoth(ended)
    return told


class Asking:
    """Base of what asks the store in coroutines."""

    def __init__(self, store: Store, audit: Audit | None = None) -> None:
        self._store = store
        self._audit = audit or Audit(store)

    async def _decide(self, work: Callable[..., R], *args: Any) -> R:
        result: R = await answered(lambda done: self._store.submit(work, args, done))
        return result

    async def _decide_by(self, operator: Who, deed: Deed, work: Callable[..., R], *args: Any) -> R:
        """As `_decide`, recorded in the audit."""
        result: R = await answered(lambda done: self._audit.submit(operator, deed, work, args, done))
        return result

    async def _read(self, query: Callable[..., R], *args: Any) -> R:
        result: R = await answered(lambda done: self._store.survey(query, args, done))
        return result
