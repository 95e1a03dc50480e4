"""The CoAP listener: one UDP socket for IPv6 and IPv4, started and drained as a whole."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.defer import Deferred

from cloud_core.core.api import DeviceApi
from cloud_core.transports.coap.adapter import CoapDeviceAdapter
from cloud_core.transports.coap.blockwise import Downloads
from cloud_core.transports.coap.endpoint import Endpoint, make_context, open_socket
from cloud_core.transports.coap.fast_path import FastPath
from cloud_core.transports.coap.resource import DeviceResource

DRAIN_S = 10.0
_DRAIN_STEP_S = 0.02


class CoapService:
    """Listens for devices. Needs the asyncio reactor."""

    def __init__(self, api: DeviceApi, *, bind_address: str, port: int, drain_s: float = DRAIN_S) -> None:
        self._api = api
        self._bind_address = bind_address
        self._port = port
        self._drain_s = drain_s
        self._endpoint: Endpoint | None = None
        self._fast_path: FastPath | None = None
        self._context: Any = None  # aiocoap is untyped
        self._message_layer: Any = None
        api.on_delivered(self._delivered)

    async def start(self) -> int:
        """Opens the port and returns its number. Raises: OSError, e.g. when another program has it."""
        loop = asyncio.get_running_loop()
        opened = open_socket(self._bind_address, self._port)
        endpoint = Endpoint(opened, loop)
        endpoint.is_congested = lambda: self._api.is_congested
        adapter, downloads = CoapDeviceAdapter(self._api), Downloads()
        self._context, interface = await make_context(endpoint, DeviceResource(adapter, downloads), loop)
        self._message_layer = interface._ctx
        self._fast_path = interface.fast_path = FastPath(
            adapter,
            loop=loop,
            send=lambda data, ancillary, address: endpoint.sendmsg(data, ancillary, 0, address),
            next_message_id=self._message_layer._next_message_id,
            downloads=downloads,
        )
        self._endpoint = endpoint
        endpoint.resume()
        port: int = opened.getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stops reading, answers what is in work for at most the drain time, ends observations, closes."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is None:
            return
        endpoint.pause()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._drain_s
        while self.has_work_pending and loop.time() < deadline_s:
            await asyncio.sleep(_DRAIN_STEP_S)
        if self._fast_path is not None:
            self._fast_path.observations.close()
        await self._context.shutdown()

    def start_deferred(self) -> Deferred[int]:
        """`start` for Twisted's coroutines."""
        return Deferred.fromFuture(asyncio.ensure_future(self.start()))

    def stop_deferred(self) -> Deferred[None]:
        """`stop` for Twisted's coroutines."""
        return Deferred.fromFuture(asyncio.ensure_future(self.stop()))

    @property
    def has_work_pending(self) -> bool:
        if self._fast_path is None:
            return False
        return self._fast_path.in_work > 0 or bool(self._message_layer.token_manager.incoming_requests)

    def _delivered(self) -> None:
        if self._endpoint is not None and not self._api.is_congested:
            self._endpoint.resume()
