"""What devices ask to have signed (PKCS#10): read, bounded, and checked for proof of possession.

Only the public key is taken from a request; which name, how long and for what use the certificate is, the CA says.

Source: RFC 2986; RFC 7030 section 4.2.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from cloud_core.core.certificates.signing import PublicKey
from shared.errors import InvalidCredentials

MAX_CSR_CHARS = 16_384
MIN_RSA_BITS, MAX_RSA_BITS = 2_048, 4_096
MAX_RSA_EXPONENT = 2**32  # above it a signature costs a hundred times as much to check
KEYS = "use an ECDSA key on P-256, P-384 or P-521, RSA of 2048 to 4096 bits, or Ed25519"
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_BLOCK = re.compile("-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----([^-]*)-----END (?:NEW )?CERTIFICATE REQUEST-----")


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A request whose sender has shown to have the key. `common_name` is what it calls itself, "" for nothing."""

    public_key: PublicKey
    common_name: str
    subject: x509.Name


def read_request(text: str) -> SigningRequest:
    """A request in PEM, or as base64 of its DER.

    Raises: InvalidCredentials, whose detail says what is wrong and how to mend it, and quotes nothing.
    """
    if len(text) > MAX_CSR_CHARS:
        raise InvalidCredentials(f"the csr is above {MAX_CSR_CHARS} characters; send one request without attributes")
    csr = _loaded(_der_of(text))
    common_name = _common_name(csr)
    public_key = _acceptable_key(csr)
    if public_key is None:
        raise InvalidCredentials(f"the key of the csr is too weak or of a kind that is not taken; {KEYS}")
    if not _is_signed_by_its_key(csr):
        raise InvalidCredentials(
            "the signature of the csr does not fit its key: whoever sends it must have the private key; sign the csr "
            "with that key and SHA-256"
        )
    return SigningRequest(public_key, common_name, csr.subject)


def requested_name(text: str) -> str:
    """What a request calls its sender, "" for nothing or for what is no request; nothing is checked."""
    try:
        return _common_name(_loaded(_der_of(text[: MAX_CSR_CHARS + 1])))
    except InvalidCredentials:
        return ""


def _der_of(text: str) -> bytes:
    block = _BLOCK.search(text)
    body = "".join((block.group(1) if block else text).split())
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidCredentials("the csr is neither PEM nor base64 of DER") from error


def _loaded(der: bytes) -> x509.CertificateSigningRequest:
    try:
        return x509.load_der_x509_csr(der)
    except Exception as error:  # of several kinds, by what is wrong with the bytes
        raise InvalidCredentials("the csr is no PKCS#10 request; make it with: openssl req -new -key KEY") from error


def _acceptable_key(csr: x509.CertificateSigningRequest) -> PublicKey | None:
    """None for what is weak, slow to check, or of another kind."""
    try:
        key = csr.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return None
    match key:
        case ec.EllipticCurvePublicKey():
            return key if isinstance(key.curve, _CURVES) else None
        case rsa.RSAPublicKey():
            is_right = MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and key.public_numbers().e < MAX_RSA_EXPONENT
            return key if is_right else None
        case ed25519.Ed25519PublicKey():
            return key
        case _:
            return None


def _is_signed_by_its_key(csr: x509.CertificateSigningRequest) -> bool:
    """Not so for a signature over a weak hash either, which proves little."""
    try:
        algorithm = csr.signature_hash_algorithm
        return (algorithm is None or isinstance(algorithm, _HASHES)) and csr.is_signature_valid
    except (UnsupportedAlgorithm, ValueError, TypeError):
        return False


def _common_name(csr: x509.CertificateSigningRequest) -> str:
    try:
        names = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except Exception as error:  # of several kinds, by what is wrong with the name: it is read late
        raise InvalidCredentials("the subject of the csr cannot be read") from error
    return str(names[0].value) if names else ""
