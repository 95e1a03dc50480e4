"""Devices that come in by their certificate chain (wire-contract.md section 1.8, catalogue X2)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cloud_core.core.certificates.certificate_memory import MAX_REFUSED, RecentRefusals
from cloud_core.core.downlinks import Ending
from cloud_core.core.limits import AttemptRations, Ration
from cloud_core.core.provisioning import Policy
from cloud_core.core.tokens import new_secret
from cloud_core.model import PROVISION_STATE, PROVISIONED, Peer, PresentedChain, Role, Scope, Transport
from shared import certificates
from shared.credentials import AccessToken, MqttBasic, sha3_id
from shared.errors import (
    CredentialsInUse,
    DeviceAlreadyExists,
    DeviceNotFound,
    InvalidDeviceName,
    QuotaExceeded,
    RateLimited,
    Reason,
    UntrustedCertificate,
)
from tests.support.chains import PEER, Factory, text_of
from tests.support.stores import StoreUnderTest

FEW = AttemptRations(per_source_and_key=Ration(3, 5.0), per_source=Ration(5, 5.0))


# -- create ---------------------------------------------------------------------------------------


def test_a_new_device_is_created_with_its_certificate(store: StoreUnderTest) -> None:
    """Credentials, provisionState and log line are there when the answer is; the next login is a mere login (X2)"""
    factory = Factory(store)
    leaf = factory.line.leaf("sensor-1")
    identity = factory.show(leaf)
    assert (identity.role, identity.device_name) == (Role.DEVICE, "sensor-1")
    stored = factory.credentials("sensor-1")
    assert stored.credentials == text_of(leaf) and stored.confirmed_ms == factory.now_ms
    state = store.run(lambda tx: tx.attribute(identity.device_id, Scope.SERVER, PROVISION_STATE))
    assert state == PROVISIONED
    assert factory.api.certificates.known(leaf.der) == identity
    assert factory.show(leaf) == identity
    assert factory.show(PresentedChain(leaf.der)) == identity  # of a resumed session
    (line,) = factory.log()
    assert (line.outcome, line.stage, line.device_name, line.peer) == ("SUCCESS", "stored", "sensor-1", PEER)
    assert line.request == {
        "subject": "CN=sensor-1", "issuer": "CN=Line 1", "serial": f"{leaf.certificate.serial_number:x}",
        "notAfter": "2024-11-13 22:13 UTC",
    }  # fmt: skip


def test_a_profile_that_creates_nobody_refuses_the_unknown(sqlite_store: StoreUnderTest) -> None:
    """Nothing is left but the log line, with its reference (X2)"""
    factory = Factory(sqlite_store, profile={"allow_create_by_certificate": False})
    refusal = factory.show(factory.line.leaf("sensor-1"))
    assert isinstance(refusal, DeviceNotFound)
    assert factory.device("sensor-1") is None
    (line,) = factory.log()
    assert (line.ref, line.outcome, line.stage) == (refusal.ref, Reason.DEVICE_NOT_FOUND, "strategy")
    assert "allowCreateNewDevicesByX509Certificate" in line.detail


def test_the_tenants_quota_holds(sqlite_store: StoreUnderTest) -> None:
    factory = Factory(sqlite_store, policy=Policy(max_devices_per_tenant=1))
    assert factory.show(factory.line.leaf("one")).device_name == "one"
    assert isinstance(factory.show(factory.line.leaf("two")), QuotaExceeded)
    assert factory.show(factory.line.leaf("one", key=factory.line.leaf("x").key)).ref  # no renewal by another key


def test_sixteen_of_one_certificate_make_one_device(store: StoreUnderTest) -> None:
    """All of them are in, and one attempt is logged."""
    factory = Factory(store)
    leaf = factory.line.leaf("sensor-1")
    identities = factory.show_together(*[leaf] * 16)
    assert {one.device_name for one in identities} == {"sensor-1"}
    assert store.run(lambda tx: tx.device_count(1)) == 1
    assert [line.outcome for line in factory.log()] == ["SUCCESS"]


def test_sixteen_certificates_for_one_name_let_one_in(store: StoreUnderTest) -> None:
    """Whoever came first has the name; the others are refused with the reason, and leave nothing."""
    factory = Factory(store)
    leaves = [factory.line.leaf("sensor-1") for _ in range(16)]
    outcomes = factory.show_together(*leaves)
    (winner,) = [number for number, one in enumerate(outcomes) if not isinstance(one, DeviceAlreadyExists)]
    assert factory.credentials("sensor-1").credentials == text_of(leaves[winner])
    assert factory.show(leaves[winner]).device_name == "sensor-1"
    assert store.run(lambda tx: tx.device_count(1)) == 1
    known = [store.run(lambda tx, leaf=leaf: tx.certificate(certificates.fingerprint(leaf.der))) for leaf in leaves]
    assert [one is not None for one in known] == [number == winner for number in range(16)]


def test_a_login_that_was_not_answered_comes_again(sqlite_store: StoreUnderTest) -> None:
    """The core that made the device died before it could say so: for the next one it is a known device."""
    factory = Factory(sqlite_store)
    leaf = factory.line.leaf("sensor-1")
    factory.show(leaf)
    after_restart = Factory.__new__(Factory)
    super(Factory, after_restart).__init__(sqlite_store)
    assert after_restart.api.certificates.known(leaf.der) is None
    assert after_restart.show(leaf).device_name == "sensor-1"
    assert len(factory.log()) == 1


# -- match ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow", [True, False])
def test_a_device_made_beforehand_takes_the_certificate(store: StoreUnderTest, allow: bool) -> None:
    """Its generated token, which nobody ever had, opens nothing any more (X2)"""
    factory = Factory(store, profile={"allow_create_by_certificate": allow})
    token = new_secret()
    device_id = factory.add_line_device("sensor-1", AccessToken(token))
    leaf = factory.line.leaf("sensor-1")
    assert factory.show(leaf).device_id == device_id
    assert factory.credentials("sensor-1").credentials == text_of(leaf)
    assert factory.log_in(username=token).reason is Reason.NOT_AUTHENTICATED


def used_token(factory: Factory) -> AccessToken:
    credentials = AccessToken(new_secret())
    factory.add_line_device("sensor-1", credentials)
    assert factory.log_in(username=credentials.token).device_name == "sensor-1"
    return credentials


OTHER_KINDS: list[Any] = [AccessToken("chosen-by-an-operator"), MqttBasic("c", "u", "p"), used_token]


@pytest.mark.parametrize("credentials", OTHER_KINDS, ids=["chosen token", "basic", "used token"])
def test_credentials_of_another_kind_are_left_alone(sqlite_store: StoreUnderTest, credentials: Any) -> None:
    """The refusal says what to do."""
    factory = Factory(sqlite_store)
    if callable(credentials):
        credentials = credentials(factory)
    else:
        factory.add_line_device("sensor-1", credentials)
    assert isinstance(factory.show(factory.line.leaf("sensor-1")), DeviceAlreadyExists)
    assert factory.credentials("sensor-1").credentials == credentials
    line = factory.log()[0]
    assert line.stage == "credentials" and "give it this certificate" in line.detail


def test_a_device_of_another_profile_is_left_alone(sqlite_store: StoreUnderTest) -> None:
    factory = Factory(sqlite_store)
    sqlite_store.add_device("sensor-1", sqlite_store.add_profile("other"), AccessToken(new_secret()))
    assert isinstance(factory.show(factory.line.leaf("sensor-1")), DeviceAlreadyExists)
    assert factory.log()[0].stage == "profile"


# -- refusals -------------------------------------------------------------------------------------


def test_an_unknown_issuer_is_refused_with_a_reference(sqlite_store: StoreUnderTest) -> None:
    factory = Factory(sqlite_store)
    refusal = factory.show(factory.pki.root("Elsewhere").leaf("sensor-1"))
    assert isinstance(refusal, UntrustedCertificate)
    (line,) = factory.log()
    assert (line.ref, line.outcome, line.stage) == (refusal.ref, "UNTRUSTED_CERTIFICATE", "UNKNOWN_ISSUER")
    assert "CN=Elsewhere" in line.detail and line.device_name == "sensor-1"


BAD: list[tuple[str, Any]] = [
    ("EXPIRED", lambda f: f.line.leaf("d", not_after=f.pki.now - timedelta(days=1))),
    ("NOT_YET_VALID", lambda f: f.line.leaf("d", not_before=f.pki.now + timedelta(days=1))),
    ("SELF_SIGNED", lambda f: f.pki.self_signed("d")),
    ("WEAK_KEY", lambda f: f.line.leaf("d", key="rsa1024")),
    ("CA_AS_DEVICE", lambda f: f.line.intermediate("d")),
    ("MALFORMED", lambda f: PresentedChain(b"no certificate")),
    ("CHAIN_TOO_LONG", lambda f: PresentedChain(f.line.leaf("d").der, (f.line.der,) * 200)),
]


@pytest.mark.parametrize(("fault", "bad"), BAD, ids=[fault for fault, _ in BAD])
def test_a_bad_chain_is_refused_with_its_fault(sqlite_store: StoreUnderTest, fault: str, bad: Any) -> None:
    """And leaves nothing but its log line."""
    factory = Factory(sqlite_store)
    refusal = factory.show(bad(factory))
    assert isinstance(refusal, UntrustedCertificate)
    (line,) = factory.log()
    assert (line.stage, line.ref) == (fault, refusal.ref) and line.detail
    assert sqlite_store.run(lambda tx: tx.device_count(1)) == 0


def test_a_name_that_the_pattern_does_not_take_is_refused(sqlite_store: StoreUnderTest) -> None:
    """The line belongs to the tenant of the profile that came nearest."""
    factory = Factory(sqlite_store, profile={"pattern": "sn-(.*)"})
    assert isinstance(factory.show(factory.line.leaf("d")), InvalidDeviceName)
    (line,) = factory.log()
    assert (line.outcome, line.stage, line.profile_id) == ("INVALID_DEVICE_NAME", "name", factory.profile_id)


def test_failed_attempts_are_rationed_by_source_and_issuer(sqlite_store: StoreUnderTest) -> None:
    """Rationed ones are not evaluated; other issuers, other sources and known devices go on."""
    factory = Factory(sqlite_store, rations=FEW)
    known = factory.line.leaf("known")
    factory.show(known)
    elsewhere = factory.pki.root("Elsewhere")
    outcomes = [factory.show(elsewhere.leaf("d")) for _ in range(4)]
    assert [type(one) for one in outcomes] == [UntrustedCertificate] * 3 + [RateLimited]
    assert outcomes[3].retry_after_s > 0 and factory.log()[0].stage == "ration"
    assert factory.show(factory.line.leaf("new")).device_name == "new"
    other = Peer(Transport.MQTT, "192.0.2.8")
    assert isinstance(factory.show(elsewhere.leaf("d"), other), UntrustedCertificate)
    factory.api.forget_logins(factory.show(known).device_id)
    for number in range(3):
        factory.show(PresentedChain(b"bad %d" % number))
    assert isinstance(factory.show(factory.line.leaf("newer")), RateLimited)
    assert factory.show(known).device_name == "known"


def test_a_device_that_asks_with_every_packet_is_one_attempt(sqlite_store: StoreUnderTest) -> None:
    """The same answer for a moment; not after an operator has done something about it, nor from elsewhere."""
    factory = Factory(sqlite_store)
    leaf = factory.pki.root("Elsewhere").leaf("d")
    first = factory.show(leaf)
    assert factory.show(leaf) is first and len(factory.log()) == 1
    assert factory.show(leaf, Peer(Transport.COAP, "192.0.2.9")) is not first
    factory.now_s += 5
    later = factory.show(leaf)
    assert later is not first and later.ref != first.ref
    device_id = factory.add_line_device("d", text_of(leaf))
    factory.api.device_changed(device_id, Ending.CREDENTIALS_CHANGED)
    assert factory.show(leaf).device_id == device_id


def test_a_refusal_that_is_remembered_holds_nothing_else(sqlite_store: StoreUnderTest) -> None:
    """A traceback would keep the whole chain, of up to 64 KiB, and all that was read of it."""
    factory = Factory(sqlite_store)
    over = factory.pki.now - timedelta(days=1)
    for leaf in (factory.line.leaf("sensor-1", not_after=over), factory.line.leaf("a\0b")):
        refusal = factory.show(leaf)
        assert factory.show(leaf) is refusal
        assert (refusal.__traceback__, refusal.__context__, refusal.__cause__) == (None, None, None)


def test_refusals_are_remembered_within_bounds() -> None:
    recent = RecentRefusals()
    for number in range(MAX_REFUSED + 1):
        recent.put((bytes([number % 256]) * (1 + number // 256), ""), UntrustedCertificate(), 0)
    assert recent.get((b"\0", ""), 1) is None
    assert recent.get((b"\1", ""), 1) is not None


def test_a_token_that_has_the_certificates_id_is_told_of(sqlite_store: StoreUnderTest) -> None:
    """Whoever chose it keeps the certificate out, and must not do so unseen."""
    factory = Factory(sqlite_store)
    leaf = factory.line.leaf("sensor-1")
    factory.add_line_device("squatter", AccessToken(sha3_id(certificates.certificate_text(leaf.der))))
    refusal = factory.show(leaf)
    assert isinstance(refusal, CredentialsInUse) and "'squatter'" in refusal.detail
    assert factory.log()[0].stage == "credentials" and factory.device("sensor-1") is None


def test_the_log_holds_no_secret(sqlite_store: StoreUnderTest) -> None:
    """Neither the token that gave way nor a certificate's bytes, with which somebody could be confused."""
    factory = Factory(sqlite_store)
    token = new_secret()
    factory.add_line_device("sensor-1", AccessToken(token))
    leaf = factory.line.leaf("sensor-1")
    factory.show(leaf)
    factory.show(factory.line.leaf("sensor-1"))
    written = repr(factory.log())
    assert token not in written and certificates.certificate_text(leaf.der) not in written


# -- changes meanwhile ----------------------------------------------------------------------------


def test_a_profile_that_changes_meanwhile_is_read_again(sqlite_store: StoreUnderTest) -> None:
    """Nobody comes in by a CA that an operator has just taken out."""
    factory = Factory(sqlite_store)
    inner, submit = factory.store.store, factory.store.store.submit
    profile = sqlite_store.run(lambda tx: tx.chain_profiles()[0])
    is_first = True

    def late(work: Any, args: Any, done: Any) -> None:
        nonlocal is_first
        if is_first and work.__name__ == "admit":
            is_first = False
            other = replace(profile.provision, certificate_pattern="never-(.*)")
            submit(lambda tx: tx.update_profile(replace(profile, provision=other)), (), lambda _: None)
        submit(work, args, done)

    inner.submit = late  # type: ignore[method-assign]
    assert isinstance(factory.show(factory.line.leaf("sensor-1")), InvalidDeviceName)
    assert not is_first and factory.device("sensor-1") is None
