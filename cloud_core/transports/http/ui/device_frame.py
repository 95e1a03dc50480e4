"""What the pages of one device share: the device, its place, and the tabs."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

from cloud_core.core.lists import DeviceView
from cloud_core.core.people.permissions import Act
from cloud_core.model import DeviceStage
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.ui.pages import Pages
from cloud_core.transports.http.ui.visits import PATH, Visitor

STAGES = {
    DeviceStage.CREATED: ("created", "idle"),
    DeviceStage.ISSUED: ("issued", "warn"),
    DeviceStage.CONFIRMED: ("confirmed", "good"),
}
"""Words and colours of how far a device has come."""


class Tab(NamedTuple):
    """One page of a device; `name` is the end of its address."""

    name: str
    title: str
    act: Act


TABS = (
    Tab("", "Device", Act.READ_DEVICES),
    Tab("telemetry", "Telemetry", Act.READ_DEVICES),
    Tab("attributes", "Attributes", Act.READ_DEVICES),
    Tab("commands", "Commands", Act.READ),
    Tab("credentials", "Credentials", Act.READ_CREDENTIALS),
    Tab("provisioning", "Provisioning", Act.READ),
)


def device_url(uuid: object, tab: str = "") -> str:
    return f"{PATH}/devices/{quote(str(uuid))}/{tab}".rstrip("/")


class DeviceTabs(Pages):
    """Base of the classes of pages of one device."""

    async def view(self, visitor: Visitor, uuid: str) -> DeviceView:
        """Raises: NotFound; NotAuthorized for the user of a customer that it does not belong to."""
        return await self._admin.lists.device(visitor.operator, uuid_of(uuid))

    def show_tab(
        self, request: Any, visitor: Visitor, view: DeviceView, tab: str, *, status: int = 200, **context: Any
    ) -> str:
        """The template `device_<tab>.html`, `device_facts.html` for the first one."""
        tabs = [(one, device_url(view.device.uuid, one.name)) for one in TABS if visitor.may(one.act)]
        return self.show(
            request, visitor, f"device_{tab or 'facts'}.html", status=status, title=view.device.name, view=view,
            device=view.device, base=device_url(view.device.uuid), tabs=tabs, tab=tab, stages=STAGES, **context,
        )  # fmt: skip
