"""Calls of devices to the server: what the core answers itself, and methods that operators bind to webhooks.

`getSessionLimits` is the transport's own call (wire-contract.md section 2.9). `getCurrentTime` is answered with a
bare number of ms since the epoch: that is what ThingsBoard's guide to RPC has its rule chain answer, so devices
written after it read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cloud_core.core.people.audit import Audit, Deed, Subject, Who
from cloud_core.core.people.permissions import may
from cloud_core.model import Identity, ServerMethod
from cloud_core.storage.interface import Done, ReadTx, Store, Tx
from shared.device_json import MAX_METHOD_CHARS, NotJson, parse_reply
from shared.errors import InvalidArgument, MalformedRequest, NotAuthorized, NotFound, PlatformError
from shared.messages import RpcRequest
from shared.operations import Operation
from shared.values import encodable

CURRENT_TIME = "getCurrentTime"
SESSION_LIMITS = "getSessionLimits"
MAX_CALLS = 256  # of webhooks at once
MAX_CALLS_PER_DEVICE = 4
MAX_BOUND = 1_000  # methods of a tenant
MAX_URL_CHARS = 2_048
MAX_SECRET_CHARS = 255
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 100, 60_000
_METHOD = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_METHOD_CHARS}}}")
_URL = re.compile(rf"[!-~]{{1,{MAX_URL_CHARS}}}")  # visible ASCII
_BUSY = "The server is busy with other calls; call again in a few seconds."


class ServerMethods:
    """`call` always ends in JSON for the device: an answer, or `{"error": "…"}` that says what to do."""

    def __init__(
        self,
        *,
        store: Store,
        now_ms: Callable[[], int],
        session_limits: Callable[[Identity], dict[str, Any]],
        post: Callable[[ServerMethod, bytes, Callable[[bytes | None], None]], None],
        audit: Audit | None = None,
    ) -> None:
        """`session_limits` makes the answer to `getSessionLimits`. `post` sends a webhook's body and calls back with
        the answer's body, or None when it failed or took longer than the method's timeout."""
        self._store = store
        self._audit = audit or Audit(store)
        self._now_ms = now_ms
        self._session_limits = session_limits
        self._post = post
        self._calls: dict[int, int] = {}  # device number -> its calls under way
        self._call_count = 0

    def call(self, identity: Identity, request: RpcRequest, done: Done[Any]) -> None:
        """The answer as JSON in Python's terms; NotAuthorized."""
        if not may(identity.role, Operation.CALL_SERVER):
            done(NotAuthorized())
        elif request.method == SESSION_LIMITS:
            done(self._session_limits(identity))
        elif request.method == CURRENT_TIME:
            done(self._now_ms())
        elif self._call_count >= MAX_CALLS or self._calls.get(identity.device_id, 0) >= MAX_CALLS_PER_DEVICE:
            done({"error": _BUSY})
        else:
            self._call_bound(identity, request, done)

    def _call_bound(self, identity: Identity, request: RpcRequest, done: Done[Any]) -> None:
        device_id, method = identity.device_id, request.method
        self._begin(device_id)

        def answered(body: bytes | None) -> None:
            self._end(device_id)
            done(_answer(method, body))

        def looked_up(outcome: ServerMethod | PlatformError | None) -> None:
            fault = None
            if isinstance(outcome, ServerMethod):
                try:
                    body = _call_body(identity, request)
                except MalformedRequest as error:
                    fault = str(error)
                else:
                    self._post(outcome, body, answered)
                    return
            elif outcome is None:
                fault = f"Unknown method '{method}': an operator can bind it to a webhook by POST /api/serverMethods."
            self._end(device_id)
            done({"error": fault or _BUSY})

        self._store.read(_bound_to, (identity.tenant_id, method), looked_up)

    def _begin(self, device_id: int) -> None:
        self._call_count += 1
        self._calls[device_id] = self._calls.get(device_id, 0) + 1

    def _end(self, device_id: int) -> None:
        self._call_count -= 1
        rest = self._calls[device_id] - 1
        if rest:
            self._calls[device_id] = rest
        else:
            del self._calls[device_id]

    def bind(self, method: ServerMethod, done: Done[None], *, by: Who | None = None) -> None:
        """Binds a method to a webhook, in place of any binding it had; InvalidArgument."""
        fault = _fault_of(method)
        if fault:
            done(InvalidArgument(fault))
        else:
            deed = Deed("UPDATED", "SERVER_METHOD", lambda _: Subject(None, method.method, f"host {_host(method.url)}"))
            self._audit.submit(by, deed, _bind, (method,), done)

    def unbind(self, tenant_id: int, method: str, done: Done[None], *, by: Who | None = None) -> None:
        """NotFound."""
        deed = Deed("DELETED", "SERVER_METHOD", lambda _: Subject(None, method))
        self._audit.submit(by, deed, _unbind, (tenant_id, method), done)

    def bound(self, tenant_id: int, done: Done[list[ServerMethod]]) -> None:
        self._store.read(_all_bound, (tenant_id,), done)


def _host(url: str) -> str:
    """What may be shown of a URL, whose path and user may be secrets."""
    return urlsplit(url).hostname or ""


def _call_body(identity: Identity, request: RpcRequest) -> bytes:
    """Raises: MalformedRequest for `params` that nest too deeply."""
    return msgspec.json.encode(
        {
            "deviceName": identity.device_name, "deviceId": str(identity.device_uuid), "method": request.method,
            "params": encodable(request.params),
        }
    )  # fmt: skip


def _answer(method: str, body: bytes | None) -> Any:  # Any: decoded JSON
    """What the device hears of a webhook's answer; an empty one is null."""
    if body is None:
        return {"error": f"The webhook of '{method}' failed or did not answer in time; see the log of the core."}
    try:
        value = parse_reply(body)
        encodable(value)  # what cannot be written to the device is found here, not in its transport
    except PlatformError as error:
        return {"error": f"The answer of the webhook of '{method}' is of no use: {error}"}
    if isinstance(value, NotJson):
        return {"error": f"The webhook of '{method}' answered with something that is no JSON."}
    return value


def _fault_of(method: ServerMethod) -> str | None:
    if method.method in (CURRENT_TIME, SESSION_LIMITS):
        return f"'{method.method}' is answered by the core itself; choose another method"
    if not _METHOD.fullmatch(method.method):
        return f"'method' must have 1 to {MAX_METHOD_CHARS} characters out of letters, digits and _ . : -"
    if not MIN_TIMEOUT_MS <= method.timeout_ms <= MAX_TIMEOUT_MS:
        return f"'timeoutMs' must be {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS}"
    if not 0 < len(method.secret) <= MAX_SECRET_CHARS:
        return f"'secret' must have 1 to {MAX_SECRET_CHARS} characters"
    return _url_fault_of(method.url)


def _url_fault_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        is_good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "'url' is no URL"
    if not _URL.fullmatch(url) or parts.scheme not in ("http", "https") or not is_good:
        return f"'url' must be an http or https URL of at most {MAX_URL_CHARS} characters"
    if "@" in parts.netloc:
        return "'url' must not hold a user name or password; the 'secret' signs the calls"
    return "'url' must not have a fragment (#…)" if parts.fragment else None


def _bound_to(tx: ReadTx, tenant_id: int, method: str) -> ServerMethod | None:
    return tx.server_method(tenant_id, method)


def _all_bound(tx: ReadTx, tenant_id: int) -> list[ServerMethod]:
    return tx.server_methods(tenant_id)


def _bind(tx: Tx, method: ServerMethod) -> None:
    known = tx.server_methods(method.tenant_id)
    if len(known) >= MAX_BOUND and all(one.method != method.method for one in known):
        raise InvalidArgument(f"At most {MAX_BOUND} methods can be bound; remove some first")
    tx.put_server_method(method)


def _unbind(tx: Tx, tenant_id: int, method: str) -> None:
    if tx.server_method(tenant_id, method) is None:
        raise NotFound(f"No method '{method}' is bound")
    tx.delete_server_method(tenant_id, method)
