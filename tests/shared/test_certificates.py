"""Certificates as people write them, and what is read of them; compared with what openssl says."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from shared import certificates
from shared.certificates import MAX_CERTIFICATE_BYTES, MalformedCertificate
from tests.support.pki import Pki

# openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Example/CN=sensor 1" -days 36500
PEM = """-----BEGIN CERTIFICATE-----
MIIBojCCAUegAwIBAgIUczmbAQJ4vaIMiDUArl+9OEvhpyMwCgYIKoZIzj0EAwIw
JTEQMA4GA1UECgwHRXhhbXBsZTERMA8GA1UEAwwIc2Vuc29yIDEwIBcNMjYxMTI0
MTA0MDUyWhgPMjEyNjEwMzExMDQwNTJaMCUxEDAOBgNVBAoMB0V4YW1wbGUxETAP
BgNVBAMMCHNlbnNvciAxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAECgaI+R8V
Nd6mXiFRqz4CQlsuMa+m46QBkYKt+8ASLJhR+ff7rqQ55eJD+Eoi6SHvOWaE24HI
WLYsU1irJb6jnqNTMFEwHQYDVR0OBBYEFKZbhIFqtQXjsZ1uzNheoGhebcMHMB8G
A1UdIwQYMBaAFKZbhIFqtQXjsZ1uzNheoGhebcMHMA8GA1UdEwEB/wQFMAMBAf8w
CgYIKoZIzj0EAwIDSQAwRgIhAJe41VKTNcU/CeXc/VisT2wQVNv5a/KzHl2VvZ4u
AtUdAiEAmQ6egI0hMr2Jd3fAFSv3PuzZ8DyzD/4TiGM766yrtSY=
-----END CERTIFICATE-----
"""
# openssl x509 -noout -fingerprint -sha256 -serial -dates; openssl pkey -pubin -outform DER | sha256sum
FINGERPRINT = "39:6A:F4:55:0A:56:C9:0D:AF:84:85:50:E9:60:34:13:A8:CD:D5:6A:9D:0E:B1:9D:12:5D:95:21:7E:C5:2F:46"
SERIAL = 0x73399B010278BDA20C883500AE5FBD384BE1A723
NOT_BEFORE_S, NOT_AFTER_S = 1795516852, 4949116852
KEY_HASH = "6fc1b9223eb12f961babc3302e4b1d68a4af9108d011bcbe9ddb18452c1a449b"

LINES = PEM.splitlines()
TEXT = "".join(LINES[1:-1])
DER = base64.b64decode(TEXT)
OTHER = Pki().root("Other")

FORMS = {
    "PEM": PEM,
    "PEM with CRLF": PEM.replace("\n", "\r\n"),
    "PEM without the last line break": PEM.strip(),
    "PEM on one line": "".join(LINES),
    "PEM in spaces": "\n\n  " + PEM.replace("\n", "  \n  ") + "\t\n",
    "PEM behind what openssl -text prints": "Certificate:\n    Data:\n        Version: 3 (0x2)\n" + PEM,
    "PEM behind bag attributes": "Bag Attributes\n    localKeyID: 01 02 - x\nsubject=CN = a\n" + PEM,
    "PEM with a key before it": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" + PEM,
    "base64": TEXT,
    "base64 with line breaks": "\n".join(LINES[1:-1]) + "\n",
    "base64 with CRLF and spaces": " " + "\r\n ".join(LINES[1:-1]) + " ",
    "several, and it is the first": PEM + OTHER.pem,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_certificate_is_read_in_whatever_form_it_is_written(form: str) -> None:
    """PEM or base64, with the line breaks of any system."""
    assert certificates.der_of(FORMS[form]) == DER
    assert certificates.der(certificates.load_all(FORMS[form])[0]) == DER


def test_what_is_read_of_a_certificate_is_what_openssl_says() -> None:
    """Fingerprint, serial, dates, hash of the key, name."""
    known = certificates.load(DER)
    assert certificates.fingerprint(DER).hex(":").upper() == FINGERPRINT
    assert known.serial_number == SERIAL
    assert certificates.not_before_ms(known) == NOT_BEFORE_S * 1000
    assert certificates.not_after_ms(known) == NOT_AFTER_S * 1000
    assert certificates.key_hash(known).hex() == KEY_HASH
    assert certificates.common_name(known) == "sensor 1"
    assert certificates.name_hash(known.subject) == hashlib.sha256(known.subject.public_bytes()).digest()
    assert certificates.name_hash(known.subject) == certificates.name_hash(known.issuer)


def test_a_fingerprint_is_written_in_four_ways() -> None:
    """With and without colons, in both cases."""
    plain = FINGERPRINT.replace(":", "")
    assert certificates.fingerprint_texts(DER) == (plain.lower(), plain, FINGERPRINT.lower(), FINGERPRINT)


def test_text_and_pem_give_the_certificate_back() -> None:
    """ThingsBoard's text is base64 on one line."""
    assert certificates.certificate_text(DER) == TEXT
    assert certificates.pem(certificates.load(DER)) == PEM
    assert certificates.der_of(certificates.certificate_text(DER)) == DER


def test_a_renewed_certificate_of_one_key_has_the_same_key_hash() -> None:
    """And another fingerprint."""
    renewed = Pki().root("Other", key=OTHER.key)
    assert certificates.key_hash(renewed.certificate) == certificates.key_hash(OTHER.certificate)
    assert certificates.fingerprint(renewed.der) != certificates.fingerprint(OTHER.der)


def test_a_certificate_without_a_common_name_has_an_empty_one() -> None:
    """Its subject may be empty."""
    assert certificates.common_name(OTHER.leaf("", subject=x509.Name([])).certificate) == ""


def test_a_name_stands_on_one_line_whatever_it_holds() -> None:
    """It is for logs and terminals; a long one is cut."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a\nb\x1b[31m\u202e" + "x" * 40)])
    assert certificates.name_text(name, 20) == "CN=a?b?[31m?xxxxxxxx"


def test_several_certificates_come_in_their_order() -> None:
    """Whatever stands between them."""
    found = certificates.load_all(f"first\n{OTHER.pem}\n# and\n{PEM}{OTHER.pem}")
    assert [certificates.der(one) for one in found] == [OTHER.der, DER, OTHER.der]


MALFORMED = {
    "nothing": "",
    "words": "no certificate",
    "other base64": base64.b64encode(b"no certificate at all").decode(),
    "cut": TEXT[:-40],
    "cut in the middle of four": TEXT[:-1],
    "not ASCII": "é" + TEXT,
    "a key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "an empty block": "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    "a block of garbage": "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
    "a block without an end": PEM.replace("-----END CERTIFICATE-----", ""),
    "a good block behind one without an end": "-----BEGIN CERTIFICATE-----\n" + TEXT[:64] + "\n" + PEM,
    "a bad block behind a good one": PEM + PEM.replace(LINES[1], ""),
    "too large": base64.b64encode(DER + bytes(MAX_CERTIFICATE_BYTES)).decode(),
    "something behind it": base64.b64encode(DER + b"\0").decode(),
    "too many": PEM * 65,
    "many beginnings": "-----BEGIN CERTIFICATE-----" * 20_000,
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_certificate_is_refused(case: str) -> None:
    """In a sentence that quotes nothing of it."""
    with pytest.raises(MalformedCertificate) as refused:
        certificates.load_all(MALFORMED[case])
    assert str(refused.value).endswith(".")
    assert len(str(refused.value)) < 120


def test_what_can_only_be_read_later_is_refused_at_once() -> None:
    """A key of another length than its curve's, and an extension that is cut off."""
    for before, after in (
        (bytes.fromhex("03420004"), bytes.fromhex("03420005")),
        (bytes.fromhex("30030101ff"), bytes.fromhex("30030201ff")),
    ):
        assert DER.count(before) == 1
        with pytest.raises(MalformedCertificate, match="unreadable"):
            certificates.load(DER.replace(before, after))


@given(st.binary(max_size=200))
def test_bytes_survive_the_text_form(raw: bytes) -> None:
    """Also with line breaks in it."""
    text = certificates.certificate_text(raw)
    assert certificates.der_of(text) == raw
    assert certificates.der_of("\r\n".join(text[at : at + 64] for at in range(0, len(text), 64))) == raw


@given(st.integers(min_value=0), st.integers(1, 255))
def test_a_changed_byte_gives_a_certificate_or_a_refusal(position: int, mask: int) -> None:
    """And a certificate can be read whole."""
    changed = bytearray(DER)
    changed[position % len(changed)] ^= mask
    try:
        known = certificates.load(bytes(changed))
    except MalformedCertificate:
        return
    assert certificates.not_after_ms(known) > 0
    assert len(certificates.key_hash(known)) == 32
    assert isinstance(certificates.common_name(known), str)
