"""Administration REST on klein: ThingsBoard's calls (wire-contract.md section 6) and ours."""

from __future__ import annotations

import time
from typing import Any

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.http import Request
from werkzeug import exceptions as routing

from cloud_core.core.admin import AdminApi
from cloud_core.core.assignments import entity_uuid
from cloud_core.core.permissions import Act
from cloud_core.model import NIL_CUSTOMER, Scope
from cloud_core.storage.interface import TimeSeriesQuery
from cloud_core.transports.http import shapes
from cloud_core.transports.http.audit_routes import AuditRoutes
from cloud_core.transports.http.authority_routes import AuthorityRoutes
from cloud_core.transports.http.calls import (
    CallSupport,
    address_of,
    answers,
    data_answers,
    integer,
    json_body,
    json_object,
    keys_of,
    mounted,
    no_route,
    page_of,
    query,
    raw_body,
    uuid_of,
)
from cloud_core.transports.http.claim_routes import ClaimRoutes
from cloud_core.transports.http.customer_routes import CustomerRoutes
from cloud_core.transports.http.device_routes import DeviceRoutes
from cloud_core.transports.http.est_routes import EstRoutes
from cloud_core.transports.http.event_routes import EventRoutes
from cloud_core.transports.http.fleet_routes import FleetRoutes
from cloud_core.transports.http.key_routes import KeyRoutes
from cloud_core.transports.http.package_routes import PackageRoutes
from cloud_core.transports.http.pending_routes import PendingRoutes
from cloud_core.transports.http.relation_routes import RelationRoutes, device_search_from
from cloud_core.transports.http.rpc_routes import RpcRoutes
from cloud_core.transports.http.server_method_routes import ServerMethodRoutes
from shared import payloads
from shared.errors import InvalidArgument, MalformedRequest

SCOPES = {"CLIENT_SCOPE": Scope.CLIENT, "SHARED_SCOPE": Scope.SHARED, "SERVER_SCOPE": Scope.SERVER}
MAX_POINTS = 1_000_000
MAX_ATTEMPTS_SHOWN = 1_000


class AdminRoutes(CallSupport):
    """Routes under `/api`; the device API's are mounted beneath."""

    app = Klein()

    def __init__(
        self,
        admin: AdminApi,
        devices: DeviceRoutes,
        *,
        rpc: RpcRoutes,
        plugins_rpc: RpcRoutes,
        server_methods: ServerMethodRoutes,
        customers: CustomerRoutes,
        claims: ClaimRoutes,
        packages: PackageRoutes,
        est: EstRoutes,
    ) -> None:
        super().__init__(admin)
        self._device_routes = devices
        self._rpc_routes = rpc
        self._plugins_rpc_routes = plugins_rpc
        self._server_method_routes = server_methods
        self._customer_routes = customers
        self._claim_routes = claims
        self._package_routes = packages
        self._relation_routes = RelationRoutes(admin)
        self._fleet_routes = FleetRoutes(admin)
        self._authority_routes = AuthorityRoutes(admin)
        self._est_routes = est
        self._audit_routes = AuditRoutes(admin)
        self._key_routes = KeyRoutes(admin)
        self._event_routes = EventRoutes(admin)
        self._pending_routes = PendingRoutes(admin)

    @app.route("/api/v1/", branch=True)
    def device_api(self, request: Request) -> Any:
        return self._device_routes.app.resource()

    @app.route("/api/rpc/", branch=True)
    def rpc(self, request: Request) -> Any:
        return self._rpc_routes.app.resource()

    @app.route("/api/plugins/rpc/", branch=True)
    def plugins_rpc(self, request: Request) -> Any:
        return self._plugins_rpc_routes.app.resource()

    @app.route("/api/serverMethods", branch=True)
    def server_methods(self, request: Request) -> Any:
        return mounted(request, self._server_method_routes)

    @app.route("/api/customer", branch=True)
    @app.route("/api/customers")
    @app.route("/api/user")
    @app.route("/api/device/info", branch=True)
    def customer_routes(self, request: Request) -> Any:
        return mounted(request, self._customer_routes)

    @app.route("/api/customer/device/<_name>/claim")
    def claim_routes(self, request: Request, _name: str) -> Any:
        return mounted(request, self._claim_routes)

    @app.route("/api/otaPackage", branch=True)
    @app.route("/api/otaPackages", branch=True)
    def package_routes(self, request: Request) -> Any:
        return mounted(request, self._package_routes)

    @app.route("/api/devices/attributes", branch=True)
    def fleet_routes(self, request: Request) -> Any:
        return mounted(request, self._fleet_routes)

    @app.route("/api/relation", branch=True)
    @app.route("/api/relations", branch=True)
    def relation_routes(self, request: Request) -> Any:
        return mounted(request, self._relation_routes)

    @app.route("/api/ca", branch=True)
    @app.route("/api/certificates", branch=True)
    def authority_routes(self, request: Request) -> Any:
        return mounted(request, self._authority_routes)

    @app.route("/api/audit", branch=True)
    def audit_routes(self, request: Request) -> Any:
        return mounted(request, self._audit_routes)

    @app.route("/api/deviceProfile/<_uuid>/", branch=True)
    def key_routes(self, request: Request, _uuid: str) -> Any:
        return mounted(request, self._key_routes)

    @app.route("/api/provisioning/pending", branch=True)
    def pending_routes(self, request: Request) -> Any:
        return mounted(request, self._pending_routes)

    @app.route("/api/events")
    def event_routes(self, request: Request) -> Any:
        return mounted(request, self._event_routes)

    @app.route("/.well-known/est/", branch=True)
    def est_routes(self, request: Request) -> Any:
        return mounted(request, self._est_routes)

    @app.handle_errors(routing.NotFound, routing.MethodNotAllowed)
    def no_route(self, request: Request, failure: Failure) -> bytes:
        return no_route(request, failure)

    # -- logins -----------------------------------------------------------------------------------

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
        self.operator(request, Act.USE_OWN_LOGIN)

    @app.route("/api/auth/user", methods=["GET"])
    @answers
    async def user(self, request: Request) -> Any:
        operator = self.operator(request, Act.USE_OWN_LOGIN)
        return {
            "id": shapes.entity_id("USER", operator.user_uuid), "email": operator.username, "name": operator.username,
            "authority": operator.authority, "tenantId": shapes.entity_id("TENANT", operator.tenant_uuid),
            "customerId": shapes.entity_id("CUSTOMER", operator.customer_uuid or NIL_CUSTOMER),
        }  # fmt: skip

    # -- profiles ---------------------------------------------------------------------------------

    @app.route("/api/deviceProfile", methods=["POST"])
    @answers
    async def save_profile(self, request: Request) -> Any:
        operator = self.operator(request)
        body = json_object(request)
        name, provision, document = shapes.profile_parts(body)
        uuid = uuid_of(body["id"].get("id")) if isinstance(body.get("id"), dict) else None
        version = body.get("version") if isinstance(body.get("version"), int) else None
        saved = await self._admin.save_profile(operator, uuid, name, provision, document, version)
        return shapes.profile_json(saved, operator.tenant_uuid)

    @app.route("/api/deviceProfile/<uuid>", methods=["GET"])
    @answers
    async def profile(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request)
        return shapes.profile_json(await self._admin.profile(operator, uuid_of(uuid)), operator.tenant_uuid)

    @app.route("/api/deviceProfile/<uuid>", methods=["DELETE"])
    @answers
    async def delete_profile(self, request: Request, uuid: str) -> Any:
        await self._admin.delete_profile(self.operator(request), uuid_of(uuid))

    @app.route("/api/deviceProfiles", methods=["GET"])
    @answers
    async def profiles(self, request: Request) -> Any:
        return await self._profile_page(request, shapes.profile_json)

    @app.route("/api/deviceProfileInfos", methods=["GET"])
    @answers
    async def profile_infos(self, request: Request) -> Any:
        return await self._profile_page(request, shapes.profile_info_json)

    async def _profile_page(self, request: Request, shape: Any) -> dict[str, Any]:
        operator, page = self.operator(request), page_of(request)
        found, total = await self._admin.profiles(operator, page)
        return shapes.page_json([shape(one, operator.tenant_uuid) for one in found], total, page.size, page.page)

    @app.route("/api/deviceProfileInfo/default", methods=["GET"])
    @answers
    async def default_profile_info(self, request: Request) -> Any:
        operator = self.operator(request)
        return shapes.profile_info_json(await self._admin.default_profile(operator), operator.tenant_uuid)

    @app.route("/api/deviceProfileInfo/<uuid>", methods=["GET"])
    @answers
    async def profile_info(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request)
        return shapes.profile_info_json(await self._admin.profile(operator, uuid_of(uuid)), operator.tenant_uuid)

    # -- devices ----------------------------------------------------------------------------------

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

    # -- data -------------------------------------------------------------------------------------

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/keys/timeseries", methods=["GET"])
    @data_answers
    async def time_series_keys(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ_DEVICES)
        return sorted(await self._admin.latest(operator, uuid_of(uuid), None))

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/values/timeseries", methods=["GET"])
    @data_answers
    async def time_series(self, request: Request, uuid: str) -> Any:
        operator, keys = self.operator(request, Act.READ_DEVICES), keys_of(request)
        shape = payloads.value_to_json if query(request, "useStrictDataTypes") == "true" else payloads.value_to_text
        if query(request, "agg", "NONE").upper() != "NONE":
            raise InvalidArgument("Aggregation is not supported yet; use agg=NONE")
        if query(request, "startTs") or query(request, "endTs"):
            asked = TimeSeriesQuery(
                tuple(keys or sorted(await self._admin.latest(operator, uuid_of(uuid), None))),
                integer(request, "startTs"), integer(request, "endTs"),
                max(1, min(integer(request, "limit", 100), MAX_POINTS)),
                query(request, "orderBy", "DESC").upper() != "ASC",
            )  # fmt: skip
            found = await self._admin.history(operator, uuid_of(uuid), asked)
            return {key: [_point(ts, shape(value)) for ts, value in points] for key, points in found.items()}
        latest = await self._admin.latest(operator, uuid_of(uuid), keys)
        answer = {key: [_point(ts, shape(value))] for key, (ts, value) in latest.items()}
        for key in set(keys or ()) - set(answer):
            answer[key] = [_point(int(time.time() * 1000), None)]
        return answer

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/timeseries/<_scope>", methods=["POST"])
    @data_answers
    async def save_time_series(self, request: Request, uuid: str, _scope: str) -> Any:
        operator = self.operator(request)
        samples = payloads.parse_telemetry(raw_body(request), received_ms=int(time.time() * 1000))
        if not samples:
            raise InvalidArgument("No time series data found in request body!")
        await self._admin.append_samples(operator, uuid_of(uuid), samples)

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/keys/attributes", methods=["GET"])
    @data_answers
    async def attribute_keys(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ_DEVICES)
        found = await self._admin.attributes(operator, uuid_of(uuid), list(SCOPES.values()), None)
        return sorted({entry.key for entry in found})

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/keys/attributes/<scope>", methods=["GET"])
    @data_answers
    async def attribute_keys_of_scope(self, request: Request, uuid: str, scope: str) -> Any:
        operator = self.operator(request, Act.READ_DEVICES)
        found = await self._admin.attributes(operator, uuid_of(uuid), [_scope(scope)], None)
        return sorted(entry.key for entry in found)

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/values/attributes", methods=["GET"])
    @data_answers
    async def all_attributes(self, request: Request, uuid: str) -> Any:
        return await self._attributes(request, uuid, list(SCOPES.values()))

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/values/attributes/<scope>", methods=["GET"])
    @data_answers
    async def attributes(self, request: Request, uuid: str, scope: str) -> Any:
        return await self._attributes(request, uuid, [_scope(scope)])

    async def _attributes(self, request: Request, uuid: str, scopes: list[Scope]) -> list[dict[str, Any]]:
        operator = self.operator(request, Act.READ_DEVICES)
        found = await self._admin.attributes(operator, uuid_of(uuid), scopes, keys_of(request))
        return [
            {"lastUpdateTs": one.updated_ms, "key": one.key, "value": payloads.value_to_json(one.value)}
            for one in found
        ]

    @app.route("/api/plugins/telemetry/<uuid>/<scope>", methods=["POST"])
    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/<scope>", methods=["POST"])
    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/attributes/<scope>", methods=["POST"])
    @data_answers
    async def save_attributes(self, request: Request, uuid: str, scope: str) -> Any:
        operator = self.operator(request)
        wanted = _scope(scope)
        if wanted is Scope.CLIENT:
            raise InvalidArgument(f"Invalid scope: {scope}")
        values = payloads.parse_attributes(raw_body(request))
        if not values:
            raise InvalidArgument("No attributes data found in request body!")
        await self._admin.put_attributes(operator, uuid_of(uuid), wanted, values)

    @app.route("/api/plugins/telemetry/<uuid>/<scope>", methods=["DELETE"])
    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/<scope>", methods=["DELETE"])
    @data_answers
    async def delete_attributes(self, request: Request, uuid: str, scope: str) -> Any:
        operator, wanted, keys = self.operator(request), _scope(scope), keys_of(request)
        if not keys:
            raise InvalidArgument("Empty keys: []")
        await self._admin.delete_attributes(operator, uuid_of(uuid), wanted, keys)

    # -- provisioning log -------------------------------------------------------------------------

    @app.route("/api/provisioning/attempts", methods=["GET"])
    @answers
    async def attempts(self, request: Request) -> Any:
        operator = self.operator(request)
        limit = max(1, min(integer(request, "limit", 100), MAX_ATTEMPTS_SHOWN))
        found = await self._admin.attempts(operator, limit)
        return [shapes.attempt_json(one) for one in found]

    @app.route("/api/provisioning/attempts/<ref>", methods=["GET"])
    @answers
    async def attempt(self, request: Request, ref: str) -> Any:
        return shapes.attempt_json(await self._admin.attempt(self.operator(request), ref))


def _point(ts: int, value: Any) -> dict[str, Any]:
    return {"ts": ts, "value": value}


def _scope(name: str) -> Scope:
    if name not in SCOPES:
        raise InvalidArgument(f"Invalid scope: {name}")
    return SCOPES[name]
