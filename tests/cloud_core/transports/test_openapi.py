"""The OpenAPI description is of exactly the routes that exist, and its page asks nobody else for anything."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_core.transports.http.rest import openapi
from cloud_core.transports.http.rest.openapi import mounted_at
from tests.support.rest import Rest, without_threads
from tests.support.stores import StoreUnderTest


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    without_threads(monkeypatch)
    peer = Rest(sqlite_store)
    yield peer
    peer.close()


@pytest.fixture
def description(rest: Rest) -> dict[str, Any]:
    status, found = rest.call("GET", "/api/openapi.json", by="")
    assert status == 200
    result: dict[str, Any] = found
    return result


def classes(routes: Any) -> Iterator[Any]:
    """Every route class that is mounted anywhere."""
    yield routes
    for rule in routes.app.url_map.iter_rules():
        if rule.methods is None and not rule.endpoint.endswith("_branch"):
            yield from classes(mounted_at(routes, rule))


def test_every_route_is_described(rest: Rest, description: dict[str, Any]) -> None:
    """Each rule of each class that answers by itself, with every method of it."""
    described = {
        (method.upper(), re.sub(r"{\w+}", "{}", path)) for path, methods in description["paths"].items()
        for method in methods
    }  # fmt: skip
    mounts = ("", "/api/v1", "/api/rpc", "/api/plugins/rpc", "/api/serverMethods")
    ends = {(method, path.removeprefix(mount)) for method, path in described for mount in mounts}
    count = 0
    for one in classes(rest.service._site.resource.routes):
        for rule in one.app.url_map.iter_rules():
            for method in set(rule.methods or ()) - {"HEAD", "OPTIONS"}:
                assert (method, re.sub(r"<[^>]+>", "{}", str(rule))) in ends, rule
                count += 1
    assert count > 90


def test_every_described_operation_exists(rest: Rest, description: dict[str, Any]) -> None:
    """A call of it reaches a route: the router's own refusals have their own texts."""
    count = 0
    for path, methods in description["paths"].items():
        called = re.sub(r"{(\w+)}", lambda found: "1" if found[1] == "request_id" else "x", path)
        for method in methods:
            if path.startswith("/api/v1/") and method == "get":
                continue  # waits for news of a device; its POST twins go the same way
            rest.send(f"{method.upper()} {called} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode())
            ((status, _, body),) = rest.responses()
            is_known = status != 405 and b'"message":"Not Found"' not in body
            assert is_known and (status < 500 or path == "/health/ready"), (method, path, body)  # no core has started
            count += 1
    assert count > 80


def test_the_description_is_whole(description: dict[str, Any]) -> None:
    """Every reference leads somewhere, operations have names of their own, and parameters of paths are declared."""
    assert description["openapi"] == "3.1.0"
    schemas = set(description["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(description))) <= schemas
    names = [one["operationId"] for methods in description["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))
    for path, methods in description["paths"].items():
        for operation in methods.values():
            declared = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
            assert declared == re.findall(r"{(\w+)}", path)
            assert operation["summary"]


def test_query_parameters_are_those_that_the_routes_ask_for(description: dict[str, Any]) -> None:
    def parameters(path: str) -> dict[str, bool]:
        found = description["paths"][path]["get"]["parameters"]
        return {one["name"]: one["required"] for one in found if one["in"] == "query"}

    infos = parameters("/api/tenant/deviceInfos")
    assert {"type", "deviceProfileId", "active", "textSearch", "sortProperty"} < set(infos)
    assert (infos["pageSize"], infos["active"]) == (True, False)
    assert {"keys", "startTs", "endTs", "agg", "interval", "limit", "orderBy", "useStrictDataTypes"} <= set(
        parameters("/api/plugins/telemetry/DEVICE/{uuid}/values/timeseries")
    )


def test_what_needs_no_login_says_so(description: dict[str, Any]) -> None:
    paths = description["paths"]
    assert paths["/api/auth/login"]["post"]["security"] == []
    assert "security" not in paths["/api/device"]["post"] and description["security"] == [{"bearer": []}]


def test_the_page_comes_whole_and_from_here_alone(rest: Rest) -> None:
    """Under a policy that lets nothing else in."""
    status, headers, page = rest.get("/api/docs")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    parts = re.findall(rb'(?:src|href)="(/api/docs/[^"]+)"', page)
    assert len(parts) == 2 and b"http://" not in page and b"https://" not in page and b"style=" not in page
    for part in parts:
        status, headers, body = rest.get(part.decode())
        assert status == 200 and body and headers["x-content-type-options"] == "nosniff"
    assert rest.get("/api/docs/..%2Fdocs_routes.py")[0] == 404


def test_every_route_that_reads_a_body_says_which(rest: Rest, description: dict[str, Any]) -> None:
    """Else the page has no place to write it, and the call cannot be tried."""
    routes = rest.service._site.resource.routes
    silent = []
    for method, path, function in openapi.operations(routes):
        source = inspect.getsource(inspect.unwrap(function.__func__))
        if not re.search(
            r"json_object\(|json_body\(|raw_body\(|_object\(request|request\.content|self\._send\(", source
        ):
            continue
        operation = description["paths"][openapi._template(path)][method.lower()]
        if "requestBody" not in operation:
            silent.append((method, path))
    assert not silent, "\n".join(map(str, silent))
