"""One UDP port for CoAP, plain or within DTLS: socket, fast path and aiocoap, put together and taken down again."""

from __future__ import annotations

import asyncio
from typing import Any

from cloud_core.transports.coap.adapter import CoapDeviceAdapter
from cloud_core.transports.coap.blockwise import Downloads
from cloud_core.transports.coap.dtls import DtlsServer
from cloud_core.transports.coap.dtls_endpoint import DtlsEndpoint
from cloud_core.transports.coap.endpoint import Endpoint, make_context
from cloud_core.transports.coap.fast_path import FastPath
from cloud_core.transports.coap.resource import DeviceResource


class Listener:
    """Reads after `start`."""

    def __init__(self, adapter: CoapDeviceAdapter, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        self._adapter = adapter
        self._endpoint = endpoint
        self._loop = loop
        self._fast_path: FastPath | None = None
        self._context: Any = None  # aiocoap is untyped
        self._message_layer: Any = None

    async def start(self) -> int:
        """The number of the port."""
        endpoint, downloads = self._endpoint, Downloads()
        sessions = endpoint.server if isinstance(endpoint, DtlsEndpoint) else None
        resource = DeviceResource(self._adapter, downloads, sessions)
        self._context, interface = await make_context(endpoint, resource, self._loop)
        self._message_layer = interface._ctx
        self._fast_path = interface.fast_path = FastPath(
            self._adapter,
            loop=self._loop,
            send=lambda data, ancillary, address: endpoint.sendmsg(data, ancillary, 0, address),
            next_message_id=self._message_layer._next_message_id,
            downloads=downloads,
            sessions=sessions,
        )
        if isinstance(endpoint, DtlsEndpoint):
            endpoint.session_ended = self._fast_path.observations.session_ended
        port: int = endpoint.get_extra_info("socket").getsockname()[1]
        endpoint.resume()
        return port

    def pause(self) -> None:
        self._endpoint.pause()

    def resume(self) -> None:
        self._endpoint.resume()

    async def close(self) -> None:
        """Ends observations, tells whoever can be told, and closes the socket."""
        if self._fast_path is not None:
            self._fast_path.observations.close()
        if self._context is not None:
            await self._context.shutdown()

    @property
    def observation_count(self) -> int:
        return 0 if self._fast_path is None else len(self._fast_path.observations)

    @property
    def sessions(self) -> DtlsServer | None:
        """Where the port is one for DTLS."""
        return self._endpoint.server if isinstance(self._endpoint, DtlsEndpoint) else None

    @property
    def has_work_pending(self) -> bool:
        if self._fast_path is None:
            return False
        return self._fast_path.in_work > 0 or bool(self._message_layer.token_manager.incoming_requests)
