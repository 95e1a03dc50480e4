"""REST of commands to devices (wire-contract.md section 6.7), mounted under `/api/rpc` and `/api/plugins/rpc`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from twisted.web.http import Request

from cloud_core.core.admin import AdminApi, answered
from cloud_core.core.api import DeviceApi
from cloud_core.core.people.permissions import Act
from cloud_core.core.rpc.commands import Answer, ServerRpc
from cloud_core.model import PersistentCommand, RpcStatus
from cloud_core.transports.http.calls import CallSupport, answers, page_of, query, raw_body, refuse, rest_app
from cloud_core.transports.http.errors import error_body
from cloud_core.transports.http.rest import shapes
from shared.device_json import NotJson, render_json
from shared.errors import DeviceOffline, DeviceTimeout, InvalidArgument, MalformedRequest, NotFound, PlatformError
from shared.json_bodies import decode_json
from shared.values import MAX_INT64

MIN_TIMEOUT_MS, DEFAULT_TIMEOUT_MS = 5_000, 10_000
MAX_RETRIES = 5
NO_DEVICE = "Device with requested id wasn't found!"
NOT_ACCEPTABLE = 406
_V1_STATUS: dict[type[PlatformError], int] = {DeviceTimeout: 408, DeviceOffline: 409}
_LISTED = [one.value for one in RpcStatus if one is not RpcStatus.DELETED]


class RpcRoutes(CallSupport):
    """One set of routes; `is_v1` is the older prefix, which has other status codes for a device that is silent."""

    app = rest_app()

    def __init__(self, admin: AdminApi, api: DeviceApi, *, is_v1: bool = False) -> None:
        super().__init__(admin)
        self._api = api
        self._is_v1 = is_v1

    @app.route("/oneway/<uuid>", methods=["POST"])
    @answers
    async def oneway(self, request: Request, uuid: str) -> Any:
        return await self._send(request, uuid, is_oneway=True)

    @app.route("/twoway/<uuid>", methods=["POST"])
    @answers
    async def twoway(self, request: Request, uuid: str) -> Any:
        return await self._send(request, uuid, is_oneway=False)

    @app.route("/persistent/<uuid>", methods=["GET"])
    @answers
    async def persistent(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ)
        return command_json(await self._command(request, uuid), operator.tenant_uuid)

    @app.route("/persistent/<uuid>", methods=["DELETE"])
    @answers
    async def delete(self, request: Request, uuid: str) -> Any:
        operator, command = self.operator(request, Act.SEND_RPC), await self._command(request, uuid)
        await answered(lambda done: self._api.rpc.delete(operator.tenant_id, command.uuid, done, by=operator))

    @app.route("/persistent/device/<uuid>", methods=["GET"])
    @answers
    async def commands(self, request: Request, uuid: str) -> Any:
        operator, page = self.operator(request, Act.READ), page_of(request)
        wanted = query(request, "rpcStatus")
        if wanted and wanted not in _LISTED:
            raise InvalidArgument(f"rpcStatus must be one of {', '.join(_LISTED)}")
        device = await self._admin.device(operator, _uuid(uuid, "Device"))
        status = RpcStatus(wanted) if wanted else None
        rows, total = await answered(lambda done: self._api.rpc.list(operator.tenant_id, device.id, page, status, done))
        shaped = [command_json(one, operator.tenant_uuid) for one in rows]
        return shapes.page_json(shaped, total, page.size, page.page)

    async def _command(self, request: Request, uuid: str) -> PersistentCommand:
        """Only what belongs to a device that the operator may see. Raises: NotFound."""
        operator, wanted = self.operator(request, Act.READ), _uuid(uuid, "Rpc")
        command: PersistentCommand = await answered(lambda done: self._api.rpc.find(operator.tenant_id, wanted, done))
        await self._admin.device(operator, command.device_uuid)
        return command

    async def _send(self, request: Request, uuid: str, *, is_oneway: bool) -> Any:
        operator = self.operator(request, Act.SEND_RPC)
        command = command_from(_object(request), is_oneway=is_oneway, now_ms=self._api.now_ms())
        try:
            device = await self._admin.device(operator, _uuid(uuid, "Device"))
        except NotFound:
            return _no_device(request)
        try:
            outcome: Answer | UUID = await answered(
                lambda done: self._api.rpc.send(operator.tenant_id, device.id, command, done, by=operator)
            )
        except (DeviceTimeout, DeviceOffline) as error:
            return self._silent(request, error)
        if isinstance(outcome, UUID):
            return {"rpcId": str(outcome)}
        if isinstance(outcome.value, NotJson):
            return _refusal(request, NOT_ACCEPTABLE, "The device answered with something that is no JSON")
        return None if outcome.value is None else msgspec.Raw(render_json(outcome.value))

    def _silent(self, request: Request, error: PlatformError) -> bytes:
        return _refusal(request, _V1_STATUS[type(error)], str(error)) if self._is_v1 else refuse(request, error)


def _refusal(request: Request, status: int, text: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader("Content-Type", "application/json")
    return error_body(status, text)


def _no_device(request: Request) -> bytes:
    request.setResponseCode(404)
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    return NO_DEVICE.encode()


def _uuid(text: str, kind: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound(f"{kind} with id [{text}] is not found") from error


def _object(request: Request) -> dict[str, Any]:
    """The body with its numbers as they were written, so that the device gets them so."""
    body = decode_json(raw_body(request))
    if not isinstance(body, dict):
        raise MalformedRequest("The body must be a JSON object")
    return body


def command_from(body: dict[str, Any], *, is_oneway: bool, now_ms: int) -> ServerRpc:
    """What is asked for. Raises: InvalidArgument."""
    method = body.get("method")
    if not isinstance(method, str) or not method:
        raise InvalidArgument("'method' must be given, as a string")
    expires_ms = _whole(body, "expirationTime", 0)
    if body.get("expirationTime") is None:
        expires_ms = min(now_ms + max(MIN_TIMEOUT_MS, _whole(body, "timeout", DEFAULT_TIMEOUT_MS)), MAX_INT64)
    return ServerRpc(
        method=method, params=body.get("params"), is_oneway=is_oneway, expires_ms=expires_ms,
        is_persistent=_is_true(body, "persistent"), retries=min(_whole(body, "retries", MAX_RETRIES), MAX_RETRIES),
        additional_info=body.get("additionalInfo"), uuid=_request_uuid(body),
    )  # fmt: skip


def _whole(body: dict[str, Any], name: str, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INT64:
        raise InvalidArgument(f"'{name}' must be a whole number, 0 or more")
    return value


def _is_true(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidArgument(f"'{name}' must be true or false")
    return value is True


def _request_uuid(body: dict[str, Any]) -> UUID | None:
    value = body.get("requestUUID")
    if value is None:
        return None
    try:
        return UUID(str(value))
    except ValueError as error:
        raise InvalidArgument("'requestUUID' must be a UUID") from error


def command_json(command: PersistentCommand, tenant: UUID) -> dict[str, Any]:
    """ThingsBoard's `Rpc`; in `request`, as there, `params` and `additionalInfo` are JSON as text."""
    tenant_id, device_id = shapes.entity_id("TENANT", tenant), shapes.entity_id("DEVICE", command.device_uuid)
    return {
        "id": shapes.entity_id("RPC", command.uuid), "createdTime": command.created_ms, "tenantId": tenant_id,
        "deviceId": device_id, "expirationTime": command.expires_ms,
        "request": {
            "id": str(command.uuid), "tenantId": tenant_id, "deviceId": device_id, "oneway": command.is_oneway,
            "expirationTime": command.expires_ms,
            "body": {"method": command.method, "params": _json_text(command.params)},
            "persisted": True, "retries": command.retries_left,
            "additionalInfo": _json_text(command.additional_info),
        },
        "response": msgspec.Raw(render_json(command.response)), "status": command.status.value,
        "additionalInfo": msgspec.Raw(render_json(command.additional_info)),
    }  # fmt: skip


def _json_text(value: Any) -> str | None:  # Any: decoded JSON
    return None if value is None else render_json(value).decode()
