"""Certificate revocation lists: whether one may be believed, and what it says. No network, no clock.

Not taken: indirect lists, delta lists, lists of some reasons only, lists for another place than where they were found
(somebody could exchange the parts of a split list), and signatures below SHA-256.

Source: RFC 5280 sections 5 and 6.3.3.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from cloud_core.core.certificates import trust_faults

MAX_LISTS = 16  # in one PEM file
SKEW = timedelta(minutes=5)  # a list may be as much younger than our clock
UNSTATED = timedelta(days=1)  # so long a list without an end is believed
_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----[^-]*-----END X509 CRL-----")
_LOW = (1 << 64) - 1
_UNDERSTOOD = frozenset((x509.IssuingDistributionPoint.oid, x509.CRLNumber.oid, x509.AuthorityKeyIdentifier.oid))


class StatusUnusable(Exception):
    """No status can be had from this answer; `str()` is the reason, for people, without any address."""


@dataclass(frozen=True, slots=True)
class Revoked:
    at: datetime
    reason: str  # as in cryptography's ReasonFlags; empty: not stated


class RevocationList:
    """A list that was found good for what one CA has issued."""

    def __init__(self, crl: x509.CertificateRevocationList, until: datetime, raw_bytes: int) -> None:
        self.until = until
        # Looking a serial up in the list itself reads all of it: 6 ms for 100,000 entries.
        self._low_halves = array("Q", sorted(one.serial_number & _LOW for one in crl))
        self._crl = crl
        self.bytes = raw_bytes + 8 * len(self._low_halves)

    def status(self, certificate: x509.Certificate) -> Revoked | None:
        """Of a certificate of that CA; None: it is not on the list."""
        low = certificate.serial_number & _LOW
        position = bisect_left(self._low_halves, low)
        if position == len(self._low_halves) or self._low_halves[position] != low:
            return None
        entry = self._crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
        return None if entry is None else Revoked(entry.revocation_date_utc, _reason(entry))


def urls_of(certificate: x509.Certificate) -> list[str]:
    """Where the certificate says that its issuer's whole list is; http and https alone."""
    points = trust_faults.extension(certificate, x509.CRLDistributionPoints) or ()
    return [
        name.value
        for point in points
        if point.reasons is None and point.crl_issuer is None
        for name in point.full_name or ()
        if isinstance(name, x509.UniformResourceIdentifier) and is_web_address(name.value)
    ]


def is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and url.isascii() and url.isprintable()
    except ValueError:
        return False


def read(
    raw: bytes, issuer: x509.Certificate, places: Iterable[str], now: datetime, *, is_about_cas: bool
) -> RevocationList:
    """The list of `issuer` in a file of DER or PEM, which may hold those of several CAs.

    `places`: the addresses where it may be found. Raises: StatusUnusable.
    """
    try:
        return _read(raw, issuer, set(places), now, is_about_cas=is_about_cas)
    except StatusUnusable:
        raise
    except Exception as error:  # of several kinds, by what is wrong with the bytes: parts of it are read late
        raise StatusUnusable("its answer is no revocation list") from error


def _read(
    raw: bytes, issuer: x509.Certificate, places: set[str], now: datetime, *, is_about_cas: bool
) -> RevocationList:
    lists = [one for one in _load(raw) if one.issuer == issuer.subject]
    if not lists:
        raise StatusUnusable("its list is by another CA")
    refused = StatusUnusable("it has no list")
    for one in lists:  # several where the CA has a new key, or a split list
        try:
            _check(one, issuer, now)
            _check_scope(one, places, is_about_cas)
        except StatusUnusable as error:
            refused = error
            continue
        return RevocationList(one, one.next_update_utc or one.last_update_utc + UNSTATED, len(raw))
    raise refused


def _load(raw: bytes) -> list[x509.CertificateRevocationList]:
    blocks = _BLOCK.findall(raw)
    if len(blocks) > MAX_LISTS:
        raise StatusUnusable(f"its file has more than {MAX_LISTS} lists")
    return [x509.load_pem_x509_crl(one) for one in blocks] if blocks else [x509.load_der_x509_crl(raw)]


def _check(crl: x509.CertificateRevocationList, issuer: x509.Certificate, now: datetime) -> None:
    """Raises: StatusUnusable."""
    usage = trust_faults.extension(issuer, x509.KeyUsage)
    if usage and not usage.crl_sign:
        raise StatusUnusable("the keyUsage of the CA lacks cRLSign")
    if crl.last_update_utc > now + SKEW:
        raise StatusUnusable("its list is from the future")
    if now > (crl.next_update_utc or crl.last_update_utc + UNSTATED):
        raise StatusUnusable("its list is out of date")
    if any(one.critical and one.oid not in _UNDERSTOOD for one in crl.extensions) or _has(crl, x509.DeltaCRLIndicator):
        raise StatusUnusable("its list is of a kind that is not understood here")
    if not _is_signed(crl, issuer):
        raise StatusUnusable("the signature of its list is not by the CA")


def _check_scope(crl: x509.CertificateRevocationList, places: set[str], is_about_cas: bool) -> None:
    """Raises: StatusUnusable."""
    scope = _scope(crl)
    if scope is None:
        return
    if scope.only_contains_user_certs if is_about_cas else scope.only_contains_ca_certs:
        raise StatusUnusable("its list is about other kinds of certificates")
    if scope.indirect_crl:
        raise StatusUnusable("its list is an indirect one, which is not understood here")
    if scope.only_some_reasons or scope.only_contains_attribute_certs or scope.relative_name:
        raise StatusUnusable("its list is not about all revocations")
    names = {one.value for one in scope.full_name or () if isinstance(one, x509.UniformResourceIdentifier)}
    if scope.full_name and not names & places:
        raise StatusUnusable("its list is another part of the CA's than the certificate names")


def _is_signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        used = crl.signature_hash_algorithm
        if trust_faults.key_fault(issuer) or used is None or used.name not in trust_faults.HASHES:
            return False
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # key_fault: RSA or a curve
    except (UnsupportedAlgorithm, TypeError, ValueError):
        return False


def _scope(crl: x509.CertificateRevocationList) -> x509.IssuingDistributionPoint | None:
    try:
        return crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return None


def _has(crl: x509.CertificateRevocationList, kind: type[x509.ExtensionType]) -> bool:
    return any(isinstance(one.value, kind) for one in crl.extensions)


def _reason(entry: x509.RevokedCertificate) -> str:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except (x509.ExtensionNotFound, ValueError):
        return ""
