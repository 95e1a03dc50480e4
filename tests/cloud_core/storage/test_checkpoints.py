"""The write-ahead log is copied beside the writer, and starts anew although the writer never pauses."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from cloud_core.storage.checkpoints import Checkpoints

PAGE_BYTES = 4096


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


def write(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT INTO filling VALUES (?, ?)", (number, b"x" * 2 * PAGE_BYTES))


def test_the_log_stays_bounded_while_the_writer_goes_on(tmp_path: Path) -> None:
    """Without a copy of the rest by the writer, the log would grow with every commit."""
    path = tmp_path / "muster.db"
    writer = connect(path)
    writer.execute("CREATE TABLE filling (number INTEGER PRIMARY KEY, body BLOB)")
    checkpoints = Checkpoints(lambda: connect(path), interval_s=0.01, large_log_pages=100)
    checkpoints.start()
    count = 0
    until = time.monotonic() + 3.0
    while time.monotonic() < until and count < 20_000:
        write(writer, count)
        checkpoints.committed(writer)
        count += 1
    checkpoints.stop()
    log_pages = (tmp_path / "muster.db-wal").stat().st_size / PAGE_BYTES
    assert count > 200
    assert log_pages < count  # three pages each were written
    assert writer.execute("SELECT count(*) FROM filling").fetchone() == (count,)
    writer.close()


def test_a_reader_of_an_old_state_holds_nothing_up(tmp_path: Path) -> None:
    """The checkpoint gives up for this turn, and the writer does not wait for the reader."""
    path = tmp_path / "muster.db"
    writer, reader = connect(path), connect(path)
    writer.execute("CREATE TABLE filling (number INTEGER PRIMARY KEY, body BLOB)")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM filling").fetchone()
    checkpoints = Checkpoints(lambda: connect(path), interval_s=0.01, large_log_pages=10)
    checkpoints.start()
    for number in range(200):
        write(writer, number)
        checkpoints.committed(writer)
    time.sleep(0.1)
    reader.execute("ROLLBACK")
    checkpoints.stop()
    assert writer.execute("SELECT count(*) FROM filling").fetchone() == (200,)
    writer.close()
    reader.close()


def test_a_failing_checkpoint_is_tried_again(tmp_path: Path) -> None:
    """The thread survives: the log is copied once the cause is gone."""
    path = tmp_path / "muster.db"
    writer = connect(path)
    writer.execute("CREATE TABLE filling (number INTEGER PRIMARY KEY, body BLOB)")
    failures = 2

    class Failing:
        def __init__(self) -> None:
            self._real = connect(path)

        def execute(self, sql: str) -> sqlite3.Cursor:
            nonlocal failures
            if failures:
                failures -= 1
                raise sqlite3.OperationalError("disk I/O error")
            return self._real.execute(sql)

        def close(self) -> None:
            self._real.close()

    checkpoints = Checkpoints(Failing, interval_s=0.01, large_log_pages=1)
    checkpoints.start()
    until = time.monotonic() + 5.0
    while failures and time.monotonic() < until:
        checkpoints.committed(writer)
        time.sleep(0.01)
    write(writer, 1)
    checkpoints.committed(writer)
    while path.stat().st_size < 2 * PAGE_BYTES and time.monotonic() < until:
        time.sleep(0.01)
    checkpoints.stop()
    writer.close()
    assert path.stat().st_size > 2 * PAGE_BYTES
