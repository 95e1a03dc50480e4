"""Fills a gateway's spool as a week without the core would: `… edge_backlog --path spool.db --count N --devices D`.

The only script here that imports the product: what it writes must be what the gateway wrote.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_gateway.model import Content, Lane, Record, Refusal, SubDevice
from edge_gateway.settings import Store
from edge_gateway.storage.spool import SqlSpool

from . import measure
from .edge_sides import body

APPENDED_AT_ONCE = 2_000
IN_FLIGHT = 4


class _Direct:
    """The spool's thread calls back at once."""

    def callFromThread(self, f: Callable[..., Any], *args: Any) -> None:
        f(*args)


def fill(path: Path, count: int, devices: int) -> None:
    """`count` readings, numbered from 0, of `devices` in turn. Raises: RuntimeError."""
    spool = SqlSpool(path=path, settings=Store(keep_free=0), reactor=_Direct())
    spool.open()
    names = [f"old-{number:04d}" for number in range(devices)]
    spool.remember([SubDevice(name, name, "default", "bench", last_seen_ms=0, is_deleted=False) for name in names])
    room, refusals = threading.Semaphore(IN_FLIGHT), []

    def done(refusal: Refusal | None) -> None:
        if refusal is not None:
            refusals.append(refusal.reason)
        room.release()

    first, boot = spool.next_number, spool.present_boot.number
    for start in range(0, count, APPENDED_AT_ONCE):
        records = [
            Record(
                first + number, names[number % devices], Content.TELEMETRY, Lane.HISTORY, 1_700_000_000_000 + number,
                boot, number, body(number, None),
            )
            for number in range(start, min(start + APPENDED_AT_ONCE, count))
        ]  # fmt: skip
        room.acquire()
        spool.append(records, done)
    spool.close()
    if refusals:
        raise RuntimeError(refusals[0])


def main(arguments: list[str] | None = None) -> int:
    """Fill, and print how many."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--devices", type=int, default=100)
    options = parser.parse_args(arguments)
    fill(options.path, options.count, options.devices)
    measure.print_result({"filled": options.count, "errors": 0})
    return 0


if __name__ == "__main__":
    sys.exit(main())
