"""A site that remembers what a polled connector says, and a running connector on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from edge_gateway.connectors.interface import Connector, ConnectorKind, Done
from edge_gateway.model import Health, Json, Reading


class RecordingSite:
    """As `Site`."""

    def __init__(self, name: str = "plant", *, wants_raw: bool = False) -> None:
        self.name = name
        self.wants_raw = wants_raw
        self.is_congested = False
        self.readings: list[Reading] = []
        self.rejected: list[tuple[str, bytes, str]] = []
        self.seen_devices: list[tuple[str, str]] = []
        self.gone_devices: list[str] = []
        self.healths: list[tuple[Health, str]] = [(Health.STARTING, "")]
        self._room: list[Callable[[], None]] = []

    def accept(self, readings: Sequence[Reading], done: Done | None = None) -> None:
        self.readings += readings
        if done is not None:
            done(None)

    def reject(self, source: str, payload: bytes, why: str) -> None:
        self.rejected.append((source, payload, why))

    def seen(self, device: str, type: str = "") -> None:
        self.seen_devices.append((device, type))

    def gone(self, device: str) -> None:
        self.gone_devices.append(device)

    def health(self, health: Health, reason: str = "") -> None:
        if self.healths[-1] != (health, reason):
            self.healths.append((health, reason))

    def when_room(self, callback: Callable[[], None]) -> None:
        self._room.append(callback)

    def make_room(self) -> None:
        self.is_congested = False
        for callback in self._room:
            callback()
        self._room.clear()

    # --- what a test asks ----------------------------------------------------------------------

    @property
    def health_now(self) -> Health:
        return self.healths[-1][0]

    @property
    def reason(self) -> str:
        return self.healths[-1][1]

    def latest(self, device: str) -> dict[str, Json]:
        """The newest value of each key, telemetry and attributes together."""
        values: dict[str, Json] = {}
        for reading in self.readings:
            if reading.device == device:
                values |= {**(reading.telemetry or {}), **(reading.attributes or {})}
        return values


async def until(claim: Callable[[], Any], within_s: float = 10.0) -> Any:
    """Waits for `claim` to hold, and gives what it gives."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not (result := claim()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError("it did not come true in time")
        await asyncio.sleep(0.01)
    return result


def settings_of(kind: ConnectorKind, table: dict[str, Any]) -> Any:
    """The settings as the configuration reads them."""
    return msgspec.convert({"name": "plant", **table}, kind.settings)


def problems_of(kind: ConnectorKind, table: dict[str, Any]) -> list[str]:
    """Each problem as `path: text`."""
    return [
        f"{'.'.join(str(part) for part in problem.path)}: {problem.text}"
        for problem in kind.check(settings_of(kind, table))
    ]


@contextlib.asynccontextmanager
async def running(kind: ConnectorKind, table: dict[str, Any], site: RecordingSite) -> AsyncIterator[Connector]:
    """The connector while it runs; a failure of it is one of the test."""
    connector = kind.build(settings_of(kind, table), site)
    task = asyncio.ensure_future(connector.run())
    try:
        yield connector
    finally:
        was_running = not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert was_running
