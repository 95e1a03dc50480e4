"""The gateway's local port: open from the start, but what serves it is made for the first caller.

The web framework behind the page takes 20 MB and 0.2 s of the start, which a gateway without visitors does not spend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from edge_gateway.console.access import Access
from edge_gateway.settings import Local
from edge_gateway.storage.files import write_private

ADDRESS_FILE = "local-address"

log = Logger()


class DoorUnavailable(Exception):
    """The port cannot be opened; `str()` says why and what to do."""


class LocalPort:
    """`serve()` gives the factory of what serves; it is called once, at the first connection."""

    def __init__(self, *, settings: Local, data_dir: Path, reactor: Any, serve: Callable[[], Any]) -> None:
        # `reactor`, factory: mypy reads nothing from zope interfaces.
        self._settings = settings
        self._data_dir = data_dir
        self._reactor = reactor
        self._factory = _OnDemand(serve)
        self._port: Any = None

    async def start(self) -> int:
        """The port it listens on. Raises: DoorUnavailable."""
        place = f"{self._settings.bind}:{self._settings.port}"
        try:
            Access(self._data_dir, self._reactor.seconds).open()  # the commands read the token before they call
            self._port = self._reactor.listenTCP(
                self._settings.port, self._factory, interface=self._settings.bind, backlog=50
            )
            port: int = self._port.getHost().port
            write_private(self._data_dir / ADDRESS_FILE, self._url(port).encode() + b"\n")
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            raise DoorUnavailable(
                f"the local page cannot use {place}: {reason}; choose another `port` or `bind` in [local], or set "
                "enabled = false there"
            ) from None
        except OSError as error:
            raise DoorUnavailable(f"the local page needs {error.filename}: {error.strerror}") from None
        log.info("local page on {url}; `edge-gateway status` shows its PIN", url=self._url(port))
        return port

    async def stop(self) -> None:
        """No more connections."""
        if self._port is not None:
            await maybeDeferred(self._port.stopListening).asFuture(asyncio.get_running_loop())
            self._port = None
            (self._data_dir / ADDRESS_FILE).unlink(missing_ok=True)

    def _url(self, port: int) -> str:
        own = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
        host = own.get(self._settings.bind, self._settings.bind)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _OnDemand(ServerFactory):
    noisy = False

    def __init__(self, serve: Callable[[], Any]) -> None:
        self._serve = serve
        self._serving: Any = None

    def buildProtocol(self, addr: Any) -> Any:
        """A caller that cannot be served is sent away; the next one tries again."""
        if self._serving is None:
            try:
                serving = self._serve()
                serving.doStart()
            except Exception:
                log.failure("the local page cannot be shown")
                return None
            self._serving = serving
        return self._serving.buildProtocol(addr)

    def stopFactory(self) -> None:
        if self._serving is not None:
            self._serving.doStop()
            self._serving = None
