"""Whose credentials are: nobody else may have them."""

from __future__ import annotations

import re

from cloud_core.storage.interface import ReadTx
from shared import certificates
from shared.certificates import MalformedCertificate
from shared.credentials import Credentials, X509Certificate, credentials_id, sha3_id

_FINGERPRINT = re.compile(r"[0-9a-fA-F]{64}")


def holder(tx: ReadTx, credentials: Credentials, now_ms: int) -> int | None:
    """The device that these credentials open; a former certificate counts as long as it still opens its door.

    A certificate and its fingerprint, in each of the ways to write it, are the same credentials.
    """
    owner = tx.credentials_owner(credentials_id(credentials))
    if owner is not None or not isinstance(credentials, X509Certificate):
        return owner
    fingerprint = _fingerprint_of(credentials.certificate)
    if fingerprint is None:
        return None
    for text in certificates.spellings_of(fingerprint):
        owner = tx.credentials_owner(sha3_id(text))
        if owner is not None:
            return owner
    known = tx.certificate(fingerprint)
    if known is not None and known.until_ms is None:
        return known.device_id
    former = tx.former_login(fingerprint, now_ms=now_ms)
    return former.identity.device_id if former is not None else None


def _fingerprint_of(text: str) -> bytes | None:
    """None for an opaque text, as the specification sends it."""
    digits = text.replace(":", "")
    if _FINGERPRINT.fullmatch(digits):
        return bytes.fromhex(digits)
    try:
        return certificates.fingerprint(certificates.der_of(text))
    except MalformedCertificate:
        return None
