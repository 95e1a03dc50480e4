"""Administration REST on klein: ThingsBoard's calls (wire-contract.md section 6) and ours."""

from __future__ import annotations

from typing import Any

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import (
    CallSupport,
    answers,
    integer,
    mounted,
    page_of,
    query,
    rest_app,
)
from cloud_core.transports.http.device_routes import DeviceRoutes
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.rest.attempt_queries import attempt_filter
from cloud_core.transports.http.rest.audit_routes import AuditRoutes
from cloud_core.transports.http.rest.authority_routes import AuthorityRoutes
from cloud_core.transports.http.rest.bulk_routes import BulkRoutes
from cloud_core.transports.http.rest.claim_routes import ClaimRoutes
from cloud_core.transports.http.rest.customer_routes import CustomerRoutes
from cloud_core.transports.http.rest.data_routes import DataRoutes
from cloud_core.transports.http.rest.device_admin_routes import DeviceAdminRoutes
from cloud_core.transports.http.rest.docs_routes import DocsRoutes
from cloud_core.transports.http.rest.est_routes import EstRoutes
from cloud_core.transports.http.rest.event_routes import EventRoutes
from cloud_core.transports.http.rest.fleet_routes import FleetRoutes
from cloud_core.transports.http.rest.gateway_routes import GatewayRoutes
from cloud_core.transports.http.rest.key_routes import KeyRoutes
from cloud_core.transports.http.rest.login_routes import LoginRoutes
from cloud_core.transports.http.rest.manifest_routes import ManifestRoutes
from cloud_core.transports.http.rest.observing_routes import ObservingRoutes
from cloud_core.transports.http.rest.package_routes import PackageRoutes
from cloud_core.transports.http.rest.pending_routes import PendingRoutes
from cloud_core.transports.http.rest.profile_routes import ProfileRoutes
from cloud_core.transports.http.rest.relation_routes import RelationRoutes
from cloud_core.transports.http.rest.replacement_routes import ReplacementRoutes
from cloud_core.transports.http.rest.rpc_routes import RpcRoutes
from cloud_core.transports.http.rest.server_method_routes import ServerMethodRoutes
from cloud_core.transports.http.rest.tenant_routes import TenantRoutes
from cloud_core.transports.http.rest.user_routes import UserRoutes

MAX_ATTEMPTS_SHOWN = 1_000


class AdminRoutes(CallSupport):
    """Routes under `/api`; the device API's are mounted beneath."""

    app = rest_app()

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
        observing: ObservingRoutes,
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
        self._device_admin_routes = DeviceAdminRoutes(admin)
        self._profile_routes = ProfileRoutes(admin)
        self._data_routes = DataRoutes(admin)
        self._fleet_routes = FleetRoutes(admin)
        self._authority_routes = AuthorityRoutes(admin)
        self._gateway_routes = GatewayRoutes(admin)
        self._replacement_routes = ReplacementRoutes(admin)
        self._est_routes = est
        self._login_routes = LoginRoutes(admin)
        self._user_routes = UserRoutes(admin)
        self._tenant_routes = TenantRoutes(admin)
        self._docs_routes = DocsRoutes(self)
        self._bulk_routes = BulkRoutes(admin)
        self._manifest_routes = ManifestRoutes(admin)
        self._observing_routes = observing
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

    @app.route("/api/device", branch=True)
    @app.route("/api/device-with-credentials")
    @app.route("/api/devices")
    @app.route("/api/deviceInfos/", branch=True)
    @app.route("/api/tenant/device")
    @app.route("/api/tenant/devices")
    @app.route("/api/tenant/deviceInfos")
    def device_admin_routes(self, request: Request) -> Any:
        return mounted(request, self._device_admin_routes)

    @app.route("/api/deviceProfile", branch=True)
    @app.route("/api/deviceProfiles")
    @app.route("/api/deviceProfileInfo/", branch=True)
    @app.route("/api/deviceProfileInfos")
    def profile_routes(self, request: Request) -> Any:
        return mounted(request, self._profile_routes)

    @app.route("/api/plugins/telemetry/", branch=True)
    def data_routes(self, request: Request) -> Any:
        return mounted(request, self._data_routes)

    @app.route("/api/openapi.json")
    @app.route("/api/docs", branch=True)
    def docs_routes(self, request: Request) -> Any:
        return mounted(request, self._docs_routes)

    @app.route("/api/customer", branch=True)
    @app.route("/api/customers")
    @app.route("/api/device/info", branch=True)
    def customer_routes(self, request: Request) -> Any:
        return mounted(request, self._customer_routes)

    @app.route("/api/auth/", branch=True)
    def login_routes(self, request: Request) -> Any:
        return mounted(request, self._login_routes)

    @app.route("/api/user", branch=True)
    @app.route("/api/users")
    @app.route("/api/customer/<_uuid>/users")
    @app.route("/api/apiKey", branch=True)
    @app.route("/api/apiKeys")
    def user_routes(self, request: Request, _uuid: str = "") -> Any:
        return mounted(request, self._user_routes)

    @app.route("/api/tenant")
    @app.route("/api/tenant/<_uuid>")
    @app.route("/api/tenant/<_uuid>/users")
    @app.route("/api/tenants")
    def tenant_routes(self, request: Request, _uuid: str = "") -> Any:
        return mounted(request, self._tenant_routes)

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

    @app.route("/api/v2/relation")
    @app.route("/api/relation", branch=True)
    @app.route("/api/relations", branch=True)
    def relation_routes(self, request: Request) -> Any:
        return mounted(request, self._relation_routes)

    @app.route("/api/ca", branch=True)
    @app.route("/api/certificates", branch=True)
    def authority_routes(self, request: Request) -> Any:
        return mounted(request, self._authority_routes)

    @app.route("/api/imports", branch=True)
    @app.route("/api/device/bulk_import")
    def bulk_routes(self, request: Request) -> Any:
        return mounted(request, self._bulk_routes)

    @app.route("/api/imports/<_uuid>/manifest")
    @app.route("/api/imports/<_uuid>/manifest/release")
    @app.route("/api/imports/<_uuid>/labels.pdf")
    @app.route("/api/devices/labels.pdf")
    def manifest_routes(self, request: Request, _uuid: str = "") -> Any:
        return mounted(request, self._manifest_routes)

    @app.route("/api/device/<_uuid>/resetProvisioning")
    @app.route("/api/device/<_uuid>/replace")
    def replacement_routes(self, request: Request, _uuid: str) -> Any:
        return mounted(request, self._replacement_routes)

    @app.route("/api/gateways")
    @app.route("/api/gateway/", branch=True)
    def gateway_routes(self, request: Request) -> Any:
        return mounted(request, self._gateway_routes)

    @app.route("/api/audit", branch=True)
    def audit_routes(self, request: Request) -> Any:
        return mounted(request, self._audit_routes)

    @app.route("/api/deviceProfile/<_uuid>/rotateSecret")
    @app.route("/api/deviceProfile/<_uuid>/adoption")
    @app.route("/api/deviceProfile/<_uuid>/keys")
    @app.route("/api/deviceProfile/<_uuid>/keys/<_key>")
    def key_routes(self, request: Request, _uuid: str, _key: str = "") -> Any:
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

    @app.route("/metrics")
    @app.route("/health/", branch=True)
    def observing_routes(self, request: Request) -> Any:
        return mounted(request, self._observing_routes)

    # -- provisioning log -------------------------------------------------------------------------

    @app.route("/api/provisioning/attempts", methods=["GET"])
    @answers
    async def attempts(self, request: Request) -> Any:
        """A page, filtered; without `pageSize` the newest lines as a bare array."""
        operator = self.operator(request, Act.READ)
        if query(request, "pageSize"):
            page = page_of(request)
            rows, total = await self._admin.lists.attempts(operator, page, attempt_filter(request))
            return shapes.page_json([shapes.attempt_json(one) for one in rows], total, page.size, page.page)
        limit = max(1, min(integer(request, "limit", 100), MAX_ATTEMPTS_SHOWN))
        found = await self._admin.attempts(operator, limit)
        return [shapes.attempt_json(one) for one in found]

    @app.route("/api/provisioning/attempts/<ref>", methods=["GET"])
    @answers
    async def attempt(self, request: Request, ref: str) -> Any:
        return shapes.attempt_json(await self._admin.attempt(self.operator(request, Act.READ), ref))
