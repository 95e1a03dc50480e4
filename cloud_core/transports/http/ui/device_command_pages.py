"""Commands to a device (RPC): sent now, or waiting on disk."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from cloud_core.core.admin import answered
from cloud_core.core.lists import DeviceView
from cloud_core.core.people.permissions import Act
from cloud_core.core.rpc.commands import Answer, ServerRpc
from cloud_core.model import Page, PersistentCommand, RpcStatus
from cloud_core.transports.http.calls import uuid_of
from cloud_core.transports.http.rest.rpc_routes import command_from
from cloud_core.transports.http.ui.device_frame import DeviceTabs, device_url
from cloud_core.transports.http.ui.pages import Redirect, Shown, page, page_from, pager_of, pages_app
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.device_json import NotJson, render_json
from shared.errors import DeviceOffline, DeviceTimeout, InvalidArgument, PlatformError
from shared.json_bodies import decode_json

MAX_SHOWN_CHARS = 20_000  # of an answer
GATEWAY_METHODS = ("gateway_ping", "gateway_version", "gateway_stats", "gateway_devices", "gateway_restart")
STATES = {
    RpcStatus.QUEUED: "idle", RpcStatus.SENT: "warn", RpcStatus.DELIVERED: "warn", RpcStatus.SUCCESSFUL: "good",
    RpcStatus.TIMEOUT: "bad", RpcStatus.EXPIRED: "bad", RpcStatus.FAILED: "bad", RpcStatus.DELETED: "idle",
}  # fmt: skip
_DEFAULTS = {"method": "", "params": "", "way": "twoway", "timeout": "10", "hours": "24"}
_OPEN = (RpcStatus.QUEUED, RpcStatus.SENT, RpcStatus.DELIVERED)
_MAX_TIMEOUT_S, _MAX_HOURS = 300, 8_760


class DeviceCommandPages(DeviceTabs):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(f"{PATH}/devices/<uuid>/commands", methods=["GET"])
    @page
    async def commands(self, request: Any, uuid: str) -> Shown:
        visitor = await self.visitor(request, Act.READ)
        return await self._show(request, visitor, await self.view(visitor, uuid), dict(_DEFAULTS))

    @app.route(f"{PATH}/devices/<uuid>/commands", methods=["POST"])
    @page
    async def send(self, request: Any, uuid: str) -> Shown:
        """Shows the device's answer, or why there is none."""
        visitor, form = await self.sender(request, Act.SEND_RPC)
        view = await self.view(visitor, uuid)
        try:
            command = rpc_from(form, now_ms=self._admin.now_ms())
            outcome: Answer | UUID = await answered(
                lambda done: self._admin.rpc.send(
                    visitor.operator.tenant_id, view.device.id, command, done, by=visitor.operator
                )
            )
        except (DeviceOffline, DeviceTimeout) as error:
            problem = f"{error} {_advice(error)}"
            return await self._show(request, visitor, view, _DEFAULTS | form.values, problem=problem)
        except PlatformError as error:
            return await self._show(request, visitor, view, _DEFAULTS | form.values, problem=str(error))
        if isinstance(outcome, UUID):
            notice = f"The command {command.method[:100]} waits for the device."
            return Redirect(device_url(view.device.uuid, "commands"), notice)
        said = "The device has the command." if command.is_oneway else shown(outcome.value)
        return await self._show(request, visitor, view, _DEFAULTS | form.values, reply=said)

    @app.route(f"{PATH}/devices/<uuid>/commands/<command>/delete", methods=["POST"])
    @page
    async def take_back(self, request: Any, uuid: str, command: str) -> Shown:
        visitor, _ = await self.sender(request, Act.SEND_RPC)
        view = await self.view(visitor, uuid)
        tenant_id, wanted = visitor.operator.tenant_id, uuid_of(command)
        found: PersistentCommand = await answered(lambda done: self._admin.rpc.find(tenant_id, wanted, done))
        if found.device_uuid != view.device.uuid:
            raise InvalidArgument("This command is for another device")
        await answered(lambda done: self._admin.rpc.delete(tenant_id, wanted, done, by=visitor.operator))
        url = device_url(view.device.uuid, "commands")
        return Redirect(url, f"The command {found.method[:100]} is taken back.")

    @app.route(f"{PATH}/devices/<uuid>/commands/<_command>/delete", methods=["GET"])
    @page
    async def shown_again(self, request: Any, uuid: str, _command: str) -> Shown:
        """A page that a form has shown is loaded anew."""
        await self.visitor(request, Act.USE_OWN_LOGIN)
        return Redirect(device_url(uuid, "commands"))

    async def _show(
        self, request: Any, visitor: Visitor, view: DeviceView, values: dict[str, str], *, problem: str = "",
        reply: str = "",
    ) -> Shown:  # fmt: skip
        part = page_from(request)
        part = Page(part.size, part.page, "", "createdTime", descending=True)
        tenant_id, device_id = visitor.operator.tenant_id, view.device.id
        rows, total = await answered(lambda done: self._admin.rpc.list(tenant_id, device_id, part, None, done))
        reach = await self._admin.whereabouts.reach(device_id)
        return self.show_tab(
            request, visitor, view, "commands", status=400 if problem else 200, problem=problem, reply=reply,
            values=values, pager=pager_of(request, part, total), open_states=_OPEN, states=STATES,
            rows=[(one, shown(one.params), shown(one.response)) for one in rows],
            is_reachable=reach.is_reachable, silent=reach.silent,
            methods=GATEWAY_METHODS if view.device.is_gateway else (),
        )  # fmt: skip


def rpc_from(form: Form, *, now_ms: int) -> ServerRpc:
    """By REST's rules. Raises: InvalidArgument, MalformedRequest."""
    is_persistent = form["way"] == "waiting"
    timeout_s = _whole(form, "timeout", "The time to wait", 5, _MAX_TIMEOUT_S)
    hours = _whole(form, "hours", "How long it waits", 1, _MAX_HOURS)
    body: dict[str, Any] = {
        "method": form["method"], "params": params_of(form["params"]), "persistent": is_persistent,
        "timeout": hours * 3_600_000 if is_persistent else timeout_s * 1000,
    }  # fmt: skip
    if not body["method"]:
        raise InvalidArgument("Give the name of the method.")
    return command_from(body, is_oneway=form["way"] == "oneway", now_ms=now_ms)


def params_of(text: str) -> Any:  # Any: decoded JSON
    """Raises: InvalidArgument."""
    if not text:
        return None
    try:
        return decode_json(text.encode())
    except PlatformError as error:
        raise InvalidArgument(f'The parameters are not JSON: {error} A text stands in "quotes".') from error


def shown(value: Any) -> str:  # Any: decoded JSON, or text that is none
    if value is None:
        return ""
    text = str(value) if isinstance(value, NotJson) else render_json(value).decode("utf-8", "replace")
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def _advice(error: PlatformError) -> str:
    if isinstance(error, DeviceOffline):
        return "Choose a command that waits, or try again when the device is connected."
    return "Give it more time, or look whether its firmware knows the method."


def _whole(form: Form, name: str, title: str, least: int, most: int) -> int:
    text = form[name] or _DEFAULTS[name]
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and least <= int(text) <= most):
        raise InvalidArgument(f"{title} must be a whole number from {least} to {most}.")
    return int(text)
