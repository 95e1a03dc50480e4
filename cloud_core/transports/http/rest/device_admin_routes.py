"""Devices and their credentials for operators (wire-contract.md section 6.3)."""

from __future__ import annotations

from typing import Any

from twisted.web.http import Request

from cloud_core.core.assignments import entity_uuid
from cloud_core.core.downlinks import Interest, Link
from cloud_core.core.people.permissions import Act
from cloud_core.core.unique_names import Naming, Suffix
from cloud_core.model import DeviceFilter
from cloud_core.transports.http.calls import (
    CallSupport,
    answers,
    json_body,
    json_object,
    page_of,
    query,
    rest_app,
    shaped,
    uuid_of,
)
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.rest.relation_routes import device_search_from
from shared.errors import InvalidArgument, MalformedRequest

MAX_IDS = 400  # about as many as the first line of a request can hold
_POLICIES = ("FAIL", "UNIQUIFY")


class DeviceAdminRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    @app.route("/api/device", methods=["POST"])
    @answers
    async def save_device(self, request: Request) -> Any:
        """Creates, or with `id` updates. With `nameConflictPolicy=UNIQUIFY` a name that is taken gets a suffix."""
        operator = self.operator(request, Act.WRITE_DEVICES)
        saved = await self._admin.save_device(
            operator, json_object(request), query(request, "accessToken"), naming=_naming(request)
        )
        return shapes.device_json(saved, operator.tenant_uuid)

    @app.route("/api/device-with-credentials", methods=["POST"])
    @answers
    async def save_device_with_credentials(self, request: Request) -> Any:
        """`{"device": {…}, "credentials": {…}}`; else as POST /api/device."""
        operator = self.operator(request, Act.WRITE_DEVICES)
        body = json_object(request)
        for part in ("device", "credentials"):
            if not isinstance(body.get(part), dict):
                raise InvalidArgument(f"Validation error: {part} must not be null")
        brought = shapes.credentials_from(body["credentials"])
        saved = await self._admin.save_device(operator, body["device"], credentials=brought, naming=_naming(request))
        return shapes.device_json(saved, operator.tenant_uuid)

    @app.route("/api/devices", methods=["POST"])
    @answers
    async def save_devices(self, request: Request) -> Any:
        """An array creates or updates; an object is ThingsBoard's search by relations."""
        operator = self.operator(request, Act.READ)
        rows = json_body(request)
        if isinstance(rows, dict):
            found = await self._admin.related_devices(operator, device_search_from(rows))
            tenant = operator.tenant_uuid
            return await shaped(request, found, lambda: [shapes.device_json(one, tenant) for one in found])
        if not isinstance(rows, list):
            raise MalformedRequest("The body must be an array of devices")
        self.operator(request, Act.WRITE_DEVICES)
        return await self._admin.save_devices(operator, rows, is_plan=query(request, "plan").lower() == "true")

    @app.route("/api/devices", methods=["GET"])
    @answers
    async def devices_by_ids(self, request: Request) -> Any:
        """The devices of `deviceIds`, a comma list; those that do not exist are left out."""
        operator = self.operator(request, Act.READ)
        ids = [one.strip() for one in query(request, "deviceIds").split(",") if one.strip()]
        if not 0 < len(ids) <= MAX_IDS:
            raise InvalidArgument(f"deviceIds must be a comma list of 1 to {MAX_IDS} ids")
        uuids = [uuid for one in ids if (uuid := entity_uuid(one, "deviceIds")) is not None]
        found = await self._admin.devices_by_ids(operator, uuids)
        return [shapes.device_json(one, operator.tenant_uuid) for one in found]

    @app.route("/api/device/types", methods=["GET"])
    @answers
    async def types(self, request: Request) -> Any:
        """The types that devices can have, which are the names of the device profiles."""
        operator = self.operator(request, Act.READ)
        tenant = shapes.entity_id("TENANT", operator.tenant_uuid)
        names = await self._admin.profile_names(operator)
        return [{"tenantId": tenant, "entityType": "DEVICE", "type": name} for _, name in names]

    @app.route("/api/device/<uuid>", methods=["GET"])
    @answers
    async def device(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ_DEVICES)
        return shapes.device_json(await self._admin.device(operator, uuid_of(uuid)), operator.tenant_uuid)

    @app.route("/api/device/<uuid>/connections", methods=["GET"])
    @answers
    async def connections(self, request: Request, uuid: str) -> Any:
        """What is open of the device now, at all nodes. `silentNodes`: how many have not answered in time."""
        device = await self._admin.device(self.operator(request, Act.READ_DEVICES), uuid_of(uuid))
        found = await self._admin.whereabouts.links(device.id)
        return {"connections": [_link_json(one) for one in found.links], "silentNodes": found.silent}

    @app.route("/api/device/<uuid>", methods=["DELETE"])
    @answers
    async def delete_device(self, request: Request, uuid: str) -> Any:
        await self._admin.delete_device(self.operator(request, Act.WRITE_DEVICES), uuid_of(uuid))

    @app.route("/api/tenant/device", methods=["GET"])
    @answers
    async def device_by_name(self, request: Request) -> Any:
        operator = self.operator(request, Act.READ)
        found = await self._admin.device_by_name(operator, query(request, "deviceName"))
        return shapes.device_json(found, operator.tenant_uuid)

    @app.route("/api/tenant/devices", methods=["GET"])
    @answers
    async def devices(self, request: Request) -> Any:
        """A page, or with `deviceName=` a single device: the same path, as in ThingsBoard."""
        operator = self.operator(request, Act.READ)
        if query(request, "deviceName"):
            found = await self._admin.device_by_name(operator, query(request, "deviceName"))
            return shapes.device_json(found, operator.tenant_uuid)
        page = page_of(request)
        rows, total = await self._admin.devices(operator, page, DeviceFilter(profile_name=query(request, "type")))

        def made() -> Any:
            members = [shapes.device_json(one, operator.tenant_uuid) for one in rows]
            return shapes.page_json(members, total, page.size, page.page)

        return await shaped(request, rows, made)

    @app.route("/api/tenant/deviceInfos", methods=["GET"])
    @app.route("/api/deviceInfos/all", methods=["GET"])
    @answers
    async def infos(self, request: Request) -> Any:
        """A page of devices with their customer, profile and activity; by `type` or `deviceProfileId`, and `active`."""
        operator, page = self.operator(request, Act.READ), page_of(request)
        wanted = DeviceFilter(
            profile_name=query(request, "type"),
            profile_uuid=entity_uuid(query(request, "deviceProfileId") or None, "deviceProfileId"),
            is_active=_flag(request, "active"),
        )
        rows, total = await self._admin.customers.device_infos(operator, page, wanted)

        def made() -> Any:
            members = [
                shapes.device_info_json(one.device, one.customer, one.is_active, operator.tenant_uuid) for one in rows
            ]
            return shapes.page_json(members, total, page.size, page.page)

        return await shaped(request, rows, made)

    @app.route("/api/device/<uuid>/credentials", methods=["GET"])
    @answers
    async def credentials(self, request: Request, uuid: str) -> Any:
        stored = await self._admin.credentials(self.operator(request, Act.READ_CREDENTIALS), uuid_of(uuid))
        return shapes.credentials_json(stored, uuid_of(uuid))

    @app.route("/api/device/credentials", methods=["POST"])
    @answers
    async def save_credentials(self, request: Request) -> Any:
        operator = self.operator(request, Act.WRITE_DEVICES)
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


def _link_json(link: Link) -> dict[str, Any]:
    """`commands` and `attributes`: whether it wants to be told of them. `peer` is null where it is not known."""
    return {
        "transport": link.whereabouts.transport, "peer": link.whereabouts.peer or None,
        "commands": Interest.COMMANDS in link.interest, "attributes": Interest.ATTRIBUTES in link.interest,
    }  # fmt: skip


def _naming(request: Request) -> Naming:
    """Of the query: `nameConflictPolicy`, `uniquifySeparator` and `uniquifyStrategy`. Raises: InvalidArgument."""
    policy = query(request, "nameConflictPolicy", "FAIL")
    if policy not in _POLICIES:
        raise InvalidArgument(f"The parameter 'nameConflictPolicy' must be one of {', '.join(_POLICIES)}")
    strategy = query(request, "uniquifyStrategy", Suffix.RANDOM)
    if strategy not in tuple(Suffix):
        raise InvalidArgument(f"The parameter 'uniquifyStrategy' must be one of {', '.join(Suffix)}")
    return Naming(policy == "UNIQUIFY", query(request, "uniquifySeparator", "_"), Suffix(strategy))


def _flag(request: Request, name: str) -> bool | None:
    """None where it is not given. Raises: InvalidArgument."""
    text = query(request, name).lower()
    if text not in ("", "true", "false"):
        raise InvalidArgument(f"The parameter '{name}' must be true or false")
    return None if not text else text == "true"
