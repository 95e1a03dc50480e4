"""Firmware and software packages."""

from __future__ import annotations

from cloud_core.storage.connected import Connected


class ReadsPackages(Connected):
    """`ReadPackages` of the interface."""


class WritesPackages(ReadsPackages):
    """`WritePackages` of the interface."""
