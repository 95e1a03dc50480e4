"""Threads that run storage work in batches and answer each batch in one hop to the reactor.

`WriterLane` is group commit: the next batch is whatever arrived while the last one was being
committed. `ReaderLane` runs look-ups the same way on its own connection. Nothing else in the
program knows about threads.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from cloud_core.measures import Histogram
from cloud_core.model import Change
from cloud_core.storage.reading import SqlReadTx
from cloud_core.storage.sql import OutcomeUnknown, SqlTx
from shared.errors import PlatformError, Unavailable

MAX_DECISIONS_PER_COMMIT = 500
MAX_ROWS_PER_COMMIT = 5_000
LINGER_S = 0.001
COMMIT_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
BATCH_BOUNDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000)  # units: decisions and appended messages

# (work, args, done): a decision; (None, (device_id, samples), done): samples to append.
Unit = tuple[Callable[..., Any] | None, tuple[Any, ...], Callable[[Any], None]]
Answer = tuple[Callable[[Any], None], Any]
RETRY_AFTER_FAILURE_S = 5.0
REOPEN_EVERY_S = 1.0  # while the database is away; opening a connection can take long to fail

log = Logger()


# SQLSTATE: unique violation, serialization failure, deadlock (PostgreSQL appendix A).
_LOST_RACES = ("23505", "40001", "40P01")


def lost_a_race(error: Exception) -> bool:
    """Whether somebody else's transaction came first; on SQLite that can only be another process."""
    return isinstance(error, sqlite3.IntegrityError) or getattr(error, "sqlstate", None) in _LOST_RACES


def _why(error: Exception) -> str:
    """In one line; it comes every second while a database is away."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class CallInReactor(Protocol):
    """`reactor.callFromThread`."""

    def __call__(self, f: Callable[..., Any], *args: Any) -> None: ...


class Lane:
    """A thread with a queue; subclasses say how a batch is run."""

    def __init__(self, name: str, deliver: Callable[[list[Answer]], None], call_in_reactor: CallInReactor) -> None:
        self._queue: deque[Unit] = deque()
        self._wake = threading.Event()
        self._is_stopping = False
        self._last_batch = 0
        self._deliver = deliver
        self._call_in_reactor = call_in_reactor
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Runs what is queued, then ends the thread."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join()

    def put(self, unit: Unit) -> None:
        """Never blocks; the bound is the store's business."""
        self._queue.append(unit)
        if not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        self._open()
        while True:
            self._wake.wait()
            self._wake.clear()  # before looking into the queue, so that no wake-up is lost
            while self._queue:
                self._linger()
                batch = self._take()
                self._last_batch = len(batch)
                self._hand_over(self._run_batch(batch))
                self._batch_done()
            if self._is_stopping:
                break
        self._close()

    def _hand_over(self, answers: list[Answer]) -> None:
        self._call_in_reactor(self._deliver, answers)

    def _linger(self) -> None:
        """Hook: wait a moment for more units before a batch is taken."""

    def _batch_done(self) -> None:
        """Hook: the answers of a batch are on their way."""

    def _take(self) -> list[Unit]:
        batch: list[Unit] = []
        decisions = rows = 0
        while self._queue and decisions < MAX_DECISIONS_PER_COMMIT and rows < MAX_ROWS_PER_COMMIT:
            unit = self._queue.popleft()
            batch.append(unit)
            if unit[0] is None:
                rows += len(unit[1][1])
            else:
                decisions += 1
        return batch

    def _open(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _run_batch(self, batch: list[Unit]) -> list[Answer]:
        raise NotImplementedError


class WriterLane(Lane):
    """One transaction for each batch; when it fails, each unit again in a transaction of its own."""

    def __init__(
        self, open_tx: Callable[[], SqlTx], *, after_commit: Callable[[SqlTx], None],
        deliver_changes: Callable[[list[Answer], list[Change]], None], say_unknown: Callable[[int], None], **lane: Any,
    ) -> None:  # fmt: skip
        super().__init__("storage-writer", **lane)
        self._deliver_changes = deliver_changes
        self._say_unknown = say_unknown
        self._unknown_ms: int | None = None  # since then nobody can say what is on disk
        self._open_tx = open_tx
        self._after_commit = after_commit
        self._tx: SqlTx | None = None  # while the database is away
        self._is_served = False  # whether the last unit was committed
        self._reopen_at_s = 0.0  # not before; monotonic
        self.commit_s = Histogram(COMMIT_BOUNDS_S)
        self.batch_units = Histogram(BATCH_BOUNDS)
        self.replays = 0  # batches that failed as a whole
        self.failures = 0  # units that failed otherwise than by a refusal
        self.failed_at_s = float("-inf")  # the last of them, or of opening the database; monotonic

    def _open(self) -> None:
        self._is_connected()

    def _close(self) -> None:
        if self._tx is not None:
            self._tx.close()

    def _is_connected(self) -> bool:
        """Whether there is a connection; opens one where there is none, but not too often."""
        if self._tx is None and time.monotonic() >= self._reopen_at_s:
            try:
                self._tx = self._open_tx()
            except Exception as error:  # whatever the driver says: the database is away
                log.error("The database cannot be reached; tried again in a moment: {why}", why=_why(error))
                self.failed_at_s = time.monotonic()
                self._reopen_at_s = self.failed_at_s + REOPEN_EVERY_S
        return self._tx is not None

    def _linger(self) -> None:
        """Under load, lets a batch grow to at least half of the last one, for LINGER_S at the most.

        The answers of a batch go out together, so the next requests come in a burst; without this
        the first of them is committed alone while all others wait behind it.
        """
        if not self._is_stopping and len(self._queue) * 2 < self._last_batch:
            time.sleep(LINGER_S)

    def _hand_over(self, answers: list[Answer]) -> None:
        changes = self._tx.take_committed() if self._tx is not None else []
        if changes:
            self._call_in_reactor(self._deliver_changes, answers, changes)
        else:
            super()._hand_over(answers)

    def _batch_done(self) -> None:
        if self._tx is None:
            return
        if self._unknown_ms is not None and self._is_served:
            since_ms, self._unknown_ms = self._unknown_ms, None
            self._call_in_reactor(self._say_unknown, since_ms)
        try:
            self._after_commit(self._tx)
        except Exception:  # what was committed stays so, and the next batch must not wait for ever
            log.failure("What follows a commit failed")

    def _run_batch(self, batch: list[Unit]) -> list[Answer]:
        self._is_served = False
        if not self._is_connected():
            return [(done, Unavailable(retry_after_s=RETRY_AFTER_FAILURE_S)) for _, _, done in batch]
        try:
            return self._commit_together(batch)
        except OutcomeUnknown as error:  # who asks again is judged by what is there then
            refusal = self._failed(error)
            return [(done, refusal) for _, _, done in batch]
        except Exception as error:  # whatever it was, the replay finds the unit that causes it
            if len(batch) == 1:
                return self._run_again(batch, error)
            self.replays += 1
            self._recover()
            log.debug("A batch of {count} units is replayed: {error}", count=len(batch), error=error)
            return [answer for unit in batch for answer in self._run_batch([unit])]

    def _run_again(self, unit: list[Unit], error: Exception) -> list[Answer]:
        """A unit that lost a race with another node sees, the second time, what the other has done: a clear refusal."""
        if not lost_a_race(error):
            return [(unit[0][2], self._failed(error))]
        self._recover()
        if not self._is_connected():
            return [(unit[0][2], self._failed(error))]
        try:
            return self._commit_together(unit)
        except Exception as again:
            return [(unit[0][2], self._failed(again))]

    def _commit_together(self, batch: list[Unit]) -> list[Answer]:
        tx = self._tx
        assert tx is not None, "asked before by `_is_connected`"
        tx.begin()
        tx.foresee(batch)
        answers: list[Answer] = []
        for work, args, done in batch:
            if work is None:
                tx.append_samples(*args)
                answers.append((done, None))
            else:
                answers.append((done, self._decide(tx, work, args)))
        began_s = time.perf_counter()
        try:
            tx.commit()
        except OutcomeUnknown:
            if self._unknown_ms is None:
                self._unknown_ms = int(time.time() * 1000)
            raise
        self._is_served = True
        self.commit_s.observe(time.perf_counter() - began_s)
        self.batch_units.observe(len(batch))
        return answers

    def _decide(self, tx: SqlTx, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        writes_before = tx.writes
        try:
            return work(tx, *args)
        except PlatformError as refusal:
            if tx.writes != writes_before:
                raise  # it wrote before it refused: only a rollback of its own undoes that
            return refusal

    def _failed(self, error: Exception) -> PlatformError:
        self._recover()
        if isinstance(error, PlatformError):
            return error
        self.failures += 1
        self.failed_at_s = time.monotonic()
        log.failure("A storage unit failed")
        return Unavailable(retry_after_s=RETRY_AFTER_FAILURE_S)

    def _recover(self) -> None:
        if self._tx is None:
            return
        try:
            self._tx.rollback()
        except Exception:  # the connection itself is gone: the next batch opens another
            log.failure("The writing connection is lost; opening another")
            lost, self._tx = self._tx, None
            with contextlib.suppress(Exception):  # it is gone already
                lost.close()


class ReaderLane(Lane):
    """Look-ups on a connection of its own."""

    def __init__(self, open_tx: Callable[[], SqlReadTx], **lane: Any) -> None:
        super().__init__(**lane)
        self._open_tx = open_tx
        self._tx: SqlReadTx | None = None
        self._reopen_at_s = 0.0  # not before; monotonic

    def _open(self) -> None:
        """The first look-up opens the connection, so that somebody hears of a failure."""

    def _close(self) -> None:
        if self._tx is not None:
            self._tx.close()

    def _run_batch(self, batch: list[Unit]) -> list[Answer]:
        return [(done, self._look_up(query, args)) for query, args, done in batch]

    def _look_up(self, query: Callable[..., Any] | None, args: tuple[Any, ...]) -> Any:
        assert query is not None, "samples go to the writer"
        tx = self._connected()
        if tx is None:
            return Unavailable(retry_after_s=RETRY_AFTER_FAILURE_S)
        try:
            return tx.reading(query, args)
        except PlatformError as refusal:
            return refusal
        except Exception:
            return self._broken(tx)

    def _connected(self) -> SqlReadTx | None:
        """Opens a connection where there is none, but not for each of the look-ups that wait meanwhile."""
        if self._tx is None and time.monotonic() >= self._reopen_at_s:
            try:
                self._tx = self._open_tx()
            except Exception as error:
                log.error("No look-ups: the database cannot be reached; tried again: {why}", why=_why(error))
                self._reopen_at_s = time.monotonic() + REOPEN_EVERY_S
        return self._tx

    def _broken(self, tx: SqlReadTx) -> Unavailable:
        """After a look-up that failed otherwise than by a refusal: the next one has a new connection."""
        log.failure("A look-up failed")
        self._tx = None
        with contextlib.suppress(Exception):  # it may be gone already
            tx.close()
        return Unavailable(retry_after_s=RETRY_AFTER_FAILURE_S)


class JoinedReaderLane(ReaderLane):
    """Look-ups that were asked at the same time see one state of the database, and what is alike is asked together."""

    def _run_batch(self, batch: list[Unit]) -> list[Answer]:
        tx = self._connected()
        if tx is None or len(batch) == 1:
            return super()._run_batch(batch)
        try:
            tx.begin_reading()
            tx.foresee(batch)
            answers = [(done, self._answer(tx, query, args)) for query, args, done in batch]
            tx.end_reading()
        except Exception:  # whichever caused it fails alone
            self._broken(tx)
            return super()._run_batch(batch)
        return answers

    def _answer(self, tx: SqlReadTx, query: Callable[..., Any] | None, args: tuple[Any, ...]) -> Any:
        assert query is not None, "samples go to the writer"
        try:
            return query(tx, *args)
        except PlatformError as refusal:
            return refusal
