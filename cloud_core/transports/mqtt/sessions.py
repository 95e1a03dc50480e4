"""Which sessions live: one for each device; a newer one takes over (wire-contract.md section 2.6)."""

from __future__ import annotations

from typing import Protocol

from shared.mqtt.codes import ReasonCode


class LiveSession(Protocol):
    """A logged-in connection."""

    def close_with(self, reason: ReasonCode) -> None:
        """Ends it; a 5.0 client is told `reason`."""


class Sessions:
    """Device number -> its live session."""

    def __init__(self) -> None:
        self._by_device: dict[int, LiveSession] = {}

    def __len__(self) -> int:
        return len(self._by_device)

    def take_over(self, device_id: int, session: LiveSession) -> LiveSession | None:
        """Registers `session`; returns the one it replaces."""
        replaced = self._by_device.get(device_id)
        self._by_device[device_id] = session
        return replaced

    def ended(self, device_id: int, session: LiveSession) -> None:
        """Forgets `session`, unless a newer one has taken its place."""
        if self._by_device.get(device_id) is session:
            del self._by_device[device_id]

    def of(self, device_id: int) -> LiveSession | None:
        return self._by_device.get(device_id)
