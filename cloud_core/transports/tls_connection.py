"""TLS over a TCP connection: to the connection a protocol, to MQTT and HTTP their transport.

Twisted's own `TLSMemoryBIOProtocol` does not suit us in three ways:

- It builds the application's protocol before the handshake; here a peer that never finishes one costs a socket
  with a deadline, and nothing at all of MQTT or HTTP.
- It hands on record after record, paused or not. Here one read of the socket is one call of the application, as
  without TLS: what was asked to pause is not called before it has resumed, and nothing has to be kept meanwhile.
- It declares its interfaces anew for each connection, and costs more time for each record.

Nothing is buffered here: encrypted bytes go to the TCP connection at once, which alone knows back-pressure.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cloud_core.core.line_ration import LineRation
from cloud_core.model import PresentedChain
from cloud_core.transports import tls_faults
from cloud_core.transports.handshakes import Handshakes
from cloud_core.transports.tls import chain_of

log = Logger()

RECORD_BYTES = 16_384  # of plain text in one record at most
FLUSH_BYTES = 32_768
MAX_UNASKED_BYTES = 65_536  # that TLS itself has to say to a peer that does not read it
LINGER_S = 2.0  # that a refused peer is given to read why, before the connection is cut
SWEEP_S = 1.0
MAX_LINES = 20  # of the log about handshakes that failed, in LineRation's span


@implementer(ISSLTransport, IPushProducer)
class TlsConnection(Protocol):
    """One connection. `protocol` is the application's, from the end of the handshake on."""

    __slots__ = (
        "_chain", "_factory", "_has_failed", "_has_producer", "_is_shut", "_ssl", "connected", "disconnecting",
        "protocol", "transport",
    )  # fmt: skip
    transport: Any  # tcp.FastServer; mypy reads nothing from zope interfaces
    protocol: Any

    def __init__(self, factory: TlsFactory) -> None:
        self._factory = factory
        self._ssl: SSL.Connection | None = None  # from the first byte to the end of the connection
        self._chain: PresentedChain | None = None
        self._has_failed = False  # what comes is not looked at any more
        self._has_producer = False
        self._is_shut = False  # nothing more is sent
        self.protocol = None
        self.disconnecting = False

    # -- as a protocol ----------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self._factory.greeting(self)

    def dataReceived(self, data: bytes) -> None:
        if self._has_failed:
            return
        if self.protocol is None:
            self._greet(data)
        elif self._ssl is not None:
            self._ssl.bio_write(data)
            self._deliver(self._ssl)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.over(self)
        protocol, self.protocol = self.protocol, None
        ssl, self._ssl = self._ssl, None
        self._is_shut = True
        if protocol is not None:
            protocol.connectionLost(reason)
        elif ssl is not None and not self._has_failed:
            self._factory.failed += 1
            self._factory.note(self, tls_faults.CLOSED)

    def _greet(self, data: bytes) -> None:
        """The handshake."""
        ssl = self._ssl
        if ssl is None:
            fault = tls_faults.plain_text(data)
            if fault is not None:
                self._fail(fault)
                self.transport.loseConnection()
                return
            self._ssl = ssl = SSL.Connection(self._factory.context, None)
            ssl.set_accept_state()
        ssl.bio_write(data)
        try:
            ssl.do_handshake()
        except SSL.WantReadError:
            self._flush(ssl)
        except SSL.Error as error:
            self._fail(tls_faults.why(error, ssl))
            self._flush(ssl)  # the alert that says why
            self._factory.lingering(self)
        else:
            self._open(ssl)

    def _open(self, ssl: SSL.Connection) -> None:
        self._factory.over(self)
        self._factory.opened += 1
        self.protocol = self._factory.wrapped.buildProtocol(self.transport.getPeer())
        self.protocol.makeConnection(self)
        self._deliver(ssl)  # what came behind the handshake; with the answer goes what TLS has to say

    def _deliver(self, ssl: SSL.Connection) -> None:
        """Hands on, in one piece, all that the bytes of this read contain."""
        pieces: list[bytes] = []
        is_over, fault = False, ""  # not the error itself: with its traceback it would keep all this alive
        try:
            while True:
                pieces.append(ssl.recv(RECORD_BYTES))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            is_over = True
        except SSL.Error as error:
            is_over, fault = True, tls_faults.why(error)
        if pieces:
            self.protocol.dataReceived(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._ssl is None:
            return  # it is lost meanwhile
        self._flush(ssl)
        if is_over:
            self._peer_ended(fault)
        elif not pieces and self.unsent_bytes > MAX_UNASKED_BYTES:
            self.abortConnection()

    def _peer_ended(self, fault: str) -> None:
        """It said goodbye, which is the end of both directions, or broke the rules of TLS."""
        if fault:
            self._factory.note(self, fault, "TLS connection of {source} to the {name} port broke")
            self._is_shut = True
        self._shut()

    def overdue(self) -> None:
        """The time for a handshake, or for a refused peer to go, is over."""
        self.give_up(tls_faults.NO_FINISH)

    def give_up(self, why: str) -> None:
        """The handshake comes to no end."""
        if not self._has_failed:
            self._fail(why)
        self.transport.abortConnection()

    def _fail(self, fault: str) -> None:
        self._has_failed = True
        self._factory.failed += 1
        self._factory.over(self)
        self._factory.note(self, fault)

    # -- as a transport ---------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        ssl = self._ssl
        if ssl is None or self._is_shut or not data:
            return
        try:
            if len(data) > RECORD_BYTES or (sent := ssl.send(data)) < len(data):
                self._write_in_records(ssl, data, 0 if len(data) > RECORD_BYTES else sent)
        except SSL.Error:
            self.abortConnection()
            return
        self._flush(ssl)

    def _write_in_records(self, ssl: SSL.Connection, data: bytes, at: int) -> None:
        """A client may have asked for records that are smaller still."""
        while at < len(data):
            at += ssl.send(data[at : at + RECORD_BYTES])
            self._flush(ssl)

    def writeSequence(self, pieces: Any) -> None:  # Any: an iterable of bytes
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """Sends what was written, then closes; with a producer when that has ended."""
        if not self.disconnecting:
            self.disconnecting = True
            if not self._has_producer:
                self._shut()

    def abortConnection(self) -> None:
        self.disconnecting = self._is_shut = True
        self.transport.abortConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # Any: of zope's interfaces
        self.transport.registerProducer(producer, streaming)
        self._has_producer = True

    def unregisterProducer(self) -> None:
        self._has_producer = False
        self.transport.unregisterProducer()
        if self.disconnecting:
            self._shut()

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> Any:  # Any: IAddress
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.transport.setTcpNoDelay(enabled)

    def getTcpNoDelay(self) -> bool:
        return bool(self.transport.getTcpNoDelay())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.transport.setTcpKeepAlive(enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self.transport.getTcpKeepAlive())

    def loseWriteConnection(self) -> None:
        """TLS has no half-closed connections here: the end of one direction is the end."""
        self.loseConnection()

    def getPeerCertificate(self) -> Any:
        """As ISSLTransport wants it; ours is `presented`."""
        return None if self._ssl is None else self._ssl.get_peer_certificate()

    @property
    def unsent_bytes(self) -> int:
        """As `FastServer.unsent_bytes`; encrypted ones."""
        count: int = getattr(self.transport, "unsent_bytes", 0)
        return count

    def presented(self) -> PresentedChain | None:
        """What the peer showed; None without a certificate. Read anew with each call."""
        return None if self._ssl is None else chain_of(self._ssl)

    @property
    def chain(self) -> PresentedChain | None:
        """As `presented`, for those who ask with each request: read once."""
        if self._chain is None:
            self._chain = self.presented()
        return self._chain

    def _shut(self) -> None:
        """Goodbye, without waiting for the peer's: whoever wants to know the end knows it by that."""
        ssl = self._ssl
        if ssl is not None and not self._is_shut:
            self._is_shut = True
            with suppress(SSL.Error):  # it may be broken already: then the connection's end says it
                ssl.shutdown()
            self._flush(ssl)
        self.transport.loseConnection()

    def _flush(self, ssl: SSL.Connection) -> None:
        try:
            while True:
                data = ssl.bio_read(FLUSH_BYTES)
                self.transport.write(data)
                if len(data) < FLUSH_BYTES:
                    return
        except SSL.WantReadError:
            pass  # there was nothing (more) to send


def address_of(connection: TlsConnection) -> str:
    """Of the peer, without its port."""
    return getattr(connection.transport.getPeer(), "host", "")


class TlsFactory(Factory[TlsConnection]):
    """What a TLS listener builds connections with: TLS before the protocols of `wrapped`."""

    noisy = False

    def __init__(
        self, wrapped: Any, context: SSL.Context, *, name: str, reactor: Any, handshake_s: float,
        handshakes: Handshakes | None = None,
    ) -> None:  # fmt: skip
        # `wrapped` and `reactor` are twisted objects without usable types.
        self.wrapped = wrapped
        self.context = context
        self._name = name
        self._reactor = reactor
        self._handshake_s = handshake_s
        self._handshakes = Handshakes() if handshakes is None else handshakes
        self._greeting: dict[TlsConnection, float] = {}  # since when; the oldest first
        self._lingering: dict[TlsConnection, float] = {}
        self._lines = LineRation(MAX_LINES)
        self.opened = self.failed = 0  # handshakes since the start
        self._sweep = LoopingCall(self._sweep_all)
        self._sweep.clock = reactor

    def startFactory(self) -> None:
        self.wrapped.doStart()
        self._sweep.start(SWEEP_S, now=False)

    def stopFactory(self) -> None:
        if self._sweep.running:
            self._sweep.stop()
        for connection in [*self._greeting, *self._lingering]:
            connection.transport.abortConnection()
        self.wrapped.doStop()

    def buildProtocol(self, addr: Any) -> TlsConnection:
        return TlsConnection(self)

    # -- called by the connections ----------------------------------------------------------------

    def greeting(self, connection: TlsConnection) -> None:
        self._greeting[connection] = self._reactor.seconds()
        self._handshakes.begin(connection, address_of(connection))

    def lingering(self, connection: TlsConnection) -> None:
        self._lingering[connection] = self._reactor.seconds()

    def over(self, connection: TlsConnection) -> None:
        """The handshake, or the connection."""
        self._greeting.pop(connection, None)
        self._handshakes.end(connection)
        self._lingering.pop(connection, None)

    def note(
        self, connection: TlsConnection, why: str, what: str = "TLS handshake of {source} on the {name} port failed"
    ) -> None:
        members = {"name": self._name, "source": address_of(connection)}
        is_due, left_out = self._lines.take(self._reactor.seconds())
        if left_out:
            log.warn("{left_out} more lines about TLS on the {name} port were left out", left_out=left_out, **members)
        if is_due:
            log.warn(what + ": {why}", why=why, **members)

    def _sweep_all(self) -> None:
        now_s = self._reactor.seconds()
        overdue: list[TlsConnection] = []
        for waiting, limit_s in ((self._greeting, self._handshake_s), (self._lingering, LINGER_S)):
            for connection, since_s in waiting.items():
                if now_s - since_s < limit_s:
                    break
                overdue.append(connection)
        for connection in overdue:
            connection.overdue()
