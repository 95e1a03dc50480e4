"""What certificates, revocation lists and signing requests look like, and which requests are signed."""

from __future__ import annotations

import base64
import time
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud_core.core.certificates import signing
from cloud_core.core.certificates.signing_requests import MAX_CSR_CHARS, read_request, requested_name
from cloud_core.model import KnownCertificate
from shared import certificates
from shared.errors import InvalidCredentials
from tests.support.authorities import KEY, NOW_MS, csr
from tests.support.pki import generate

NOW = signing.at(NOW_MS)


def a_signer(curve: str = "P-256", years: int = 10) -> signing.Signer:
    certificate, key = signing.make_root("Plant", curve, now_ms=NOW_MS, years=years)
    return signing.signer_of((certificate,), key)


def a_certificate(name: str = "SN-1", **options: Any) -> x509.Certificate:
    signer = options.pop("signer", None) or a_signer()
    key = options.pop("key", KEY).public_key()
    return signing.sign_device(signer, key, name, now_ms=NOW_MS, days=options.pop("days", 365), **options)


def value(certificate: Any, kind: Any) -> Any:
    return certificate.extensions.get_extension_for_class(kind).value


def is_critical(certificate: Any, kind: Any) -> bool:
    found: bool = certificate.extensions.get_extension_for_class(kind).critical
    return found


@pytest.mark.parametrize(("curve", "hash_name"), [("P-256", "sha256"), ("P-384", "sha384")])
def test_a_root_signs_devices_and_lists_and_nothing_else(curve: str, hash_name: str) -> None:
    """pathlen:0; keyCertSign and cRLSign alone; both critical; self-signed with the hash that fits the curve."""
    root = a_signer(curve).certificate
    assert root.signature_hash_algorithm.name == hash_name  # type: ignore[union-attr]
    assert value(root, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
    usage = value(root, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert is_critical(root, x509.BasicConstraints) and is_critical(root, x509.KeyUsage)
    root.verify_directly_issued_by(root)
    assert root.not_valid_after_utc.year == NOW.year + 10


def test_a_root_of_a_leap_day_ends_on_the_day_before() -> None:
    """There is no 29 February ten years later."""
    leap_ms = 1_709_208_000_000  # 2024-02-29
    certificate, _ = signing.make_root("Plant", "P-256", now_ms=leap_ms, years=1)
    assert f"{certificates.load(certificate).not_valid_after_utc:%m-%d}" == "02-28"


def test_a_device_certificate_is_for_client_authentication_alone() -> None:
    """No CA, digitalSignature, clientAuth; key ids on both sides; the subject is the device's name."""
    signer = a_signer()
    made = a_certificate("SN-1", signer=signer)
    assert certificates.common_name(made) == "SN-1"
    assert value(made, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
    assert value(made, x509.KeyUsage).digital_signature and not value(made, x509.KeyUsage).key_cert_sign
    assert list(value(made, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert value(made, x509.AuthorityKeyIdentifier).key_identifier == (
        value(signer.certificate, x509.SubjectKeyIdentifier).key_identifier
    )
    assert value(made, x509.SubjectKeyIdentifier) == x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())
    with pytest.raises(x509.ExtensionNotFound):
        value(made, x509.SubjectAlternativeName)
    made.verify_directly_issued_by(signer.certificate)


def test_a_slow_clock_takes_a_new_certificate() -> None:
    """It is valid since five minutes ago."""
    assert a_certificate().not_valid_before_utc == NOW - timedelta(minutes=5)


def test_a_certificate_ends_with_its_ca_at_the_latest() -> None:
    """What goes beyond would verify nowhere."""
    signer = a_signer(years=1)
    assert a_certificate(signer=signer, days=10).not_valid_after_utc == NOW + timedelta(days=10)
    assert a_certificate(signer=signer, days=1_000).not_valid_after_utc == signer.certificate.not_valid_after_utc


def test_serial_numbers_are_random() -> None:
    """Up to 128 bits, positive, never the same."""
    signer = a_signer()
    serials = {a_certificate(signer=signer).serial_number for _ in range(20)}
    assert len(serials) == 20 and all(0 < one < 1 << 128 for one in serials) and max(serials) > 1 << 120


def test_the_certificate_names_its_revocation_list_where_its_place_is_known() -> None:
    """And says nothing of one otherwise."""
    point = value(a_certificate(crl_url="http://core/crl"), x509.CRLDistributionPoints)[0]
    assert point.full_name[0].value == "http://core/crl"
    with pytest.raises(x509.ExtensionNotFound):
        value(a_certificate(), x509.CRLDistributionPoints)


@pytest.mark.parametrize("name", ["n" * 65, "ü" * 33, "n" * 255, "长" * 200])
def test_a_name_too_long_for_x520_is_cut_and_stands_whole_in_the_san(name: str) -> None:
    """At most 64 bytes of CN, told apart by a hash; the whole name as a URI."""
    made = a_certificate(name)
    common_name = certificates.common_name(made)
    assert len(common_name.encode()) <= 64 and name.startswith(common_name.partition("#")[0])
    assert common_name != certificates.common_name(a_certificate(name[:-1] + "x"))
    (uri,) = value(made, x509.SubjectAlternativeName).get_values_for_type(x509.UniformResourceIdentifier)
    assert uri.startswith("urn:muster:device:") and uri.isascii()


def test_a_name_of_64_bytes_stands_as_it_is() -> None:
    """The bound itself is no fault."""
    assert signing.common_name_for("ü" * 32) == "ü" * 32


def revoked(serial: int, reason: str) -> KnownCertificate:
    return KnownCertificate(
        id=1, tenant_id=1, device_id=None, authority_id=1, fingerprint=b"f" * 32, serial=f"{serial:x}", subject="",
        issuer="", not_before_ms=0, not_after_ms=NOW_MS, created_ms=0, revoked_ms=NOW_MS - 5_000,
        revocation_reason=reason,
    )  # fmt: skip


def test_a_revocation_list_has_a_number_dates_and_reasons() -> None:
    """Version 2; nextUpdate; a reason that says nothing is left out (RFC 5280 section 5.3.1)."""
    signer = a_signer("P-384")
    crl = signing.make_crl(signer, [revoked(7, "keyCompromise"), revoked(9, "unspecified")], number=3, now_ms=NOW_MS)
    assert crl.is_signature_valid(signer.certificate.public_key())  # type: ignore[arg-type]
    assert value(crl, x509.CRLNumber).crl_number == 3
    assert crl.next_update_utc == NOW + signing.CRL_LIFE
    compromised, other = (crl.get_revoked_certificate_by_serial_number(one) for one in (7, 9))
    assert compromised is not None and other is not None
    assert compromised.revocation_date_utc == NOW - timedelta(seconds=5)
    assert value(compromised, x509.CRLReason).reason is x509.ReasonFlags.key_compromise
    assert len(other.extensions) == 0


def test_the_key_id_of_a_ca_without_one_is_that_of_its_key() -> None:
    """Old CAs have no SubjectKeyIdentifier."""
    old = x509.CertificateBuilder(
        issuer_name=a_signer().certificate.subject, subject_name=a_signer().certificate.subject,
        public_key=KEY.public_key(), serial_number=1, not_valid_before=NOW.replace(tzinfo=None),
        not_valid_after=(NOW + timedelta(days=1)).replace(tzinfo=None),
    ).sign(KEY, hashes.SHA256())  # type: ignore[arg-type]  # fmt: skip
    signer = signing.signer_of((certificates.der(old),), signing.key_der(KEY))  # type: ignore[arg-type]
    assert signer.key_id.key_identifier == x509.SubjectKeyIdentifier.from_public_key(KEY.public_key()).digest


def test_the_key_of_a_ca_is_in_no_text_about_it() -> None:
    """A signer can be logged."""
    assert "key=" not in repr(a_signer())


# -- requests -------------------------------------------------------------------------------------


def der_of(pem: str) -> bytes:
    return x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "ed25519"])
def test_a_request_is_read_with_any_good_key(kind: str) -> None:
    """ECDSA, RSA and Ed25519."""
    key = generate(kind)
    read = read_request(csr("SN-7", key))
    assert (read.common_name, read.public_key) == ("SN-7", key.public_key())


@pytest.mark.parametrize("form", ["pem", "old pem", "base64", "base64 in lines", "pem with CRLF"])
def test_a_request_comes_as_pem_or_base64(form: str) -> None:
    """However tools and devices write it."""
    pem = csr()
    text = {
        "pem": pem,
        "old pem": pem.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        "base64": base64.b64encode(der_of(pem)).decode(),
        "base64 in lines": base64.encodebytes(der_of(pem)).decode(),
        "pem with CRLF": pem.replace("\n", "\r\n"),
    }[form]
    assert read_request(text).common_name == requested_name(text) == "SN-1"


def test_a_request_may_leave_its_name_out() -> None:
    """The server says it anyway."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM).decode()  # type: ignore[arg-type]
    assert read_request(pem).common_name == ""


def tampered() -> str:
    """The name is changed after signing."""
    return base64.b64encode(der_of(csr("SN-1")).replace(b"SN-1", b"SN-2")).decode()


def of_another_key() -> str:
    """Somebody's public key, signed with one's own."""
    mine, theirs = (generate("p256").public_key() for _ in range(2))
    request = csr("SN-1", key := generate("p256"))
    point = Encoding.X962, PublicFormat.UncompressedPoint
    assert mine != theirs
    own = key.public_key().public_bytes(*point)
    return base64.b64encode(der_of(request).replace(own, theirs.public_bytes(*point))).decode()


def with_bits_for_a_name() -> str:
    """The CN is a BIT STRING, which the library does not take for a name."""
    text, bits = bytes.fromhex("06035504030c04"), bytes.fromhex("06035504030304")
    return base64.b64encode(der_of(csr("SN-1")).replace(text, bits)).decode()


def with_sha1() -> str:
    """The algorithm's name says SHA-1 (1.2.840.10045.4.1)."""
    der = der_of(csr())
    return base64.b64encode(
        der.replace(bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d040301"))
    ).decode()


def with_dsa() -> str:
    key = dsa.generate_private_key(1024)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def with_curve(curve: Any) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(ec.generate_private_key(curve), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


BAD = {
    "tampered": (tampered, "signature"),
    "of another key": (of_another_key, "signature"),
    "sha1": (with_sha1, "signature"),
    "rsa1024": (lambda: csr("SN-1", "rsa1024"), "too weak"),
    "dsa": (with_dsa, "too weak"),
    "p192": (lambda: with_curve(ec.SECP192R1()), "too weak"),
    "secp256k1": (lambda: with_curve(ec.SECP256K1()), "too weak"),
    "bits for a name": (with_bits_for_a_name, "subject of the csr cannot be read"),
    "no base64": (lambda: "hello, world!", "neither PEM nor base64"),
    "no request": (lambda: base64.b64encode(b"0\x03\x02\x01\x00").decode(), "no PKCS#10"),
    "empty": (lambda: " ", "no PKCS#10"),
    "a certificate": (lambda: base64.b64encode(a_signer().certificate.tbs_certificate_bytes).decode(), "no PKCS#10"),
    "too large": (lambda: "A" * (MAX_CSR_CHARS + 1), "above"),
    "unicode": (lambda: "ſ" * 40, "neither PEM nor base64"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_request_is_refused_with_what_to_mend(fault: str) -> None:
    """Malformed, without proof of possession, weak: each says which."""
    make, words = BAD[fault]
    text = make()
    with pytest.raises(InvalidCredentials) as refused:
        read_request(text)
    assert words in refused.value.detail
    assert text.strip()[:30] not in refused.value.detail or not text.strip()
    assert isinstance(requested_name(text), str)


def test_a_request_of_nothing_but_beginnings_costs_little() -> None:
    """It is looked at before anybody has shown a secret, where everything else waits."""
    text = ("-----BEGIN CERTIFICATE REQUEST-----" * 500)[:MAX_CSR_CHARS]
    took_s = []
    for _ in range(3):
        began_s = time.perf_counter()
        assert requested_name(text) == ""
        took_s.append(time.perf_counter() - began_s)
    assert min(took_s) < 0.01  # 0.04 with a pattern that goes on from each beginning to the end of all
