"""`edge-gateway try`: one connector alone, with a site that shows instead of storing."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import msgspec

from edge_gateway.config import Config, ConnectorTable
from edge_gateway.connectors.interface import ConnectorKind, Done
from edge_gateway.console.loop import installed_reactor
from edge_gateway.console.loop import run as run_loop
from edge_gateway.console.options import (
    EXIT_CONFIG,
    EXIT_FAULT,
    Place,
    as_json,
    configuration,
    fail,
    in_place,
    known_kinds,
)
from edge_gateway.console.output import age, printable
from edge_gateway.core.admission import Admission
from edge_gateway.logs import start_logging
from edge_gateway.mapping.problems import did_you_mean
from edge_gateway.model import Health, Json, Reading, Refusal

TRIAL = Refusal(reason="this is a trial: nothing is stored; send it again to the agent", retry_after_s=5.0)
PAYLOAD_SHOWN_BYTES = 120
SETTLE_S = 0.3  # after the first reading of --once: those that came with it


@click.command("try")
@in_place
@click.argument("connector")
@click.option("--seconds", default=15.0, show_default=True, type=click.FloatRange(min=0.1), help="How long to listen.")
@click.option("--once", is_flag=True, help="End after the first readings.")
@as_json
def try_connector(place: Place, connector: str, seconds: float, once: bool, is_json: bool) -> None:
    """Run one connector live and show what it reads, raw beside mapped. Nothing is sent or stored.

    Nothing is acknowledged either: sources that wait for an acknowledgement keep their message for the agent.
    With --json there is one object a line.

    \b
    Example:
      $ edge-gateway try plant --once
      meter-3  power  1523.4  W  holding:100 0x447F 0x2000  now
      meter-3  alarm  false      coil:7 0                   now
      plant is degraded: unit 1 gives no answer in 800 ms: check its address and wiring

    Exit codes: 0 something was read, 1 nothing was read, 2 the configuration has problems.
    """
    installed_reactor()
    config = configuration(place)
    table = table_named(config, connector)
    kind = known_kinds()[table.kind]
    start_logging("text", "error")
    screen = Screen(table, config, is_json=is_json)
    run_loop(lambda _reactor: trial(kind, table, screen, seconds=seconds, once=once))
    screen.end(seconds)
    sys.exit(0 if screen.readings else EXIT_FAULT)


def table_named(config: Config, name: str) -> ConnectorTable:
    """Ends the program when there is none."""
    for table in config.connectors:
        if table.name == name:
            return table
    names = [table.name for table in config.connectors]
    known = f"; there are {', '.join(names)}" if names else "; there are none in the configuration"
    guess = did_you_mean(name, names)
    fail(f"no connector is called '{name}'{guess if 'did you mean' in guess else known}", EXIT_CONFIG)


async def trial(kind: ConnectorKind, table: ConnectorTable, screen: Screen, *, seconds: float, once: bool) -> None:
    """Runs the connector until the time is over, it fails, or (`once`) something was read."""
    enough = asyncio.Event()
    screen.on_reading = enough.set if once else lambda: None
    connector = kind.build(table.settings, screen.site)
    running = asyncio.ensure_future(connector.run())
    waiting = asyncio.ensure_future(enough.wait())
    try:
        await asyncio.wait([running, waiting], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            await asyncio.wait([running], timeout=SETTLE_S)
    finally:
        waiting.cancel()
        if running.done():
            screen.failed(running)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Screen:
    """Shows what the site is told. `readings` counts."""

    def __init__(
        self, table: ConnectorTable, config: Config, *, is_json: bool, write: Callable[[str], None] = click.echo,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:  # fmt: skip
        self.site = TrialSite(table.name, self)
        self.readings = 0
        self.on_reading: Callable[[], None] = lambda: None
        self._name = table.name
        self._units = dict(units_in(msgspec.to_builtins(table.settings)))
        self._admission = Admission(config.devices)
        self._is_json = is_json
        self._write = write
        self._now_ms = now_ms
        self._widths = [0] * 5

    def reading(self, reading: Reading) -> None:
        self.readings += 1
        refusal = self._admission.refusal(reading.device)
        if refusal is not None:
            self._tell({"device": reading.device, "refused": refusal.reason}, f"refused: {refusal.reason}")
        for content, values in (("telemetry", reading.telemetry), ("attribute", reading.attributes)):
            for key, value in (values or {}).items():
                self._value(reading, content, key, value)
        if not reading.telemetry and not reading.attributes:
            self._tell({"device": reading.device}, f"{reading.device}  (no values)")
        self.on_reading()

    def _value(self, reading: Reading, content: str, key: str, value: Json) -> None:
        raw = (reading.raw or {}).get(key, "")
        age_ms = None if reading.ts_ms is None else self._now_ms() - reading.ts_ms
        document = {
            "connector": self._name, "device": reading.device, "type": reading.type, "content": content, "key": key,
            "value": value, "unit": self._units.get(key, ""), "raw": raw, "ts": reading.ts_ms, "ageMs": age_ms,
        }  # fmt: skip
        when = _when(age_ms)
        shown = json.dumps(value, ensure_ascii=False)
        name = key if content == "telemetry" else f"{key} (attribute)"
        self._tell(document, self._aligned([reading.device, name, shown, self._units.get(key, ""), raw], when))

    def _aligned(self, cells: Sequence[str], last: str) -> str:
        """Columns that only grow: lines come one by one."""
        texts = [printable(cell) for cell in cells]
        self._widths = [max(pair) for pair in zip(self._widths, map(len, texts), strict=True)]
        return "  ".join(text.ljust(width) for text, width in zip(texts, self._widths, strict=True)) + f"  {last}"

    def rejected(self, source: str, payload: bytes, why: str) -> None:
        beginning = payload[:PAYLOAD_SHOWN_BYTES].decode("utf-8", errors="backslashreplace")
        document = {"connector": self._name, "rejected": why, "source": source, "payload": beginning}
        self._tell(document, f"rejected: {why}\n  from {printable(source)}: {printable(beginning)}")

    def health(self, health: Health, reason: str) -> None:
        text = f"{self._name} is {health.value}" + (f": {reason}" if reason else "")
        self._tell({"connector": self._name, "health": health.value, "reason": reason}, text)

    def device(self, device: str, event: str) -> None:
        self._tell({"connector": self._name, "device": device, "event": event}, f"{device} {event}")

    def failed(self, running: asyncio.Future[None]) -> None:
        """The connector ended by itself."""
        error = None if running.cancelled() else running.exception()
        why = f"{type(error).__name__}: {error}" if error else "it ended by itself"
        self.health(Health.FAILED, why)

    def end(self, seconds: float) -> None:
        if not self.readings:
            text = f"nothing was read in {seconds:g} s: is the source sending, and does the map fit what it sends?"
            self._tell({"connector": self._name, "readings": 0, "hint": text}, text)

    def _tell(self, document: dict[str, Any], text: str) -> None:
        self._write(json.dumps(document, ensure_ascii=False) if self._is_json else text)


def _when(age_ms: int | None) -> str:
    """Of a source's own time; "now" where it gave none."""
    if age_ms is None:
        return "now"
    return f"{age(age_ms / 1000)} ago" if age_ms >= 0 else f"{age(-age_ms / 1000)} in the future"


class TrialSite:
    """`connectors.interface.Site` that refuses everything after it was shown, so that nothing is taken from a source
    that believes it stored."""

    wants_raw = True
    is_congested = False

    def __init__(self, name: str, screen: Screen) -> None:
        self.name = name
        self._screen = screen
        self._health: tuple[Health, str] = (Health.STARTING, "")

    def accept(self, readings: Sequence[Reading], done: Done | None = None) -> None:
        for reading in readings:
            self._screen.reading(reading)
        if done is not None:
            asyncio.get_running_loop().call_soon(done, TRIAL)

    def reject(self, source: str, payload: bytes, why: str) -> None:
        self._screen.rejected(source, payload, why)

    def seen(self, device: str, type: str = "") -> None:
        self._screen.device(device, "is there")

    def gone(self, device: str) -> None:
        self._screen.device(device, "has left")

    def health(self, health: Health, reason: str = "") -> None:
        if self._health != (health, reason):
            self._health = (health, reason)
            self._screen.health(health, reason)

    def when_room(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)


def units_in(settings: Any) -> Iterator[tuple[str, str]]:
    """Key and unit of every line of a mapping, wherever it stands in the settings."""
    if isinstance(settings, dict):
        key, unit = settings.get("key"), settings.get("unit")
        if isinstance(key, str) and isinstance(unit, str) and unit:
            yield key, unit
        for member in settings.values():
            yield from units_in(member)
    elif isinstance(settings, list | tuple):
        for element in settings:
            yield from units_in(element)
