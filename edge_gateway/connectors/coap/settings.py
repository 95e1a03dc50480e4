"""The table `[[coap]]`, and what types cannot say about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from edge_gateway.connectors.access import Address
from edge_gateway.connectors.interface import Settings
from edge_gateway.mapping.amounts import parse_duration, parse_size
from edge_gateway.mapping.compiling import check_map
from edge_gateway.mapping.interface import CompiledPattern, MappingError, MapSettings
from edge_gateway.mapping.patterns import compile_pattern
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.mapping.templates import compile_body, compile_template
from edge_gateway.model import Problem

Duration = str | float
"""As `mapping.amounts.parse_duration` reads it."""
Size = str | int
"""As `mapping.amounts.parse_size` reads it."""

PEER: Final = "peer"  # a capture that every request has: the address it came from
MAX_RESOURCES: Final = 1_000
DEFAULT_PORT: Final = 5683


class PathMap(MapSettings, kw_only=True, forbid_unknown_fields=True):
    """POST and PUT on paths that fit `path`. With `rpc = "observe"` the device observes `<path>/rpc` for its calls and
    `<path>/attributes` for its shared attributes; its name must then come from the path alone."""

    path: str
    device: str = "{device}"
    rpc: Literal["", "observe"] = ""


class ResourceCall(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A call as a request to the sub-device; its answer is the body of the response."""

    uri: str
    method: Literal["GET", "PUT", "POST"] = "POST"
    body: str = "$.params"


class ResourceWrite(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A shared attribute as a request to the sub-device; `{key}` in `uri`, `$.value` in `body`."""

    uri: str
    method: Literal["PUT", "POST"] = "PUT"
    body: str = "$.value"
    keys: list[str] = []  # empty: all


class ResourceMap(MapSettings, kw_only=True, forbid_unknown_fields=True):
    """A resource of a sub-device, observed; polled `every` where its server cannot be observed."""

    uri: str
    every: Duration = 60.0
    rpc: dict[str, ResourceCall] = msgspec.field(default_factory=dict)
    shared: ResourceWrite | None = None


class CoapSettings(Settings, kw_only=True, forbid_unknown_fields=True):
    """Either `listen` or `observe`."""

    # a listener
    listen: str = ""
    map: list[PathMap] = msgspec.field(default_factory=list)
    token: str = ""
    insecure_lan: bool = False  # maps without a token for everybody in the network
    preset: Literal["", "thingsboard"] = ""
    users: dict[str, str] = msgspec.field(default_factory=dict)  # of the preset: access token -> device
    type: str = ""  # of the preset's devices
    max_payload: Size = 65_536
    max_devices: int = 10_000  # that observe
    max_waiting: int = 1_000  # requests that wait for the disk

    # a client
    observe: list[ResourceMap] = msgspec.field(default_factory=list)
    timeout: Duration = 10.0


def address_of(text: str) -> tuple[str, int]:
    """`0.0.0.0:5683`, `[::]:5683`, `0.0.0.0`. Raises: ValueError whose text says the form."""
    parts = urlsplit(f"//{text.strip()}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if not parts.hostname or port == -1 or parts.path or parts.query or parts.username is not None:
        raise ValueError(f"'{text}' is no address; write host:port, such as 0.0.0.0:{DEFAULT_PORT}")
    return parts.hostname, DEFAULT_PORT if port is None else port


def pattern_of(path: str) -> CompiledPattern:
    """The pattern for a request's path, which begins with a slash. Raises: MappingProblems."""
    return compile_pattern(path if path.startswith("/") else "/" + path)


def check(settings: CoapSettings) -> list[Problem]:
    """See `ConnectorKind.check`."""
    problems: list[Problem] = []
    if bool(settings.listen) == bool(settings.observe):
        text = 'give either listen = "0.0.0.0:5683" (devices send to us) or [[coap.observe]] (we ask the devices)'
        problems.append(Problem((), text))
    for field, parse in (("max_payload", parse_size), ("timeout", parse_duration)):
        _try(problems, (field,), lambda parse=parse, field=field: parse(getattr(settings, field)))  # type: ignore[misc]
    for field in ("max_devices", "max_waiting"):
        if getattr(settings, field) < 1:
            problems.append(Problem((field,), f"{field} must be at least 1"))
    return problems + (_check_listener(settings) if settings.listen else _check_client(settings))


def _try(problems: list[Problem], path: tuple[str | int, ...], work: Callable[[], object]) -> None:
    try:
        work()
    except (MappingProblems, ValueError) as error:
        problems.append(Problem(path, str(error)))


def _check_listener(settings: CoapSettings) -> list[Problem]:
    problems: list[Problem] = []
    _try(problems, ("listen",), lambda: address_of(settings.listen))
    if settings.preset:
        if not settings.users:
            text = 'the preset needs users = { "ACCESS_TOKEN" = "device name" }: the token tells the device'
            problems.append(Problem(("users",), text))
    elif not settings.map:
        problems.append(Problem(("map",), 'a listener needs [[coap.map]] with a path, or preset = "thingsboard"'))
    if settings.users and not settings.preset:
        problems.append(Problem(("users",), 'users goes with preset = "thingsboard"; token is for all devices'))
    if settings.map and not settings.token and not settings.insecure_lan and not _is_local(settings.listen):
        text = (
            "anybody in the network could speak for any device; set token, listen on 127.0.0.1, or accept it by"
            " insecure_lan = true"
        )
        problems.append(Problem(("map",), text))
    for place, one in enumerate(settings.map):
        problems += [Problem(("map", place, *problem.path), problem.text) for problem in _check_path_map(one)]
    return problems


def _is_local(listen: str) -> bool:
    """Whether only this machine can reach it; also while the address is none."""
    try:
        return Address(*address_of(listen)).is_loopback
    except ValueError:
        return True


def _check_path_map(one: PathMap) -> list[Problem]:
    try:
        captures = {*pattern_of(one.path).captures, PEER}
    except MappingProblems as error:
        return [Problem(("path",), str(error))]
    problems = check_map(one, captures)
    if one.rpc and not problems:
        try:
            compile_template(one.device).render(dict.fromkeys(captures, "x"), None)
        except MappingError as error:
            text = f'with rpc = "observe" the device must come from the path: {error} in it'
            problems.append(Problem(("device",), text))
    return problems


def _check_client(settings: CoapSettings) -> list[Problem]:
    problems: list[Problem] = []
    if len(settings.observe) > MAX_RESOURCES:
        problems.append(Problem(("observe",), f"more than {MAX_RESOURCES} resources; spread them over several tables"))
    for field in ("map", "token", "preset", "users", "insecure_lan"):
        if getattr(settings, field):
            problems.append(Problem((field,), f"{field} goes with listen"))
    for place, one in enumerate(settings.observe):
        problems += [Problem(("observe", place, *problem.path), problem.text) for problem in _check_resource(one)]
    return problems


def _check_resource(one: ResourceMap) -> list[Problem]:
    problems = check_map(one)
    _try(problems, ("uri",), lambda: check_uri(one.uri))
    _try(problems, ("every",), lambda: positive(parse_duration(one.every)))
    if (one.rpc or one.shared) and "{" in one.device:
        problems.append(Problem(("device",), "a device with rpc or shared needs a fixed name here"))
    for method, call in one.rpc.items():
        _try(problems, ("rpc", method, "uri"), lambda call=call: _check_template(call.uri))  # type: ignore[misc]
        _try(problems, ("rpc", method, "body"), lambda call=call: compile_body(call.body))  # type: ignore[misc]
    if one.shared is not None:
        shared = one.shared
        _try(problems, ("shared", "uri"), lambda: _check_template(shared.uri))
        _try(problems, ("shared", "body"), lambda: compile_body(shared.body))
    return problems


def positive(seconds: float) -> float:
    """Raises: ValueError."""
    if seconds < 0.1:
        raise ValueError('write a time of at least "100 ms"')
    return seconds


def _check_template(uri: str) -> None:
    compile_template(uri)
    check_uri(uri.partition("{")[0])


def check_uri(uri: str) -> str:
    """Raises: ValueError whose text says the form."""
    parts = urlsplit(uri)
    if parts.scheme != "coap" or not parts.netloc:
        raise ValueError(f"'{uri}' is no address of a resource; write coap://10.0.0.31/sensors/temp")
    return uri
