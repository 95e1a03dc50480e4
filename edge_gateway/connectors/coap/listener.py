"""CoAP devices that send to us: POST or PUT on the paths of the maps, and observations for the way back.

2.04 is answered when the reading is on disk and not before. `Any` stands for aiocoap's objects, which are not typed.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Any, Final

import msgspec
from aiocoap import Message
from aiocoap.numbers.codes import Code
from aiocoap.numbers.contentformat import ContentFormat
from aiocoap.optiontypes import BlockOption
from twisted.logger import Logger

from edge_gateway.connectors.coap.endpoint import open_socket, server_context
from edge_gateway.connectors.coap.observers import ATTRIBUTES, Observers
from edge_gateway.connectors.coap.routes import Downlink, NoSuchPath, NotAllowed, Routes
from edge_gateway.connectors.coap.settings import CoapSettings, address_of
from edge_gateway.connectors.coap.uploads import Incomplete, TooLarge, Uploads
from edge_gateway.connectors.interface import Site
from edge_gateway.mapping.amounts import format_size, parse_size
from edge_gateway.mapping.interface import MappingError
from edge_gateway.model import Call, CallFailed, Health, Json, Reading, Refusal

log = Logger()

SPARE_REQUESTS: int = 1_000  # under way, beside observations and those that wait for the disk
_RETRY_S: Final = 5.0
_BLOCK_EXPONENT: Final = 6  # 1024 bytes
_LIFE_SIGN_S: Final = 600.0  # an observer that is gone is found out by a notification that nobody acknowledges


class _Refused(Exception):
    """A request that is answered by an error."""

    def __init__(self, code: Code, text: str, retry_after_s: float | None = None) -> None:
        self.code, self.retry_after_s = code, retry_after_s
        super().__init__(text)


class CoapListener:
    """The connector; also the resource that aiocoap asks for everything."""

    def __init__(self, settings: CoapSettings, site: Site) -> None:
        self._settings = settings
        self._site = site
        self._routes = Routes(settings)
        self._max_payload = parse_size(settings.max_payload)
        self._uploads = Uploads(self._max_payload)
        self._observers = Observers(settings.max_devices, site.seen, site.gone)
        self._waiting = 0
        self._last_sent: dict[tuple[str, str], bytes] = {}  # long payloads, for their later blocks
        self.port = 0

    # -- Connector ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """See `Connector`. Raises: OSError when the port cannot be opened."""
        opened = open_socket(*address_of(self._settings.listen))
        settings = self._settings
        most = 2 * settings.max_devices + settings.max_waiting + SPARE_REQUESTS
        context = await server_context(opened, self, max_requests=most)
        try:
            self.port = opened.getsockname()[1]
            self._site.health(Health.HEALTHY)
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.shield(context.shutdown())

    async def call(self, call: Call) -> Json:
        """See `Connector`."""
        path = self._routes.calls_path
        if not path:
            raise CallFailed(f"'{self._site.name}' has no way to its devices; give its map rpc = \"observe\"")
        return await self._observers.call(call, path)

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """See `Connector`."""
        if self._routes.calls_path:
            self._observers.change(device, values, deleted)

    # -- aiocoap's resource ---------------------------------------------------------------------------

    async def render_to_pipe(self, pipe: Any) -> None:
        """Answers one request, an observation again and again."""
        request = pipe.request
        try:
            if request.code == Code.GET:
                await self._get(pipe)
            elif request.code in (Code.POST, Code.PUT):
                pipe.add_response(await self._post(request), is_last=True)
            else:
                raise _Refused(Code.METHOD_NOT_ALLOWED, "use POST or PUT; GET for what can be observed")
        except _Refused as error:
            answer = Message(code=error.code, payload=str(error).encode())
            if error.retry_after_s is not None:
                answer.opt.max_age = max(1, math.ceil(error.retry_after_s))
            pipe.add_response(answer, is_last=True)

    async def _post(self, request: Any) -> Message:
        path, token, peer = _where(request)
        target = self._route(lambda: self._routes.message(path, token, peer))
        payload = self._whole(request, path)
        if payload is None:
            return Message(code=Code.CONTINUE, block1=request.opt.block1)
        if isinstance(target, Downlink):
            answer = self._take_answer(target, path, payload)
        else:
            answer = await self._take_readings(target.read, f"{peer} {target.label}", payload)
        answer.opt.block1 = request.opt.block1
        return answer

    @staticmethod
    def _route(find: Any) -> Any:
        try:
            return find()
        except NotAllowed as error:
            raise _Refused(Code.UNAUTHORIZED, str(error)) from None
        except NoSuchPath as error:
            raise _Refused(Code.NOT_FOUND, str(error)) from None

    def _whole(self, request: Any, path: str) -> bytes | None:
        """The payload, or None while blocks are missing."""
        block = request.opt.block1
        try:
            if len(request.payload) > self._max_payload or (request.opt.size1 or 0) > self._max_payload:
                raise TooLarge()
            if block is None:
                return bytes(request.payload)
            key = (request.remote, path, request.opt.uri_query)
            return self._uploads.add(key, block.start, request.payload, has_more=block.more)
        except TooLarge:
            text = f"more than {format_size(self._max_payload)} in one message; split it or raise max_payload"
            raise _Refused(Code.REQUEST_ENTITY_TOO_LARGE, text) from None
        except Incomplete:
            raise _Refused(Code.REQUEST_ENTITY_INCOMPLETE, "a block is missing; begin again with block 0") from None

    async def _take_readings(self, read: Any, source: str, payload: bytes) -> Message:
        if self._site.is_congested or self._waiting >= self._settings.max_waiting:
            raise _Refused(Code.SERVICE_UNAVAILABLE, "the gateway is busy; try again later", _RETRY_S)
        fault = ""
        try:
            readings: list[Reading] = read(payload, self._site.wants_raw)
        except MappingError as error:
            fault, readings = str(error), error.readings
            self._site.reject(source, payload, fault)
        refusal = await self._accepted(readings) if readings else None
        if refusal is not None and refusal.retry_after_s is not None:
            raise _Refused(Code.SERVICE_UNAVAILABLE, refusal.reason, refusal.retry_after_s)
        if refusal is not None:
            raise _Refused(Code.FORBIDDEN, refusal.reason)
        if fault:
            raise _Refused(Code.BAD_REQUEST, fault)
        return Message(code=Code.CHANGED)

    async def _accepted(self, readings: list[Reading]) -> Refusal | None:
        outcome: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._waiting += 1
        try:
            self._site.accept(readings, partial(_settle, outcome))
            return await outcome
        finally:
            self._waiting -= 1

    def _take_answer(self, target: Downlink, path: str, payload: bytes) -> Message:
        if target.number is None:
            raise _Refused(Code.METHOD_NOT_ALLOWED, f"{path} can be observed; answers go to {path}/ID of the call")
        if not self._observers.answer(target.device, target.number, _value(payload)):
            raise _Refused(Code.NOT_FOUND, f"nobody waits for an answer to call {target.number}, or not any more")
        return Message(code=Code.CHANGED)

    # -- observations ---------------------------------------------------------------------------------

    async def _get(self, pipe: Any) -> None:
        request = pipe.request
        path, token, peer = _where(request)
        if path == "/.well-known/core":
            pipe.add_response(Message(code=Code.CONTENT, content_format=ContentFormat.LINKFORMAT), is_last=True)
            return
        target: Downlink = self._route(lambda: self._routes.downlink(path, token, peer))
        if target.number is not None:
            raise _Refused(Code.METHOD_NOT_ALLOWED, "POST the answer here")
        block = request.opt.block2
        if block is not None and block.block_number:
            pipe.add_response(self._later_block(target, block), is_last=True)
        elif request.opt.observe == 0:
            await self._observe(pipe, target)
        else:
            state = self._state(target)
            if target.is_wrapped:
                state = b'{"shared":%b}' % state
            pipe.add_response(self._content(target, state), is_last=True)

    async def _observe(self, pipe: Any, target: Downlink) -> None:
        observer = self._observers.join(target.device, target.type, target.what)
        if observer is None:
            text = f"more than {self._settings.max_devices} devices observe; raise max_devices"
            raise _Refused(Code.SERVICE_UNAVAILABLE, text, 60.0)
        try:
            number = 0
            payload: bytes | None = self._state(target)
            while payload is not None:
                answer = self._content(target, payload)
                answer.opt.observe = number
                pipe.add_response(answer, is_last=False)
                number = (number + 1) % 2**24
                payload = await self._next(observer, target)
            pipe.add_response(Message(code=Code.SERVICE_UNAVAILABLE, payload=b"observed again elsewhere"), is_last=True)
        finally:
            if self._observers.leave(target.device, target.what, observer):
                self._last_sent.pop((target.device, target.what), None)

    async def _next(self, observer: Any, target: Downlink) -> bytes | None:
        """The next notification; after a long silence what stands there anyway, as a sign of life."""
        try:
            async with asyncio.timeout(_LIFE_SIGN_S):
                payload: bytes | None = await observer.next()
                return payload
        except TimeoutError:
            self._site.seen(target.device, target.type)
            return self._state(target)

    def _state(self, target: Downlink) -> bytes:
        """What a GET gives: the shared attributes known, and no call."""
        return msgspec.json.encode(self._observers.shared(target.device)) if target.what == ATTRIBUTES else b""

    def _content(self, target: Downlink, payload: bytes) -> Message:
        size = 1 << _BLOCK_EXPONENT + 4
        answer = Message(code=Code.CONTENT, payload=payload[:size])
        if payload:
            answer.opt.content_format = ContentFormat.JSON
        if len(payload) > size:
            self._last_sent[target.device, target.what] = payload
            answer.opt.block2 = BlockOption.BlockwiseTuple(0, True, _BLOCK_EXPONENT)
        return answer

    def _later_block(self, target: Downlink, block: Any) -> Message:
        payload = self._last_sent.get((target.device, target.what), b"")
        if block.start >= len(payload):
            raise _Refused(Code.REQUEST_ENTITY_INCOMPLETE, "there is no such block; begin again with block 0")
        end = block.start + block.size
        answer = Message(code=Code.CONTENT, payload=payload[block.start : end], content_format=ContentFormat.JSON)
        answer.opt.block2 = BlockOption.BlockwiseTuple(block.block_number, end < len(payload), block.size_exponent)
        return answer


def _settle(outcome: asyncio.Future[Refusal | None], refusal: Refusal | None) -> None:
    if not outcome.done():  # the device has given up waiting
        outcome.set_result(refusal)


def _where(request: Any) -> tuple[str, str, str]:
    """Path with a slash before each segment, `?token=`, and the peer's address."""
    segments = request.opt.uri_path
    if any("/" in segment for segment in segments):
        raise _Refused(Code.BAD_REQUEST, "a segment of the path has a '/' in it")
    token = next((query[6:] for query in request.opt.uri_query if query.startswith("token=")), "")
    peer = request.remote.sockaddr[0].removeprefix("::ffff:")
    return "/" + "/".join(segments), token, peer


def _value(payload: bytes) -> Json:
    """JSON, else the text."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, ValueError):
        return payload.decode("utf-8", "replace")
