"""The server's certificate while the core runs: where it comes from, who is trusted, what changes, when it ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from cloud_core import dev_tls
from cloud_core.config import Config
from cloud_core.storage.interface import Done
from cloud_core.transports.handshakes import Handshakes
from cloud_core.transports.tls import ServerTls
from cloud_core.transports.tls_connection import TlsFactory
from shared.errors import PlatformError

log = Logger()
LOOK_S = 5.0  # how often the files are looked at
REPORT_S = 86_400.0
RETRY_S = 5.0  # when anchors could not be read


class AnchorSource(Protocol):
    """`core.certificate_logins.CertificateLogins`."""

    def anchors(self, done: Done[list[bytes]]) -> None: ...

    def on_anchors_changed(self, callback: Callable[[], None]) -> None: ...


def server_tls(config: Config) -> ServerTls | None:
    """What the configuration names; None where it names nothing.

    Raises: OSError; ValueError with a sentence for the user.
    """
    section = config.tls
    certificate, private_key = Path(section.certificate), Path(section.private_key)
    if section.development:
        binds = {config.http.bind, config.mqtt.bind, config.coap.bind}
        files = dev_tls.prepare(Path(config.data_dir) / "dev-tls", sorted(binds))
        certificate, private_key = files.certificate, files.private_key
        log.info("TLS for development: have clients trust {authority}", authority=str(files.authority.resolve()))
    elif not section.certificate:
        return None
    return ServerTls(
        certificate=certificate, private_key=private_key, is_strict=section.client_certificates == "strict"
    )


class TlsService:
    """Looks after a `ServerTls`."""

    def __init__(
        self, tls: ServerTls, *, reactor: Any, handshake_s: float, handshakes: Handshakes | None = None
    ) -> None:
        # `reactor`: callLater, seconds, callFromThread; untyped because a test passes a Clock.
        self.tls = tls
        self._reactor = reactor
        self._handshake_s = handshake_s
        self._handshakes = Handshakes() if handshakes is None else handshakes  # of all ports
        self._context: SSL.Context | None = None
        self._anchors: AnchorSource | None = None
        self._is_asking = self._is_asked_anew = self._is_stopped = False
        self._retry: Any = None  # twisted's IDelayedCall
        self._factories: dict[str, TlsFactory] = {}
        self._look = LoopingCall(self._look_at_files)
        self._report = LoopingCall(self._report_now)
        for repeated in (self._look, self._report):
            repeated.clock = reactor

    def factory(self, wrapped: Any, *, name: str) -> TlsFactory:  # Any: IProtocolFactory
        """TLS before what `wrapped` builds. Raises: TlsFailed."""
        if self._context is None:
            self._context = self.tls.context(SSL.TLS_SERVER_METHOD)
        factory = TlsFactory(
            wrapped, self._context, name=name, reactor=self._reactor, handshake_s=self._handshake_s,
            handshakes=self._handshakes,
        )  # fmt: skip
        self._factories[name] = factory
        return factory

    def handshakes(self) -> dict[str, tuple[int, int]]:
        """Name of the port -> handshakes since the start that came to an end, and those that failed."""
        return {name: (one.opened, one.failed) for name, one in self._factories.items()}

    def trusting(self, source: AnchorSource) -> Deferred[None]:
        """Fires when those are known whom a client's certificate must lead to; they are followed from then on."""
        self._anchors = source
        source.on_anchors_changed(self._ask_anchors)
        known: Deferred[None] = Deferred()
        self._ask_anchors(known)
        return known

    def start(self) -> None:
        self._look.start(LOOK_S, now=False)
        self._report.start(REPORT_S)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.tls.reload))

    def stop(self) -> None:
        self._is_stopped = True
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        for repeated in (self._look, self._report):
            if repeated.running:
                repeated.stop()

    def _look_at_files(self) -> None:
        try:
            self.tls.reload_if_changed()
        except Exception:  # it would be the end of the watch
            log.failure("The files of the server certificate could not be looked at")

    def _ask_anchors(self, known: Deferred[None] | None = None) -> None:
        """One question at a time: answers cannot overtake each other, and a thousand changes cost two."""
        if self._is_asking or self._is_stopped:
            self._is_asked_anew = True
            return
        assert self._anchors is not None
        self._is_asking, self._is_asked_anew = True, False
        self._anchors.anchors(lambda outcome: self._found(outcome, known))

    def _found(self, outcome: list[bytes] | PlatformError, known: Deferred[None] | None) -> None:
        self._is_asking = False
        if isinstance(outcome, PlatformError):
            log.error("The CAs that TLS is to trust could not be read, tried again: {error}", error=str(outcome))
            if not self._is_stopped:
                self._retry = self._reactor.callLater(RETRY_S, self._ask_anchors)
        else:
            self.tls.trust(outcome)
            if self._is_asked_anew:
                self._ask_anchors()
        if known is not None:
            known.callback(None)

    def _report_now(self) -> None:
        self.tls.report(int(time.time() * 1000))
