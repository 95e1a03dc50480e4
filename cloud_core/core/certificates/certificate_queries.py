"""What the store knows of certificates: questions of `certificate_logins`, as plain functions of a transaction."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_core.core.certificates import trust_faults
from cloud_core.model import DeviceProfile, KnownCertificate, Login
from cloud_core.storage.interface import ReadTx
from shared import certificates
from shared.credentials import X509Certificate


@dataclass(frozen=True, slots=True)
class Found:
    """What the store says of a leaf: its login, else the profiles that may know its issuer."""

    login: Login | None
    certificate: KnownCertificate | None
    profiles: list[DeviceProfile]


def find(
    tx: ReadTx, ids: list[str], fingerprint: bytes, name_hashes: list[bytes], now_ms: int, with_profile: bool
) -> Found:
    """`with_profile`: of a known certificate the profile of its device, which says how revocation is looked at."""
    certificate = tx.certificate(fingerprint)
    login = _registered(tx, ids)
    if login is None and certificate is not None and certificate.until_ms is not None:
        login = tx.former_login(fingerprint, now_ms=now_ms)
    if login is None:
        return Found(None, certificate, tx.profiles_by_issuer(name_hashes))
    device = tx.device_by_id(login.identity.device_id) if with_profile else None
    profile = tx.profile(device.tenant_id, device.profile_uuid) if device is not None else None
    return Found(login, certificate, [profile] if profile is not None else [])


def _registered(tx: ReadTx, ids: list[str]) -> Login | None:
    """One id after the other: nearly always the first answers."""
    for one in ids:
        login = tx.logins([one])[0]
        if login is not None and isinstance(login.credentials, X509Certificate):
            return login
    return None


def anchors(tx: ReadTx) -> list[bytes]:
    found: dict[bytes, None] = {}
    for profile in tx.chain_profiles():
        anchor, *helpers = certificates.load_all(profile.provision.secret)
        found.update(dict.fromkeys(certificates.der(one) for one in (anchor, *trust_faults.rooted(anchor, helpers))))
    found.update(dict.fromkeys(authority.chain[0] for authority in tx.every_authority()))
    return list(found)
