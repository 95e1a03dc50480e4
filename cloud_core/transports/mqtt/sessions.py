"""Which sessions live: one for each device, or as many as its profile allows; newer ones take over.

Source: wire-contract.md section 2.6; `ProfileOptions.max_sessions`.
"""

from __future__ import annotations

from typing import Protocol

from shared.mqtt.codes import ReasonCode


class LiveSession(Protocol):
    """A logged-in connection."""

    def close_with(self, reason: ReasonCode) -> None:
        """Ends it; a 5.0 client is told `reason`."""


class Sessions:
    """Device number -> its live sessions, oldest first. The single one of most devices stands by itself."""

    def __init__(self) -> None:
        self._by_device: dict[int, LiveSession | list[LiveSession]] = {}

    def __len__(self) -> int:
        return len(self._by_device)

    def take_over(self, device_id: int, session: LiveSession, max_sessions: int = 1) -> list[LiveSession]:
        """Registers `session`; returns those it replaces, which are forgotten here."""
        known = self.of(device_id)
        kept = known[len(known) - max_sessions + 1 :] if max_sessions > 1 else []
        replaced = known[: len(known) - len(kept)]
        self._by_device[device_id] = [*kept, session] if kept else session
        return replaced

    def ended(self, device_id: int, session: LiveSession) -> bool:
        """Forgets `session`; whether that was the device's last one."""
        known = self.of(device_id)
        if session not in known:
            return False
        kept = [one for one in known if one is not session]
        if not kept:
            del self._by_device[device_id]
            return True
        self._by_device[device_id] = kept if len(kept) > 1 else kept[0]
        return False

    def of(self, device_id: int) -> list[LiveSession]:
        known = self._by_device.get(device_id)
        if known is None:
            return []
        return known if isinstance(known, list) else [known]
