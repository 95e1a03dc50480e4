"""Customers and their devices over REST (wire-contract.md section 6.3)."""

from __future__ import annotations

from typing import Any

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import (
    CallSupport,
    answers,
    json_object,
    page_of,
    query,
    rest_app,
    shaped,
    uuid_of,
)
from cloud_core.transports.http.rest import shapes


class CustomerRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._customers = admin.customers

    @app.route("/api/customer", methods=["POST"])
    @answers
    async def save(self, request: Request) -> Any:
        operator = self.operator(request, Act.ADMINISTER)
        return shapes.customer_json(await self._customers.save(operator, json_object(request)), operator.tenant_uuid)

    @app.route("/api/customer/<uuid>", methods=["GET"])
    @answers
    async def find(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ)
        return shapes.customer_json(await self._customers.find(operator, uuid_of(uuid)), operator.tenant_uuid)

    @app.route("/api/customer/<uuid>", methods=["DELETE"])
    @answers
    async def delete(self, request: Request, uuid: str) -> Any:
        await self._customers.delete(self.operator(request, Act.ADMINISTER), uuid_of(uuid))

    @app.route("/api/customers", methods=["GET"])
    @answers
    async def list(self, request: Request) -> Any:
        operator, page = self.operator(request, Act.READ), page_of(request)
        rows, total = await self._customers.list(operator, page)
        members = [shapes.customer_json(one, operator.tenant_uuid) for one in rows]
        return shapes.page_json(members, total, page.size, page.page)

    @app.route("/api/customer/<customer>/device/<device>", methods=["POST"])
    @answers
    async def give(self, request: Request, customer: str, device: str) -> Any:
        operator = self.operator(request, Act.WRITE_DEVICES)
        given = await self._customers.give(operator, uuid_of(customer), uuid_of(device))
        return shapes.device_json(given, operator.tenant_uuid)

    @app.route("/api/customer/device/<device>", methods=["DELETE"])
    @answers
    async def take_back(self, request: Request, device: str) -> Any:
        operator = self.operator(request, Act.WRITE_DEVICES)
        return shapes.device_json(await self._customers.take_back(operator, uuid_of(device)), operator.tenant_uuid)

    @app.route("/api/customer/<uuid>/devices", methods=["GET"])
    @answers
    async def devices(self, request: Request, uuid: str) -> Any:
        operator, page = self.operator(request, Act.READ_DEVICES), page_of(request)
        rows, total = await self._customers.devices(operator, uuid_of(uuid), page, query(request, "type"))

        def made() -> Any:
            members = [shapes.device_json(one, operator.tenant_uuid) for one in rows]
            return shapes.page_json(members, total, page.size, page.page)

        return await shaped(request, rows, made)

    @app.route("/api/device/info/<uuid>", methods=["GET"])
    @answers
    async def device_info(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ_DEVICES)
        info = await self._customers.device_info(operator, uuid_of(uuid))
        return shapes.device_info_json(info.device, info.customer, info.is_active, operator.tenant_uuid)
