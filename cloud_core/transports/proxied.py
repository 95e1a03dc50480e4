"""Connections that a load balancer hands on with the PROXY protocol: whom they are for is read before all else.

A connection is then what it would be without the balancer: its peer is the client, and the bytes behind the header go
to the protocols of the port, TLS included. It costs nothing from there on. Who is no trusted load balancer speaks for
itself, without a header: commands and health checks of this machine, a scraper.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloud_core.core.line_ration import LineRation
from cloud_core.transports.proxies import TrustedProxies
from cloud_core.transports.proxy_header import ProxyHeader, ProxyHeaderFault, read_header

log = Logger()
SWEEP_S = 1.0
MAX_LINES = 20  # of the log about connections that were refused, in LineRation's span


class ProxiedConnection(Protocol):
    """One connection until its header is complete."""

    __slots__ = ("_buffer", "_factory", "transport")
    transport: Any  # tcp.FastServer; mypy reads nothing from zope interfaces

    def __init__(self, factory: ProxiedFactory) -> None:
        self._factory = factory
        self._buffer: bytes | None = b""  # None: what comes is not looked at any more

    def connectionMade(self) -> None:
        self._factory.waiting[self] = self._factory.now_s()

    def dataReceived(self, data: bytes) -> None:
        if self._buffer is None:
            return
        self._buffer += data
        try:
            header = read_header(self._buffer)
        except ProxyHeaderFault as fault:
            self.refuse(str(fault))
            return
        if header is not None:
            self._hand_over(header, self._buffer[header.length :])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.waiting.pop(self, None)

    def refuse(self, why: str) -> None:
        """Ends it without a word: the protocols behind the header have not begun."""
        self._buffer = None
        self._factory.waiting.pop(self, None)
        self._factory.note(self.address, why)
        self.transport.abortConnection()

    @property
    def address(self) -> str:
        """Of the load balancer."""
        return getattr(self.transport.getPeer(), "host", "")

    def _hand_over(self, header: ProxyHeader, rest: bytes) -> None:
        transport = self.transport
        self._factory.waiting.pop(self, None)
        if header.source is not None:
            transport.stand_for(*header.source)
        protocol = self._factory.wrapped.buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)


class ProxiedFactory(Factory[Any]):  # what `wrapped` builds is a twisted object without a usable type
    """What a listener behind load balancers builds connections with: their header before the protocols of `wrapped`."""

    noisy = False

    def __init__(self, wrapped: Any, proxies: TrustedProxies, *, name: str, reactor: Any, header_s: float) -> None:
        # `wrapped` and `reactor` are twisted objects without usable types.
        self.wrapped = wrapped
        self.proxies = proxies
        self.waiting: dict[ProxiedConnection, float] = {}  # since when; the oldest first
        self._name = name
        self._header_s = header_s
        self._lines = LineRation(MAX_LINES)
        self.now_s = reactor.seconds
        self._sweep = LoopingCall(self._sweep_all)
        self._sweep.clock = reactor

    def startFactory(self) -> None:
        self.wrapped.doStart()
        self._sweep.start(SWEEP_S, now=False)

    def stopFactory(self) -> None:
        if self._sweep.running:
            self._sweep.stop()
        for connection in list(self.waiting):
            connection.transport.abortConnection()
        self.wrapped.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        if not self.proxies.covers(addr.host):
            return self.wrapped.buildProtocol(addr)
        return ProxiedConnection(self)

    def note(self, address: str, why: str) -> None:
        """The log says it, unless it has said so too often."""
        is_due, left_out = self._lines.take(self.now_s())
        if left_out:
            log.warn(
                "{left_out} more lines about connections to the {name} port were left out",
                left_out=left_out, name=self._name,
            )  # fmt: skip
        if is_due:
            log.warn(
                "Connection from {source} to the {name} port refused: {why}; only load balancers that speak the PROXY"
                " protocol are let in here ([http] or [mqtt] proxy_protocol)",
                source=address, name=self._name, why=why,
            )  # fmt: skip

    def _sweep_all(self) -> None:
        now_s = self.now_s()
        overdue = [one for one, since_s in self.waiting.items() if now_s - since_s >= self._header_s]
        for connection in overdue:
            connection.refuse("its header has not come in time")
