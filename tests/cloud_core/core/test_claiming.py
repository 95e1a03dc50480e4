"""Claiming on a real store: offers, secrets, owners, and what an operator can offer (wire-contract.md 7.3)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from cloud_core.core.api import Options
from cloud_core.core.claiming import ClaimOutcome
from cloud_core.core.limits import AttemptRations, Ration
from cloud_core.model import PROVISIONING_IDENTITY, Identity, Role, Scope
from shared.errors import ClaimRefused, NotAuthorized, NotFound, PlatformError, RateLimited
from shared.messages import DEFAULT_CLAIM_MS, ClaimRequest, JsonValue
from tests.support.api import UNLIMITED, ApiUnderTest
from tests.support.stores import TENANT, StoreUnderTest

SUCCESS, FAILURE, CLAIMED = ClaimOutcome


class Claims:
    """A device `d`, two customers, and the calls of both sides."""

    def __init__(self, store: StoreUnderTest, *, is_allowed: bool = True, rations: AttemptRations = UNLIMITED) -> None:
        self.store = store
        self.api = ApiUnderTest(store, rations=rations, options=Options(is_claiming_allowed=is_allowed))
        self.profile_id = store.add_profile()
        self.device_id = store.add_device("d", self.profile_id)
        self.acme, self.other = (self._customer(title) for title in ("ACME", "Other"))

    def _customer(self, title: str) -> int:
        made = {"uuid": uuid4(), "tenant_id": TENANT, "title": title, "document": {}, "created_ms": 1}
        return int(self.store.run(lambda tx: tx.insert_customer(**made)))

    def offer(self, secret: str = "", duration_ms: int = DEFAULT_CLAIM_MS, role: Role = Role.DEVICE) -> Any:
        identity = Identity(role, TENANT, self.device_id)
        request = ClaimRequest(secret=secret, duration_ms=duration_ms)
        return self.api.outcome(lambda done: self.api.api.claims.offer(identity, request, done))

    def claim(self, secret: str = "", customer_id: int = 0, name: str = "d") -> Any:
        customer_id = customer_id or self.acme
        outcome = self.api.outcome(
            lambda done: self.api.api.claims.claim(TENANT, customer_id, name, secret, done)
        )  # fmt: skip
        return outcome if isinstance(outcome, PlatformError) else outcome[0]

    def give_back(self, customer_id: int | None) -> Any:
        return self.api.outcome(lambda done: self.api.api.claims.give_back(TENANT, customer_id, "d", done))

    def put(self, **values: Any) -> None:
        self.store.run(lambda tx: tx.put_attributes(self.device_id, Scope.SERVER, values, now_ms=1))

    @property
    def owner(self) -> int | None:
        owner: int | None = self.store.read(lambda tx: tx.device_by_id(self.device_id)).customer_id
        return owner

    @property
    def server_attributes(self) -> dict[str, Any]:
        entries = self.store.read(lambda tx: tx.attributes(self.device_id, Scope.SERVER))
        return {one.key: one.value for one in entries}


@pytest.fixture
def claims(sqlite_store: StoreUnderTest) -> Claims:
    return Claims(sqlite_store)


@pytest.mark.parametrize("secret", ["", "s3cret", "sécret"])
def test_who_shows_the_secret_in_time_becomes_the_owner(claims: Claims, secret: str) -> None:
    """Before that a wrong one is FAILURE, after it everything is CLAIMED. (M9)"""
    claims.offer(secret)
    assert (claims.claim(secret + "x"), claims.owner) == (FAILURE, None)
    claims.offer(secret)
    assert (claims.claim(secret), claims.owner) == (SUCCESS, claims.acme)
    assert [claims.claim(secret, claims.other), claims.claim(secret)] == [CLAIMED, CLAIMED]
    assert claims.owner == claims.acme


def test_a_failed_attempt_ends_the_offer(claims: Claims) -> None:
    claims.offer("right")
    assert [claims.claim("wrong"), claims.claim("right")] == [FAILURE, FAILURE]


def test_what_was_never_offered_cannot_be_claimed(claims: Claims) -> None:
    """An empty secret does not open a device that says nothing."""
    assert claims.claim("") is FAILURE
    assert isinstance(claims.claim("", name="nobody"), NotFound)


def test_an_offer_is_over_at_its_time(claims: Claims) -> None:
    claims.offer("s", duration_ms=60_000)
    claims.api.now_s += 60.0
    assert claims.claim("s") is FAILURE
    claims.offer("s", duration_ms=60_000)
    claims.api.now_s += 59.999
    assert claims.claim("s") is SUCCESS


def test_the_first_offer_stands_until_it_is_over(claims: Claims) -> None:
    """A second one neither changes the secret nor lengthens the time."""
    claims.offer("first", duration_ms=60_000)
    claims.offer("second", duration_ms=120_000)
    assert claims.claim("second") is FAILURE
    claims.offer("first", duration_ms=60_000)
    claims.api.now_s += 61.0
    claims.offer("second", duration_ms=60_000)
    assert claims.claim("second") is SUCCESS


def test_the_longest_duration_is_no_overflow(claims: Claims) -> None:
    assert claims.offer("s", duration_ms=2**63 - 1) is None
    assert claims.claim("s") is SUCCESS


def test_a_device_with_an_owner_may_not_offer_itself(claims: Claims) -> None:
    claims.offer()
    claims.claim()
    assert isinstance(claims.offer(), ClaimRefused)


def test_only_devices_offer_themselves(claims: Claims) -> None:
    outcome = claims.api.outcome(
        lambda done: claims.api.api.claims.offer(PROVISIONING_IDENTITY, ClaimRequest(), done)
    )  # fmt: skip
    assert isinstance(outcome, NotAuthorized)


def test_of_several_offers_a_refused_one_keeps_none_back(claims: Claims) -> None:
    """A gateway speaks for many: the answer is the refusal, the others are offered."""
    second = claims.store.add_device("second", claims.profile_id)
    claims.offer()
    claims.claim()
    offers = [(claims.device_id, ClaimRequest()), (999, ClaimRequest()), (second, ClaimRequest(secret="s"))]
    outcome = claims.api.outcome(lambda done: claims.api.api.claims.offer_all(TENANT, offers, done))
    assert isinstance(outcome, ClaimRefused) and "'d' has an owner" in str(outcome)
    assert claims.claim("s", name="second") is SUCCESS


def test_devices_of_another_tenant_are_not_offered(claims: Claims) -> None:
    offers = [(claims.device_id, ClaimRequest())]
    outcome = claims.api.outcome(lambda done: claims.api.api.claims.offer_all(TENANT + 1, offers, done))
    assert isinstance(outcome, ClaimRefused)
    assert claims.claim() is FAILURE


@pytest.mark.parametrize("allowed", [None, False, "true"])
def test_where_claiming_is_off_the_attribute_must_be_true(sqlite_store: StoreUnderTest, allowed: Any) -> None:
    claims = Claims(sqlite_store, is_allowed=False)
    if allowed is not None:
        claims.put(claimingAllowed=allowed)
    refusal = claims.offer()
    assert isinstance(refusal, ClaimRefused) and "claimingAllowed" in str(refusal)
    claims.put(claimingAllowed=True)
    assert claims.offer() is None
    assert claims.claim() is SUCCESS
    assert "claimingAllowed" not in claims.server_attributes


@pytest.mark.parametrize("as_text", [True, False])
def test_an_operator_can_offer_a_device(claims: Claims, as_text: bool) -> None:
    """By a server attribute, an object or its text; used once. A failed attempt leaves the operator's offer."""
    text = f'{{"secretKey":"s","expirationTime":{int(claims.api.now_s * 1000) + 10}}}'
    claims.put(claimingData=text if as_text else JsonValue(text))
    assert (claims.claim("x"), claims.claim("s")) == (FAILURE, SUCCESS)
    assert claims.server_attributes == {}


@pytest.mark.parametrize(
    "value", [5, True, "no json", JsonValue("[]"), JsonValue("{}"), JsonValue('{"secretKey":1,"expirationTime":9e15}'),
              JsonValue('{"secretKey":"","expirationTime":1}')],
)  # fmt: skip
def test_an_unusable_or_late_operators_offer_opens_nothing(claims: Claims, value: Any) -> None:
    claims.put(claimingData=value)
    assert claims.claim("") is FAILURE


def test_the_secret_is_stored_as_a_hash_only(claims: Claims) -> None:
    claims.offer("very-secret-indeed")
    secret_hash, _ = claims.store.read(lambda tx: tx.claim_offer(claims.device_id))
    assert len(secret_hash) == 16 and b"very" not in secret_hash


def test_an_owner_gives_back_its_own_and_an_operator_everybodys(claims: Claims) -> None:
    for who in (claims.acme, None):
        claims.offer()
        claims.claim()
        assert isinstance(claims.give_back(claims.other), NotAuthorized)
        assert (claims.give_back(who), claims.owner) == (None, None)
    assert claims.give_back(claims.other) is None  # nobody's: nothing to do


def test_what_is_given_back_can_be_claimed_again_where_claiming_is_off(sqlite_store: StoreUnderTest) -> None:
    claims = Claims(sqlite_store, is_allowed=False)
    claims.put(claimingAllowed=True)
    claims.offer()
    claims.claim()
    claims.give_back(claims.acme)
    assert claims.server_attributes == {"claimingAllowed": True}


def test_guessing_is_rationed(sqlite_store: StoreUnderTest) -> None:
    """An operator's offer outlives failed attempts, so the customer must wait after some; so for names."""
    rations = AttemptRations(per_source_and_key=Ration(3, 5.0), per_source=Ration(5, 5.0))
    claims = Claims(sqlite_store, rations=rations)
    assert [claims.claim("x") for _ in range(3)] == [FAILURE] * 3
    assert isinstance(claims.claim("x"), RateLimited)
    assert isinstance(claims.claim("x", name="e"), NotFound) and isinstance(claims.claim("x", name="f"), NotFound)
    assert isinstance(claims.claim("x", name="g"), RateLimited)
    assert claims.claim("x", claims.other) is FAILURE


def test_a_customer_that_is_gone_claims_nothing(claims: Claims) -> None:
    """Its users' tokens live on for a while."""
    claims.offer()
    claims.store.run(lambda tx: tx.delete_customer(claims.acme))
    assert isinstance(claims.claim(), NotAuthorized)


def test_offers_that_are_over_are_forgotten(claims: Claims) -> None:
    claims.offer(duration_ms=1_000)
    claims.api.now_s += 2.0
    claims.api.api.claims.maintain()
    claims.store.run(lambda tx: None)
    assert claims.store.read(lambda tx: tx.claim_offer(claims.device_id)) is None
