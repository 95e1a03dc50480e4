"""Claiming over REST (wire-contract.md section 6.3)."""

from __future__ import annotations

from typing import Any

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi, answered
from cloud_core.core.claiming import ClaimsApi
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import CallSupport, answers, raw_body, rest_app
from cloud_core.transports.http.rest import shapes
from shared.device_json import parse_claim
from shared.errors import NotAuthorized
from shared.json_bodies import MAX_BODY_BYTES


class ClaimRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi, claims: ClaimsApi) -> None:
        super().__init__(admin)
        self._claims = claims

    @app.route("/api/customer/device/<name>/claim", methods=["POST"])
    @answers
    async def claim(self, request: Request, name: str) -> Any:
        """400 with the JSON text "FAILURE" or "CLAIMED" when the device is not the customer's now."""
        operator = self.operator(request, Act.CLAIM)
        customer_id = operator.customer_id
        if customer_id is None:
            raise NotAuthorized
        shown = parse_claim(raw_body(request, MAX_BODY_BYTES))
        outcome, device = await answered(
            lambda done: self._claims.claim(operator.tenant_id, customer_id, name, shown.secret, done, by=operator)
        )
        if device is None:
            request.setResponseCode(400)
            return outcome.value
        return {"device": shapes.device_json(device, operator.tenant_uuid), "response": outcome.value}

    @app.route("/api/customer/device/<name>/claim", methods=["DELETE"])
    @answers
    async def give_back(self, request: Request, name: str) -> Any:
        operator = self.operator(request, Act.GIVE_BACK)
        await answered(
            lambda done: self._claims.give_back(operator.tenant_id, operator.customer_id, name, done, by=operator)
        )
