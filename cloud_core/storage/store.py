"""`SqlStore`: connections, first start, and the hand-over between reactor and lanes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine, create_engine, event
from twisted.logger import Logger

from cloud_core.measures import NONE, Family, counter, gauge, histogram, one
from cloud_core.model import DEFAULT_TENANT, Change
from cloud_core.storage import addresses, migrations
from cloud_core.storage.checkpoints import Checkpoints
from cloud_core.storage.documents import merge_documents
from cloud_core.storage.interface import Done
from cloud_core.storage.lanes import Answer, CallInReactor, JoinedReaderLane, ReaderLane, WriterLane
from cloud_core.storage.reading import SqlReadTx
from cloud_core.storage.sql import SqlTx
from cloud_core.storage.statements import SqliteCompiler, Statements
from cloud_core.storage.vault import Vault
from shared.errors import Unavailable
from shared.messages import Sample

if TYPE_CHECKING:
    from cloud_core.storage.postgresql_server import Watchdog

R = TypeVar("R")
log = Logger()

MAX_PENDING = 50_000  # units that wait for a commit; above it requests are answered `Unavailable`
CONGESTED_PENDING = 10_000  # above it transports stop reading until a delivery
FAILING_S = 10.0  # so long after a write that failed the store counts as failing
_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # acknowledged means durable (product.md section 3)
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=10000",
    "PRAGMA cache_size=-65536",  # 64 MiB
    "PRAGMA wal_autocheckpoint=0",  # `checkpoints.py` does it
    "PRAGMA temp_store=MEMORY",
)


def make_engine(url: str) -> Engine:
    """An engine whose raw connections the lanes use; `url` is `sqlite:///PATH` or `postgresql+psycopg://…`."""
    if not url.startswith("sqlite"):
        return create_engine(addresses.for_serving(url), paramstyle="format")
    engine = create_engine(url)
    engine.dialect.statement_compiler = SqliteCompiler

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:  # Any: SQLAlchemy internal
        connection.isolation_level = None  # the lanes say BEGIN themselves
        for pragma in _SQLITE_PRAGMAS:
            connection.execute(pragma)
        connection.create_function("merge_documents", 2, merge_documents, deterministic=True)

    return engine


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


class SqlStore:
    """The `Store` on SQLite or PostgreSQL."""

    def __init__(
        self, *, url: str, vault: Vault, call_in_reactor: CallInReactor, max_pending: int = MAX_PENDING,
        node: str | None = None,
    ) -> None:  # fmt: skip
        """`node`: this one's name, where several share the database."""
        self.node = node
        self._engine = make_engine(url)
        self._vault = vault
        self._statements = Statements(self._engine.dialect)
        self._max_pending = max_pending
        self._pending = 0
        self._pending_reads = 0
        self._is_open = False
        self._after_delivery: list[Callable[[], None]] = []
        self._on_changes: list[Callable[[list[Change]], None]] = []
        self._on_unknown: list[Callable[[int], None]] = []
        lane = {"deliver": self._deliver, "call_in_reactor": call_in_reactor}
        is_sqlite = self._engine.dialect.name == "sqlite"
        self._checkpoints = Checkpoints(self._connect) if is_sqlite else None
        self._watchdog = None if is_sqlite else _watchdog()
        self._writer = WriterLane(
            self._open_tx, after_commit=self._committed, deliver_changes=self._deliver_with_changes,
            say_unknown=self._say_unknown, **lane,
        )  # fmt: skip
        reader = {"deliver": self._deliver_reads, "call_in_reactor": call_in_reactor}
        joined = ReaderLane if is_sqlite else JoinedReaderLane
        self._reader = joined(self._open_read_tx, name="storage-reader", **reader)
        self._surveyor = ReaderLane(self._open_read_tx, name="storage-surveyor", **reader)

    def open(self) -> None:
        """Brings the schema up to date and starts the lanes; blocks, so call it before serving."""
        migrations.upgrade(self._engine)
        tx = self._open_tx()
        tx.begin()
        tx.insert_tenant(DEFAULT_TENANT, "default", now_ms=int(time.time() * 1000))
        tx.commit()
        tx.close()
        self._writer.start()
        self._reader.start()
        self._surveyor.start()
        if self._checkpoints is not None:
            self._checkpoints.start()
        if self._watchdog is not None:
            self._watchdog.start()
        self._is_open = True

    def close(self) -> None:
        """Commits what is queued, then closes; blocks until then."""
        if self._is_open:
            self._is_open = False
            self._writer.stop()
            self._reader.stop()
            self._surveyor.stop()
            if self._checkpoints is not None:
                self._checkpoints.stop()
            if self._watchdog is not None:
                self._watchdog.stop()
        self._engine.dispose()

    def submit(self, work: Callable[..., R], args: tuple[Any, ...], done: Done[R]) -> None:
        if self._pending >= self._max_pending:
            done(Unavailable(retry_after_s=1.0))
            return
        self._pending += 1
        self._writer.put((work, args, done))

    def append(self, device_id: int, samples: list[Sample], done: Done[None]) -> None:
        if self._pending >= self._max_pending:
            done(Unavailable(retry_after_s=1.0))
            return
        self._pending += 1
        self._writer.put((None, (device_id, samples), done))

    def append_all(self, rows: list[tuple[int, list[Sample]]], done: Done[None]) -> None:
        self.submit(_append_all, (rows,), done)

    def read(self, query: Callable[..., R], args: tuple[Any, ...], done: Done[R]) -> None:
        self._pending_reads += 1
        self._reader.put((query, args, done))

    def survey(self, query: Callable[..., R], args: tuple[Any, ...], done: Done[R]) -> None:
        self._surveyor.put((query, args, done))

    def digest(self, *parts: str) -> bytes:
        return self._vault.hash_id("".join([f"{len(part)}:{part}" for part in parts]))

    @property
    def is_congested(self) -> bool:
        return self._pending >= CONGESTED_PENDING or self._pending_reads >= CONGESTED_PENDING

    def families(self) -> list[Family]:
        """The numbers of the store, for `/metrics`."""
        writer, checkpoints = self._writer, self._checkpoints
        outcomes = [] if checkpoints is None else [("ok", checkpoints.completed), ("failed", checkpoints.failed)]
        return [
            gauge("store_queue_units", "Units that wait for a commit.", one(self._pending)),
            gauge("store_queue_limit_units", "Above it requests are refused.", one(self._max_pending)),
            gauge("store_look_ups_waiting", "Look-ups that wait.", one(self._pending_reads)),
            gauge("store_congested", "1 while transports do not read.", one(int(self.is_congested))),
            histogram("store_batch_units", "Decisions and messages in one commit.", [(NONE, writer.batch_units)]),
            histogram("store_commit_seconds", "Writing and syncing one batch.", [(NONE, writer.commit_s)]),
            counter("store_replayed_batches_total", "Batches run again one by one.", one(writer.replays)),
            counter("store_failures_total", "Units that the database failed.", one(writer.failures)),
            counter(
                "store_checkpoints_total",
                "Checkpoints of the write-ahead log.",
                [({"outcome": outcome}, count) for outcome, count in outcomes],
            ),
        ]

    @property
    def is_failing(self) -> bool:
        """Whether the database has just refused a write, or the queue is full."""
        is_recent = time.monotonic() - self._writer.failed_at_s < FAILING_S
        return is_recent or self._pending >= self._max_pending

    def on_changes(self, callback: Callable[[list[Change]], None]) -> None:
        self._on_changes.append(callback)

    def on_unknown(self, callback: Callable[[int], None]) -> None:
        self._on_unknown.append(callback)

    def on_delivered(self, callback: Callable[[], None]) -> None:
        self._after_delivery.append(callback)

    def _deliver(self, answers: list[Answer]) -> None:
        self._pending -= len(answers)
        _hand_out(answers)
        for callback in self._after_delivery:
            callback()

    def _deliver_with_changes(self, answers: list[Answer], changes: list[Change]) -> None:
        for callback in self._on_changes:
            try:
                callback(changes)
            except Exception:  # the answers must go out; other nodes read of the changes in the database
                log.failure("Other nodes could not be told what has changed")
        self._deliver(answers)

    def _say_unknown(self, since_ms: int) -> None:
        for callback in self._on_unknown:
            callback(since_ms)

    def _deliver_reads(self, answers: list[Answer]) -> None:
        was_congested = self._pending_reads >= CONGESTED_PENDING
        self._pending_reads -= len(answers)
        _hand_out(answers)
        if was_congested:  # who has stopped reading for that waits for a delivery, and there may be none of the writer
            for callback in self._after_delivery:
                callback()

    def _open_tx(self) -> SqlTx:
        if self._watchdog is None:
            return SqlTx(self._connect(), self._engine.dialect, self._statements, self._vault, self.node)
        from cloud_core.storage.postgresql import PostgresqlTx

        tx = PostgresqlTx(self._connect(), self._engine.dialect, self._statements, self._vault, self.node)
        self._watchdog.watch(tx.cursor)
        return tx

    def _open_read_tx(self) -> SqlReadTx:
        if self._watchdog is None:
            return SqlReadTx(self._connect(), self._engine.dialect, self._statements, self._vault)
        from cloud_core.storage.postgresql_reading import PostgresqlReadTx

        tx = PostgresqlReadTx(self._connect(), self._engine.dialect, self._statements, self._vault)
        self._watchdog.watch(tx.cursor)
        return tx

    def _committed(self, tx: SqlTx) -> None:
        if self._checkpoints is not None:
            self._checkpoints.committed(tx.connection)

    def _connect(self) -> Any:  # Any: sqlite3.Connection or psycopg.Connection
        if self._watchdog is not None:
            from cloud_core.storage import postgresql_server

            return postgresql_server.connect(self._engine)
        connection = self._engine.raw_connection()
        driver = connection.driver_connection
        connection.detach()  # the lane owns it from here on
        return driver


def _watchdog() -> Watchdog:
    from cloud_core.storage.postgresql_server import Watchdog

    return Watchdog()


def _append_all(tx: SqlTx, rows: list[tuple[int, list[Sample]]]) -> None:
    for device_id, samples in rows:
        tx.append_samples(device_id, samples)


def _hand_out(answers: list[Answer]) -> None:
    for done, outcome in answers:
        try:
            done(outcome)
        except Exception:  # one answer that cannot be used must not keep the others back
            log.failure("An answer of the store could not be handed out")
