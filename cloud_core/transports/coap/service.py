"""CoAP for devices: one UDP port for IPv6 and IPv4, and one for DTLS, started and drained as a whole."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

from OpenSSL import SSL
from twisted.internet.defer import Deferred

from cloud_core.core.api import DeviceApi
from cloud_core.transports.coap.adapter import CoapDeviceAdapter
from cloud_core.transports.coap.dtls import DtlsLimits, DtlsServer
from cloud_core.transports.coap.dtls_endpoint import DtlsEndpoint
from cloud_core.transports.coap.endpoint import Endpoint, open_socket
from cloud_core.transports.coap.listener import Listener
from cloud_core.transports.tls import ServerTls

DRAIN_S = 10.0
_DRAIN_STEP_S = 0.02


class CoapService:
    """Listens for devices. Needs the asyncio reactor."""

    def __init__(
        self,
        api: DeviceApi,
        *,
        bind_address: str,
        port: int,
        drain_s: float = DRAIN_S,
        tls: ServerTls | None = None,
        dtls_port: int = 5684,
        dtls_limits: DtlsLimits | None = None,
        opened: Mapping[str, socket.socket] | None = None,
    ) -> None:
        """Opens `dtls_port` as well where there is a `tls`.

        `opened`: sockets by name (`coap`, `coaps`) that were opened for this process, in the place of the ports.
        """
        self._api = api
        self._bind_address = bind_address
        self._wanted_port = port
        self._wanted_dtls_port = dtls_port
        self._drain_s = drain_s
        self._tls = tls
        self._dtls_limits = dtls_limits
        self._opened = dict(opened or {})
        self._listeners: list[Listener] = []
        self.port: int | None = None  # once started
        self.dtls_port: int | None = None  # once started, where there is one
        api.on_delivered(self._delivered)

    async def start(self) -> int:
        """Opens the ports and returns the number of the plain one (`dtls_port` is the other's).

        Raises: OSError, e.g. when another program has one; TlsFailed.
        """
        loop = asyncio.get_running_loop()
        adapter = CoapDeviceAdapter(self._api)
        context = None if self._tls is None else self._tls.context(SSL.DTLS_SERVER_METHOD)
        plain = Endpoint(self._socket("coap", self._wanted_port), loop)
        self.port = await self._listen(Listener(adapter, plain, loop), plain)
        if context is not None:
            opened = self._socket("coaps", self._wanted_dtls_port)
            secure = DtlsEndpoint(opened, loop, context, limits=self._dtls_limits)
            self.dtls_port = await self._listen(Listener(adapter, secure, loop), secure)
        return self.port

    def _socket(self, name: str, port: int) -> socket.socket:
        return self._opened.pop(name, None) or open_socket(self._bind_address, port, name)

    async def _listen(self, listener: Listener, endpoint: Endpoint) -> int:
        endpoint.is_congested = lambda: self._api.is_congested
        self._listeners.append(listener)
        return await listener.start()

    async def stop(self) -> None:
        """Stops reading, answers what is in work for at most the drain time, ends observations, closes."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.pause()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._drain_s
        while any(one.has_work_pending for one in listeners) and loop.time() < deadline_s:
            await asyncio.sleep(_DRAIN_STEP_S)
        for listener in listeners:
            await listener.close()

    def start_deferred(self) -> Deferred[int]:
        """`start` for Twisted's coroutines."""
        return Deferred.fromFuture(asyncio.ensure_future(self.start()))

    def stop_deferred(self) -> Deferred[None]:
        """`stop` for Twisted's coroutines."""
        return Deferred.fromFuture(asyncio.ensure_future(self.stop()))

    @property
    def observation_count(self) -> int:
        return sum(one.observation_count for one in self._listeners)

    @property
    def session_count(self) -> int:
        return sum(server.session_count for server in self._dtls_servers())

    @property
    def handshakes(self) -> tuple[int, int]:
        """DTLS handshakes since the start that came to an end, and those that failed."""
        servers = self._dtls_servers()
        return sum(server.opened for server in servers), sum(server.failed for server in servers)

    def _dtls_servers(self) -> list[DtlsServer]:
        return [one.sessions for one in self._listeners if one.sessions is not None]

    @property
    def has_work_pending(self) -> bool:
        return any(one.has_work_pending for one in self._listeners)

    def _delivered(self) -> None:
        if not self._api.is_congested:
            for listener in self._listeners:
                listener.resume()
