"""X.509 certificates as devices and operators write them: PEM, base64 and DER; their names and fingerprints.

ThingsBoard's *certificate text* is the base64 of the DER without markers and line breaks; `credentials.sha3_id` of it
is the `credentialsId`. Nothing here says whether a certificate is trusted.

Source: wire-contract.md section 1.7.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from shared.credentials import strip_pem

MAX_CERTIFICATE_BYTES = 12_288  # DER; the text of one has then at most MAX_CERTIFICATE_CHARS characters
MAX_CERTIFICATES = 64  # of one PEM text
MAX_NAME_CHARS = 1_000
_BEGIN = "-----BEGIN CERTIFICATE-----"
_BLOCK = re.compile(_BEGIN + "([^-]*)-----END CERTIFICATE-----")


class MalformedCertificate(ValueError):
    """`str()` says what is wrong, in words for whoever sent it; quotes nothing of the input."""


def certificate_text(der: bytes) -> str:
    """ThingsBoard's form: base64 of the DER on one line."""
    return base64.b64encode(der).decode("ascii")


def der_of(text: str) -> bytes:
    """The DER of one certificate given as PEM or as base64 text; the first one where there are several.

    Raises: MalformedCertificate. That the bytes are a certificate is not checked: see `load`.
    """
    block = _BLOCK.search(text)
    body = "".join((block.group(1) if block else strip_pem(text)).split())
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedCertificate("The certificate is neither PEM nor base64.") from error


def load(der: bytes) -> x509.Certificate:
    """A certificate of which every part can be read: the library reads them late, and this is where they are to fail.

    Raises: MalformedCertificate.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise MalformedCertificate(f"The certificate is above {MAX_CERTIFICATE_BYTES} bytes.")
    try:
        certificate = x509.load_der_x509_certificate(der)
    except Exception as error:  # of several kinds, by what is wrong with the bytes
        raise MalformedCertificate("The bytes are no X.509 certificate.") from error
    try:
        certificate.public_key()
        _ = certificate.subject, certificate.issuer, certificate.extensions, certificate.signature_algorithm_oid
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except Exception as error:
        raise MalformedCertificate(
            "The key, a name, a date or an extension of the certificate is unreadable."
        ) from error
    return certificate


def load_all(pem: str) -> list[x509.Certificate]:
    """Every certificate of a PEM text in its order, or the one of a base64 text. Raises: MalformedCertificate."""
    blocks = _BLOCK.findall(pem)
    if len(blocks) != pem.count(_BEGIN):
        raise MalformedCertificate("A certificate of the PEM text has no end, or has other signs than base64.")
    if len(blocks) > MAX_CERTIFICATES:
        raise MalformedCertificate(f"The PEM text has more than {MAX_CERTIFICATES} certificates.")
    return [load(der_of(one)) for one in blocks or [pem]]


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def common_name(certificate: x509.Certificate) -> str:
    """The first CN of the subject; empty where there is none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def name_text(name: x509.Name, max_chars: int = MAX_NAME_CHARS) -> str:
    """RFC 4514's form on one line, cut: it stands in logs and on terminals, whoever has made it up."""
    text = name.rfc4514_string()[:max_chars]
    return "".join(one if one.isprintable() else "?" for one in text)


def fingerprint(der: bytes) -> bytes:
    """SHA-256 over the DER."""
    return hashlib.sha256(der).digest()


def fingerprint_texts(der: bytes) -> tuple[str, ...]:
    """The fingerprint in the ways people write it: hex in both cases, without and with colons."""
    return spellings_of(fingerprint(der))


def spellings_of(fingerprint: bytes) -> tuple[str, ...]:
    """Those of `fingerprint_texts`."""
    plain, colons = fingerprint.hex(), fingerprint.hex(":")
    return plain, plain.upper(), colons, colons.upper()


def key_hash(certificate: x509.Certificate) -> bytes:
    """SHA-256 over the public key (SubjectPublicKeyInfo): equal for certificates of one key."""
    return hashlib.sha256(
        certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


def name_hash(name: x509.Name) -> bytes:
    """SHA-256 over the DER of a subject or issuer: issuers are looked up by it."""
    return hashlib.sha256(name.public_bytes()).digest()


def not_before_ms(certificate: x509.Certificate) -> int:
    """Since the Unix epoch."""
    return int(certificate.not_valid_before_utc.timestamp() * 1000)


def not_after_ms(certificate: x509.Certificate) -> int:
    """Since the Unix epoch."""
    return int(certificate.not_valid_after_utc.timestamp() * 1000)
