"""Gateways: their link, what they tell of themselves, and what is behind them."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from cloud_core.core.admin import answered
from cloud_core.core.gateway_metrics import METRICS_KEY
from cloud_core.core.lists import GatewayView
from cloud_core.core.people.permissions import Act
from cloud_core.core.rpc.commands import Answer
from cloud_core.model import AttributeEntry, DevicePresence, Page, Scope
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.rest.rpc_routes import command_from
from cloud_core.transports.http.ui.device_command_pages import GATEWAY_METHODS, shown
from cloud_core.transports.http.ui.device_data_pages import text_of
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shown, page, page_from, pager_of, pages_app
from cloud_core.transports.http.ui.rendering import number
from cloud_core.transports.http.ui.visits import PATH, Visitor
from shared.errors import DeviceOffline, DeviceTimeout, InvalidArgument, PlatformError
from shared.messages import JsonValue, Value

# What edge gateways report of themselves as telemetry: key and what people read.
SPOOL, OLDEST, DROPPED = "recordsWaiting", "oldestWaitingS", "recordsDropped"
HEALTH = {
    SPOOL: "Records waiting", OLDEST: "Oldest waiting, s", "spoolBytes": "Spool",
    "freeDiskBytes": "Free disk", "devices": "Devices known there", "recordsOut": "Records sent",
    DROPPED: "Records dropped", "readingsIn": "Readings in", "readingsRefused": "Readings refused",
    "messagesRejected": "Messages rejected", "connectorsHealthy": "Connectors healthy",
    "connectorsDegraded": "Connectors degraded", "connectorsFailed": "Connectors failed",
}  # fmt: skip
LISTED = (SPOOL, OLDEST, DROPPED, "connectorsDegraded", "connectorsFailed")
ACTIONS = {
    "gateway_ping": "Ping", "gateway_version": "Version", "gateway_stats": "Statistics",
    "gateway_devices": "List its devices", "gateway_restart": "Restart",
}  # fmt: skip
MAX_EVENTS, MAX_ATTRIBUTES = 10, 60
_SORTED = ("createdTime", "name", "label", "type")
_ALARMING = (DROPPED, "connectorsDegraded", "connectorsFailed", "readingsRefused", "messagesRejected")
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_TIMEOUT_MS = 10_000


class Told(NamedTuple):
    """A number that a gateway has reported, and whether somebody should look at it."""

    title: str
    value: float
    text: str
    at_ms: int
    is_alarming: bool


class GatewayPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(f"{PATH}/gateways", methods=["GET"])
    @page
    async def gateways(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.READ)
        part = _sorted(page_from(request, sort="name", descending=False))
        rows, total = await self._admin.lists.gateway_healths(visitor.operator, part, LISTED)
        return self.show(
            request, visitor, "gateways.html", title="Gateways", pager=pager_of(request, part, total),
            rows=[(one.line, is_linked(one.line.presence), _numbers(one.told)) for one in rows],
        )  # fmt: skip

    @app.route(f"{PATH}/gateways/<uuid>", methods=["GET"])
    @page
    async def gateway(self, request: Any, uuid: str) -> Shown:
        """With a page of what is behind it."""
        visitor = await self.visitor(request, Act.READ)
        view = await self._admin.lists.gateway(visitor.operator, uuid_of(uuid))
        if not view.line.device.is_gateway:
            return Redirect(f"{PATH}/devices/{view.line.device.uuid}")
        return await self._show(request, visitor, view)

    @app.route(f"{PATH}/gateways/<uuid>/call", methods=["POST"])
    @page
    async def call(self, request: Any, uuid: str) -> Shown:
        """One of the gateway's own methods; its answer is shown."""
        visitor, form = await self.sender(request, Act.SEND_RPC)
        view = await self._admin.lists.gateway(visitor.operator, uuid_of(uuid))
        method = form["method"]
        if method not in GATEWAY_METHODS or not view.line.device.is_gateway:
            raise InvalidArgument("Choose one of the gateway's methods")
        body = {"method": method, "params": {}, "timeout": _TIMEOUT_MS}
        command = command_from(body, is_oneway=False, now_ms=self._admin.now_ms())
        try:
            answer: Answer = await answered(
                lambda done: self._admin.rpc.send(
                    visitor.operator.tenant_id, view.line.device.id, command, done, by=visitor.operator
                )
            )
        except (DeviceOffline, DeviceTimeout) as error:
            said = "The gateway is not connected." if isinstance(error, DeviceOffline) else str(error)
            return await self._show(request, visitor, view, problem=f"{ACTIONS[method]}: {said}")
        except PlatformError as error:
            return await self._show(request, visitor, view, problem=str(error))
        return await self._show(request, visitor, view, reply=(ACTIONS[method], _indented(answer.value)))

    @app.route(f"{PATH}/gateways/<uuid>/call", methods=["GET"])
    @page
    async def shown_again(self, request: Any, uuid: str) -> Shown:
        """A page that a form has shown is loaded anew."""
        await self.visitor(request, Act.USE_OWN_LOGIN)
        return Redirect(f"{PATH}/gateways/{quote(uuid)}")

    async def _show(
        self, request: Any, visitor: Visitor, view: GatewayView, *, problem: str = "",
        reply: tuple[str, str] | None = None,
    ) -> Shown:  # fmt: skip
        operator, device = visitor.operator, view.line.device
        part = _sorted(page_from(request, sort="name", descending=False))
        behind, total = await self._admin.lists.sub_devices(operator, device.uuid, part)
        latest = await self._admin.latest(operator, device.uuid, [*HEALTH, METRICS_KEY])
        known = await self._admin.lists.attributes(operator, device)
        events = self._admin.events.recent(operator, "gateway", MAX_EVENTS, deviceId=str(device.uuid))
        linked = await self._admin.whereabouts.links(device.id)
        return self.show(
            request, visitor, "gateway.html", status=400 if problem else 200, title=device.name, view=view,
            line=view.line, device=device, is_linked=is_linked(view.line.presence), told=told_of(latest),
            connectors=connectors_of(latest.get(METRICS_KEY)),
            behind=[(one, is_linked(one.presence)) for one in behind],
            pager=pager_of(request, part, total), shared=_shown_attributes(known[Scope.SHARED]),
            client=_shown_attributes(known[Scope.CLIENT]),
            events=[(one.at_ms, one.data["connected"]) for one in events], problem=problem, reply=reply,
            links=linked.links, silent=linked.silent, actions=ACTIONS,
        )  # fmt: skip


def is_linked(presence: DevicePresence) -> bool:
    return presence.last_connect_ms > presence.last_disconnect_ms


def told_of(latest: dict[str, tuple[int, Value]]) -> list[Told]:
    """The numbers that a gateway has reported, in the order in which people want them."""
    found = []
    for key, title in HEALTH.items():
        at_ms, value = latest.get(key, (0, ""))
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = size_text(value) if key.endswith("Bytes") else str(number(value))
            found.append(Told(title, value, text, at_ms, key in _ALARMING and value > 0))
    return found


def size_text(value: float) -> str:
    """`2.4 MB`."""
    for unit, sign in _SIZES:
        if abs(value) >= unit:
            return f"{value / unit:.3g} {sign}"
    return f"{value:.0f} B"


def connectors_of(stored: tuple[int, Value] | None) -> list[tuple[str, dict[str, Any]]]:
    """Latencies by connector, of what the core has measured; nothing where it cannot be read."""
    if stored is None or not isinstance(stored[1], JsonValue):
        return []
    try:
        found = msgspec.json.decode(stored[1].text, type=dict[str, dict[str, Any]])
    except msgspec.MsgspecError:
        return []
    names = ("avgGwLatency", "maxGwLatency", "avgTransportLatency", "maxTransportLatency")
    return [(name, {one: numbers.get(one) for one in names}) for name, numbers in sorted(found.items())]


def _numbers(told: dict[str, tuple[int, Value]]) -> dict[str, float]:
    return {
        key: value for key, (_, value) in told.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _shown_attributes(entries: list[AttributeEntry]) -> list[tuple[str, str, int]]:
    return [(one.key, text_of(one.value), one.updated_ms) for one in entries[:MAX_ATTRIBUTES]]


def _sorted(part: Page) -> Page:
    """An order that cannot be had counts as not given."""
    if part.sort_property in _SORTED:
        return part
    return Page(part.size, part.page, part.text_search, "name")


def _indented(value: Any) -> str:  # Any: decoded JSON
    try:
        return msgspec.json.format(shown(value), indent=2)
    except (msgspec.MsgspecError, ValueError):
        return shown(value)
