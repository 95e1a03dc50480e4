"""The aiocoap root resource: everything the fast path leaves over goes to the same adapter.

Other methods than POST, block-wise bodies, unusual options. Never raises into aiocoap, whose
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

from cloud_core.transports.coap.adapter import JSON, OCTETS, POST, CoapDeviceAdapter
from cloud_core.transports.coap.blockwise import BLOCK_BYTES, BLOCK_EXPONENT, Answered, Downloads, Uploads
from cloud_core.transports.coap.errors import (
    BAD_OPTION,
    CONTINUE,
    INCOMPLETE,
    INTERNAL_ERROR,
    NOT_ACCEPTABLE,
    PROXYING_NOT_SUPPORTED,
)
from cloud_core.transports.coap.fast_path import plain_address
from cloud_core.transports.coap.wire import (
    ACCEPT,
    BLOCK1,
    BLOCK2,
    URI_HOST,
    URI_PATH,
    URI_PORT,
    URI_QUERY,
)

log = Logger()
_PROXY_OPTIONS = (35, 39)  # Proxy-Uri, Proxy-Scheme
_UNDERSTOOD = (URI_HOST, URI_PORT, URI_PATH, URI_QUERY, ACCEPT, BLOCK1, BLOCK2)


class DeviceResource(Resource):  # type: ignore[misc]  # aiocoap's types are not checked
    """Serves every path. `Any`: aiocoap's messages and pipes are not typed."""

    def __init__(self, adapter: CoapDeviceAdapter, downloads: Downloads) -> None:
        super().__init__()
        self._adapter = adapter
        self._uploads = Uploads()
        self._downloads = downloads

    async def render_to_pipe(self, pipe: Any) -> None:
        try:
            response = await self._respond(pipe.request)
        except Exception:
            log.failure("CoAP request failed")
            response = Message(code=Code(INTERNAL_ERROR))
        pipe.add_response(response, is_last=True)

    async def _respond(self, request: Any) -> Any:
        refusal = _option_refusal(request)
        if refusal is not None:
            return Message(code=Code(refusal))
        segments = tuple(request.opt.uri_path)
        later = request.opt.block2
        if later is not None and later.block_number > 0 and request.opt.block1 is None:
            kept = self._downloads.get((request.remote.sockaddr[:2], segments))
            return Message(code=Code(INCOMPLETE)) if kept is None else _block(kept, request)
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
        answered = await self._perform(request, segments, body)
        if len(answered.payload) > BLOCK_BYTES or (later is not None and len(answered.payload) > later.size):
            self._downloads.keep((request.remote.sockaddr[:2], segments), answered)
        response = _block(answered, request)
        if block1 is not None:
            response.opt.block1 = block1
        return response

    async def _perform(self, request: Any, segments: tuple[str, ...], body: bytes) -> Answered:
        outcome: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()

        def answer(code: int, payload: bytes, content_format: int | None, max_age_s: int | None) -> None:
            if not outcome.done():  # the peer may have lost interest
                outcome.set_result(Answered(code, payload, content_format, max_age_s))

        content_format = request.opt.content_format
        self._adapter.handle(
            int(request.code),
            segments,
            None if content_format is None else int(content_format),
            body,
            plain_address(request.remote.sockaddr),
            answer,
        )
        return await outcome


def _option_refusal(request: Any) -> int | None:
    """The code that refuses the request's options, or None (RFC 7252 sections 5.4.1 and 5.7.2)."""
    for option in request.opt.option_list():
        number = int(option.number)
        if number in _PROXY_OPTIONS:
            return PROXYING_NOT_SUPPORTED
        if number & 1 and number not in _UNDERSTOOD:
            return BAD_OPTION
    accepted = request.opt.accept
    if int(request.code) == POST and accepted is not None and int(accepted) not in (JSON, OCTETS):
        return NOT_ACCEPTABLE
    return None


def _block(answered: Answered, request: Any) -> Any:
    """The part of the answer that the request asks for, or all of it where it is small."""
    wanted = request.opt.block2
    message = Message(code=Code(answered.code), payload=answered.payload)
    exponent = BLOCK_EXPONENT if wanted is None else min(wanted.size_exponent, BLOCK_EXPONENT)
    number = 0 if wanted is None else wanted.block_number
    size = 1 << exponent + 4
    if number or len(answered.payload) > size:
        start = number * size
        if start >= len(answered.payload):
            return Message(code=Code(INCOMPLETE))
        message.payload = answered.payload[start : start + size]
        message.opt.block2 = (number, start + size < len(answered.payload), exponent)
    if answered.content_format is not None:
        message.opt.content_format = answered.content_format
    if answered.max_age_s is not None:
        message.opt.max_age = answered.max_age_s
    return message
