"""Customers, whom devices can be given to, and their users."""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

from cloud_core.model import Customer, Page


class ReadCustomers(Protocol):
    def customer(self, tenant_id: int, uuid: UUID) -> Customer | None: ...
    def customer_by_id(self, customer_id: int) -> Customer | None: ...
    def customer_by_title(self, tenant_id: int, title: str) -> Customer | None: ...
    def customers(self, tenant_id: int, page: Page) -> tuple[list[Customer], int]:
        """One page and the number of all that match."""


class WriteCustomers(ReadCustomers, Protocol):
    def insert_customer(
        self, *, uuid: UUID, tenant_id: int, title: str, document: dict[str, Any], created_ms: int
    ) -> int: ...
    def update_customer(self, customer: Customer) -> None:
        """Writes title and document; raises VersionConflict."""

    def delete_customer(self, customer_id: int) -> None:
        """Its devices go back to nobody; its users go with it."""

    def assign_device(self, device_id: int, customer_id: int | None) -> None:
        """Gives the device to a customer, or to nobody; its version grows."""
