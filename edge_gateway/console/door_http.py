"""What every answer of the local door has in common: limits, headers, refusals, who is asking."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from edge_gateway.console.access import Access

MAX_BODY_BYTES = 1024 * 1024
MAX_CONNECTIONS = 100
IDLE_S = 60
COOKIE = "edge_gateway_session"
HEADER = "x-edge-gateway"  # a form or an image of a foreign page cannot send it
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = Logger()


class Refused(Exception):
    """An answer other than success; `text` says what is wrong and how to mend it."""

    def __init__(self, status: int, text: str, *, retry_after_s: float = 0.0, **more: Any) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.retry_after_s = retry_after_s
        self.more = more


class DoorRequest(Request):
    """Bodies are bounded before they are read; names that an attacker's DNS may point here are not answered."""

    def gotLength(self, length: int | None) -> None:
        self._is_too_large = length is None or length > MAX_BODY_BYTES
        if self._is_too_large:
            # Nothing of it is kept: the answer goes out, and the connection ends.
            channel: Any = self.channel
            channel.transport.write(b"HTTP/1.1 413 Payload Too Large\r\nConnection: close\r\n\r\n")
            channel.loseConnection()
            length = 0
        super().gotLength(length)  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:
        if not self._is_too_large:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def process(self) -> None:
        if self._is_too_large:
            return
        for name, value in HEADERS.items():
            self.setHeader(name, value)  # type: ignore[no-untyped-call]
        if not is_own_host(self.getHeader("host") or ""):
            text = "open this page by the gateway's IP address, localhost or its host name"
            self.write(refuse(self, Refused(421, text)))  # type: ignore[no-untyped-call]
            self.finish()  # type: ignore[no-untyped-call]
            return
        super().process()  # type: ignore[no-untyped-call]

    def render(self, resrc: Any) -> None:
        # Twisted has just named its version.
        self.setHeader("Server", "edge-gateway")  # type: ignore[no-untyped-call]
        super().render(resrc)  # type: ignore[no-untyped-call]


def is_own_host(host: str) -> bool:
    """Whether a Host header can only mean this machine. An address cannot be rebound; a foreign name can."""
    name = (urlsplit(f"//{host}").hostname or "") if _is_plain(host) else ""
    own = socket.gethostname().lower()
    if name in ("localhost", own, f"{own}.local"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_plain(host: str) -> bool:
    return bool(host) and not set(host) & set("/@\\?# ") and host.count("[") == host.count("]")


class BoundedFactory(WrappingFactory):
    """Serves so many connections and closes further ones at once."""

    noisy = False

    def __init__(self, resource: Resource) -> None:
        site = Site(resource, requestFactory=DoorRequest, timeout=IDLE_S)
        site.noisy = False
        site.displayTracebacks = False
        super().__init__(site)  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress | None) -> Any:  # Any: Twisted's wrapped protocol
        return super().buildProtocol(addr) if len(self.protocols) < MAX_CONNECTIONS else None


def answered(*, is_open: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turns what a route returns into JSON (bytes and text go out as they are), and `Refused` into its answer.

    Routes are for those who have logged in, unless `is_open`."""

    def decorate(route: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(route)
        def run(self: Any, request: Any, *arguments: Any) -> Any:
            try:
                if not is_open:
                    check_caller(request, self.access)
                result = route(self, request, *arguments)
            except Exception as error:
                return refuse(request, error)
            if isinstance(result, Deferred):
                result.addCallback(functools.partial(rendered, request))
                return result.addErrback(functools.partial(_failed, request))
            return rendered(request, result)

        return run

    return decorate


def _failed(request: Any, failure: Failure) -> bytes:
    is_cancelled = failure.check(CancelledError, asyncio.CancelledError)  # nobody is there any more
    return b"" if is_cancelled else refuse(request, failure.value)


def check_caller(request: Any, access: Access) -> None:
    """By the commands' token, or by a session of the page. Raises: Refused."""
    kind, _, presented = (request.getHeader("authorization") or "").partition(" ")
    if kind.lower() == "bearer":
        if not access.is_token(presented.strip()):
            raise Refused(401, "this is not the gateway's local token; it stands in local-token in its data directory")
        return
    if not access.is_session(session_of(request)):
        raise Refused(401, "log in with the PIN; `edge-gateway status` shows it")
    if request.method not in (b"GET", b"HEAD"):
        check_origin(request)


def check_origin(request: Any) -> None:
    """That a change comes from our own page. Raises: Refused."""
    origin = request.getHeader("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc != request.getHeader("host")
    if not request.getHeader(HEADER) or is_foreign:
        raise Refused(403, "changes are taken from the gateway's own page alone")


def session_of(request: Any) -> str:
    """What the cookie says, or nothing."""
    return (request.getCookie(COOKIE.encode()) or b"").decode("ascii", "replace")


def refuse(request: Any, error: BaseException | None) -> bytes:
    """The answer to an error; what nobody foresaw is logged and not told."""
    if not isinstance(error, Refused):
        log.error("the local page's request failed: {error!r}", error=error)
        error = Refused(500, "the gateway could not answer; its log says why")
    request.setResponseCode(error.status)
    if error.retry_after_s:
        request.setHeader("Retry-After", str(round(error.retry_after_s)))
    request.setHeader("Content-Type", "application/json")
    body = msgspec.json.encode({"error": error.text, **error.more})
    return body


def rendered(request: Any, value: Any) -> bytes:
    """The body."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    request.setHeader("Content-Type", "application/json")
    return msgspec.json.encode(value)


def body_of(request: Any, shape: type[Any]) -> Any:
    """The JSON body as `shape`. Raises: Refused."""
    try:
        return msgspec.json.decode(request.content.read() or b"{}", type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"the request cannot be read: {error}") from None


def argument(request: Any, name: str, default: str = "") -> str:
    """A parameter of the query; the last one counts."""
    values = request.args.get(name.encode()) or [default.encode()]
    return str(values[-1].decode("utf-8", "replace"))


def number(request: Any, name: str, default: int, lowest: int, highest: int) -> int:
    """A whole number of the query. Raises: Refused."""
    text = argument(request, name, str(default))
    if not text.isascii() or not text.isdigit() or not lowest <= int(text[:12]) <= highest:
        raise Refused(400, f"{name} must be a whole number from {lowest} to {highest}")
    return int(text)
