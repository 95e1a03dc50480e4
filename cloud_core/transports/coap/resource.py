"""aiocoap's side: the one resource that takes every request the fast path does not."""

from __future__ import annotations

import asyncio
from typing import Any

import aiocoap
from aiocoap.numbers.codes import Code
from aiocoap.resource import Resource

from cloud_core.transports.coap.adapter import JSON_FORMAT, CoapDeviceAdapter

MAPPED_PREFIX = "::ffff:"


def plain_address(address: str) -> str:
    """An IPv4 address without the prefix that a dual-stack socket puts before it."""
    return address.removeprefix(MAPPED_PREFIX)


class DeviceResource(Resource):  # type: ignore[misc]  # aiocoap is untyped
    """The root of the server: block-wise assembly is aiocoap's, everything else the adapter's."""

    def __init__(self, adapter: CoapDeviceAdapter) -> None:
        super().__init__()
        self._adapter = adapter

    async def render(self, request: Any) -> Any:  # Any: aiocoap.Message
        answered: asyncio.Future[tuple[int, bytes, int | None]] = asyncio.get_running_loop().create_future()

        def answer(code: int, payload: bytes, max_age_s: int | None) -> None:
            if not answered.done():
                answered.set_result((code, payload, max_age_s))

        address = plain_address(request.remote.sockaddr[0])
        self._adapter.handle(int(request.code), request.opt.uri_path, request.payload, address, answer)
        code, payload, max_age_s = await answered
        response = aiocoap.Message(code=Code(code), payload=payload)
        if payload:
            wanted = request.opt.content_format
            response.opt.content_format = JSON_FORMAT if wanted is None else wanted
        if max_age_s is not None:
            response.opt.max_age = max_age_s
        return response
