"""One device: what it is, whose it is, what is connected of it; renaming and deleting it."""

from __future__ import annotations

from typing import Any

from cloud_core.core.downlinks import Interest, Link
from cloud_core.core.lists import DeviceView
from cloud_core.core.people.permissions import Act
from cloud_core.model import Customer, Page
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.rest import shapes
from cloud_core.transports.http.ui.device_frame import DeviceTabs, device_url
from cloud_core.transports.http.ui.fields import version_of
from cloud_core.transports.http.ui.pages import Redirect, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.errors import InvalidArgument, PlatformError

MAX_CUSTOMERS = 200  # that can be chosen from
_HEARS = {Interest.COMMANDS: "commands", Interest.ATTRIBUTES: "attributes"}


class DevicePages(DeviceTabs):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(f"{PATH}/devices/<uuid>", methods=["GET"])
    @page
    async def device(self, request: Any, uuid: str) -> Shown:
        visitor = await self.visitor(request, Act.READ_DEVICES)
        return await self._facts(request, visitor, await self.view(visitor, uuid))

    @app.route(f"{PATH}/devices/<uuid>/save", methods=["POST"])
    @page
    async def save(self, request: Any, uuid: str) -> Shown:
        """Name, label, profile, and whether it is a gateway; everything else stays as it is."""
        visitor, form = await self.sender(request, Act.WRITE_DEVICES)
        view = await self.view(visitor, uuid)
        try:
            saved = await self._admin.save_device(visitor.operator, _changed(view, visitor, form))
        except PlatformError as error:
            return await self._facts(request, visitor, view, problem=str(error), values=form.values)
        return Redirect(device_url(saved.uuid), f"The device {saved.name} is saved.")

    @app.route(f"{PATH}/devices/<uuid>/customer", methods=["POST"])
    @page
    async def give(self, request: Any, uuid: str) -> Shown:
        """To a customer, or back to nobody."""
        visitor, form = await self.sender(request, Act.WRITE_DEVICES)
        view = await self.view(visitor, uuid)
        url, name = device_url(view.device.uuid), view.device.name
        try:
            if form["customer_title"]:
                customer = await self._titled(visitor, form["customer_title"])
                await self._admin.customers.give(visitor.operator, customer.uuid, view.device.uuid)
                return Redirect(url, f"The device {name} belongs to {customer.title} now.")
            if not form["customer"]:
                await self._admin.customers.take_back(visitor.operator, view.device.uuid)
                return Redirect(url, f"The device {name} belongs to no customer now.")
            await self._admin.customers.give(visitor.operator, uuid_of(form["customer"]), view.device.uuid)
        except PlatformError as error:
            return await self._facts(request, visitor, view, customer_problem=str(error))
        return Redirect(url, f"The device {name} belongs to the customer now.")

    @app.route(f"{PATH}/devices/<uuid>/delete", methods=["GET"])
    @page
    async def ask_delete(self, request: Any, uuid: str) -> Shown:
        """What goes with it, and whether it is meant."""
        visitor = await self.visitor(request, Act.WRITE_DEVICES)
        view = await self.view(visitor, uuid)
        return self.show_tab(request, visitor, view, "delete")

    @app.route(f"{PATH}/devices/<uuid>/delete", methods=["POST"])
    @page
    async def delete(self, request: Any, uuid: str) -> Shown:
        visitor, _ = await self.sender(request, Act.WRITE_DEVICES)
        view = await self.view(visitor, uuid)
        await self._admin.delete_device(visitor.operator, view.device.uuid)
        return Redirect(f"{PATH}/devices", f"The device {view.device.name} is deleted.")

    @app.route(f"{PATH}/devices/<uuid>/<any(save, customer):_deed>", methods=["GET"])
    @page
    async def shown_again(self, request: Any, uuid: str, _deed: str) -> Shown:
        """A page that a form has shown is loaded anew."""
        await self.visitor(request, Act.USE_OWN_LOGIN)
        return Redirect(device_url(uuid))

    async def _facts(
        self, request: Any, visitor: Visitor, view: DeviceView, *, problem: str = "", customer_problem: str = "",
        values: dict[str, str] | None = None,
    ) -> Shown:  # fmt: skip
        may_write = visitor.may(Act.WRITE_DEVICES)
        customers, total = await self._customers(visitor, view) if may_write else ([], 0)
        profiles = await self._admin.profile_names(visitor.operator) if may_write else []
        stored = {
            "name": view.device.name, "label": view.device.label, "profile": view.device.type,
            "gateway": "yes" if view.device.is_gateway else "",
        }  # fmt: skip
        found = await self._admin.whereabouts.links(view.device.id)
        return self.show_tab(
            request, visitor, view, "", status=400 if problem or customer_problem else 200, problem=problem,
            customer_problem=customer_problem, values=stored if values is None else dict.fromkeys(stored, "") | values,
            customers=customers, has_more_customers=total > len(customers),
            profiles=[(name, name) for _, name in profiles], links=_shown(found.links), silent=found.silent,
        )  # fmt: skip

    async def _titled(self, visitor: Visitor, title: str) -> Customer:
        """Raises: InvalidArgument."""
        found, _ = await self._admin.customers.list(visitor.operator, Page(MAX_CUSTOMERS, 0, title, "title"))
        for one in found:
            if one.title == title:
                return one
        raise InvalidArgument(
            f"There is no customer '{title[:100]}'. Give the whole title, as it stands under Customers."
        )

    async def _customers(self, visitor: Visitor, view: DeviceView) -> tuple[list[Customer], int]:
        """To choose from, the one that has the device among them; and how many there are."""
        part = Page(MAX_CUSTOMERS, 0, "", "title")
        found, total = await self._admin.customers.list(visitor.operator, part)
        if view.customer is not None and view.customer.id not in {one.id for one in found}:
            found = [view.customer, *found]
        return found, total


def _shown(links: list[Link]) -> list[tuple[str, str, str]]:
    """Transport, where from and what it hears, of each connection that is open."""
    return [(one.whereabouts.transport, one.whereabouts.peer, _heard(one.interest)) for one in links]


def _heard(interest: Interest) -> str:
    return ", ".join(word for one, word in _HEARS.items() if one in interest) or "nothing asked for"


def _changed(view: DeviceView, visitor: Visitor, form: Form) -> dict[str, Any]:
    """The device as REST shows it, with what the form says. Raises: InvalidArgument."""
    members = shapes.device_json(view.device, visitor.operator.tenant_uuid)
    info = members["additionalInfo"] if isinstance(members["additionalInfo"], dict) else {}
    members["additionalInfo"] = {**info, "gateway": True} if form.is_on("gateway") else _without_gateway(info)
    version = version_of(form)
    if version is None:
        raise InvalidArgument("The form is not whole; load the page again")
    del members["deviceProfileId"]  # the name of the profile says it
    return members | {
        "name": form["name"], "label": form["label"], "type": form["profile"] or view.device.type,
        "version": version,
    }  # fmt: skip


def _without_gateway(info: dict[str, Any]) -> dict[str, Any] | None:
    return {key: value for key, value in info.items() if key != "gateway"} or None
