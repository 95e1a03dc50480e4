"""Certificates of our own CA at the door: they let devices in, renew, and are refused once revoked."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.core.certificates import authorities
from cloud_core.core.certificates.authorities import Which
from cloud_core.model import Identity, Peer, PresentedChain, ProvisionStrategy, Transport
from shared import certificates
from shared.credentials import CredentialsType
from tests.support.api import ApiUnderTest
from tests.support.authorities import NOW_MS, add_authority, csr
from tests.support.pki import generate
from tests.support.stores import TENANT, StoreUnderTest

PEER = Peer(Transport.MQTT, "192.0.2.1")
BY_CHAIN = ProvisionStrategy.X509_CERTIFICATE_CHAIN


@pytest.fixture
def api(sqlite_store: StoreUnderTest) -> ApiUnderTest:
    return ApiUnderTest(sqlite_store)


def log_in(api: ApiUnderTest, leaf: bytes) -> Any:
    return api.outcome(lambda done: api.api.certificates.authenticate(PresentedChain(leaf), PEER, done))


def revoke(api: ApiUnderTest, leaf: bytes) -> None:
    which = Which(fingerprint=certificates.fingerprint(leaf))
    for one in api.store.run(authorities.revoke, TENANT, which, "keyCompromise", int(api.now_s * 1000)):
        if one.device_id is not None:
            api.api.forget_logins(one.device_id)


def issued(api: ApiUnderTest, name: str = "SN-1") -> bytes:
    made: authorities.Issued = api.store.run(
        authorities.issue_for_operator, TENANT, "plant", csr(name, generate("p256")), name, 30, NOW_MS, ""
    )
    return made.certificate


def chain_profile(api: ApiUnderTest) -> None:
    authority = add_authority(api.store)
    pem = "".join(certificates.pem(certificates.load(one)) for one in authority.chain)
    api.store.add_profile("chain", strategy=BY_CHAIN, key="k", secret=pem, certificate_pattern="(.*)",
                          allow_create_by_certificate=True)  # fmt: skip


def test_a_certificate_issued_ahead_lets_its_device_in(api: ApiUnderTest) -> None:
    """The device is made at its first login, and stays the same."""
    chain_profile(api)
    leaf = issued(api)
    first, second = log_in(api, leaf), log_in(api, leaf)
    assert isinstance(first, Identity) and first.device_name == "SN-1" and first.device_id == second.device_id


def test_a_certificate_that_is_revoked_ahead_lets_nobody_in(api: ApiUnderTest) -> None:
    """Without a word of configuration about revocation."""
    chain_profile(api)
    leaf = issued(api)
    revoke(api, leaf)
    assert log_in(api, leaf).reason.value == "UNTRUSTED_CERTIFICATE"
    assert api.store.read(lambda tx: tx.device_by_name(TENANT, "SN-1")) is None


def test_a_certificate_that_is_revoked_after_its_first_login_is_refused_from_then_on(api: ApiUnderTest) -> None:
    """Although the device has it as its credentials."""
    chain_profile(api)
    leaf = issued(api)
    assert isinstance(log_in(api, leaf), Identity)
    revoke(api, leaf)
    assert log_in(api, leaf).reason.value == "UNTRUSTED_CERTIFICATE"


def test_a_device_with_only_a_key_ends_with_a_certificate_and_logs_in_with_it(api: ApiUnderTest) -> None:
    """Request, certificate, login; after its renewal both are taken, until the former one's time is over."""
    add_authority(api.store)
    api.store.add_profile(overlap_days=2, certificate_days=30)
    response = api.provision(device_name="SN-1", csr=csr(), credentials_type=CredentialsType.X509_CERTIFICATE)
    old = certificates.der_of(response.credentials.certificate)
    identity = log_in(api, old)
    assert isinstance(identity, Identity)
    renew = api.api.enrolment.renew
    new = api.outcome(lambda done: renew(PresentedChain(old), csr("SN-1", generate("p256")), PEER, done))
    assert isinstance(new, bytes) and new != old
    for leaf in (old, new, old):
        assert log_in(api, leaf).device_id == identity.device_id
    api.now_s += 2 * 86_400 + 1
    assert isinstance(log_in(api, new), Identity)
    assert log_in(api, old).reason.value == "UNTRUSTED_CERTIFICATE"
