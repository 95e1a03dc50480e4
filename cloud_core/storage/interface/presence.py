"""When devices connected, spoke and fell silent; shown as server attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cloud_core.model import DevicePresence


class ReadPresence(Protocol):
    def presence(self, device_id: int) -> DevicePresence | None: ...
    def active_devices(self) -> list[DevicePresence]:
        """Those that count as active, at start."""

    def silent_devices(self, before_ms: int) -> list[DevicePresence]:
        """Those that count as active, and of which nothing was heard since."""

    def inactivity_timeouts(self) -> dict[int, int]:
        """{device number: ms} where the server attribute `inactivityTimeout` is set."""


class WritePresence(ReadPresence, Protocol):
    def put_presence(self, rows: Sequence[DevicePresence]) -> None:
        """One statement for all; members that are 0 keep what is stored.

        Where several nodes share the database times never go back, and a device of which something was heard after
        `silent_since_ms` stays as it is, active or not.
        """
