"""Revocation lists and OCSP answers: which are believed, and what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as ocsp_library
from cryptography.x509.ocsp import OCSPCertStatus
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_core.core.certificates import crl, ocsp
from cloud_core.core.certificates.crl import StatusUnusable
from tests.support.pki import CLIENT, OCSP_SIGNING, Holder, Pki

PKI = Pki()
NOW: datetime = PKI.now
URL = "http://ca.example/root.crl"
ROOT = PKI.root("Root")
LINE = ROOT.intermediate("Line")
DEVICE, OTHER = LINE.leaf("sensor-1"), LINE.leaf("sensor-2")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def read(raw: bytes, issuer: Holder = LINE, *, places: Sequence[str] = (URL,), is_about_cas: bool = False) -> Any:
    return crl.read(raw, issuer.certificate, places, NOW, is_about_cas=is_about_cas)


def test_a_list_says_who_was_revoked_when_and_why() -> None:
    """Who is not on it is good."""
    reason = (x509.CRLReason(x509.ReasonFlags.key_compromise), False)
    found = read(LINE.crl(DEVICE, entry_extra=[reason]))
    revoked = found.status(DEVICE.certificate)
    assert (revoked.at, revoked.reason) == (NOW - HOUR, "keyCompromise")
    assert found.status(OTHER.certificate) is None
    assert found.until == NOW - HOUR + DAY
    assert read(LINE.crl()).status(DEVICE.certificate) is None


def test_serials_that_end_alike_are_told_apart() -> None:
    """They are looked up by their low halves first."""
    twin = DEVICE.certificate.serial_number ^ (1 << 100)
    assert read(LINE.crl(twin)).status(DEVICE.certificate) is None
    assert read(LINE.crl(twin, DEVICE, 1, 2)).status(DEVICE.certificate)


def test_a_list_without_an_end_is_believed_for_a_day() -> None:
    """Counted from when it was made."""
    assert read(LINE.crl(valid_for=None)).until == NOW - HOUR + DAY
    with pytest.raises(StatusUnusable, match="out of date"):
        read(LINE.crl(this_update=NOW - DAY - HOUR, valid_for=None))


def test_a_file_may_hold_the_lists_of_several_cas() -> None:
    """As PEM, in any order; each CA's own is taken."""
    lists = [ROOT.crl(LINE), PKI.root("Line").crl(), LINE.crl(DEVICE)]
    text = b"".join(x509.load_der_x509_crl(one).public_bytes(Encoding.PEM) for one in lists)
    assert read(text).status(DEVICE.certificate)
    assert read(text, ROOT, is_about_cas=True).status(LINE.certificate)


def test_a_file_of_nothing_but_beginnings_costs_little() -> None:
    """Whoever sits between the core and the CA may send it, and everything waits meanwhile."""
    began_s = time.perf_counter()
    with pytest.raises(StatusUnusable):
        read(b"-----BEGIN X509 CRL-----" * 8_000)
    assert time.perf_counter() - began_s < 1  # 7 with a pattern that goes on from each beginning to the end of all


def scope(**options: Any) -> list[tuple[x509.ExtensionType, bool]]:
    given = {
        "full_name": None, "relative_name": None, "only_contains_user_certs": False, "only_contains_ca_certs": False,
        "only_some_reasons": None, "indirect_crl": False, "only_contains_attribute_certs": False, **options,
    }  # fmt: skip
    return [(x509.IssuingDistributionPoint(**given), True)]


def named(url: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(url)]


def altered() -> bytes:
    """Another serial in a signed list."""
    serial = DEVICE.certificate.serial_number.to_bytes(20, "big").lstrip(b"\0")
    return LINE.crl(DEVICE).replace(serial, serial[:-1] + bytes([serial[-1] ^ 1]))


SILENT = ROOT.intermediate("Silent", key_usage=("key_cert_sign",))
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
UNUSABLE_LISTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "out of date": (lambda: LINE.crl(this_update=NOW - 2 * DAY), "out of date"),
    "from the future": (lambda: LINE.crl(this_update=NOW + HOUR), "future"),
    "by another CA": (lambda: ROOT.crl(), "another CA"),
    "by a CA of the same name": (lambda: PKI.root("Line").crl(), "not by the CA"),
    "altered": (altered, "not by the CA"),
    "signed with SHA-224": (lambda: LINE.crl(hash="sha224"), "not by the CA"),
    "a delta": (lambda: LINE.crl(extra=[(x509.DeltaCRLIndicator(1), True)]), "not understood"),
    "a delta that hides": (lambda: LINE.crl(extra=[(x509.DeltaCRLIndicator(1), False)]), "not understood"),
    "unknown critical extension": (lambda: LINE.crl(extra=[(UNKNOWN, True)]), "not understood"),
    "indirect": (lambda: LINE.crl(extra=scope(indirect_crl=True)), "indirect"),
    "about CAs": (lambda: LINE.crl(extra=scope(only_contains_ca_certs=True)), "other kinds"),
    "about attributes": (lambda: LINE.crl(extra=scope(only_contains_attribute_certs=True)), "not about all"),
    "some reasons": (
        lambda: LINE.crl(extra=scope(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise]))), "not about all",
    ),
    "another part": (lambda: LINE.crl(extra=scope(full_name=named("http://ca.example/2.crl"))), "another part"),
    "empty": (lambda: b"", "no revocation list"),
    "a page": (lambda: b"<html>not found</html>", "no revocation list"),
    "a certificate": (lambda: LINE.der, "no revocation list"),
    "too many": (lambda: b"-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n" * 17, "more than 16"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE_LISTS)
def test_a_list_that_cannot_be_believed_gives_no_status(case: str) -> None:
    """With a reason for people."""
    make, why = UNUSABLE_LISTS[case]
    with pytest.raises(StatusUnusable, match=why):
        read(make())


def test_a_ca_that_may_not_sign_lists_gives_no_status() -> None:
    """Its keyUsage says so."""
    with pytest.raises(StatusUnusable, match="cRLSign"):
        read(SILENT.crl(), SILENT)


def test_a_part_of_a_list_counts_where_it_belongs() -> None:
    """By the addresses that the certificate or the policy names, and the kind of certificate."""
    part = LINE.crl(DEVICE, extra=scope(full_name=named(URL), only_contains_user_certs=True))
    assert read(part).status(DEVICE.certificate)
    with pytest.raises(StatusUnusable, match="other kinds"):
        read(part, is_about_cas=True)


def test_addresses_of_lists_are_those_of_the_web() -> None:
    """Neither ldap nor file, nor lists by others."""
    points = [
        x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
        for url in ("ldap://ca.example/crl", "file:///etc/passwd", URL, "https://ca.example/2", "http:///nowhere")
    ]
    by_another = x509.DistributionPoint(
        named("http://other.example/crl"), None, None, [x509.DirectoryName(ROOT.certificate.subject)]
    )
    leaf = LINE.leaf("x", extra=[(x509.CRLDistributionPoints([*points, by_another]), False)])
    assert crl.urls_of(leaf.certificate) == [URL, "https://ca.example/2"]
    assert crl.urls_of(DEVICE.certificate) == []
    assert crl.urls_of(LINE.leaf("old", is_version_1=True).certificate) == []


# --- OCSP ---

NONCE = b"n" * 16
RESPONDER = LINE.leaf("responder", extended_usage=(OCSP_SIGNING,))


def ask(raw: bytes, *, nonce: bytes = NONCE) -> ocsp.Answer:
    return ocsp.read(raw, DEVICE.certificate, LINE.certificate, nonce, NOW)


@pytest.mark.parametrize("responder", [None, RESPONDER], ids=["the CA", "a responder"])
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("hash", [hashes.SHA1(), hashes.SHA256()], ids=lambda one: one.name)
def test_an_answer_is_believed_from_the_ca_and_its_responder(
    responder: Holder | None, by_name: bool, hash: hashes.HashAlgorithm
) -> None:
    """Whether it names its signer by name or key, and the issuer by whichever hash."""
    good = ask(LINE.ocsp(DEVICE, responder=responder, by_name=by_name, hash=hash, nonce=NONCE))
    assert (good.revoked, good.until) == (None, NOW - HOUR + DAY)
    bad = ask(LINE.ocsp(DEVICE, OCSPCertStatus.REVOKED, responder=responder, by_name=by_name, hash=hash))
    assert bad.revoked
    assert (bad.revoked.at, bad.revoked.reason) == (NOW - HOUR, "keyCompromise")


def test_rsa_signs_answers_too() -> None:
    """By the CA and by its responder."""
    ca = PKI.root("RSA", key="rsa2048")
    device, responder = ca.leaf("device"), ca.leaf("responder", key="rsa2048", extended_usage=(OCSP_SIGNING,))
    for by_name in (True, False):
        for signer in (None, responder):
            raw = ca.ocsp(device, responder=signer, by_name=by_name)
            assert ocsp.read(raw, device.certificate, ca.certificate, NONCE, NOW).revoked is None


def test_an_answer_without_an_end_is_believed_for_an_hour() -> None:
    """Counted from what it says of itself."""
    assert ask(LINE.ocsp(DEVICE, valid_for=None, this_update=NOW)).until == NOW + HOUR
    with pytest.raises(StatusUnusable, match="out of date"):
        ask(LINE.ocsp(DEVICE, valid_for=None, this_update=NOW - 2 * HOUR))


def altered_answer() -> bytes:
    raw = bytearray(LINE.ocsp(DEVICE))
    raw[-10] ^= 1  # in the signature
    return bytes(raw)


def unsuccessful(status: ocsp_library.OCSPResponseStatus) -> bytes:
    return ocsp_library.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)


NAMESAKE = PKI.root("Line")
UNUSABLE_ANSWERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "out of date": (lambda: LINE.ocsp(DEVICE, this_update=NOW - 2 * DAY), "out of date"),
    "from the future": (lambda: LINE.ocsp(DEVICE, this_update=NOW + HOUR), "future"),
    "unknown": (lambda: LINE.ocsp(DEVICE, OCSPCertStatus.UNKNOWN), "does not know"),
    "about another": (lambda: LINE.ocsp(OTHER), "another certificate"),
    "about one of a CA of the same name": (lambda: NAMESAKE.ocsp(DEVICE), "another certificate"),
    "to another request": (lambda: LINE.ocsp(DEVICE, nonce=b"m" * 16), "another request"),
    "signed by another key": (lambda: LINE.ocsp(DEVICE, responder=NAMESAKE, shown=[]), "neither by the CA"),
    "by a responder without the usage": (
        lambda: LINE.ocsp(DEVICE, responder=LINE.leaf("r", extended_usage=(CLIENT,))), "neither by the CA",
    ),
    "by a responder of another CA": (
        lambda: LINE.ocsp(DEVICE, responder=ROOT.leaf("r", extended_usage=(OCSP_SIGNING,))), "neither by the CA",
    ),
    "by a responder that is over": (
        lambda: LINE.ocsp(DEVICE, responder=LINE.leaf("r", extended_usage=(OCSP_SIGNING,), not_after=NOW - HOUR)),
        "neither by the CA",
    ),
    "by a responder that is not shown": (lambda: LINE.ocsp(DEVICE, responder=RESPONDER, shown=[OTHER]), "neither by"),
    "by the device itself": (lambda: LINE.ocsp(DEVICE, responder=DEVICE), "neither by the CA"),
    "try later": (lambda: unsuccessful(ocsp_library.OCSPResponseStatus.TRY_LATER), "TRY_LATER"),
    "altered": (altered_answer, "neither by the CA"),
    "empty": (lambda: b"", "no OCSP response"),
    "a page": (lambda: b"<html>", "no OCSP response"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE_ANSWERS)
def test_an_answer_that_cannot_be_believed_gives_no_status(case: str) -> None:
    """With a reason for people."""
    make, why = UNUSABLE_ANSWERS[case]
    with pytest.raises(StatusUnusable, match=why):
        ask(make())


def test_a_request_asks_about_one_certificate() -> None:
    """With a nonce."""
    made = ocsp_library.load_der_ocsp_request(ocsp.request(DEVICE.certificate, LINE.certificate, NONCE))
    assert made.serial_number == DEVICE.certificate.serial_number
    assert made.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == NONCE
    assert ocsp.urls_of(LINE.leaf("x", ocsp_url="http://o.example/").certificate) == ["http://o.example/"]
    assert ocsp.urls_of(LINE.leaf("x", ocsp_url="ldap://o.example/").certificate) == []


ANSWERS = {"crl": LINE.crl(DEVICE), "ocsp": LINE.ocsp(DEVICE, OCSPCertStatus.REVOKED, responder=RESPONDER)}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["crl", "ocsp"]), st.integers(min_value=0), st.integers(1, 255))
def test_no_changed_byte_makes_a_revoked_certificate_good(kind: str, position: int, mask: int) -> None:
    """It stays revoked, or there is no status."""
    changed = bytearray(ANSWERS[kind])
    changed[position % len(changed)] ^= mask
    try:
        if kind == "crl":
            assert read(bytes(changed)).status(DEVICE.certificate)
        else:
            assert ask(bytes(changed)).revoked
    except StatusUnusable as error:
        assert str(error)


def test_a_long_name_of_a_ca_is_no_trouble() -> None:
    """Names are compared as a whole."""
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x" * 60)] * 20)
    ca = PKI.root(subject=subject)
    assert read(ca.crl(7), ca).status(ca.leaf("x", serial=7).certificate)
