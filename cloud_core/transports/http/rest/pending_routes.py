"""Provision requests that wait for an operator, over REST: ours, ThingsBoard has none."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.permissions import Act
from cloud_core.model import PendingFilter, PendingRequest, RequestStatus
from cloud_core.transports.http.calls import CallSupport, answers, json_object, query, rest_app, uuid_of
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.rest.audit_routes import newest_first
from shared.errors import InvalidArgument

_FILTERS = ("profileId", "textSearch", "source", "keyName")


class PendingRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._approvals = admin.approvals

    @app.route("/api/provisioning/pending", methods=["GET"])
    @answers
    async def list(self, request: Request) -> Any:
        """`status` (PENDING unless it says otherwise; ANY), `profileId`, `source`, `keyName`, `textSearch`."""
        operator, page = self.operator(request, Act.WRITE_DEVICES), newest_first(request)
        profile = query(request, "profileId")
        wanted = PendingFilter(
            status=_status(query(request, "status", "PENDING")), profile_uuid=uuid_of(profile) if profile else None,
            source=query(request, "source"), key_name=query(request, "keyName"),
        )  # fmt: skip
        rows, total = await self._approvals.page(operator, wanted, page)
        return shapes.page_json([pending_json(one) for one in rows], total, page.size, page.page)

    @app.route("/api/provisioning/pending/accept", methods=["POST"])
    @answers
    async def accept_all(self, request: Request) -> Any:
        return await self._decide_all(request, RequestStatus.ACCEPTED)

    @app.route("/api/provisioning/pending/reject", methods=["POST"])
    @answers
    async def reject_all(self, request: Request) -> Any:
        return await self._decide_all(request, RequestStatus.REJECTED)

    @app.route("/api/provisioning/pending/<uuid>/accept", methods=["POST"])
    @answers
    async def accept(self, request: Request, uuid: str) -> Any:
        return await self._decide(request, uuid, RequestStatus.ACCEPTED)

    @app.route("/api/provisioning/pending/<uuid>/reject", methods=["POST"])
    @answers
    async def reject(self, request: Request, uuid: str) -> Any:
        return await self._decide(request, uuid, RequestStatus.REJECTED)

    async def _decide(self, request: Request, uuid: str, status: RequestStatus) -> Any:
        operator = self.operator(request, Act.WRITE_DEVICES)
        return pending_json(await self._approvals.decide(operator, uuid_of(uuid), status))

    async def _decide_all(self, request: Request, status: RequestStatus) -> Any:
        """`profileId`, `source`, `keyName`, `textSearch`, or `all`: those that wait and match all that is given."""
        operator, body = self.operator(request, Act.WRITE_DEVICES), json_object(request)
        texts = {name: _text(body, name) for name in _FILTERS}
        if not any(texts.values()) and body.get("all") is not True:
            raise InvalidArgument(f'Say which: one of {", ".join(_FILTERS)}, or "all": true')
        profile: UUID | None = uuid_of(texts["profileId"]) if texts["profileId"] else None
        wanted = PendingFilter(profile_uuid=profile, source=texts["source"], key_name=texts["keyName"])
        names: Any = []
        while True:
            decided = await self._approvals.decide_all(operator, wanted, texts["textSearch"], status)
            if not decided:
                return {"count": len(names), "names": names}
            names += decided


def pending_json(one: PendingRequest) -> dict[str, Any]:
    return {
        "id": shapes.entity_id("PROVISION_REQUEST", one.uuid), "status": one.status.value, "name": one.name,
        "profileName": one.profile_name, "source": one.source, "transport": one.transport,
        "keyName": one.key_name or None, "gateway": one.is_gateway, "firstTime": one.first_ms,
        "lastTime": one.last_ms, "count": one.count, "validUntil": one.until_ms,
    }  # fmt: skip


def _status(text: str) -> RequestStatus | None:
    if text.upper() == "ANY":
        return None
    try:
        return RequestStatus(text.upper())
    except ValueError as error:
        raise InvalidArgument(f"status must be ANY or one of {', '.join(RequestStatus)}") from error


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(f"Validation error: {name} must be a string")
    return value or ""
