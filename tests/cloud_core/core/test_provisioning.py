"""Provisioning rules through the core's door, on a real store (wire-contract.md sections 1.3 to 1.6, 10)."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.core.limits import AttemptRations
from cloud_core.core.provisioning import Policy
from cloud_core.model import Peer, ProvisionStrategy, Reprovisioning, Scope, Transport
from shared.credentials import AccessToken, CredentialsType, MqttBasic, X509Certificate, credentials_id
from shared.errors import PlatformError, ProvisionStatus, RateLimited
from tests.support.api import PEER, ApiUnderTest
from tests.support.stores import TENANT, StoreUnderTest

CHECK = ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES


@pytest.fixture
def api(sqlite_store: StoreUnderTest) -> ApiUnderTest:
    return ApiUnderTest(sqlite_store)


def device_named(api: ApiUnderTest, name: str) -> Any:
    return api.store.read(lambda tx: tx.device_by_name(TENANT, name))


def state_of(api: ApiUnderTest, device_id: int) -> Any:
    return api.store.read(lambda tx: tx.attribute(device_id, Scope.SERVER, "provisionState"))


def test_a_new_device_gets_a_token_and_a_state(api: ApiUnderTest) -> None:
    """ALLOW without credential members: 20 generated characters, provisionState, both stored (P3)."""
    api.store.add_profile()
    response = api.provision(device_name=" SN-1 ")
    device = device_named(api, "SN-1")
    assert response.status is ProvisionStatus.SUCCESS
    assert len(response.credentials.token) == 20
    assert state_of(api, device.id) == "provisioned"
    assert api.store.read(lambda tx: tx.credentials(device.id)).credentials == response.credentials


def test_without_a_name_one_is_generated_and_told(api: ApiUnderTest) -> None:
    """An absent name becomes 20 alphanumerics, returned in `deviceName`."""
    api.store.add_profile()
    response = api.provision()
    assert device_named(api, response.device_name) is not None


def test_the_gateway_flag_is_kept(api: ApiUnderTest) -> None:
    """`gateway: true` creates a gateway (P4)."""
    api.store.add_profile()
    api.provision(device_name="gw", is_gateway=True)
    assert device_named(api, "gw").is_gateway
    assert device_named(api, "gw").document == {"additionalInfo": {"gateway": True}}


@pytest.mark.parametrize(
    ("members", "credentials", "identifier"),
    [
        ({"token": "test_token"}, AccessToken("test_token"), "test_token"),
        (
            {"credentials_type": CredentialsType.X509_CERTIFICATE, "certificate": "testHash"},
            X509Certificate("testHash"),
            "57f6600424d6553263f1f32e0117012894a36fbf07e3e9c3c556272f86b7d985",
        ),
        (
            {
                "credentials_type": CredentialsType.MQTT_BASIC,
                "client_id": "test_clientId", "username": "test_username", "password": "test_password",
            },
            MqttBasic("test_clientId", "test_username", "test_password"),
            "b9f1b0bf238dddae689babba0a210fe42bc97ddb07620b5a07d7208dd5528db2",
        ),
    ],
    ids=["token", "certificate", "basic"],
)  # fmt: skip
def test_a_device_may_bring_its_credentials(
    api: ApiUnderTest, members: dict[str, Any], credentials: Any, identifier: str
) -> None:
    """Brought credentials are stored and returned, under ThingsBoard's identifier (P5, P6, P7)."""
    api.store.add_profile()
    response = api.provision(device_name="d", **members)
    assert response.credentials == credentials
    assert credentials_id(credentials) == identifier
    assert api.store.read(lambda tx: tx.credentials_owner(identifier)) == device_named(api, "d").id


def test_a_kind_asked_for_without_values_gives_a_token_and_a_warning(api: ApiUnderTest) -> None:
    """As ThingsBoard does, but said."""
    api.store.add_profile()
    response = api.provision(device_name="d", credentials_type=CredentialsType.MQTT_BASIC)
    assert isinstance(response.credentials, AccessToken) and "MQTT_BASIC" in response.warning


REFUSALS: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("disabled", {"strategy": ProvisionStrategy.DISABLED}, {}, "NOT_FOUND", "PROVISIONING_DISABLED"),
    ("disabled, wrong secret", {"strategy": ProvisionStrategy.DISABLED}, {"provision_secret": "x"}, "NOT_FOUND",
     "INVALID_PROVISION_CREDENTIALS"),
    ("wrong key", {}, {"provision_key": "x"}, "NOT_FOUND", "INVALID_PROVISION_CREDENTIALS"),
    ("wrong secret", {}, {"provision_secret": "x"}, "NOT_FOUND", "INVALID_PROVISION_CREDENTIALS"),
    ("empty secret", {}, {"provision_secret": ""}, "NOT_FOUND", "INVALID_PROVISION_CREDENTIALS"),
    ("secret of another length in another script", {}, {"provision_secret": "ключ"}, "NOT_FOUND",
     "INVALID_PROVISION_CREDENTIALS"),
    ("blank name", {}, {"device_name": "  "}, "FAILURE", "INVALID_DEVICE_NAME"),
    ("long name", {}, {"device_name": "n" * 256}, "FAILURE", "INVALID_DEVICE_NAME"),
    ("markup", {}, {"device_name": "<script>"}, "FAILURE", "INVALID_DEVICE_NAME"),
    ("name exists", {}, {"device_name": "taken"}, "FAILURE", "DEVICE_EXISTS"),
    ("token exists", {}, {"token": "token-taken"}, "FAILURE", "CREDENTIALS_IN_USE"),
    ("token with control character", {}, {"token": "a\nb"}, "FAILURE", "INVALID_CREDENTIALS"),
    ("hash without its type", {}, {"certificate": "x"}, "FAILURE", "INVALID_CREDENTIALS"),
    ("password with client id only", {}, {"credentials_type": CredentialsType.MQTT_BASIC, "client_id": "c",
     "password": "p"}, "FAILURE", "INVALID_CREDENTIALS"),
    ("not listed", {"strategy": CHECK}, {"device_name": "stranger"}, "FAILURE", "DEVICE_NOT_FOUND"),
    ("not listed, no name", {"strategy": CHECK}, {"device_name": ""}, "FAILURE", "DEVICE_NOT_FOUND"),
    ("listed in another profile", {"strategy": CHECK}, {"device_name": "foreign"}, "FAILURE", "DEVICE_NOT_FOUND"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "members", "status", "reason"), [row[1:] for row in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_every_refusal_says_why_and_leaves_nothing(
    api: ApiUnderTest, profile: dict[str, Any], members: dict[str, Any], status: str, reason: str
) -> None:
    """Status and reason as agreed, an explainable reference, no device."""
    other = api.store.add_profile("other")
    mine = api.store.add_profile("sensor", **profile)
    api.store.add_device("taken", mine)
    api.store.add_device("foreign", other)
    before = api.store.read(lambda tx: tx.device_count(TENANT))
    refusal = api.provision(**({"device_name": "new"} | members))
    assert (refusal.status.value, refusal.reason.value) == (status, reason)
    assert api.store.read(lambda tx: tx.device_count(TENANT)) == before
    attempt = api.store.read(lambda tx: tx.attempt(refusal.ref))
    assert (attempt.outcome, attempt.peer) == (reason, PEER)
    assert "sensor-secret" not in repr(attempt)


def test_the_specifications_wording_is_the_profiles_choice(api: ApiUnderTest) -> None:
    """`seedErrorMessages` changes `errorMsg` and nothing else."""
    profile = api.store.add_profile(seed_error_messages=True)
    api.store.add_device("d", profile)
    assert api.provision(device_name="d").error_msg == "Device with this name already exists"


def test_a_listed_device_receives_its_stored_credentials_once(api: ApiUnderTest) -> None:
    """CHECK: the operator's credentials win over brought ones; the second request is refused (P2, P20)."""
    device_id = api.store.add_device("d", api.store.add_profile(strategy=CHECK), AccessToken("operator"))
    assert api.provision(device_name="d", token="mine").credentials == AccessToken("operator")
    assert state_of(api, device_id) == "provisioned"
    assert api.provision(device_name="d").reason == "ALREADY_PROVISIONED"


def test_any_other_state_is_refused_and_deleting_it_allows_again(api: ApiUnderTest) -> None:
    """`provisionState` set by an operator to another text blocks; deleting the attribute resets."""
    device_id = api.store.add_device("d", api.store.add_profile(strategy=CHECK))
    api.store.run(lambda tx: tx.put_attributes(device_id, Scope.SERVER, {"provisionState": "hold"}, now_ms=1))
    assert api.provision(device_name="d").reason == "ALREADY_PROVISIONED"
    api.store.run(lambda tx: tx.delete_attributes(device_id, Scope.SERVER, ["provisionState"]))
    assert api.provision(device_name="d").status is ProvisionStatus.SUCCESS


def test_listed_devices_may_bring_credentials_where_the_profile_says_so(api: ApiUnderTest) -> None:
    """`acceptDeviceCredentials`: replaced atomically with the state; a foreign credential is refused."""
    profile = api.store.add_profile(strategy=CHECK, accept_device_credentials=True)
    api.store.add_device("d", profile, AccessToken("operator"))
    api.store.add_device("e", profile, AccessToken("others"))
    assert api.provision(device_name="d", token="others").reason == "CREDENTIALS_IN_USE"
    assert api.provision(device_name="d", token="mine").credentials == AccessToken("mine")
    assert isinstance(api.log_in(username="operator"), PlatformError)


@pytest.mark.parametrize("strategy", [ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES, CHECK])
def test_a_lost_answer_is_replayed_until_the_first_login(api: ApiUnderTest, strategy: ProvisionStrategy) -> None:
    """Same request, same answer, within the window and until the credentials were used; then never."""
    profile = api.store.add_profile(
        strategy=strategy, reprovisioning=Reprovisioning.REPLAY_UNTIL_CONFIRMED, replay_window_s=60
    )
    if strategy is CHECK:
        api.store.add_device("d", profile)
    first = api.provision(device_name="d")
    assert api.provision(device_name="d") == first
    assert isinstance(api.provision(device_name="d", token="other"), PlatformError)
    api.log_in(username=first.credentials.token)
    assert isinstance(api.provision(device_name="d"), PlatformError)
    outcomes = [one.outcome for one in api.store.read(lambda tx: tx.attempts())]
    assert outcomes.count("REPLAYED") == 1


def test_replay_ends_with_its_window(api: ApiUnderTest) -> None:
    """One second after the window the name is simply taken."""
    api.store.add_profile(reprovisioning=Reprovisioning.REPLAY_UNTIL_CONFIRMED, replay_window_s=60)
    api.provision(device_name="d")
    api.now_s += 61
    assert api.provision(device_name="d").reason == "DEVICE_EXISTS"


def test_the_device_limit_of_a_tenant_holds(sqlite_store: StoreUnderTest) -> None:
    """QUOTA_EXCEEDED, and a replay does not count as a new device."""
    api = ApiUnderTest(sqlite_store, policy=Policy(max_devices_per_tenant=1))
    sqlite_store.add_profile(reprovisioning=Reprovisioning.REPLAY_UNTIL_CONFIRMED)
    api.provision(device_name="a")
    assert api.provision(device_name="b").reason == "QUOTA_EXCEEDED"
    assert api.provision(device_name="a").status is ProvisionStatus.SUCCESS


def test_only_failures_are_rationed(sqlite_store: StoreUnderTest) -> None:
    """20 failures at once per source and key, then one per 5 s; success is free; another source is not hurt."""
    api = ApiUnderTest(sqlite_store, rations=AttemptRations())
    sqlite_store.add_profile()
    for number in range(40):
        assert api.provision(device_name=f"d{number}").status is ProvisionStatus.SUCCESS
    for _ in range(20):
        assert api.provision(provision_secret="guess").reason == "INVALID_PROVISION_CREDENTIALS"
    limited = api.provision(device_name="honest")
    assert isinstance(limited, RateLimited) and 0 < (limited.retry_after_s or 0) <= 5
    # Written behind the answer: read in the order of the writer.
    assert api.store.run(lambda tx: tx.attempt(limited.ref)).outcome == "RATE_LIMITED"
    assert api.provision(Peer(Transport.COAP, "192.0.2.2"), device_name="x").status is ProvisionStatus.SUCCESS
    api.now_s += 5.1
    assert api.provision(device_name="honest").status is ProvisionStatus.SUCCESS


def test_a_race_for_one_name_has_one_winner(api: ApiUnderTest) -> None:
    """Sixteen requests in one batch: one device, fifteen DEVICE_EXISTS."""
    from shared.messages import ProvisionRequest

    api.store.add_profile()
    answers: list[Any] = []
    request = ProvisionRequest(provision_key="sensor-key", provision_secret="sensor-secret", device_name="d")
    for _ in range(16):
        api.api.provision(request, PEER, answers.append)
    api.store.reactor.run_until(lambda: len(answers) == 16)
    assert sorted(str(getattr(one, "reason", "")) for one in answers) == [""] + ["DEVICE_EXISTS"] * 15
