"""Which sessions live: so many of each device; a newer one replaces the oldest (wire-contract.md section 2.6)."""

from __future__ import annotations

from typing import Protocol

from shared.mqtt.codes import ReasonCode


class LiveSession(Protocol):
    """A logged-in connection. `opened_ms`: when it logged in, since the Unix epoch."""

    opened_ms: int

    @property
    def max_sessions(self) -> int:
        """How many its device may have at a time."""

    def close_with(self, reason: ReasonCode) -> None:
        """Ends it; a 5.0 client is told `reason`."""


class Sessions:
    """Device number -> its live sessions, oldest first."""

    def __init__(self) -> None:
        self._by_device: dict[int, tuple[LiveSession, ...]] = {}

    def __len__(self) -> int:
        """How many devices have a session."""
        return len(self._by_device)

    def take_over(self, device_id: int, session: LiveSession, max_sessions: int = 1) -> tuple[LiveSession, ...]:
        """Registers `session`; returns those that are too many now."""
        live = (*self._by_device.get(device_id, ()), session)
        self._by_device[device_id] = live[-max_sessions:]
        return live[:-max_sessions]

    def give_up(self, device_id: int, count: int) -> tuple[LiveSession, ...]:
        """Forgets the oldest, which another node has taken over, and returns them."""
        live = self._by_device.get(device_id, ())
        if live[count:]:
            self._by_device[device_id] = live[count:]
        else:
            self._by_device.pop(device_id, None)
        return live[:count]

    def opened_since(self, ms: int) -> list[int]:
        """Devices whose newest session was opened since."""
        return [device_id for device_id, live in self._by_device.items() if live[-1].opened_ms >= ms]

    def ended(self, device_id: int, session: LiveSession) -> bool:
        """Forgets `session`; whether it was the last of its device. One that was replaced is unknown already."""
        live = self._by_device.get(device_id, ())
        left = tuple(one for one in live if one is not session)
        if left:
            self._by_device[device_id] = left
        elif live:
            del self._by_device[device_id]
        return bool(live) and not left

    def of(self, device_id: int) -> tuple[LiveSession, ...]:
        return self._by_device.get(device_id, ())
