"""What types cannot say about `[[mqtt]]`: everything that is wrong, at once and without I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from edge_gateway.connectors.access import parse_address
from edge_gateway.connectors.mqtt.routes import FORBIDDEN_IN_TOPICS
from edge_gateway.connectors.mqtt.settings import (
    CLIENT_ONLY,
    LISTENER_ONLY,
    LOGIN_CAPTURES,
    MqttSettings,
    RpcPublish,
    TopicMap,
)
from edge_gateway.mapping.amounts import parse_duration, parse_size
from edge_gateway.mapping.compiling import check_map
from edge_gateway.mapping.interface import CompiledTemplate
from edge_gateway.mapping.paths import compile_path
from edge_gateway.mapping.patterns import compile_pattern
from edge_gateway.mapping.problems import MappingProblems, amount_problems, did_you_mean, foreign_problems
from edge_gateway.mapping.templates import compile_body, compile_template
from edge_gateway.model import Problem

PRESETS = ("thingsboard",)
LOGINS = ("auto", "username", "client_id")
VERSIONS = ("auto", "5", "3.1.1")

Path = tuple[str | int, ...]


def check(settings: MqttSettings) -> list[Problem]:
    """As `ConnectorKind.check`."""
    problems: list[Problem] = []
    if bool(settings.listen) == bool(settings.connect):
        text = 'give either listen = "0.0.0.0:1883" (devices connect to us) or connect = "mqtt://host" (a broker)'
        return [Problem((), text)]
    problems += _check_listener(settings) if settings.listen else _check_client(settings)
    problems += amount_problems(("max_payload",), settings.max_payload, parse_size)
    if bool(settings.certificate) != bool(settings.private_key):
        problems.append(Problem(("certificate",), "certificate and private_key belong together; give both"))
    if not settings.map and not settings.preset:
        problems.append(Problem((), 'nothing would be read; add a [[mqtt.map]] or preset = "thingsboard"'))
    extra = LOGIN_CAPTURES if settings.listen else frozenset()
    seen: dict[str, int] = {}
    for index, one in enumerate(settings.map):
        problems += check_topic_map(one, ("map", index), extra)
        first = seen.setdefault(one.topic, index)
        if first != index:
            text = f"map {first + 1} has the same topic and comes first, so this one is never used; put both into one"
            problems.append(Problem(("map", index, "topic"), text))
    return problems


def _check_listener(settings: MqttSettings) -> list[Problem]:
    problems = foreign_problems(settings, MqttSettings(name=settings.name), CLIENT_ONLY, "a connector with connect")
    is_local = True  # while nobody knows
    try:
        is_local = parse_address(settings.listen, 1883).is_loopback
    except ValueError as error:
        problems.append(Problem(("listen",), str(error)))
    logins = [bool(settings.users), settings.anonymous, bool(settings.username or settings.password)]
    if sum(logins) != 1:
        text = "say who may log in, in one way: users (a CSV file), username and password, or anonymous = true"
        problems.append(Problem((), text))
    if bool(settings.username) != bool(settings.password):
        problems.append(Problem(("username",), "the shared login needs username and password"))
    if settings.anonymous and not is_local and not settings.insecure_lan:
        text = (
            "anybody in the network could speak for any device; set users or username and password,"
            " listen on 127.0.0.1, or accept it by insecure_lan = true"
        )
        problems.append(Problem(("anonymous",), text))
    if settings.own_device and not settings.users:
        problems.append(Problem(("own_device",), "own_device needs users: only they tell which login is which device"))
    problems += _check_word(("login_from",), settings.login_from, LOGINS)
    if settings.preset:
        problems += _check_word(("preset",), settings.preset, PRESETS)
    if not 1 <= settings.max_connections <= 100_000:
        problems.append(Problem(("max_connections",), "max_connections is 1 to 100000"))
    if settings.max_rate < 0:
        problems.append(Problem(("max_rate",), "max_rate is messages a second; 0 for any number"))
    return problems


def _check_client(settings: MqttSettings) -> list[Problem]:
    problems = foreign_problems(settings, MqttSettings(name=settings.name), LISTENER_ONLY, "a connector with listen")
    try:
        address = urlsplit(settings.connect)
        is_good = address.scheme in ("mqtt", "mqtts") and bool(address.hostname) and not address.username
        is_good = is_good and (address.port or 1) > 0
    except ValueError:
        is_good = False
    if not is_good:
        text = "connect is mqtt://host:1883 or mqtts://host:8883; the login goes into username and password"
        problems.append(Problem(("connect",), text))
    problems += _check_word(("version",), settings.version, VERSIONS)
    problems += amount_problems(("keep_alive",), settings.keep_alive, parse_duration)
    problems += amount_problems(("session_expiry",), settings.session_expiry, parse_duration)
    if not 1 <= settings.max_waiting <= 65_535:
        problems.append(Problem(("max_waiting",), "max_waiting is 1 to 65535 messages"))
    return problems


def _check_word(path: Path, word: str, known: Collection[str]) -> list[Problem]:
    return [] if word in known else [Problem(path, f"there is no {path[-1]} '{word}'{did_you_mean(word, known)}")]


def check_topic_map(one: TopicMap, path: Path, extra: Collection[str]) -> list[Problem]:
    """One map with its way back; `extra` are the captures beside those of the topic."""
    captures = frozenset(extra)
    problems: list[Problem] = []
    try:
        captures |= compile_pattern(one.topic).captures
    except MappingProblems as error:
        problems += [Problem((*path, "topic"), problem.text) for problem in error.problems]
    else:
        problems += [Problem((*path, *problem.path), problem.text) for problem in check_map(one, captures)]
    # Captures that another map's topic gives are known for a device that has spoken there too.
    if one.shared is not None:
        problems += _check_template((*path, "shared", "publish"), one.shared.publish)
        problems += _check_body((*path, "shared", "body"), one.shared.body)
    for method, rpc in one.rpc.items():
        problems += _check_rpc((*path, "rpc", method), rpc)
    return problems


def _check_rpc(path: Path, rpc: RpcPublish) -> list[Problem]:
    problems = _check_template((*path, "publish"), rpc.publish)
    problems += _check_body((*path, "body"), rpc.body)
    problems += amount_problems((*path, "timeout"), rpc.timeout, parse_duration)
    if rpc.reply:
        problems += _check_template((*path, "reply"), rpc.reply)
    if rpc.answer:
        problems += _compiled((*path, "answer"), lambda: compile_path(rpc.answer))
    if rpc.answer and not rpc.reply:
        problems.append(Problem((*path, "answer"), "answer is taken from the reply; give its topic: reply"))
    if not problems and rpc.reply:
        asked, told = compile_template(rpc.publish).names, compile_template(rpc.reply).names
        if asked - {"id", "method"} and not told:
            text = "replies of all devices would come on this topic; put into it what publish has, or {id}"
            problems.append(Problem((*path, "reply"), text))
    return problems


def _check_template(path: Path, text: str) -> list[Problem]:
    if not text:
        return [Problem(path, "give the topic")]
    if "+" in text or "#" in text:
        return [Problem(path, "nothing can be published to + or #; name the captures in braces, such as {unit}")]
    return _compiled(path, lambda: compile_template(text, forbidden=FORBIDDEN_IN_TOPICS))


def _check_body(path: Path, text: str) -> list[Problem]:
    return _compiled(path, lambda: compile_body(text))


def _compiled(path: Path, compile: Callable[[], CompiledTemplate | object]) -> list[Problem]:
    try:
        compile()
    except MappingProblems as error:
        return [Problem(path, problem.text) for problem in error.problems]
    return []
