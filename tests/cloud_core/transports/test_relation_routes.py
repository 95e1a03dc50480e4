"""Relations over REST, and devices found by them (wire-contract.md sections 6.3 and 6.8)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from twisted.internet.defer import succeed

from cloud_core.core import relations
from cloud_core.core.people.logins import Operator, Tokens
from cloud_core.model import DEFAULT_TENANT
from cloud_core.transports.http import calls
from tests.cloud_core.transports.test_http import HttpPeer
from tests.support.api import ApiUnderTest
from tests.support.stores import TENANT, StoreUnderTest


class Rest:
    """An administrator's HTTP client in memory, and three devices."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.store = store
        self.peer = HttpPeer(ApiUnderTest(store), is_fast=False)
        operator = Operator("admin@localhost", "TENANT_ADMIN", TENANT, DEFAULT_TENANT, uuid4())
        self.token = Tokens(b"j" * 64).issue(operator, int(time.time()))["token"]
        sensors, meters = store.add_profile("sensor"), store.add_profile("meter")
        self.a, self.b, self.c = (
            self.uuid(store.add_device(*one)) for one in (("a", sensors), ("b", sensors), ("c", meters))
        )

    def uuid(self, device_id: int) -> UUID:
        uuid: UUID = self.store.read(lambda tx: tx.device_by_id(device_id)).uuid
        return uuid

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        payload = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nX-Authorization: Bearer {self.token}\r\n"
        self.peer.send(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
        status, _, answer = self.peer.responses()[0]
        return status, json.loads(answer) if answer else None

    def relate(self, from_uuid: UUID, to_uuid: UUID, type_: str = "Contains", **more: Any) -> int:
        body = {"from": entity(from_uuid), "to": entity(to_uuid), "type": type_, "typeGroup": "COMMON", **more}
        return self.ask("POST", "/api/relation", body)[0]


def entity(uuid: UUID, kind: str = "DEVICE") -> dict[str, str]:
    return {"entityType": kind, "id": str(uuid)}


def ends(from_uuid: UUID, to_uuid: UUID, type_: str = "Contains") -> str:
    return f"fromId={from_uuid}&fromType=DEVICE&relationType={type_}&toId={to_uuid}&toType=DEVICE"


@pytest.fixture
def rest(sqlite_store: StoreUnderTest) -> Iterator[Rest]:
    one = Rest(sqlite_store)
    yield one
    one.peer.close()


def test_a_relation_is_saved_found_and_deleted(rest: Rest) -> None:
    """With the additional info given; 404 once it is gone."""
    assert rest.relate(rest.a, rest.b, additionalInfo={"x": 1}) == 200
    expected = {
        "from": entity(rest.a), "to": entity(rest.b), "type": "Contains", "typeGroup": "COMMON",
        "additionalInfo": {"x": 1},
    }  # fmt: skip
    assert rest.ask("GET", f"/api/relation?{ends(rest.a, rest.b)}") == (200, expected)
    assert rest.ask("GET", f"/api/relation?{ends(rest.a, rest.b, 'Created')}")[0] == 404
    assert rest.ask("DELETE", f"/api/relation?{ends(rest.a, rest.b)}") == (200, None)
    assert rest.ask("DELETE", f"/api/relation?{ends(rest.a, rest.b)}")[0] == 404
    assert rest.ask("GET", f"/api/relation?{ends(rest.a, rest.b)}")[0] == 404


def test_relations_are_listed_from_either_end(rest: Rest) -> None:
    """Of any type, or of the one asked for."""
    rest.relate(rest.a, rest.b)
    rest.relate(rest.a, rest.c, "Created")
    rest.relate(rest.b, rest.c)

    def listed(parameters: str) -> set[tuple[str, str]]:
        status, found = rest.ask("GET", f"/api/relations?{parameters}")
        assert status == 200
        return {(one["from"]["id"], one["to"]["id"]) for one in found}

    a, b, c = str(rest.a), str(rest.b), str(rest.c)
    assert listed(f"fromId={a}&fromType=DEVICE") == {(a, b), (a, c)}
    assert listed(f"fromId={a}&fromType=DEVICE&relationType=Created") == {(a, c)}
    assert listed(f"toId={c}&toType=DEVICE") == {(a, c), (b, c)}
    assert listed(f"toId={c}&toType=DEVICE&relationTypeGroup=EDGE") == set()


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"type": ""}, 400, "Relation type should be specified!"),
        ({"type": "<b>"}, 400, "malformed"),
        ({"type": 5}, 400, "must be a string"),
        ({"typeGroup": "OTHER"}, 400, "typeGroup must be one of COMMON"),
        ({"from": None}, 400, "from must not be null"),
        ({"to": {"entityType": "ASSET", "id": str(uuid4())}}, 400, "must be one of DEVICE"),
        ({"to": {"entityType": "DEVICE", "id": "x"}}, 400, "no valid id"),
        ({"to": {"entityType": "DEVICE", "id": str(uuid4())}}, 404, "is not found"),
    ],
)
def test_wrong_relations_are_refused(rest: Rest, change: dict[str, Any], status: int, text: str) -> None:
    """The message says which member, and how it must be."""
    body = {"from": entity(rest.a), "to": entity(rest.b), "type": "Contains", **change}
    answered, error = rest.ask("POST", "/api/relation", body)
    assert (answered, text in error["message"]) == (status, True)


@pytest.mark.parametrize("query", ["", "fromId=x&fromType=DEVICE", "fromId={a}&fromType=THING", "fromId={a}&toId={a}"])
def test_a_list_of_relations_needs_exactly_one_end(rest: Rest, query: str) -> None:
    """With a type and a valid id."""
    assert rest.ask("GET", f"/api/relations?{query.format(a=rest.a)}")[0] == 400
    assert rest.ask("GET", f"/api/relation?fromId={rest.a}&fromType=DEVICE")[0] == 400


def test_devices_and_the_tenant_can_be_related(rest: Rest) -> None:
    """By the tenant's own id alone."""
    body = {"from": entity(DEFAULT_TENANT, "TENANT"), "to": entity(rest.a), "type": "Manages"}
    assert rest.ask("POST", "/api/relation", body)[0] == 200
    body["from"] = entity(uuid4(), "TENANT")
    assert rest.ask("POST", "/api/relation", body)[0] == 404


def test_relations_need_a_login(rest: Rest) -> None:
    """As everything under `/api` but the device API."""
    rest.token = "nonsense"
    assert rest.ask("GET", f"/api/relation?{ends(rest.a, rest.b)}")[0] == 401
    assert rest.ask("POST", "/api/devices", {"parameters": {}})[0] == 401
    assert rest.ask("PUT", "/api/relation")[0] == 405
    assert rest.ask("GET", "/api/relation/x")[0] == 404


def search(rest: Rest, root: UUID, direction: str = "FROM", max_level: int = 1, **more: Any) -> list[str]:
    parameters = {"rootId": str(root), "rootType": "DEVICE", "direction": direction, "maxLevel": max_level}
    status, found = rest.ask("POST", "/api/devices", {"parameters": parameters, **more})
    assert status == 200
    return [one["name"] for one in found]


def test_devices_are_found_by_their_relations(rest: Rest) -> None:
    """Both directions, by relation type and device types; nearer ones first, each once."""
    rest.relate(rest.a, rest.b)
    rest.relate(rest.b, rest.c)
    rest.relate(rest.c, rest.a)
    rest.relate(rest.a, rest.c, "Created")
    assert search(rest, rest.a) == ["b"]
    assert search(rest, rest.a, relationType="Created") == ["c"]
    assert search(rest, rest.a, "TO") == ["c"]
    assert search(rest, rest.a, max_level=2) == ["b", "c"]
    assert search(rest, rest.a, max_level=0) == ["b", "c"]
    assert search(rest, rest.a, max_level=2, deviceTypes=["meter"]) == ["c"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"parameters": {"rootId": "x", "rootType": "DEVICE"}},
        {"parameters": {"rootId": str(uuid4()), "rootType": "DEVICE", "direction": "UP"}},
        {"parameters": {"rootId": str(uuid4()), "rootType": "DEVICE", "maxLevel": "1"}},
        {"parameters": {"rootId": str(uuid4()), "rootType": "DEVICE"}, "deviceTypes": "meter"},
        {"parameters": {"rootId": str(uuid4())}},
    ],
)
def test_a_wrong_search_is_refused(rest: Rest, body: dict[str, Any]) -> None:
    """400 with what is wrong."""
    status, error = rest.ask("POST", "/api/devices", body)
    assert (status, error["message"].startswith("Validation error: ")) == (400, True)


def test_what_is_deleted_leaves_no_relation(rest: Rest) -> None:
    """Devices and profiles."""
    profile = rest.ask("GET", "/api/deviceProfileInfos?pageSize=10&page=0&textSearch=meter")[1]["data"][0]["id"]["id"]
    rest.relate(rest.a, rest.b)
    body = {"from": entity(rest.a), "to": entity(UUID(profile), "DEVICE_PROFILE"), "type": "Uses"}
    assert rest.ask("POST", "/api/relation", body)[0] == 200
    rest.ask("DELETE", f"/api/device/{rest.b}")
    rest.ask("DELETE", f"/api/device/{rest.c}")
    assert rest.ask("DELETE", f"/api/deviceProfile/{profile}")[0] == 200
    assert rest.ask("GET", f"/api/relations?fromId={rest.a}&fromType=DEVICE") == (200, [])


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/api/customer", "CUSTOMER", {"title": "ACME"}),
        ("/api/deviceProfile", "DEVICE_PROFILE", {"name": "p", "type": "DEFAULT", "transportType": "DEFAULT"}),
        ("/api/device", "DEVICE", {"name": "gateway"}),
    ],
)
def test_who_is_deleted_takes_its_relations_along(rest: Rest, path: str, kind: str, body: Any) -> None:
    """Those from it and those to it; the others stay."""
    made = rest.ask("POST", path, body)[1]["id"]
    rest.relate(rest.a, rest.b)
    for one, other in ((made, entity(rest.a)), (entity(rest.b), made)):
        relation = {"from": one, "to": other, "type": "Contains", "typeGroup": "COMMON"}
        assert rest.ask("POST", "/api/relation", relation)[0] == 200
    assert len(rest.ask("GET", f"/api/relations?toId={rest.a}&toType=DEVICE")[1]) == 1
    assert len(rest.ask("GET", f"/api/relations?fromId={rest.b}&fromType=DEVICE")[1]) == 1
    assert rest.ask("DELETE", f"{path}/{made['id']}")[0] == 200
    assert rest.ask("GET", f"/api/relations?toId={rest.a}&toType=DEVICE") == (200, [])
    assert rest.ask("GET", f"/api/relations?fromId={rest.b}&fromType=DEVICE") == (200, [])
    assert len(rest.ask("GET", f"/api/relations?fromId={rest.a}&fromType=DEVICE")[1]) == 1


def test_many_relations_are_listed_beside_the_reactor(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is the same; more than one answer may hold are refused with what helps."""
    monkeypatch.setattr(calls, "SHAPED_AT_ONCE", 1)
    threads: list[int] = []
    monkeypatch.setattr(calls, "deferToThread", lambda work: threads.append(1) or succeed(work()))
    for other in (rest.b, rest.c):
        assert rest.relate(rest.a, other) == 200
    path = f"/api/relations?fromId={rest.a}&fromType=DEVICE"
    status, page = rest.ask("GET", "/api/tenant/devices?pageSize=10&page=0")
    assert status == 200 and page["totalElements"] == 3 and len(page["data"]) == 3 and threads == [1]
    del threads[:]
    status, found = rest.ask("GET", path)
    assert status == 200 and {one["to"]["id"] for one in found} == {str(rest.b), str(rest.c)} and threads == [1]
    monkeypatch.setattr(relations, "MAX_RELATIONS", 1)
    status, refused = rest.ask("GET", path)
    assert status == 400 and "more than 1 relations" in refused["message"]
    assert len(rest.ask("GET", f"/api/relations?toId={rest.b}&toType=DEVICE")[1]) == 1
