"""Persistent commands (RPC) and server methods."""

from __future__ import annotations

from cloud_core.storage.connected import Connected


class ReadsCommands(Connected):
    """`ReadCommands` of the interface."""


class WritesCommands(ReadsCommands):
    """`WriteCommands` of the interface."""
