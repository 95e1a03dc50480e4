"""What all klein routes share: reading a request within limits, who is calling, answering."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.http import Request

from cloud_core.core.logins import EXPIRED, Operator
from cloud_core.model import Page
from cloud_core.transports.http.errors import EXPIRED_CODE, STATUS, error_body, retry_after
from shared.errors import InvalidArgument, MalformedRequest, NotAuthenticated, PlatformError, RequestTooLarge

log = Logger()
MAX_REST_BODY_BYTES = 16_777_216
MAX_PAGE_SIZE = 10_000


class CallSupport:
    """Base of the route classes."""

    def __init__(self, admin: Any) -> None:  # Any: AdminApi; importing it here would make a cycle of types only
        self._admin = admin

    def operator(self, request: Request) -> Operator:
        """The caller, by `X-Authorization` or `Authorization`. Raises: NotAuthenticated."""
        header = request.getHeader("x-authorization") or request.getHeader("authorization") or ""
        if not header.startswith("Bearer "):
            raise NotAuthenticated("Authentication failed")
        operator: Operator = self._admin.operator(header[len("Bearer ") :])
        return operator


def answers(route: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Turns what a route returns into JSON, and its refusals into the REST error object."""

    @wraps(route)
    def answered(self: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        async def run() -> bytes:
            body = await _body_of(route(self, request, *args, **kwargs), request)
            request.setHeader("Content-Length", str(len(body)))
            return body

        return Deferred.fromCoroutine(run())

    return answered


async def _body_of(called: Coroutine[Any, Any, Any], request: Request) -> bytes:
    try:
        result = await called
    except PlatformError as error:
        return refuse(request, error)
    except Exception:
        log.failure("A REST call failed")
        request.setResponseCode(500)
        return error_body(500, "Internal error; the log of the core has the details")
    if result is None:
        return b""
    request.setHeader("Content-Type", "application/json")
    return msgspec.json.encode(result)


def refuse(request: Request, error: PlatformError) -> bytes:
    """The REST error object for `error`; sets status and headers of the answer."""
    status = STATUS[type(error)]
    if status == 200:
        status = 400  # a provision refusal cannot reach REST; if a rule does, it is a bad argument here
    request.setResponseCode(status)
    request.setHeader("Content-Type", "application/json")
    wait_s = retry_after(error)
    if wait_s is not None:
        request.setHeader("Retry-After", str(wait_s))
    text = str(error) or error.public_text
    return error_body(status, text, EXPIRED_CODE if text == EXPIRED else None)


def raw_body(request: Request, limit: int = MAX_REST_BODY_BYTES) -> bytes:
    """Raises: RequestTooLarge."""
    assert request.content is not None, "twisted sets it before a route runs"
    body: bytes = request.content.read(limit + 1)
    if len(body) > limit:
        raise RequestTooLarge(f"the body is above {limit} bytes")
    return body


def json_body(request: Request) -> Any:  # Any: decoded JSON
    """Raises: MalformedRequest, RequestTooLarge."""
    try:
        return msgspec.json.decode(raw_body(request))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"The body is not valid JSON: {error}") from error


def json_object(request: Request) -> dict[str, Any]:
    body = json_body(request)
    if not isinstance(body, dict):
        raise MalformedRequest("The body must be a JSON object")
    return body


def query(request: Request, name: str, default: str = "") -> str:
    values = request.args.get(name.encode())
    return values[-1].decode("utf-8", "replace") if values else default


def keys_of(request: Request, name: str = "keys") -> list[str] | None:
    """A comma list; None when absent or empty."""
    found = [key for key in query(request, name).split(",") if key]
    return found or None


def integer(request: Request, name: str, default: int | None = None) -> int:
    text = query(request, name)
    if not text:
        if default is None:
            raise InvalidArgument(f"Required request parameter '{name}' is not present")
        return default
    try:
        number = int(text)
    except ValueError as error:
        raise InvalidArgument(f"The parameter '{name}' must be an integer") from error
    if not -(2**63) <= number < 2**63:
        raise InvalidArgument(f"The parameter '{name}' is out of range")
    return number


def page_of(request: Request) -> Page:
    """`pageSize` and `page` are required (section 6.2)."""
    size, number = integer(request, "pageSize"), integer(request, "page")
    if not 1 <= size <= MAX_PAGE_SIZE or not 0 <= number < 2**31:
        raise InvalidArgument(f"Incorrect page link: pageSize must be 1 to {MAX_PAGE_SIZE}, page 0 or more")
    return Page(
        size, number, query(request, "textSearch"), query(request, "sortProperty", "createdTime"),
        query(request, "sortOrder", "ASC").upper() == "DESC",
    )  # fmt: skip
