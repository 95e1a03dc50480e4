"""Building certificates and revocation lists: pure functions of keys, names and times.

Who may have a certificate, and how long, is decided in `authorities`; here stands what it looks like.

Source: RFC 5280 sections 4 and 5; RFC 2986 (signing requests).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    pkcs7,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_core.entropy import random_bits
from cloud_core.model import KnownCertificate
from shared import certificates

SLOW_CLOCK = timedelta(minutes=5)  # a device whose clock is behind by this much takes its new certificate
CRL_LIFE = timedelta(days=7)
MAX_COMMON_NAME_BYTES = 64  # X.520 ub-common-name
DEVICE_URI = "urn:muster:device:"
MAX_CACHED_SIGNERS = 64
CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}
_SERIAL_BITS = 128

CaKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

# By the names of RFC 5280 section 5.3.1. Without certificateHold and removeFromCRL: nothing here takes one back.
REASONS: dict[str, x509.ReasonFlags] = {
    one.value: one
    for one in (
        x509.ReasonFlags.unspecified, x509.ReasonFlags.key_compromise, x509.ReasonFlags.ca_compromise,
        x509.ReasonFlags.affiliation_changed, x509.ReasonFlags.superseded, x509.ReasonFlags.cessation_of_operation,
        x509.ReasonFlags.privilege_withdrawn, x509.ReasonFlags.aa_compromise,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signer:
    """A CA ready to sign."""

    certificate: x509.Certificate
    key: CaKey = field(repr=False)
    chain_pem: str  # its own certificate, then its issuers
    key_id: x509.AuthorityKeyIdentifier

    @property
    def hash(self) -> hashes.SHA256 | hashes.SHA384:
        is_large = isinstance(self.key, ec.EllipticCurvePrivateKey) and self.key.key_size >= 384
        return hashes.SHA384() if is_large else hashes.SHA256()


@lru_cache(maxsize=MAX_CACHED_SIGNERS)
def signer_of(chain: tuple[bytes, ...], key: bytes) -> Signer:
    """The CA of a chain (DER, its own certificate first) and a key (PKCS#8 DER); opening a key costs as much as
    signing with it, so the last few are remembered."""
    loaded = [certificates.load(one) for one in chain]
    private = load_der_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey), "checked when it was made or taken over"
    own = loaded[0]
    return Signer(own, private, "".join(map(certificates.pem, loaded)), _key_id_of(own))


def _key_id_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """As the issuer calls its key (RFC 5280 section 4.2.1.1)."""
    try:
        named = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(named.value)


def make_root(name: str, curve: str, *, now_ms: int, years: int) -> tuple[bytes, bytes]:
    """A new self-signed CA that issues to devices alone: (DER of its certificate, PKCS#8 DER of its key)."""
    key = ec.generate_private_key(CURVES[curve]())
    subject = _named(name)
    begin = at(now_ms) - SLOW_CLOCK
    builder = _begun(subject, subject, key.public_key(), begin, _years_later(begin, years))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    signed = builder.sign(key, hashes.SHA384() if key.key_size >= 384 else hashes.SHA256())
    return certificates.der(signed), key_der(key)


def key_der(key: CaKey) -> bytes:
    """PKCS#8, not encrypted."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def sign_device(
    signer: Signer, public_key: PublicKey, name: str, *, now_ms: int, days: int, crl_url: str = ""
) -> x509.Certificate:
    """A certificate with which the device `name` logs in. It ends no later than its CA."""
    now = at(now_ms)
    end = min(now + timedelta(days=days), signer.certificate.not_valid_after_utc)
    subject = _named(common_name_for(name))
    builder = _begun(subject, signer.certificate.subject, public_key, now - SLOW_CLOCK, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    builder = builder.add_extension(signer.key_id, critical=False)
    if common_name_for(name) != name:
        uri = x509.UniformResourceIdentifier(DEVICE_URI + quote(name, safe=""))
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    if crl_url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl_url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    return builder.sign(signer.key, signer.hash)


def common_name_for(name: str) -> str:
    """The CN of a device: its name, as long as X.520 lets it be.

    A longer name is cut and made unambiguous by a hash of the whole, which then stands as a URI in the SAN.
    """
    written = name.encode()
    if len(written) <= MAX_COMMON_NAME_BYTES:
        return name
    mark = "#" + hashlib.sha256(written).hexdigest()[:16]
    return written[: MAX_COMMON_NAME_BYTES - len(mark)].decode(errors="ignore") + mark


def make_crl(
    signer: Signer, revoked: Sequence[KnownCertificate], *, number: int, now_ms: int
) -> x509.CertificateRevocationList:
    """Version 2 list of `revoked`, the `number`-th of this CA."""
    now = at(now_ms)
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=signer.certificate.subject,
        revoked_certificates=[_entry(one, now_ms) for one in revoked],  # one by one each would copy all before it
    )
    builder = builder.last_update(now - SLOW_CLOCK).next_update(now + CRL_LIFE)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    builder = builder.add_extension(signer.key_id, critical=False)
    return builder.sign(signer.key, signer.hash)


def _entry(one: KnownCertificate, now_ms: int) -> x509.RevokedCertificate:
    revoked_ms = now_ms if one.revoked_ms is None else one.revoked_ms
    entry = x509.RevokedCertificateBuilder().serial_number(int(one.serial, 16)).revocation_date(at(revoked_ms))
    reason = REASONS.get(one.revocation_reason, x509.ReasonFlags.unspecified)
    if reason is not x509.ReasonFlags.unspecified:  # which is said by saying nothing (RFC 5280 section 5.3.1)
        entry = entry.add_extension(x509.CRLReason(reason), critical=False)
    return entry.build()


def at(now_ms: int) -> datetime:
    """The second, in UTC: certificates know no smaller unit."""
    return datetime.fromtimestamp(now_ms // 1000, UTC)


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _begun(
    subject: x509.Name, issuer: x509.Name, public_key: PublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer, subject_name=subject, public_key=public_key,
        serial_number=random_bits(_SERIAL_BITS) or 1, not_valid_before=begin.replace(tzinfo=None),
        not_valid_after=end.replace(tzinfo=None),
    )  # fmt: skip


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature, key_cert_sign=key_cert_sign, crl_sign=crl_sign,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _years_later(begin: datetime, years: int) -> datetime:
    try:
        return begin.replace(year=begin.year + years)
    except ValueError:  # 29 February
        return begin.replace(year=begin.year + years, day=28)


def crl_der(crl: x509.CertificateRevocationList) -> bytes:
    return crl.public_bytes(Encoding.DER)


def certificates_only(found: Sequence[bytes]) -> bytes:
    """DER of a PKCS#7 that holds nothing but these certificates (DER); its order is not theirs."""
    return pkcs7.serialize_certificates([certificates.load(one) for one in found], Encoding.DER)
