"""Tenants over REST, for system administrators; ThingsBoard's TenantController."""

from __future__ import annotations

from typing import Any

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import CallSupport, answers, json_object, page_of, query, rest_app, uuid_of
from cloud_core.transports.http.rest import shapes


class TenantRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._tenants = admin.tenants
        self._users = admin.users

    @app.route("/api/tenant", methods=["POST"])
    @answers
    async def save(self, request: Request) -> Any:
        """`title`; `maxDevices` (0: without limit), and what ThingsBoard's tenants have."""
        operator = self.operator(request, Act.ADMINISTER_TENANTS)
        return shapes.tenant_json(await self._tenants.save(operator, json_object(request)))

    @app.route("/api/tenant/<uuid>", methods=["GET"])
    @answers
    async def find(self, request: Request, uuid: str) -> Any:
        self.operator(request, Act.ADMINISTER_TENANTS)
        return shapes.tenant_json(await self._tenants.find(uuid_of(uuid)))

    @app.route("/api/tenant/<uuid>", methods=["DELETE"])
    @answers
    async def delete(self, request: Request, uuid: str) -> Any:
        """With its devices only where `withDevices=true` says so."""
        operator = self.operator(request, Act.ADMINISTER_TENANTS)
        await self._tenants.delete(
            operator, uuid_of(uuid), with_devices=query(request, "withDevices").lower() == "true"
        )

    @app.route("/api/tenants", methods=["GET"])
    @answers
    async def list(self, request: Request) -> Any:
        self.operator(request, Act.ADMINISTER_TENANTS)
        page = page_of(request)
        rows, total = await self._tenants.list(page)
        return shapes.page_json([shapes.tenant_json(one) for one in rows], total, page.size, page.page)

    @app.route("/api/tenant/<uuid>/users", methods=["GET"])
    @answers
    async def administrators(self, request: Request, uuid: str) -> Any:
        """The tenant's own users; those of its customers are its own business."""
        self.operator(request, Act.ADMINISTER_TENANTS)
        page = page_of(request)
        rows, total = await self._users.list_of_tenant(uuid_of(uuid), page)
        shaped = [shapes.user_json(one.user, one.tenant_uuid, one.customer_uuid) for one in rows]
        return shapes.page_json(shaped, total, page.size, page.page)
