"""Callers that go away before they are answered: what they have decided has all of its effects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_core.core.downlinks import Ending
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import StoreUnderTest


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Rest:
    without_threads(monkeypatch)
    sqlite_store.add_profile("sensor")
    return Rest(sqlite_store)


@pytest.fixture
def changed(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What sessions and caches were told."""
    told: list[Any] = []
    monkeypatch.setattr(rest.api.api, "device_changed", lambda _device_id, ending: told.append(ending))
    monkeypatch.setattr(rest.api.api, "profile_changed", lambda: told.append("profile"))
    return told


def sent_and_gone(rest: Rest, method: str, path: str, body: bytes = b"") -> Rest:
    """Sends a call and goes away at once; another caller, when all of it has come to its end."""
    other = rest.another_caller()
    head = f"{method} {path} HTTP/1.1\r\nHost: h\r\n{rest.headers(None)}Content-Length: {len(body)}\r\n\r\n"
    rest.send(head.encode() + body)
    rest.lose()
    other.settle()
    return other


@pytest.mark.parametrize("what", ["credentials", "device", "profile"])
def test_sessions_and_caches_hear_of_it(rest: Rest, changed: list[Any], what: str) -> None:
    """Old credentials open nothing, though nobody has waited to be told that they are replaced."""
    made = rest.call("POST", "/api/device", {"name": "d", "type": "sensor"})[1]
    uuid = id_of(made)
    stored = rest.call("GET", f"/api/device/{uuid}/credentials")[1]
    profile = rest.call("GET", f"/api/deviceProfile/{made['deviceProfileId']['id']}")[1]
    del changed[:]
    calls = {
        "credentials": ("POST", "/api/device/credentials", stored | {"credentialsId": "another-token"}),
        "device": ("DELETE", f"/api/device/{uuid}", None),
        "profile": ("POST", "/api/deviceProfile", profile | {"name": "sensor-2"}),
    }
    method, path, body = calls[what]
    sent_and_gone(rest, method, path, b"" if body is None else encoded(body))
    ended = {"credentials": Ending.CREDENTIALS_CHANGED, "device": Ending.DEVICE_DELETED, "profile": "profile"}
    assert changed == [ended[what]]


def test_a_user_who_is_deleted_is_out(rest: Rest) -> None:
    """On this node at once, and not when it next looks."""
    user = {"email": "v@x", "authority": "TENANT_ADMIN", "role": "VIEWER", "password": "correct-horse-9"}
    uuid = id_of(rest.call("POST", "/api/user", user)[1])
    token = rest.call("POST", "/api/auth/login", {"username": "v@x", "password": "correct-horse-9"})[1]["token"]
    assert rest.call("GET", "/api/auth/user", by=token)[0] == 200
    assert sent_and_gone(rest, "DELETE", f"/api/user/{uuid}").call("GET", "/api/auth/user", by=token)[0] == 401


def encoded(body: Any) -> bytes:
    return json.dumps(body).encode()
