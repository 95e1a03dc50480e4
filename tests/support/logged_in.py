"""Certificate logins for tests of what comes after them: whose a certificate is, by the store alone."""

from __future__ import annotations

from typing import Any

from cloud_core.core.api import DeviceApi
from cloud_core.model import Identity, Peer, PresentedChain, PresentedCredentials
from shared.certificates import fingerprint
from shared.errors import NotAuthenticated, PlatformError


class CertificatesByStore:
    """Stands for `CertificateLogins`: current certificates, and former ones in their time; no chains."""

    def __init__(self, api: DeviceApi, store: Any) -> None:
        self._api = api
        self._store = store

    def authenticate(self, chain: PresentedChain, peer: Peer, done: Any) -> None:
        def looked_up(outcome: Identity | PlatformError) -> None:
            if not isinstance(outcome, NotAuthenticated):
                done(outcome)
                return
            former = (fingerprint(chain.leaf), self._api.now_ms())
            self._store.read(
                lambda tx: tx.former_login(former[0], now_ms=former[1]),
                (),
                lambda login: done(NotAuthenticated() if login is None else login.identity),
            )

        self._api.authenticate(PresentedCredentials(chain=chain), looked_up)
