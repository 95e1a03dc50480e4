"""Logging in and out, and who one is, over REST (wire-contract.md section 6.1)."""

from __future__ import annotations

from typing import Any

from twisted.web.http import Request

from cloud_core.core.people.permissions import Act
from cloud_core.model import NIL_CUSTOMER
from cloud_core.transports.http.calls import CallSupport, address_of, answers, json_object, rest_app
from cloud_core.transports.http.rest import shapes
from shared import errors


class LoginRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    @app.route("/api/auth/login", methods=["POST"])
    @answers
    async def login(self, request: Request) -> Any:
        body = json_object(request)
        username, password = str(body.get("username") or ""), str(body.get("password") or "")
        return await self._admin.login(username, password, address_of(request))

    @app.route("/api/auth/token", methods=["POST"])
    @answers
    async def refresh(self, request: Request) -> Any:
        return await self._admin.refresh(str(json_object(request).get("refreshToken") or ""))

    @app.route("/api/auth/logout", methods=["POST"])
    @answers
    async def logout(self, request: Request) -> Any:
        """Ends the session: its refresh token is no good any more either."""
        await self._admin.logout(self.operator(request, Act.USE_OWN_LOGIN))

    @app.route("/api/auth/changePassword", methods=["POST"])
    @answers
    async def change_password(self, request: Request) -> Any:
        """`currentPassword` and `newPassword`; answers with tokens, for all others have ended."""
        operator, body = self.operator(request, Act.USE_OWN_LOGIN), json_object(request)
        current, new = str(body.get("currentPassword") or ""), body.get("newPassword")
        return await self._admin.change_password(operator, current, new, address_of(request))

    @app.route("/api/auth/user", methods=["GET"])
    @answers
    async def user(self, request: Request) -> Any:
        """Who one is; a program with an API key, or this machine's own token, is no user and has fewer members."""
        operator = self.operator(request, Act.USE_OWN_LOGIN)
        try:
            known = await self._admin.user(operator)
        except errors.NotFound:
            known = None
        if known is not None and known.uuid == operator.user_uuid:  # a key may be called as some user is
            user = shapes.user_json(known, operator.tenant_uuid, operator.customer_uuid)
            return user | {"role": operator.shown_role}
        return {
            "id": shapes.entity_id("USER", operator.user_uuid), "email": operator.username, "name": operator.username,
            "authority": operator.authority, "role": operator.shown_role,
            "tenantId": shapes.entity_id("TENANT", operator.tenant_uuid),
            "customerId": shapes.entity_id("CUSTOMER", operator.customer_uuid or NIL_CUSTOMER),
        }  # fmt: skip
