"""Devices that show a certificate: whose it is, and whether one that nobody knows yet may come in by its chain.

Source: wire-contract.md sections 1.8, 2.6 and 4.5.
"""

from __future__ import annotations

from cloud_core.model import Identity, Peer, PresentedChain
from cloud_core.storage.interface import Done, Store
from shared.errors import NotAuthenticated


class CertificateLogins:
    """The door for peers that have shown a certificate in a TLS or DTLS handshake."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    def known(self, leaf: bytes) -> Identity | None:
        """The identity of a certificate (DER) that has logged in before; None says: ask `authenticate`."""
        return None

    def authenticate(self, chain: PresentedChain, peer: Peer, done: Done[Identity]) -> None:
        """Who shows this chain. A device that is not known yet is created or matched where a profile says so.

        Refuses by NotAuthenticated (nobody knows it), UntrustedCertificate (no path to a CA, ended, revoked),
        RateLimited, Unavailable or another refusal of provisioning; logged, with a `ref`.
        """
        done(NotAuthenticated())
