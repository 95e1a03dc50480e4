"""Devices that wait for an operator's word before they are let in."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.core.keys import approvals
from cloud_core.core.limits import AttemptRations, Ration
from shared.payloads import refusal_response, render_provision_response
from tests.cloud_core.core.test_provision_keys import OWN, Plant
from tests.support.stores import StoreUnderTest

PENDING = "/api/provisioning/pending"


@pytest.fixture
def plant(store: StoreUnderTest) -> Plant:
    return Plant(store, approval="REQUIRED")


def waiting(plant: Plant, query: str = "") -> list[dict[str, Any]]:
    status, page = plant.rest.call("GET", f"{PENDING}?sortOrder=ASC{query}")
    assert status == 200, page
    rows: list[dict[str, Any]] = page["data"]
    return rows


def decide(plant: Plant, one: dict[str, Any], word: str) -> tuple[int, Any]:
    return plant.rest.call("POST", f"{PENDING}/{one['id']['id']}/{word}")


def test_a_right_request_waits_and_succeeds_once_it_is_accepted(plant: Plant) -> None:
    """The device is told to ask again; accepted, its ordinary request succeeds, once and for this request alone."""
    assert [plant.ask("SN-1", OWN), plant.ask("SN-1", OWN, "192.0.2.7")] == ["APPROVAL_PENDING"] * 2
    body = render_provision_response(refusal_response(plant.answer)).decode()
    assert '"retryAfter":60' in body and '"status":"FAILURE"' in body and '"reason":"APPROVAL_PENDING"' in body
    (one,) = waiting(plant)
    assert (one["name"], one["count"], one["source"], one["profileName"]) == ("SN-1", 2, "192.0.2.7", "meters")
    assert decide(plant, one, "accept")[0] == 200
    assert plant.ask("SN-1", OWN, token="brought-otherwise") == "APPROVAL_PENDING"
    assert plant.ask("SN-1", OWN) == "SUCCESS"
    assert waiting(plant, "&status=ACCEPTED") == []
    assert plant.ask("SN-1", OWN) == "DEVICE_EXISTS"


def test_wrong_requests_do_not_wait(plant: Plant) -> None:
    """Only what passes every other check is shown to an operator."""
    assert plant.ask("SN-1", OWN | {"provision_secret": "x"}) == "INVALID_PROVISION_CREDENTIALS"
    _, spent = plant.add("k", namePattern="A.*")
    assert plant.ask("SN-1", spent) == "INVALID_DEVICE_NAME"
    assert waiting(plant) == []


def test_a_rejected_request_is_refused_without_waiting_anew(plant: Plant) -> None:
    """The operator is not asked again for a week; then it waits as a new one."""
    plant.ask("SN-1", OWN)
    (one,) = waiting(plant)
    assert decide(plant, one, "reject")[0] == 200
    assert plant.ask("SN-1", OWN) == "PROVISIONING_DISABLED"
    assert waiting(plant) == []
    plant.api.now_s += approvals.KEEP_MS / 1000 + 1
    assert plant.ask("SN-1", OWN) == "APPROVAL_PENDING"
    assert [one["count"] for one in waiting(plant)] == [2]


def test_what_is_accepted_and_never_asked_for_again_is_over_in_time(plant: Plant) -> None:
    """An acceptance does not stand open for ever."""
    plant.ask("SN-1", OWN)
    decide(plant, waiting(plant)[0], "accept")
    plant.api.now_s += approvals.KEEP_MS / 1000 + 1
    assert plant.ask("SN-1", OWN) == "APPROVAL_PENDING"
    plant.api.now_s += approvals.KEEP_MS / 1000 + 1
    plant.api.store.run(approvals._expire, int(plant.api.now_s * 1000))
    assert waiting(plant, "&status=ANY") == []


def test_many_are_decided_by_a_filter(plant: Plant) -> None:
    """All that match are let in together, the others go on waiting, and the audit names them."""
    for name in ("A-1", "A-2", "B-1"):
        plant.ask(name, OWN)
    assert plant.rest.call("POST", f"{PENDING}/accept", {})[0] == 400
    status, done = plant.rest.call("POST", f"{PENDING}/accept", {"textSearch": "A-"})
    assert (status, done["count"], sorted(done["names"])) == (200, 2, ["A-1", "A-2"])
    assert [plant.ask(name, OWN) for name in ("A-1", "A-2", "B-1")] == ["SUCCESS", "SUCCESS", "APPROVAL_PENDING"]
    assert plant.rest.call("POST", f"{PENDING}/reject", {"all": True})[1]["names"] == ["B-1"]
    _, audit = plant.rest.call("GET", "/api/audit?entityType=PROVISION_REQUEST&sortOrder=ASC")
    assert [(one["action"], one["detail"]) for one in audit["data"]] == [("ACCEPTED", "A-1, A-2"), ("REJECTED", "B-1")]


def test_the_list_is_bounded(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile whose list is full refuses new requests and goes on answering those that wait."""
    monkeypatch.setattr(approvals, "MAX_PENDING", 1)
    plant = Plant(sqlite_store, approval="REQUIRED")
    assert [plant.ask("SN-1", OWN), plant.ask("SN-2", OWN), plant.ask("SN-1", OWN)] == [
        "APPROVAL_PENDING", "QUOTA_EXCEEDED", "APPROVAL_PENDING",
    ]  # fmt: skip


def test_a_key_spends_its_budget_on_devices_that_are_let_in(sqlite_store: StoreUnderTest) -> None:
    """Waiting costs nothing of a key's budget."""
    plant = Plant(sqlite_store, approval="REQUIRED")
    _, shown = plant.add("k", budget=1)
    assert [plant.ask("SN-1", shown), plant.ask("SN-2", shown)] == ["APPROVAL_PENDING"] * 2
    assert {one["keyName"] for one in waiting(plant, "&keyName=k")} == {"k"}
    plant.rest.call("POST", f"{PENDING}/accept", {"keyName": "k"})
    assert [plant.ask("SN-1", shown), plant.ask("SN-2", shown)] == ["SUCCESS", "QUOTA_EXCEEDED"]


def test_asking_again_is_no_failed_attempt(sqlite_store: StoreUnderTest) -> None:
    """A device that waits is not taken for one that guesses."""
    plant = Plant(sqlite_store, approval="REQUIRED")
    rations = AttemptRations(per_source_and_key=Ration(2, 60.0), per_source=Ration(2, 60.0))
    plant.api.api.failed_attempts = type(plant.api.api.failed_attempts)(rations)
    assert [plant.ask("SN-1", OWN) for _ in range(5)] == ["APPROVAL_PENDING"] * 5


def test_pre_provisioned_devices_wait_too(sqlite_store: StoreUnderTest) -> None:
    """A device that was imported gets its credentials once an operator has agreed."""
    plant = Plant(sqlite_store, approval="REQUIRED")
    _, profile = plant.rest.call("GET", plant.path)
    profile["provisionType"] = profile["profileData"]["provisionConfiguration"]["type"] = (
        "CHECK_PRE_PROVISIONED_DEVICES"
    )
    assert plant.rest.call("POST", "/api/deviceProfile", profile)[0] == 200
    plant.rest.made("/api/device", {"name": "SN-1", "type": "meters"})
    assert [plant.ask("SN-1", OWN), plant.ask("SN-2", OWN)] == ["APPROVAL_PENDING", "DEVICE_NOT_FOUND"]
    decide(plant, waiting(plant)[0], "accept")
    assert plant.ask("SN-1", OWN) == "SUCCESS"
