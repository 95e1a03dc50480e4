"""Secrets of profiles: rotation with overlap, adoption, and further provision keys with rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloud_core.core import provisioning
from cloud_core.core.keys import provision_keys
from cloud_core.core.provisioning import Policy
from cloud_core.model import Peer, Transport
from shared.errors import InvalidProvisionCredentials, QuotaExceeded
from shared.messages import ProvisionRequest, ProvisionResponse
from tests.support.rest import Rest, id_of
from tests.support.stores import StoreUnderTest, open_store

OWN = {"provision_key": "own-key-0001", "provision_secret": "own-secret"}


class Plant:
    """One profile with REST and devices."""

    def __init__(self, store: StoreUnderTest, **provision: Any) -> None:
        self.rest = Rest(store, policy=Policy())
        self.api = self.rest.api
        made = self.rest.made("/api/deviceProfile", {
            "name": "meters", "type": "DEFAULT", "transportType": "DEFAULT",
            "provisionType": "ALLOW_CREATE_NEW_DEVICES", "provisionDeviceKey": OWN["provision_key"],
            "profileData": {"provisionConfiguration": {"provisionDeviceSecret": OWN["provision_secret"], **provision}},
        })  # fmt: skip
        self.profile = made
        self.path = f"/api/deviceProfile/{id_of(made)}"

    def ask(self, name: str, shown: dict[str, str], source: str = "192.0.2.1", **members: Any) -> str:
        """SUCCESS or the reason of the refusal."""
        self.answer = self.api.provision(Peer(Transport.HTTP, source), device_name=name, **shown, **members)
        return getattr(getattr(self.answer, "reason", None), "value", None) or str(self.answer.status.value)

    def add(self, name: str, **rules: Any) -> tuple[dict[str, Any], dict[str, str]]:
        made = self.rest.made(f"{self.path}/keys", {"name": name, **rules})
        shown = {"provision_key": made["provisionDeviceKey"], "provision_secret": made["provisionDeviceSecret"]}
        return made, shown

    def adoption(self) -> dict[str, Any]:
        self.api.api.adoption.flush()
        self.api.store.run(lambda _tx: None)  # behind it
        found: dict[str, Any] = self.rest.call("GET", f"{self.path}/adoption")[1]
        return found

    def fix(self) -> str:
        _, attempt = self.rest.call("GET", f"/api/provisioning/attempts/{self.answer.ref}")
        return f"{attempt['detail']} / {attempt['fix']}"


@pytest.fixture
def plant(store: StoreUnderTest) -> Plant:
    return Plant(store)


def test_after_a_rotation_both_secrets_are_valid_until_the_overlap_ends(plant: Plant) -> None:
    """The new secret works at once, the old one for as long as was said, and then no more."""
    status, rotated = plant.rest.call("POST", f"{plant.path}/rotateSecret", {"overlapSeconds": 60})
    assert status == 200
    fresh = OWN | {"provision_secret": rotated["profileData"]["provisionConfiguration"]["provisionDeviceSecret"]}
    assert fresh != OWN
    assert [plant.ask("SN-1", OWN), plant.ask("SN-2", fresh), plant.ask("SN-3", fresh)] == ["SUCCESS"] * 3
    adoption = plant.adoption()
    now_ms = int(plant.api.now_s * 1000)
    assert adoption == {
        "current": {"attempts": 2, "lastTime": now_ms}, "former": {"attempts": 1, "lastTime": now_ms},
        "formerSecretValidUntil": now_ms + 60_000,
    }  # fmt: skip
    plant.api.now_s += 60
    assert [plant.ask("SN-4", OWN), plant.ask("SN-4", fresh)] == ["INVALID_PROVISION_CREDENTIALS", "SUCCESS"]
    adoption = plant.adoption()
    assert (adoption["current"]["attempts"], adoption["formerSecretValidUntil"]) == (3, None)


def test_an_overlap_of_nothing_ends_the_old_secret_at_once(plant: Plant) -> None:
    """That is the emergency: nobody comes in by the old secret any more."""
    assert plant.rest.call("POST", f"{plant.path}/rotateSecret", {"overlapSeconds": 0})[0] == 200
    assert plant.ask("SN-1", OWN) == "INVALID_PROVISION_CREDENTIALS"
    assert plant.rest.call("POST", f"{plant.path}/rotateSecret", {})[0] == 400


def test_a_second_rotation_does_not_cut_the_overlap_of_the_first(plant: Plant) -> None:
    """Who rotates again, perhaps since an answer was lost, locks out no device that was promised time."""
    assert plant.rest.call("POST", f"{plant.path}/rotateSecret", {"overlapSeconds": 60})[0] == 200
    status, error = plant.rest.call("POST", f"{plant.path}/rotateSecret", {"overlapSeconds": 90})
    assert status == 400 and "overlapSeconds 0" in error["message"]
    assert plant.ask("SN-1", OWN) == "SUCCESS"
    assert plant.rest.call("POST", f"{plant.path}/rotateSecret", {"overlapSeconds": 0})[0] == 200
    assert plant.ask("SN-2", OWN) == "INVALID_PROVISION_CREDENTIALS"
    assert plant.rest.call("POST", f"{plant.path}/rotateSecret", {"overlapSeconds": 60})[0] == 200
    plant.api.now_s += 60
    assert plant.rest.call("POST", f"{plant.path}/rotateSecret", {"overlapSeconds": 60})[0] == 200


def test_saving_the_profile_keeps_the_overlap(plant: Plant) -> None:
    """Other changes of the profile leave the former secret valid; another secret by hand ends it."""
    plant.rest.call("POST", f"{plant.path}/rotateSecret", {"overlapSeconds": 60})
    _, profile = plant.rest.call("GET", plant.path)
    assert plant.rest.call("POST", "/api/deviceProfile", profile | {"description": "x"})[0] == 200
    assert plant.ask("SN-1", OWN) == "SUCCESS"
    _, profile = plant.rest.call("GET", plant.path)
    profile["profileData"]["provisionConfiguration"]["provisionDeviceSecret"] = "by-hand"
    assert plant.rest.call("POST", "/api/deviceProfile", profile)[0] == 200
    assert plant.ask("SN-2", OWN) == "INVALID_PROVISION_CREDENTIALS"


def test_a_budget_counts_devices_and_not_answers(store: StoreUnderTest) -> None:
    """A key lets in as many devices as its budget says; a lost answer asked for again costs nothing."""
    plant = Plant(store, reprovisioning="REPLAY_UNTIL_CONFIRMED")
    made, shown = plant.add("line-3", budget=2, batch="B7")
    assert [plant.ask("SN-1", shown), plant.ask("SN-2", shown), plant.ask("SN-3", shown)] == [
        "SUCCESS", "SUCCESS", "QUOTA_EXCEEDED",
    ]  # fmt: skip
    assert "line-3" in plant.fix() and "budget" in plant.fix()
    assert plant.ask("SN-2", shown) == "SUCCESS"
    _, (listed,) = plant.rest.call("GET", f"{plant.path}/keys")
    assert (listed["used"], listed["budget"], listed["batch"]) == (2, 2, "B7")
    assert made["provisionDeviceSecret"] not in str(listed) and made["provisionDeviceKey"] not in str(listed)
    assert plant.rest.call("POST", f"{plant.path}/keys/{id_of(made)}", {"budget": 3})[0] == 200
    assert plant.ask("SN-3", shown) == "SUCCESS"


@pytest.mark.parametrize(
    ("rules", "name", "members", "expected"),
    [
        ({"networks": ["192.0.2.9/24"]}, "SN-1", {}, "SUCCESS"),
        ({"networks": ["10.0.0.0/8", "::1/128"]}, "SN-1", {}, "INVALID_PROVISION_CREDENTIALS"),
        ({"namePattern": "SN-[0-9]+"}, "SN-1", {}, "SUCCESS"),
        ({"namePattern": "SN-[0-9]+"}, "SN-1x", {}, "INVALID_DEVICE_NAME"),
        ({"namePattern": "SN-[0-9]+"}, "", {}, "INVALID_DEVICE_NAME"),
        ({}, "SN-1", {"is_gateway": True}, "INVALID_PROVISION_CREDENTIALS"),
        ({"gateways": True}, "SN-1", {"is_gateway": True}, "SUCCESS"),
        ({"validFrom": 1_800_000_000_000}, "SN-1", {}, "INVALID_PROVISION_CREDENTIALS"),
        ({"validUntil": 1_600_000_000_000}, "SN-1", {}, "INVALID_PROVISION_CREDENTIALS"),
        ({}, "SN-1", {"provision_secret": "wrong"}, "INVALID_PROVISION_CREDENTIALS"),
    ],
)
def test_rules_decide_whom_a_key_lets_in(
    sqlite_store: StoreUnderTest, rules: dict[str, Any], name: str, members: dict[str, Any], expected: str
) -> None:
    """Network, name, kind and time are looked at, and the operator reads which key refused."""
    plant = Plant(sqlite_store)
    _, shown = plant.add("k", **rules)
    assert plant.ask(name, shown | {k: v for k, v in members.items() if k in shown}, **{
        k: v for k, v in members.items() if k not in shown
    }) == expected  # fmt: skip
    if expected != "SUCCESS" and not members.get("provision_secret"):
        assert "provision key 'k'" in plant.fix()


def test_keys_are_disabled_and_deleted(plant: Plant) -> None:
    """A disabled key lets nobody in until it is enabled again; a deleted one is unknown; the profile's own stays."""
    made, shown = plant.add("k")
    path = f"{plant.path}/keys/{id_of(made)}"
    assert plant.rest.call("POST", path, {"enabled": False})[0] == 200
    assert plant.ask("SN-1", shown) == "INVALID_PROVISION_CREDENTIALS"
    assert "disabled" in plant.fix()
    assert plant.rest.call("POST", path, {"enabled": True})[0] == 200
    assert plant.ask("SN-1", shown) == "SUCCESS"
    assert plant.rest.call("DELETE", path)[0] == 200
    assert [plant.ask("SN-2", shown), plant.ask("SN-2", OWN)] == ["INVALID_PROVISION_CREDENTIALS", "SUCCESS"]
    _, audit = plant.rest.call("GET", "/api/audit?entityType=PROVISION_KEY&sortOrder=ASC")
    assert [one["action"] for one in audit["data"]] == ["CREATED", "UPDATED", "UPDATED", "DELETED"]
    assert shown["provision_secret"] not in str(audit)


@pytest.mark.parametrize(
    "body",
    [
        {"name": " "}, {"name": "k", "networks": ["here"]}, {"name": "k", "namePattern": "("}, {"name": "taken"},
        {"name": "k", "budget": -1}, {"name": "k", "gateways": "yes"}, {"name": "k", "networks": "10.0.0.0/8"},
        {"name": "k", "provisionDeviceKey": OWN["provision_key"]}, {"name": "k", "validFrom": 5, "validUntil": 4},
    ],
)  # fmt: skip
def test_rules_that_cannot_be_are_refused(sqlite_store: StoreUnderTest, body: dict[str, Any]) -> None:
    """A wrong rule or a key that is in use is an error that says which, and nothing is made."""
    plant = Plant(sqlite_store)
    made, _ = plant.add("taken")
    status, error = plant.rest.call("POST", f"{plant.path}/keys", body)
    assert (status, bool(error["message"])) == (400, True)
    assert len(plant.rest.call("GET", f"{plant.path}/keys")[1]) == 1
    taken = {"name": "other", "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": "DISABLED"}
    assert (
        plant.rest.call("POST", "/api/deviceProfile", taken | {"provisionDeviceKey": made["provisionDeviceKey"]})[0]
        == 400
    )


def _let_in(tx: Any, name: str, shown: dict[str, str]) -> Any:
    request = ProvisionRequest(device_name=name, **shown)
    peer, digest = Peer(Transport.HTTP, "192.0.2.1"), name.encode().ljust(16)
    return provisioning.attempt(tx, request, digest, peer, 1, Policy(), {}).outcome


def test_nodes_that_share_a_database_keep_to_one_budget(postgresql: Callable[[], str]) -> None:
    """Two nodes that let devices in at the same time count on one row: not one device more than the budget."""
    url = postgresql()
    nodes = [open_store(url), open_store(url)]
    _, shown = Plant(nodes[0]).add("k", budget=20)
    answers: list[list[Any]] = [[], []]
    for count in range(30):
        for which, (node, mine) in enumerate(zip(nodes, answers, strict=True)):
            node.store.submit(_let_in, (f"SN-{which}-{count}", shown), mine.append)
    for node, mine in zip(nodes, answers, strict=True):
        node.reactor.run_until(lambda mine=mine: len(mine) == 30)
    said = [one for mine in answers for one in mine]
    assert [isinstance(one, ProvisionResponse) for one in said].count(True) == 20
    assert [isinstance(one, QuotaExceeded) for one in said].count(True) == 40
    for node in nodes:
        node.close()


def test_a_key_deleted_by_another_node_meanwhile_lets_nobody_in(postgresql: Callable[[], str]) -> None:
    """The request is refused as with an unknown key; nothing fails."""
    url = postgresql()
    nodes = [open_store(url), open_store(url)]
    shown = Plant(nodes[0]).add("k", budget=20)[1]

    def race(tx: Any) -> Any:
        key, _ = tx.provision_key(shown["provision_key"])
        nodes[1].run(lambda other: other.delete_provision_key(key.id))
        return provision_keys.check_budget(tx, key)

    with pytest.raises(InvalidProvisionCredentials):
        nodes[0].run(race)
    for node in nodes:
        node.close()
