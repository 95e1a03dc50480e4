"""Customers: to whom devices belong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloud_core.core.people.permissions import Act
from cloud_core.model import Customer, Page
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.ui.fields import said, version_of
from cloud_core.transports.http.ui.pages import BY_TITLE, Pages, Redirect, Shown, page, page_from, pager_of, pages_app
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.errors import InvalidArgument, PlatformError

SHOWN, MAX_USERS = 25, 100
_URL = f"{PATH}/customers"
_NOTHING = Form({})


class CustomerPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(_URL, methods=["GET"])
    @page
    async def customers(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.READ)
        return await self._customers(request, visitor, Form({}))

    async def _customers(self, request: Any, visitor: Visitor, form: Form, problem: str = "") -> str:
        wanted = page_from(request, sort="title", descending=False, among=BY_TITLE)
        found, total = await self._admin.customers.list(visitor.operator, wanted)
        return self.show(
            request, visitor, "customers.html", status=400 if problem else 200, title="Customers", customers=found,
            pager=pager_of(request, wanted, total), form=form, problem=problem,
        )  # fmt: skip

    @app.route(_URL, methods=["POST"])
    @page
    async def add(self, request: Any) -> Shown:
        visitor, form = await self.sender(request, Act.ADMINISTER)
        try:
            made = await self._admin.customers.save(visitor.operator, {"title": form["title"]})
        except InvalidArgument as error:
            return await self._customers(request, visitor, form, problem=said(error))
        return Redirect(f"{_URL}/{made.uuid}", f"{made.title} is added.")

    @app.route(f"{_URL}/<uuid>", methods=["GET"])
    @page
    async def customer(self, request: Any, uuid: str) -> Shown:
        visitor = await self.visitor(request, Act.READ)
        found = await self._admin.customers.find(visitor.operator, uuid_of(uuid))
        return await self._customer(request, visitor, found)

    async def _customer(
        self, request: Any, visitor: Visitor, customer: Customer, typed: Form = _NOTHING, problem: str = ""
    ) -> str:
        operator, part = visitor.operator, page_from(request, size=SHOWN)
        part = Page(part.size, part.page, "", "name")
        devices, device_count = await self._admin.customers.devices(operator, customer.uuid, part, "")
        pager = replace(pager_of(request, part, device_count), path=f"{_URL}/{customer.uuid}")
        users, user_count = (
            await self._admin.users.list(operator, Page(MAX_USERS, 0, "", "name"), customer.uuid)
            if visitor.may(Act.ADMINISTER_USERS)
            else ([], 0)
        )
        return self.show(
            request, visitor, "customer.html", status=400 if problem else 200, title=customer.title, customer=customer,
            devices=devices, pager=pager, users=users, user_count=user_count, problem=problem,
            typed=typed,
        )  # fmt: skip

    @app.route(f"{_URL}/<uuid>", methods=["POST"])
    @page
    async def change(self, request: Any, uuid: str) -> Shown:
        visitor, form = await self.sender(request, Act.ADMINISTER)
        customer = await self._admin.customers.find(visitor.operator, uuid_of(uuid))
        try:
            own = {"id": str(customer.uuid), "title": form["title"], "version": version_of(form)}
            members = customer.document | own
            saved = await self._admin.customers.save(visitor.operator, members)
        except PlatformError as error:
            return await self._customer(request, visitor, customer, form, said(error))
        return Redirect(f"{_URL}/{saved.uuid}", f"{saved.title} is changed.")

    @app.route(f"{_URL}/<uuid>/delete", methods=["POST"])
    @page
    async def delete(self, request: Any, uuid: str) -> Shown:
        """Its devices go back to nobody; its users go with it."""
        visitor, _ = await self.sender(request, Act.ADMINISTER)
        customer = await self._admin.customers.find(visitor.operator, uuid_of(uuid))
        await self._admin.customers.delete(visitor.operator, customer.uuid)
        return Redirect(_URL, f"{customer.title} is deleted; its devices belong to nobody now.")
