"""REST of the methods that devices may call, mounted under `/api/serverMethods`."""

from __future__ import annotations

from typing import Any

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi, answered
from cloud_core.core.api import DeviceApi
from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import Act
from cloud_core.core.tokens import new_secret
from cloud_core.model import ServerMethod
from cloud_core.transports.http.calls import CallSupport, answers, json_object, rest_app
from shared.errors import InvalidArgument

DEFAULT_TIMEOUT_MS = 10_000


class ServerMethodRoutes(CallSupport):
    """Which methods are bound to which webhooks; a secret is told once, when it is generated."""

    app = rest_app()

    def __init__(self, admin: AdminApi, api: DeviceApi) -> None:
        super().__init__(admin)
        self._api = api

    @app.route("/api/serverMethods", methods=["GET"])
    @answers
    async def bound(self, request: Request) -> Any:
        tenant_id = self._administrator(request).tenant_id
        methods = await answered(lambda done: self._api.server_methods.bound(tenant_id, done))
        return [_json(one) for one in methods]

    @app.route("/api/serverMethods", methods=["POST"])
    @answers
    async def bind(self, request: Request) -> Any:
        operator = self._administrator(request)
        body = json_object(request)
        given = _text(body, "secret")
        method = ServerMethod(
            tenant_id=operator.tenant_id, method=_text(body, "method"), url=_text(body, "url"),
            secret=given or new_secret(), timeout_ms=_timeout(body),
        )  # fmt: skip
        await answered(lambda done: self._api.server_methods.bind(method, done, by=operator))
        return _json(method) if given else _json(method) | {"secret": method.secret}

    @app.route("/api/serverMethods/<method>", methods=["DELETE"])
    @answers
    async def unbind(self, request: Request, method: str) -> Any:
        operator = self._administrator(request)
        await answered(lambda done: self._api.server_methods.unbind(operator.tenant_id, method, done, by=operator))

    def _administrator(self, request: Request) -> Operator:
        """Raises: NotAuthenticated, NotAuthorized."""
        return self.operator(request, Act.ADMINISTER)


def _json(method: ServerMethod) -> dict[str, Any]:
    return {"method": method.method, "url": method.url, "timeoutMs": method.timeout_ms}


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(f"'{name}' must be a string")
    return value or ""


def _timeout(body: dict[str, Any]) -> int:
    value = body.get("timeoutMs", DEFAULT_TIMEOUT_MS)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument("'timeoutMs' must be a whole number of ms")
    return value
