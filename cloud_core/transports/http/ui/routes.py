"""The root of the web UI: its pages by topic, and their style and scripts."""

from __future__ import annotations

from typing import Any

from cloud_core.core.admin import AdminApi
from cloud_core.transports.endpoints import Endpoints
from cloud_core.transports.http.calls import mounted
from cloud_core.transports.http.ui.api_key_pages import ApiKeyPages
from cloud_core.transports.http.ui.assets import Assets
from cloud_core.transports.http.ui.attempt_pages import AttemptPages
from cloud_core.transports.http.ui.audit_pages import AuditPages
from cloud_core.transports.http.ui.certificate_pages import CertificatePages
from cloud_core.transports.http.ui.connect_pages import ConnectPages
from cloud_core.transports.http.ui.customer_pages import CustomerPages
from cloud_core.transports.http.ui.device_command_pages import DeviceCommandPages
from cloud_core.transports.http.ui.device_data_pages import DeviceDataPages
from cloud_core.transports.http.ui.device_identity_pages import DeviceIdentityPages
from cloud_core.transports.http.ui.device_pages import DevicePages
from cloud_core.transports.http.ui.devices_pages import DevicesPages
from cloud_core.transports.http.ui.event_pages import EventPages
from cloud_core.transports.http.ui.gateway_pages import GatewayPages
from cloud_core.transports.http.ui.import_pages import ImportPages
from cloud_core.transports.http.ui.key_pages import KeyPages
from cloud_core.transports.http.ui.login_pages import LoginPages
from cloud_core.transports.http.ui.manifest_pages import ManifestPages
from cloud_core.transports.http.ui.overview_pages import OverviewPages
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shared, Shown, page, pages_app
from cloud_core.transports.http.ui.pending_pages import PendingPages
from cloud_core.transports.http.ui.profile_pages import ProfilePages
from cloud_core.transports.http.ui.profile_wizard_pages import ProfileWizardPages
from cloud_core.transports.http.ui.rendering import Templates
from cloud_core.transports.http.ui.storm_pages import StormPages
from cloud_core.transports.http.ui.tenant_pages import TenantPages
from cloud_core.transports.http.ui.trial_pages import TrialPages
from cloud_core.transports.http.ui.user_pages import UserPages
from cloud_core.transports.http.ui.visits import PATH
from shared.errors import NotFound

_FOR_GOOD = "public, max-age=31536000, immutable"


class UiRoutes(Pages):
    """Everything beneath `/ui`."""

    app = pages_app()

    def __init__(self, admin: AdminApi, endpoints: Endpoints) -> None:
        self._assets = Assets()
        shared = Shared(admin, Templates(self._assets), endpoints)
        super().__init__(shared)
        self._login_pages = LoginPages(shared)
        self._overview_pages = OverviewPages(shared)
        self._event_pages = EventPages(shared)
        self._user_pages = UserPages(shared)
        self._tenant_pages = TenantPages(shared)
        self._import_pages = ImportPages(shared)
        self._manifest_pages = ManifestPages(shared)
        self._customer_pages = CustomerPages(shared)
        self._certificate_pages = CertificatePages(shared)
        self._api_key_pages = ApiKeyPages(shared)
        self._devices_pages = DevicesPages(shared)
        self._device_pages = DevicePages(shared)
        self._device_data_pages = DeviceDataPages(shared)
        self._device_command_pages = DeviceCommandPages(shared)
        self._device_identity_pages = DeviceIdentityPages(shared)
        self._gateway_pages = GatewayPages(shared)
        self._profile_pages = ProfilePages(shared)
        self._profile_wizard_pages = ProfileWizardPages(shared)
        self._connect_pages = ConnectPages(shared)
        self._trial_pages = TrialPages(shared)
        self._event_pages = EventPages(shared)
        self._attempt_pages = AttemptPages(shared)
        self._pending_pages = PendingPages(shared)
        self._storm_pages = StormPages(shared)
        self._key_pages = KeyPages(shared)
        self._audit_pages = AuditPages(shared)

    @app.route("/", methods=["GET"])
    @app.route(PATH, methods=["GET"])
    @page
    async def root(self, request: Any) -> Shown:
        return Redirect(f"{PATH}/")

    @app.route(f"{PATH}/login")
    @app.route(f"{PATH}/logout")
    @app.route(f"{PATH}/theme")
    @app.route(f"{PATH}/account", branch=True)
    def login_pages(self, request: Any) -> Any:
        return mounted(request, self._login_pages)

    @app.route(f"{PATH}/provisioning", branch=True)
    def attempt_pages(self, request: Any) -> Any:
        return mounted(request, self._attempt_pages)

    @app.route(f"{PATH}/provisioning/pending", branch=True)
    def pending_pages(self, request: Any) -> Any:
        return mounted(request, self._pending_pages)

    @app.route(f"{PATH}/provisioning/storm", branch=True)
    def storm_pages(self, request: Any) -> Any:
        return mounted(request, self._storm_pages)

    @app.route(f"{PATH}/profiles/<uuid>/keys", branch=True)
    def key_pages(self, request: Any, uuid: str) -> Any:
        return mounted(request, self._key_pages)

    @app.route(f"{PATH}/audit", branch=True)
    def audit_pages(self, request: Any) -> Any:
        return mounted(request, self._audit_pages)

    @app.route(f"{PATH}/overview/live")
    @app.route(f"{PATH}/")
    def overview_pages(self, request: Any) -> Any:
        return mounted(request, self._overview_pages)

    @app.route(f"{PATH}/api-keys", branch=True)
    def api_key_pages(self, request: Any) -> Any:
        return mounted(request, self._api_key_pages)

    @app.route(f"{PATH}/certificates", branch=True)
    def certificate_pages(self, request: Any) -> Any:
        return mounted(request, self._certificate_pages)

    @app.route(f"{PATH}/customers", branch=True)
    def customer_pages(self, request: Any) -> Any:
        return mounted(request, self._customer_pages)

    @app.route(f"{PATH}/imports", branch=True)
    def import_pages(self, request: Any) -> Any:
        return mounted(request, self._import_pages)

    @app.route(f"{PATH}/imports/<uuid>/manifest", branch=True)
    def manifest_pages(self, request: Any, uuid: str) -> Any:
        return mounted(request, self._manifest_pages)

    @app.route(f"{PATH}/tenants", branch=True)
    def tenant_pages(self, request: Any) -> Any:
        return mounted(request, self._tenant_pages)

    @app.route(f"{PATH}/users", branch=True)
    def user_pages(self, request: Any) -> Any:
        return mounted(request, self._user_pages)

    @app.route(f"{PATH}/devices")
    @app.route(f"{PATH}/devices/new")
    @app.route(f"{PATH}/devices/export")
    def devices_pages(self, request: Any) -> Any:
        return mounted(request, self._devices_pages)

    @app.route(f"{PATH}/devices/<uuid>", branch=True)
    def device_pages(self, request: Any, uuid: str) -> Any:
        return mounted(request, self._device_pages)

    @app.route(f"{PATH}/devices/<uuid>/telemetry", branch=True)
    @app.route(f"{PATH}/devices/<uuid>/attributes", branch=True)
    def device_data_pages(self, request: Any, uuid: str) -> Any:
        return mounted(request, self._device_data_pages)

    @app.route(f"{PATH}/devices/<uuid>/commands", branch=True)
    def device_command_pages(self, request: Any, uuid: str) -> Any:
        return mounted(request, self._device_command_pages)

    @app.route(f"{PATH}/devices/<uuid>/credentials", branch=True)
    @app.route(f"{PATH}/devices/<uuid>/provisioning", branch=True)
    def device_identity_pages(self, request: Any, uuid: str) -> Any:
        return mounted(request, self._device_identity_pages)

    @app.route(f"{PATH}/gateways", branch=True)
    def gateway_pages(self, request: Any) -> Any:
        return mounted(request, self._gateway_pages)

    @app.route(f"{PATH}/profiles", branch=True)
    def profile_pages(self, request: Any) -> Any:
        return mounted(request, self._profile_pages)

    @app.route(f"{PATH}/profiles/new")
    def profile_wizard_pages(self, request: Any) -> Any:
        return mounted(request, self._profile_wizard_pages)

    @app.route(f"{PATH}/profiles/<uuid>/connect", branch=True)
    def connect_pages(self, request: Any, uuid: str) -> Any:
        return mounted(request, self._connect_pages)

    @app.route(f"{PATH}/profiles/<uuid>/test", branch=True)
    def trial_pages(self, request: Any, uuid: str) -> Any:
        return mounted(request, self._trial_pages)

    @app.route(f"{PATH}/events")
    def event_pages(self, request: Any) -> Any:
        return mounted(request, self._event_pages)

    @app.route(f"{PATH}/static/<version>/<name>", methods=["GET"])
    @page
    async def asset(self, request: Any, version: str, name: str) -> Shown:
        """Kept by browsers for good: another content has another version, which is part of the address."""
        found = self._assets.find(name)
        if found is None:
            raise NotFound("There is no such file")
        request.setHeader("Content-Type", found.media_type)
        if version == self._assets.version:
            request.setHeader("Cache-Control", _FOR_GOOD)
        request.setHeader("Vary", "Accept-Encoding")
        if b"gzip" in (request.getHeader(b"accept-encoding") or b""):
            request.setHeader("Content-Encoding", "gzip")
            return found.compressed
        return found.plain
