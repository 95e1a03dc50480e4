"""TLS and DTLS contexts: the server's certificate, what clients may show, and new files without a restart.

Any client certificate is taken in the handshake: TLS proves that the peer has its key, `core.trust` decides whom it
opens a door to. The handshake has no side effect and never waits.

Source: wire-contract.md sections 1.8, 2.6 and 4.5; engineering.md section 3.4.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from cloud_core.model import PresentedChain

SESSION_CONTEXT = b"muster"  # sessions are resumed within one program only
# Forward secrecy and authenticated encryption alone (TLS 1.2 and DTLS 1.2; TLS 1.3 has nothing else).
CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"


class TlsFailed(Exception):
    """`str()` is one sentence for the user: which file, what is wrong with it."""


class ServerTls:
    """The server's key pair, and every context made from it."""

    def __init__(self, *, certificate: Path, private_key: Path) -> None:
        self.certificate = certificate
        self.private_key = private_key
        self._contexts: list[SSL.Context] = []

    def context(self, method: int) -> SSL.Context:
        """A context for `SSL.TLS_SERVER_METHOD` or `SSL.DTLS_SERVER_METHOD`; `reload` renews it in place.

        Raises: TlsFailed.
        """
        context = SSL.Context(method)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(CIPHERS)
        context.set_session_id(SESSION_CONTEXT)
        context.set_verify(SSL.VERIFY_PEER, _take_any)
        self._load(context)
        self._contexts.append(context)
        return context

    def _load(self, context: SSL.Context) -> None:
        try:
            context.use_certificate_chain_file(str(self.certificate))
            context.use_privatekey_file(str(self.private_key))
            context.check_privatekey()
        except SSL.Error as error:
            raise TlsFailed(
                f"Cannot use the certificate {self.certificate} with the key {self.private_key}."
            ) from error


def _take_any(_connection: SSL.Connection, _certificate: crypto.X509, _error: int, _depth: int, _is_ok: int) -> bool:
    return True


def chain_of(connection: SSL.Connection) -> PresentedChain | None:
    """What the peer of a finished handshake showed; None when it showed no certificate."""
    leaf = connection.get_peer_certificate(as_cryptography=True)
    if leaf is None:
        return None
    others = connection.get_peer_cert_chain(as_cryptography=True) or []
    der = leaf.public_bytes(Encoding.DER)
    shown = [one.public_bytes(Encoding.DER) for one in others]
    return PresentedChain(der, tuple(one for one in shown if one != der))
