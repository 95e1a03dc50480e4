"""What one node does for all."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from cloud_core.storage.interface import Store, Tx
from shared.errors import PlatformError

log = Logger()
MAINTENANCE = "maintenance"


class Leases:
    """Whose turn it is. A node that is alone always has it, and asks nobody.

    Leases end by the wall clock: nodes whose clocks differ by more than a lease's length may do the same work twice,
    so nothing that would suffer from it relies on a lease alone.
    """

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    def having(self, name: str, for_s: float, work: Callable[[], None]) -> None:
        """Runs `work` where this node has the lease, or can have it: then for so long from now."""
        if self._store.node is None:
            work()
            return

        def taken(outcome: bool | PlatformError) -> None:
            if outcome is True:
                work()
            elif isinstance(outcome, PlatformError):
                log.warn("Whose turn it is ({name}) is not known: {error}", name=name, error=str(outcome))

        self._store.submit(_take, (name, self._now_ms(), int(for_s * 1000)), taken)

    def release(self) -> None:
        """This node stops: others need not wait for the end of what it has."""
        if self._store.node is not None:
            self._store.submit(_release, (), _released)


def _take(tx: Tx, name: str, now_ms: int, for_ms: int) -> bool:
    return tx.take_lease(name, now_ms=now_ms, for_ms=for_ms)


def _release(tx: Tx) -> None:
    tx.release_leases()


def _released(_outcome: object) -> None:
    """They end by themselves where it failed, which the store has logged."""
