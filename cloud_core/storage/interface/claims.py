"""Offers of devices to whoever shows their claim secret; the secret is kept as a keyed hash."""

from __future__ import annotations

from typing import Protocol


class ReadClaims(Protocol):
    def claim_offer(self, device_id: int) -> tuple[bytes, int] | None:
        """(keyed hash of the secret, ms since the epoch at which the offer ends)."""


class WriteClaims(ReadClaims, Protocol):
    def put_claim_offer(self, device_id: int, *, secret_hash: bytes, expires_ms: int) -> None:
        """In place of any there was."""

    def delete_claim_offer(self, device_id: int) -> None: ...
    def trim_claim_offers(self, before_ms: int) -> None:
        """Forgets those that ended before."""
