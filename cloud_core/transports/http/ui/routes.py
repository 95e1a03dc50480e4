"""The root of the web UI: its pages by topic, and their style and scripts."""

from __future__ import annotations

from typing import Any

from cloud_core.core.admin import AdminApi
from cloud_core.transports.endpoints import Endpoints
from cloud_core.transports.http.calls import mounted
from cloud_core.transports.http.ui.assets import Assets
from cloud_core.transports.http.ui.connect_pages import ConnectPages
from cloud_core.transports.http.ui.login_pages import LoginPages
from cloud_core.transports.http.ui.overview_pages import OverviewPages
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shared, Shown, page, pages_app
from cloud_core.transports.http.ui.profile_pages import ProfilePages
from cloud_core.transports.http.ui.profile_wizard_pages import ProfileWizardPages
from cloud_core.transports.http.ui.rendering import Templates
from cloud_core.transports.http.ui.trial_pages import TrialPages
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
        self._profile_pages = ProfilePages(shared)
        self._profile_wizard_pages = ProfileWizardPages(shared)
        self._connect_pages = ConnectPages(shared)
        self._trial_pages = TrialPages(shared)

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

    @app.route(f"{PATH}/")
    def overview_pages(self, request: Any) -> Any:
        return mounted(request, self._overview_pages)

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
