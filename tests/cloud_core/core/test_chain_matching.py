"""Which profile takes a certificate, and the device's name (wire-contract.md section 1.8, catalogue X1)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from cloud_core.core.certificates import trust
from cloud_core.core.certificates.chain_matching import (
    BadPattern,
    NoMatch,
    compiled,
    device_name,
    match,
    name_hashes,
    path_of,
)
from cloud_core.core.certificates.trust import Fault
from cloud_core.model import DeviceProfile, PresentedChain, ProvisionConfiguration
from shared import certificates
from shared.errors import InvalidDeviceName, UntrustedCertificate
from tests.support.chains import NOW_S, chain_settings
from tests.support.pki import Holder, Pki

NOW_MS = NOW_S * 1000
PKI = Pki(datetime.fromtimestamp(NOW_S, UTC))
ROOT = PKI.root("Factory")
LINE = ROOT.intermediate("Line 1")


def profile(name: str, *cas: Holder, tenant_id: int = 1, pattern: str = "(.*)", **settings: Any) -> DeviceProfile:
    return DeviceProfile(
        id=abs(hash(name)), uuid=uuid4(), tenant_id=tenant_id, name=name, is_default=False, document={}, created_ms=1,
        version=1, provision=ProvisionConfiguration(**chain_settings(*cas, pattern=pattern, **settings)),
    )  # fmt: skip


def chain(leaf: Holder, *, only_leaf: bool = False) -> trust.Chain:
    return trust.parse(PresentedChain(leaf.der) if only_leaf else leaf.presented)


def test_the_names_a_profile_is_found_by() -> None:
    """Issuers of everything that is shown, and the CAs that are shown; nothing twice."""
    found = set(name_hashes(chain(LINE.leaf("a"))))
    assert found == {certificates.name_hash(ca.certificate.subject) for ca in (LINE, ROOT)}


@pytest.mark.parametrize(
    ("pattern", "common_name", "name"),
    [
        (r"(.*)\.company.com", "DeviceA.company.com", "DeviceA"),
        (r"(.*)@company.com", "DeviceA@company.com", "DeviceA"),
        (r"prefix(.*)suffix@company.com", "prefixDeviceAsuffix@company.com", "DeviceA"),
        (r"\D+\.(.*)\.\d+@company.com", "region.DeviceA.220423@company.com", "DeviceA"),
        (r"([^@]+)", "DeviceA@company.com", "DeviceA"),
        (r"sn-(\d+)", "model 7 sn-42 rev b", "42"),  # searched, not matched from the first character
        (r"(.*)-x", "  spaced -x", "spaced"),
    ],
)
def test_the_name_is_the_first_group_of_the_pattern(pattern: str, common_name: str, name: str) -> None:
    """The examples of ThingsBoard's tests (X1)"""
    assert device_name(profile("p", LINE, pattern=pattern), common_name) == name


@pytest.mark.parametrize(
    ("pattern", "common_name", "says"),
    [
        (r"(.*)\.company.com", "DeviceA.example.org", "does not match certificateRegExPattern"),
        (r"[A-Z](", "DeviceA", "is no regular expression"),
        (r".*", "DeviceA", "has no group"),
        ("", "DeviceA", "it is empty"),
        (r"(.*)", "", "no common name"),
        (r"(.*)", "a" * 1_025, "above 1024 characters"),
        (r"x(.*)", "x", "blank"),
        (r"(a)|b", "b", "blank"),
        (r"(.*)", "<b>", "malformed"),
    ],
)
def test_no_name_no_device(pattern: str, common_name: str, says: str) -> None:
    """No match, an invalid pattern, no CN: refused with the reason (X1)"""
    with pytest.raises(InvalidDeviceName, match=says):
        device_name(profile("p", LINE, pattern=pattern), common_name)


@pytest.mark.parametrize("pattern", [r"(a|aa)+$", r"((a|a|a)*)*$", r"(.*)*(.*)*(.*)*(.*)*!"])
def test_a_catastrophic_pattern_ends_in_time(pattern: str) -> None:
    """The reactor does not stand still for it."""
    began = time.monotonic()
    with pytest.raises(InvalidDeviceName, match=r"takes too long|does not match"):
        device_name(profile("p", LINE, pattern=pattern), "a" * 500 + "b")
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("pattern", ["(a{9000}){2000}", "((a{1000}){1000}){1000}", "(" * 5_000, "(" + "a" * 500 + ")"])
def test_a_giant_pattern_is_refused_before_it_is_compiled(pattern: str) -> None:
    began = time.monotonic()
    with pytest.raises(BadPattern):
        compiled(pattern)
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("pattern", [r"(\d{4}-\d{8,12}){3}@x", r"([A-F0-9]{64})", r"\((.*)\)", r"(a{0}b)"])
def test_sane_counts_are_taken(pattern: str) -> None:
    assert compiled(pattern).groups >= 1


def test_the_profile_of_the_nearest_ca_wins() -> None:
    """A profile of the line's own CA before that of the root above it."""
    found = match(chain(LINE.leaf("a")), [profile("root", ROOT), profile("line", LINE)], NOW_MS)
    assert (found.profile.name, found.name, len(found.path)) == ("line", "a", 2)


def test_the_next_profile_takes_what_the_nearest_does_not_name() -> None:
    profiles = [profile("root", ROOT), profile("line", LINE, pattern="only-(.*)")]
    assert match(chain(LINE.leaf("a")), profiles, NOW_MS).profile.name == "root"


def test_profiles_of_one_ca_are_told_apart_by_their_names() -> None:
    profiles = [profile("pumps", LINE, pattern="pump-(.*)"), profile("valves", LINE, pattern="valve-(.*)")]
    found = match(chain(LINE.leaf("valve-7")), profiles, NOW_MS)
    assert (found.profile.name, found.name) == ("valves", "7")


def test_two_profiles_that_would_both_take_it_are_named() -> None:
    """Nobody shall guess which one was meant."""
    profiles = [profile("pumps", LINE, pattern="(pump.*)"), profile("all", LINE)]
    with pytest.raises(NoMatch, match=r"2 profiles .* 'pump-1' .*'pumps', 'all'") as refused:
        match(chain(LINE.leaf("pump-1")), profiles, NOW_MS)
    assert isinstance(refused.value.error, InvalidDeviceName)


def test_a_leaf_alone_finds_its_issuer_in_the_profile() -> None:
    """The profile holds the CA in between: the device need not send it."""
    found = match(chain(LINE.leaf("a"), only_leaf=True), [profile("p", ROOT, LINE)], NOW_MS)
    assert [one.subject for one in found.path[1:]] == [LINE.certificate.subject, ROOT.certificate.subject]


def test_the_fault_of_the_right_ca_is_told() -> None:
    """And not that another CA of the same name has not signed it."""
    other = PKI.root("Factory")
    leaf = ROOT.leaf("a", not_after=PKI.now.replace(year=2020))
    with pytest.raises(NoMatch) as refused:
        match(chain(leaf), [profile("other", other), profile("right", ROOT)], NOW_MS)
    error = refused.value.error
    assert isinstance(error, UntrustedCertificate) and error.fault == Fault.EXPIRED
    assert refused.value.profile is not None and refused.value.profile.name == "right"


def test_each_ca_is_tried_once_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many profiles share it, and however many CAs have the name; the one that is shown comes first."""
    tried: list[Any] = []
    verify = trust.verify
    monkeypatch.setattr(
        trust, "verify", lambda chain, anchor, *rest: (tried.append(anchor), verify(chain, anchor, *rest))[1]
    )
    profiles = [profile(f"o{number}", PKI.root("Line 1")) for number in range(40)]
    profiles += [profile(f"p{number}", LINE, pattern=f"x{number}-(.*)") for number in range(40)]
    assert match(chain(LINE.leaf("x7-a")), profiles, NOW_MS).name == "a"
    assert len(tried) == 16


def test_the_path_of_a_known_certificate_goes_as_far_as_it_is_shown() -> None:
    """A resumed session shows the leaf alone: the profile has its issuer."""
    leaf = LINE.leaf("a")
    whole = path_of(chain(leaf, only_leaf=True), profile("p", ROOT, LINE))
    assert [one.subject for one in whole] == [one.certificate.subject for one in (leaf, LINE, ROOT)]
    assert len(path_of(chain(leaf, only_leaf=True), profile("p", PKI.root("Line 1")))) == 1
    assert len(path_of(chain(leaf), profile("p", LINE, ROOT))) == 2, "what is above the profile's CA does not count"
