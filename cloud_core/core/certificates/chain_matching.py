"""Which device profile admits a certificate that nobody has registered, and the device's name by its rules.

Source: wire-contract.md section 1.8.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]
from cryptography import x509

from cloud_core.core.certificates import trust, trust_faults
from cloud_core.core.certificates.trust import Fault
from cloud_core.core.names import check_device_name
from cloud_core.model import DeviceProfile, ProvisionStrategy
from shared import certificates
from shared.errors import InvalidDeviceName, UntrustedCertificate

MAX_ANCHORS = 16  # different CAs of the same name that are tried
MAX_PATH = 10
MAX_COMMON_NAME_CHARS = 1_024
MAX_PATTERN_CHARS = 500
MAX_ISSUER_CHARS = 120
MAX_EXPANDED = 20_000
PATTERN_S = 0.01  # for one pattern
PATTERNS_S = 0.03  # for those of all profiles that share a CA


@dataclass(frozen=True, slots=True)
class Match:
    """The profile that admits a certificate, the name of the device, and the path leaf … anchor."""

    profile: DeviceProfile
    name: str
    path: tuple[x509.Certificate, ...]


class NoMatch(Exception):
    """No profile admits it: `error` says why, `profile` is the one that came nearest, if any did."""

    def __init__(self, error: UntrustedCertificate | InvalidDeviceName, profile: DeviceProfile | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.profile = profile


def name_hashes(chain: trust.Chain) -> list[bytes]:
    """By these a profile is found that may know the chain: issuers of what is shown, and the CAs that are shown."""
    shown = (chain.leaf, *chain.others)
    names = {one.issuer for one in shown} | {one.subject for one in chain.others}
    return [certificates.name_hash(one) for one in names]


def match(chain: trust.Chain, profiles: Sequence[DeviceProfile], now_ms: int) -> Match:
    """The profile whose CA is nearest to the leaf, of those whose CA verifies it and whose name rule takes it.

    Raises: NoMatch.
    """
    verified = _verified(chain, profiles, now_ms)
    name = common_name(chain.leaf)
    deadline_s = time.monotonic() + PATTERNS_S
    matches: list[Match] = []
    fault: NoMatch | None = None
    for profile, path in verified:
        if matches and len(path) > len(matches[0].path):
            break
        try:
            allowed_s = min(PATTERN_S, deadline_s - time.monotonic())
            matches.append(Match(profile, device_name(profile, name, allowed_s), path))
        except InvalidDeviceName as error:
            fault = fault or NoMatch(error, profile)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise NoMatch(_ambiguous([one.profile for one in matches], name), matches[0].profile)
    assert fault is not None, "there is at least one verified profile"
    raise fault


def _verified(
    chain: trust.Chain, profiles: Sequence[DeviceProfile], now_ms: int
) -> list[tuple[DeviceProfile, tuple[x509.Certificate, ...]]]:
    """The profiles whose CA verifies the leaf, the nearest first. Each CA is tried once, however many share it."""
    verdicts: dict[str, tuple[x509.Certificate, ...] | UntrustedCertificate] = {}
    found: list[tuple[DeviceProfile, tuple[x509.Certificate, ...]]] = []
    faults: list[tuple[bool, NoMatch]] = []
    for profile in sorted(profiles, key=lambda one: not _is_shown(chain, one)):
        which = profile.provision.secret
        anchor, *helpers = anchors_of(which)
        if which not in verdicts:
            if len(verdicts) >= MAX_ANCHORS:
                continue
            verdict = verdicts[which] = _verdict(chain, anchor, helpers, now_ms)
            if isinstance(verdict, UntrustedCertificate):
                faults.append((_vouches(anchor, helpers, chain), NoMatch(verdict, profile)))
        known = verdicts[which]
        if not isinstance(known, UntrustedCertificate):
            found.append((profile, known))
    if found:
        return sorted(found, key=lambda one: len(one[1]))
    raise max(faults, key=lambda one: one[0])[1] if faults else NoMatch(unknown_issuer(chain.leaf))


def _vouches(anchor: x509.Certificate, helpers: Sequence[x509.Certificate], chain: trust.Chain) -> bool:
    """Whether signatures lead to this CA at all: then what is wrong with the chain concerns its profile."""
    return chain.leaf in trust_faults.rooted(anchor, [*chain.others, *helpers, chain.leaf])


def _verdict(
    chain: trust.Chain, anchor: x509.Certificate, helpers: Sequence[x509.Certificate], now_ms: int
) -> tuple[x509.Certificate, ...] | UntrustedCertificate:
    try:
        return trust.verify(chain, anchor, helpers, now_ms)
    except UntrustedCertificate as error:
        return error


def _is_shown(chain: trust.Chain, profile: DeviceProfile) -> bool:
    return anchors_of(profile.provision.secret)[0] in chain.others


def unknown_issuer(leaf: x509.Certificate) -> UntrustedCertificate:
    """Nobody here has to do with this certificate."""
    if leaf.issuer == leaf.subject:
        return trust_faults.self_signed(leaf)
    return trust_faults.refusal(
        Fault.UNKNOWN_ISSUER,
        f"No device has the certificate {trust_faults.of(leaf)}, and no profile the CA '{_issuer_of(leaf)}' that "
        "issued it: put that CA into a profile with the strategy X509_CERTIFICATE_CHAIN, or store the certificate as "
        "the credentials of its device.",
    )


def _issuer_of(leaf: x509.Certificate) -> str:
    return certificates.name_text(leaf.issuer, MAX_ISSUER_CHARS)


def _ambiguous(profiles: Sequence[DeviceProfile], common_name: str) -> InvalidDeviceName:
    if len({one.tenant_id for one in profiles}) > 1:  # nobody learns of the profiles of others
        names = "of several tenants"
    else:
        names = ", ".join(f"'{one.name[:60]}'" for one in profiles[:5])
    return InvalidDeviceName(
        f"{len(profiles)} profiles with the same CA take the common name '{common_name[:100]}' ({names}); "
        "change a certificateRegExPattern so that one of them takes it"
    )


@lru_cache(maxsize=256)
def anchors_of(pem: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a profile: its anchor, then those that help to build paths."""
    return tuple(certificates.load_all(pem))


def path_of(chain: trust.Chain, profile: DeviceProfile) -> tuple[x509.Certificate, ...]:
    """The leaf and its issuers as far as profile and peer show them, up to the profile's CA.

    For the certificate of a known device, whose trust is decided already: a resumed session shows the leaf alone.
    """
    is_chain_profile = profile.provision.strategy is ProvisionStrategy.X509_CERTIFICATE_CHAIN
    own = anchors_of(profile.provision.secret) if is_chain_profile else ()
    known = (*own, *chain.others)
    path = [chain.leaf]
    while len(path) < MAX_PATH and path[-1].issuer != path[-1].subject and path[-1] not in own[:1]:
        issuer = next((one for one in known if trust_faults.is_signed_by(path[-1], one)), None)
        if issuer is None:
            break
        path.append(issuer)
    return tuple(path)


# -- names ----------------------------------------------------------------------------------------


def common_name(leaf: x509.Certificate) -> str:
    """The first CN of the subject; empty where there is none that can be read."""
    try:
        return certificates.common_name(leaf)
    except ValueError:  # a name that breaks X.509's own rules
        return ""


def device_name(profile: DeviceProfile, common_name: str, allowed_s: float = PATTERN_S) -> str:
    """Group 1 of the profile's pattern, searched in the common name. Raises: InvalidDeviceName."""
    pattern = profile.provision.certificate_pattern
    which = f"certificateRegExPattern '{pattern[:100]}' of profile '{profile.name[:60]}'"
    if not common_name:
        raise InvalidDeviceName(
            "the certificate's subject has no common name (CN), from which the device gets its name"
        )
    if len(common_name) > MAX_COMMON_NAME_CHARS:
        raise InvalidDeviceName(f"the certificate's common name is above {MAX_COMMON_NAME_CHARS} characters")
    try:
        if allowed_s <= 0:
            raise TimeoutError
        found = compiled(pattern).search(common_name, timeout=allowed_s, concurrent=False)
    except TimeoutError as error:
        raise InvalidDeviceName(f"{which} takes too long; write it without nested repetitions") from error
    except BadPattern as error:
        raise InvalidDeviceName(f"{which} cannot be used: {error}") from error
    if found is None:
        raise InvalidDeviceName(f"the common name '{common_name[:100]}' does not match {which}")
    return check_device_name(found.group(1) or "")


class BadPattern(ValueError):
    """`str()` says what is wrong and how to mend it."""


@lru_cache(maxsize=1_024)
def compiled(pattern: str) -> Any:  # a pattern of `regex`, whose searches can be given a time limit
    """Raises: BadPattern."""
    if not pattern.strip():
        raise BadPattern("it is empty; write a regular expression whose first group is the device's name, such as (.*)")
    if len(pattern) > MAX_PATTERN_CHARS:
        raise BadPattern(f"it is above {MAX_PATTERN_CHARS} characters")
    if _expanded(pattern) > MAX_EXPANDED:
        raise BadPattern("its repetitions multiply; write it with smaller counts, or with + and *")
    try:
        made = regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError, ValueError) as error:
        raise BadPattern(f"it is no regular expression ({str(error)[:100]})") from error
    if made.groups < 1:
        raise BadPattern("it has no group; put the part of the common name that is the device's name in ( )")
    return made


_COUNT = re.compile(r"\{(\d{1,9})")


def _expanded(pattern: str) -> int:
    """About how many steps the pattern has once its least counts are written out: compiling takes as long."""
    outer: list[int] = []
    total, last, at = 0, 0, 0
    while at < len(pattern):
        count = _COUNT.match(pattern, at)
        if count is not None:
            total += last * (int(count[1]) - 1) if int(count[1]) else 0
            last *= max(1, int(count[1]))
            at = count.end()
            continue
        character = pattern[at]
        if character == "(":
            outer.append(total)
            total, last = 0, 0
        elif character == ")" and outer:
            last = max(1, total)
            total = outer.pop() + last
        else:
            last = 1
            total += 1
        at += 2 if character == "\\" else 1
    return total
