"""Who may log in with what (wire-contract.md section 2.6, catalogue C3)."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from cloud_core.core.authentication import LoginCache
from cloud_core.core.downlinks import Ending
from cloud_core.model import Identity, Login, PresentedChain, ProvisionStrategy, Role
from shared.credentials import AccessToken, CredentialsType, MqttBasic, X509Certificate
from shared.errors import NotAuthenticated
from tests.support.api import ApiUnderTest
from tests.support.stores import TENANT, StoreUnderTest


@pytest.fixture
def api(sqlite_store: StoreUnderTest) -> ApiUnderTest:
    profile = sqlite_store.add_profile()
    for name, credentials in {
        "token": AccessToken("T1"),
        "by client id": MqttBasic("C1"),
        "by both": MqttBasic("C2", "U2"),
        "by all": MqttBasic("C2", "U3", "P3"),
        "token like a user": AccessToken("U4"),
        "by user": MqttBasic("", "U5", "P5"),
        "by certificate": X509Certificate("MIIB"),
    }.items():
        sqlite_store.add_device(name, profile, credentials)
    return ApiUnderTest(sqlite_store)


LOGINS: list[tuple[dict[str, Any], str | None]] = [
    ({"username": "T1"}, "token"),
    ({"username": "T1", "password": "ignored", "has_password": True, "client_id": "any"}, "token"),
    ({"client_id": "C1"}, "by client id"),
    ({"client_id": "C2", "username": "U2"}, "by both"),
    ({"client_id": "C2", "username": "U3", "password": "P3", "has_password": True}, "by all"),
    ({"client_id": "C2", "username": "U3", "password": "bad", "has_password": True}, None),
    ({"client_id": "C2", "username": "U3"}, None),
    ({"client_id": "random", "username": "U4", "password": "random", "has_password": True}, "token like a user"),
    ({"client_id": "random", "username": "U5", "password": "P5", "has_password": True}, "by user"),
    ({"username": "U5"}, None),
    ({"chain": PresentedChain(base64.b64decode("MIIB"))}, None),
    ({"chain": PresentedChain(b"other"), "username": "T1"}, None),
    ({"username": "unknown"}, None),
    ({"client_id": "unknown"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("presented", "device"), LOGINS)
def test_presented_credentials_open_their_device_only(
    api: ApiUnderTest, presented: dict[str, Any], device: str | None
) -> None:
    """Twice, because the second time the cache answers. Certificates have another door, and none opens this one."""
    for _ in range(2):
        outcome = api.log_in(**presented)
        assert isinstance(outcome, NotAuthenticated) if device is None else outcome.device_name == device


def test_a_changed_device_is_looked_up_again(api: ApiUnderTest) -> None:
    """After its credentials changed, the old token opens nothing although it was cached."""
    identity = api.log_in(username="T1")
    api.log_in(username="T1")
    assert api.api.known_token("T1") == identity
    api.store.run(lambda tx: tx.put_credentials(identity.device_id, AccessToken("T2"), now_ms=2))
    api.api.device_changed(identity.device_id, Ending.CREDENTIALS_CHANGED)
    assert isinstance(api.log_in(username="T1"), NotAuthenticated)
    assert api.log_in(username="T2").device_name == "token"


def test_the_cache_forgets_the_oldest() -> None:
    """Bounded; and a forgotten device leaves no trace."""
    cache = LoginCache(max_entries=2)
    for number in range(3):
        cache.put(f"id{number}", Login(Identity(Role.DEVICE, 1, number), AccessToken(f"id{number}"), True))
    assert [cache.get(f"id{number}") is not None for number in range(3)] == [False, True, True]
    cache.forget(1)
    assert cache.get("id1") is None and cache.generation == 1


def test_a_new_basic_credential_is_found_although_its_id_was_unknown_before(api: ApiUnderTest) -> None:
    """That nobody had client id and user name together is remembered only until somebody has."""
    presented = {"client_id": "C9", "username": "T1"}
    for _ in range(2):
        assert api.log_in(**presented).device_name == "token"
    api.provision(
        device_name="newcomer", credentials_type=CredentialsType.MQTT_BASIC, client_id="C9", username="T1", password=""
    )
    assert api.log_in(**presented).device_name == "newcomer"


class HeldReads:
    """Look-ups are made at once, and their answers come when the test says so."""

    def __init__(self, api: ApiUnderTest) -> None:
        self._store = api.store
        self._answers: list[tuple[Any, Any]] = []
        self._read = api.store.store.read
        api.store.store.read = self._hold  # type: ignore[method-assign]

    def _hold(self, query: Any, args: Any, done: Any) -> None:
        answers: list[Any] = []
        self._read(query, args, answers.append)
        self._store.reactor.run_until(lambda: answers)
        self._answers.append((done, answers[0]))

    def release(self) -> None:
        self._store.store.read = self._read  # type: ignore[method-assign]
        for done, answer in self._answers:
            done(answer)


@pytest.mark.parametrize("why", [Ending.CREDENTIALS_CHANGED, Ending.DEVICE_DELETED])
def test_a_login_that_was_looked_up_before_a_change_is_looked_up_again(api: ApiUnderTest, why: Ending) -> None:
    """Whose credentials were taken away meanwhile gets no session and is not remembered."""
    device_id = api.log_in(username="T1").device_id
    api.api.profile_changed()  # nothing is remembered
    reads = HeldReads(api)
    outcomes: list[Any] = []
    api.api.authenticate_token("T1", outcomes.append)
    if why is Ending.DEVICE_DELETED:
        api.store.run(lambda tx: tx.delete_device(device_id))
    else:
        api.store.run(lambda tx: tx.put_credentials(device_id, AccessToken("new"), now_ms=2))
    api.api.device_changed(device_id, why)
    reads.release()
    api.store.reactor.run_until(lambda: outcomes)
    assert [type(one) for one in outcomes] == [NotAuthenticated]
    assert api.api.known_token("T1") is None


def test_a_login_that_was_looked_up_before_a_profile_changed_has_the_new_profile(api: ApiUnderTest) -> None:
    """Options of before are not remembered beyond the change."""
    profile = api.store.read(lambda tx: tx.profile_by_name(TENANT, "sensor"))
    assert api.log_in(username="T1").options.max_sessions == 1
    api.api.profile_changed()
    reads = HeldReads(api)
    outcomes: list[Any] = []
    api.api.authenticate_token("T1", outcomes.append)
    document = {"profileData": {"transportConfiguration": {"type": "MQTT", "maxSessionsPerDevice": 3}}}
    api.store.run(lambda tx: tx.update_profile(replace(profile, document=document)))
    api.api.profile_changed()
    reads.release()
    api.store.reactor.run_until(lambda: outcomes)
    known = api.api.known_token("T1")
    assert known is not None
    assert [outcomes[0].options.max_sessions, known.options.max_sessions] == [3, 3]


def test_a_first_login_that_is_confirmed_while_the_device_is_deleted_is_refused(api: ApiUnderTest) -> None:
    """The confirmation finds nothing to confirm."""
    outcomes: list[Any] = []
    device_id = api.store.read(lambda tx: tx.device_by_name(TENANT, "token").id)
    submit = api.store.store.submit

    def delete_first(work: Any, args: Any, done: Any) -> None:
        api.store.store.submit = submit  # type: ignore[method-assign]
        api.store.run(lambda tx: tx.delete_device(device_id))
        api.api.device_changed(device_id, Ending.DEVICE_DELETED)
        submit(work, args, done)

    api.store.store.submit = delete_first  # type: ignore[method-assign]
    api.api.authenticate_token("T1", outcomes.append)
    api.store.reactor.run_until(lambda: outcomes)
    assert isinstance(outcomes[0], NotAuthenticated)


def test_forgetting_one_device_leaves_the_tokens_of_others(api: ApiUnderTest) -> None:
    """And costs nothing for each of them."""
    first, other = api.log_in(username="T1"), api.log_in(username="U4", client_id="x")
    for _ in range(2):
        api.log_in(username="T1")
        api.log_in(username="U4", client_id="x")
    assert api.api.known_token("T1") == first and api.api.known_token("U4") == other
    tokens = api.api._tokens
    api.api.device_changed(first.device_id, Ending.CREDENTIALS_CHANGED)
    assert api.api._tokens is tokens
    assert api.api.known_token("T1") is None and api.api.known_token("U4") == other


def change_token(api: ApiUnderTest, device_id: int, token: str) -> None:
    """As administration does it."""
    api.store.run(lambda tx: tx.put_credentials(device_id, AccessToken(token), now_ms=2))
    api.api.device_changed(device_id, Ending.CREDENTIALS_CHANGED)


def test_a_look_up_that_was_overtaken_by_a_change_opens_nothing(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the database said before the token was revoked neither logs in nor is remembered."""
    identity = api.log_in(username="T1")  # confirms it
    reads: list[Any] = []
    with monkeypatch.context() as slow:
        slow.setattr(api.api._store, "read", lambda query, args, done: reads.append((query, args, done)))
        outcomes: list[Any] = []
        api.api.authenticate_token("T1", outcomes.append)
    ((query, args, done),) = reads
    before = api.store.read(query, *args)
    change_token(api, identity.device_id, "T2")
    done(before)
    api.store.reactor.run_until(lambda: outcomes)
    assert isinstance(outcomes[0], NotAuthenticated)
    assert api.api.known_token("T1") is None


def test_a_look_up_that_was_overtaken_by_a_profile_sees_the_new_one(
    api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the old profile is remembered."""
    api.log_in(username="T1")
    reads: list[Any] = []
    with monkeypatch.context() as slow:
        slow.setattr(api.api._store, "read", lambda query, args, done: reads.append((query, args, done)))
        outcomes: list[Any] = []
        api.api.authenticate_token("T1", outcomes.append)
    api.api.profile_changed()
    again: list[Any] = []
    monkeypatch.setattr(api.api._store, "read", lambda query, args, done: again.append(query))
    reads[0][2]([None])
    assert again and not outcomes


def test_a_first_login_confirms_only_what_was_presented(api: ApiUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that are replaced before the confirmation is on disk open nothing, and confirm nothing new."""
    decisions: list[Any] = []
    with monkeypatch.context() as slow:
        slow.setattr(api.api._store, "submit", lambda work, args, done: decisions.append((work, args, done)))
        outcomes: list[Any] = []
        api.api.authenticate_token("T1", outcomes.append)
        api.store.reactor.run_until(lambda: decisions)
    ((work, args, done),) = decisions
    device_id = api.store.read(lambda tx: tx.device_by_name(1, "token")).id
    change_token(api, device_id, "T2")
    api.store.store.submit(work, args, done)
    api.store.reactor.run_until(lambda: outcomes)
    assert isinstance(outcomes[0], NotAuthenticated)
    assert api.store.read(lambda tx: tx.credentials(device_id)).confirmed_ms is None


def test_credentials_that_provisioning_replaces_open_nothing_any_more(api: ApiUnderTest) -> None:
    """A pre-provisioned device that brings a token of its own leaves the old one useless at once."""
    profile = api.store.add_profile(
        "checked", strategy=ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES, accept_device_credentials=True
    )
    api.store.add_device("pre", profile, AccessToken("OLD"))
    for _ in range(2):
        assert api.log_in(username="OLD").device_name == "pre"
    assert api.api.known_token("OLD") is not None
    api.provision(
        provision_key="checked-key", provision_secret="checked-secret", device_name="pre", token="NEW",
        credentials_type=CredentialsType.ACCESS_TOKEN,
    )  # fmt: skip
    assert api.api.known_token("OLD") is None
    assert isinstance(api.log_in(username="OLD"), NotAuthenticated)
    assert api.log_in(username="NEW").device_name == "pre"
