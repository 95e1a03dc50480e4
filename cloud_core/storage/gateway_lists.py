"""Gateways and what is behind them: a page costs the counts of its own lines alone."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam as p
from sqlalchemy import case, func, select

from cloud_core.model import Device, DevicePresence, Page
from cloud_core.storage.connected import Connected, by_index
from cloud_core.storage.interface.gateway_lists import DeviceLine
from cloud_core.storage.schema import device, device_profile, is_gateway, presence, sub_device
from cloud_core.storage.statements import device_rows

_SORT: dict[str, Any] = {
    "createdTime": device.c.created_ms, "name": device.c.name, "label": device.c.label, "type": device_profile.c.name,
}  # fmt: skip
_SEARCHED = (device.c.name, device.c.label, device_profile.c.name)
_COUNTS = (
    select(func.count(), func.coalesce(func.sum(case((presence.c.is_active.is_(True), 1), else_=0)), 0))
    .select_from(sub_device)
    .outerjoin(presence, presence.c.device_id == sub_device.c.device_id)
    .where(sub_device.c.gateway_id == p("gateway_id"))
)


class ReadsGatewayLists(Connected):
    """`ReadGatewayLists` of the interface."""

    def gateway_page(self, tenant_id: int, page: Page) -> tuple[list[DeviceLine], int]:
        wanted = select(device.c.id).where(device.c.tenant_id == tenant_id, is_gateway)
        if page.text_search or page.sort_property == "type":
            wanted = wanted.join(device_profile, device.c.profile_id == device_profile.c.id)
        plan = by_index(device, "device_gateways")
        rows, total = self._page(wanted, page, _SORT, _SEARCHED, plan=plan, whole=device_rows)
        return [self.gateway_line(self._found_device(row)) for row in rows], total

    def sub_device_page(self, tenant_id: int, gateway_id: int, page: Page) -> tuple[list[DeviceLine], int]:
        """What is behind a gateway is of its tenant: asked for that, SQLite would look through all its devices."""
        wanted = device_rows.join(sub_device, sub_device.c.device_id == device.c.id).where(
            sub_device.c.gateway_id == gateway_id
        )
        rows, total = self._page(wanted, page, _SORT, _SEARCHED)
        found = [self._found_device(row) for row in rows]
        return [DeviceLine(one, self._presence_of(one.id)) for one in found], total

    def gateway_line(self, device: Device) -> DeviceLine:
        count, active = self._row(self._once(_COUNTS), gateway_id=device.id)
        return DeviceLine(device, self._presence_of(device.id), int(count), int(active))

    def _presence_of(self, device_id: int) -> DevicePresence:
        return self.presence(device_id) or DevicePresence(device_id=device_id)

    def presence(self, device_id: int) -> DevicePresence | None:
        raise NotImplementedError

    def _found_device(self, row: Any) -> Device:
        raise NotImplementedError
