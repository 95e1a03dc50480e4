"""What the disk allows: `python -m tests.benchmarks.load.disk_limit rows|fsync --directory DIR`.

`rows` inserts telemetry documents with the standard library's sqlite3 and nothing else: WAL,
synchronous=FULL, 1,000 rows per commit. No server on the same disk can acknowledge more durable rows per
second than this, short of larger commits. `fsync` writes 4 KiB and calls fsync, over and over. Prints one
line of JSON.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import bodies, measure
from .measure import Histogram

ROWS_PER_COMMIT = 1000
DEVICES = 100
BUCKET_MS = 3_600_000
SCHEMA = """
    CREATE TABLE telemetry (bucket INTEGER, device INTEGER, ts INTEGER, doc BLOB,
                            PRIMARY KEY (bucket, device, ts)) WITHOUT ROWID
"""
WARMUP_S = 0.2


def rows_step(directory: Path) -> Callable[[int], int]:
    """A function that commits batch number n and returns how many rows that were."""
    database = sqlite3.connect(directory / "limit.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute(SCHEMA)

    documents = [bodies.telemetry(bodies.BASE_TS_MS, number) for number in range(ROWS_PER_COMMIT)]

    def commit(batch: int) -> int:
        first = batch * ROWS_PER_COMMIT
        rows = []
        for number, document in enumerate(documents, first):
            ts_ms = bodies.BASE_TS_MS + number // DEVICES
            rows.append((ts_ms // BUCKET_MS, number % DEVICES, ts_ms, document))
        database.execute("BEGIN")
        database.executemany("INSERT INTO telemetry VALUES (?, ?, ?, ?)", rows)
        database.execute("COMMIT")
        return ROWS_PER_COMMIT

    return commit


def fsync_step(directory: Path) -> Callable[[int], int]:
    """A function that appends one page and waits until it is on the disk."""
    descriptor = os.open(directory / "limit.bin", os.O_CREAT | os.O_WRONLY, 0o600)
    page = bytes(4096)

    def write(_number: int) -> int:
        os.write(descriptor, page)
        os.fsync(descriptor)
        return 1

    return write


def measured(step: Callable[[int], int], seconds: float) -> dict[str, object]:
    """Repeat `step` for `seconds`; the rate counts what it returns, the latency is that of one step."""
    histogram, number, total = Histogram(), 0, 0
    opens = time.perf_counter() + WARMUP_S
    while time.perf_counter() < opens:
        step(number)
        number += 1
    began = now = time.perf_counter()
    while now < began + seconds:
        total += step(number)
        number += 1
        before, now = now, time.perf_counter()
        histogram.record(now - before)
    return {
        "rate": round(total / (now - began), 1),
        "p50_ms": round(histogram.percentile_ms(0.50), 3),
        "p99_ms": round(histogram.percentile_ms(0.99), 3),
        "count": total,
        "errors": 0,
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("rows", "fsync"))
    parser.add_argument("--directory", type=Path, required=True, help="on the disk to be measured")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--cpu", type=int, help="pin to one core")
    options = parser.parse_args(arguments)
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        step = (rows_step if options.what == "rows" else fsync_step)(Path(directory))
        measure.print_result(measured(step, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
