"""The aiocoap root resource: everything the fast path leaves over goes to the same adapter.

Other methods than GET and POST, block-wise bodies, unusual options; an Observe option among those is overlooked
(RFC 7641 section 4.1). Never raises into aiocoap, whose
handling of late exceptions is broken (engineering.md section 3.3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

from aiocoap import Message
from aiocoap.numbers.codes import Code
from aiocoap.resource import Resource
from twisted.logger import Logger

from cloud_core.transports.coap import est
from cloud_core.transports.coap.adapter import CoapDeviceAdapter
from cloud_core.transports.coap.blockwise import Downloads, Uploads, download_key, part
from cloud_core.transports.coap.errors import (
    BAD_OPTION,
    CONTINUE,
    GATEWAY_TIMEOUT,
    INTERNAL_ERROR,
    NOT_ACCEPTABLE,
    PROXYING_NOT_SUPPORTED,
)
from cloud_core.transports.coap.outbox import plain_address
from cloud_core.transports.coap.requests import (
    ANSWER_TIMEOUT_S,
    GET,
    POST,
    Answered,
    NoSessions,
    Request,
    Sessions,
    route,
)
from cloud_core.transports.coap.wire import (
    ACCEPT,
    ACCEPTED_FORMATS,
    BLOCK1,
    BLOCK2,
    URI_HOST,
    URI_PATH,
    URI_PORT,
    URI_QUERY,
)
from shared.device_paths import Feature

log = Logger()
_PROXY_OPTIONS = (35, 39)  # Proxy-Uri, Proxy-Scheme
_UNDERSTOOD = (URI_HOST, URI_PORT, URI_PATH, URI_QUERY, ACCEPT, BLOCK1, BLOCK2)


class DeviceResource(Resource):  # type: ignore[misc]  # aiocoap's types are not checked
    """Serves every path. `Any`: aiocoap's messages and pipes are not typed."""

    def __init__(self, adapter: CoapDeviceAdapter, downloads: Downloads, sessions: Sessions | None = None) -> None:
        super().__init__()
        self._adapter = adapter
        self._uploads = Uploads()
        self._downloads = downloads
        self._session_of = (sessions or NoSessions()).of

    async def render_to_pipe(self, pipe: Any) -> None:
        try:
            response = await self._respond(pipe.request)
        except Exception:
            log.failure("CoAP request failed")
            response = Message(code=Code(INTERNAL_ERROR))
        pipe.add_response(response, is_last=True)

    async def _respond(self, request: Any) -> Any:
        refused = _option_refusal(request)
        if refused is not None:
            return Message(code=Code(refused))
        segments = tuple(request.opt.uri_path)
        wanted = _number(request.opt.block2)
        body = request.payload
        block1 = request.opt.block1
        if block1 is not None:
            key: Hashable = (request.remote.sockaddr, int(request.code), segments, request.opt.content_format)
            code = self._uploads.add(key, block1.block_number, block1.size_exponent, body)
            if code is not None:
                return Message(code=Code(code))
            if block1.more:
                return Message(code=Code(CONTINUE), block1=block1)
            body = self._uploads.take(key)
        response = _message(await self._answered(request, segments, body, wanted))
        if block1 is not None:
            response.opt.block1 = block1
        return response

    async def _answered(self, request: Any, segments: tuple[str, ...], body: bytes, block2: int | None) -> Answered:
        """The answer, or the block of it that is asked for."""
        queries = tuple(request.opt.uri_query)
        key = download_key(request.remote.sockaddr, segments, queries)
        content_format = request.opt.content_format
        asked = Request(
            code=int(request.code),
            segments=segments,
            accept=None if request.opt.accept is None else int(request.opt.accept),
            path=route(segments),
            content_format=None if content_format is None else int(content_format),
            payload=body,
            peer_address=plain_address(request.remote.sockaddr),
            queries=queries,
            block2=block2,
            session=self._session_of(request.remote.sockaddr),
        )
        is_package = asked.path is not None and asked.path.feature in (Feature.FIRMWARE, Feature.SOFTWARE)
        if block2 is not None and block2 >> 4 and request.opt.block1 is None and not is_package:
            return self._downloads.later_block(key, block2)
        answered = await self._perform(asked)
        if answered.block2 is None and block2 is not None and block2 >> 4:
            self._downloads.keep(key, answered)
            return part(answered, block2)
        return self._downloads.first_block(key, answered, block2)

    async def _perform(self, request: Request) -> Answered:
        outcome: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()

        def answer(answered: Answered) -> None:
            if not outcome.done():  # the peer may have lost interest
                outcome.set_result(answered)

        self._adapter.perform(request, answer)
        try:
            return await asyncio.wait_for(outcome, ANSWER_TIMEOUT_S if request.changes_nothing_here else None)
        except TimeoutError:
            return Answered(GATEWAY_TIMEOUT)


def _option_refusal(request: Any) -> int | None:
    """The code that refuses the request's options, or None (RFC 7252 sections 5.4.1 and 5.7.2)."""
    for option in request.opt.option_list():
        number = int(option.number)
        if number in _PROXY_OPTIONS:
            return PROXYING_NOT_SUPPORTED
        if number & 1 and number not in _UNDERSTOOD:
            return BAD_OPTION
    accepted = request.opt.accept
    if int(request.code) not in (GET, POST) or accepted is None or est.is_est(request.opt.uri_path):
        return None
    if int(accepted) not in ACCEPTED_FORMATS:
        return NOT_ACCEPTABLE
    return None


def _number(block: Any) -> int | None:
    """aiocoap's block option as the number that it is on the wire."""
    return None if block is None else block.block_number << 4 | bool(block.more) << 3 | block.size_exponent


def _message(answered: Answered) -> Any:
    message = Message(code=Code(answered.code), payload=answered.payload)
    block2 = answered.block2
    if block2 is not None:
        message.opt.block2 = (block2 >> 4, bool(block2 & 8), block2 & 7)
    for name in ("content_format", "max_age_s", "size2", "etag"):
        value = getattr(answered, name)
        if value is not None and value != b"":
            setattr(message.opt, name.removesuffix("_s"), value)
    return message
