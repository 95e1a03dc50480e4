"""Devices that post to the gateway, by klein.

For each map with a path, say `/in/{device}`: POST to it brings readings; GET `/in/x/rpc` waits for a call and POST
`/in/x/rpc/{id}` answers it; GET `/in/x/attributes` waits for changes of shared attributes. 200 means: on disk.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from werkzeug.exceptions import HTTPException

from edge_gateway.connectors.access import Rates, Users, UsersUnreadable, parse_address, same_secret
from edge_gateway.connectors.http.bounds import BoundedSite, error_body
from edge_gateway.connectors.http.mailboxes import Mailboxes, TooManyPolls
from edge_gateway.connectors.http.settings import HttpMap, HttpSettings
from edge_gateway.connectors.http.tls import server_context
from edge_gateway.connectors.interface import Site
from edge_gateway.mapping.amounts import parse_size
from edge_gateway.mapping.compiling import compile_map
from edge_gateway.mapping.interface import CompiledMap, CompiledPattern, MappingError
from edge_gateway.mapping.patterns import compile_pattern
from edge_gateway.mapping.templates import compile_template
from edge_gateway.mapping.values import json_or_text
from edge_gateway.model import Call, Health, Json, Reading, Refusal

log = Logger()

REQUEST_S = 60.0  # for a whole request to come in
MAX_WAIT_S = 300.0  # of a long poll
DEFAULT_WAIT_S = 30.0
CONGESTED_S = 1


class ListenFailed(Exception):
    """The port cannot be opened; `str()` says why and what to do."""


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, text: str, *, retry_after_s: float | None = None, **more: Any) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s
        self.body = error_body(text, **more)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes = b""


class _PathMap:
    """One map, compiled."""

    def __init__(self, settings: HttpMap) -> None:
        self.path = settings.path
        self.pattern: CompiledPattern = compile_pattern(settings.path)
        self.map: CompiledMap = compile_map(settings, self.pattern.captures)
        self._device = compile_template(settings.device)

    def device_of(self, captures: dict[str, str]) -> str:
        """The device that a path names. Raises: Refused."""
        try:
            return self._device.render(captures)
        except MappingError as error:
            text = f"{self.path} does not name the device, its messages do: it can only post"
            raise Refused(404, text) from error


class HttpListener:
    """As `Connector`. `port` is the one that is open, 0 before."""

    def __init__(self, settings: HttpSettings, site: Site) -> None:
        self.settings = settings
        self.site = site
        self.port = 0
        self._listens = ""
        self._maps = [_PathMap(one) for one in settings.map]
        self._users = Users(settings.users) if settings.users else None
        self._mailboxes = Mailboxes()
        self._rates = Rates(settings.max_rate, time.monotonic)
        self._app = Klein()
        self._app.route("/", branch=True)(self._serve)
        self._app.handle_errors(HTTPException)(_no_route)

    async def run(self) -> None:
        import twisted.internet.reactor as installed  # not before: whoever imports it first chooses it

        reactor: Any = installed  # mypy takes it for a module
        address = parse_address(self.settings.listen, 8080)
        if self._users is not None:
            self._users.load()
        site = BoundedSite(
            self._app.resource(),
            max_body_bytes=parse_size(self.settings.max_payload),
            max_connections=self.settings.max_connections,
            timeout=REQUEST_S,
            reactor=reactor,
        )
        try:
            listening = self._listen(reactor, address.host, address.port, site)
        except CannotListenError as error:
            text = f"cannot listen on {address}: {error.socketError}; stop what uses it or choose another port"
            raise ListenFailed(text) from error
        self.port = listening.getHost().port
        self._listens = f"listens on {address}"
        self.site.health(Health.HEALTHY, self._listens)
        try:
            await asyncio.get_running_loop().create_future()  # until it is cancelled
        finally:
            listening.stopListening()
            for connection in list(site.connections):
                connection.transport.abortConnection()

    def _listen(self, reactor: Any, host: str, port: int, site: Any) -> Any:
        if not self.settings.certificate:
            return reactor.listenTCP(port, site, 1024, host)
        context = server_context(self.settings.certificate, self.settings.private_key)
        return reactor.listenTCP(port, TLSMemoryBIOFactory(context, False, site), 1024, host)

    # -- requests ------------------------------------------------------------------------------------

    def _serve(self, request: Any) -> Deferred[bytes]:
        task = asyncio.ensure_future(self._answer(request))
        request.notifyFinish().addErrback(lambda _: task.cancel())
        return Deferred.fromFuture(task).addErrback(_is_cancelled)

    async def _answer(self, request: Any) -> bytes:
        try:
            answer = await self._dispatch(request)
        except Refused as refused:
            if refused.retry_after_s is not None:
                request.setHeader("Retry-After", str(max(1, math.ceil(refused.retry_after_s))))
            if refused.status == 401:
                request.setHeader("WWW-Authenticate", "Basic" if self._users else "Bearer")
            answer = _Answer(refused.status, refused.body)
        except Exception:
            log.failure("Error while answering {path}", path=request.path)
            answer = _Answer(500, error_body("an error of the gateway; see its log"))
        request.setResponseCode(answer.status)
        if answer.body:
            request.setHeader("Content-Type", "application/json")
            request.setHeader("Content-Length", str(len(answer.body)))  # small devices know no chunks
        return answer.body

    async def _dispatch(self, request: Any) -> _Answer:
        wait_s = self._rates.wait_s(request.getClientAddress().host)
        if wait_s:
            raise Refused(429, "too many requests; send several readings at once", retry_after_s=wait_s)
        login = self._login(request)
        path, method = _path_of(request.path), request.method.decode("ascii", "replace")
        parent, _, last = path.rpartition("/")
        if method == "GET" and last in ("rpc", "attributes") and (device := self._device_at(parent, login)):
            return await (self._next_call if last == "rpc" else self._next_changes)(request, device)
        if method in ("POST", "PUT"):
            grandparent, _, feature = parent.rpartition("/")
            if feature == "rpc" and (device := self._device_at(grandparent, login)):
                return self._take_reply(device, last, request.content.read())
            return await self._take_readings(path, request.content.read(), login)
        if self._map_at(path) is not None:
            request.setHeader("Allow", "POST, PUT")
            raise Refused(405, f"POST readings here; GET {path}/rpc and {path}/attributes wait for news")
        raise self._not_found(path)

    def _login(self, request: Any) -> str:
        """The device whose login it is; empty when the login is no device's. Raises: Refused."""
        settings = self.settings
        if settings.anonymous:
            return ""
        given = request.getHeader("authorization") or ""
        if self._users is None:
            header = settings.token_header
            token = (request.getHeader(header) or "") if header else given[7:] if given[:7].lower() == "bearer " else ""
            if same_secret(token, settings.token):
                return ""
            raise Refused(401, f'the token is missing or wrong; send it as "{header or "Authorization: Bearer"}"')
        try:
            self._users.load()
        except UsersUnreadable as error:  # those that were read before stay good
            self.site.health(Health.DEGRADED, str(error))
        else:
            self.site.health(Health.HEALTHY, self._listens)
        username, password = _basic(given)
        device = self._users.device_of(username, password)
        if device is None:
            raise Refused(401, "user name or password is missing or wrong; send them as HTTP Basic")
        return device

    def _map_at(self, path: str) -> tuple[_PathMap, dict[str, str]] | None:
        for one in self._maps:
            captures = one.pattern.match(path)
            if captures is not None:
                return one, captures
        return None

    def _not_found(self, path: str) -> Refused:
        known = [one.path for one in self._maps]
        return Refused(404, f"there is nothing at {path[:200]}", paths=known)

    def _device_at(self, path: str, login: str) -> str:
        """The device that a path names, empty when there is no such path. Raises: Refused."""
        found = self._map_at(path)
        if found is None:
            return ""
        device = found[0].device_of(found[1])
        self._check_own(device, login)
        self.site.seen(device)
        return device

    def _check_own(self, device: str, login: str) -> None:
        if self.settings.own_device and device != login:
            raise Refused(403, f"the login of {login} may speak only for itself")

    # -- readings ------------------------------------------------------------------------------------

    async def _take_readings(self, path: str, payload: bytes, login: str) -> _Answer:
        found = self._map_at(path)
        if found is None:
            raise self._not_found(path)
        if self.site.is_congested:
            raise Refused(503, "the gateway has no room for now", retry_after_s=CONGESTED_S)
        one, captures = found
        fault = ""
        try:
            readings = one.map.readings(payload, captures, wants_raw=self.site.wants_raw)
        except MappingError as error:
            self.site.reject(path, payload, str(error))
            if not error.readings:
                raise Refused(400, str(error)) from error
            fault, readings = str(error), error.readings  # what could be read all the same
        for reading in readings:
            self._check_own(reading.device, login)
        if readings:
            await self._store(path, payload, readings)
        return _Answer(200, msgspec.json.encode({"warning": fault}) if fault else b"{}")

    async def _store(self, path: str, payload: bytes, readings: list[Reading]) -> None:
        stored: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self.site.accept(readings, lambda refusal: None if stored.done() else stored.set_result(refusal))
        refusal = await stored
        if refusal is None:
            return
        if refusal.retry_after_s is not None:
            raise Refused(503, refusal.reason, retry_after_s=refusal.retry_after_s)
        self.site.reject(path, payload, refusal.reason)
        raise Refused(403, refusal.reason)

    # -- calls and attributes ----------------------------------------------------------------------------

    async def _next_call(self, request: Any, device: str) -> _Answer:
        try:
            waiting = await self._mailboxes.next_call(device, _wait_s(request))
        except TooManyPolls:
            raise Refused(503, "too many requests wait already", retry_after_s=DEFAULT_WAIT_S) from None
        if waiting is None:
            return _Answer(204)
        call = waiting.call
        return _Answer(200, msgspec.json.encode({"id": waiting.number, "method": call.method, "params": call.params}))

    async def _next_changes(self, request: Any, device: str) -> _Answer:
        try:
            changes = await self._mailboxes.next_changes(device, _wait_s(request))
        except TooManyPolls:
            raise Refused(503, "too many requests wait already", retry_after_s=DEFAULT_WAIT_S) from None
        if changes is None:
            return _Answer(204)
        values, deleted = changes
        return _Answer(200, msgspec.json.encode({**values, "deleted": deleted} if deleted else values))

    def _take_reply(self, device: str, number: str, payload: bytes) -> _Answer:
        is_number = number.isascii() and number.isdecimal() and len(number) < 20
        if not is_number or not self._mailboxes.answer(device, int(number), json_or_text(payload)):
            raise Refused(404, f"no call of {device} with this id waits for an answer, or not any more")
        return _Answer(200, b"{}")

    async def call(self, call: Call) -> Json:
        return await self._mailboxes.call(call)

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        self._mailboxes.change(device, values, deleted)


def _no_route(request: Any, failure: Any) -> bytes:
    """A path that no URL has, such as one with a line break in it."""
    request.setResponseCode(failure.value.code)
    request.setHeader("Content-Type", "application/json")
    body = error_body("there is nothing of this name")
    request.setHeader("Content-Length", str(len(body)))
    return body


def _is_cancelled(failure: Any) -> bytes:
    """The device went away while its request waited."""
    failure.trap(asyncio.CancelledError)
    return b""


def _path_of(raw: bytes) -> str:
    """The path with every segment decoded. Raises: Refused for a segment that would become several."""
    segments = [unquote(one, errors="replace") for one in raw.decode("latin-1").split("/")]
    if any("/" in one or "\0" in one for one in segments):
        raise Refused(400, "%2F and %00 cannot be part of a path here")
    path = "/".join(segments)
    return path.rstrip("/") or "/"


def _basic(header: str) -> tuple[str, str]:
    """User name and password; empty when there are none."""
    if header[:6].lower() != "basic ":
        return "", ""
    try:
        text = base64.b64decode(header[6:].strip(), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return "", ""
    username, _, password = text.partition(":")
    return username, password


def _wait_s(request: Any) -> float:
    given = request.args.get(b"timeout", [b""])[0].decode("latin-1")
    if not given:
        return DEFAULT_WAIT_S
    if not (given.isascii() and given.isdecimal() and len(given) < 6):
        raise Refused(400, "timeout is a whole number of seconds")
    return min(float(given), MAX_WAIT_S)
