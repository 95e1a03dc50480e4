"""API keys over REST: made, used, listed, revoked (wire-contract.md section 6.1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from twisted.logger import globalLogPublisher

from cloud_core.core.people import api_keys
from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import StoreUnderTest, open_store

DEVICES = "/api/tenant/devices?pageSize=10&page=0"
KEYS = "/api/apiKeys?pageSize=10&page=0"


class KeyRest(Rest):
    """Calls with an API key where one is given as `key …`."""

    def headers(self, by: str | None) -> str:
        if by is not None and by.startswith("muster_"):
            return f"X-Authorization: ApiKey {by}\r\n"
        return super().headers(by)

    def key(self, role: str = "OPERATOR", **members: Any) -> dict[str, Any]:
        return self.made("/api/apiKey", {"name": "line 1", "role": role, **members})


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyRest]:
    without_threads(monkeypatch)
    peer = KeyRest(sqlite_store)
    yield peer
    peer.close()


def test_a_key_opens_what_its_role_may(rest: KeyRest) -> None:
    """In either header; a viewer's reads, and nothing else."""
    viewer = rest.key("VIEWER")["value"]
    assert rest.call("GET", DEVICES, by=viewer)[0] == 200
    assert rest.get(DEVICES, f"Authorization: ApiKey {viewer}\r\n")[0] == 200
    assert rest.call("POST", "/api/device", {"name": "d"}, by=viewer)[0] == 403
    operator = rest.key(name="line 2")["value"]
    assert rest.call("POST", "/api/device", {"name": "d"}, by=operator)[0] == 200
    assert rest.call("GET", "/api/users?pageSize=1&page=0", by=operator)[0] == 403
    _, me = rest.call("GET", "/api/auth/user", by=operator)
    assert (me["name"], me["authority"], me["role"]) == ("API key line 2", "TENANT_ADMIN", "OPERATOR")


def test_a_key_is_shown_once_and_nowhere_stored(rest: KeyRest) -> None:
    """The list says how it begins; the database has a keyed hash."""
    made = rest.key()
    _, page = rest.call("GET", KEYS)
    assert page["data"] == [{name: value for name, value in made.items() if name != "value"}]
    assert made["value"].startswith(made["hint"]) and len(made["hint"]) < len(made["value"]) / 3
    files = list(Path(rest.api.store.url.removeprefix("sqlite:///")).parent.glob("muster.db*"))
    assert files and not any(made["value"].encode() in file.read_bytes() for file in files)


def test_a_revoked_key_is_refused_at_once(rest: KeyRest) -> None:
    made = rest.key()
    assert rest.call("GET", DEVICES, by=made["value"])[0] == 200
    assert rest.call("DELETE", f"/api/apiKey/{id_of(made)}") == (200, None)
    assert rest.call("GET", DEVICES, by=made["value"])[0] == 401
    assert rest.call("DELETE", f"/api/apiKey/{id_of(made)}")[0] == 404
    assert rest.key()["value"] != made["value"]  # the name is free again


def test_a_key_ends_when_its_time_is_over(rest: KeyRest) -> None:
    now_ms = int(rest.api.now_s * 1000)
    made = rest.key(expirationTime=now_ms + 60_000)
    assert rest.call("GET", DEVICES, by=made["value"])[0] == 200
    rest.api.now_s += 60.0
    status, error = rest.call("GET", DEVICES, by=made["value"])
    assert (status, error["message"]) == (401, "The API key has ended")


def test_the_last_use_is_written_at_most_once_a_minute(rest: KeyRest) -> None:
    made = rest.key()
    start_ms = int(rest.api.now_s * 1000)

    def used_after(seconds: float) -> Any:
        rest.api.now_s += seconds
        assert rest.call("GET", DEVICES, by=made["value"])[0] == 200
        return rest.call("GET", KEYS)[1]["data"][0]["lastUsedTime"]

    assert made["lastUsedTime"] is None
    assert used_after(0) == start_ms
    assert used_after(30) == start_ms
    assert used_after(31) == start_ms + 61_000


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"name": " "}, "API key name should be specified!"),
        ({"name": "taken"}, "API key with such name already exists!"),
        ({"name": "n" * 256}, "Validation error: name length must be equal or less than 255"),
        ({"role": None}, "API key role must be one of ADMINISTRATOR, OPERATOR, VIEWER!"),
        ({"role": "KING"}, "User role must be one of ADMINISTRATOR, OPERATOR, VIEWER!"),
        ({"expirationTime": 1}, "Validation error: expirationTime must lie in the future"),
        ({"expirationTime": "soon"}, "Validation error: expirationTime must be a time in ms"),
    ],
)
def test_unusable_keys(rest: KeyRest, members: dict[str, Any], message: str) -> None:
    rest.key(name="taken")
    status, error = rest.call("POST", "/api/apiKey", {"name": "n", "role": "VIEWER"} | members)
    assert (status, error["message"]) == (400, message)


def test_a_tenant_has_only_so_many_keys(rest: KeyRest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MAX_KEYS", 1)
    rest.key()
    assert rest.call("POST", "/api/apiKey", {"name": "n", "role": "VIEWER"})[0] == 400


@pytest.mark.parametrize("header", ["ApiKey", "ApiKey ", "ApiKey muster_x", "apikey x", "ApiKey " + "x" * 4000])
def test_a_key_that_nobody_made_opens_nothing(rest: KeyRest, header: str) -> None:
    assert rest.get(DEVICES, f"X-Authorization: {header}\r\n")[0] == 401


def test_no_log_line_holds_a_key(rest: KeyRest) -> None:
    """Neither when it is made, used, refused nor revoked; nor does its representation."""
    seen: list[Any] = []
    globalLogPublisher.addObserver(seen.append)
    try:
        made = rest.key()
        rest.call("GET", DEVICES, by=made["value"])
        rest.call("DELETE", f"/api/apiKey/{id_of(made)}")
        rest.call("GET", DEVICES, by=made["value"])
    finally:
        globalLogPublisher.removeObserver(seen.append)
    assert made["value"] not in repr(seen)
    assert made["value"] not in repr(api_keys.MadeKey(None, made["value"]))  # type: ignore[arg-type]


def test_other_nodes_learn_of_keys_and_of_their_end(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the next poll; and a node that starts knows all of them."""
    without_threads(monkeypatch)
    rest = KeyRest(store)
    other_store = open_store(store.url)
    other = HttpPeer(ApiUnderTest(other_store))
    access = other.service._site.resource.routes._admin.access
    made = rest.key()
    header = f"X-Authorization: ApiKey {made['value']}\r\n"
    assert other.get(DEVICES, header)[0] == 401
    access.poll()
    other.settle()
    assert other.get(DEVICES, header)[0] == 200
    rest.call("DELETE", f"/api/apiKey/{id_of(made)}")
    access.poll()
    other.settle()
    assert other.get(DEVICES, header)[0] == 401
    other.close()
    rest.close()
    other_store.close()


def test_a_key_of_an_unknown_id_is_not_deleted(rest: KeyRest) -> None:
    assert rest.call("DELETE", f"/api/apiKey/{uuid4()}")[0] == 404
