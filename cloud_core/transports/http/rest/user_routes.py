"""Users and API keys over REST (wire-contract.md section 6.1; ThingsBoard's UserController and ApiKeyController)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.permissions import Act
from cloud_core.model import ApiKey
from cloud_core.transports.http.calls import (
    CallSupport,
    answers,
    json_object,
    page_of,
    rest_app,
    uuid_of,
)
from cloud_core.transports.http.rest import shapes


class UserRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._users = admin.users
        self._keys = admin.api_keys

    # -- users ------------------------------------------------------------------------------------

    @app.route("/api/user", methods=["POST"])
    @answers
    async def save(self, request: Request) -> Any:
        """A password that was generated stands in the answer, this once."""
        operator, members = self.operator(request, Act.ADMINISTER_USERS), json_object(request)
        saved = await self._users.save(operator, members)
        shaped = shapes.user_json(saved.user, saved.tenant_uuid, saved.customer_uuid)
        return shaped | {"password": saved.password} if saved.password else shaped

    @app.route("/api/user/<uuid>", methods=["GET"])
    @answers
    async def find(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.ADMINISTER_USERS)
        placed = await self._users.find(operator, uuid_of(uuid))
        return shapes.user_json(placed.user, placed.tenant_uuid, placed.customer_uuid)

    @app.route("/api/user/<uuid>", methods=["DELETE"])
    @answers
    async def delete(self, request: Request, uuid: str) -> Any:
        await self._users.delete(self.operator(request, Act.ADMINISTER_USERS), uuid_of(uuid))

    @app.route("/api/user/<uuid>/password", methods=["POST"])
    @answers
    async def set_password(self, request: Request, uuid: str) -> Any:
        """`{"password": "…"}`, or `{}`: then one is generated and stands in the answer, this once."""
        operator = self.operator(request, Act.ADMINISTER_USERS)
        given = json_object(request).get("password")
        generated = await self._users.set_password(operator, uuid_of(uuid), given)
        return {"password": generated} if generated else None

    @app.route("/api/users", methods=["GET"])
    @answers
    async def list(self, request: Request) -> Any:
        return await self._page(request, None)

    @app.route("/api/customer/<customer>/users", methods=["GET"])
    @answers
    async def list_of_customer(self, request: Request, customer: str) -> Any:
        return await self._page(request, customer)

    async def _page(self, request: Request, customer: str | None) -> dict[str, Any]:
        operator, page = self.operator(request, Act.ADMINISTER_USERS), page_of(request)
        rows, total = await self._users.list(operator, page, None if customer is None else uuid_of(customer))
        shaped = [shapes.user_json(one.user, one.tenant_uuid, one.customer_uuid) for one in rows]
        return shapes.page_json(shaped, total, page.size, page.page)

    # -- API keys ---------------------------------------------------------------------------------

    @app.route("/api/apiKey", methods=["POST"])
    @answers
    async def make_key(self, request: Request) -> Any:
        """`name`, `role`, `expirationTime` (ms; none: without end). The key is `value` of the answer, this once."""
        operator = self.operator(request, Act.ADMINISTER_KEYS)
        made = await self._keys.create(operator, json_object(request))
        return key_json(made.stored, operator.tenant_uuid) | {"value": made.value}

    @app.route("/api/apiKey/<uuid>", methods=["DELETE"])
    @answers
    async def delete_key(self, request: Request, uuid: str) -> Any:
        await self._keys.delete(self.operator(request, Act.ADMINISTER_KEYS), uuid_of(uuid))

    @app.route("/api/apiKeys", methods=["GET"])
    @answers
    async def keys(self, request: Request) -> Any:
        operator, page = self.operator(request, Act.ADMINISTER_KEYS), page_of(request)
        rows, total = await self._keys.list(operator, page)
        return shapes.page_json([key_json(one, operator.tenant_uuid) for one in rows], total, page.size, page.page)


def key_json(key: ApiKey, tenant: UUID) -> dict[str, Any]:
    return {
        "id": shapes.entity_id("API_KEY", key.uuid), "createdTime": key.created_ms,
        "tenantId": shapes.entity_id("TENANT", tenant), "name": key.name, "role": key.role.value, "hint": key.hint,
        "createdBy": key.created_by, "expirationTime": key.ends_ms, "lastUsedTime": key.used_ms,
    }  # fmt: skip
