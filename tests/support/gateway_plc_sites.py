"""A stand-in for the gateway that a connector to machines serves, and the running of one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from edge_gateway.config.typed import Reader
from edge_gateway.connectors.interface import Connector, ConnectorKind
from edge_gateway.model import Call, Health, Json, Reading


class FakePlcSite:
    """Writes down what a connector says, with the loop's time of each reading."""

    def __init__(self, name: str = "plant") -> None:
        self.name = name
        self.wants_raw = False
        self.is_congested = False
        self.readings: list[tuple[float, Reading]] = []
        self.rejected: list[tuple[str, bytes, str]] = []
        self.present: list[tuple[str, str]] = []
        self.left: list[str] = []
        self.healths: list[tuple[Health, str]] = []
        self._room: list[Callable[[], None]] = []

    def accept(self, readings: Sequence[Reading], done: Any = None) -> None:
        now = asyncio.get_running_loop().time()
        self.readings += [(now, reading) for reading in readings]
        if done is not None:
            done(None)

    def reject(self, source: str, payload: bytes, why: str) -> None:
        self.rejected.append((source, payload, why))

    def seen(self, device: str, type: str = "") -> None:
        self.present.append((device, type))

    def gone(self, device: str) -> None:
        self.left.append(device)

    def health(self, health: Health, reason: str = "") -> None:
        if self.healths[-1:] != [(health, reason)]:
            self.healths.append((health, reason))

    def when_room(self, callback: Callable[[], None]) -> None:
        self._room.append(callback)

    def make_room(self) -> None:
        self.is_congested = False
        room, self._room = self._room, []
        for callback in room:
            callback()

    def times(self, device: str) -> list[float]:
        return [at for at, reading in self.readings if reading.device == device]

    def latest(self, device: str) -> dict[str, Json]:
        """The newest telemetry and attributes of a device, key by key."""
        values: dict[str, Json] = {}
        for _, reading in self.readings:
            if reading.device == device:
                values |= {**(reading.telemetry or {}), **(reading.attributes or {})}
        return values


def settings_of(kind: ConnectorKind, **table: Any) -> Any:
    """The settings that a table of the configuration gives; it must be free of problems."""
    reader = Reader()
    settings = reader.table({"name": "plant", **table}, kind.settings)
    assert not reader.problems, reader.problems
    assert kind.check(settings) == []
    return settings


def problems_of(kind: ConnectorKind, **table: Any) -> dict[tuple[str | int, ...], str]:
    """What is wrong with a table, by its place."""
    reader = Reader()
    settings = reader.table({"name": "plant", **table}, kind.settings)
    problems = reader.problems if settings is None else kind.check(settings)
    return {problem.path: problem.text for problem in problems}


@asynccontextmanager
async def running(kind: ConnectorKind, site: FakePlcSite, **table: Any) -> AsyncIterator[Connector]:
    """A connector at work. An error that ends it is the test's."""
    connector = kind.build(settings_of(kind, **table), site)
    task = asyncio.ensure_future(connector.run())
    try:
        yield connector
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def command(device: str, method: str, params: Json = None, timeout_s: float = 5.0) -> Call:
    return Call(device=device, method=method, params=params, timeout_s=timeout_s)


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Waits for something to become true, and returns it; fails when it does not."""
    async with asyncio.timeout(timeout_s):
        while not (found := condition()):
            await asyncio.sleep(0.005)
    return found
