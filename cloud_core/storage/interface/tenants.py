"""Tenants, whose data are apart from each other."""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

from cloud_core.model import Device, Page, Tenant


class ReadTenants(Protocol):
    def tenant(self, uuid: UUID) -> Tenant | None: ...
    def tenant_by_name(self, name: str) -> Tenant | None: ...
    def tenants(self, page: Page) -> tuple[list[Tenant], int]:
        """One page and the number of all that match, without the system's own."""

    def max_devices(self, tenant_id: int) -> int:
        """How many devices the tenant may have; 0: without limit."""

    def some_devices(self, tenant_id: int, limit: int) -> list[Device]: ...


class WriteTenants(ReadTenants, Protocol):
    def insert_tenant(
        self, uuid: UUID, name: str, *, now_ms: int, max_devices: int = 0, document: dict[str, Any] | None = None
    ) -> None:
        """Does nothing where there is one of that uuid or name."""

    def update_tenant(self, tenant: Tenant) -> None:
        """Writes name, limit and document."""

    def delete_tenant(self, tenant_id: int) -> None:
        """With all that is its own; it has no devices any more."""
