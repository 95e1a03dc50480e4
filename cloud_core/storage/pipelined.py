"""A cursor whose statements go out without waiting for their answers (psycopg's pipeline mode).

Reads and row counts wait, and an error may surface there, or with the commit: in the batch that caused it, which is
then run again unit by unit.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg
from psycopg.errors import ReadOnlySqlTransaction
from psycopg.pq import TransactionStatus

from cloud_core.storage import arrays


class PipelinedCursor:
    """What `Connected` uses of a DBAPI cursor. `before` is called ahead of each statement, and may send others."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        arrays.register(connection.adapters)
        self.connection = connection
        self.before: Callable[[], None] = _nothing
        self.busy_since_s = 0.0  # monotonic; 0 while nobody waits for the server
        self._enter()
        self._last = connection.cursor(binary=True)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        self.before()
        self.send(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self.before()
        for row in rows:
            self.send(sql, row)

    def send(self, sql: str, parameters: Sequence[Any] = (), *, prepare: bool | None = None) -> psycopg.Cursor[Any]:
        """Without `before`. Nothing that reads partitions is prepared: its plan would have to lock all of them."""
        if prepare is None and " telemetry " in sql:
            prepare = False
        self._last = cursor = self.connection.cursor(binary=True)  # one each: an answer finds the cursor that asked
        with self._watched():
            return cursor.execute(sql, parameters, prepare=prepare)

    def fetchall(self) -> list[Any]:
        with self._watched():
            return self._last.fetchall()

    def fetchone(self) -> Any:
        with self._watched():
            return self._last.fetchone()

    @property
    def rowcount(self) -> int:
        self.sync()
        return self._last.rowcount

    def sync(self) -> None:
        """Waits for everything that was sent. Raises: psycopg.Error of whichever statement failed."""
        with self._watched():
            self._pipeline.sync()

    def end(self) -> None:
        """Ends a transaction in which nothing has failed. Raises: psycopg.Error of whatever has."""
        self.send("ROLLBACK")
        self.sync()

    def roll_back(self) -> None:
        """Ends the transaction, whatever state it is in. Raises: psycopg.Error for a lost connection.

        What was to be prepared behind the statement that failed never was, and psycopg believes it was: its own
        `rollback` alone forgets that, and only where there is a transaction to end.
        """
        self._leave()
        with self._watched():
            if self.connection.info.transaction_status is TransactionStatus.IDLE:
                self.connection.execute("BEGIN")
            self.connection.rollback()
        self._enter()

    def abandon(self) -> None:
        """Reads past what has failed, so that the next statement is looked at. Raises: a lost connection."""
        self._leave()
        self._enter()

    def _enter(self) -> None:
        self._mode = self.connection.pipeline()
        self._pipeline = self._mode.__enter__()

    def _leave(self) -> None:
        """Only the end of the pipeline has read all answers, those to statements behind the error among them."""
        with self._watched():
            try:
                self._mode.__exit__(None, None, None)
            except psycopg.Error:
                if self.connection.closed:
                    raise

    def close(self) -> None:
        with contextlib.suppress(psycopg.Error):  # whatever was under way is nobody's any more
            self._mode.__exit__(None, None, None)
        self.connection.close()

    def cut(self) -> None:
        """From any thread: whoever waits for the server gets an error."""
        with contextlib.suppress(OSError, psycopg.Error):
            handle = os.dup(self.connection.fileno())
            with socket.socket(fileno=handle) as shared:
                shared.shutdown(socket.SHUT_RDWR)

    def _watched(self) -> _Watched:
        return _Watched(self)


class _Watched:
    """Notes since when somebody waits; a server that has become read-only is no longer ours."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: PipelinedCursor) -> None:
        self._cursor = cursor

    def __enter__(self) -> None:
        self._cursor.busy_since_s = time.monotonic()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._cursor.busy_since_s = 0.0
        if isinstance(error, ReadOnlySqlTransaction):
            self._cursor.connection.close()  # the next connection looks for one that can be written to


def _nothing() -> None:
    pass
