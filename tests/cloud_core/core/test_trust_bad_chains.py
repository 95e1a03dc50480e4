"""The table of bad chains: each is refused, for its reason, in words that name the certificate and the way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from cloud_core.core.certificates import trust
from cloud_core.core.certificates.trust import Fault
from cloud_core.model import PresentedChain
from shared.errors import UntrustedCertificate
from tests.support.pki import OCSP_SIGNING, SERVER, Holder, Pki

PKI = Pki()
NOW_MS = int(PKI.now.timestamp() * 1000)
DAY = timedelta(days=1)
ROOT = PKI.root("Root")
LINE = ROOT.intermediate("Line")
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
ACME = x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme")]))

Case = tuple[Holder, Sequence[Holder], Holder]  # leaf, what else is shown, anchor


def below(**options: object) -> Case:
    """A leaf made with these options."""
    return LINE.leaf("device", **options), [LINE], ROOT


def under(**options: object) -> Case:
    """A leaf under an intermediate made with these options."""
    ca = ROOT.intermediate("Cell", **options)
    return ca.leaf("device"), [ca], ROOT


def under_root(**options: object) -> Case:
    """A leaf under an intermediate under an anchor made with these options."""
    root = PKI.root("Bad root", **options)
    ca = root.intermediate("Cell")
    return ca.leaf("device"), [ca], root


def leaf_under_leaf() -> Case:
    device = LINE.leaf("device")
    return device.leaf("second"), [device, LINE], ROOT


def ca_under_leaf() -> Case:
    device = LINE.leaf("device")
    forged = device.intermediate("Forged")
    return forged.leaf("second"), [forged, device, LINE], ROOT


def too_long_by_root() -> Case:
    root = PKI.root("Short root", path_length=0)
    ca = root.intermediate("Cell")
    return ca.leaf("device"), [ca], root


def too_long_by_intermediate() -> Case:
    upper = ROOT.intermediate("Upper", path_length=1)
    middle = upper.intermediate("Middle")
    lower = middle.intermediate("Lower")
    return lower.leaf("device"), [lower, middle, upper], ROOT


def namesake() -> Case:
    other = PKI.root("Root")
    return other.leaf("device"), [], ROOT


def namesake_without_key_ids() -> Case:
    other = PKI.root("Root", has_key_ids=False)
    return other.leaf("device", has_key_ids=False), [], ROOT


def namesake_of_an_intermediate() -> Case:
    other = PKI.root("Root").intermediate("Line")
    return other.leaf("device"), [other], ROOT


def cross_signed_elsewhere() -> Case:
    """Both ways lead to CAs that are not the profile's."""
    first, second = PKI.root("First"), PKI.root("Second")
    shared = first.intermediate("Shared")
    return shared.leaf("device"), [shared, second.cross_sign(shared)], ROOT


def cross_signed_and_over() -> Case:
    """The way to the profile's CA is over."""
    shared = PKI.root("Elsewhere").intermediate("Shared")
    return shared.leaf("device"), [shared, ROOT.cross_sign(shared, not_after=PKI.now - DAY)], ROOT


def other_root_shown() -> Case:
    other = PKI.root("Other root")
    ca = other.intermediate("Other line")
    return ca.leaf("device"), [ca, other], ROOT


def tampered() -> Case:
    device = LINE.leaf("device-1")
    forged = bytearray(device.der)
    forged[forged.index(b"device-1") + 7] = ord("2")
    return Shown(bytes(forged)), [LINE], ROOT


class Shown(Holder):
    """Bytes that nobody has signed like this."""

    def __init__(self, der: bytes) -> None:
        object.__setattr__(self, "raw", der)

    @property
    def der(self) -> bytes:
        raw: bytes = self.raw  # type: ignore[attr-defined]
        return raw


def replaced(before: str, after: str) -> Case:
    """A certificate whose algorithm has another number."""
    device = LINE.leaf("device")
    return Shown(device.der.replace(bytes.fromhex(before), bytes.fromhex(after))), [LINE], ROOT


class PublicOnly:
    """A key that need not sign."""

    def __init__(self, modulus: int, exponent: int) -> None:
        self.numbers = rsa.RSAPublicNumbers(exponent, modulus)

    def public_key(self) -> rsa.RSAPublicKey:
        return self.numbers.public_key()


def unfinished_leaf_under_leaf() -> Case:
    device = LINE.leaf("device")
    return device.leaf("second"), [device], ROOT


def self_issued() -> Case:
    """A CA that its issuer has given its own name."""
    upper = ROOT.intermediate("Upper", path_length=0)
    ca = upper.intermediate("Upper")
    return ca.leaf("device"), [ca, upper], ROOT


def old_itself() -> Case:
    device = PKI.self_signed("device", is_version_1=True)
    return device, [], device


def giant() -> Case:
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.5"), b"\x04\x82\x1f\x40" + bytes(8000))
    others = [ROOT.intermediate(f"Giant {number}", extra=[(padding, False)]) for number in range(9)]
    return LINE.leaf("device"), others, ROOT


def giant_certificate() -> Case:
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.5"), b"\x04\x82\x3e\x80" + bytes(16000))
    return LINE.leaf("device", extra=[(padding, False)]), [LINE], ROOT


def many() -> Case:
    return LINE.leaf("device"), [LINE] * 10, ROOT


def deep() -> Case:
    device = PKI.chain_of_length(10)
    return device, device.chain[:-1], device.chain[-1]


def constrained(constraint: x509.NameConstraints) -> Callable[[], Case]:
    def case() -> Case:
        ca = ROOT.intermediate("Constrained", extra=[(constraint, True)])
        return ca.leaf("device", dns_names=("device.example.org",)), [ca], ROOT

    return case


def old_below_constrained() -> Case:
    ca = ROOT.intermediate("Constrained", extra=[(x509.NameConstraints([ACME], None), True)])
    return ca.leaf("device", is_version_1=True), [ca], ROOT


def old_below(**options: object) -> Case:
    return below(is_version_1=True, **options)


def old_namesake() -> Case:
    return PKI.root("Line").leaf("device", is_version_1=True), [LINE], ROOT


def old_under_old() -> Case:
    """A device of version 1 may not issue either."""
    device = LINE.leaf("first", is_version_1=True)
    return device.leaf("device", is_version_1=True), [device, LINE], ROOT


def old_under_an_old_path() -> Case:
    ca = ROOT.intermediate("Cell", not_after=PKI.now - DAY)
    return ca.leaf("device", is_version_1=True), [ca], ROOT


def old_below_too_many() -> Case:
    root = PKI.root("Short root", path_length=0)
    ca = root.intermediate("Cell")
    return ca.leaf("device", is_version_1=True), [ca], root


def old_and_deep() -> Case:
    device = PKI.chain_of_length(10, is_version_1=True)
    return device, device.chain[:-1], device.chain[-1]


def itself() -> Case:
    device = PKI.self_signed("device")
    return device, [], device


def root_as_device() -> Case:
    return ROOT, [], ROOT


BAD = {
    "expired": (lambda: below(not_after=PKI.now - DAY), Fault.EXPIRED, "device"),
    "not yet valid": (lambda: below(not_before=PKI.now + DAY), Fault.NOT_YET_VALID, "device"),
    "expired intermediate": (lambda: under(not_after=PKI.now - DAY), Fault.EXPIRED, "Cell"),
    "intermediate not yet valid": (lambda: under(not_before=PKI.now + DAY), Fault.NOT_YET_VALID, "Cell"),
    "expired anchor": (lambda: under_root(not_after=PKI.now - DAY), Fault.EXPIRED, "Bad root"),
    "anchor not yet valid": (lambda: under_root(not_before=PKI.now + DAY), Fault.NOT_YET_VALID, "Bad root"),
    "CA flag missing": (lambda: under(is_ca=False), Fault.NOT_A_CA, "Cell"),
    "no basic constraints": (lambda: under(has_constraints=False), Fault.NOT_A_CA, "Cell"),
    "anchor without CA flag": (lambda: under_root(is_ca=False), Fault.NOT_A_CA, "Bad root"),
    "leaf signing a leaf": (leaf_under_leaf, Fault.NOT_A_CA, "device"),
    "leaf signing a CA": (ca_under_leaf, Fault.NOT_A_CA, "device"),
    "path length of the anchor": (too_long_by_root, Fault.PATH_TOO_LONG, "Short root"),
    "path length of an intermediate": (too_long_by_intermediate, Fault.PATH_TOO_LONG, "Upper"),
    "CA's usage": (lambda: under(key_usage=("digital_signature", "crl_sign")), Fault.WRONG_USAGE, "Cell"),
    "anchor's usage": (lambda: under_root(key_usage=("crl_sign",)), Fault.WRONG_USAGE, "Bad root"),
    "CA for servers": (lambda: under(extended_usage=(SERVER,)), Fault.WRONG_USAGE, "Cell"),
    "device's usage": (lambda: below(key_usage=("key_encipherment",)), Fault.WRONG_USAGE, "device"),
    "server's certificate": (lambda: below(extended_usage=(SERVER,)), Fault.WRONG_USAGE, "device"),
    "responder's certificate": (lambda: below(extended_usage=(OCSP_SIGNING,)), Fault.WRONG_USAGE, "device"),
    "CA as device": (lambda: below(is_ca=True), Fault.CA_AS_DEVICE, "device"),
    "root as device": (root_as_device, Fault.CA_AS_DEVICE, "Root"),
    "self-signed": (lambda: (PKI.self_signed("device"), [], ROOT), Fault.SELF_SIGNED, "device"),
    "self-signed with a chain": (lambda: (PKI.self_signed("device"), [LINE, ROOT], ROOT), Fault.SELF_SIGNED, "device"),
    "self-signed as its own anchor": (itself, Fault.SELF_SIGNED, "device"),
    "another CA with the same name": (namesake, Fault.UNKNOWN_ISSUER, "device"),
    "another CA with the same name, no ids": (namesake_without_key_ids, Fault.BAD_SIGNATURE, "device"),
    "another intermediate with the same name": (namesake_of_an_intermediate, Fault.UNKNOWN_ISSUER, "Line"),
    "intermediate missing": (lambda: (LINE.leaf("device"), [], ROOT), Fault.UNKNOWN_ISSUER, "device"),
    "another root": (other_root_shown, Fault.UNKNOWN_ISSUER, "Other root"),
    "cross-signed by others": (cross_signed_elsewhere, Fault.UNKNOWN_ISSUER, "Shared"),
    "cross-signed, and that is over": (cross_signed_and_over, Fault.EXPIRED, "Shared"),
    "altered": (tampered, Fault.BAD_SIGNATURE, "device-2"),
    "RSA of 1024 bits": (lambda: below(key="rsa1024"), Fault.WEAK_KEY, "device"),
    "intermediate of 1024 bits": (lambda: under(key="rsa1024"), Fault.WEAK_KEY, "Cell"),
    "anchor of 1024 bits": (lambda: under_root(key="rsa1024"), Fault.WEAK_KEY, "Bad root"),
    "P-224": (lambda: below(key="p224"), Fault.WEAK_KEY, "device"),
    "Ed25519": (lambda: below(key="ed25519"), Fault.UNSUPPORTED_KEY, "device"),
    "secp256k1": (lambda: below(key="k256"), Fault.UNSUPPORTED_KEY, "device"),
    "Ed25519 intermediate": (lambda: under(key="ed25519"), Fault.UNSUPPORTED_KEY, "Cell"),
    "SHA-1": (lambda: below(hash="sha1"), Fault.WEAK_SIGNATURE, "device"),
    "SHA-1 intermediate": (lambda: under(hash="sha1"), Fault.WEAK_SIGNATURE, "Cell"),
    "SHA-224": (lambda: below(hash="sha224"), Fault.WEAK_SIGNATURE, "device"),
    "RSA above 8192 bits": (
        lambda: below(key=PublicOnly((1 << 9000) + 1, 65537)), Fault.UNSUPPORTED_KEY, "device",
    ),
    "RSA with a giant exponent": (
        lambda: below(key=PublicOnly((1 << 2047) + 1, (1 << 100) + 1)), Fault.UNSUPPORTED_KEY, "device",
    ),
    "signature of an unknown kind": (
        lambda: replaced("06082a8648ce3d040302", "06082a8648ce3d04037f"), Fault.WEAK_SIGNATURE, "1.2.840.10045.4.3.127",
    ),
    "leaf signing a leaf, its CA missing": (unfinished_leaf_under_leaf, Fault.NOT_A_CA, "device"),
    "path length, self-issued": (self_issued, Fault.PATH_TOO_LONG, "Upper"),
    "version 1, as its own anchor": (old_itself, Fault.SELF_SIGNED, "device"),
    "unknown critical extension": (lambda: below(extra=[(UNKNOWN, True)]), Fault.UNKNOWN_EXTENSION, "device"),
    "unknown critical extension of a CA": (lambda: under(extra=[(UNKNOWN, True)]), Fault.UNKNOWN_EXTENSION, "Cell"),
    "names not permitted": (
        constrained(x509.NameConstraints([x509.DNSName("example.com")], None)), Fault.NAME_NOT_PERMITTED, "Constrained",
    ),
    "names excluded": (
        constrained(x509.NameConstraints(None, [x509.DNSName("example.org")])), Fault.NAME_NOT_PERMITTED, "Constrained",
    ),
    "directory names constrained": (
        constrained(x509.NameConstraints([ACME], None)), Fault.NAME_NOT_PERMITTED, "Constrained",
    ),
    "version 1, names constrained": (old_below_constrained, Fault.NAME_NOT_PERMITTED, "Constrained"),
    "version 1, expired": (lambda: old_below(not_after=PKI.now - DAY), Fault.EXPIRED, "device"),
    "version 1, weak key": (lambda: old_below(key="rsa1024"), Fault.WEAK_KEY, "device"),
    "version 1, another issuer of that name": (old_namesake, Fault.BAD_SIGNATURE, "device"),
    "version 1, issued by a device": (old_under_old, Fault.NOT_A_CA, "first"),
    "version 1, expired intermediate": (old_under_an_old_path, Fault.EXPIRED, "Cell"),
    "version 1, path length": (old_below_too_many, Fault.PATH_TOO_LONG, "Short root"),
    "version 1, deep": (old_and_deep, Fault.CHAIN_TOO_LONG, "device"),
    "CA of version 1": (lambda: under(is_version_1=True), Fault.NOT_A_CA, "Cell"),
    "anchor of version 1": (lambda: under_root(is_version_1=True), Fault.NOT_A_CA, "Bad root"),
    "giant chain": (giant, Fault.CHAIN_TOO_LONG, "65536 bytes"),
    "many certificates": (many, Fault.CHAIN_TOO_LONG, "at most 10"),
    "deep chain": (deep, Fault.CHAIN_TOO_LONG, "device"),
    "giant certificate": (giant_certificate, Fault.MALFORMED, "12288 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_chain_is_refused_for_its_reason(case: str) -> None:
    """The fault, and a sentence that names the certificate or the bound."""
    make, fault, named = BAD[case]
    leaf, shown, anchor = make()
    with pytest.raises(UntrustedCertificate) as refused:
        chain = trust.parse(PresentedChain(leaf.der, tuple(one.der for one in shown)))
        trust.verify(chain, anchor.certificate, (), NOW_MS)
    assert (refused.value.fault, refused.value.detail) == (fault, refused.value.detail)
    assert named in refused.value.detail
    assert refused.value.detail.endswith(".")
    assert len(refused.value.detail) < 500


@pytest.mark.parametrize("case", [name for name in BAD if name not in ("many certificates", "giant chain")])
def test_a_bad_chain_is_refused_wherever_its_cas_come_from(case: str) -> None:
    """From the profile's PEM as from the device."""
    make, fault, _ = BAD[case]
    leaf, shown, anchor = make()
    with pytest.raises(UntrustedCertificate) as refused:
        chain = trust.parse(PresentedChain(leaf.der))
        trust.verify(chain, anchor.certificate, [one.certificate for one in reversed(shown)], NOW_MS)
    assert refused.value.fault == fault


def test_a_constraint_that_is_kept_is_no_fault() -> None:
    """Names that the CA may vouch for, and kinds of names that the certificate does not have."""
    permitted = x509.NameConstraints([x509.DNSName("example.org"), x509.IPAddress(ip_network("10.0.0.0/8"))], None)
    leaf, shown, anchor = constrained(permitted)()
    chain = trust.parse(PresentedChain(leaf.der, tuple(one.der for one in shown)))
    assert len(trust.verify(chain, anchor.certificate, (), NOW_MS)) == 3


def test_a_subject_is_shown_on_one_line_and_not_whole() -> None:
    """Whatever it holds: it stands in a log."""
    hostile = "a\nb\x1b[31m" + '"' + "x" * 50
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostile)] * 10)
    leaf = LINE.leaf("", subject=subject, not_after=PKI.now - DAY)
    with pytest.raises(UntrustedCertificate) as refused:
        trust.check_validity(leaf.certificate, NOW_MS)
    assert refused.value.detail.isprintable()
    assert len(refused.value.detail) < 250
