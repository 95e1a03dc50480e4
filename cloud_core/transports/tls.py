"""TLS and DTLS contexts: the server's certificate, what clients may show, and new files without a restart.

Any client certificate is taken in the handshake, unless `is_strict`: TLS proves that the peer has its key,
`core.trust` decides whom it opens a door to. The handshake has no side effect and never waits.

A context cannot be changed once it is used. What is handed out stays therefore as it is, with its keys for session
tickets, and moves each new connection to the newest context of its kind while it greets. Open ones notice nothing.

Source: wire-contract.md sections 1.8, 2.6 and 4.5; engineering.md section 3.4.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.logger import Logger

from cloud_core.model import PresentedChain
from cloud_core.transports.tls_faults import note_verdict
from shared import certificates

log = Logger()

SESSION_CONTEXT = b"muster"  # sessions are resumed within one program only
RESUMABLE_S = 7_200  # how long after its handshake a session may be resumed
# Forward secrecy and authenticated encryption alone (TLS 1.2 and DTLS 1.2; TLS 1.3 has nothing else).
CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"
# Small devices often have AES in hardware, and CCM instead of GCM. (CCM_8, which RFC 7252 section 9.1.3.3 names, has
# tags of 64 bits and would lower OpenSSL's security level for everybody.)
DTLS_CIPHERS = CIPHERS + b":ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES256-CCM"
GROUPS = b"X25519:P-256:P-384"
MAX_PATH = 10  # certificates above the leaf, where we have OpenSSL verify
EXPIRES_SOON_MS = 30 * 86_400_000
MAX_FILE_BYTES = 1_048_576
MAX_REMEMBERED_BYTES = 16 << 20  # of what is kept for resumed sessions: about ten thousand devices
MAX_REMEMBERED_BYTES_OF_ONE = 16_384


class TlsFailed(Exception):
    """`str()` is one sentence for the user: which file, what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What the server shows; times in ms since the epoch."""

    subject: str
    not_before_ms: int
    not_after_ms: int


@dataclass(frozen=True, slots=True)
class _Pair:
    """Key and certificates as read, the server's own first."""

    chain: tuple[x509.Certificate, ...]
    key: Any  # one of cryptography's private keys

    @property
    def shown(self) -> ServerCertificate:
        own = self.chain[0]
        return ServerCertificate(
            certificates.name_text(own.subject), certificates.not_before_ms(own), certificates.not_after_ms(own)
        )


class ServerTls:
    """The server's key pair, and every context made from it."""

    def __init__(self, *, certificate: Path, private_key: Path, is_strict: bool = False) -> None:
        """`is_strict`: clients show no certificate, or one that leads to one of the anchors given to `trust`.

        They show it with each connection: strict servers resume no session.
        """
        self.certificate = certificate
        self.private_key = private_key
        self.is_strict = is_strict
        self._pair: _Pair | None = None
        self._stamp: object = None  # of the files as they are in use, or were refused
        self._changed_stamp: object = None  # of files that are new, and may still be being written
        self._anchors: tuple[x509.Certificate, ...] = ()
        self._newest: dict[int, SSL.Context] = {}  # method -> what new connections use

    def context(self, method: int) -> SSL.Context:
        """A context for `SSL.TLS_SERVER_METHOD` or `SSL.DTLS_SERVER_METHOD`; its connections get what is newest.

        Raises: TlsFailed.
        """
        if self._pair is None:
            self._stamp = self._stamp_of_files()
            self._pair = _read(self.certificate, self.private_key)
        context = self._make(method, self._pair)
        self._newest.setdefault(method, context)

        def switch(connection: SSL.Connection) -> None:
            newest = self._newest[method]
            if newest is not context:
                connection.set_context(newest)

        context.set_tlsext_servername_callback(switch)
        return context

    # -- what changes -----------------------------------------------------------------------------

    def reload(self) -> bool:
        """Takes the files as they are now. A pair that cannot be used is refused with a line in the log."""
        self._stamp = self._stamp_of_files()
        try:
            pair = _read(self.certificate, self.private_key)
            renewed = {method: self._make(method, pair) for method in self._newest}
        except TlsFailed as error:
            log.error("The new server certificate is not taken, the former stays: {error}", error=str(error))
            return False
        self._pair, self._newest = pair, renewed
        self.report(now_ms())
        return True

    def reload_if_changed(self) -> bool:
        """Called every few seconds: takes files that are new, and have not changed since the last call."""
        stamp = self._stamp_of_files()
        if stamp == self._stamp:
            self._changed_stamp = None
            return False
        if stamp != self._changed_stamp:
            self._changed_stamp = stamp
            return False
        return self.reload()

    def trust(self, anchors: Sequence[bytes]) -> None:
        """The certificates (DER) that a client's has to lead to where that is strict; unreadable ones do not count."""
        loaded = []
        for one in anchors:
            try:
                loaded.append(certificates.load(one))
            except certificates.MalformedCertificate as error:
                log.warn("A CA cannot be used for TLS: {error}", error=str(error))
        self._anchors = tuple(loaded)
        if self.is_strict and self._pair is not None:
            self._newest = {method: self._make(method, self._pair) for method in self._newest}

    # -- for overview and log ---------------------------------------------------------------------

    def expiry(self) -> ServerCertificate | None:
        """What is shown to new clients; None before the first context."""
        return None if self._pair is None else self._pair.shown

    def report(self, now_ms: int) -> None:
        """One line: whose the certificate is and when it ends; a warning when that is soon, or wrong now."""
        shown = self.expiry()
        if shown is None:
            return
        members = {"subject": shown.subject, "end": _date(shown.not_after_ms), "file": str(self.certificate)}
        if now_ms >= shown.not_after_ms:
            log.error("The server certificate {subject} has ended on {end}; clients refuse it: renew {file}", **members)
        elif now_ms < shown.not_before_ms:
            log.error(
                "The server certificate {subject} is valid only from {begin}; clients refuse it until then",
                begin=_date(shown.not_before_ms), **members,
            )  # fmt: skip
        elif now_ms >= shown.not_after_ms - EXPIRES_SOON_MS:
            log.warn("The server certificate {subject} ends on {end}: renew {file} soon", **members)
        else:
            log.info("Server certificate: {subject}, valid until {end}", **members)

    # -- inside -----------------------------------------------------------------------------------

    def _make(self, method: int, pair: _Pair) -> SSL.Context:
        context = SSL.Context(method)
        if method == SSL.TLS_SERVER_METHOD:
            context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(CIPHERS if method == SSL.TLS_SERVER_METHOD else DTLS_CIPHERS)
        _set_groups(context)
        context.set_session_id(SESSION_CONTEXT)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # tickets: the client keeps what it wants to resume
        context.set_timeout(RESUMABLE_S)
        if self.is_strict:
            # A resumed session passes unlooked at, by tickets of the first context, whatever has changed since.
            context.set_options(SSL.OP_NO_TICKET)
            self._verify(context)
        else:
            context.set_verify_depth(0)  # no work on signatures that nobody asks about
            context.set_verify(SSL.VERIFY_PEER, _take_any)
        _load(context, pair, self.certificate, self.private_key)
        return context

    def _verify(self, context: SSL.Context) -> None:
        store = context.get_cert_store()
        assert store is not None, "every context has one"
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # an anchor need not be a root
        for anchor in self._anchors:
            store.add_cert(crypto.X509.from_cryptography(anchor))
        context.set_verify_depth(MAX_PATH)
        context.set_verify(SSL.VERIFY_PEER, _as_openssl_says)

    def _stamp_of_files(self) -> object:
        return tuple(_stamp(path) for path in (self.certificate, self.private_key))


def now_ms() -> int:
    """The server's time, by which certificates are valid."""
    return int(time.time() * 1000)


def _read(certificate: Path, private_key: Path) -> _Pair:
    """Reads and checks the two files. Raises: TlsFailed."""
    try:
        chain = tuple(x509.load_pem_x509_certificates(_content(certificate)))
    except ValueError as error:
        raise TlsFailed(f"{certificate} holds no PEM certificate.") from error
    try:
        key = load_pem_private_key(_content(private_key), None)
    except TypeError as error:
        raise TlsFailed(f"The private key {private_key} is encrypted; store it without a password.") from error
    except Exception as error:  # of several kinds, by what is wrong with the bytes
        raise TlsFailed(f"{private_key} holds no PEM private key that can be used.") from error
    try:
        is_pair = _spki(key.public_key()) == _spki(chain[0].public_key())
    except (UnsupportedAlgorithm, ValueError) as error:
        raise TlsFailed(f"{certificate} has a kind of key that cannot be used here; take one for P-256.") from error
    if not is_pair:
        raise TlsFailed(
            f"The key {private_key} does not belong to the certificate {certificate}"
            " (the server's own must stand first in it)."
        )
    return _Pair(chain, key)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise TlsFailed(f"Cannot read {path}: {error.strerror}.") from error


def _spki(key: Any) -> bytes:
    spki: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return spki


def _load(context: SSL.Context, pair: _Pair, certificate: Path, private_key: Path) -> None:
    """Raises: TlsFailed."""
    try:
        context.use_certificate(pair.chain[0])
        for one in pair.chain[1:]:
            context.add_extra_chain_cert(one)
        context.use_privatekey(pair.key)
        context.check_privatekey()
    except (SSL.Error, crypto.Error, TypeError) as error:
        raise TlsFailed(
            f"Cannot use the certificate {certificate} with the key {private_key}: {_first_reason(error)}."
        ) from error


def _first_reason(error: Exception) -> str:
    queue = error.args[0] if error.args else None
    return str(queue[0][2]) if isinstance(queue, list) and queue else str(error)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _set_groups(context: SSL.Context) -> None:
    """pyOpenSSL has no public way to name more than one; without its library's function OpenSSL's defaults hold."""
    library: Any = SSL._lib  # type: ignore[attr-defined]
    set_groups: Callable[[object, bytes], int] | None = getattr(library, "SSL_CTX_set1_curves_list", None)
    if set_groups is not None:
        set_groups(context._context, GROUPS)


def _date(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000):%Y-%m-%d}"


def _take_any(_connection: SSL.Connection, _certificate: crypto.X509, _error: int, _depth: int, _is_ok: int) -> bool:
    return True


def _as_openssl_says(
    connection: SSL.Connection, _certificate: crypto.X509, error: int, _depth: int, is_ok: int
) -> bool:
    if not is_ok:
        note_verdict(connection, error)
    return bool(is_ok)


class Intermediates:
    """What devices show beside their own certificate, for the sessions that they resume: TLS leaves it out there.

    Without it a resumed session would not lead to a CA that the full handshake led to. By leaf, bounded in bytes,
    what was used least lately goes first; who is forgotten has its leaf alone.
    """

    def __init__(self, max_bytes: int = MAX_REMEMBERED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._by_leaf: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()

    def remember(self, leaf: bytes, others: tuple[bytes, ...]) -> None:
        """Of a full handshake."""
        key = sha256(leaf).digest()
        self._bytes -= sum(map(len, self._by_leaf.pop(key, ())))
        if not others or (size := sum(map(len, others))) > MAX_REMEMBERED_BYTES_OF_ONE:
            return
        self._by_leaf[key] = others
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= sum(map(len, self._by_leaf.popitem(last=False)[1]))

    def of(self, leaf: bytes) -> tuple[bytes, ...]:
        key = sha256(leaf).digest()
        if key not in self._by_leaf:
            return ()
        self._by_leaf.move_to_end(key)
        return self._by_leaf[key]


_intermediates = Intermediates()  # one for all ports, as sessions are


def chain_of(connection: SSL.Connection) -> PresentedChain | None:
    """What the peer of a finished handshake showed, now or when the session began; None without a certificate."""
    leaf = connection.get_peer_certificate()
    if leaf is None:
        return None
    der = _der(leaf)
    shown = connection.get_peer_cert_chain()
    if shown is None:  # resumed
        return PresentedChain(der, _intermediates.of(der))
    others = tuple(other for one in shown if (other := _der(one)) != der)
    _intermediates.remember(der, others)
    return PresentedChain(der, others)


def _der(certificate: crypto.X509) -> bytes:
    """As it came; by way of cryptography's own objects it would be parsed first, and take three times as long."""
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
