"""Whether the chain that a device shows leads to a CA: the one place where a certificate is found good.

`cryptography`'s verifier decides, under the policy below, together with the rules of `trust_faults`; that module also
says what was wrong. Possession of the key is TLS's matter, revocation `core.revocation`'s. No clock, no network.

- A CA needs BasicConstraints with CA:TRUE, critical or not; keyUsage and extendedKeyUsage count where they are present
  (keyCertSign, clientAuth). A device's certificate needs none of them, and may be of X.509 version 1, as openssl's
  shortest recipes make it.
- Every certificate of the path must be valid now, the profile's own CA too.
- The profile's CA may be a root or not; nothing above it is looked at.

Source: RFC 5280 section 6.1; engineering.md section 3.4.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.x509.verification import (
    ClientVerifier,
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from cloud_core.core.certificates import trust_faults
from cloud_core.core.certificates.trust_faults import Fault, refusal
from cloud_core.model import PresentedChain
from shared import certificates
from shared.errors import UntrustedCertificate

__all__ = ["Chain", "Fault", "check_validity", "parse", "verify"]

MAX_CERTIFICATES = 10  # of a chain as shown, and of a path with its anchor
MAX_CHAIN_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Chain:
    """What a peer showed, read; every part of each certificate is known to be readable."""

    leaf: x509.Certificate
    others: tuple[x509.Certificate, ...]
    leaf_der: bytes


def parse(presented: PresentedChain) -> Chain:
    """Raises: UntrustedCertificate (too many, too large, malformed)."""
    count = 1 + len(presented.others)
    if count > MAX_CERTIFICATES:
        raise refusal(
            Fault.CHAIN_TOO_LONG, f"The device shows {count} certificates; at most {MAX_CERTIFICATES} are looked at."
        )
    if len(presented.leaf) + sum(map(len, presented.others)) > MAX_CHAIN_BYTES:
        raise refusal(Fault.CHAIN_TOO_LONG, f"The device's chain is above {MAX_CHAIN_BYTES} bytes.")
    leaf = _readable(presented.leaf, 1, certificates.load)
    others = tuple(_readable(der, number, _load_again) for number, der in enumerate(presented.others, 2))
    return Chain(leaf, others, presented.leaf)


def check_validity(leaf: x509.Certificate, now_ms: int) -> None:
    """Raises: UntrustedCertificate (over, or not yet valid)."""
    fault = trust_faults.validity_fault(leaf, trust_faults.second_of(now_ms))
    if fault:
        raise fault


def verify(
    chain: Chain, anchor: x509.Certificate, helpers: Sequence[x509.Certificate], now_ms: int
) -> tuple[x509.Certificate, ...]:
    """The path from the leaf to `anchor`, both included.

    `helpers` are certificates that the profile has beside its CA; they help to build paths, as those do that the
    device shows, and are trusted no more than these. Order and repetitions do not matter.

    Raises: UntrustedCertificate, whose `fault` and `detail` say which certificate is wrong, and how to mend it.
    """
    leaf, now = chain.leaf, trust_faults.second_of(now_ms)
    others = _distinct((*chain.others, *helpers), leaf, anchor)
    try:
        path = _path(leaf, _unambiguous(others, anchor), anchor, now)
    except VerificationError as error:
        raise trust_faults.explain(leaf, others, anchor, now, str(error)) from None
    fault = _leaf_fault(leaf, anchor, now)
    if fault:
        raise fault
    return path


# The CAs that a fleet's devices show are the same ones every time.
_load_again = lru_cache(maxsize=512)(certificates.load)


def _readable(der: bytes, number: int, load: Callable[[bytes], x509.Certificate]) -> x509.Certificate:
    try:
        return load(der)
    except certificates.MalformedCertificate as error:
        which = "device's certificate" if number == 1 else f"certificate number {number} of the device's chain"
        raise refusal(Fault.MALFORMED, f"The {which} is malformed. {error}") from error


def _distinct(
    found: Iterable[x509.Certificate], leaf: x509.Certificate, anchor: x509.Certificate
) -> list[x509.Certificate]:
    return [one for one in dict.fromkeys(found) if one not in (leaf, anchor)]


def _unambiguous(others: list[x509.Certificate], anchor: x509.Certificate) -> list[x509.Certificate]:
    """Those that the verifier may try. It tries every combination, up to a bound of its own: certificates of one name
    must first be shown to hang on the anchor, through CAs."""
    if len(others) < 2 or len({certificates.name_hash(one.subject) for one in others}) == len(others):
        return others
    return list(trust_faults.rooted(anchor, [one for one in others if trust_faults.is_ca(one)]))


def _path(
    leaf: x509.Certificate, others: list[x509.Certificate], anchor: x509.Certificate, now: datetime
) -> tuple[x509.Certificate, ...]:
    """Raises: VerificationError."""
    if leaf.version is not x509.Version.v3:
        return _path_of_old_leaf(leaf, others, anchor, now)
    for issuer in others:
        tail = _TAILS.get(issuer, anchor, now) if issuer.subject == leaf.issuer else ()
        if not tail or not all(one in others for one in tail[:-1]):
            continue  # the answer follows from what is there, and not from what was there before
        try:
            _verifier(issuer, now, DEVICE_POLICY).verify(leaf, [])
        except VerificationError:
            continue
        return (leaf, *tail)
    path = tuple(_verifier(anchor, now, DEVICE_POLICY).verify(leaf, others).chain)
    _TAILS.put(path[1:])
    return path


class _Tails:
    """Ways from an issuer to an anchor that were found good: the next device of the same issuer costs one signature.

    They hold while all of their certificates are valid, and only where no CA constrains names: that depends on the
    leaf, and is judged with the whole path. Everything else that is asked of a CA does not.
    """

    MAX_KEPT = 256

    def __init__(self) -> None:
        self._kept: OrderedDict[
            tuple[x509.Certificate, x509.Certificate], tuple[datetime, datetime, tuple[x509.Certificate, ...]]
        ] = OrderedDict()

    def get(self, issuer: x509.Certificate, anchor: x509.Certificate, now: datetime) -> tuple[x509.Certificate, ...]:
        """From the issuer to the anchor; empty for what is not known to be good now."""
        kept = self._kept.get((issuer, anchor))
        return kept[2] if kept is not None and kept[0] <= now <= kept[1] else ()

    def put(self, tail: tuple[x509.Certificate, ...]) -> None:
        """`tail` is a path without its leaf."""
        if len(tail) < 2 or any(trust_faults.extension(one, x509.NameConstraints) for one in tail):
            return
        begin = max(one.not_valid_before_utc for one in tail)
        end = min(one.not_valid_after_utc for one in tail)
        self._kept[tail[0], tail[-1]] = begin, end, tail
        if len(self._kept) > self.MAX_KEPT:
            self._kept.popitem(last=False)


_TAILS = _Tails()


def _path_of_old_leaf(
    leaf: x509.Certificate, others: list[x509.Certificate], anchor: x509.Certificate, now: datetime
) -> tuple[x509.Certificate, ...]:
    """Version 1 has no extensions, and the verifier wants version 3: it judges the path of the issuer instead.

    It takes the issuer for the end of its path, so how many CAs there may be is counted anew. Everything else that can
    be said of the leaf is in `_leaf_fault`, and here, by whom it is signed.
    """
    refused = VerificationError("no issuer is there")
    for issuer in (anchor, *others):
        if not trust_faults.is_signed_by(leaf, issuer):
            continue
        try:
            path = _verifier(anchor, now, CA_POLICY).verify(issuer, [one for one in others if one != issuer]).chain
        except VerificationError as error:
            refused = error
            continue
        whole = (leaf, *path)
        if len(whole) > MAX_CERTIFICATES:
            refused = VerificationError("chain construction exceeds max depth")
        elif not any(trust_faults.length_fault(whole, position) for position in range(1, len(whole))):
            return whole
    raise refused


def _leaf_fault(leaf: x509.Certificate, anchor: x509.Certificate, now: datetime) -> UntrustedCertificate | None:
    """What the verifier does not ask of a leaf under DEVICE_POLICY, or not of one of version 1."""
    return (
        trust_faults.validity_fault(leaf, now)
        or trust_faults.key_fault(leaf)
        or trust_faults.signature_fault(leaf)
        or trust_faults.device_fault(leaf)
        or (trust_faults.self_signed(leaf) if leaf == anchor else None)
    )


def _verifier(anchor: x509.Certificate, now: datetime, policy: ExtensionPolicy) -> ClientVerifier:
    return (
        PolicyBuilder()
        .store(Store([anchor]))
        .time(now)
        .max_chain_depth(MAX_CERTIFICATES - 2)  # counts the CAs between leaf and anchor
        .extension_policies(ca_policy=CA_POLICY, ee_policy=policy)
        .build_client_verifier()
    )


def _check_ca(_policy: Policy, certificate: x509.Certificate, _constraints: x509.BasicConstraints) -> None:
    """The verifier wants an exception, and goes on to look for another path."""
    fault = trust_faults.key_fault(certificate) or trust_faults.ca_fault(certificate)
    if fault:
        raise fault


# `permit_all` still checks signatures, dates, path lengths, name constraints and unknown critical extensions.
CA_POLICY = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _check_ca)
DEVICE_POLICY = ExtensionPolicy.permit_all()  # see `_leaf_fault`
