"""Tenants, for system administrators, who see nothing of what a tenant has but its administrators."""

from __future__ import annotations

from typing import Any

from cloud_core.core.people.permissions import TENANT_ADMIN, Act
from cloud_core.model import DEFAULT_TENANT, Page, Tenant
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.ui.fields import number_of, said
from cloud_core.transports.http.ui.pages import BY_TITLE, Pages, Redirect, Shown, page, page_from, pager_of, pages_app
from cloud_core.transports.http.ui.user_pages import role_shown
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.errors import InvalidArgument, PlatformError

USERS_SHOWN = 100
_URL = f"{PATH}/tenants"
_NOTHING = Form({})


class TenantPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(_URL, methods=["GET"])
    @page
    async def tenants(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.ADMINISTER_TENANTS)
        return await self._tenants(request, visitor, Form({}))

    async def _tenants(self, request: Any, visitor: Visitor, form: Form, problem: str = "") -> str:
        wanted = page_from(request, sort="title", descending=False, among=BY_TITLE)
        found, total = await self._admin.tenants.list(wanted)
        return self.show(
            request, visitor, "tenants.html", status=400 if problem else 200, title="Tenants", tenants=found,
            pager=pager_of(request, wanted, total), form=form, problem=problem,
        )  # fmt: skip

    @app.route(_URL, methods=["POST"])
    @page
    async def add(self, request: Any) -> Shown:
        visitor, form = await self.sender(request, Act.ADMINISTER_TENANTS)
        try:
            made = await self._admin.tenants.save(visitor.operator, _members(form))
        except InvalidArgument as error:
            return await self._tenants(request, visitor, form, problem=said(error))
        return Redirect(f"{_URL}/{made.uuid}", f"{made.name} is added. It needs an administrator of its own.")

    @app.route(f"{_URL}/<uuid>", methods=["GET"])
    @page
    async def tenant(self, request: Any, uuid: str) -> Shown:
        visitor = await self.visitor(request, Act.ADMINISTER_TENANTS)
        return await self._tenant(request, visitor, await self._admin.tenants.find(uuid_of(uuid)))

    async def _tenant(
        self, request: Any, visitor: Visitor, tenant: Tenant, typed: Form = _NOTHING, problem: str = ""
    ) -> str:
        users, total = await self._admin.users.list_of_tenant(tenant.uuid, Page(USERS_SHOWN, 0, "", "email"))
        return self.show(
            request, visitor, "tenant.html", status=400 if problem else 200, title=tenant.name, tenant=tenant,
            users=[(one.user, role_shown(one.user)) for one in users], user_count=total, problem=problem,
            is_first=tenant.uuid == DEFAULT_TENANT, typed=typed,
        )  # fmt: skip

    @app.route(f"{_URL}/<uuid>", methods=["POST"])
    @page
    async def change(self, request: Any, uuid: str) -> Shown:
        visitor, form = await self.sender(request, Act.ADMINISTER_TENANTS)
        tenant = await self._admin.tenants.find(uuid_of(uuid))
        try:
            members = tenant.document | _members(form) | {"id": str(tenant.uuid)}
            saved = await self._admin.tenants.save(visitor.operator, members)
        except InvalidArgument as error:
            return await self._tenant(request, visitor, tenant, form, said(error))
        return Redirect(f"{_URL}/{saved.uuid}", f"{saved.name} is changed.")

    @app.route(f"{_URL}/<uuid>/administrators", methods=["POST"])
    @page
    async def add_administrator(self, request: Any, uuid: str) -> Shown:
        """The password is made and shown once."""
        visitor, form = await self.sender(request, Act.ADMINISTER_TENANTS)
        tenant = await self._admin.tenants.find(uuid_of(uuid))
        members = {"email": form["email"], "authority": TENANT_ADMIN, "tenantId": str(tenant.uuid)}
        try:
            saved = await self._admin.users.save(visitor.operator, members)
        except PlatformError as error:
            return await self._tenant(request, visitor, tenant, form, said(error))
        return self.show(
            request, visitor, "shown_once.html", title=f"Password of {saved.user.username}", secret=saved.password,
            what="password", back=f"{_URL}/{tenant.uuid}",
        )  # fmt: skip

    @app.route(f"{_URL}/<uuid>/delete", methods=["POST"])
    @page
    async def delete(self, request: Any, uuid: str) -> Shown:
        """Where its title was typed; with its devices where that was ticked."""
        visitor, form = await self.sender(request, Act.ADMINISTER_TENANTS)
        tenant = await self._admin.tenants.find(uuid_of(uuid))
        try:
            if form["typed"] != tenant.name:
                raise InvalidArgument("Nothing was deleted: the title that was typed is not the tenant's.")
            with_devices = form.is_on("devices")
            await self._admin.tenants.delete(visitor.operator, tenant.uuid, with_devices=with_devices)
        except InvalidArgument as error:
            return await self._tenant(request, visitor, tenant, form, _for_people(error))
        return Redirect(_URL, f"{tenant.name} is deleted.")


def _members(form: Form) -> dict[str, Any]:
    return {"title": form["title"], "maxDevices": number_of(form, "maxDevices", "The limit of devices", 0)}


def _for_people(error: InvalidArgument) -> str:
    return said(error).replace("say withDevices=true", "tick 'Delete its devices too'")
