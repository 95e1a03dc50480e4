"""Devices that log in by a certificate that is known here (wire-contract.md sections 1.7, 2.6 and 4.5)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from cloud_core.core.authentication import certificate_ids
from cloud_core.core.certificates import trust_faults
from cloud_core.core.certificates.certificate_memory import CertificateMemory
from cloud_core.core.certificates.trust import Fault
from cloud_core.core.downlinks import Ending
from cloud_core.core.holders import holder
from cloud_core.model import Authority, Identity, PresentedChain, PresentedCredentials, Revocation, Role
from shared import certificates
from shared.credentials import AccessToken, X509Certificate
from shared.errors import NotAuthenticated, Unavailable, UntrustedCertificate
from tests.support.chains import DAY_S, PEER, Factory, chain_settings
from tests.support.pki import Holder
from tests.support.stores import TENANT, StoreUnderTest


def registered(factory: Factory, leaf: Holder, name: str = "d", text: str = "") -> int:
    """A device of the profile `line` that has this certificate, or only `text` of it."""
    credentials = X509Certificate(text or certificates.certificate_text(leaf.der))
    return factory.add_line_device(name, credentials)


@pytest.fixture
def factory(sqlite_store: StoreUnderTest) -> Factory:
    return Factory(sqlite_store)


# -- whose it is ----------------------------------------------------------------------------------


def test_a_registered_certificate_opens_its_device(factory: Factory) -> None:
    """Whoever issued it; the first login confirms, and is no provisioning attempt."""
    leaf = factory.pki.self_signed("whatever")
    device_id = registered(factory, leaf)
    identity = factory.show(leaf)
    assert (identity.device_id, identity.role) == (device_id, Role.DEVICE)
    assert factory.credentials("d").confirmed_ms == factory.now_ms
    assert factory.api.certificates.known(leaf.der) == identity
    assert factory.log() == []


@pytest.mark.parametrize("number", range(4))
def test_a_mere_fingerprint_opens_its_device(factory: Factory, number: int) -> None:
    """Hex in both cases, with and without colons."""
    leaf = factory.pki.self_signed("whatever")
    device_id = registered(factory, leaf, text=certificates.fingerprint_texts(leaf.der)[number])
    assert factory.show(leaf).device_id == device_id
    assert factory.show(leaf).device_id == device_id


@pytest.mark.parametrize("number", range(5))
def test_nobody_else_may_have_a_certificate_however_it_is_written(factory: Factory, number: int) -> None:
    """A mere fingerprint and the certificate itself are the same: the newcomer would get the other's logins."""
    leaf = factory.pki.self_signed("d")
    forms = [*certificates.fingerprint_texts(leaf.der), certificates.certificate_text(leaf.der)]
    device_id = registered(factory, leaf, text=forms.pop(number))
    for text in forms:
        found = factory.store.read(lambda tx, text=text: holder(tx, X509Certificate(text), factory.now_ms))
        assert found == device_id
    other = X509Certificate(certificates.fingerprint_texts(factory.pki.self_signed("d").der)[0])
    assert factory.store.read(lambda tx: holder(tx, other, factory.now_ms)) is None


def test_the_issuers_certificate_is_nobodys_login(factory: Factory) -> None:
    """Credentials are matched with the leaf alone: a device registered by its CA would open for all of that CA."""
    registered(factory, factory.root, "by its root")
    assert isinstance(factory.show(factory.root.leaf("x")), UntrustedCertificate)


def test_a_token_that_looks_like_a_certificates_id_opens_nothing(factory: Factory) -> None:
    leaf = factory.pki.self_signed("whatever")
    factory.add_line_device("d", AccessToken(certificate_ids(leaf.der)[0]))
    assert isinstance(factory.show(leaf), UntrustedCertificate)


def test_the_other_door_takes_no_certificate(factory: Factory) -> None:
    """Neither the certificate nor, beside one, a user name."""
    leaf = factory.pki.self_signed("whatever")
    registered(factory, leaf)
    factory.add_line_device("t", AccessToken("T1"))
    shown = PresentedCredentials(chain=leaf.presented, username="T1")
    assert isinstance(factory.outcome(lambda done: factory.api.authenticate(shown, done)), NotAuthenticated)


# -- validity -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "fault"), [(-2, Fault.NOT_YET_VALID), (366, Fault.EXPIRED)])
def test_a_registered_certificate_opens_within_its_dates(factory: Factory, days: int, fault: Fault) -> None:
    """By the server's clock, at each login, also when it is remembered; refused with a reference."""
    leaf = factory.line.leaf("d")
    registered(factory, leaf)
    for _ in range(2):
        factory.show(leaf)
    assert factory.api.certificates.known(leaf.der) is not None
    factory.now_s += days * DAY_S
    assert factory.api.certificates.known(leaf.der) is None
    refusal = factory.show(leaf)
    assert isinstance(refusal, UntrustedCertificate) and refusal.fault == fault
    (line,) = factory.log()
    assert (line.ref, line.stage, line.device_name, line.tenant_id) == (refusal.ref, fault, "d", TENANT)


# -- revoked, replaced, deleted -------------------------------------------------------------------


def test_a_revoked_certificate_opens_nothing(store: StoreUnderTest) -> None:
    """Neither its device's door nor, after the device is gone, that of chain provisioning."""
    factory = Factory(store)
    leaf = factory.line.leaf("d")
    device_id = factory.show(leaf).device_id
    factory.revoke(leaf)
    factory.api.device_changed(device_id, Ending.CREDENTIALS_CHANGED)
    assert factory.api.certificates.known(leaf.der) is None
    refusal = factory.show(leaf)
    assert isinstance(refusal, UntrustedCertificate) and refusal.fault == Fault.REVOKED
    store.run(lambda tx: tx.delete_device(device_id))
    factory.api.device_changed(device_id, Ending.DEVICE_DELETED)
    assert factory.show(leaf).fault == Fault.REVOKED
    assert [line.stage for line in factory.log()] == ["REVOKED", "REVOKED", "stored"]
    assert {line.tenant_id for line in factory.log()} == {TENANT}


def test_what_an_operator_replaces_is_over_at_once(factory: Factory) -> None:
    """No overlap: whoever replaces credentials by hand means it."""
    leaf = factory.pki.self_signed("d")
    device_id = registered(factory, leaf)
    factory.show(leaf)
    factory.store.run(lambda tx: tx.put_credentials(device_id, AccessToken("T1"), now_ms=factory.now_ms))
    factory.api.device_changed(device_id, Ending.CREDENTIALS_CHANGED)
    assert isinstance(factory.show(leaf), UntrustedCertificate)


def test_a_profile_change_forgets_what_is_remembered(factory: Factory) -> None:
    """Identities carry options of the profile."""
    leaf = factory.line.leaf("d")
    factory.show(leaf)
    factory.api.profile_changed()
    assert factory.api.certificates.known(leaf.der) is None
    assert factory.show(leaf).device_name == "d"


def test_a_change_during_the_look_up_is_not_overlooked(factory: Factory) -> None:
    """What was read before an operator replaced the certificate neither opens nor is remembered."""
    leaf = factory.pki.self_signed("d")
    device_id = registered(factory, leaf)
    factory.show(leaf)
    factory.api.forget_logins(device_id)
    inner, read = factory.store.store, factory.store.store.read
    reads: list[str] = []

    def late(query: Any, args: Any, done: Any) -> None:
        def answered(outcome: Any) -> None:
            reads.append(query.__name__)
            if len(reads) == 1:
                factory.store.run(lambda tx: tx.put_credentials(device_id, AccessToken("T1"), now_ms=1))
                factory.api.device_changed(device_id, Ending.CREDENTIALS_CHANGED)
            done(outcome)

        read(query, args, answered)

    inner.read = late  # type: ignore[method-assign]
    assert isinstance(factory.show(leaf), UntrustedCertificate)
    assert len(reads) == 2 and factory.api.certificates.known(leaf.der) is None


def test_what_is_revoked_while_its_first_login_is_confirmed_stays_outside(factory: Factory) -> None:
    """The confirmation compares credentials, and these have not changed."""
    leaf = factory.pki.self_signed("d")
    device_id = registered(factory, leaf)
    inner, submit = factory.store.store, factory.store.store.submit

    def late(work: Any, args: Any, done: Any) -> None:
        def answered(outcome: Any) -> None:
            inner.submit = submit  # type: ignore[method-assign]
            factory.revoke(leaf)
            factory.api.device_changed(device_id, Ending.CREDENTIALS_CHANGED)
            done(outcome)

        submit(work, args, answered)

    inner.submit = late  # type: ignore[method-assign]
    refusal = factory.show(leaf)
    assert isinstance(refusal, UntrustedCertificate) and refusal.fault == Fault.REVOKED


def test_the_memory_follows_a_certificate_that_is_another_devices_now() -> None:
    """The former of two devices has an old entry of it, and both are forgotten without a fault."""
    memory = CertificateMemory()
    former, present = (Identity(Role.DEVICE, 1, number, uuid4(), "d", 1) for number in (1, 2))
    memory.put(b"a", former, 0, 10)
    memory.put(b"a", present, 10, 99)
    memory.forget(1)
    assert memory.get(b"a", 20) == present
    memory.forget(2)
    assert memory.get(b"a", 20) is None


def test_the_memory_is_bounded_and_forgets_by_device() -> None:
    memory = CertificateMemory(max_entries=2)
    for number in range(3):
        memory.put(bytes([number]), Identity(Role.DEVICE, 1, number), 0, 100)
    assert [memory.get(bytes([number]), 50) is not None for number in range(3)] == [False, True, True]
    assert [memory.get(b"\x01", now_ms) is not None for now_ms in (-1, 0, 99, 100)] == [False, True, True, False]
    memory.put(b"x", Identity(Role.DEVICE, 1, 2), 0, 100)
    memory.forget(2)
    memory.forget(7)
    assert [memory.get(one, 50) for one in (b"\x02", b"x")] == [None, None]


# -- revocation of others -------------------------------------------------------------------------


class Checker:
    """Stands for `RevocationChecker`: what it was asked, and what it says."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Revocation]] = []
        self.answer: UntrustedCertificate | None = None

    def check(self, path: Any, policy: Revocation, now_ms: int, done: Any) -> None:
        self.asked.append((len(path), policy))
        done(self.answer)


REVOKED = trust_faults.refusal(Fault.REVOKED, "The certificate is on its CA's list: give the device a new one.")
CRL = Revocation(crl=True)


@pytest.fixture
def checker() -> Checker:
    return Checker()


@pytest.fixture
def checked(sqlite_store: StoreUnderTest, checker: Checker) -> Factory:
    return Factory(sqlite_store, profile={"revocation": CRL}, revocation=checker)


def test_revocation_is_looked_up_before_a_device_is_made(checked: Factory, checker: Checker) -> None:
    checker.answer = REVOKED
    assert checked.show(checked.line.leaf("d")) is REVOKED
    assert checker.asked == [(2, CRL)]
    assert checked.device("d") is None and checked.log()[0].stage == "REVOKED"


def test_revocation_of_a_known_device_is_looked_up_again(checked: Factory, checker: Checker) -> None:
    """Remembered for a minute at most; a resumed session shows the leaf alone, and the profile has its issuer."""
    leaf = checked.line.leaf("d")
    checked.show(leaf)
    checked.show(leaf)
    assert len(checker.asked) == 1
    checked.now_s += 60
    assert checked.show(PresentedChain(leaf.der)).device_name == "d"
    assert checker.asked[1:] == [(2, CRL)]
    checker.answer = REVOKED
    checked.now_s += 60
    assert checked.show(leaf) is REVOKED


def test_a_profile_without_revocation_asks_nobody(sqlite_store: StoreUnderTest, checker: Checker) -> None:
    factory = Factory(sqlite_store, revocation=checker)
    leaf = factory.line.leaf("d")
    factory.show(leaf)
    factory.api.profile_changed()
    factory.show(leaf)
    assert checker.asked == []


@pytest.mark.parametrize("allows", [True, False])
def test_a_status_that_cannot_be_asked_is_unknown(sqlite_store: StoreUnderTest, checker: Checker, allows: bool) -> None:
    """An operator registered a certificate of a CA that is nowhere here."""
    settings = {"revocation": Revocation(crl=True, allows_unknown=allows)}
    factory = Factory(sqlite_store, profile=settings, revocation=checker)
    leaf = factory.pki.root("Elsewhere").leaf("d")
    registered(factory, leaf)
    outcome = factory.show(leaf)
    assert isinstance(outcome, Identity) is allows
    if not allows:
        assert outcome.fault == Fault.STATUS_UNKNOWN
    assert checker.asked == []


def test_a_device_that_changes_during_the_check_is_looked_up_again(checked: Factory, checker: Checker) -> None:
    """An operator need not wait for somebody's OCSP server."""
    leaf = checked.line.leaf("d")
    device_id = checked.show(leaf).device_id
    checked.now_s += 60
    waiting: list[Any] = []
    checker.check = lambda path, policy, now_ms, done: waiting.append(done)  # type: ignore[method-assign]
    outcomes: list[Any] = []
    checked.api.certificates.authenticate(leaf.presented, PEER, outcomes.append)
    checked.store.reactor.run_until(lambda: waiting)
    checked.store.run(lambda tx: tx.put_credentials(device_id, AccessToken("T1"), now_ms=1))
    checked.store.run(lambda tx: tx.delete_device(device_id))
    checked.api.device_changed(device_id, Ending.DEVICE_DELETED)
    waiting.pop()(None)
    checked.store.reactor.run_until(lambda: waiting)  # comes in anew, by its chain
    assert outcomes == []
    waiting.pop()(None)
    checked.store.reactor.run_until(lambda: outcomes)
    assert outcomes[0].device_id != device_id


# -- anchors --------------------------------------------------------------------------------------


def test_the_anchors_are_the_cas_of_profiles_and_ours(factory: Factory) -> None:
    """With those of a profile's PEM that hang on its anchor; not with what stands above it."""
    store, pki = factory.store, factory.pki
    ours, other = pki.root("Ours"), pki.root("Other")
    below = other.intermediate("Below")
    store.add_profile("other", **chain_settings(other, below, factory.root))
    store.run(
        lambda tx: tx.insert_authority(
            Authority(id=0, uuid=uuid4(), tenant_id=1, name="ours", chain=(ours.der,), key=b"k", created_ms=1)
        )
    )
    anchors = factory.outcome(factory.api.certificates.anchors)
    assert set(anchors) == {one.der for one in (factory.line, other, below, ours)} and len(anchors) == 4


def test_whoever_keeps_anchors_is_told_of_changes(factory: Factory) -> None:
    changes: list[int] = []
    factory.api.certificates.on_anchors_changed(lambda: changes.append(1))
    factory.api.profile_changed()
    factory.api.certificates.anchors_changed()
    assert changes == [1, 1]


def test_a_store_that_is_away_is_told_of(factory: Factory) -> None:
    """And nothing is remembered or logged as an attempt."""
    leaf = factory.line.leaf("d")
    inner, read = factory.store.store, factory.store.store.read
    inner.read = lambda query, args, done: done(Unavailable())  # type: ignore[method-assign]
    assert isinstance(factory.show(leaf), Unavailable)
    inner.read = read  # type: ignore[method-assign]
    assert factory.api.certificates.known(leaf.der) is None and factory.log() == []
