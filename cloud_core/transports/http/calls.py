"""What all klein routes share: reading a request within limits, who is calling, answering."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any
from uuid import UUID

import msgspec
from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from werkzeug import exceptions as routing

from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import Act
from cloud_core.model import Page
from cloud_core.transports.http.errors import STATUS, error_body, refusal_body, retry_after
from cloud_core.transports.http.intake import MAX_REST_BODY_BYTES
from shared.errors import (
    InvalidArgument,
    MalformedRequest,
    NotAuthenticated,
    NotAuthorized,
    NotFound,
    PlatformError,
    RequestTooLarge,
)

log = Logger()
MAX_PAGE_SIZE = 10_000
SHAPED_AT_ONCE = 500  # rows of an answer; more of them are made in a thread


class CallSupport:
    """Base of the route classes."""

    def __init__(self, admin: Any) -> None:  # Any: AdminApi; importing it here would make a cycle of types only
        self._admin = admin

    def operator(self, request: Request, act: Act) -> Operator:
        """The caller, by `X-Authorization` or `Authorization`, who may do what the call is.

        Raises: NotAuthenticated, NotAuthorized.
        """
        header = header_text(request, b"x-authorization") or header_text(request, b"authorization")
        operator: Operator
        if header.startswith("Bearer "):
            token = header[len("Bearer ") :]
            local = self._admin.local_access.operator(token, address_of(request), is_handed_on=is_handed_on(request))
            operator = local or self._admin.operator(token)
        elif header.startswith("ApiKey "):
            operator = self._admin.access.operator_of_key(header[len("ApiKey ") :])
        else:
            raise NotAuthenticated("Authentication failed")
        if not operator.may(act):
            raise NotAuthorized
        return operator


def header_text(request: Any, name: bytes) -> str:  # Any: Request, of which mypy reads too little
    """Empty where it is not sent; whatever its bytes are, since nobody has authenticated yet."""
    return (request.getHeader(name) or b"").decode("utf-8", "replace")


def mounted(request: Any, routes: Any) -> Any:  # Any: Twisted's server.Request; a route class, klein's resource
    """Hands a request on to routes that name their whole paths."""
    request.prepath, request.postpath = [], request.prepath + request.postpath
    return routes.app.resource()


def rest_app() -> Klein:
    """For a route class; what none of its routes takes is answered with the REST error object."""
    app = Klein()
    app.handle_errors(routing.NotFound, routing.MethodNotAllowed)(_no_route)
    return app


def _no_route(self: object, request: Request, failure: Failure) -> bytes:
    """404 or 405 as the REST error object; klein calls it as if it were a method of the route class."""
    error = failure.value
    assert isinstance(error, routing.HTTPException), "klein's router raises nothing else"
    status = error.code or 404
    for name, value in error.get_headers():
        if name == "Allow":
            request.setHeader(name, value)
    body = error_body(status, error.name)
    request.setResponseCode(status)
    request.setHeader("Content-Type", "application/json")
    request.setHeader("Content-Length", str(len(body)))
    return body


Route = Callable[..., Coroutine[Any, Any, Any]]
Refusal = Callable[[Request, PlatformError], bytes]


def answers(route: Route) -> Callable[..., Any]:
    """Turns what a route returns into JSON, and its refusals into the REST error object."""
    return _answered(route, refuse)


def data_answers(route: Route) -> Callable[..., Any]:
    """As `answers` for telemetry and attributes, where 400 and 404 are plain text (section 6.6)."""
    return _answered(route, _refuse_data)


def _answered(route: Route, refusal: Refusal) -> Callable[..., Any]:
    @wraps(route)
    def answered(self: Any, request: Request, *args: Any, **kwargs: Any) -> Any:
        async def run() -> bytes:
            body = await _body_of(route(self, request, *args, **kwargs), request, refusal)
            request.setHeader("Content-Length", str(len(body)))
            return body

        return Deferred.fromCoroutine(run())

    return answered


async def _body_of(called: Coroutine[Any, Any, Any], request: Request, refusal: Refusal) -> bytes:
    try:
        result = await called
    except PlatformError as error:
        return refusal(request, error)
    except CancelledError:  # the client has gone; klein says nothing of it either
        raise
    except Exception:
        log.failure("A REST call failed")
        request.setResponseCode(500)
        request.setHeader("Content-Type", "application/json")
        return error_body(500, "Internal error; the log of the core has the details")
    if result is None:
        return b""
    if isinstance(result, bytes):  # the route has set its status and type itself
        return result
    request.setHeader("Content-Type", "application/json")
    return msgspec.json.encode(result)


async def shaped(request: Request, rows: Sequence[Any], make: Callable[[], Any]) -> Any:
    """The answer that `make` makes of so many rows. Many are put into JSON beside the reactor: ten thousand would hold
    up devices for a tenth of a second."""
    if len(rows) <= SHAPED_AT_ONCE:
        return make()
    request.setHeader("Content-Type", "application/json")
    return await deferToThread(lambda: msgspec.json.encode(make()))


def refuse(request: Request, error: PlatformError) -> bytes:
    """The REST error object for `error`; sets status and headers of the answer."""
    status, body = refusal_body(error)
    request.setResponseCode(status)
    request.setHeader("Content-Type", "application/json")
    wait_s = retry_after(error)
    if wait_s is not None:
        request.setHeader("Retry-After", str(wait_s))
    return body


def _refuse_data(request: Request, error: PlatformError) -> bytes:
    if STATUS[type(error)] not in (400, 404):
        return refuse(request, error)
    request.setResponseCode(STATUS[type(error)])
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    text = "Device with requested id wasn't found!" if isinstance(error, NotFound) else str(error)
    return text.encode("utf-8", "replace")


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


def address_of(request: Any) -> str:  # Any: Request, of which mypy reads too little
    """Where the caller is."""
    host: str = request.getClientAddress().host
    return host


_HANDED_ON = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


def is_handed_on(request: Request) -> bool:
    """Whether a proxy says that it speaks for somebody else."""
    return any(request.getHeader(name) is not None for name in _HANDED_ON)


def query(request: Request, name: str, default: str = "") -> str:
    values = request.args.get(name.encode())
    return values[-1].decode("utf-8", "replace") if values else default


def keys_of(request: Request) -> list[str] | None:
    """The comma list `keys` and every `key`, which may hold commas; None when there are none."""
    found = [key for key in query(request, "keys").split(",") if key]
    found += [key.decode("utf-8", "replace") for key in request.args.get(b"key", ()) if key]
    return found or None


def uuid_of(text: str) -> UUID:
    """Of a path. Raises: NotFound."""
    try:
        return UUID(text)
    except (ValueError, AttributeError, TypeError) as error:
        raise NotFound(f"'{text}' is no valid id") from error


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


def page_bounds(request: Request, default_size: int | None = None) -> tuple[int, int]:
    """`pageSize` and `page`, which are required where there is no default (section 6.2)."""
    size = integer(request, "pageSize", default_size)
    number = integer(request, "page", None if default_size is None else 0)
    if not 1 <= size <= MAX_PAGE_SIZE or not 0 <= number < 2**31:
        raise InvalidArgument(f"Incorrect page link: pageSize must be 1 to {MAX_PAGE_SIZE}, page 0 or more")
    return size, number


def page_of(request: Request, *, default_size: int | None = None, default_sort: str = "createdTime") -> Page:
    """`page_bounds` with what is searched for, and the order."""
    size, number = page_bounds(request, default_size)
    return Page(
        size, number, query(request, "textSearch"), query(request, "sortProperty", default_sort),
        query(request, "sortOrder", "ASC").upper() == "DESC",
    )  # fmt: skip
