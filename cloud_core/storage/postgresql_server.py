"""Connections to PostgreSQL, whose commits are durable and whose waiting has an end."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

import psycopg
from sqlalchemy import Engine
from twisted.logger import Logger

from cloud_core.storage.pipelined import PipelinedCursor

log = Logger()

STATEMENT_S = 60  # the server ends what takes longer
HUNG_S = 75.0  # a server that does not even do that is given up
IDLE_S = 20  # a transaction whose node stands still holds its locks, and others up, no longer
WATCHED_EVERY_S = 1.0
WEAK_COMMITS = ("off", "local", "remote_write")  # acknowledged would not be durable


def connect(engine: Engine) -> psycopg.Connection[Any]:
    """A connection of its own. Raises: psycopg.Error when no server lets us write."""
    words, options = engine.dialect.create_connect_args(engine.url)
    connection: psycopg.Connection[Any] = psycopg.connect(*words, **options, autocommit=True)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: psycopg.Connection[Any]) -> None:
    """Whatever server, role, database or address say: commits of ours wait for the disk."""
    row = connection.execute("SELECT current_setting('synchronous_commit'), current_setting('fsync')").fetchone()
    assert row is not None, "settings have values"
    if row[0] in WEAK_COMMITS:
        connection.execute("SET synchronous_commit = on")
    if row[1] == "off":
        log.warn(
            "PostgreSQL runs with fsync = off: what is acknowledged to devices does not survive a crash of the server"
        )
    connection.execute(f"SET statement_timeout = '{STATEMENT_S}s'")
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_S}s'")


class Watchdog:
    """Ends the waiting for a server that neither answers nor closes."""

    def __init__(self) -> None:
        self._hung_s, self._every_s = HUNG_S, WATCHED_EVERY_S
        self._cursors: weakref.WeakSet[PipelinedCursor] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storage-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping.set()
        self._thread.join()

    def watch(self, cursor: PipelinedCursor) -> None:
        """Until nobody has it any more."""
        with self._lock:
            self._cursors.add(cursor)

    def _run(self) -> None:
        while not self._is_stopping.wait(self._every_s):
            with self._lock:
                cursors = list(self._cursors)
            for cursor in cursors:
                since_s = cursor.busy_since_s
                if since_s and time.monotonic() - since_s > self._hung_s:
                    log.error(
                        "PostgreSQL has not answered for {seconds:.0f} s; the connection is given up",
                        seconds=self._hung_s,
                    )
                    cursor.cut()
