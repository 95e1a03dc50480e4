"""A device that comes in anew over REST (ours): `resetProvisioning` and `replace`."""

from __future__ import annotations

from typing import Any

from twisted.web.http import Request

from cloud_core.core.assignments import entity_uuid
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import CallSupport, answers, json_object, query, raw_body, rest_app, uuid_of
from cloud_core.transports.http.rest import shapes
from shared.errors import InvalidArgument


class ReplacementRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them. With `plan=true` nothing changes."""

    app = rest_app()

    @app.route("/api/device/<uuid>/resetProvisioning", methods=["POST"])
    @answers
    async def reset(self, request: Request, uuid: str) -> Any:
        """The body may be left out, or be `{"newCredentials": true}`: a new access token, and the old login ends."""
        operator = self.operator(request, Act.WRITE_DEVICES)
        body = json_object(request) if _has_body(request) else {}
        done = await self._admin.replacements.reset(
            operator, uuid_of(uuid), has_new_credentials=body.get("newCredentials") is True, is_plan=_is_plan(request)
        )
        return {
            "device": shapes.device_json(done.device, operator.tenant_uuid), "wasProvisioned": done.was_provisioned,
            "newCredentials": done.has_new_credentials, "mayProvision": done.may_provision, "note": done.note or None,
        }  # fmt: skip

    @app.route("/api/device/<uuid>/replace", methods=["POST"])
    @answers
    async def replace(self, request: Request, uuid: str) -> Any:
        """`{"by": {"entityType": "DEVICE", "id": "…"}}`: that unit is this device from now on."""
        operator = self.operator(request, Act.WRITE_DEVICES)
        by = entity_uuid(json_object(request).get("by"), "by")
        if by is None:
            raise InvalidArgument('The body must name the new unit: {"by": {"entityType": "DEVICE", "id": "…"}}')
        done = await self._admin.replacements.swap(operator, uuid_of(uuid), by, is_plan=_is_plan(request))
        return {
            "device": shapes.device_json(done.device, operator.tenant_uuid),
            "unit": shapes.device_json(done.unit, operator.tenant_uuid), "rowsTakenOver": done.rows_taken_over,
            "clientAttributes": list(done.client_attributes),
        }  # fmt: skip


def _has_body(request: Request) -> bool:
    body = raw_body(request)
    assert request.content is not None, "twisted sets it before a route runs"
    request.content.seek(0)
    return bool(body)


def _is_plan(request: Request) -> bool:
    return query(request, "plan").lower() == "true"
