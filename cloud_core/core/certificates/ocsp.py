"""OCSP: asking about one certificate, and whether the answer may be believed. No network, no clock.

An answer is by the CA itself or by a responder to whom it has given a certificate for that (extendedKeyUsage
OCSPSigning). Answers may be older ones that a responder keeps: a nonce is sent, and compared where one comes back.

Source: RFC 6960 sections 3.2, 4.1, 4.2; RFC 8954.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from cloud_core.core.certificates import trust_faults
from cloud_core.core.certificates.crl import SKEW, Revoked, StatusUnusable, is_web_address

REQUEST_TYPE = "application/ocsp-request"
NONCE_BYTES = 16
MAX_ANSWERS = 64  # about single certificates, in one response
MAX_RESPONDERS = 4  # certificates that are tried
UNSTATED = timedelta(hours=1)  # so long an answer without an end is believed


@dataclass(frozen=True, slots=True)
class Answer:
    """About one certificate; `revoked` None: it is good."""

    revoked: Revoked | None
    until: datetime


def urls_of(certificate: x509.Certificate) -> list[str]:
    """Where the certificate says that its status can be asked for; http and https alone."""
    places = trust_faults.extension(certificate, x509.AuthorityInformationAccess) or ()
    return [
        one.access_location.value
        for one in places
        if one.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(one.access_location, x509.UniformResourceIdentifier)
        and is_web_address(one.access_location.value)
    ]


def request(certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes) -> bytes:
    """DER. SHA-1 only names the issuer here; it is what every responder knows."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())
    return builder.add_extension(x509.OCSPNonce(nonce), critical=False).build().public_bytes(Encoding.DER)


def read(raw: bytes, certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes, now: datetime) -> Answer:
    """What a response says about `certificate`. Raises: StatusUnusable."""
    try:
        return _read(ocsp.load_der_ocsp_response(raw), certificate, issuer, nonce, now)
    except StatusUnusable:
        raise
    except Exception as error:  # of several kinds, by what is wrong with the bytes: parts of it are read late
        raise StatusUnusable("its answer is no OCSP response") from error


def _read(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes, now: datetime
) -> Answer:
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise StatusUnusable(f"it answered {response.response_status.name}")
    returned = [one.value.nonce for one in response.extensions if isinstance(one.value, x509.OCSPNonce)]
    if returned and returned != [nonce]:
        raise StatusUnusable("its answer is to another request")
    answers = list(islice(response.responses, MAX_ANSWERS + 1))
    if len(answers) > MAX_ANSWERS:
        raise StatusUnusable(f"its answer is about more than {MAX_ANSWERS} certificates")
    single = next((one for one in answers if _is_about(one, certificate, issuer)), None)
    if single is None:
        raise StatusUnusable("its answer is about another certificate")
    if not any(_is_signed(response, one) for one in _responders(response, issuer, now)):
        raise StatusUnusable("its answer is signed neither by the CA nor by a responder of the CA")
    return _judged(single, now)


def _judged(single: ocsp.OCSPSingleResponse, now: datetime) -> Answer:
    until = single.next_update_utc or single.this_update_utc + UNSTATED
    if single.this_update_utc > now + SKEW:
        raise StatusUnusable("its answer is from the future")
    if now > until:
        raise StatusUnusable("its answer is out of date")
    if single.certificate_status is ocsp.OCSPCertStatus.GOOD:
        return Answer(None, until)
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        reason = single.revocation_reason.value if single.revocation_reason else ""
        return Answer(Revoked(single.revocation_time_utc or single.this_update_utc, reason), until)
    raise StatusUnusable("it does not know the certificate")


def _is_about(single: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if single.serial_number != certificate.serial_number:
        return False
    try:  # the library knows how issuers are named: as in a request with that hash
        asked = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, single.hash_algorithm).build()
    except (UnsupportedAlgorithm, ValueError):
        return False
    return (single.issuer_name_hash, single.issuer_key_hash) == (asked.issuer_name_hash, asked.issuer_key_hash)


def _responders(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> list[x509.Certificate]:
    """Those that may have signed: what the response says of itself, and what the CA allows."""
    if _names(response, issuer):
        return [issuer]
    shown = [one for one in response.certificates if _names(response, one)][:MAX_RESPONDERS]
    return [one for one in shown if _is_delegated(one, issuer, now)]


def _names(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return response.responder_name == signer.subject
    return response.responder_key_hash == _key_hash(signer)


def _key_hash(signer: x509.Certificate) -> bytes:
    """SHA-1 over the bits of the public key, as OCSP names keys."""
    key = signer.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        bits = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    elif isinstance(key, rsa.RSAPublicKey):
        bits = key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    else:
        return b""
    return hashlib.sha1(bits, usedforsecurity=False).digest()


def _is_delegated(signer: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
    purposes = trust_faults.extension(signer, x509.ExtendedKeyUsage)
    return (
        purposes is not None
        and ExtendedKeyUsageOID.OCSP_SIGNING in purposes
        and trust_faults.validity_fault(signer, now) is None
        and trust_faults.signature_fault(signer) is None
        and trust_faults.extension_fault(signer, is_issuer=False) is None
        and trust_faults.is_signed_by(signer, issuer)
    )


def _is_signed(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    try:
        used = response.signature_hash_algorithm
        if trust_faults.key_fault(signer) or used is None or used.name not in trust_faults.HASHES:
            return False
        key = signer.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(used))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), used)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
