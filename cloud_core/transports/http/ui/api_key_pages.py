"""API keys: what programs log in with."""

from __future__ import annotations

from typing import Any

from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.ui.fields import end_of_day_ms, said
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shown, page, page_from, pager_of, pages_app
from cloud_core.transports.http.ui.user_pages import ROLES
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.errors import InvalidArgument

_URL = f"{PATH}/api-keys"


class ApiKeyPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(_URL, methods=["GET"])
    @page
    async def keys(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.ADMINISTER_KEYS)
        return await self._keys(request, visitor, Form({}))

    async def _keys(self, request: Any, visitor: Visitor, form: Form, problem: str = "") -> str:
        wanted = page_from(request, sort="name", descending=False, among=("name", "role", "lastUsedTime"))
        found, total = await self._admin.api_keys.list(visitor.operator, wanted)
        return self.show(
            request, visitor, "api_keys.html", status=400 if problem else 200, title="API keys", keys=found, form=form,
            pager=pager_of(request, wanted, total), problem=problem, roles=ROLES,
        )  # fmt: skip

    @app.route(_URL, methods=["POST"])
    @page
    async def add(self, request: Any) -> Shown:
        """The key is shown this once."""
        visitor, form = await self.sender(request, Act.ADMINISTER_KEYS)
        try:
            ends_ms = end_of_day_ms(form, "ends", "The last day")
            members = {"name": form["name"], "role": form["role"] or None, "expirationTime": ends_ms}
            made = await self._admin.api_keys.create(visitor.operator, members)
        except InvalidArgument as error:
            return await self._keys(request, visitor, form, problem=said(error))
        return self.show(
            request, visitor, "shown_once.html", title=f"API key {made.stored.name}", secret=made.value,
            what="API key", back=_URL,
        )  # fmt: skip

    @app.route(f"{_URL}/<uuid>/end", methods=["POST"])
    @page
    async def end(self, request: Any, uuid: str) -> Shown:
        """Nobody logs in with it any more."""
        visitor, _ = await self.sender(request, Act.ADMINISTER_KEYS)
        await self._admin.api_keys.delete(visitor.operator, uuid_of(uuid))
        return Redirect(_URL, "The API key is ended; programs that use it are refused from now on.")
