"""`edge-gateway spool`: what waits on this gateway's disk for the core."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec

from edge_gateway.config import Config
from edge_gateway.console.agents import is_at_work
from edge_gateway.console.loop import installed_reactor
from edge_gateway.console.loop import run as run_loop
from edge_gateway.console.options import (
    EXIT_FAULT,
    EXIT_REFUSED,
    Place,
    as_json,
    configuration,
    configuration_or_defaults,
    fail,
    in_place,
)
from edge_gateway.console.output import age, instant, plural, show_json, show_table
from edge_gateway.logs import start_logging
from edge_gateway.mapping.amounts import format_size
from edge_gateway.model import Record
from edge_gateway.service import Gateway, spool_path
from edge_gateway.storage.export import SpoolReader
from edge_gateway.storage.interface import Boot
from edge_gateway.storage.limits import acceptance_ms, in_units

LOOK_S = 0.2


@click.group()
def spool() -> None:
    """The readings that wait on disk until the core has acknowledged them."""


@spool.command()
@in_place
@as_json
def show(place: Place, is_json: bool) -> None:
    """Show how full the spool is, and what waits for which device. The agent may run meanwhile.

    \b
    Example:
      $ edge-gateway spool show
      1,204 records of 2 devices wait; the oldest since 2026-03-02 10:12:44 (3 h); 1.1 MiB of 2 GiB
      DEVICE   RECORDS
      meter-3  1,200
      meter-4  4
    """
    config = configuration_or_defaults(place)
    path = spool_path(config, place.data_dir)
    with SpoolReader(path) as reader:
        seen = reader.overview()
    dropped = [{"reason": why, "device": who, "readings": n} for (why, who), n in sorted(seen.dropped.items())]
    if is_json:
        show_json(
            {
                "path": str(path), "records": seen.records, "usedBytes": seen.used_bytes,
                "fileBytes": seen.file_bytes, "maxBytes": config.store.max_size, "oldestMs": seen.oldest_ms,
                "devices": seen.devices, "dropped": dropped, "isAgentAtWork": is_at_work(path),
            }
        )  # fmt: skip
        return
    size = f"{in_units(seen.used_bytes)} of {format_size(config.store.max_size)}"
    if not seen.records:
        click.echo(f"Nothing waits; {size}")
    else:
        since = age(max(0.0, time.time() - seen.oldest_ms / 1000)) if seen.oldest_ms else "unknown"
        what = f"{plural(seen.records, 'record')} of {plural(len(seen.devices), 'device')}"
        click.echo(f"{what} wait; the oldest since {instant(seen.oldest_ms)} ({since}); {size}")
        most_first = sorted(seen.devices.items(), key=lambda item: -item[1])
        rows = [{"device": name or "(this gateway)", "records": f"{count:,}"} for name, count in most_first]
        show_table(rows, {"DEVICE": "device", "RECORDS": "records"})
    for row in dropped:
        who = row["device"] or "this gateway"
        click.echo(f"given up so far ({row['reason']}): {row['readings']:,} readings of {who}")


@spool.command()
@in_place
@click.option("--output", "-o", type=click.Path(path_type=Path), help="File to write, 0600.  [default: stdout]")
@click.option("--device", help="Only this device.")
def export(place: Place, output: Path | None, device: str | None) -> None:
    """Write what waits as NDJSON, one record a line, oldest first. Nothing is removed.

    `ts` is null for records from a time when the gateway did not know the clock.

    \b
    Example:
      $ edge-gateway spool export -o backlog.ndjson
      1,204 records written to backlog.ndjson
      $ edge-gateway spool export --device meter-3 | head -1
      {"number":17,"device":"meter-3","content":"telemetry","ts":1772446364000,"values":{"power":1523.4}}
    """
    path = spool_path(configuration_or_defaults(place), place.data_dir)
    with SpoolReader(path) as reader:
        lines = exported(reader, device)
        if output is None:
            write_lines(lines, sys.stdout)
            return
        output.touch(mode=0o600)
        with output.open("w", encoding="utf-8") as target:
            count = write_lines(lines, target)
    click.echo(f"{plural(count, 'record')} written to {output}")


def exported(reader: SpoolReader, device: str | None) -> Iterator[bytes]:
    boots = reader.boots()
    for record in reader.records():
        if device is None or record.device == device:
            yield msgspec.json.encode(_document(record, boots))


def _document(record: Record, boots: dict[int, Boot]) -> dict[str, Any]:
    ts_ms = record.ts_ms or acceptance_ms(boots, record.boot, record.elapsed_ms)
    return {
        "number": record.number, "device": record.device, "content": record.content.name.lower(), "ts": ts_ms or None,
        "values": msgspec.Raw(record.body),
    }  # fmt: skip


def write_lines(lines: Iterator[bytes], target: TextIO) -> int:
    count = 0
    for line in lines:
        target.write(line.decode() + "\n")
        count += 1
    return count


@spool.command()
@in_place
@click.option("--timeout", "timeout_s", default=300.0, show_default=True, help="Seconds after which it gives up.")
@as_json
def drain(place: Place, timeout_s: float, is_json: bool) -> None:
    """Send what waits, without connectors: before a gateway is replaced or taken away. The agent must be stopped.

    \b
    Example:
      $ edge-gateway spool drain
      1,204 records sent; the spool is empty

    Exit codes: 0 the spool is empty, 1 something is left, 4 the agent runs.
    """
    installed_reactor()
    config = configuration(place)
    path = spool_path(config, place.data_dir)
    if is_at_work(path):
        fail("the agent runs and sends by itself; watch it with `edge-gateway status`, or stop it first", EXIT_REFUSED)
    if not path.is_file():
        fail(f"there is no spool at {path}; see [store] path", EXIT_REFUSED)
    start_logging("text", "error")
    result = run_loop(lambda reactor: drained(config, place, reactor, timeout_s))
    if result is None:
        fail("ended before everything was sent; what is left stays in the spool", EXIT_FAULT)
    if is_json:
        show_json(result)
    elif result["left"]:
        why = f": {result['reason']}" if result["reason"] else ""
        click.echo(f"{plural(result['sent'], 'record')} sent; {result['left']:,} are left after {timeout_s:g} s{why}")
    else:
        click.echo(f"{plural(result['sent'], 'record')} sent; the spool is empty")
    sys.exit(EXIT_FAULT if result["left"] else 0)


async def drained(config: Config, place: Place, reactor: Any, timeout_s: float) -> dict[str, Any]:
    """Runs a gateway without connectors and without words of its own until its spool is empty."""
    quiet = msgspec.structs.replace(config.statistics, every=0.0)
    gateway = Gateway(
        replace(config, connectors=(), statistics=quiet),
        data_dir=place.data_dir,
        reactor=reactor,
        kinds={},
        version=version("muster"),
        restart=lambda: None,
    )
    await gateway.start()
    end_s = time.monotonic() + timeout_s
    try:
        while (left := gateway.status()["spool"]["records"]) and time.monotonic() < end_s:
            await asyncio.sleep(LOOK_S)
        status = gateway.status()
        return {"sent": status["sent"], "left": left, "reason": status["core"]["reason"]}
    finally:
        await gateway.stop()
