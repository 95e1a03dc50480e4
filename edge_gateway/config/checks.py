"""What types cannot say about the sections, and what looks like a slip."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from edge_gateway.config.references import is_secret as is_secret
from edge_gateway.config.typed import Where
from edge_gateway.mapping.interface import Line
from edge_gateway.mapping.lines import parse_line
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.mapping.reports import parse_report
from edge_gateway.model import Problem
from edge_gateway.settings import Core, Devices, Local, Store

_USUAL_FROM: Final = 3  # so often a key stands to be the one that was meant
_MIN_LIKENESS: Final = 0.85
_MAX_NAME_CHARS: Final = 100


def sections(settings: Mapping[str, Any]) -> list[Problem]:
    """`settings` are the sections by name."""
    return [
        *_core(settings["core"]),
        *_store(settings["store"]),
        *_devices(settings["devices"]),
        *_local(settings["local"]),
    ]


def _core(core: Core) -> Iterator[Problem]:
    url = _url(core.url)
    if url is None:
        yield Problem(("core", "url"), 'must be such as "mqtts://core.example.com:8883" (or mqtt:// without TLS)')
    elif url[0] == "mqtt" and not core.insecure and not is_loopback(url[1]):
        yield Problem(
            ("core", "url"),
            "mqtt:// sends credentials and data unprotected to another machine; use mqtts://, or allow it by "
            "insecure = true",
        )
    if core.token and core.username:
        yield Problem(("core", "token"), "token and username exclude each other; leave one of them out")
    if bool(core.certificate) != bool(core.private_key):
        given, lacking = ("certificate", "private_key") if core.certificate else ("private_key", "certificate")
        yield Problem(("core", given), f"{given} needs {lacking} beside it")
    if core.backoff_min > core.backoff_max:
        yield Problem(("core", "backoff_min"), "must not be longer than backoff_max")
    for name in ("backoff_min", "backoff_max", "answer_timeout"):
        if getattr(core, name) <= 0:
            yield Problem(("core", name), "must be more than 0 s")
    if not 0 <= core.keep_alive <= 65_535:
        yield Problem(("core", "keep_alive"), "must be at most 65535 s")
    if not 1 <= core.window <= 65_535:
        yield Problem(("core", "window"), f"must be from 1 to 65535, not {core.window}")


def _url(url: str) -> tuple[str, str] | None:
    """Scheme and host; None when it is no URL of a core."""
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("mqtt", "mqtts") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname or "") if is_right else None


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _store(store: Store) -> Iterator[Problem]:
    if not 0 <= store.live_share <= 1:
        yield Problem(("store", "live_share"), f"must be from 0 to 1, not {store.live_share}")
    if not 0 <= store.commit_ms <= 20:
        yield Problem(("store", "commit_ms"), f"must be from 0 to 20, not {store.commit_ms}")
    if store.max_size < 1024**2:
        yield Problem(("store", "max_size"), 'must be at least "1 MiB"')
    if store.max_age <= 0:
        yield Problem(("store", "max_age"), "must be more than 0 s")


def _devices(devices: Devices) -> Iterator[Problem]:
    for name in ("allow", "deny"):
        for place, text in enumerate(getattr(devices, name)):
            try:
                re.compile(text)
            except (re.error, RecursionError, OverflowError) as error:
                yield Problem(("devices", name, place), f"'{text}' is no regular expression: {error}")
    if devices.max_devices < 1:
        yield Problem(("devices", "max_devices"), f"must be at least 1, not {devices.max_devices}")
    if not devices.default_type.strip():
        yield Problem(("devices", "default_type"), 'must not be empty; the usual one is "default"')
    if devices.report:
        try:
            parse_report(devices.report)
        except ValueError as error:
            yield Problem(("devices", "report"), str(error))


def _local(local: Local) -> Iterator[Problem]:
    if not 0 <= local.port <= 65_535:
        yield Problem(("local", "port"), f"{local.port} is no port; use 0 to 65535 (0 picks a free one)")


def connector_name(name: str) -> list[Problem]:
    """What is wrong with a connector's name; commands take it as an argument."""
    if name.strip() != name or not name or len(name) > _MAX_NAME_CHARS or not name.isprintable():
        text = f"must have 1 to {_MAX_NAME_CHARS} characters, without blanks around it or control characters"
        return [Problem(("name",), text)]
    return []


def names(tables: Sequence[tuple[str, int, str]]) -> list[Problem]:
    """Names that stand twice; `tables` are (kind, number, name). A path is that of the second, then of the first."""
    first: dict[str, tuple[str, int]] = {}
    problems = []
    for kind, number, name in tables:
        if name in first:
            problems.append(Problem((kind, number, *first[name]), f"the name '{name}' is that of [[{first[name][0]}]]"))
        first.setdefault(name, (kind, number))
    return problems


# --- hints ---------------------------------------------------------------------------------------


def section_hints(settings: Mapping[str, Any]) -> list[Problem]:
    """What is allowed, but seldom meant."""
    core: Core = settings["core"]
    if core.token or core.username or core.certificate or core.provision:
        return []
    text = "says neither token, username, certificate nor provision; only credentials kept from before can be used"
    return [Problem(("core",), text)]


def key_hints(tables: Iterable[tuple[Where, dict[str, Any]]]) -> list[Problem]:
    """Keys that stand once and look like a slip of one that stands often."""
    places: dict[str, Where] = {}
    counts: Counter[str] = Counter()
    for path, table in tables:
        for place, key in _keys(table, path):
            counts[key] += 1
            places.setdefault(key, place)
    usual = [key for key, count in counts.items() if count >= _USUAL_FROM]
    hints = []
    for key, count in counts.items():
        meant = difflib.get_close_matches(key, usual, n=1, cutoff=_MIN_LIKENESS) if count == 1 else []
        if meant and not _are_siblings(key, meant[0]):
            hints.append(Problem(places[key], f"'{key}' is used once, '{meant[0]}' {counts[meant[0]]} times"))
    return hints


def _are_siblings(one: str, other: str) -> bool:
    """Names that differ by a number or their last letter on purpose: temp_1 and temp_2, phase_a and phase_b."""
    return re.sub(r"\d+", "", one) == re.sub(r"\d+", "", other) or (len(one) == len(other) and one[:-1] == other[:-1])


def _keys(value: Any, path: Where) -> Iterator[tuple[Where, str]]:
    """The constant keys of all mappings in a connector's table."""
    if isinstance(value, list):
        for place, element in enumerate(value):
            yield from _keys(element, (*path, place))
    elif isinstance(value, dict):
        for name, member in value.items():
            if name in ("telemetry", "attributes") and isinstance(member, list):
                for place, line in enumerate(member):
                    if (key := _key_of(line)) and "{" not in key:
                        yield (*path, name, place), key
            else:
                yield from _keys(member, (*path, name))


def _key_of(line: Any) -> str:
    if isinstance(line, dict):
        key = line.get("key")
        return key if isinstance(key, str) else ""
    try:
        parsed: Line = parse_line(line)
        return parsed.key
    except (MappingProblems, AttributeError, TypeError):
        return ""
