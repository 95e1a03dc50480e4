"""What can be wrong with a certificate chain, in words: the rules each certificate must keep, and which one was broken.

`explain` finds the first fault of a chain that has been refused. It only ever explains: whether a chain is trusted is
decided in `core.trust`, by the verifier and by the rules here together.

Source: RFC 5280 sections 4.2.1, 6.1; engineering.md section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared import certificates
from shared.errors import UntrustedCertificate

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_RSA_EXPONENT_BITS = 64  # larger ones make a signature as dear to check as to make
CURVES = ("secp256r1", "secp384r1", "secp521r1")
HASHES = ("sha256", "sha384", "sha512")
MAX_SUBJECT_CHARS = 120
# What somebody checks who has read it; any other critical extension means "do not use this if you do not know me".
KNOWN_EXTENSIONS = frozenset(
    one.oid for one in (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
)
KNOWN_CA_EXTENSIONS = KNOWN_EXTENSIONS | {x509.NameConstraints.oid}


Extension = TypeVar("Extension", bound=x509.ExtensionType)


class Fault(StrEnum):
    """Why a chain is not trusted."""

    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"
    NOT_A_CA = "NOT_A_CA"
    """It has issued another one and may not: no BasicConstraints with CA:TRUE."""
    CA_AS_DEVICE = "CA_AS_DEVICE"
    """A CA's certificate is shown as a device's own."""
    PATH_TOO_LONG = "PATH_TOO_LONG"
    """More CAs below one than its path length allows."""
    WRONG_USAGE = "WRONG_USAGE"
    SELF_SIGNED = "SELF_SIGNED"
    UNKNOWN_ISSUER = "UNKNOWN_ISSUER"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    WEAK_KEY = "WEAK_KEY"
    UNSUPPORTED_KEY = "UNSUPPORTED_KEY"
    WEAK_SIGNATURE = "WEAK_SIGNATURE"
    CHAIN_TOO_LONG = "CHAIN_TOO_LONG"
    UNKNOWN_EXTENSION = "UNKNOWN_EXTENSION"
    NAME_NOT_PERMITTED = "NAME_NOT_PERMITTED"
    """A CA may not vouch for such names (NameConstraints)."""
    REVOKED = "REVOKED"
    STATUS_UNKNOWN = "STATUS_UNKNOWN"
    MALFORMED = "MALFORMED"
    AGAINST_THE_RULES = "AGAINST_THE_RULES"
    """Refused by the verifier for a reason of its own."""


def refusal(fault: Fault, detail: str) -> UntrustedCertificate:
    return UntrustedCertificate(detail, fault=fault)


def of(certificate: x509.Certificate) -> str:
    """How a sentence calls a certificate: its subject, on one line and not too long."""
    text = certificates.name_text(certificate.subject).replace('"', "?")
    if len(text) > MAX_SUBJECT_CHARS:
        text = text[:MAX_SUBJECT_CHARS] + "…"
    return f'"{text}"' if text else f"without a subject (serial {certificate.serial_number:x})"


def second_of(now_ms: int) -> datetime:
    """Certificates know whole seconds."""
    return datetime.fromtimestamp(now_ms // 1000, UTC)


def validity_fault(certificate: x509.Certificate, now: datetime) -> UntrustedCertificate | None:
    """`now` in whole seconds."""
    if now > (end := certificate.not_valid_after_utc):
        return refusal(Fault.EXPIRED, f"The certificate {of(certificate)} ended at {_instant(end)}: renew it.")
    if now < (start := certificate.not_valid_before_utc):
        return refusal(
            Fault.NOT_YET_VALID,
            f"The certificate {of(certificate)} is valid from {_instant(start)}, and here it is {_instant(now)}: "
            "correct the clock of the one that issued it, or wait.",
        )
    return None


def key_fault(certificate: x509.Certificate) -> UntrustedCertificate | None:
    """RSA of 2048 to 8192 bits, or P-256, P-384, P-521: what TLS peers everywhere have."""
    key = certificate.public_key()
    wanted = "make one on P-256, or RSA with 2048 bits or more"
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            return refusal(
                Fault.WEAK_KEY,
                f"The RSA key of the certificate {of(certificate)} has {key.key_size} bits, too few: {wanted}.",
            )
        if key.key_size > MAX_RSA_BITS or key.public_numbers().e.bit_length() > MAX_RSA_EXPONENT_BITS:
            return refusal(
                Fault.UNSUPPORTED_KEY,
                f"The RSA key of the certificate {of(certificate)} is above {MAX_RSA_BITS} bits or has a giant "
                f"exponent: {wanted}.",
            )
        return None
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name in CURVES:
            return None
        fault = Fault.WEAK_KEY if key.curve.key_size < 256 else Fault.UNSUPPORTED_KEY
        return refusal(fault, f"The key of the certificate {of(certificate)} is on {key.curve.name}: {wanted}.")
    kind = type(key).__name__.removesuffix("PublicKey")
    return refusal(
        Fault.UNSUPPORTED_KEY, f"The key of the certificate {of(certificate)} is of the kind {kind}: {wanted}."
    )


def signature_fault(certificate: x509.Certificate) -> UntrustedCertificate | None:
    """The hash that the issuer's signature is over. That of a trust anchor does not matter.

    Keys that sign without one (Ed25519) are the issuer's fault: see `key_fault`.
    """
    try:
        used = certificate.signature_hash_algorithm
        name = used.name if used else ""
    except UnsupportedAlgorithm:
        name = certificate.signature_algorithm_oid.dotted_string
    if not name or name in HASHES:
        return None
    return refusal(
        Fault.WEAK_SIGNATURE,
        f"The certificate {of(certificate)} is signed with {name}: have it issued with SHA-256 or better.",
    )


def device_fault(certificate: x509.Certificate) -> UntrustedCertificate | None:
    """Whether a device may show this one as its own. Absent usages permit every use."""
    if is_ca(certificate):
        return refusal(
            Fault.CA_AS_DEVICE,
            f"The certificate {of(certificate)} is a CA's, and a device shows it as its own: give the device one "
            "with basicConstraints CA:FALSE.",
        )
    usage = extension(certificate, x509.KeyUsage)
    if usage and not (usage.digital_signature or usage.key_agreement):
        return refusal(
            Fault.WRONG_USAGE,
            f"The keyUsage of the certificate {of(certificate)} lacks digitalSignature: issue it with that.",
        )
    return _client_fault(certificate)


def ca_fault(certificate: x509.Certificate) -> UntrustedCertificate | None:
    """Whether this one may issue certificates of devices. Absent usages permit every use."""
    if not is_ca(certificate):
        return refusal(
            Fault.NOT_A_CA,
            f"The certificate {of(certificate)} has issued another one and is no CA: issue it with "
            "basicConstraints=critical,CA:TRUE, or have the device's certificate issued by a CA.",
        )
    usage = extension(certificate, x509.KeyUsage)
    if usage and not usage.key_cert_sign:
        return refusal(
            Fault.WRONG_USAGE, f"The keyUsage of the CA {of(certificate)} lacks keyCertSign: issue it with that."
        )
    return _client_fault(certificate)


def _client_fault(certificate: x509.Certificate) -> UntrustedCertificate | None:
    purposes = extension(certificate, x509.ExtendedKeyUsage)
    wanted = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if purposes is None or any(one in purposes for one in wanted):
        return None
    return refusal(
        Fault.WRONG_USAGE,
        f"The extendedKeyUsage of the certificate {of(certificate)} lacks clientAuth: issue it with that.",
    )


def extension_fault(certificate: x509.Certificate, *, is_issuer: bool) -> UntrustedCertificate | None:
    known = KNOWN_CA_EXTENSIONS if is_issuer else KNOWN_EXTENSIONS
    unknown = [one.oid.dotted_string for one in certificate.extensions if one.critical and one.oid not in known]
    if not unknown:
        return None
    return refusal(
        Fault.UNKNOWN_EXTENSION,
        f"The certificate {of(certificate)} has the critical extension {unknown[0][:64]}, which is not "
        "understood here: issue it without, or not critical.",
    )


def extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    """The value of an extension, if it is there."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def is_ca(certificate: x509.Certificate) -> bool:
    constraints = extension(certificate, x509.BasicConstraints)
    return bool(constraints and constraints.ca)


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's name and key fit; nothing else is looked at."""
    if certificate.issuer != issuer.subject or key_fault(issuer):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True


def _seems_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """For explanations alone: signatures too weak to be looked at count as good."""
    if certificate.issuer == issuer.subject and (key_fault(issuer) or signature_fault(certificate)):
        return not _is_another_key(certificate, issuer)
    return is_signed_by(certificate, issuer)


def rooted(
    anchor: x509.Certificate,
    others: Iterable[x509.Certificate],
    is_issued_by: Callable[[x509.Certificate, x509.Certificate], bool] | None = None,
) -> dict[x509.Certificate, x509.Certificate]:
    """Those of `others` that hang on `anchor` by signatures, each with one issuer of its own.

    From the anchor downwards, so that a stranger's certificates cost one check each: nobody's key is used before it
    has been vouched for.
    """
    check = is_issued_by or is_signed_by
    parents: dict[x509.Certificate, x509.Certificate] = {}
    reached, rest = [anchor], list(others)
    for issuer in reached:  # grows while it is walked
        found = [one for one in rest if check(one, issuer)]
        rest = [one for one in rest if one not in found]
        parents.update(dict.fromkeys(found, issuer))
        reached += found
    return parents


def explain(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], anchor: x509.Certificate, now: datetime, why: str
) -> UntrustedCertificate:
    """The first fault, from the leaf upwards, of a chain that the verifier has refused for `why`.

    `others`: distinct, without leaf and anchor.
    """
    own = _own_fault(leaf, now, is_issuer=False)
    if own:
        return own
    if leaf == anchor:
        return self_signed(leaf)
    parents = rooted(anchor, [*others, leaf], _seems_issued_by)
    if leaf not in parents:
        return _dead_end(leaf, others, anchor)
    path = [leaf]
    while path[-1] != anchor:
        path.append(parents[path[-1]])
    for position, ca in enumerate(path[1:], 1):
        fault = _own_fault(ca, now, is_issuer=True, is_anchor=ca == anchor) or length_fault(path, position)
        if fault:
            return fault
    return _verdict(leaf, path, why)


def _own_fault(
    certificate: x509.Certificate, now: datetime, *, is_issuer: bool, is_anchor: bool = False
) -> UntrustedCertificate | None:
    checks: list[Callable[[], UntrustedCertificate | None]] = [
        lambda: validity_fault(certificate, now),
        lambda: key_fault(certificate),
        lambda: None if is_anchor else signature_fault(certificate),
        lambda: ca_fault(certificate) if is_issuer else device_fault(certificate),
        lambda: extension_fault(certificate, is_issuer=is_issuer),
    ]
    return next((fault for check in checks if (fault := check())), None)


def length_fault(path: Sequence[x509.Certificate], position: int) -> UntrustedCertificate | None:
    """Whether the CA at this position of a path, whose leaf is at 0, has too many CAs below it."""
    constraints = extension(path[position], x509.BasicConstraints)
    allowed = constraints.path_length if constraints else None
    below = position - 1  # RFC 5280 would not count CAs that have the name of their issuer; the verifier does
    if allowed is None or below <= allowed:
        return None
    return refusal(
        Fault.PATH_TOO_LONG,
        f"The path length of the CA {of(path[position])} is {allowed}, and the CAs below it are {below}: issue it with "
        "a larger pathlen, or have the device's certificate issued further up.",
    )


def _dead_end(
    leaf: x509.Certificate, others: Sequence[x509.Certificate], anchor: x509.Certificate
) -> UntrustedCertificate:
    """Upwards from the leaf, to the certificate whose issuer is not there."""
    top, rest = leaf, list(others)
    while following := next((one for one in rest if _seems_issued_by(top, one)), None):
        fault = ca_fault(following)
        if fault:
            return fault
        top = following
        rest.remove(following)
    if top.issuer == top.subject and (top == leaf or is_signed_by(top, top)):
        return self_signed(leaf) if top == leaf else _other_root(top, anchor)
    namesakes = [one for one in (anchor, *others) if one.subject == top.issuer and one != top]
    if not namesakes:
        return refusal(
            Fault.UNKNOWN_ISSUER,
            f"The issuer of the certificate {of(top)} is neither shown by the device nor in the profile, whose CA is "
            f"{of(anchor)}: send the CAs in between along, or add them to the profile's PEM.",
        )
    if all(_is_another_key(top, one) for one in namesakes):
        return refusal(
            Fault.UNKNOWN_ISSUER,
            f"The certificate {of(top)} was issued by another CA of the same name as {of(namesakes[0])}: put the CA "
            "that issued it into the profile.",
        )
    return refusal(
        Fault.BAD_SIGNATURE,
        f"The signature of the certificate {of(top)} is not by the key of {of(namesakes[0])}: it was altered, or "
        "issued by another CA of the same name.",
    )


def self_signed(leaf: x509.Certificate) -> UntrustedCertificate:
    return refusal(
        Fault.SELF_SIGNED,
        f"The certificate {of(leaf)} is self-signed: have it issued by the profile's CA, or store it as the "
        "credentials of its device.",
    )


def _other_root(root: x509.Certificate, anchor: x509.Certificate) -> UntrustedCertificate:
    return refusal(
        Fault.UNKNOWN_ISSUER,
        f"The chain ends at the CA {of(root)}, and the profile's is {of(anchor)}: put the CA that issued the device's "
        "certificate into the profile.",
    )


def _is_another_key(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the certificate itself says that it was issued with another key than the one of `issuer`."""
    wanted = extension(certificate, x509.AuthorityKeyIdentifier)
    own = extension(issuer, x509.SubjectKeyIdentifier)
    return bool(wanted and own and wanted.key_identifier and wanted.key_identifier != own.digest)


def _verdict(leaf: x509.Certificate, path: Sequence[x509.Certificate], why: str) -> UntrustedCertificate:
    """What no rule of ours has found."""
    constrained = next((one for one in path[1:] if extension(one, x509.NameConstraints)), None)
    if constrained and "onstraint" in why:
        return refusal(
            Fault.NAME_NOT_PERMITTED,
            f"The CA {of(constrained)} may not vouch for the names of the certificate {of(leaf)} (nameConstraints), or "
            "constrains kinds of names that are not understood here: issue it by another CA.",
        )
    if "max depth" in why:
        return refusal(
            Fault.CHAIN_TOO_LONG, f"The way from the certificate {of(leaf)} to the profile's CA is too long."
        )
    return refusal(
        Fault.AGAINST_THE_RULES,
        f"The chain of the certificate {of(leaf)} breaks a rule of X.509: {why[:200]}.",
    )


def _instant(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
