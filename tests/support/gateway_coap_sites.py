"""A connector's counterpart that records, and a connector that runs in a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from edge_gateway.connectors.interface import Connector, ConnectorKind, Done
from edge_gateway.model import Health, Reading, Refusal

DEADLINE_S = 10.0


class RecordingSite:
    """Records everything; answers `accept` at once by `outcome`, or keeps it while `is_holding`."""

    def __init__(self, name: str = "under-test") -> None:
        self.name = name
        self.wants_raw = False
        self.is_congested = False
        self.is_holding = False
        self.outcome: Refusal | None = None
        self.readings: list[Reading] = []
        self.held: list[Done] = []
        self.rejected: list[tuple[str, bytes, str]] = []
        self.seen_devices: list[tuple[str, str]] = []
        self.gone_devices: list[str] = []
        self.healths: list[tuple[Health, str]] = []
        self._room: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    def accept(self, readings: Sequence[Reading], done: Done | None = None) -> None:
        self.readings += readings
        if done is not None and self.is_holding:
            self.held.append(done)
        elif done is not None:
            done(self.outcome)
        self._changed.set()

    def reject(self, source: str, payload: bytes, why: str) -> None:
        self.rejected.append((source, payload, why))
        self._changed.set()

    def seen(self, device: str, type: str = "") -> None:
        self.seen_devices.append((device, type))
        self._changed.set()

    def gone(self, device: str) -> None:
        self.gone_devices.append(device)
        self._changed.set()

    def health(self, health: Health, reason: str = "") -> None:
        if not self.healths or self.healths[-1] != (health, reason):
            self.healths.append((health, reason))
        self._changed.set()

    def when_room(self, callback: Callable[[], None]) -> None:
        self._room.append(callback)

    def make_room(self) -> None:
        self.is_congested = False
        waiting, self._room = self._room, []
        for callback in waiting:
            callback()

    def release(self, refusal: Refusal | None = None) -> None:
        held, self.held = self.held, []
        for done in held:
            done(refusal)

    @property
    def values(self) -> list[dict[str, Any]]:
        return [dict(reading.telemetry or {}) for reading in self.readings]

    async def until(self, holds: Callable[[], Any]) -> None:
        """Returns when `holds()` after something happened here; fails after a while."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


def settings_of(kind: ConnectorKind, **table: Any) -> Any:
    """The settings, converted as the configuration does it, and checked."""
    settings = msgspec.convert({"name": "under-test", **table}, kind.settings)
    assert kind.check(settings) == []
    return settings


def problems_of(kind: ConnectorKind, **table: Any) -> list[str]:
    """What `check` says, each with its path."""
    found = kind.check(msgspec.convert({"name": "under-test", **table}, kind.settings))
    return [f"{'.'.join(map(str, problem.path))}: {problem.text}" for problem in found]


@contextlib.asynccontextmanager
async def running(connector: Connector, site: RecordingSite) -> AsyncIterator[None]:
    """The connector at work, healthy at first; cancelled at the end."""
    task = asyncio.ensure_future(connector.run())
    try:
        waiting = asyncio.ensure_future(site.until(lambda: site.healths))
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            await task
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
