"""Pages of devices, and the names of their profiles."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from cloud_core.model import EVERY_DEVICE, Customer, Device, DeviceFilter, DeviceStage, Page


class ReadDeviceLists(Protocol):
    def devices(
        self, tenant_id: int, page: Page, wanted: DeviceFilter = EVERY_DEVICE, *, customer_id: int | None = None
    ) -> tuple[list[Device], int]:
        """One page and the number of all that match; with `customer_id` of this customer's.

        A number that takes long to count may be some seconds old.
        """

    def devices_after(
        self, tenant_id: int, after: str, limit: int, text: str, wanted: DeviceFilter, *, customer_id: int | None = None
    ) -> list[Device]:
        """The next ones by name behind the name `after`; those with `text` in their name, label or profile."""

    def device_stages(self, devices: list[Device]) -> list[DeviceStage]:
        """For each device how far it has come."""

    def device_places(self, devices: list[Device]) -> list[tuple[Customer | None, bool]]:
        """For each device its customer, and whether it is active."""

    def profile_names(self, tenant_id: int, *, is_used: bool = False) -> list[tuple[UUID, str]]:
        """Uuid and name of every profile by name; with `is_used` of those that have devices."""
