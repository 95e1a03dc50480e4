"""When devices connect, speak and fall silent: gathered in memory, written together every few seconds.

Source: wire-contract.md section 6.3 (`active`, `lastConnectTime` and so on), G8 and G9 of section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cloud_core.storage.interface import Store

DEFAULT_INACTIVITY_S = 600.0


class Presence:
    """Nothing here waits for the disk: what a crash loses is a few seconds of presence."""

    def __init__(self, *, store: Store, now_ms: Callable[[], int], inactivity_s: float = DEFAULT_INACTIVITY_S) -> None:
        self._store = store
        self._now_ms = now_ms
        self._inactivity_s = inactivity_s

    def start(self) -> None:
        """Reads who was active when the core stopped."""

    def connected(self, device_id: int) -> None:
        """A session was opened."""

    def disconnected(self, device_id: int) -> None:
        """The device's last session ended."""

    def seen(self, device_id: int) -> None:
        """The device said something. On the path of every message."""

    def all_seen(self, device_ids: Iterable[int]) -> None:
        """As `seen` for many."""

    def forget(self, device_id: int) -> None:
        """The device was deleted."""

    def timeout_changed(self, device_id: int, timeout_ms: int | None) -> None:
        """The server attribute `inactivityTimeout` was written or deleted."""

    def flush(self) -> None:
        """Called every few seconds: writes what has changed."""

    def check(self) -> None:
        """Called once a minute: who has been silent for too long is not active any more."""
