"""The device API over HTTP, both paths: statuses and bodies (H1, H2, P20 and P21 of section 10)."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import requests

from tests.contract.drivers import encoded
from tests.contract.operators import attributes_of, telemetry_path
from tests.support.server import CoreProcess

WAIT_S = 15.0
_numbers = itertools.count()


@pytest.fixture(params=[True, False], ids=["front", "klein"])
def core(request: pytest.FixtureRequest, cores: dict[bool, CoreProcess]) -> CoreProcess:
    return cores[request.param]


@pytest.fixture
def name() -> str:
    return f"http-row-{next(_numbers)}"


def call(core: CoreProcess, method: str, path: str, body: Any = b"", **query: Any) -> requests.Response:
    url = f"{core.device_http}/api/v1/{path}"
    return requests.request(method, url, data=encoded(body), params=query, timeout=WAIT_S)


def test_what_is_posted_is_seen_and_read_back(core: CoreProcess, token: str, name: str) -> None:
    """An empty 200; then only the keys that are asked for and exist, by scope (H1)."""
    values = {"text": "value", "flag": True, "double": 3.0, "long": 4, "json": {"a": [1]}}
    for path, body in (("telemetry", values), ("attributes", values), ("telemetry", {}), ("telemetry", [])):
        answer = call(core, "POST", f"{token}/{path}", body)
        assert (answer.status_code, answer.content) == (200, b"")
    assert core.latest(name) == attributes_of(core, name, "CLIENT_SCOPE") == values
    core.rest.post(f"{telemetry_path(core, name)}/SHARED_SCOPE", {"limit": 7, "other": 8})
    core.rest.post(f"{telemetry_path(core, name)}/SERVER_SCOPE", {"limit": "hidden"})
    client, shared = values, {"limit": 7, "other": 8}
    for query, expected in (
        ({"clientKeys": "flag,absent", "sharedKeys": "limit"}, {"client": {"flag": True}, "shared": {"limit": 7}}),
        ({"clientKeys": "json,long"}, {"client": {"json": {"a": [1]}, "long": 4}}),
        ({"sharedKeys": "absent,other"}, {"shared": {"other": 8}}),
        ({"clientKeys": "absent", "sharedKeys": "flag"}, {}),
        ({}, {"client": client, "shared": shared}),
    ):
        answer = call(core, "GET", f"{token}/attributes", **query)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        assert answer.json() == expected


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("telemetry", b"{broken", "not JSON"),
        ("telemetry", b"5", "must be an object or a list"),
        ("telemetry", b'[{"a":1},7]', "$[1] must be an object"),
        ("telemetry", b'{"ts":1,"values":[]}', "$.values must be an object"),
        ("attributes", b"[]", "must be an object"),
        ("attributes", b"", "must be an object"),
        ("claim", b"[]", "must be an object"),
        ("rpc", b"{}", "$.method"),
        ("rpc/x", b"{}", "32-bit integer"),
    ],
)
def test_a_parse_error_is_told(core: CoreProcess, token: str, name: str, path: str, body: bytes, told: str) -> None:
    """400 and the REST error object, where ThingsBoard has 500 and plain text; nothing is stored (H2)."""
    answer = call(core, "POST", f"{token}/{path}", body)
    error = answer.json()
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/json")
    assert set(error) == {"status", "message", "errorCode", "timestamp"} and error["status"] == 400
    assert told in error["message"]
    assert core.latest(name) == {}


def test_other_errors_have_an_empty_body(core: CoreProcess, token: str) -> None:
    """Unknown tokens 401, nothing in time 408 (H2)."""
    for method, path in (
        ("POST", "telemetry"), ("POST", "attributes"), ("GET", "attributes"), ("POST", "claim"), ("POST", "rpc"),
        ("POST", "rpc/1"), ("GET", "rpc"), ("GET", "attributes/updates"), ("GET", "firmware?title=t&version=1"),
    ):  # fmt: skip
        for unknown in ("nobody", "x" * 300):
            answer = call(core, method, f"{unknown}/{path}", b"{broken" if method == "POST" else b"")
            assert (path, answer.status_code, answer.content) == (path, 401, b"")
    for path in ("rpc", "attributes/updates"):
        answer = call(core, "GET", f"{token}/{path}", timeout=1)
        assert (answer.status_code, answer.content) == (408, b"")


def test_a_body_above_the_limit_is_told(core: CoreProcess, token: str) -> None:
    """413 and the REST error object; other methods 405 (H2)."""
    answer = call(core, "POST", f"{token}/rpc/1", b" " * 65_537)
    assert (answer.status_code, answer.json()["status"]) == (413, 413)
    assert call(core, "PUT", f"{token}/telemetry", {"a": 1}).status_code == 405


def test_provisioning_is_200_whatever_its_outcome(core: CoreProcess, name: str) -> None:
    """The JSON tells; only a body that is no request is 400 (P20, P21)."""
    off = core.make_profile(f"off-{name}", "DISABLED", key=f"key-{name}", provisionDeviceSecret="s")
    check = core.make_profile(f"check-{name}", "CHECK_PRE_PROVISIONED_DEVICES")
    new = core.make_profile(f"new-{name}")
    core.rest.post(f"/api/device?accessToken=pre-{name}", {"name": name, "type": f"check-{name}"})
    prepared = {"deviceName": name, **check}
    for request, status in (
        ({"deviceName": f"new-{name}", **new}, "SUCCESS"),
        ({"deviceName": f"new-{name}", **new}, "FAILURE"),
        ({"deviceName": f"gateway-{name}", "gateway": True, **new}, "SUCCESS"),
        ({"deviceName": name, **off}, "NOT_FOUND"),
        (off, "NOT_FOUND"),
        (new | {"provisionDeviceKey": "wrong"}, "NOT_FOUND"),
        (new | {"provisionDeviceSecret": "wrong"}, "NOT_FOUND"),
        ({"deviceName": f"absent-{name}", **check}, "FAILURE"),
        (prepared, "SUCCESS"),
        (prepared, "FAILURE"),
    ):
        answer = call(core, "POST", "provision", request)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        assert answer.json()["status"] == status
    assert core.device(f"gateway-{name}")["additionalInfo"]["gateway"] is True
    assert attributes_of(core, name, "SERVER_SCOPE")["provisionState"] == "provisioned"
    for body in (b"{", b"[]", json.dumps({"deviceName": "x"}).encode()):
        answer = call(core, "POST", "provision", body)
        assert (answer.status_code, answer.json()["status"]) == (400, "FAILURE")
