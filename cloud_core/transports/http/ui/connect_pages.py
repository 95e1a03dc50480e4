"""How devices of a profile connect: commands and programs to copy, with the addresses as they are here."""

from __future__ import annotations

from typing import Any

from cloud_core.core.people.permissions import Act
from cloud_core.transports.http.calls import query, uuid_of
from cloud_core.transports.http.ui.connecting import Connecting
from cloud_core.transports.http.ui.pages import Redirect, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH

ONE = f"{PATH}/profiles/<uuid>/connect"


class ConnectPages(Connecting):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(ONE, methods=["GET"])
    @page
    async def connect(self, request: Any, uuid: str) -> Shown:
        """`way`: one of `snippets.WAYS`; `tls`: `yes`, `no`, or as it fits; `name`: of the device."""
        visitor = await self.visitor(request, Act.READ)
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        return await self._connect(
            request, visitor, profile, way=query(request, "way"), with_tls=query(request, "tls"),
            name=query(request, "name"),
        )  # fmt: skip

    @app.route(f"{ONE}/reveal", methods=["POST"])
    @page
    async def reveal(self, request: Any, uuid: str) -> Shown:
        """With the provision secret in its place."""
        visitor, form = await self.sender(request, Act.READ_PROFILE_SECRETS)
        profile = await self._admin.profile(visitor.operator, uuid_of(uuid))
        return await self._connect(
            request, visitor, profile, way=form["way"], with_tls=form["tls"], name=form["name"],
            secret=profile.provision.secret,
        )  # fmt: skip

    @app.route(f"{ONE}/reveal", methods=["GET"])
    @page
    async def back(self, request: Any, uuid: str) -> Shown:
        """Whoever loads it again, or changes how the page looks."""
        await self.visitor(request, Act.READ)
        return Redirect(f"{PATH}/profiles/{uuid_of(uuid)}/connect")
