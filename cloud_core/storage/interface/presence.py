"""When devices connected, spoke and fell silent; shown as server attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cloud_core.model import DevicePresence


class ReadPresence(Protocol):
    def presence(self, device_id: int) -> DevicePresence | None: ...
    def active_devices(self) -> list[DevicePresence]:
        """Those that count as active, at start."""

    def inactivity_timeouts(self) -> dict[int, int]:
        """{device number: ms} where the server attribute `inactivityTimeout` is set."""


class WritePresence(ReadPresence, Protocol):
    def put_presence(self, rows: Sequence[DevicePresence]) -> None:
        """One statement for all; members that are 0 keep what is stored."""
