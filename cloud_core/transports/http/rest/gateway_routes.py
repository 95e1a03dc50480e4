"""Gateways as trees over REST (ours): the list, one gateway, and a page of what is behind it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.web.http import Request

from cloud_core.core.people.permissions import Act
from cloud_core.storage.interface.gateway_lists import DeviceLine
from cloud_core.transports.http.calls import CallSupport, answers, page_of, rest_app, uuid_of
from cloud_core.transports.http.rest import shapes


class GatewayRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    @app.route("/api/gateways", methods=["GET"])
    @answers
    async def list(self, request: Request) -> Any:
        operator, page = self.operator(request, Act.READ), page_of(request)
        found, total = await self._admin.lists.gateways(operator, page)
        rows = [gateway_json(one, operator.tenant_uuid) for one in found]
        return shapes.page_json(rows, total, page.size, page.page)

    @app.route("/api/gateway/<uuid>", methods=["GET"])
    @answers
    async def one(self, request: Request, uuid: str) -> Any:
        """`behind` is the gateway that the device is behind itself."""
        operator = self.operator(request, Act.READ)
        view = await self._admin.lists.gateway(operator, uuid_of(uuid))
        behind = None if view.behind is None else {"name": view.behind.name, "id": str(view.behind.uuid)}
        return gateway_json(view.line, operator.tenant_uuid) | {"behind": behind}

    @app.route("/api/gateway/<uuid>/devices", methods=["GET"])
    @answers
    async def behind(self, request: Request, uuid: str) -> Any:
        operator, page = self.operator(request, Act.READ), page_of(request)
        found, total = await self._admin.lists.sub_devices(operator, uuid_of(uuid), page)
        rows = [line_json(one, operator.tenant_uuid) for one in found]
        return shapes.page_json(rows, total, page.size, page.page)


def line_json(line: DeviceLine, tenant: UUID) -> dict[str, Any]:
    """A device and its link; times in ms, None for never."""
    seen = line.presence
    return {
        **shapes.device_json(line.device, tenant), "gateway": line.device.is_gateway, "active": seen.is_active,
        "connected": seen.last_connect_ms > seen.last_disconnect_ms,
        "lastConnectTime": seen.last_connect_ms or None, "lastDisconnectTime": seen.last_disconnect_ms or None,
        "lastActivityTime": seen.last_activity_ms or None,
    }  # fmt: skip


def gateway_json(line: DeviceLine, tenant: UUID) -> dict[str, Any]:
    return line_json(line, tenant) | {"subDevices": line.sub_devices, "activeSubDevices": line.active_sub_devices}
