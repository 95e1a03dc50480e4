"""What types cannot say about `[[http]]`: everything that is wrong, at once and without I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from edge_gateway.connectors.access import parse_address
from edge_gateway.connectors.http.settings import (
    LISTENER_ONLY,
    POLLER_CAPTURES,
    POLLER_ONLY,
    HttpMap,
    HttpRequest,
    HttpSettings,
)
from edge_gateway.mapping.amounts import parse_duration, parse_size
from edge_gateway.mapping.compiling import check_map
from edge_gateway.mapping.paths import compile_path
from edge_gateway.mapping.patterns import compile_pattern
from edge_gateway.mapping.problems import MappingProblems, amount_problems, foreign_problems
from edge_gateway.mapping.templates import compile_body, compile_template
from edge_gateway.model import Problem

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MIN_EVERY_S = 0.1

Path = tuple[str | int, ...]


def check(settings: HttpSettings) -> list[Problem]:
    """As `ConnectorKind.check`."""
    if not settings.map:
        return [Problem((), "nothing would be read; add a [[http.map]] with a path (and listen), or with a url")]
    is_listener = bool(settings.listen)
    problems = _check_listener(settings) if is_listener else []
    kind = "a poller (maps with url, no listen)" if is_listener else "a listener (listen, maps with path)"
    foreign = POLLER_ONLY if is_listener else LISTENER_ONLY
    problems += foreign_problems(settings, HttpSettings(name=settings.name), foreign, kind)
    problems += amount_problems(("max_payload",), settings.max_payload, parse_size)
    problems += amount_problems(("max_response",), settings.max_response, parse_size)
    for index, one in enumerate(settings.map):
        path: Path = ("map", index)
        if is_listener:
            problems += _check_path_map(one, path)
        else:
            problems += _check_url_map(one, path)
    return problems


def _check_listener(settings: HttpSettings) -> list[Problem]:
    problems = []
    is_local = True  # while nobody knows
    try:
        is_local = parse_address(settings.listen, 8080).is_loopback
    except ValueError as error:
        problems.append(Problem(("listen",), str(error)))
    if sum([bool(settings.token), bool(settings.users), settings.anonymous]) != 1:
        text = "say who may post, in one way: token, users (a CSV file), or anonymous = true"
        problems.append(Problem((), text))
    if settings.anonymous and not is_local and not settings.insecure_lan:
        text = (
            "anybody in the network could speak for any device; set token or users,"
            " listen on 127.0.0.1, or accept it by insecure_lan = true"
        )
        problems.append(Problem(("anonymous",), text))
    if settings.own_device and not settings.users:
        problems.append(Problem(("own_device",), "own_device needs users: only they tell which login is which device"))
    if bool(settings.certificate) != bool(settings.private_key):
        problems.append(Problem(("certificate",), "certificate and private_key belong together; give both"))
    if not 1 <= settings.max_connections <= 100_000:
        problems.append(Problem(("max_connections",), "max_connections is 1 to 100000"))
    if settings.max_rate < 0:
        problems.append(Problem(("max_rate",), "max_rate is requests a second; 0 for any number"))
    return problems


def _check_path_map(one: HttpMap, path: Path) -> list[Problem]:
    problems = []
    if one.url or not one.path:
        text = "a connector with listen has maps with a path, such as /in/{device}; put a url into another [[http]]"
        return [Problem((*path, "path"), text)]
    if not one.path.startswith("/"):
        problems.append(Problem((*path, "path"), f"a path begins with /; write /{one.path}"))
    for name in ("rpc", "shared"):
        if getattr(one, name):
            text = f"a device that posts asks for its calls (GET {one.path}/rpc) and attributes itself; remove {name}"
            problems.append(Problem((*path, name), text))
    try:
        captures = compile_pattern(one.path).captures
    except MappingProblems as error:
        return problems + [Problem((*path, "path"), problem.text) for problem in error.problems]
    return problems + [Problem((*path, *problem.path), problem.text) for problem in check_map(one, captures)]


def _check_url_map(one: HttpMap, path: Path) -> list[Problem]:
    problems = []
    if one.path or not one.url:
        text = "without listen a map has a url to poll; for devices that post add listen to the connector"
        problems.append(Problem((*path, "url"), text))
    else:
        problems += _check_url((*path, "url"), one.url)
    problems += _check_method((*path, "method"), one.method)
    problems += amount_problems((*path, "every"), one.every, parse_duration, MIN_EVERY_S)
    problems += amount_problems((*path, "timeout"), one.timeout, parse_duration, MIN_EVERY_S)
    problems += [Problem((*path, *problem.path), problem.text) for problem in check_map(one, POLLER_CAPTURES)]
    for method, request in one.rpc.items():
        problems += _check_request((*path, "rpc", method), request)
    if one.shared is not None:
        problems += _check_request((*path, "shared"), one.shared)
    return problems


def _check_url(path: Path, url: str) -> list[Problem]:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
        is_good = is_good and (parts.port or 1) > 0
    except ValueError:
        is_good = False
    text = "a url is http://host/path or https://host/path; the login goes into auth = { username = …, password = … }"
    return [] if is_good else [Problem(path, text)]


def _check_method(path: Path, method: str) -> list[Problem]:
    return [] if method in METHODS else [Problem(path, f"method is one of {', '.join(METHODS)}")]


def _check_request(path: Path, request: HttpRequest) -> list[Problem]:
    problems = _check_url((*path, "url"), request.url)
    problems += _check_method((*path, "method"), request.method)
    problems += amount_problems((*path, "timeout"), request.timeout, parse_duration, MIN_EVERY_S)
    problems += _compiled((*path, "url"), lambda: compile_template(request.url))
    problems += _compiled((*path, "body"), lambda: compile_body(request.body))
    if request.answer:
        problems += _compiled((*path, "answer"), lambda: compile_path(request.answer))
    return problems


def _compiled(path: Path, compile: Callable[[], Any]) -> list[Problem]:
    try:
        compile()
    except MappingProblems as error:
        return [Problem(path, problem.text) for problem in error.problems]
    return []
