"""TLS in memory: a real client and a real server context, joined by nothing but bytes; and TLS listeners' fakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from cloud_core.model import Identity, Peer, PresentedChain
from cloud_core.transports.handshakes import Handshakes
from cloud_core.transports.tls import ServerTls
from cloud_core.transports.tls_connection import TlsConnection, TlsFactory
from tests.support.pki import SERVER, Ca, Leaf, Pki

RECORD_BYTES = 16_384


class Site:
    """A server with its certificate, and devices of a factory's CA, three certificates deep."""

    def __init__(self, folder: Path, **tls: Any) -> None:
        self.folder = folder
        self.pki = Pki()
        self.server_root = self.pki.root("Server Root")
        self.server = self.server_root.leaf("localhost", dns_names=("localhost",), extended_usage=(SERVER,))
        self.factory_root = self.pki.root("Factory")
        self.line: Ca = self.factory_root.intermediate("Plant").intermediate("Line")
        self.device = self.line.leaf("sensor-1")
        certificate, key = self.server.write(folder, "server")
        self.tls = ServerTls(certificate=certificate, private_key=key, **tls)


class Recorder(Protocol):
    """The application: remembers the calls."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.lost: list[Failure] = []
        self.transport: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.append(reason)


class RecorderFactory(Factory[Recorder]):
    noisy = False

    def __init__(self) -> None:
        self.built: list[Recorder] = []

    def buildProtocol(self, addr: Any) -> Recorder:
        self.built.append(Recorder())
        return self.built[-1]


class Wire(StringTransport):
    """TCP's end of the server."""

    def __init__(self, peer: Any = None) -> None:
        super().__init__(peerAddress=peer)
        self.unsent_bytes = 0
        self.is_aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """As asked by klein's channel."""

    def abortConnection(self) -> None:
        self.is_aborted = True
        super().abortConnection()


class TlsListener:
    """A TLS factory before `wrapped`, with the test's own clock."""

    def __init__(
        self, tls: ServerTls, wrapped: Any = None, *, clock: Clock | None = None, handshakes: Handshakes | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.wrapped = wrapped or RecorderFactory()
        context = tls.context(SSL.TLS_SERVER_METHOD)
        self.factory = TlsFactory(
            self.wrapped, context, name="mqtts", reactor=self.clock, handshake_s=10.0, handshakes=handshakes
        )
        self.factory.doStart()

    def accept(self, address: str = "192.0.2.1") -> tuple[TlsConnection, Wire]:
        connection, wire = self.factory.buildProtocol(None), Wire(IPv4Address("TCP", address, 40_000))
        connection.makeConnection(wire)
        return connection, wire


class TlsClient:
    """The client's end of one connection."""

    def __init__(
        self,
        listener: TlsListener,
        leaf: Leaf | None = None,
        *,
        session: Any = None,
        context: Any = None,
        connected: tuple[TlsConnection, Wire] | None = None,
        **options: Any,
    ) -> None:
        self.connection, self.wire = connected or listener.accept()
        self.context = context or client_context(leaf, **options)
        self.ssl = SSL.Connection(self.context, None)
        self.ssl.set_connect_state()
        if session is not None:
            self.ssl.set_session(session)
        self.fault: SSL.Error | None = None
        self.data = b""  # decrypted

    @property
    def application(self) -> Any:
        return self.connection.protocol

    def shake_hands(self) -> TlsClient:
        for _ in range(4):
            self._step(self.ssl.do_handshake)
            self.to_server()
            self.to_client()
        return self

    def send(self, data: bytes) -> None:
        """In as few records as TLS allows, in one read of the server."""
        for at in range(0, len(data), RECORD_BYTES):
            self.ssl.send(data[at : at + RECORD_BYTES])
        self.to_server()
        self.to_client()

    def to_server(self) -> None:
        data = outgoing(self.ssl)
        if data:
            self.connection.dataReceived(data)

    def to_client(self) -> None:
        data = self.wire.value()
        self.wire.clear()
        if data:
            self.ssl.bio_write(data)
            self._step(self._read)

    def close(self) -> None:
        self.ssl.shutdown()
        self.to_server()

    def lose(self) -> None:
        self.connection.connectionLost(Failure(ConnectionDone()))

    def _read(self) -> None:
        while True:
            self.data += self.ssl.recv(65_536)

    def _step(self, step: Any) -> None:
        try:
            step()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.fault = self.fault or error


def client_context(
    leaf: Leaf | None = None, *, trusted: Ca | None = None, newest: int = 0, groups: bytes = b"", ciphers: bytes = b""
) -> SSL.Context:
    """Trusts `trusted` alone, or whoever answers."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if leaf is not None:
        context.use_certificate(leaf.certificate)
        for ca in leaf.chain[:-1]:
            context.add_extra_chain_cert(ca.certificate)
        context.use_privatekey(leaf.key)
    if trusted is not None:
        store: Any = context.get_cert_store()
        store.add_cert(_x509(trusted))
        context.set_verify(SSL.VERIFY_PEER)
    if newest:
        context.set_max_proto_version(newest)
    if ciphers:
        context.set_cipher_list(ciphers)
    return context


def is_resumed(ssl: SSL.Connection) -> bool:
    """Whether the client's handshake was a short one; pyOpenSSL has no public way to ask."""
    library: Any = SSL._lib  # type: ignore[attr-defined]
    return bool(library.SSL_session_reused(ssl._ssl))


def outgoing(ssl: SSL.Connection) -> bytes:
    pieces = []
    try:
        while True:
            pieces.append(ssl.bio_read(65_536))
    except SSL.WantReadError:
        return b"".join(pieces)


def _x509(holder: Any) -> Any:
    from OpenSSL import crypto

    return crypto.X509.from_cryptography(holder.certificate)


class CertificatesFake:
    """`DeviceApi.certificates` as a test wants it: identities by leaf, or one outcome for all."""

    def __init__(self) -> None:
        self.identities: dict[bytes, Identity] = {}
        self.outcome: Any = None
        self.known_asked = 0
        self.asked: list[tuple[PresentedChain, Peer]] = []
        self.waiting: list[Any] | None = None  # a list: answers wait here

    def anchors_changed(self) -> None:
        """Nobody has asked for them."""

    def known(self, leaf: bytes) -> Identity | None:
        self.known_asked += 1
        return self.identities.get(leaf)

    def authenticate(self, chain: PresentedChain, peer: Peer, done: Any) -> None:
        self.asked.append((chain, peer))
        if self.waiting is None:
            done(self.outcome)
        else:
            self.waiting.append(lambda: done(self.outcome))
