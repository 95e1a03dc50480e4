"""The CoAP listener on aiocoap."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Coroutine
from typing import Any

import aiocoap
from twisted.internet.defer import Deferred

from cloud_core.core.api import DeviceApi
from cloud_core.transports.coap.adapter import CoapDeviceAdapter
from cloud_core.transports.coap.fast_path import FastPath, install
from cloud_core.transports.coap.resource import DeviceResource
from cloud_core.transports.listener import ListenFailed


class CoapService:
    """Serves `/api/v1` on one UDP port."""

    def __init__(self, api: DeviceApi, *, bind_address: str, port: int) -> None:
        self._adapter = CoapDeviceAdapter(api)
        self._bind_address = bind_address
        self._port = port
        self._fast_paths: list[FastPath] = []
        self._context: Any = None  # aiocoap.Context is untyped

    def start_deferred(self) -> Deferred[int]:
        """Fires with the port once it is open; fails with ListenFailed."""
        return _deferred(self._start())

    def stop_deferred(self) -> Deferred[None]:
        return _deferred(self._stop())

    async def _start(self) -> int:
        # aiocoap writes its warnings to the standard library's log; what a peer does is no news there.
        logging.getLogger("coap-server").setLevel(logging.CRITICAL)
        port = _free_port(self._bind_address, self._port)
        self._context = await aiocoap.Context.create_server_context(
            DeviceResource(self._adapter), bind=(self._bind_address, port), transports=["udp6"]
        )
        self._fast_paths = install(self._context, self._adapter)
        return port

    async def _stop(self) -> None:
        if self._context is not None:
            for path in self._fast_paths:
                path.stop()
            await self._context.shutdown()
            self._context = None


def _free_port(address: str, port: int) -> int:
    """`port`, or a free one for 0.

    aiocoap binds with SO_REUSEPORT, so two instances started by mistake would silently share a port;
    a plain bind beforehand finds the other one.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, port))
        except OSError as error:
            why = (
                "is taken by another program"
                if error.errno == errno.EADDRINUSE
                else f"cannot be opened: {error.strerror}"
            )
            raise ListenFailed(
                f"The coap port {port} on {address} {why}; stop it or choose another with --coap-port."
            ) from error
        free: int = probe.getsockname()[1]
        return free


def _deferred(coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    return Deferred.fromFuture(asyncio.ensure_future(coroutine))
