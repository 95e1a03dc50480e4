"""Another certificate for the name of a device that has one (wire-contract.md section 1.8, catalogue X2)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cloud_core.core.downlinks import Ending
from cloud_core.model import Renewal
from shared.credentials import X509Certificate
from shared.errors import DeviceAlreadyExists
from tests.support.chains import DAY_S, Factory, ended, text_of
from tests.support.pki import generate
from tests.support.stores import StoreUnderTest, forget_certificates


def test_the_same_key_renews_and_the_former_one_overlaps(store: StoreUnderTest) -> None:
    """Both open the door for the overlap, the sessions stay; then only the new one does (X2)"""
    factory = Factory(store)
    old = factory.line.leaf("sensor-1")
    device_id = factory.show(old).device_id
    calls = ended(factory)
    new = factory.line.leaf("sensor-1", key=old.key)
    assert factory.show(new).device_id == device_id
    assert factory.credentials("sensor-1").credentials == text_of(new)
    assert calls == []
    assert factory.api.certificates.known(old.der) is None  # until its overlap is known
    assert factory.show(old).device_id == factory.show(new).device_id == device_id
    factory.now_s += 7 * DAY_S - 1
    assert factory.api.certificates.known(old.der) is not None
    factory.now_s += 1
    assert factory.api.certificates.known(old.der) is None
    assert factory.show(new).device_id == device_id
    assert "which is taken until" in factory.log()[0].detail
    assert isinstance(factory.show(old), DeviceAlreadyExists)  # although it is of the same key
    assert factory.credentials("sensor-1").credentials == text_of(new)
    assert "a former certificate of the device" in factory.log()[0].detail


def test_a_former_certificate_from_an_older_database_overlaps_as_well(store: StoreUnderTest) -> None:
    factory = Factory(store)
    old = factory.line.leaf("sensor-1")
    device_id = factory.show(old).device_id
    store.run(forget_certificates)
    new = factory.line.leaf("sensor-1", key=old.key)
    factory.show(new)
    assert factory.show(old).device_id == device_id
    assert factory.credentials("sensor-1").credentials == text_of(new)


RENEWALS = [
    (Renewal.SAME_KEY_OR_WINDOW, False, 0, False), (Renewal.SAME_KEY_OR_WINDOW, True, 0, True),
    (Renewal.SAME_KEY_OR_WINDOW, False, 334, False), (Renewal.SAME_KEY_OR_WINDOW, False, 336, True),
    (Renewal.SAME_KEY_OR_WINDOW, False, 400, True), (Renewal.SAME_KEY, True, 0, True),
    (Renewal.SAME_KEY, False, 400, False), (Renewal.NEVER, True, 400, False), (Renewal.ALWAYS, False, 0, True),
]  # fmt: skip


@pytest.mark.parametrize(("renewal", "is_same_key", "days", "is_taken"), RENEWALS)
def test_another_certificate_is_taken_as_the_policy_says(
    sqlite_store: StoreUnderTest, renewal: Renewal, is_same_key: bool, days: int, is_taken: bool
) -> None:
    """`days` after the first one, which is valid for a year (X2)"""
    factory = Factory(sqlite_store, profile={"renewal": renewal})
    old = factory.line.leaf("sensor-1")
    factory.show(old)
    factory.now_s += days * DAY_S
    key = old.key if is_same_key else generate("p256")
    new = factory.line.leaf("sensor-1", key=key, not_after=factory.pki.now + timedelta(days=900))
    outcome = factory.show(new)
    assert isinstance(outcome, DeviceAlreadyExists) is not is_taken
    assert factory.credentials("sensor-1").credentials == text_of(new if is_taken else old)
    if not is_taken:
        assert factory.log()[0].stage == "renewal" and renewal.value in factory.log()[0].detail


def test_what_an_operator_has_replaced_comes_back_only_when_the_other_has_ended(sqlite_store: StoreUnderTest) -> None:
    """Not by the window: a factory's certificate, which is good for decades, would take every successor's place."""
    factory = Factory(sqlite_store)
    old = factory.line.leaf("sensor-1", not_after=factory.pki.now + timedelta(days=9_000))
    device_id = factory.show(old).device_id
    new = factory.line.leaf("sensor-1")
    sqlite_store.run(lambda tx: tx.put_credentials(device_id, text_of(new), now_ms=factory.now_ms))
    factory.api.device_changed(device_id, Ending.CREDENTIALS_CHANGED)
    factory.now_s += 360 * DAY_S
    assert isinstance(factory.show(old), DeviceAlreadyExists)
    factory.now_s += 10 * DAY_S
    assert factory.show(old).device_id == device_id


@pytest.mark.parametrize("renewal", [Renewal.SAME_KEY_OR_WINDOW, Renewal.ALWAYS])
def test_the_key_of_a_revoked_certificate_renews_nothing(sqlite_store: StoreUnderTest, renewal: Renewal) -> None:
    """Whoever has stolen it may have other certificates of it; another key comes in as the policy says."""
    factory = Factory(sqlite_store, profile={"renewal": renewal})
    stolen = factory.line.leaf("sensor-1")
    device_id = factory.show(stolen).device_id
    factory.revoke(stolen)
    factory.api.device_changed(device_id, Ending.CREDENTIALS_CHANGED)
    factory.now_s += 360 * DAY_S
    end = factory.pki.now + timedelta(days=900)
    assert isinstance(factory.show(factory.line.leaf("sensor-1", key=stolen.key, not_after=end)), DeviceAlreadyExists)
    assert "has been revoked" in factory.log()[0].detail
    assert factory.show(factory.line.leaf("sensor-1", not_after=end)).device_id == device_id


def test_always_is_as_in_thingsboard(sqlite_store: StoreUnderTest) -> None:
    """The newest certificate of the name wins, the old one's session ends, there is no overlap (X2)"""
    factory = Factory(sqlite_store, profile={"renewal": Renewal.ALWAYS})
    old = factory.line.leaf("sensor-1")
    device_id = factory.show(old).device_id
    calls = ended(factory)
    factory.show(factory.line.leaf("sensor-1"))
    assert calls == [(device_id, Ending.CREDENTIALS_CHANGED)]
    assert factory.api.certificates.known(old.der) is None
    factory.show(old)  # takes its turn again: that is what this policy means
    assert factory.credentials("sensor-1").credentials == text_of(old)


def test_without_overlap_the_session_of_the_former_one_ends(sqlite_store: StoreUnderTest) -> None:
    factory = Factory(sqlite_store, profile={"overlap_days": 0, "renewal": Renewal.SAME_KEY})
    old = factory.line.leaf("sensor-1")
    device_id = factory.show(old).device_id
    calls = ended(factory)
    factory.show(factory.line.leaf("sensor-1", key=old.key))
    assert calls == [(device_id, Ending.CREDENTIALS_CHANGED)]


@pytest.mark.parametrize("renewal", [Renewal.SAME_KEY_OR_WINDOW, Renewal.ALWAYS])
def test_a_mere_fingerprint_counts_as_an_unknown_key(sqlite_store: StoreUnderTest, renewal: Renewal) -> None:
    factory = Factory(sqlite_store, profile={"renewal": renewal})
    factory.add_line_device("sensor-1", X509Certificate("ab" * 32))
    outcome = factory.show(factory.line.leaf("sensor-1"))
    assert isinstance(outcome, DeviceAlreadyExists) is (renewal is not Renewal.ALWAYS)
    if renewal is not Renewal.ALWAYS:
        assert "only its fingerprint is registered" in factory.log()[0].detail
