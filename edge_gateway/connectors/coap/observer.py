"""Resources of sub-devices that we observe; polled where the device's server does not support observation.

`Any` stands for aiocoap's objects, which are not typed.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import msgspec
from aiocoap import Message
from aiocoap.error import Error as CoapError
from aiocoap.numbers.codes import Code
from aiocoap.numbers.contentformat import ContentFormat

from edge_gateway.connectors.coap.endpoint import client_context, listen_to
from edge_gateway.connectors.coap.settings import CoapSettings, ResourceCall, ResourceMap, ResourceWrite
from edge_gateway.connectors.interface import Site
from edge_gateway.mapping.amounts import parse_duration
from edge_gateway.mapping.compiling import compile_map
from edge_gateway.mapping.interface import CompiledTemplate, MappingError
from edge_gateway.mapping.templates import compile_body, compile_template
from edge_gateway.model import Call, CallFailed, Health, Json

_DEFAULT_MAX_AGE_S: Final = 60.0  # RFC 7252, 5.10.5
_LATE_S: Final = 10.0  # how long a notification may be later than its Max-Age
_BACKOFF_MIN_S, _BACKOFF_MAX_S = 5.0, 300.0
_MAX_UNREAD: Final = 64  # notifications; what is older is overtaken
_MAX_TOLD: Final = 5
_MAX_ANSWER_BYTES: Final = 65_536


class _Silent(Exception):
    """The resource gave no value; `str()` says why."""


class _Resource:
    """One resource, watched for ever."""

    def __init__(self, settings: ResourceMap, owner: CoapObserver) -> None:
        self.uri = settings.uri
        self._owner = owner
        self._map = compile_map(settings)
        self._every_s = parse_duration(settings.every)

    async def watch(self, context: Any, timeout_s: float) -> None:
        """Observes, asks again after silence, and backs off while there is no answer."""
        backoff_s = min(_BACKOFF_MIN_S, self._every_s)
        while True:
            try:
                is_observed = await self._round(context, timeout_s)
            except _Silent as error:
                self._owner.silent(self.uri, str(error))
                await asyncio.sleep(backoff_s * random.uniform(0.8, 1.2))
                backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
                continue
            backoff_s = min(_BACKOFF_MIN_S, self._every_s)
            if not is_observed:
                await asyncio.sleep(self._every_s)

    async def _round(self, context: Any, timeout_s: float) -> bool:
        """One registration until it falls silent; False when the resource cannot be observed. Raises: _Silent."""
        await self._owner.room()
        request = context.request(Message(code=Code.GET, uri=self.uri, observe=0))
        observation = request.observation
        news: asyncio.Queue[Any] = asyncio.Queue(_MAX_UNREAD)

        def put(item: Any) -> None:
            if news.full():
                news.get_nowait()
            news.put_nowait(item)

        listen_to(observation, put)
        try:
            response = await _answer(request, timeout_s)
            self._take(response)
            if response.opt.observe is None:
                return False
            while True:
                max_age_s = _DEFAULT_MAX_AGE_S if response.opt.max_age is None else float(response.opt.max_age)
                try:
                    async with asyncio.timeout(max_age_s + _LATE_S):
                        response = await news.get()
                except TimeoutError:
                    return True  # silent for longer than its value is good: register again, which tells more
                if isinstance(response, Exception):
                    return True
                self._take(response)
        finally:
            if not observation.cancelled:
                observation.cancel()
            if not request.response.done():
                request.response.cancel()

    def _take(self, response: Any) -> None:
        if not response.code.is_successful():
            raise _Silent(_refusal(response))
        self._owner.heard(self.uri)
        site = self._owner.site
        payload = bytes(response.payload)
        try:
            readings = self._map.readings(payload, {}, wants_raw=site.wants_raw)
        except MappingError as error:
            site.reject(self.uri, payload, str(error))
            readings = error.readings
        if readings:
            site.accept(readings)


class _Command:
    """A compiled `ResourceCall` or `ResourceWrite`."""

    def __init__(self, settings: ResourceCall | ResourceWrite) -> None:
        self._code = Code[settings.method]
        self._uri = compile_template(settings.uri, forbidden="/?#")
        self._body: CompiledTemplate = compile_body(settings.body)

    async def send(self, context: Any, values: dict[str, Json], document: Json, timeout_s: float) -> Json:
        """The decoded answer. Raises: CallFailed."""
        try:
            uri = self._uri.render(values, document)
            body = b"" if self._code is Code.GET else self._body.render(values, document).encode()
            message = Message(code=self._code, uri=uri, payload=body)
            if body and _is_json(body):
                message.opt.content_format = ContentFormat.JSON
            response = await _answer(context.request(message), timeout_s)
        except (MappingError, ValueError, _Silent) as error:
            raise CallFailed(str(error)) from error
        if not response.code.is_successful():
            raise CallFailed(f"{uri}: {_refusal(response)}")
        payload = bytes(response.payload[:_MAX_ANSWER_BYTES])
        if not payload:
            return None
        try:
            return msgspec.json.decode(payload)
        except (msgspec.DecodeError, ValueError):
            return payload.decode("utf-8", "replace")


class CoapObserver:
    """The connector."""

    def __init__(self, settings: CoapSettings, site: Site) -> None:
        self.site = site
        self._timeout_s = parse_duration(settings.timeout)
        self._resources = [_Resource(one, self) for one in settings.observe]
        self._calls: dict[str, dict[str, _Command]] = {}
        self._writes: dict[str, list[tuple[list[str], _Command]]] = {}
        self._devices = {one.device: one.type for one in settings.observe if one.rpc or one.shared}
        for one in settings.observe:
            calls = {method: _Command(call) for method, call in one.rpc.items()}
            self._calls.setdefault(one.device, {}).update(calls)
            if one.shared is not None:
                self._writes.setdefault(one.device, []).append((one.shared.keys, _Command(one.shared)))
        self._context: Any = None
        self._silent: dict[str, str] = {}

    async def run(self) -> None:
        """See `Connector`."""
        self._context = await client_context()
        try:
            for device, type in self._devices.items():
                self.site.seen(device, type if "{" not in type else "")
            async with asyncio.TaskGroup() as group:
                for resource in self._resources:
                    group.create_task(resource.watch(self._context, self._timeout_s))
                self._tell()
        finally:
            context, self._context = self._context, None
            await asyncio.shield(context.shutdown())

    async def call(self, call: Call) -> Json:
        """See `Connector`."""
        commands = self._calls.get(call.device, {})
        command = commands.get(call.method)
        if command is None:
            known = f"it knows {', '.join(commands)}" if commands else "it has no rpc in the configuration"
            raise CallFailed(f"{call.device} has no method '{call.method}'; {known}")
        values = {"device": call.device, "method": call.method}
        document = {"method": call.method, "params": call.params}
        return await command.send(self._opened(), values, document, min(self._timeout_s, call.timeout_s))

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """See `Connector`."""
        for keys, command in self._writes.get(device, []):
            for key, value in values.items():
                if not keys or key in keys:
                    names = {"device": device, "key": key}
                    await command.send(self._opened(), names, {"key": key, "value": value}, self._timeout_s)

    def _opened(self) -> Any:
        if self._context is None:
            raise CallFailed("the connector is starting; try again in a moment")
        return self._context

    # -- for the resources ----------------------------------------------------------------------------

    async def room(self) -> None:
        """Returns when the gateway can take more."""
        while self.site.is_congested:
            has_room = asyncio.Event()
            self.site.when_room(has_room.set)
            await has_room.wait()

    def heard(self, uri: str) -> None:
        """The resource answers."""
        if self._silent.pop(uri, None) is not None:
            self._tell()

    def silent(self, uri: str, why: str) -> None:
        """The resource does not answer."""
        self._silent[uri] = why
        self._tell()

    def _tell(self) -> None:
        if not self._silent:
            self.site.health(Health.HEALTHY)
            return
        told = "; ".join(f"{uri}: {why}" for uri, why in list(self._silent.items())[:_MAX_TOLD])
        more = len(self._silent) - _MAX_TOLD
        self.site.health(Health.DEGRADED, told + (f"; and {more} more" if more > 0 else ""))


async def _answer(request: Any, timeout_s: float) -> Any:
    """The first response. Raises: _Silent."""
    try:
        async with asyncio.timeout(timeout_s):
            return await request.response
    except TimeoutError:
        raise _Silent(f"no answer within {timeout_s:g} s; is it switched on, and is the address right?") from None
    except (CoapError, OSError) as error:
        raise _Silent(f"no answer: {error or type(error).__name__}") from error


def _refusal(response: Any) -> str:
    text = response.payload[:200].decode("utf-8", "replace")
    return f"answers {response.code}" + (f": {text}" if text else "")


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError):
        return False
    return True
