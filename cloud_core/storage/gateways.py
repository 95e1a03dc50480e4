"""Sub-devices, aliases, tombstones and relations."""

from __future__ import annotations

from cloud_core.storage.connected import Connected


class ReadsGateways(Connected):
    """`ReadGateways` of the interface."""


class WritesGateways(ReadsGateways):
    """`WriteGateways` of the interface."""
