"""The device API on klein: what the fast front does not take, and everything when it is off."""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http import Request
from werkzeug.exceptions import MethodNotAllowed, NotFound

from cloud_core.transports.http.adapter import MAX_BODY_BYTES, HttpDeviceAdapter
from cloud_core.transports.http.calls import no_route, raw_body, refuse
from shared.errors import RequestTooLarge


class DeviceRoutes:
    """Routes under `/api/v1`."""

    app = Klein()

    def __init__(self, adapter: HttpDeviceAdapter) -> None:
        self._adapter = adapter

    @app.route("/provision", methods=["POST"])
    def provision(self, request: Request) -> Any:
        return _answered(request, lambda body, address, answer: self._adapter.provision(body, address, answer))

    @app.route("/<token>/telemetry", methods=["POST"])
    def telemetry(self, request: Request, token: str) -> Any:
        return self._post(request, token, "telemetry")

    @app.route("/<token>/attributes", methods=["POST"])
    def attributes(self, request: Request, token: str) -> Any:
        return self._post(request, token, "attributes")

    @app.handle_errors(NotFound, MethodNotAllowed)
    def no_route(self, request: Request, failure: Failure) -> bytes:
        return no_route(request, failure)

    def _post(self, request: Request, token: str, feature: str) -> Any:
        escaped = token.replace("%", "%25")  # klein has unquoted it; the adapter does so once
        return _answered(
            request, lambda body, address, answer: self._adapter.post(escaped, feature, body, address, answer)
        )


def _answered(request: Any, start: Any) -> Any:  # Any: twisted.web request; the adapter's method
    """Runs one adapter method for a klein request."""
    try:
        body = raw_body(request, MAX_BODY_BYTES)
    except RequestTooLarge as error:
        refused = refuse(request, error)
        request.setHeader("Content-Length", str(len(refused)))
        return refused
    done: Deferred[bytes] = Deferred()

    def answer(status: int, content: bytes, retry_after_s: int | None) -> None:
        request.setResponseCode(status)
        request.setHeader("Content-Length", str(len(content)))  # small devices cannot read chunks
        if content:
            request.setHeader("Content-Type", "application/json")
        else:
            request.responseHeaders.removeHeader("content-type")
        if retry_after_s is not None:
            request.setHeader("Retry-After", str(retry_after_s))
        if not done.called:
            done.callback(content)

    start(body, request.getClientAddress().host, answer)
    return done
