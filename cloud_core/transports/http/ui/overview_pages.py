"""What there is to know at a glance."""

from __future__ import annotations

from typing import Any

from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.ui.navigation import home_of
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH


class OverviewPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(f"{PATH}/", methods=["GET"])
    @page
    async def overview(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.USE_OWN_LOGIN)
        if not visitor.may(Act.READ):
            return Redirect(home_of(visitor))
        return self.show(request, visitor, "overview.html", title="Overview")
