"""Coroutines over callbacks: how the operators' side asks the store and the device API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from cloud_core.core.people.audit import Audit, Deed, Who
from cloud_core.storage.interface import Store
from shared.errors import PlatformError

R = TypeVar("R")


async def answered(start: Callable[[Callable[[Any], None]], None]) -> Any:  # Any: whatever the work returns
    """The result of something that answers through `done`; a refusal is raised."""
    deferred: Deferred[Any] = Deferred()
    start(deferred.callback)
    outcome = await deferred
    if isinstance(outcome, PlatformError):
        raise outcome
    return outcome


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
