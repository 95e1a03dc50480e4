"""Gateways and what is behind them, in pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cloud_core.model import Device, DevicePresence, Page


@dataclass(frozen=True, slots=True)
class DeviceLine:
    """A device of such a list. `sub_devices`: how many are behind it, `active_sub_devices` how many of them speak."""

    device: Device
    presence: DevicePresence
    sub_devices: int = 0
    active_sub_devices: int = 0


class ReadGatewayLists(Protocol):
    def gateway_page(self, tenant_id: int, page: Page) -> tuple[list[DeviceLine], int]:
        """A page of the devices that are gateways, and the number of all that match."""

    def sub_device_page(self, tenant_id: int, gateway_id: int, page: Page) -> tuple[list[DeviceLine], int]:
        """A page of the devices whose last connection came through the gateway."""

    def gateway_line(self, device: Device) -> DeviceLine:
        """The same of one device."""
