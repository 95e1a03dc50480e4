"""Administration on a real store: logins, profiles, devices, credentials, the provisioning log."""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any
from uuid import uuid4

import jwt
import pytest
from twisted.internet.defer import Deferred, succeed

from cloud_core.core import profile_admin
from cloud_core.core.admin import AdminApi
from cloud_core.core.downlinks import Ending
from cloud_core.core.people import login_admin, users
from cloud_core.core.people.logins import EXPIRED, TOKEN_S, Operator, Tokens
from cloud_core.model import (
    DEFAULT_TENANT,
    PROVISION_STATE,
    PROVISIONED,
    Page,
    ProvisionConfiguration,
    ProvisionStrategy,
    Scope,
)
from cloud_core.storage.interface import TimeSeriesQuery
from cloud_core.storage.reading import SqlReadTx
from shared.credentials import AccessToken, MqttBasic
from shared.errors import AlreadyProvisioned, InvalidArgument, NotAuthenticated, NotFound, VersionConflict
from shared.messages import ProvisionResponse
from tests.support.api import ApiUnderTest
from tests.support.stores import TENANT, StoreUnderTest

KEY = b"j" * 64
DOCUMENT = {"type": "DEFAULT", "transportType": "DEFAULT"}
CREATE = ProvisionConfiguration(strategy=ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES)
CHECK = ProvisionConfiguration(strategy=ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES, key="ck", secret="cs")
OPERATOR = Operator("admin@localhost", "TENANT_ADMIN", TENANT, DEFAULT_TENANT, uuid4())


class AdminUnderTest:
    """`AdminApi` whose coroutines are run to their end; refusals are raised."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.devices = ApiUnderTest(store)
        self.admin = AdminApi(store=store.store, api=self.devices.api, jwt_key=KEY)
        self.ended: list[tuple[int, Ending]] = []
        self.devices.api.downlinks.end = (  # type: ignore[method-assign]
            lambda device_id, why: self.ended.append((device_id, why))
        )

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        outcomes: list[Any] = []
        failures: list[Any] = []
        Deferred.fromCoroutine(call).addCallbacks(outcomes.append, failures.append)
        self.devices.store.reactor.run_until(lambda: outcomes or failures)
        if failures:
            raise failures[0].value
        return outcomes[0]

    def save_profile(self, name: str, provision: ProvisionConfiguration, **known: Any) -> Any:
        uuid, version = known.get("uuid"), known.get("version")
        return self.run(self.admin.save_profile(OPERATOR, uuid, name, provision, DOCUMENT, version))

    def save_device(self, **members: Any) -> Any:
        return self.run(self.admin.save_device(OPERATOR, members))

    def save_devices(self, *rows: Any, is_plan: bool = False) -> Any:
        return self.run(self.admin.save_devices(OPERATOR, rows, is_plan=is_plan))


@pytest.fixture
def one(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> AdminUnderTest:
    # The password hash is the only thread here; the test has no reactor to come back to.
    for module in (login_admin, profile_admin, users):
        monkeypatch.setattr(module, "deferToThread", lambda work, *args: succeed(work(*args)))
    return AdminUnderTest(sqlite_store)


# -- logins ---------------------------------------------------------------------------------------


def test_the_first_start_makes_an_administrator_and_the_default_profile(one: AdminUnderTest) -> None:
    assert one.run(one.admin.ensure_admin("a", "first", is_password_given=False)) is True
    assert one.run(one.admin.ensure_admin("a", "second", is_password_given=False)) is False
    operator = one.admin.operator(one.run(one.admin.login("a", "first"))["token"])
    assert (operator.username, operator.tenant_uuid) == ("a", DEFAULT_TENANT)
    assert one.run(one.admin.default_profile(operator)).name == "default"


def test_a_password_given_anew_replaces_the_old(one: AdminUnderTest) -> None:
    one.run(one.admin.ensure_admin("a", "first", is_password_given=True))
    one.run(one.admin.ensure_admin("a", "second", is_password_given=True))
    assert one.run(one.admin.login("a", "second"))
    with pytest.raises(NotAuthenticated, match="Invalid username or password"):
        one.run(one.admin.login("a", "first"))


def test_the_first_administrator_does_not_come_back_once_there_is_another(one: AdminUnderTest) -> None:
    """Deleted or called otherwise since: no start makes it anew with the password of long ago."""
    one.run(one.admin.ensure_admin("a", "first-password", is_password_given=False))
    operator = one.admin.operator(one.run(one.admin.login("a", "first-password"))["token"])
    members = {"email": "me@x", "authority": "TENANT_ADMIN", "password": "my-own-password"}
    one.run(one.admin.users.save(operator, members))
    me = one.admin.operator(one.run(one.admin.login("me@x", "my-own-password"))["token"])
    one.run(one.admin.users.delete(me, operator.user_uuid))
    assert one.run(one.admin.ensure_admin("a", "first-password", is_password_given=False)) is False
    with pytest.raises(NotAuthenticated):
        one.run(one.admin.login("a", "first-password"))
    assert one.run(one.admin.ensure_admin("a", "given-anew", is_password_given=True)) is True  # who is locked out


def test_the_first_administrator_is_nobody_elses_user(one: AdminUnderTest) -> None:
    """The name of a customer's user is refused, and that user's password stays."""
    one.run(one.admin.ensure_admin("a", "first-password", is_password_given=False))
    operator = one.admin.operator(one.run(one.admin.login("a", "first-password"))["token"])
    customer = one.run(one.admin.customers.save(operator, {"title": "ACME"}))
    members = {
        "email": "c@x", "authority": "CUSTOMER_USER", "customerId": str(customer.uuid), "password": "my-own-password",
    }  # fmt: skip
    one.run(one.admin.users.save(operator, members))
    with pytest.raises(InvalidArgument, match="choose another name"):
        one.run(one.admin.ensure_admin("c@x", "of-the-file", is_password_given=True))
    assert one.run(one.admin.login("c@x", "my-own-password"))


@pytest.mark.parametrize("username", ["a", "nobody"])
def test_wrong_user_and_wrong_password_are_told_alike(one: AdminUnderTest, username: str) -> None:
    one.run(one.admin.ensure_admin("a", "right", is_password_given=True))
    with pytest.raises(NotAuthenticated, match="Invalid username or password"):
        one.run(one.admin.login(username, "wrong"))


def test_tokens_are_jwts_with_the_lifetimes_clients_schedule_by() -> None:
    pair = Tokens(KEY).issue(OPERATOR, now := int(time.time()))
    claims = {name: jwt.decode(token, KEY, algorithms=["HS512"]) for name, token in pair.items()}
    assert claims["token"]["exp"] - now == 9000 and claims["refreshToken"]["exp"] - now == 604800
    assert claims["token"]["scopes"] == ["TENANT_ADMIN"] and claims["refreshToken"]["scopes"] == ["REFRESH_TOKEN"]


def test_a_refresh_token_refreshes_any_number_of_times_and_opens_nothing_else(one: AdminUnderTest) -> None:
    one.run(one.admin.ensure_admin("a", "right", is_password_given=True))
    pair = one.run(one.admin.login("a", "right"))
    operator = one.admin.operator(pair["token"])
    for _ in range(3):
        assert one.admin.operator(one.run(one.admin.refresh(pair["refreshToken"]))["token"]) == operator
    with pytest.raises(NotAuthenticated):
        one.admin.operator(pair["refreshToken"])
    with pytest.raises(NotAuthenticated):
        one.run(one.admin.refresh(pair["token"]))


def test_a_refresh_token_ends_with_its_user(one: AdminUnderTest) -> None:
    """Also where another user has the name by now."""
    one.run(one.admin.ensure_admin("a", "right", is_password_given=True))
    for username in ("gone", "a"):
        pair = Tokens(KEY).issue(replace(OPERATOR, username=username), int(time.time()))
        with pytest.raises(NotAuthenticated, match="does not exist any more"):
            one.run(one.admin.refresh(pair["refreshToken"]))


def test_an_expired_token_is_told_from_a_forged_one(one: AdminUnderTest) -> None:
    with pytest.raises(NotAuthenticated, match=EXPIRED):
        one.admin.operator(Tokens(KEY).issue(OPERATOR, int(time.time()) - 10_000)["token"])
    with pytest.raises(NotAuthenticated, match="Authentication failed"):
        one.admin.operator(Tokens(b"x" * 64).issue(OPERATOR, int(time.time()))["token"])


# -- profiles -------------------------------------------------------------------------------------


def test_key_and_secret_are_generated_where_the_strategy_needs_them(one: AdminUnderTest) -> None:
    made = one.save_profile("sensor", CREATE).provision
    assert made.key and made.secret and made.key != made.secret
    assert one.save_profile("off", ProvisionConfiguration()).provision.key == ""


def test_profiles_keep_the_rules_of_names_keys_and_versions(one: AdminUnderTest) -> None:
    first = one.save_profile("first", CHECK)
    for name, provision, message in [
        ("", CREATE, "Device profile name should be specified!"),
        ("first", CREATE, "Device profile with such name already exists!"),
        ("second", CHECK, "Device profile with such provision device key already exists!"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            one.save_profile(name, provision)
    changed = one.save_profile("renamed", CHECK, uuid=first.uuid, version=first.version)
    assert (changed.name, changed.version) == ("renamed", first.version + 1)
    with pytest.raises(VersionConflict):
        one.save_profile("late", CHECK, uuid=first.uuid, version=first.version)


def test_a_profile_in_use_or_the_default_one_is_not_deleted(one: AdminUnderTest) -> None:
    one.run(one.admin.ensure_admin("a", "p", is_password_given=True))
    used = one.save_profile("used", CREATE)
    one.save_device(name="d", type="used")
    with pytest.raises(InvalidArgument, match="referenced by the devices"):
        one.run(one.admin.delete_profile(OPERATOR, used.uuid))
    with pytest.raises(InvalidArgument, match="Default"):
        one.run(one.admin.delete_profile(OPERATOR, one.run(one.admin.default_profile(OPERATOR)).uuid))


# -- devices --------------------------------------------------------------------------------------


def test_a_type_finds_or_creates_its_profile(one: AdminUnderTest) -> None:
    first, second = (one.save_device(name=name, type="pump") for name in "ab")
    assert first.type == second.type == "pump" and first.profile_id == second.profile_id


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"name": " "}, "Device name should be specified!"),
        ({"name": "known"}, "Device with such name already exists!"),
        ({"name": "n" * 256}, "name length must be equal or less than 255"),
        ({"name": "<b>"}, "name is malformed"),
        ({"name": "n", "deviceProfileId": {"id": str(uuid4())}}, "non-existent device profile"),
    ],
)
def test_devices_keep_the_rules(one: AdminUnderTest, members: dict[str, Any], message: str) -> None:
    one.save_device(name="known")
    with pytest.raises(InvalidArgument, match=message):
        one.save_device(**members)


def test_new_credentials_end_the_old_ones_session_and_are_unique(one: AdminUnderTest) -> None:
    device = one.run(one.admin.save_device(OPERATOR, {"name": "d"}, "old"))
    assert one.devices.log_in(username="old").device_id == device.id
    one.ended.clear()
    one.run(one.admin.save_credentials(OPERATOR, device.uuid, MqttBasic("", "user", "pw")))
    assert one.ended == [(device.id, Ending.CREDENTIALS_CHANGED)]
    assert isinstance(one.devices.log_in(username="old"), NotAuthenticated)
    other = one.save_device(name="other")
    with pytest.raises(InvalidArgument, match="already registered"):
        one.run(one.admin.save_credentials(OPERATOR, other.uuid, AccessToken("user")))


def test_a_deleted_device_is_gone_with_its_login(one: AdminUnderTest) -> None:
    device = one.run(one.admin.save_device(OPERATOR, {"name": "d"}, "tok"))
    one.devices.log_in(username="tok")
    one.run(one.admin.delete_device(OPERATOR, device.uuid))
    assert (device.id, Ending.DEVICE_DELETED) in one.ended
    assert isinstance(one.devices.log_in(username="tok"), NotAuthenticated)
    with pytest.raises(NotFound):
        one.run(one.admin.device(OPERATOR, device.uuid))


def test_a_list_of_devices_has_one_outcome_per_row(one: AdminUnderTest) -> None:
    rows = ({"name": "a", "type": "t"}, {"name": "a"}, {"name": ""}, "no object", {"name": "b", "label": "l"})
    statuses = ["CREATED", "CONFLICT", "ERROR", "ERROR", "CREATED"]
    assert [row["status"] for row in one.save_devices(*rows, is_plan=True)] == statuses
    assert one.run(one.admin.devices(OPERATOR, Page()))[1] == 0
    assert [row["status"] for row in one.save_devices(*rows)] == statuses
    assert [row["status"] for row in one.save_devices({"name": "a", "type": "t"})] == ["UNCHANGED"]
    assert [row["status"] for row in one.save_devices({"name": "b", "label": "new"})] == ["UPDATED"]


def test_a_list_of_devices_tells_the_sessions_of_those_it_changes(one: AdminUnderTest) -> None:
    """As the call for a single device does; a row that says what is so already is unchanged, else it is written."""
    (made,) = one.save_devices({"name": "a", "type": "t", "additionalInfo": {"gateway": True}})
    number = one.run(one.admin.device_by_name(OPERATOR, "a")).id
    one.ended.clear()
    again = {"name": "a", "additionalInfo": {"gateway": True}}
    assert [row["status"] for row in one.save_devices(again)] == ["UNCHANGED"]
    assert one.ended == []
    for row in ({"name": "a", "type": "other"}, {"name": "a", "additionalInfo": {"gateway": False}}):
        assert [row["status"] for row in one.save_devices(row, is_plan=True)] == ["UPDATED"]
        assert one.ended == []
        (outcome,) = one.save_devices(row)
        assert (outcome["status"], outcome["id"]) == ("UPDATED", made["id"])
        assert one.ended == [(number, Ending.DEVICE_CHANGED)]
        one.ended.clear()
    assert one.run(one.admin.device_by_name(OPERATOR, "a")).is_gateway is False


def test_a_long_list_of_devices_lets_others_have_their_turn(
    one: AdminUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few rows are written at a time; repeated names are found over all of them."""
    store, turns = one.devices.store.store, []
    real = store.submit

    def submit(work: Any, args: Any, done: Any) -> None:
        turns.append(len(args[3][1]))  # behind who and what, for the audit
        real(work, args, done)

    monkeypatch.setattr(store, "submit", submit)
    told = one.save_devices(*({"name": f"d{number % 120}"} for number in range(130)))
    assert turns == [50, 50, 30]
    assert [row["status"] for row in told] == ["CREATED"] * 120 + ["CONFLICT"] * 10
    assert [row["index"] for row in told] == list(range(130))


# -- provisioning ---------------------------------------------------------------------------------


def test_deleting_the_provision_state_allows_provisioning_once_more(one: AdminUnderTest) -> None:
    one.save_profile("checked", CHECK)
    device = one.save_device(name="d", type="checked")
    ask = {"provision_key": "ck", "provision_secret": "cs", "device_name": "d"}
    assert isinstance(one.devices.provision(**ask), ProvisionResponse)
    assert isinstance(one.devices.provision(**ask), AlreadyProvisioned)
    (state,) = one.run(one.admin.attributes(OPERATOR, device.uuid, [Scope.SERVER], [PROVISION_STATE]))
    assert state.value == PROVISIONED
    one.run(one.admin.delete_attributes(OPERATOR, device.uuid, Scope.SERVER, [PROVISION_STATE]))
    assert isinstance(one.devices.provision(**ask), ProvisionResponse)


def test_a_reference_leads_to_its_attempt_and_an_unknown_one_says_why(one: AdminUnderTest) -> None:
    refusal = one.devices.provision(device_name="d")  # an unknown key
    attempt = one.run(one.admin.attempt(OPERATOR, refusal.ref.lower()))
    assert (attempt.outcome, attempt.device_name) == ("INVALID_PROVISION_CREDENTIALS", "d")
    with pytest.raises(NotFound, match="expired"):
        one.run(one.admin.attempt(OPERATOR, "NOSUCHREF"))


def test_a_remembered_token_still_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verified once, taken until its time is over, and never as a refresh token."""
    tokens, now_s = Tokens(KEY), int(time.time())
    issued = tokens.issue(OPERATOR, now_s)
    assert tokens.operator(issued["token"]) == tokens.operator(issued["token"]) == OPERATOR
    for token, is_refresh in ((issued["token"], True), (issued["refreshToken"], False)):
        with pytest.raises(NotAuthenticated):
            tokens.operator(token, is_refresh=is_refresh)
    over = tokens.issue(OPERATOR, now_s - TOKEN_S - 5)["token"]
    tokens._verified[over] = (OPERATOR, now_s + 100)  # as if it had been verified while it was good
    assert tokens.operator(over) == OPERATOR
    monkeypatch.setattr(time, "time", lambda: now_s + 200.0)
    with pytest.raises(NotAuthenticated, match=EXPIRED):
        tokens.operator(over)


def test_a_long_history_does_not_keep_devices_from_logging_in(
    one: AdminUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator's lists and histories are read beside the look-ups of devices."""
    device = one.save_device(name="d")
    token = one.run(one.admin.credentials(OPERATOR, device.uuid)).credentials.token
    reading = threading.Event()
    monkeypatch.setattr(SqlReadTx, "history", lambda tx, device_id, query: reading.wait(10.0) and {})
    asked = Deferred.fromCoroutine(one.admin.history(OPERATOR, device.uuid, TimeSeriesQuery(("a",), 0, 1)))
    try:
        assert one.devices.log_in(username=token).device_name == "d"
        assert not asked.called
    finally:
        reading.set()
    one.devices.store.reactor.run_until(lambda: asked.called)
