"""Certificate logins for tests of what comes after them: whose a certificate is, by the store alone."""

from __future__ import annotations

from typing import Any

from cloud_core.core.api import DeviceApi
from cloud_core.model import Identity, Peer, PresentedChain
from shared import certificates
from shared.credentials import sha3_id
from shared.errors import NotAuthenticated


class CertificatesByStore:
    """Stands for `CertificateLogins`: current certificates, and former ones in their time; no chains."""

    def __init__(self, api: DeviceApi, store: Any) -> None:
        self._api = api
        self._store = store

    def authenticate(self, chain: PresentedChain, peer: Peer, done: Any) -> None:
        self._store.read(_identity, (chain.leaf, self._api.now_ms()), done)

    def forget(self, device_id: int) -> None:
        """Nothing is remembered here."""

    def anchors_changed(self) -> None:
        """Nobody here verifies against them."""


def _identity(tx: Any, leaf: bytes, now_ms: int) -> Identity:
    login = tx.logins([sha3_id(certificates.certificate_text(leaf))])[0]
    former = login or tx.former_login(certificates.fingerprint(leaf), now_ms=now_ms)
    if former is None:
        raise NotAuthenticated
    identity: Identity = former.identity
    return identity
