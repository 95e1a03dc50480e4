"""What an operator does to many devices in one call (ours; ThingsBoard has a call per device)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.web.http import Request

from cloud_core.core.people.permissions import Act
from cloud_core.model import Scope
from cloud_core.transports.http.calls import CallSupport, answers, json_object, rest_app
from shared import payloads
from shared.device_json import render_json
from shared.errors import InvalidArgument

MAX_DEVICES = 10_000
_SCOPES = {"SHARED_SCOPE": Scope.SHARED, "SERVER_SCOPE": Scope.SERVER}


class FleetRoutes(CallSupport):
    """Routes that name several devices."""

    app = rest_app()

    @app.route("/api/devices/attributes/<scope>", methods=["POST"])
    @answers
    async def save_attributes(self, request: Request, scope: str) -> Any:
        """`{"deviceIds": ["…"], "values": {"limit": 42}}`; answers `{"devices": N}` once all is on disk."""
        operator = self.operator(request, Act.WRITE_DATA)
        body = json_object(request)
        if scope not in _SCOPES:
            raise InvalidArgument(f"Invalid scope: {scope}")
        ids, values = body.get("deviceIds"), body.get("values")
        if not isinstance(ids, list) or not 0 < len(ids) <= MAX_DEVICES:
            raise InvalidArgument(f"deviceIds must be an array of 1 to {MAX_DEVICES} ids")
        if not isinstance(values, dict) or not values:
            raise InvalidArgument("values must be an object of at least one attribute")
        attributes = payloads.parse_attributes(render_json(values))
        await self._admin.put_attributes_of(operator, [_uuid(one) for one in ids], _SCOPES[scope], attributes)
        return {"devices": len(ids)}


def _uuid(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError as error:
        raise InvalidArgument(f"deviceIds: {str(value)[:40]!r} is no valid id") from error
