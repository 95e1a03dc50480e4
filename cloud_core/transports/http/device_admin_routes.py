"""Devices and their credentials for operators (wire-contract.md section 6.3)."""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.http import Request
from werkzeug import exceptions as routing

from cloud_core.core.assignments import entity_uuid
from cloud_core.core.permissions import Act
from cloud_core.transports.http import shapes
from cloud_core.transports.http.calls import (
    CallSupport,
    answers,
    json_body,
    json_object,
    no_route,
    page_of,
    query,
    uuid_of,
)
from cloud_core.transports.http.relation_routes import device_search_from
from shared.errors import InvalidArgument, MalformedRequest


class DeviceAdminRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = Klein()

    @app.handle_errors(routing.NotFound, routing.MethodNotAllowed)
    def no_route(self, request: Request, failure: Failure) -> bytes:
        return no_route(request, failure)

    @app.route("/api/device", methods=["POST"])
    @answers
    async def save_device(self, request: Request) -> Any:
        operator = self.operator(request)
        saved = await self._admin.save_device(operator, json_object(request), query(request, "accessToken"))
        return shapes.device_json(saved, operator.tenant_uuid)

    @app.route("/api/device-with-credentials", methods=["POST"])
    @answers
    async def save_device_with_credentials(self, request: Request) -> Any:
        operator = self.operator(request)
        body = json_object(request)
        for part in ("device", "credentials"):
            if not isinstance(body.get(part), dict):
                raise InvalidArgument(f"Validation error: {part} must not be null")
        brought = shapes.credentials_from(body["credentials"])
        saved = await self._admin.save_device(operator, body["device"], credentials=brought)
        return shapes.device_json(saved, operator.tenant_uuid)

    @app.route("/api/devices", methods=["POST"])
    @answers
    async def save_devices(self, request: Request) -> Any:
        """An array creates or updates; an object is ThingsBoard's search by relations."""
        operator = self.operator(request)
        rows = json_body(request)
        if isinstance(rows, dict):
            found = await self._admin.related_devices(operator, device_search_from(rows))
            return [shapes.device_json(one, operator.tenant_uuid) for one in found]
        if not isinstance(rows, list):
            raise MalformedRequest("The body must be an array of devices")
        return await self._admin.save_devices(operator, rows, is_plan=query(request, "plan").lower() == "true")

    @app.route("/api/device/<uuid>", methods=["GET"])
    @answers
    async def device(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ_DEVICES)
        return shapes.device_json(await self._admin.device(operator, uuid_of(uuid)), operator.tenant_uuid)

    @app.route("/api/device/<uuid>", methods=["DELETE"])
    @answers
    async def delete_device(self, request: Request, uuid: str) -> Any:
        await self._admin.delete_device(self.operator(request), uuid_of(uuid))

    @app.route("/api/tenant/device", methods=["GET"])
    @answers
    async def device_by_name(self, request: Request) -> Any:
        operator = self.operator(request)
        found = await self._admin.device_by_name(operator, query(request, "deviceName"))
        return shapes.device_json(found, operator.tenant_uuid)

    @app.route("/api/tenant/devices", methods=["GET"])
    @answers
    async def devices(self, request: Request) -> Any:
        """A page, or with `deviceName=` a single device: the same path, as in ThingsBoard."""
        operator = self.operator(request)
        if query(request, "deviceName"):
            found = await self._admin.device_by_name(operator, query(request, "deviceName"))
            return shapes.device_json(found, operator.tenant_uuid)
        page = page_of(request)
        rows, total = await self._admin.devices(operator, page, query(request, "type"))
        shaped = [shapes.device_json(one, operator.tenant_uuid) for one in rows]
        return shapes.page_json(shaped, total, page.size, page.page)

    @app.route("/api/device/<uuid>/credentials", methods=["GET"])
    @answers
    async def credentials(self, request: Request, uuid: str) -> Any:
        stored = await self._admin.credentials(self.operator(request), uuid_of(uuid))
        return shapes.credentials_json(stored, uuid_of(uuid))

    @app.route("/api/device/credentials", methods=["POST"])
    @answers
    async def save_credentials(self, request: Request) -> Any:
        operator = self.operator(request)
        body = json_object(request)
        owner = body.get("deviceId")
        if not isinstance(owner, dict) or not owner.get("id"):
            raise InvalidArgument("Device credentials should be assigned to device!")
        uuid, known = uuid_of(str(owner["id"])), entity_uuid(body.get("id"), "id")
        version = body.get("version") if isinstance(body.get("version"), int) else None
        stored = await self._admin.save_credentials(
            operator, uuid, shapes.credentials_from(body), known_uuid=known, version=version
        )
        return shapes.credentials_json(stored, uuid)
