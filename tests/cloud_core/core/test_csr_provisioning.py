"""A device with nothing but a key and a signing request: `X509_CSR` through the core's door, on a real store."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.core.provisioning import Policy, digest_parts
from cloud_core.model import ProvisionStrategy, Reprovisioning, Scope
from shared import certificates
from shared.credentials import CredentialsType, X509Certificate, credentials_id
from shared.errors import ProvisionStatus
from shared.messages import ProvisionRequest
from tests.support.api import ApiUnderTest
from tests.support.authorities import KEY, add_authority, csr
from tests.support.pki import generate
from tests.support.stores import TENANT, StoreUnderTest

CHECK = ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES
REPLAY = Reprovisioning.REPLAY_UNTIL_CONFIRMED
CSR = csr("SN-1")


@pytest.fixture
def api(sqlite_store: StoreUnderTest) -> ApiUnderTest:
    return ApiUnderTest(sqlite_store)


def ask(api: ApiUnderTest, name: str = "SN-1", csr: str = CSR, **members: Any) -> Any:
    return api.provision(device_name=name, csr=csr, credentials_type=CredentialsType.X509_CERTIFICATE, **members)


def device_named(api: ApiUnderTest, name: str = "SN-1") -> Any:
    return api.store.read(lambda tx: tx.device_by_name(TENANT, name))


def log_of(api: ApiUnderTest) -> Any:
    return api.store.read(lambda tx: tx.attempts(1))[0]


def test_a_new_device_gets_a_certificate_of_our_ca(api: ApiUnderTest) -> None:
    """In the name it asked for, with the key it has; stored as its credentials, and known as issued by the CA."""
    authority = add_authority(api.store)
    api.store.add_profile()
    response = ask(api)
    assert response.status is ProvisionStatus.SUCCESS
    leaf, issuer = certificates.load_all(response.certificate_chain)
    assert (certificates.common_name(leaf), leaf.public_key()) == ("SN-1", KEY.public_key())
    assert certificates.der(issuer) == authority.chain[0]
    assert response.credentials == X509Certificate(certificates.certificate_text(certificates.der(leaf)))
    device = device_named(api)
    assert api.store.read(lambda tx: tx.credentials(device.id)).credentials == response.credentials
    (known,) = api.store.read(lambda tx: tx.certificates_of_device(device.id))
    assert (known.authority_id, known.device_id) == (authority.id, device.id)
    assert api.store.read(lambda tx: tx.attribute(device.id, Scope.SERVER, "provisionState")) == "provisioned"


def test_the_log_says_which_certificate_was_issued_and_holds_no_request(api: ApiUnderTest) -> None:
    """`csr` is among what was present; nothing of it is kept."""
    add_authority(api.store)
    api.store.add_profile()
    leaf = certificates.load(certificates.der_of(ask(api).credentials.certificate))
    line = log_of(api)
    assert (line.outcome, line.request["credentialsType"]) == ("SUCCESS", "X509_CSR")
    assert line.detail == f"the CA 'plant' issued certificate {leaf.serial_number:x}"
    assert line.request["present"] == ["provisionDeviceSecret", "csr"]
    assert "BEGIN" not in str(line)


def test_a_device_without_a_name_is_named_by_the_server(api: ApiUnderTest) -> None:
    """The subject is the generated name, not what the request calls itself."""
    add_authority(api.store)
    api.store.add_profile()
    response = ask(api, "")
    leaf = certificates.load(certificates.der_of(response.credentials.certificate))
    assert certificates.common_name(leaf) == response.device_name != ""


def test_other_credential_members_are_not_looked_at(api: ApiUnderTest) -> None:
    """Nor do they warn: the certificate is what was asked for."""
    add_authority(api.store)
    api.store.add_profile()
    response = ask(api, token="t", certificate="testHash")
    assert isinstance(response.credentials, X509Certificate) and response.warning == ""


def test_a_pre_provisioned_device_may_always_ask(api: ApiUnderTest) -> None:
    """Its own credentials are not accepted, but what the server issues is none of its own choice; sessions end."""
    add_authority(api.store)
    device_id = api.store.add_device("SN-1", api.store.add_profile(strategy=CHECK, accept_device_credentials=False))
    response = ask(api)
    assert response.status is ProvisionStatus.SUCCESS and response.certificate_chain
    assert response.device_id == device_id  # what was cached of its former credentials is forgotten
    assert api.store.read(lambda tx: tx.credentials(device_id)).credentials == response.credentials
    assert ask(api).reason.value == "ALREADY_PROVISIONED"


@pytest.mark.parametrize("strategy", [ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES, CHECK])
def test_a_lost_answer_is_given_again_byte_for_byte(api: ApiUnderTest, strategy: ProvisionStrategy) -> None:
    """The same request, until the first login; another one with another key is refused."""
    add_authority(api.store)
    profile = api.store.add_profile(strategy=strategy, reprovisioning=REPLAY)
    if strategy is CHECK:
        api.store.add_device("SN-1", profile)
    first = ask(api)
    api.now_s += 100
    again = ask(api)
    assert (again.credentials, again.certificate_chain) == (first.credentials, first.certificate_chain)
    assert log_of(api).outcome == "REPLAYED"
    other = ask(api, csr=csr("SN-1", generate("p256")))
    assert other.reason.value in ("DEVICE_EXISTS", "ALREADY_PROVISIONED")
    device_id = device_named(api).id
    api.store.run(lambda tx: tx.mark_confirmed(device_id, now_ms=1))
    assert ask(api).reason.value == other.reason.value


def test_a_replay_has_the_chain_although_the_profile_changed_its_ca(api: ApiUnderTest) -> None:
    """The chain is that of the CA that has issued the certificate."""
    add_authority(api.store, "one")
    api.store.add_profile(reprovisioning=REPLAY)
    first = ask(api)
    add_authority(api.store, "two")
    assert ask(api).certificate_chain == first.certificate_chain


@pytest.mark.parametrize(
    ("request_text", "reason", "words"),
    [
        ("nonsense!", "INVALID_CREDENTIALS", "neither PEM nor base64"),
        ("MAA=", "INVALID_CREDENTIALS", "no PKCS#10"),
        (csr("SN-1", "rsa1024"), "INVALID_CREDENTIALS", "too weak"),
    ],
)
def test_a_bad_request_leaves_nothing_behind_but_its_line(
    api: ApiUnderTest, request_text: str, reason: str, words: str
) -> None:
    """Refused with a reference; the log has what to mend; the device is not there."""
    add_authority(api.store)
    api.store.add_profile()
    refusal = ask(api, csr=request_text)
    assert (refusal.reason.value, refusal.status) == (reason, ProvisionStatus.FAILURE)
    assert words in api.store.read(lambda tx: tx.attempt(refusal.ref)).detail
    assert device_named(api) is None


def test_without_a_ca_the_request_is_refused(api: ApiUnderTest) -> None:
    """And with one that is over; the reason is one of its own, since the device can do nothing about it."""
    api.store.add_profile()
    refusal = ask(api)
    assert (refusal.reason.value, refusal.ref is not None) == ("NO_CERTIFICATE_AUTHORITY", True)
    add_authority(api.store, years=1)
    api.now_s += 400 * 86_400
    assert ask(api).reason.value == "NO_CERTIFICATE_AUTHORITY"
    assert "is over since" in log_of(api).detail
    assert device_named(api) is None


def test_nothing_is_signed_for_whom_another_check_refuses(api: ApiUnderTest) -> None:
    """A stranger cannot even make the core look at the request; a full tenant gets no certificate."""
    add_authority(api.store)
    profile = api.store.add_profile()
    assert ask(api, csr="nonsense!", provision_secret="wrong").reason.value == "INVALID_PROVISION_CREDENTIALS"
    api.store.add_device("SN-1", profile)
    assert ask(api, csr="nonsense!").reason.value == "DEVICE_EXISTS"
    full = ApiUnderTest(api.store, policy=Policy(max_devices_per_tenant=1))
    assert ask(full, "SN-2", csr="nonsense!").reason.value == "QUOTA_EXCEEDED"


def test_the_label_of_a_path_must_be_the_keys_profile(api: ApiUnderTest) -> None:
    """EST names a profile; a key of another one does not open it."""
    add_authority(api.store)
    api.store.add_profile()
    assert ask(api, profile_name="other").reason.value == "INVALID_PROVISION_CREDENTIALS"
    assert ask(api, profile_name="sensor").status is ProvisionStatus.SUCCESS


def test_the_digest_of_other_requests_is_what_it_was() -> None:
    """Answers that were lost before an update can still be asked for after it."""
    request = ProvisionRequest(provision_key="k", provision_secret="s")
    assert len(digest_parts(request)) == 10
    assert digest_parts(ProvisionRequest(provision_key="k", provision_secret="s", csr="c"))[-1] == "c"


def test_the_certificate_of_the_answer_has_the_id_of_its_text(api: ApiUnderTest) -> None:
    """`credentialsId` is SHA3-256 of the base64, as for every certificate (wire-contract.md section 1.7)."""
    add_authority(api.store)
    api.store.add_profile()
    stored = ask(api).credentials
    owner = api.store.read(lambda tx: tx.credentials_owner(credentials_id(stored)))
    assert owner == device_named(api).id
