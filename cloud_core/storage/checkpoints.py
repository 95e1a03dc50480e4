"""SQLite's checkpoints, off the writer's path.

A checkpoint copies what has gathered in the write-ahead log into the database file. Left to SQLite it happens
inside a commit, and everybody waits for a second fsync and thousands of page writes. Here a thread of its own
copies while the writer goes on. It can never finish under load, because the log grows meanwhile, and a log that is
not copied whole is never started anew. So when the log has grown large, the writer itself copies the little
that is left, between two commits.

Source: sqlite.org/wal.html, "Checkpointing" and "Avoiding Excessively Large WAL Files".
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

log = Logger()
INTERVAL_S = 1.0
LARGE_LOG_PAGES = 16_000  # 64 MiB: from here on the log should start anew
SMALL_REST_PAGES = 2_000  # what the writer may be asked to copy itself: some milliseconds
_PASSIVE = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpoints:
    """Copies the log in the background. `connect` gives a connection of its own to the same database."""

    def __init__(
        self, connect: Callable[[], Any], *, interval_s: float = INTERVAL_S, large_log_pages: int = LARGE_LOG_PAGES
    ) -> None:
        # `Any`: sqlite3.Connection, as everywhere behind the lanes.
        self._connect = connect
        self._interval_s = interval_s
        self._large_log_pages = large_log_pages
        self._has_news = False
        self._is_rest_small = False
        self._is_stopping = threading.Event()
        self.completed = self.failed = 0  # since the start
        self._thread = threading.Thread(target=self._run, name="storage-checkpoints", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping.set()
        self._thread.join()

    def committed(self, connection: Any) -> None:
        """The writer has committed; it may have to copy the rest of a large log."""
        self._has_news = True
        if self._is_rest_small:
            self._is_rest_small = False
            connection.execute(_PASSIVE).fetchone()

    def _run(self) -> None:
        connection = self._connect()
        while not self._is_stopping.wait(self._interval_s):
            if self._has_news:
                self._has_news = False
                try:
                    self._copy(connection)
                    self.completed += 1
                except Exception:  # the log only grows: nothing is lost, and the next turn tries again
                    self.failed += 1
                    log.failure("A checkpoint failed and is tried again")
        connection.close()

    def _copy(self, connection: Any) -> None:
        _busy, in_log, copied = connection.execute(_PASSIVE).fetchone()
        if in_log >= self._large_log_pages:
            while in_log - copied > SMALL_REST_PAGES and not self._is_stopping.is_set():
                before = copied
                _busy, in_log, copied = connection.execute(_PASSIVE).fetchone()
                if copied <= before:
                    break  # a reader of an old state holds it back
            self._is_rest_small = in_log - copied <= SMALL_REST_PAGES
