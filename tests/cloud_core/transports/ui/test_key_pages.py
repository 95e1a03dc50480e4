"""Provision keys: shown once, limited, rotated with an overlap."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from cloud_core.model import KeyRules, ProvisionKey, UserRole
from cloud_core.transports.http.ui.key_forms import overlap_of, rules_of, standing, values_of
from cloud_core.transports.http.ui.visits import Form
from shared.errors import InvalidArgument
from tests.support.rest import without_threads
from tests.support.stores import StoreUnderTest
from tests.support.ui import Shown
from tests.support.ui_ops import HOSTILE, Plant


@pytest.fixture
def plant(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    without_threads(monkeypatch)
    plant = Plant(sqlite_store)
    yield plant
    plant.browser.close()


def known(plant: Plant) -> ProvisionKey:
    (one,) = plant.store.read(lambda tx: tx.provision_keys(plant.sensor_id))
    key: ProvisionKey = one
    return key


def test_keys_are_for_administrators(plant: Plant) -> None:
    """Nobody else sees them or changes anything."""
    paths = [plant.keys, f"{plant.keys}/new"]
    posts = [f"{plant.keys}{end}" for end in ("", "/rotate", "/reveal")]
    for browser in (plant.as_role(UserRole.OPERATOR), plant.as_role(UserRole.VIEWER), plant.as_customer_user()):
        assert [browser.open(path).status for path in paths] == [403, 403]
        assert [browser.submit(path, {"name": "k", "overlap": "0"}).status for path in posts] == [403] * 3


def test_the_secret_is_hidden_until_it_is_asked_for(plant: Plant) -> None:
    """In the list, and after; it is not kept by the browser."""
    assert "sensor-secret" not in plant.browser.open(plant.keys).text
    shown = plant.browser.submit(f"{plant.keys}/reveal")
    assert "sensor-secret" in shown.text and shown.headers["cache-control"] == "no-store"
    assert "sensor-secret" not in plant.browser.open(plant.keys).text


def test_a_new_key_is_shown_once(plant: Plant) -> None:
    """With its secret; it lets devices in as its rules say."""
    fields = {
        "name": "Line 4", "budget": "1", "networks": "192.0.2.0/24 10.0.0.0/8", "namePattern": "L4-.*", "batch": "48",
        "validUntil": "2099-12-31T18:00",
    }  # fmt: skip
    shown = plant.browser.submit(plant.keys, fields)
    key = known(plant)
    assert shown.status == 200 and key.secret in shown.text and key.key in shown.text
    assert key.rules == KeyRules(
        budget=1, valid_until_ms=4_102_423_200_000, networks=("192.0.2.0/24", "10.0.0.0/8"), name_pattern="L4-.*",
        batch="48",
    )  # fmt: skip
    listed = plant.browser.open(plant.keys)
    assert key.secret not in listed.text and key.key not in listed.text and "Line 4" in listed.words
    shown_by = {"provision_key": key.key, "provision_secret": key.secret}
    assert plant.ask("L4-1", **shown_by).status.value == "SUCCESS"
    listed = plant.browser.open(plant.keys)
    assert "1 of 1" in listed.words and "Budget used up" in listed.words


def test_wrong_rules_are_told_beside_what_was_typed(plant: Plant) -> None:
    """Nothing is made; a secret that was typed is not shown again."""
    right = {"name": "k", "provisionDeviceSecret": "typed-secret"}
    for wrong, said in (
        ({"budget": "many"}, "whole number"), ({"budget": "-1"}, "whole number"),
        ({"budget": "9" * 50}, "whole number"),
        ({"validUntil": "soon"}, "date and time"), ({"networks": "10.0.0.300"}, "is no network"),
        ({"namePattern": "("}, "namePattern"), ({"name": ""}, "must not be empty"), ({"name": HOSTILE}, "name"),
        ({"name": "x" * 300}, "name"), ({"networks": " ".join(["10.0.0.1"] * 99)}, "at most 64"),
        ({"validFrom": "2030-01-01T00:00", "validUntil": "2029-01-01T00:00"}, "after validFrom"),
        ({"provisionDeviceKey": "sensor-key"}, "Another device profile has"),
    ):  # fmt: skip
        shown = plant.browser.submit(plant.keys, right | wrong)
        assert shown.status == 400 and said in shown.words, wrong
        assert "typed-secret" not in shown.text and "<script>alert" not in shown.text
    assert plant.store.read(lambda tx: tx.provision_keys(plant.sensor_id)) == []


def test_a_key_is_changed_switched_off_and_deleted(plant: Plant) -> None:
    """Each with a word of what was done."""
    plant.browser.submit(plant.keys, {"name": "k", "budget": "5", "gateways": "yes"})
    one = f"{plant.keys}/{known(plant).uuid}"
    form = plant.browser.open(one)
    assert 'value="5"' in form.text and "checked" in form.text and known(plant).secret not in form.text
    assert plant.browser.submit(one, {"budget": "7", "seen": seen(form)}).location == plant.keys
    assert known(plant).rules == KeyRules(budget=7)
    assert plant.browser.submit(one, {"budget": "x"}).status == 400
    plant.browser.submit(f"{one}/disable")
    assert not known(plant).is_enabled and "Disabled" in plant.browser.open(plant.keys).words
    plant.browser.submit(f"{one}/enable")
    assert known(plant).is_enabled
    plant.browser.submit(f"{one}/delete")
    assert "The provision key k is deleted" in plant.browser.open(plant.keys).words
    assert plant.browser.open(one).status == 404


def seen(form: Shown) -> str:
    """What the form carries of the rules that it shows."""
    found = re.search(r'name="seen" value="(\w+)"', form.text)
    assert found is not None
    return found[1]


def test_of_two_who_change_a_key_the_second_is_told(plant: Plant) -> None:
    """Nothing of the first one's is overwritten unseen; what the second typed is still there."""
    plant.browser.submit(plant.keys, {"name": "k", "budget": "5"})
    one = f"{plant.keys}/{known(plant).uuid}"
    first, second = (seen(plant.browser.open(one)) for _ in range(2))
    assert plant.browser.submit(one, {"budget": "6", "seen": first}).location == plant.keys
    refused = plant.browser.submit(one, {"budget": "9", "batch": "mine", "seen": second})
    assert refused.status == 400 and "Somebody else has changed this key" in refused.words
    assert 'value="mine"' in refused.text and known(plant).rules == KeyRules(budget=6)
    assert plant.browser.submit(one, {"budget": "9", "seen": seen(refused)}).status == 400  # until it is loaded anew
    assert plant.browser.submit(one, {"budget": "9", "seen": seen(plant.browser.open(one))}).status == 303


@pytest.mark.parametrize("until_ms", [1_900_000_037_123, 2**53])
def test_an_end_that_was_not_touched_stays(plant: Plant, until_ms: int) -> None:
    """To the millisecond, also where the form cannot show it."""
    plant.browser.submit(plant.keys, {"name": "k"})
    key = replace(known(plant), rules=KeyRules(valid_until_ms=until_ms))
    plant.store.run(lambda tx: tx.update_provision_key(key))
    one = f"{plant.keys}/{known(plant).uuid}"
    form = plant.browser.open(one)
    shown = values_of(key.rules)["validUntil"]
    plant.browser.submit(one, {"budget": "3", "validUntil": shown, "seen": seen(form)})
    assert known(plant).rules == KeyRules(budget=3, valid_until_ms=until_ms)


def test_a_rotation_shows_the_new_secret_and_who_follows(plant: Plant) -> None:
    """The old one stays valid for the time chosen; a second rotation before is refused."""
    rotated = plant.browser.submit(f"{plant.keys}/rotate", {"overlap": "86400"})
    fresh = plant.store.read(lambda tx: tx.profile_by_name(1, "sensor")).provision.secret
    assert rotated.status == 200 and fresh in rotated.text and fresh != "sensor-secret"
    assert "No device has shown the old secret" in plant.browser.open(plant.keys).words
    plant.ask("a")
    plant.ask("b", provision_secret=fresh)
    plant.browser.api.api.adoption.flush()
    plant.store.run(lambda _tx: None)  # behind it
    shown = plant.browser.open(plant.keys)
    assert "1 request (50 %)" in shown.words and "some devices have not followed" in shown.words
    again = plant.browser.submit(f"{plant.keys}/rotate", {"overlap": "604800"})
    assert again.status == 400 and "is valid until" in again.words
    assert plant.browser.submit(f"{plant.keys}/rotate", {"overlap": "17"}).status == 400


def test_a_profile_without_keys_says_so(plant: Plant) -> None:
    """And an unknown one is none."""
    assert plant.browser.open("/ui/profiles/nonsense/keys").status == 404
    assert "No further key" in plant.browser.open(plant.keys).words


# -- pure -----------------------------------------------------------------------------------------


def test_rules_come_back_as_they_were_typed() -> None:
    """To and from the form."""
    rules = KeyRules(
        budget=3, valid_from_ms=1_700_000_040_000, networks=("10.0.0.0/8",), name_pattern="a", allows_gateways=True
    )
    values = values_of(rules)
    assert rules_of(Form({name: [value] for name, value in values.items()})) == rules
    assert values_of(KeyRules(valid_until_ms=2**53))["validUntil"] == ""


@pytest.mark.parametrize(
    ("members", "rules", "text"),
    [
        ({}, {}, "In use"), ({"is_enabled": False}, {}, "Disabled"), ({}, {"valid_from_ms": 200}, "Not valid yet"),
        ({}, {"valid_until_ms": 100}, "Over"), ({"used": 2}, {"budget": 2}, "Budget used up"),
        ({"used": 1}, {"budget": 2}, "In use"),
    ],
)  # fmt: skip
def test_a_key_stands_where_its_rules_put_it(members: dict[str, Any], rules: dict[str, Any], text: str) -> None:
    """The first thing that keeps devices out."""
    key = ProvisionKey(
        id=1, uuid=uuid4(), tenant_id=1, profile_id=1, name="k", key="k", secret="s", rules=KeyRules(**rules), **members
    )
    assert standing(key, 100).text == text


def test_an_overlap_is_one_of_those_offered() -> None:
    """Anything else is refused."""
    assert overlap_of("0") == 0
    with pytest.raises(InvalidArgument):
        overlap_of("")
