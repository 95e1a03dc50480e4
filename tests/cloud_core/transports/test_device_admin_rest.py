"""Devices and profiles over REST: lists, names and conflicts (wire-contract.md sections 6.3 and 6.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from cloud_core.model import DevicePresence
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import TENANT, StoreUnderTest


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    without_threads(monkeypatch)
    sqlite_store.add_profile()
    peer = Rest(sqlite_store)
    yield peer
    peer.close()


def make(rest: Rest, name: str, query: str = "", **members: Any) -> dict[str, Any]:
    return rest.made(f"/api/device{query}", {"name": name, "type": "sensor", **members})


def activate(rest: Rest, device: dict[str, Any]) -> None:
    store = rest.api.store
    number = store.read(lambda tx: tx.device(TENANT, UUID(id_of(device)))).id
    store.run(lambda tx: tx.put_presence([DevicePresence(device_id=number, is_active=True)]))


def names(answer: tuple[int, Any]) -> list[str]:
    status, page = answer
    assert status == 200, page
    return [one["name"] for one in page["data"]]


def test_device_infos_show_customer_profile_and_activity(rest: Rest) -> None:
    """Filters narrow the page and its total alike."""
    first, second = make(rest, "a"), make(rest, "b", type="pump")
    customer = rest.made("/api/customer", {"title": "ACME"})
    rest.call("POST", f"/api/customer/{id_of(customer)}/device/{id_of(first)}")
    activate(rest, first)
    base = "/api/tenant/deviceInfos?pageSize=10&page=0&sortProperty=name"
    status, page = rest.call("GET", base)
    assert (status, page["totalElements"]) == (200, 2)
    shown = [(one["name"], one["customerTitle"], one["deviceProfileName"], one["active"]) for one in page["data"]]
    assert shown == [("a", "ACME", "sensor", True), ("b", None, "pump", False)]
    assert names(rest.call("GET", base + "&active=true")) == ["a"]
    assert names(rest.call("GET", base + "&active=false")) == ["b"]
    assert names(rest.call("GET", base + "&type=pump")) == ["b"]
    assert names(rest.call("GET", base + f"&deviceProfileId={second['deviceProfileId']['id']}&active=true")) == []
    assert rest.call("GET", base + "&active=perhaps")[0] == 400
    assert rest.call("GET", base + "&deviceProfileId=x")[0] == 400
    assert names(rest.call("GET", base + f"&deviceProfileId={uuid4()}")) == []


def test_devices_by_their_ids(rest: Rest) -> None:
    """In the order asked; those that do not exist are left out, what is no id is refused."""
    first, second = make(rest, "a"), make(rest, "b")
    path = "/api/devices?deviceIds="
    assert rest.call("GET", f"{path}{id_of(second)},{uuid4()},{id_of(first)}") == (200, [second, first])
    assert rest.call("GET", path)[0] == 400
    assert rest.call("GET", path + "x")[0] == 400
    assert rest.call("GET", path + ",".join([id_of(first)] * 401))[0] == 400


def test_types_and_profile_names(rest: Rest) -> None:
    make(rest, "a", type="pump")
    status, types = rest.call("GET", "/api/device/types")
    assert status == 200
    assert [(one["entityType"], one["type"]) for one in types] == [("DEVICE", "pump"), ("DEVICE", "sensor")]
    status, every = rest.call("GET", "/api/deviceProfile/names")
    assert (status, [one["name"] for one in every]) == (200, ["pump", "sensor"])
    status, used = rest.call("GET", "/api/deviceProfile/names?activeOnly=true")
    assert (status, [one["name"] for one in used]) == (200, ["pump"])
    assert rest.call("GET", f"/api/deviceProfile/{used[0]['id']['id']}")[1]["name"] == "pump"


def test_another_profile_becomes_the_default(rest: Rest) -> None:
    """Devices that name no profile get it from then on."""
    made = make(rest, "a", type="pump")
    path = f"/api/deviceProfile/{made['deviceProfileId']['id']}"
    status, profile = rest.call("POST", f"{path}/default")
    assert (status, profile["name"], profile["default"]) == (200, "pump", True)
    assert rest.call("GET", "/api/deviceProfileInfo/default")[1]["name"] == "pump"
    assert rest.made("/api/device", {"name": "b"})["type"] == "pump"
    assert rest.call("POST", f"/api/deviceProfile/{uuid4()}/default")[0] == 404


def test_profile_infos_of_one_transport_type(rest: Rest) -> None:
    """A profile that never said one counts as DEFAULT."""
    rest.made("/api/deviceProfile", {"name": "m", "type": "DEFAULT", "transportType": "MQTT"})
    base = "/api/deviceProfileInfos?pageSize=10&page=0&transportType="
    assert names(rest.call("GET", base + "MQTT")) == ["m"]
    assert names(rest.call("GET", base + "DEFAULT")) == ["sensor"]
    assert rest.call("GET", base + "PIGEON")[0] == 400


def test_a_name_that_is_taken_is_made_unique_where_that_is_wanted(rest: Rest) -> None:
    """Separator and suffix are appended; without the policy it stays a refusal (D5)."""
    make(rest, "a")
    assert rest.call("POST", "/api/device", {"name": "a"})[0] == 400
    assert rest.call("POST", "/api/device?nameConflictPolicy=FAIL", {"name": "a"})[0] == 400
    unique = "?nameConflictPolicy=UNIQUIFY"
    counted = unique + "&uniquifyStrategy=INCREMENTAL&uniquifySeparator=-"
    assert [make(rest, "a", counted)["name"] for _ in range(2)] == ["a-1", "a-2"]
    randomly = make(rest, "a", unique)["name"]
    assert randomly[:2] == "a_" and len(randomly) == 8 and randomly.isascii()
    assert make(rest, "free", unique)["name"] == "free"
    body = {"device": {"name": "a"}, "credentials": {"credentialsType": "ACCESS_TOKEN", "credentialsId": "t"}}
    assert rest.made(f"/api/device-with-credentials{counted}", body)["name"] == "a-3"


def test_an_update_keeps_its_own_name(rest: Rest) -> None:
    """A device does not stand in its own way."""
    made = make(rest, "a")
    unique = "/api/device?nameConflictPolicy=UNIQUIFY&uniquifyStrategy=INCREMENTAL"
    assert rest.made(unique, made | {"label": "l"})["name"] == "a"
    make(rest, "b")
    assert rest.made(unique, {**made, "version": None, "name": "b"})["name"] == "b_1"


@pytest.mark.parametrize(
    "query",
    [
        "nameConflictPolicy=MAYBE",
        "nameConflictPolicy=UNIQUIFY&uniquifyStrategy=GUESS",
        "nameConflictPolicy=UNIQUIFY&uniquifySeparator=%3Cb%3E",
        "nameConflictPolicy=UNIQUIFY&uniquifySeparator=" + "x" * 255,
    ],
)
def test_unusable_conflict_policies(rest: Rest, query: str) -> None:
    make(rest, "a")
    status, error = rest.call("POST", f"/api/device?{query}", {"name": "a"})
    assert (status, error["errorCode"]) == (400, 31)


def test_an_operator_sees_the_own_user(rest: Rest) -> None:
    """As it is stored, with every member that clients read."""
    user = rest.made("/api/user", {"email": "a@x", "authority": "TENANT_ADMIN", "password": "pass-word"})
    pair = rest.call("POST", "/api/auth/login", {"username": "a@x", "password": "pass-word"}, by="")[1]
    status, me = rest.call("GET", "/api/auth/user", by=pair["token"])
    assert (status, me) == (200, user)
    assert me["createdTime"] > 0 and {"firstName", "lastName", "phone", "additionalInfo", "version"} <= set(me)
