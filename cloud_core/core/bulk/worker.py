"""Goes on with imports that are under way, piece by piece, also with those that a restart has interrupted.

Where several nodes share the database one of them has a batch at a time, by a lease that each piece renews in its own
transaction; the others look at its end. The batch's row is locked by each piece, so that none is ever applied twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloud_core.core.asking import Asking
from cloud_core.core.bulk.applying import Piece, apply_piece, discard_piece, undo_piece
from cloud_core.core.bulk.pace import Pace
from cloud_core.storage.interface import ReadTx, Store, Tx
from cloud_core.storage.interface.batches import Batch, BatchState
from shared.errors import NotFound, PlatformError, Unavailable

log = Logger()
LEASE_S = 20.0  # a piece takes some milliseconds
HELD_ELSEWHERE_S = 2.0  # then its end is looked for again, where somebody waits for it here
_WORK = {
    BatchState.APPLYING: apply_piece,
    BatchState.UNDOING: undo_piece,
    BatchState.DISCARDED: discard_piece,
}


class ImportWorker(Asking):
    """One batch after another. One that fails is left for the next run; maintenance wakes it every minute."""

    def __init__(
        self, *, store: Store, now_ms: Callable[[], int], tell: Callable[[Piece], None],
        call_later: Callable[..., object],
    ) -> None:  # fmt: skip
        super().__init__(store)
        self._now_ms = now_ms
        self._tell = tell
        self._call_later = call_later
        self._is_running = self._is_woken = self._is_stopped = self._is_to_wake = False
        self._waiting: dict[UUID, list[Deferred[Batch | PlatformError]]] = {}
        self._numbers: dict[UUID, int] = {}  # of those that are waited for

    def wake(self) -> None:
        """Looks for work, unless it is at work anyway."""
        self._is_woken = True
        if not self._is_running and not self._is_stopped:
            self._is_running = True
            Deferred.fromCoroutine(self._run()).addErrback(lambda failure: log.failure("Imports have failed", failure))

    def stop(self) -> None:
        """After the piece under way; what is left is gone on with at the next start."""
        self._is_stopped = True
        self._answer_all(Unavailable("The core is stopping; the import goes on at its next start"))

    async def ended(self, batch: Batch) -> Batch:
        """The batch, when nothing is left to do for it. Raises: PlatformError where that cannot be said now."""
        waiting: Deferred[Batch | PlatformError] = Deferred()
        self._waiting.setdefault(batch.uuid, []).append(waiting)
        self._numbers[batch.uuid] = batch.id
        self.wake()
        outcome = await waiting
        if isinstance(outcome, PlatformError):
            raise outcome
        return outcome

    async def _run(self) -> None:
        try:
            while self._is_woken and not self._is_stopped:
                self._is_woken = False
                under_way = await self._decide(_under_way)
                for batch in under_way:
                    await self._try(batch)
                await self._answer_ended({batch.uuid for batch in under_way})
        except PlatformError as error:
            log.error("Imports wait for the next try in a minute: {error}", error=str(error))
            self._answer_all(error)
        finally:
            self._is_running = False

    async def _try(self, batch: Batch) -> None:
        """What is wrong with one, maybe for good, keeps no other waiting."""
        try:
            await self._go_through(batch)
        except PlatformError as error:
            log.error(
                "The import {uuid} waits for the next try in a minute: {error}", uuid=str(batch.uuid), error=str(error)
            )
            self._answer(batch.uuid, error)
        except Exception:
            log.failure("The import {uuid} waits for the next try in a minute", uuid=str(batch.uuid))
            self._answer(batch.uuid, Unavailable("The import goes on in a minute", retry_after_s=60.0))

    async def _answer_ended(self, under_way: set[UUID]) -> None:
        """What another node has ended, somebody may wait for here."""
        for uuid in [uuid for uuid in self._waiting if uuid not in under_way]:
            self._answer(uuid, await self._decide(_as_it_is, self._numbers[uuid]))

    def _look_again(self, uuid: UUID) -> None:
        """Another node has the batch: it ends there, or with its node."""
        if not self._is_to_wake:
            self._is_to_wake = True
            self._call_later(HELD_ELSEWHERE_S if uuid in self._waiting else LEASE_S, self._wake_again)

    def _wake_again(self) -> None:
        self._is_to_wake = False
        self.wake()

    async def _go_through(self, batch: Batch) -> None:
        pace = Pace()
        while not self._is_stopped:
            (is_ours, piece), seconds = await self._decide(_timed, batch.state, batch.id, self._now_ms(), pace.rows)
            if not is_ours:
                self._look_again(batch.uuid)
                return
            pace.took(seconds)
            if piece is None:  # somebody else has ended it
                self._answer(batch.uuid, await self._decide(_as_it_is, batch.id))
                return
            self._tell(piece)
            if piece.is_ended:
                self._answer(batch.uuid, piece.batch)
                return

    def _answer(self, uuid: UUID, outcome: Batch | PlatformError | None) -> None:
        """To those who wait; None for a batch that is gone."""
        if outcome is None or (isinstance(outcome, Batch) and outcome.state is BatchState.DISCARDED):
            outcome = NotFound(f"Import with id [{uuid}] is not found")
        self._numbers.pop(uuid, None)
        for waiting in self._waiting.pop(uuid, ()):
            waiting.callback(outcome)

    def _answer_all(self, error: PlatformError) -> None:
        waiting, self._waiting = self._waiting, {}
        for one in (one for all_of_batch in waiting.values() for one in all_of_batch):
            one.callback(error)


def _piece(tx: Tx, state: BatchState, batch_id: int, now_ms: int, rows: int) -> tuple[bool, Piece | None]:
    """Whether this node has the batch, and what was done to it."""
    lease = f"import {batch_id}"
    if not tx.take_lease(lease, now_ms=now_ms, for_ms=int(LEASE_S * 1000)):
        return False, None
    piece = _WORK[state](tx, batch_id, now_ms, rows)
    if piece is None or piece.is_ended:
        tx.release_lease(lease)
    return True, piece


def _timed(tx: Tx, state: BatchState, batch_id: int, now_ms: int, rows: int) -> tuple[tuple[bool, Piece | None], float]:
    """A piece of work, and for how many seconds it occupied the writer."""
    began_s = time.perf_counter()
    return _piece(tx, state, batch_id, now_ms, rows), time.perf_counter() - began_s


def _under_way(tx: ReadTx) -> list[Batch]:
    return tx.batches_under_way()


def _as_it_is(tx: Tx, batch_id: int) -> Batch | None:
    return tx.lock_batch(batch_id)
