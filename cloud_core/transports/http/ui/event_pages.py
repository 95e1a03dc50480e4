"""Live events for open pages: as `/api/events`, by the cookie of the login."""

from __future__ import annotations

from typing import Any

from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import query
from cloud_core.transports.http.rest.event_routes import Stream, kinds_for
from cloud_core.transports.http.ui.pages import Pages, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH
from shared.errors import NotAuthenticated


class EventPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(f"{PATH}/events", methods=["GET"])
    @page
    async def events(self, request: Any) -> Shown:
        """`kinds` and `Last-Event-ID` as there; a login that ends while it listens ends the stream."""
        try:
            visitor = await self.visitor(request, Act.READ)
            operator = visitor.operator
            kinds = kinds_for(operator, query(request, "kinds"))
        except NotAuthenticated:  # no page to lead to: the script loads its own anew
            request.setResponseCode(401)
            return b""

        def who() -> Operator:
            self._admin.access.check(operator)
            return operator

        stream = Stream(request, self._admin.events, kinds, who)
        stream.open(operator, (request.getHeader("last-event-id") or "")[:64])
        await stream.ended
        return b""
