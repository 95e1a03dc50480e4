"""Presence of devices, and how it shows as server attributes."""

from __future__ import annotations

from cloud_core.storage.connected import Connected


class ReadsPresence(Connected):
    """`ReadPresence` of the interface."""


class WritesPresence(ReadsPresence):
    """`WritePresence` of the interface."""
