"""The root of the web UI: its pages by topic, and their style and scripts."""

from __future__ import annotations

from typing import Any

from cloud_core.core.admin import AdminApi
from cloud_core.transports.http.calls import mounted
from cloud_core.transports.http.ui.assets import Assets
from cloud_core.transports.http.ui.login_pages import LoginPages
from cloud_core.transports.http.ui.overview_pages import OverviewPages
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shared, Shown, page, pages_app
from cloud_core.transports.http.ui.rendering import Templates
from cloud_core.transports.http.ui.visits import PATH
from shared.errors import NotFound

_FOR_GOOD = "public, max-age=31536000, immutable"


class UiRoutes(Pages):
    """Everything beneath `/ui`."""

    app = pages_app()

    def __init__(self, admin: AdminApi) -> None:
        self._assets = Assets()
        shared = Shared(admin, Templates(self._assets))
        super().__init__(shared)
        self._login_pages = LoginPages(shared)
        self._overview_pages = OverviewPages(shared)

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
