"""DTLS in memory: clients of pyOpenSSL, a `DtlsServer`, and the link between them, which tests may make bad."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiocoap import Message
from OpenSSL import SSL

from cloud_core.model import PresentedChain
from cloud_core.transports.coap.adapter import CoapDeviceAdapter
from cloud_core.transports.coap.blockwise import Downloads
from cloud_core.transports.coap.dtls import DtlsLimits, DtlsServer
from cloud_core.transports.coap.dtls_hello import datagrams
from cloud_core.transports.coap.fast_path import FastPath
from cloud_core.transports.tls import ServerTls
from tests.support.coap import ANCILLARY, PEER, FakeApi, FakeLoop
from tests.support.pki import Holder, Pki

MTU_BYTES = 1_200
_MAX_BYTES = 65_536


def client_context(holder: Holder | None = None) -> SSL.Context:
    """Shows the holder's chain; takes any server."""
    context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    if holder is not None:
        context.use_certificate(holder.certificate)
        context.use_privatekey(holder.key)
        for ca in holder.chain:
            if ca.issuer:
                context.add_extra_chain_cert(ca.certificate)
    return context


class DtlsClient:
    """One association of a client; what it wants to send is in `taken()`."""

    def __init__(self, context: SSL.Context, *, session: SSL.Session | None = None, mtu_bytes: int = MTU_BYTES) -> None:
        self.connection = SSL.Connection(context)
        self.connection.set_connect_state()
        self.connection.set_ciphertext_mtu(mtu_bytes)
        if session is not None:
            self.connection.set_session(session)
        self._mtu_bytes = mtu_bytes
        self.is_open = self.is_closed = False
        self.messages: list[bytes] = []
        self._go_on()

    def receive(self, datagram: bytes) -> None:
        self.connection.bio_write(datagram)
        self._go_on()

    def _go_on(self) -> None:
        try:
            if not self.is_open:
                self.connection.do_handshake()
                self.is_open = True
            while True:
                self.messages.append(self.connection.recv(_MAX_BYTES))
        except SSL.WantReadError:
            return
        except SSL.ZeroReturnError:
            self.is_closed = True

    def repeat(self) -> None:
        """Writes the last flight again once a second has passed on OpenSSL's own clock."""
        self.connection.DTLSv1_handle_timeout()

    def send(self, message: bytes) -> None:
        self.connection.send(message)

    def taken(self) -> list[bytes]:
        try:
            return datagrams(self.connection.bio_read(_MAX_BYTES), self._mtu_bytes)
        except SSL.WantReadError:
            return []


def server_tls(folder: Path) -> ServerTls:
    """The key pair of a server of its own."""
    certificate, key = Pki().root("Server CA").leaf("localhost", dns_names=("localhost",)).write(folder)
    return ServerTls(certificate=certificate, private_key=key)


class DtlsUnderTest:
    """A server whose peers are clients in memory, by address; records what it does."""

    def __init__(self, tls: ServerTls, limits: DtlsLimits | None = None) -> None:
        self.now_s = 1_000.0
        self.sent: list[tuple[bytes, Any]] = []
        self.delivered: list[tuple[bytes, Any]] = []
        self.ended: list[Any] = []
        self.failures: list[tuple[Any, str]] = []
        self.on_message: Callable[[bytes, Any], object] = lambda message, address: None
        self.on_end: Callable[[Any], None] = lambda address: None
        self.server = DtlsServer(
            tls.context(SSL.DTLS_SERVER_METHOD),
            send=self._sent, deliver=self._delivered, ended=self._ended,
            failed=lambda peer, reason: self.failures.append((peer, reason)), limits=limits,
        )  # fmt: skip

    def _sent(self, datagram: bytes, ancillary: Any, peer: Any) -> None:
        assert ancillary == ANCILLARY
        self.sent.append((datagram, peer))

    def _delivered(self, message: bytes, ancillary: Any, address: Any) -> None:
        self.delivered.append((message, address))
        self.on_message(message, address)

    def _ended(self, address: Any) -> None:
        self.ended.append(address)
        self.on_end(address)

    def receive(self, datagram: bytes, peer: Any = PEER) -> None:
        self.server.receive(datagram, ANCILLARY, peer, self.now_s)

    def shown(self, address: Any) -> PresentedChain | None:
        """By the peer whose messages come from this address."""
        session = self.server.of(address)
        assert session is not None
        return session.chain

    def taken(self) -> list[tuple[bytes, Any]]:
        sent, self.sent = self.sent, []
        return sent

    def exchange(self, client: DtlsClient, peer: Any = PEER) -> DtlsClient:
        """Carries datagrams both ways until nobody has more to say."""
        while going := client.taken():
            for datagram in going:
                self.receive(datagram, peer)
            for datagram, to in self.taken():
                if to == peer:
                    client.receive(datagram)
        for datagram, to in self.taken():
            if to == peer:
                client.receive(datagram)
        return client

    def connect(self, context: SSL.Context, peer: Any = PEER, **options: Any) -> DtlsClient:
        client = self.exchange(DtlsClient(context, **options), peer)
        assert client.is_open
        return client

    def confirmed_hello(self, client: DtlsClient, peer: Any = PEER) -> bytes:
        """The client's ClientHello with the server's cookie; not received yet."""
        (first,) = client.taken()
        self.receive(first, peer)
        ((answer, _),) = self.taken()
        client.receive(answer)
        (second,) = client.taken()
        return second


def peer_at(number: int) -> Any:
    """Addresses of one host."""
    return (PEER[0], 10_000 + number, 0, 0)


class CoapsServer(DtlsUnderTest):
    """The fast path of a DTLS socket."""

    def __init__(self, tls: ServerTls) -> None:
        super().__init__(tls)
        self.api = FakeApi()
        self.loop = FakeLoop()
        self._message_id = 999
        self.path = FastPath(
            CoapDeviceAdapter(self.api),  # type: ignore[arg-type]  # a fake
            loop=self.loop,
            send=lambda data, ancillary, address: self.server.send(data, address),
            next_message_id=self._next,
            downloads=Downloads(),
            sessions=self.server,
        )
        self.on_message = lambda message, address: self.path.receive(message, ANCILLARY, 0, address)
        self.on_end = self.path.observations.session_ended

    def _next(self) -> int:
        self._message_id += 1
        return self._message_id

    def is_identified(self) -> bool:
        """Whether the newest session is a known device's."""
        return next(reversed(self.server._sessions.values())).is_identified

    def ask(self, client: DtlsClient, request: bytes, peer: Any = PEER) -> Message:
        """The answer to a request that is answered at once."""
        client.send(request)
        self.exchange(client, peer)
        return Message.decode(client.messages[-1])


class CoapsSocket:
    """A client on a real UDP socket, in the running loop."""

    def __init__(self, port: int, context: SSL.Context) -> None:
        self.client = DtlsClient(context)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(("127.0.0.1", port))

    async def begin(self) -> None:
        """Up to the server's first flight; then silence."""
        for _datagram in range(2):
            self.flush()
            await self._receive()

    async def reopen(self, context: SSL.Context) -> None:
        """As after a reboot: a new handshake from the same port."""
        self.client = DtlsClient(context)
        await self.open()

    async def open(self) -> None:
        while not self.client.is_open:
            self.flush()
            await self._receive()
        self.flush()

    async def ask(self, request: bytes) -> Message:
        """Sends a request; the next message that comes."""
        return Message.decode(await self.ask_bytes(request))

    async def ask_bytes(self, message: bytes) -> bytes:
        self.client.send(message)
        self.flush()
        while not self.client.messages:
            await self._receive()
        return self.client.messages.pop(0)

    async def next(self) -> Message:
        while not self.client.messages:
            await self._receive()
        return Message.decode(self.client.messages.pop(0))

    async def end(self) -> None:
        """Waits for the server's close_notify."""
        while not self.client.is_closed:
            await self._receive()

    def close(self) -> None:
        self._socket.close()

    def flush(self) -> None:
        for datagram in self.client.taken():
            self._socket.send(datagram)

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        self.client.receive(await asyncio.wait_for(loop.sock_recv(self._socket, _MAX_BYTES), 5))
