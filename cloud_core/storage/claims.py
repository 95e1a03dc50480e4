"""Claim offers."""

from __future__ import annotations

from cloud_core.storage.connected import Connected


class ReadsClaims(Connected):
    """`ReadClaims` of the interface."""


class WritesClaims(ReadsClaims):
    """`WriteClaims` of the interface."""
