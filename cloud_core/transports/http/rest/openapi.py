"""An OpenAPI 3.1 description of every REST route, made from the routes themselves.

Paths and methods come from the routers' maps, texts from the routes' docstrings, query parameters from what the
source of a route asks for; `schemas.py` says what the bodies of the entities look like.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

from cloud_core.transports.http.rest.schemas import (
    ANSWERS,
    BODIES,
    DESCRIPTIONS,
    FILES,
    MEDIA_TYPES,
    PARAMETERS,
    SCHEMAS,
    WITHOUT_LOGIN,
)

TITLE = "Muster: REST for operators, HTTP for devices"
_PARAMETER = re.compile(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>")
_QUERY = re.compile(r'(?:query|integer|_flag)\(\s*request,\s*"(\w+)"')
_REQUIRED = re.compile(r'integer\(request,\s*"(\w+)"\)')
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def document(routes: Any, version: str) -> dict[str, Any]:
    """The description of all that is mounted beneath `routes`."""
    paths: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    for method, path, function in sorted(operations(routes), key=lambda one: (one[1], _METHODS.index(one[0]))):
        paths.setdefault(_template(path), {})[method.lower()] = _operation(method, path, function, used)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": version},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "security": [{"bearer": []}],
    }


def operations(routes: Any, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """(method, path, route) of every route of a route class and of those that it mounts."""
    for rule in routes.app.url_map.iter_rules():
        own = str(rule)
        path = own if own.startswith(("/api/", "/.well-known/", "/health/", "/metrics")) else prefix.rstrip("/") + own
        if rule.methods is not None:
            function = getattr(routes, rule.endpoint)
            yield from ((method, path, function) for method in _METHODS if method in rule.methods)
        elif not rule.endpoint.endswith("_branch"):  # its twin, without the rest of the path, mounts the same
            for inner in operations(mounted_at(routes, rule), path):
                if own in ("/api/v1/", "/api/rpc/", "/api/plugins/rpc/") or _reaches(own, inner[1]):
                    yield inner


def mounted_at(routes: Any, rule: Any) -> Any:
    """The route class that a rule without methods hands its requests to."""
    request = SimpleNamespace(prepath=[], postpath=[])
    resource = routes.app.execute_endpoint(rule.endpoint, request, **dict.fromkeys(rule.arguments, ""))
    return resource._app._instance


def _reaches(mount: str, path: str) -> bool:
    """Whether a request for `path` comes through this mount: a class may be mounted in several places."""
    plain, wanted = _PARAMETER.sub("<>", path), _PARAMETER.sub("<>", mount)
    return plain == wanted or plain.startswith(wanted.rstrip("/") + "/")


def _template(path: str) -> str:
    return _PARAMETER.sub(lambda found: "{" + found[2].strip("_") + "}", path)


def _operation(method: str, path: str, function: Any, used: set[str]) -> dict[str, Any]:
    text = DESCRIPTIONS.get(function.__name__, "") or inspect.getdoc(function) or ""
    name, number = function.__name__, 1
    owner = type(function.__self__).__name__.removesuffix("Routes")
    while (identifier := f"{owner}_{name}" + (f"_{number}" if number > 1 else "")) in used:
        number += 1
    used.add(identifier)
    is_open = _is_open(method, path)
    operation: dict[str, Any] = {
        "operationId": identifier,
        "tags": [_spaced(owner)],
        "summary": text.split("\n")[0] or _spaced(name.replace("_", " ")).capitalize(),
        "parameters": [*_path_parameters(path), *_query_parameters(function)],
        "responses": _responses(method, path, is_open),
    }
    body = BODIES.get((method, _template(path)))
    if body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {MEDIA_TYPES.get((method, _template(path)), "application/json"): {"schema": body}},
        }
    if is_open:
        operation["security"] = []
    return operation


def _is_open(method: str, path: str) -> bool:
    return (method, _template(path)) in WITHOUT_LOGIN or path.startswith(("/api/v1/", "/.well-known/"))


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _path_parameters(path: str) -> list[dict[str, Any]]:
    found = []
    for kind, name in _PARAMETER.findall(path):
        schema: dict[str, Any] = {"type": "integer"} if kind == "int" else {"type": "string", "minLength": 1}
        if name in ("uuid", "customer", "device", "profile"):
            schema = {"type": "string", "format": "uuid"}
        if name == "scope":
            schema = {"enum": ["CLIENT_SCOPE", "SHARED_SCOPE", "SERVER_SCOPE"]}
        found.append({"name": name.strip("_"), "in": "path", "required": True, "schema": schema})
    return found


def _query_parameters(function: Any) -> list[dict[str, Any]]:
    """By what the route and its own helpers ask the request for."""
    source = _source_of(function)
    for helper in dict.fromkeys(re.findall(r"(?:self\.|\b)(_\w+)\(", source)):
        target = getattr(function.__self__, helper, None) or inspect.unwrap(function).__globals__.get(helper)
        if inspect.isroutine(target):
            source += _source_of(target)
    names = dict.fromkeys(_QUERY.findall(source))
    if "keys_of(request)" in source:
        names["keys"] = None
    required = set(_REQUIRED.findall(source))
    if "page_bounds(request" in source or "page_of(request" in source:
        names |= dict.fromkeys(("pageSize", "page"))
    if "page_of(request" in source:
        names |= dict.fromkeys(("textSearch", "sortProperty", "sortOrder"))
    if "page_of(request)" in source:  # without defaults
        required |= set() if "deviceName" in names else {"pageSize", "page"}
    if "startTs" in names:  # they stand in the query of a history alone
        required = set()
    return [
        {
            "name": name, "in": "query", "required": name in required,
            "schema": PARAMETERS.get(name, {"type": "string"}),
        }
        for name in names
    ]  # fmt: skip


@cache
def _source_of(function: Any) -> str:
    return inspect.getsource(inspect.unwrap(function))


def _responses(method: str, path: str, is_open: bool) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done."}
    schema = ANSWERS.get((method, _template(path)))
    if schema is not None:
        success["content"] = {"application/json": {"schema": schema}}
    files = FILES.get((method, _template(path)), ())
    if files:
        success["content"] = {kind: {} for kind in files}
    failure = {"description": "Refused; the message says why and how to mend it."}
    found: dict[str, Any] = {"200": success, "4XX": failure, "5XX": {"description": "Try again later."}}
    if not is_open:
        found["401"] = {"description": "Nobody is logged in, or the token has expired."}
    return found
