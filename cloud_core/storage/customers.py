"""Customers and their users."""

from __future__ import annotations

from cloud_core.storage.connected import Connected


class ReadsCustomers(Connected):
    """`ReadCustomers` of the interface."""


class WritesCustomers(ReadsCustomers):
    """`WriteCustomers` of the interface."""
