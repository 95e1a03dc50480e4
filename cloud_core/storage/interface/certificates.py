"""Certificates of devices, the small CAs of tenants, and which profiles trust which issuers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from cloud_core.model import Authority, DeviceProfile, KnownCertificate, Login, Page


class ReadCertificates(Protocol):
    def certificate(self, fingerprint: bytes) -> KnownCertificate | None:
        """Whatever is known of it; None for one that no device has or had and no authority of ours issued."""

    def former_login(self, fingerprint: bytes, *, now_ms: int) -> Login | None:
        """The device whose former certificate this is, while it still opens its door."""

    def certificates(
        self, tenant_id: int, page: Page, *, ends_before_ms: int | None = None, authority_id: int | None = None
    ) -> tuple[list[KnownCertificate], int]:
        """One page, those that end first foremost, and the number of all that match.

        With `ends_before_ms` only those in use (current and not revoked).
        """

    def revocation_count(self, authority_id: int) -> int:
        """Of all that it has issued, also those that have ended since."""

    def certificates_of_device(self, device_id: int) -> list[KnownCertificate]:
        """Current, former and revoked, in the order they came."""

    def ending_certificates(self, *, from_ms: int, before_ms: int) -> tuple[int, KnownCertificate | None]:
        """How many of those in use, over all tenants, end in that time, and the one that ends first."""

    def certificate_by_serial(self, authority_id: int, serial: str) -> KnownCertificate | None: ...
    def revoked_certificates(self, authority_id: int, *, now_ms: int) -> list[KnownCertificate]:
        """That have not ended by themselves yet: what a revocation list names."""

    def authority(self, tenant_id: int, name: str) -> Authority | None: ...
    def authority_by_uuid(self, uuid: UUID) -> Authority | None: ...
    def authority_by_id(self, authority_id: int) -> Authority | None: ...
    def authorities(self, tenant_id: int) -> list[Authority]: ...
    def every_authority(self) -> list[Authority]:
        """Of all tenants."""

    def profiles_by_issuer(self, name_hashes: Sequence[bytes]) -> list[DeviceProfile]:
        """Profiles that admit by certificate chain and hold a certificate whose subject has one of these hashes
        (`shared.certificates.name_hash`); over all tenants, oldest first."""

    def profiles_called(self, name: str, uuid: UUID | None) -> list[DeviceProfile]:
        """Of any tenant, by either; no more than two, since two are one too many."""

    def chain_profiles(self) -> list[DeviceProfile]:
        """All that admit by certificate chain, over all tenants."""


class WriteCertificates(ReadCertificates, Protocol):
    def record_certificate(
        self,
        der: bytes,
        *,
        tenant_id: int,
        device_id: int | None,
        authority_id: int | None = None,
        now_ms: int,
    ) -> None:
        """Keeps what is known of a certificate; of one that is known already, whose it is now."""

    def revoke_certificate(self, certificate_id: int, *, now_ms: int, reason: str) -> None: ...

    def insert_authority(self, authority: Authority) -> int:
        """Returns its number; its `id` is not looked at."""

    def next_crl_number(self, authority_id: int) -> int: ...
