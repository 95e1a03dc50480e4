"""Enrolment and renewal by EST, without a transport, on a real store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from cloud_core.core.certificates.enrolment import MAX_ISSUED, explained
from cloud_core.core.downlinks import Ending
from cloud_core.core.limits import AttemptRations, Ration
from cloud_core.core.people import audit
from cloud_core.model import AuditFilter, Page, Peer, PresentedChain, ProvisionStrategy, Transport
from shared import certificates
from shared.certificates import certificate_text
from shared.credentials import X509Certificate
from shared.errors import (
    DeviceAlreadyExists,
    InvalidArgument,
    InvalidCredentials,
    NotFound,
    PlatformError,
    UntrustedCertificate,
)
from tests.support.api import ApiUnderTest
from tests.support.authorities import add_authority, csr
from tests.support.chains import NOW_S
from tests.support.pki import Pki, generate
from tests.support.stores import TENANT, StoreUnderTest, forget_certificates

PEER = Peer(Transport.HTTP, "192.0.2.1")
DAY_S = 86_400
FACTORY = Pki(datetime.fromtimestamp(NOW_S, UTC)).root("Factory")


class Enrolling:
    """The door with what it told `DeviceApi`."""

    def __init__(self, store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.store = store
        self.api = ApiUnderTest(store, **options)
        self.told: list[tuple[Any, ...]] = []
        door = self.api.api
        monkeypatch.setattr(door.enrolment, "_forget_logins", self._listened(door.forget_logins, "forget"))
        monkeypatch.setattr(door.enrolment, "_device_changed", self._listened(door.device_changed))

    def _listened(self, call: Callable[..., None], *word: str) -> Callable[..., None]:
        def called(*what: Any) -> None:
            self.told.append((*word, *what))
            call(*what)

        return called

    def enrol(self, text: str, key: str = "sensor-key", secret: str = "sensor-secret", label: str = "") -> Any:
        enrol = self.api.api.enrolment.enrol
        return self.api.outcome(lambda done: enrol(key, secret, text, PEER, done, label=label))

    def renew(self, shown: bytes, text: str, label: str = "") -> Any:
        chain = PresentedChain(shown)
        renew = self.api.api.enrolment.renew
        return self.api.outcome(lambda done: renew(chain, text, PEER, done, label=label))

    def renewed(self, shown: bytes, text: str) -> bytes:
        outcome = self.renew(shown, text)
        assert isinstance(outcome, bytes), outcome
        return outcome

    def log(self) -> Any:
        return self.store.read(lambda tx: tx.attempts(1))[0]

    def known(self, der: bytes) -> Any:
        return self.store.read(lambda tx: tx.certificate(certificates.fingerprint(der)))

    def first(self, name: str = "SN-1", **profile: Any) -> bytes:
        """The certificate of a device that has just enrolled."""
        add_authority(self.store)
        self.store.add_profile(**profile)
        enrolled = self.enrol(csr(name))
        assert isinstance(enrolled, bytes), enrolled
        return enrolled


@pytest.fixture
def est(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Enrolling:
    return Enrolling(sqlite_store, monkeypatch)


def test_whoever_knows_key_and_secret_gets_a_first_certificate(est: Enrolling) -> None:
    """As a provision request would: the request's CN is the device's name."""
    leaf = certificates.load(est.first("SN-9"))
    assert certificates.common_name(leaf) == "SN-9"
    assert est.store.read(lambda tx: tx.device_by_name(TENANT, "SN-9")) is not None
    assert est.log().request["credentialsType"] == "X509_CSR"


def test_a_first_certificate_has_the_refusals_of_a_provision_request(est: Enrolling) -> None:
    """Wrong secret, a name that is taken, a bad request; each with a reference."""
    est.first()
    refusals = [est.enrol(csr("SN-2"), secret="wrong"), est.enrol(csr("SN-1", generate("p256"))), est.enrol("x!")]
    assert [one.reason.value for one in refusals] == [
        "INVALID_PROVISION_CREDENTIALS", "DEVICE_EXISTS", "INVALID_CREDENTIALS",
    ]  # fmt: skip
    assert all(one.ref for one in refusals)
    assert est.enrol(csr("SN-3"), label="other").reason.value == "INVALID_PROVISION_CREDENTIALS"


def test_a_device_renews_and_its_former_certificate_stays_good_for_a_while(est: Enrolling) -> None:
    """The profile's overlap; nobody is disconnected; the log says so."""
    old = est.first(overlap_days=7)
    new = est.renewed(old, csr("SN-1", generate("p256")))
    device = est.store.read(lambda tx: tx.device_by_name(TENANT, "SN-1"))
    stored = est.store.read(lambda tx: tx.credentials(device.id)).credentials
    assert stored == X509Certificate(certificate_text(new)) and new != old
    assert est.known(old).until_ms == int(est.api.now_s * 1000) + 7 * DAY_S * 1000
    assert est.known(new).authority_id == est.known(old).authority_id is not None
    assert est.told == [("forget", device.id)]
    assert (est.log().stage, est.log().outcome, est.log().device_id) == ("renewal", "SUCCESS", device.id)


def test_without_overlap_the_former_certificate_is_over_at_once(est: Enrolling) -> None:
    """And whoever is connected with it is disconnected."""
    old = est.first(overlap_days=0)
    est.renewed(old, csr("SN-1", generate("p256")))
    device = est.store.read(lambda tx: tx.device_by_name(TENANT, "SN-1"))
    assert est.told == [(device.id, Ending.CREDENTIALS_CHANGED)]
    assert isinstance(est.renew(old, csr("SN-1")), UntrustedCertificate)


def test_the_certificate_of_a_factory_gives_way_to_one_of_ours(est: Enrolling) -> None:
    """Whoever has issued the one that is shown; the subject is as there, or the device's name, or left to us."""
    add_authority(est.store)
    factory = FACTORY.leaf("Device7.company.com")
    profile = est.store.add_profile(strategy=ProvisionStrategy.X509_CERTIFICATE_CHAIN, key="k", secret=FACTORY.pem)
    est.store.add_device("Device7", profile, X509Certificate(certificate_text(factory.der)))
    new = certificates.load(est.renewed(factory.der, csr("Device7.company.com")))
    assert certificates.common_name(new) == "Device7"
    est.renewed(factory.der, csr("Device7", generate("p256")))
    refusal = est.renew(factory.der, csr("Device8"))
    assert isinstance(refusal, InvalidCredentials) and "must be CN=Device7" in refusal.detail
    assert (est.log().ref, est.log().outcome) == (refusal.ref, "INVALID_CREDENTIALS")


def test_a_lost_answer_is_given_again_until_the_first_login(est: Enrolling) -> None:
    """The same request gets the same certificate; after it has been used, another one."""
    old, text = est.first(), csr("SN-1", generate("p256"))
    new = est.renewed(old, text)
    assert est.renewed(old, text) == new
    device = est.store.read(lambda tx: tx.device_by_name(TENANT, "SN-1"))
    assert len(est.store.read(lambda tx: tx.certificates_of_device(device.id))) == 2
    est.store.run(lambda tx: tx.mark_confirmed(device.id, now_ms=1))
    assert est.renewed(new, text) != new


def test_a_device_that_never_hears_the_answer_is_not_locked_out(est: Enrolling) -> None:
    """Each time it asks, the certificate it asks with stays good for the whole overlap again."""
    old = est.first(overlap_days=7)
    for _ in range(4):
        est.renewed(old, csr("SN-1", generate("p256")))
        est.api.now_s += 5 * DAY_S
    assert est.known(old).until_ms == int(est.api.now_s * 1000) + 2 * DAY_S * 1000


def test_the_overlap_of_a_former_certificate_ends_when_it_was_said_once_its_successor_is_in_use(est: Enrolling) -> None:
    """Whoever has kept its key must not prolong it for ever."""
    old = est.first(overlap_days=7)
    est.renewed(old, csr("SN-1", generate("p256")))
    until_ms = est.known(old).until_ms
    device = est.store.read(lambda tx: tx.device_by_name(TENANT, "SN-1"))
    est.store.run(lambda tx: tx.mark_confirmed(device.id, now_ms=1))
    est.api.now_s += 5 * DAY_S
    est.renewed(old, csr("SN-1", generate("p256")))
    assert est.known(old).until_ms == until_ms


def test_a_former_certificate_renews_nothing_once_its_time_is_over(est: Enrolling) -> None:
    """Nor does one that is nobody's."""
    old = est.first(overlap_days=1)
    est.renewed(old, csr("SN-1", generate("p256")))
    est.api.now_s += 2 * DAY_S
    assert isinstance(est.renew(old, csr("SN-1")), UntrustedCertificate)
    assert isinstance(est.renew(FACTORY.leaf("SN-1").der, csr("SN-1")), UntrustedCertificate)


def test_a_revoked_certificate_renews_nothing(est: Enrolling) -> None:
    """Revoked between the handshake and the request."""
    old = est.first()
    number = est.known(old).id
    est.store.run(lambda tx: tx.revoke_certificate(number, now_ms=1, reason="keyCompromise"))
    assert isinstance(est.renew(old, csr("SN-1")), UntrustedCertificate)


def test_renewals_are_rationed(est: Enrolling) -> None:
    """A device in a loop must not fill the database; a day later it may again."""
    shown = est.first()
    for _ in range(MAX_ISSUED - 1):
        shown = est.renewed(shown, csr("SN-1", generate("p256")))
    limited = est.renew(shown, csr("SN-1", generate("p256")))
    assert limited.reason.value == "RATE_LIMITED" and limited.retry_after_s > DAY_S - 10
    est.api.now_s += DAY_S
    est.renewed(shown, csr("SN-1", generate("p256")))


def test_bad_requests_of_a_device_are_rationed(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each leaves a line in the log, whoever sends it; one that is in order goes through as long as there are few."""
    few = AttemptRations(per_source_and_key=Ration(3, 5.0), per_source=Ration(50, 5.0))
    est = Enrolling(sqlite_store, monkeypatch, rations=few)
    old = est.first()
    reasons = [est.renew(old, "nonsense").reason.value for _ in range(5)]
    assert reasons == ["INVALID_CREDENTIALS"] * 3 + ["RATE_LIMITED"] * 2
    assert [line.outcome for line in est.store.read(lambda tx: tx.attempts(9))] == [
        "INVALID_CREDENTIALS", "INVALID_CREDENTIALS", "INVALID_CREDENTIALS", "SUCCESS",
    ]  # fmt: skip
    est.api.now_s += 5
    est.renewed(old, csr("SN-1"))


def test_the_label_must_be_the_devices_profile(est: Enrolling) -> None:
    """Whose certificate it is decides, not the path."""
    old = est.first()
    assert est.renew(old, csr("SN-1"), "other").reason.value == "DEVICE_NOT_FOUND"
    assert isinstance(est.renew(old, csr("SN-1"), "sensor"), bytes)


def ca_certificates(est: Enrolling, label: str = "", leaf: bytes | None = None) -> Any:
    shown = None if leaf is None else PresentedChain(leaf)
    return est.api.outcome(lambda done: est.api.api.enrolment.ca_certificates(label, shown, done))


def test_the_cas_are_told_to_everybody(est: Enrolling) -> None:
    """All of them, or that of the profile named."""
    assert isinstance(ca_certificates(est), NotFound)
    one, two = add_authority(est.store, "one"), add_authority(est.store, "two")
    est.store.add_profile("p", authority="two")
    est.store.add_profile("q")
    assert ca_certificates(est) == [one.chain[0], two.chain[0]]
    assert ca_certificates(est, "p") == [two.chain[0]]
    assert isinstance(ca_certificates(est, "x"), NotFound)
    assert ca_certificates(est, "q").reason.value == "NO_CERTIFICATE_AUTHORITY"


class TwoTenants:
    """Each with a profile of the same name, a CA of its own, and a device that has enrolled."""

    def __init__(self, est: Enrolling) -> None:
        store, self.est = est.store, est
        self.second = store.add_tenant("second")
        self.here = add_authority(store, "here").chain[0]
        self.there = add_authority(store, "there", tenant_id=self.second).chain[0]
        store.add_profile("sensor")
        store.add_profile("sensor", tenant_id=self.second, key="second-key", secret="second-secret")
        self.leaf_here = est.enrol(csr("SN-1"))
        self.leaf_there = est.enrol(csr("SN-1"), "second-key", "second-secret")

    def profile(self, tenant_id: int) -> str:
        return str(self.est.store.read(lambda tx: tx.profile_by_name(tenant_id, "sensor")).uuid)


@pytest.fixture
def two(est: Enrolling) -> TwoTenants:
    return TwoTenants(est)


def issuer(leaf: bytes) -> str:
    return certificates.name_text(certificates.load(leaf).issuer)


def test_the_key_says_whose_device_enrols_whatever_other_tenants_call_theirs(two: TwoTenants) -> None:
    """Key and secret of either tenant, devices and profiles of the same names; the label may be name or id."""
    assert (issuer(two.leaf_here), issuer(two.leaf_there)) == ("CN=here", "CN=there")
    for label in ("sensor", two.profile(two.second), two.profile(two.second).upper()):
        leaf = two.est.enrol(csr(label[:8]), "second-key", "second-secret", label)
        assert issuer(leaf) == "CN=there"
        assert two.est.known(leaf).tenant_id == two.second
    refused = two.est.enrol(csr("SN-3"), "second-key", "second-secret", two.profile(TENANT))
    assert refused.reason.value == "INVALID_PROVISION_CREDENTIALS"


def test_a_device_of_any_tenant_renews_by_name_or_id_of_its_profile(two: TwoTenants) -> None:
    """The same label of another tenant is none of its own by id."""
    renew, own = two.est.renew, two.profile(two.second)
    assert issuer(renew(two.leaf_there, csr("SN-1", generate("p256")), "sensor")) == "CN=there"
    assert issuer(renew(two.leaf_there, csr("SN-1", generate("p256")), own)) == "CN=there"
    assert renew(two.leaf_there, csr("SN-1"), two.profile(TENANT)).reason.value == "DEVICE_NOT_FOUND"


def test_the_cas_of_several_tenants_are_told_apart_or_not_at_all(two: TwoTenants) -> None:
    """By the certificate that is shown or by the id of a profile; a name alone is refused with what to do."""
    est = two.est
    for label in ("", "sensor"):
        assert ca_certificates(est, label, two.leaf_there) == [two.there]
        assert ca_certificates(est, label, two.leaf_here) == [two.here]
        for shown in (None, FACTORY.leaf("nobody").der):
            refused = ca_certificates(est, label, shown)
            assert isinstance(refused, InvalidArgument) and "id of the device profile" in str(refused)
    assert ca_certificates(est, two.profile(two.second)) == [two.there]
    assert ca_certificates(est, two.profile(TENANT)) == [two.here]
    assert isinstance(ca_certificates(est, two.profile(TENANT), two.leaf_there), NotFound)


def test_a_name_that_is_the_id_of_another_profile_is_refused(two: TwoTenants) -> None:
    """It could be either; their names and ids tell them apart elsewhere."""
    two.est.store.add_profile(two.profile(TENANT), tenant_id=two.second, key="k", secret="s")
    assert isinstance(ca_certificates(two.est, two.profile(TENANT)), InvalidArgument)


def test_a_factory_certificate_that_a_device_has_says_whose_it_is(two: TwoTenants) -> None:
    """Long before a CA of ours has issued one to it, and where the database is older than its list of certificates."""
    leaf, store = FACTORY.leaf("F-1").der, two.est.store
    profile = store.read(lambda tx: tx.profile_by_name(TENANT, "sensor")).id
    store.add_device("F-1", profile, X509Certificate(certificate_text(leaf)))
    assert ca_certificates(two.est, "", leaf) == [two.here]
    store.run(forget_certificates)
    assert ca_certificates(two.est, "", leaf) == [two.here]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidCredentials("the csr is bad"), "The csr is bad. (INVALID_CREDENTIALS)"),
        (DeviceAlreadyExists("device 'x' of 'y'"), "Failed to provision device! (DEVICE_EXISTS)"),
    ],
)
def test_a_peer_is_told_what_is_wrong_with_its_request_and_not_with_the_fleet(error: PlatformError, text: str) -> None:
    """The rest is for whoever may look up the reference."""
    assert explained(error) == text
    error.ref = "AAAAA-BBBBB"
    assert explained(error).endswith("Reference AAAAA-BBBBB; the operator can explain it.")


def test_what_devices_do_is_no_deed_of_an_operator(est: Enrolling) -> None:
    """Enrolment and renewal, by whichever transport, stand in the provisioning log and not in the audit, where
    everything has an operator who answers for it."""
    enrolled = est.first()
    est.renewed(enrolled, csr("SN-1"))
    assert est.store.survey(audit.entries, TENANT, AuditFilter(), Page(10))[0] == []
    assert [one.outcome for one in est.store.read(lambda tx: tx.attempts(10))] == ["SUCCESS", "SUCCESS"]
