"""Secrets in memory."""

from __future__ import annotations

from edge_gateway.model import Credentials


class KeyringInMemory:
    """Survives a restart of the agent when a test hands it on."""

    def __init__(self, credentials: Credentials | None = None, proposed: Credentials | None = None) -> None:
        self.saved = credentials
        self.asked = proposed

    def credentials(self) -> Credentials | None:
        return self.saved

    def proposed(self) -> Credentials | None:
        return self.asked

    def propose(self, credentials: Credentials) -> None:
        self.asked = credentials

    def save(self, credentials: Credentials) -> None:
        self.saved, self.asked = credentials, None

    def discard(self) -> None:
        self.saved = self.asked = None

    def certificate_pem(self) -> str:
        return "-----BEGIN CERTIFICATE-----"
