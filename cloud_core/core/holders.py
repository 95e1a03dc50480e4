"""Whose credentials are: nobody else may have them."""

from __future__ import annotations

from cloud_core.storage.interface import ReadTx
from shared import certificates
from shared.certificates import MalformedCertificate
from shared.credentials import Credentials, X509Certificate, credentials_id


def holder(tx: ReadTx, credentials: Credentials, now_ms: int) -> int | None:
    """The device that these credentials open; a former certificate counts as long as it still opens its door."""
    owner = tx.credentials_owner(credentials_id(credentials))
    if owner is not None or not isinstance(credentials, X509Certificate):
        return owner
    try:
        fingerprint = certificates.fingerprint(certificates.der_of(credentials.certificate))
    except MalformedCertificate:
        return None  # a mere fingerprint, or another opaque text
    former = tx.former_login(fingerprint, now_ms=now_ms)
    return former.identity.device_id if former is not None else None
