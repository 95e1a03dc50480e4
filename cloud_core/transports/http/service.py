"""The HTTP listener's factory: fast front before klein's Site, or the Site alone."""

from __future__ import annotations

from typing import Any

from cloud_core.core.admin import AdminApi
from cloud_core.core.api import DeviceApi
from cloud_core.transports.endpoints import Endpoints
from cloud_core.transports.http.adapter import HttpDeviceAdapter
from cloud_core.transports.http.deadlines import Deadlines
from cloud_core.transports.http.device_routes import DeviceRoutes
from cloud_core.transports.http.front import FrontFactory
from cloud_core.transports.http.intake import BoundedSite, OnCall
from cloud_core.transports.http.long_polls import LongPolls
from cloud_core.transports.http.rest.admin_routes import AdminRoutes
from cloud_core.transports.http.rest.bulk_routes import with_uploads
from cloud_core.transports.http.rest.claim_routes import ClaimRoutes
from cloud_core.transports.http.rest.customer_routes import CustomerRoutes
from cloud_core.transports.http.rest.est_routes import EstRoutes
from cloud_core.transports.http.rest.observing_routes import ObservingRoutes
from cloud_core.transports.http.rest.package_routes import PackageRoutes
from cloud_core.transports.http.rest.rpc_routes import RpcRoutes
from cloud_core.transports.http.rest.server_method_routes import ServerMethodRoutes
from cloud_core.transports.http.root import Root
from cloud_core.transports.http.ui.routes import UiRoutes
from cloud_core.transports.http.ui.uploads import with_pages
from cloud_core.transports.proxies import TrustedProxies


class HttpService:
    """Device API and administration on one port."""

    def __init__(
        self,
        *,
        api: DeviceApi,
        admin: AdminApi,
        reactor: Any,
        is_fast_path_on: bool,
        request_timeout_s: float,
        metrics_token: str = "",
        endpoints: Endpoints | None = None,
        proxies: TrustedProxies | None = None,
    ) -> None:
        # `reactor`: seconds and callLater; untyped because a test passes a Clock.
        proxies = proxies or TrustedProxies()
        self.endpoints = endpoints or Endpoints()
        self._polls = LongPolls(api.downlinks, Deadlines(reactor))
        adapter = HttpDeviceAdapter(api, self._polls)
        packages = PackageRoutes(admin, api.packages)
        routes = AdminRoutes(
            admin,
            DeviceRoutes(adapter),
            rpc=RpcRoutes(admin, api),
            plugins_rpc=RpcRoutes(admin, api, is_v1=True),
            server_methods=ServerMethodRoutes(admin, api),
            customers=CustomerRoutes(admin),
            claims=ClaimRoutes(admin, api.claims),
            packages=packages,
            est=EstRoutes(api.enrolment, now_ms=api.now_ms),
            observing=ObservingRoutes(metrics=api.metrics, health=api.health, token=metrics_token),
        )
        self._site = BoundedSite(
            Root(routes, UiRoutes(admin, self.endpoints)),
            body_limit=with_pages(with_uploads(packages.body_limit), admin),
            proxies=proxies,
            parsePOSTFormSubmission=False,
            timeout=int(request_timeout_s),
            reactor=reactor,
        )
        self._front = FrontFactory(
            adapter, self._site, reactor=reactor, request_timeout_s=request_timeout_s, proxies=proxies
        )
        self._is_fast_path_on = is_fast_path_on

    def trace(self, on_call: OnCall) -> None:
        """`on_call` hears of each REST call when it is answered."""
        self._site.on_call = on_call

    def factory(self) -> Any:  # IProtocolFactory
        """What the listener builds connections with."""
        return self._front if self._is_fast_path_on else self._site

    @property
    def long_poll_count(self) -> int:
        return len(self._polls)

    def stop(self) -> None:
        """Tells who waits to ask again, and closes the connections that are still with the front."""
        self._polls.stop()
        for connection in list(self._front.connections):
            connection.transport.loseConnection()
