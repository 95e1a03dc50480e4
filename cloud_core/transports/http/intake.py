"""klein's Site with bounds of ours: body size, a deadline for headers, no access log."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from html import escape
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.web.http import RESPONSES, HTTPChannel
from twisted.web.server import Request, Site

from cloud_core.core.line_ration import LineRation
from cloud_core.transports.http.errors import refusal_body
from cloud_core.transports.proxies import FORWARDED, X_FORWARDED_FOR, X_FORWARDED_PROTO, TrustedProxies, is_https
from shared.errors import PlatformError, RequestTooLarge
from shared.json_bodies import MAX_BODY_BYTES

log = Logger()
MAX_REST_BODY_BYTES = 16_777_216
_DEVICE_API, _PAGES = b"/api/v1/", b"/ui/"
MAX_LINES = 10  # of the log about clients that speak TLS, in LineRation's span

# (request, method, path) -> how large an operator's body may be; asked when the headers are in. Raises what is
# wrong with the caller, whose body may be as large as a device's then.
BodyLimit = Callable[[Any, bytes, bytes], int]


class BoundedRequest(Request):
    """Refuses a body that is too large before it is stored, whether its length is declared or not.

    Who has not logged in may send as much as a device; everything above is answered 401 at once.
    """

    _limit = MAX_BODY_BYTES
    _received = 0
    _fault: PlatformError | None = None  # what is wrong with the caller
    _is_refused = False

    _client: Any = None  # IAddress; found out when somebody asks

    def getClientAddress(self) -> Any:
        """Of the client, also where a trusted proxy speaks for it."""
        if self._client is None:
            peer: Any = self.client
            self._client, proxies = peer, self._proxies()
            if proxies.covers(getattr(peer, "host", "")):
                headers = self.requestHeaders
                told = [headers.getRawHeaders(name, ()) for name in (X_FORWARDED_FOR, FORWARDED)]
                host = proxies.client_of(peer.host, *told)
                if host != peer.host:
                    self._client = (IPv6Address if ":" in host else IPv4Address)("TCP", host, 0)
        return self._client

    def is_secure(self) -> bool:
        """Whether the client speaks TLS with us, or with the proxy before us.

        As long as no proxy is named as trusted, anybody may say so of itself: it concerns its own cookies and links.
        """
        proxies = self._proxies()
        return bool(self.isSecure()) or (  # type: ignore[no-untyped-call]
            (not proxies or proxies.covers(getattr(self.client, "host", "")))
            and is_https(self.getHeader(X_FORWARDED_PROTO))
        )

    def _proxies(self) -> TrustedProxies:
        channel: Any = self.channel  # gone with the connection; twisted sets `site` when the request is whole
        site: Any = self.site or channel.site
        proxies: TrustedProxies = site.proxies
        return proxies

    def gotLength(self, length: int | None) -> None:
        channel: Any = self.channel  # HTTPChannel, which knows method and path already
        if (length is None or length > MAX_BODY_BYTES) and not channel._path.startswith(_DEVICE_API):
            try:
                self._limit = channel.site.body_limit(self, channel._command, channel._path)
            except PlatformError as error:
                self._fault = error
        is_too_large = length is not None and length > self._limit
        super().gotLength(0 if is_too_large else length)  # type: ignore[no-untyped-call]
        if is_too_large:
            self._refuse(length or 0)

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._limit:
            self._refuse(self._received)
        if not self._is_refused:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._is_refused:
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]

    def _refuse(self, length: int) -> None:
        """Answers past the request's own machinery, which could answer only after the whole body."""
        if self._is_refused:
            return
        self._is_refused = True
        channel: Any = self.channel  # HTTPChannel, which twisted declares more loosely
        is_page = channel._path.startswith(_PAGES)
        too_large = RequestTooLarge(f"the body is above {self._limit} bytes")
        is_hopeless = length > MAX_REST_BODY_BYTES and not is_page  # whoever the caller is
        error = too_large if self._fault is None or is_hopeless else self._fault
        status, body = refusal_body(error)
        media_type = b"application/json"
        if is_page:
            media_type, body = b"text/html; charset=utf-8", _page_of(error)
        channel.transport.write(
            b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (status, RESPONSES[status], media_type, len(body), body)
        )
        channel.loseConnection()


def _page_of(error: PlatformError) -> bytes:
    """For people: without the frame, which is made of what has not been read."""
    text = escape(str(error) or error.public_text)
    return (
        f'<!doctype html><html lang="en"><title>Not possible</title><h1>Not possible</h1><p role="alert">{text}</p>'
        '<p><a href="/ui/">Go to the first page</a></p></html>'
    ).encode()


def speaks_tls(data: bytes) -> bool:
    """Whether the first bytes of a plain connection are a TLS client's."""
    return data.startswith(b"\x16\x03")


class BoundedChannel(HTTPChannel):
    """Twisted's channel, stricter in two things.

    Its timer starts anew with every byte: here a drip of headers does not hold the connection open.
    It reads on while answers pile up unread, when they are written during a request: here it does not.
    """

    _is_begun = False

    def dataReceived(self, data: bytes) -> None:
        if not self._is_begun:
            self._is_begun = True
            if speaks_tls(data):
                channel: Any = self  # its site is not declared
                channel.site.refuse_tls(self.transport)
                return
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def resetTimeout(self) -> None:
        if not self.line_mode:  # a body is coming in
            super().resetTimeout()  # type: ignore[no-untyped-call]

    def allHeadersReceived(self) -> None:
        super().resetTimeout()  # type: ignore[no-untyped-call]
        super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def pauseProducing(self) -> None:
        super().pauseProducing()  # type: ignore[no-untyped-call]
        network: Any = self._networkProducer  # zope's interface, which mypy cannot read
        network.pauseProducing()  # the parent does so only between requests


_WORD = re.compile(rb"[A-Za-z_]{1,30}")

# (method, route, status, began_ns, ended_ns)
OnCall = Callable[[str, str, int, int, int], None]


class BoundedSite(Site):
    """Serves klein over `BoundedChannel`s."""

    noisy = False
    requestFactory = BoundedRequest
    protocol: Any = BoundedChannel  # without Twisted's wrapper, which is for HTTP/2

    def __init__(
        self, resource: Any, *, body_limit: BodyLimit, proxies: TrustedProxies | None = None, **options: Any
    ) -> None:
        # `resource` and `options` are Twisted's, which declares no types.
        super().__init__(resource, **options)  # type: ignore[no-untyped-call]
        self.body_limit = body_limit
        self.proxies = proxies or TrustedProxies()
        self.on_call: OnCall | None = None
        self._lines = LineRation(MAX_LINES)

    def refuse_tls(self, transport: Any) -> None:
        """Ends a plain connection whose client speaks TLS; `transport` as twisted's."""
        reactor: Any = self.reactor
        is_due, left_out = self._lines.take(reactor.seconds())
        if left_out:
            log.warn("{left_out} more lines about TLS clients on the HTTP port were left out", left_out=left_out)
        if is_due:
            source = getattr(transport.getPeer(), "host", "")
            log.warn("{source} speaks TLS on the HTTP port; have it use the HTTPS port, or http://", source=source)
        transport.loseConnection()

    def getResourceFor(self, request: Any) -> Any:
        """As the parent; notes when the request came where somebody wants to hear of it."""
        if self.on_call is not None:
            request.began_ns = time.time_ns()
        return super().getResourceFor(request)  # type: ignore[no-untyped-call]

    def log(self, request: Any) -> None:
        """No access log: paths and queries carry access tokens. REST calls are told to `on_call`, without them."""
        began_ns = getattr(request, "began_ns", None)
        if self.on_call is None or began_ns is None:
            return
        route = route_of(request.path)
        if route is not None:
            self.on_call(request.method.decode("ascii", "replace"), route, request.code, began_ns, time.time_ns())


def route_of(path: bytes) -> str | None:
    """What kind of call it is: the first words of a path under `/api/`, of which none can be a name or an id.

    None for what is no REST call: the device API, probes, files.
    """
    parts = path.split(b"/")[1:]
    if len(parts) < 2 or parts[0] != b"api" or parts[1] == b"v1" or not _WORD.fullmatch(parts[1]):
        return None
    return f"/api/{parts[1].decode()}"
