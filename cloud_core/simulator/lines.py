"""TCP connections of devices: a socket each, watched together, with TLS where asked.

A transport of asyncio costs several times as much to open and close, and storms are made of that.
"""

from __future__ import annotations

import errno
import ipaddress
import selectors
import socket
from collections.abc import Callable
from typing import Protocol

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address

from cloud_core.simulator.sources import bind

READ_BYTES = 65_536
_TLS_PIECE_BYTES = 32_768
PORTS_USED_UP, DESCRIPTORS_USED_UP = "ports of a source address", "file descriptors"
_LIMITS = {
    errno.EADDRNOTAVAIL: PORTS_USED_UP, errno.EADDRINUSE: PORTS_USED_UP,
    errno.EMFILE: DESCRIPTORS_USED_UP, errno.ENFILE: DESCRIPTORS_USED_UP,
}  # fmt: skip


class LineOwner(Protocol):
    """Whose connection it is. After `line_lost` nothing more comes; a line that its owner closes says nothing."""

    def line_up(self) -> None: ...
    def received(self, data: bytes) -> None: ...
    def line_lost(self, why: str) -> None: ...


class Watch:
    """All sockets of a process behind one descriptor of the loop."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.open = 0

    def fileno(self) -> int:
        return self._selector.fileno()

    def add(self, sock: socket.socket, ready: Callable[[int], None], mask: int) -> None:
        self._selector.register(sock, mask, ready)
        self.open += 1

    def change(self, sock: socket.socket, ready: Callable[[int], None], mask: int) -> None:
        self._selector.modify(sock, mask, ready)

    def remove(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        self.open -= 1

    def turn(self) -> None:
        """Hands out what has happened; returns at once when nothing has."""
        for key, mask in self._selector.select(0):
            if key.fd in self._selector.get_map() and self._selector.get_map()[key.fd] is key:
                key.data(mask)  # not closed meanwhile by what came before it in this turn

    def close(self) -> None:
        self._selector.close()


class Line:
    """One connection. `open` first, then whatever its owner is told."""

    __slots__ = ("_address", "_is_secure", "_is_up", "_owner", "_server_name", "_sock", "_tls", "_unsent", "_watch")

    def __init__(self, watch: Watch, owner: LineOwner, address: tuple[str, int], tls: SSL.Context | None) -> None:
        self._watch = watch
        self._owner = owner
        self._address = address
        self._unsent = b""
        self._is_up = False
        self._is_secure = False
        self._server_name = ""
        self._sock: socket.socket | None = None
        self._tls = None if tls is None else SSL.Connection(tls, None)

    def open(self, source: str, server_name: str) -> None:
        """`server_name`: whose certificate it must be, a name or an address.

        Raises: OSError where this machine has no socket or port left (see `limit_of`)."""
        sock = socket.socket(socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            bind(sock, source)
            fault = sock.connect_ex(self._address)
            if fault in _LIMITS:
                raise OSError(fault, "no local port")
            self._watch.add(sock, self._ready, selectors.EVENT_READ | selectors.EVENT_WRITE)
        except OSError:
            sock.close()
            raise
        self._sock = sock
        if self._tls is not None:
            self._server_name = server_name
            self._tls.set_connect_state()
            if not _is_address(server_name):
                self._tls.set_tlsext_host_name(server_name.encode())

    def send(self, data: bytes) -> None:
        if self._tls is None:
            self._write(data)
            return
        try:
            self._tls.send(data)
        except SSL.Error as error:
            self._lose(f"TLS: {_text_of(error)}")
            return
        self._flush_tls()

    def close(self, *, abruptly: bool = False) -> None:
        """`abruptly`: as if its power was cut, with a reset."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._watch.remove(sock)
        if abruptly:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        self._tls = None

    def _ready(self, mask: int) -> None:
        if not self._is_up:
            if not self._come_up():
                return
        elif mask & selectors.EVENT_WRITE and self._unsent:
            unsent, self._unsent = self._unsent, b""
            self._write(unsent)
            if not self._unsent and self._sock is not None:
                self._watch.change(self._sock, self._ready, selectors.EVENT_READ)
        if mask & selectors.EVENT_READ and self._sock is not None:
            self._read(self._sock)

    def _come_up(self) -> bool:
        sock = self._sock
        assert sock is not None
        fault = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if fault:
            self._lose(f"cannot connect: {errno.errorcode.get(fault, fault)}")
            return False
        self._is_up = True
        self._watch.change(sock, self._ready, selectors.EVENT_READ)
        if self._tls is None:
            self._owner.line_up()
        else:
            self._shake_hands()
        return self._sock is not None

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"connection lost: {errno.errorcode.get(error.errno or 0, error.errno)}")
            return
        if not data:
            self._lose("connection closed by the core")
        elif self._tls is None:
            self._owner.received(data)
        else:
            self._read_tls(data)

    def _read_tls(self, data: bytes) -> None:
        assert self._tls is not None
        self._tls.bio_write(data)
        if not self._is_secure and not self._shake_hands():
            return
        while self._tls is not None:
            try:
                plain = self._tls.recv(_TLS_PIECE_BYTES)
            except SSL.WantReadError:
                self._flush_tls()
                return
            except SSL.ZeroReturnError:
                self._lose("connection closed by the core")
                return
            except SSL.Error as error:
                self._lose(f"TLS: {_text_of(error)}")
                return
            self._owner.received(plain)

    def _shake_hands(self) -> bool:
        """Whether the handshake is over, well."""
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._flush_tls()
            return False
        except SSL.Error as error:
            self._flush_tls()
            self._lose(f"TLS: {_text_of(error)}")
            return False
        self._flush_tls()
        try:
            verify = verify_ip_address if _is_address(self._server_name) else verify_hostname
            verify(self._tls, self._server_name)
        except (VerificationError, CertificateError):
            self._lose(f"TLS: the certificate is not for {self._server_name}")
            return False
        self._is_secure = True
        self._owner.line_up()
        return self._sock is not None

    def _flush_tls(self) -> None:
        while self._tls is not None:
            try:
                self._write(self._tls.bio_read(_TLS_PIECE_BYTES))
            except SSL.WantReadError:
                return

    def _write(self, data: bytes) -> None:
        sock = self._sock
        if sock is None:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(f"connection lost: {errno.errorcode.get(error.errno or 0, error.errno)}")
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._watch.change(sock, self._ready, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _lose(self, why: str) -> None:
        if self._sock is not None:
            self.close()
            self._owner.line_lost(why)


def limit_of(error: OSError) -> str | None:
    """Which limit of this machine an `open` has met; None for another fault."""
    return _LIMITS.get(error.errno or 0)


def client_context(ca_file: str, certificate_pem: bytes = b"", key_pem: bytes = b"") -> SSL.Context:
    """TLS that verifies the core by `ca_file` (empty: by the CAs of the system). Raises: SSL.Error, OSError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_verify(SSL.VERIFY_PEER, None)
    if ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.set_default_verify_paths()
    if certificate_pem:
        chain = x509.load_pem_x509_certificates(certificate_pem)
        context.use_certificate(chain[0])
        for issuer in chain[1:]:
            context.add_extra_chain_cert(issuer)
        key = load_pem_private_key(key_pem, None)
        context.use_privatekey(key)  # type: ignore[arg-type]  # of a kind that this program has made
    return context


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _text_of(error: SSL.Error) -> str:
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(reasons[0][2]) if reasons else type(error).__name__
