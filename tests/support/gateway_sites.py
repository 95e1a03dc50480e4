"""A stand-in for the gateway that a connector serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from edge_gateway.model import Health, Reading, Refusal


class FakeSite:
    """Records what a connector says. Readings are taken in the loop's next turn, as the spool does it, or by `settle`.

    `refusals` are given out first, one for each `accept`; with `is_held` nothing is answered until `settle`."""

    def __init__(self, name: str = "site") -> None:
        self.name = name
        self.wants_raw = False
        self.is_congested = False
        self.is_held = False
        self.readings: list[Reading] = []
        self.batches: list[int] = []
        self.rejected: list[tuple[str, bytes, str]] = []
        self.present: list[str] = []
        self.left: list[str] = []
        self.healths: list[tuple[Health, str]] = []
        self.refusals: list[Refusal | None] = []
        self._held: list[Callable[[], None]] = []
        self._room: list[Callable[[], None]] = []

    def accept(self, readings: Sequence[Reading], done: Any = None) -> None:
        refusal = self.refusals.pop(0) if self.refusals else None
        self.batches.append(len(readings))

        def settle() -> None:
            if refusal is None:
                self.readings.extend(readings)
            if done is not None:
                done(refusal)

        if self.is_held:
            self._held.append(settle)
        else:
            asyncio.get_running_loop().call_soon(settle)

    def settle(self) -> None:
        """Answers what was held."""
        held, self._held = self._held, []
        for one in held:
            one()

    def reject(self, source: str, payload: bytes, why: str) -> None:
        self.rejected.append((source, payload, why))

    def seen(self, device: str, type: str = "") -> None:
        self.present.append(device)

    def gone(self, device: str) -> None:
        self.left.append(device)

    def health(self, health: Health, reason: str = "") -> None:
        self.healths.append((health, reason))

    def when_room(self, callback: Callable[[], None]) -> None:
        self._room.append(callback)

    def make_room(self) -> None:
        self.is_congested = False
        room, self._room = self._room, []
        for callback in room:
            callback()

    def values(self) -> list[tuple[str, dict[str, Any]]]:
        """(device, telemetry) of all readings, in order."""
        return [(reading.device, dict(reading.telemetry or {})) for reading in self.readings]


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Waits for something to become true, and returns it; fails when it does not."""
    async with asyncio.timeout(timeout_s):
        while not (found := condition()):
            await asyncio.sleep(0.005)
    return found
