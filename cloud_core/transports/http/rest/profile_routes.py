"""Device profiles over REST (wire-contract.md section 6.4)."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.web.http import Request

from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import CallSupport, answers, json_object, page_of, query, rest_app, uuid_of
from cloud_core.transports.http.rest import shapes
from shared.errors import InvalidArgument


class ProfileRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    @app.route("/api/deviceProfile", methods=["POST"])
    @answers
    async def save_profile(self, request: Request) -> Any:
        """Creates, or with `id` updates; key and secret are generated where the strategy needs them."""
        operator = self.operator(request, Act.ADMINISTER)
        body = json_object(request)
        name, provision, document = shapes.profile_parts(body)
        uuid = uuid_of(body["id"].get("id")) if isinstance(body.get("id"), dict) else None
        version = body.get("version") if isinstance(body.get("version"), int) else None
        saved = await self._admin.save_profile(operator, uuid, name, provision, document, version)
        return shapes.profile_json(saved, operator.tenant_uuid)

    @app.route("/api/deviceProfile/names", methods=["GET"])
    @answers
    async def names(self, request: Request) -> Any:
        """Id and name of every profile by name; with `activeOnly=true` of those that have devices."""
        operator = self.operator(request, Act.READ)
        is_used = query(request, "activeOnly").lower() == "true"
        found = await self._admin.profile_names(operator, is_used=is_used)
        return [{"id": shapes.entity_id("DEVICE_PROFILE", uuid), "name": name} for uuid, name in found]

    @app.route("/api/deviceProfile/<uuid>/default", methods=["POST"])
    @answers
    async def make_default(self, request: Request, uuid: str) -> Any:
        """The profile of devices that name none, from now on."""
        operator = self.operator(request, Act.ADMINISTER)
        made = await self._admin.make_default_profile(operator, uuid_of(uuid))
        return shapes.profile_json(made, operator.tenant_uuid)

    @app.route("/api/deviceProfile/<uuid>", methods=["GET"])
    @answers
    async def profile(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ)
        found = await self._admin.profile(operator, uuid_of(uuid))
        return shapes.profile_json(found, operator.tenant_uuid, reveals=operator.may(Act.READ_PROFILE_SECRETS))

    @app.route("/api/deviceProfile/<uuid>", methods=["DELETE"])
    @answers
    async def delete_profile(self, request: Request, uuid: str) -> Any:
        await self._admin.delete_profile(self.operator(request, Act.ADMINISTER), uuid_of(uuid))

    @app.route("/api/deviceProfiles", methods=["GET"])
    @answers
    async def profiles(self, request: Request) -> Any:
        reveals = self.operator(request, Act.READ).may(Act.READ_PROFILE_SECRETS)
        return await self._profile_page(request, partial(shapes.profile_json, reveals=reveals))

    @app.route("/api/deviceProfileInfos", methods=["GET"])
    @answers
    async def profile_infos(self, request: Request) -> Any:
        return await self._profile_page(request, shapes.profile_info_json)

    async def _profile_page(self, request: Request, shape: Any) -> dict[str, Any]:
        operator, page, transport = self.operator(request, Act.READ), page_of(request), query(request, "transportType")
        if transport and transport not in shapes.TRANSPORT_TYPES:
            names = ", ".join(shapes.TRANSPORT_TYPES)
            raise InvalidArgument(f"The parameter 'transportType' must be one of {names}")
        found, total = await self._admin.profiles(operator, page, transport)
        return shapes.page_json([shape(one, operator.tenant_uuid) for one in found], total, page.size, page.page)

    @app.route("/api/deviceProfileInfo/default", methods=["GET"])
    @answers
    async def default_profile_info(self, request: Request) -> Any:
        operator = self.operator(request, Act.READ)
        return shapes.profile_info_json(await self._admin.default_profile(operator), operator.tenant_uuid)

    @app.route("/api/deviceProfileInfo/<uuid>", methods=["GET"])
    @answers
    async def profile_info(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ)
        return shapes.profile_info_json(await self._admin.profile(operator, uuid_of(uuid)), operator.tenant_uuid)
