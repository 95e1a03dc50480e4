"""The gateway asks devices by HTTP, each map on its own: what is dead costs nothing but its own requests."""

from __future__ import annotations

import asyncio
import base64
from io import BytesIO
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from edge_gateway.connectors.http.settings import POLLER_CAPTURES, HttpMap, HttpRequest, HttpSettings, Login
from edge_gateway.connectors.http.tls import client_policy
from edge_gateway.connectors.interface import Site
from edge_gateway.mapping.amounts import parse_duration, parse_size
from edge_gateway.mapping.compiling import compile_map
from edge_gateway.mapping.interface import CompiledTemplate, MappingError
from edge_gateway.mapping.paths import compile_path
from edge_gateway.mapping.templates import compile_body, compile_template
from edge_gateway.mapping.values import json_or_text
from edge_gateway.model import Call, CallFailed, Health, Json, Reading

MAX_STAGGER_S = 10.0  # over which the first requests are spread
MAX_BACKOFF_S = 300.0
CONNECT_S = 10.0
SHOWN_CHARS = 100


class RequestFailed(Exception):
    """No useful response; `str()` says what came instead."""


class _Body(Protocol):
    """Gathers a response; one that is too large ends with its connection."""

    def __init__(self, max_bytes: int, gathered: Deferred[bytes]) -> None:
        self._max_bytes = max_bytes
        self._gathered: Deferred[bytes] | None = gathered
        self._parts: list[bytes] = []
        self._count_bytes = 0

    def dataReceived(self, data: bytes) -> None:
        self._count_bytes += len(data)
        self._parts.append(data)
        gathered = self._gathered
        if self._count_bytes > self._max_bytes and gathered is not None:
            self._gathered = None
            gathered.errback(RequestFailed(f"the response is above {self._max_bytes} bytes; raise max_response"))
            transport: Any = self.transport
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        gathered, self._gathered = self._gathered, None
        if gathered is None:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            gathered.callback(b"".join(self._parts))
        else:
            gathered.errback(RequestFailed(f"the response was cut off: {reason.getErrorMessage()}"))


class _Polled:
    """One map, compiled; and how it fares."""

    def __init__(self, settings: HttpMap) -> None:
        self.settings = settings
        self.captures = {"host": urlsplit(settings.url).hostname or ""}
        self.map = compile_map(settings, POLLER_CAPTURES)
        self.every_s = parse_duration(settings.every)
        self.timeout_s = parse_duration(settings.timeout)
        self.headers = dict(settings.headers) | _login_header(settings.auth)
        self.rpc = {name: _Request(one, self) for name, one in settings.rpc.items()}
        self.shared = _Request(settings.shared, self) if settings.shared else None
        self.devices: set[str] = set()  # for which it has spoken
        self._device = compile_template(settings.device)
        self.failures = 0
        self.problem = ""

    def is_of(self, device: str) -> bool:
        """Whether calls of this device are its business."""
        if device in self.devices:
            return True
        try:
            return self._device.render(self.captures) == device
        except MappingError:
            return False

    @property
    def pause_s(self) -> float:
        """Until the next request; longer and longer while there is no answer."""
        return max(self.every_s, min(self.every_s * 2.0 ** min(self.failures, 10), MAX_BACKOFF_S))


class _Request:
    """A request to a device, for a call or a write."""

    def __init__(self, settings: HttpRequest, polled: _Polled) -> None:
        self.settings = settings
        self.url: CompiledTemplate = compile_template(settings.url)
        self.body = compile_body(settings.body) if settings.body else None
        self.headers = polled.headers | settings.headers
        self.answer = compile_path(settings.answer) if settings.answer else None
        self.timeout_s = parse_duration(settings.timeout)


def _login_header(auth: Login | None) -> dict[str, str]:
    if auth is None:
        return {}
    if auth.token:
        return {"Authorization": f"Bearer {auth.token}"}
    return {"Authorization": "Basic " + base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()}


class HttpPoller:
    """As `Connector`."""

    def __init__(self, settings: HttpSettings, site: Site) -> None:
        self.settings = settings
        self.site = site
        self._max_response_bytes = parse_size(settings.max_response)
        self._polled = [_Polled(one) for one in settings.map]
        self._agent: Agent | None = None
        self._room: asyncio.Event | None = None  # while the gateway has none

    async def run(self) -> None:
        import twisted.internet.reactor as installed  # not before: whoever imports it first chooses it

        reactor: Any = installed  # mypy takes it for a module
        pool = HTTPConnectionPool(reactor)
        self._agent = Agent(
            reactor, client_policy(self.settings.ca_file, is_insecure=self.settings.insecure), CONNECT_S, pool=pool
        )
        self.site.health(Health.HEALTHY, f"polls {len(self._polled)} urls")
        try:
            async with asyncio.TaskGroup() as tasks:
                for index, polled in enumerate(self._polled):
                    tasks.create_task(self._poll_for_ever(polled, index / len(self._polled)))
        finally:
            self._agent = None
            pool.closeCachedConnections()

    async def _poll_for_ever(self, polled: _Polled, share: float) -> None:
        await asyncio.sleep(share * min(polled.every_s, MAX_STAGGER_S))
        loop = asyncio.get_running_loop()
        while True:
            await self._wait_for_room()
            began_s = loop.time()
            await self._poll(polled)
            await asyncio.sleep(max(0.0, began_s + polled.pause_s - loop.time()))

    async def _wait_for_room(self) -> None:
        if self.site.is_congested:
            if self._room is None:
                self._room = asyncio.Event()
                self.site.when_room(self._has_room)
            await self._room.wait()

    def _has_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()

    async def _poll(self, polled: _Polled) -> None:
        settings = polled.settings
        body = b""
        try:
            body = await self._request(
                settings.method, settings.url, settings.body.encode(), polled.headers, polled.timeout_s,
                settings.expect,
            )  # fmt: skip
            readings = polled.map.readings(body, polled.captures, wants_raw=self.site.wants_raw)
        except RequestFailed as error:
            polled.failures += 1
            polled.problem = f"{_shown(settings.url)}: {error}"
        except MappingError as error:  # it answers: no reason to ask less often
            self.site.reject(_shown(settings.url), body, str(error))
            polled.failures = 0
            polled.problem = f"{_shown(settings.url)}: {error}"
            self._take(polled, error.readings)
        else:
            polled.failures, polled.problem = 0, ""
            self._take(polled, readings)
        self._tell_health()

    def _take(self, polled: _Polled, readings: list[Reading]) -> None:
        polled.devices.update(reading.device for reading in readings)
        if readings:
            self.site.accept(readings)

    def _tell_health(self) -> None:
        problems = [one.problem for one in self._polled if one.problem]
        if problems:
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            self.site.health(Health.DEGRADED, "; ".join(problems[:3]) + more)
        else:
            self.site.health(Health.HEALTHY, f"polls {len(self._polled)} urls")

    async def _request(
        self, method: str, url: str, body: bytes, headers: dict[str, str], timeout_s: float, expect: list[int]
    ) -> bytes:
        """The body of the response. Raises: RequestFailed."""
        if self._agent is None:
            raise RequestFailed("the connector is not running")
        # Any: a zope interface, which mypy cannot read.
        producer: Any = FileBodyProducer(BytesIO(body)) if body else None
        kept = Headers({name: [value] for name, value in headers.items()})
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                asked: Deferred[Any] = self._agent.request(method.encode(), url.encode(), kept, producer)
                response = await asked.asFuture(loop)
                gathered: Deferred[bytes] = Deferred()
                response.deliverBody(_Body(self._max_response_bytes, gathered))
                content = await gathered.asFuture(loop)
        except TimeoutError:
            raise RequestFailed(f"no answer within {timeout_s:g} s; check address, cable and power") from None
        except RequestFailed:
            raise
        except Exception as error:  # Twisted's many kinds: refused, no route, no such name, TLS, broken HTTP
            raise RequestFailed(_why(error)) from error
        if response.code not in expect:
            where = response.headers.getRawHeaders("location", [""])[0]
            hint = {401: "; check auth", 403: "; check auth", 404: "; check the url"}.get(response.code, "")
            hint = f"; it has moved to {where[:200]}" if where else hint
            raise RequestFailed(f"answered {response.code} instead of {'/'.join(map(str, expect))}{hint}")
        return content

    # -- downlinks ---------------------------------------------------------------------------------------

    async def call(self, call: Call) -> Json:
        polled = next((one for one in self._polled if call.method in one.rpc and one.is_of(call.device)), None)
        if polled is None:
            own = [one for one in self._polled if one.is_of(call.device)]
            if not own:
                raise CallFailed(f"no map is of {call.device}, or it has not answered since the gateway started")
            known = ", ".join(sorted({name for one in own for name in one.rpc})) or "none"
            raise CallFailed(f"there is no method '{call.method}'; known are {known}")
        values = polled.captures | {"device": call.device, "method": call.method}
        document = {"method": call.method, "params": call.params, "device": call.device}
        request = polled.rpc[call.method]
        default = b"" if request.settings.method == "GET" else msgspec.json.encode(call.params)
        content = await self._send(request, values, document, default, call.timeout_s)
        reply = json_or_text(content)
        return reply if request.answer is None else request.answer.first(reply)

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        failures = []
        for polled in self._polled:
            request = polled.shared
            if request is None or not polled.is_of(device):
                continue
            for key, value in values.items():
                if request.settings.keys and key not in request.settings.keys:
                    continue
                place = polled.captures | {"device": device, "key": key, "value": value}
                document = {"key": key, "value": value, "device": device}
                try:
                    await self._send(request, place, document, msgspec.json.encode({key: value}), request.timeout_s)
                except CallFailed as error:
                    failures.append(f"{key}: {error}")
        if failures:
            raise CallFailed("; ".join(failures))

    async def _send(
        self, request: _Request, values: dict[str, Any], document: Json, default: bytes, timeout_s: float
    ) -> bytes:
        """Raises: CallFailed."""
        try:
            names = {name: value if name == "host" else _in_url(value, safe="") for name, value in values.items()}
            url = request.url.render(names, _in_url(document, safe="/"))
            body = default if request.body is None else request.body.render(values, document).encode()
            expect = [200, 201, 202, 204]
            return await self._request(
                request.settings.method, url, body, request.headers, min(timeout_s, request.timeout_s), expect
            )
        except (MappingError, RequestFailed) as error:
            raise CallFailed(str(error)) from error


def _in_url(value: Json, safe: str) -> Json:
    """`value` with its texts as they may stand in a url; a device's name must not become a path or a query."""
    if isinstance(value, str):
        return quote(value, safe=safe)
    if isinstance(value, dict):
        return {name: _in_url(member, safe) for name, member in value.items()}
    return [_in_url(element, safe) for element in value] if isinstance(value, list) else value


def _shown(url: str) -> str:
    """A url without its query, which may hold secrets."""
    return url.partition("?")[0][:SHOWN_CHARS]


def _why(error: Exception) -> str:
    reasons = getattr(error, "reasons", None)  # of Twisted's ResponseFailed: what lies behind it
    if reasons:
        return f"broken answer: {reasons[0].getErrorMessage()}"
    return str(error) or type(error).__name__
