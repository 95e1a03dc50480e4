"""The table `[[line]]`, and what types cannot say about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from edge_gateway.connectors.interface import Settings
from edge_gateway.connectors.line.framing import PREFIXES
from edge_gateway.mapping.amounts import parse_duration, parse_size
from edge_gateway.mapping.compiling import check_map
from edge_gateway.mapping.interface import MapSettings
from edge_gateway.mapping.problems import MappingProblems, did_you_mean
from edge_gateway.mapping.templates import compile_body, compile_template
from edge_gateway.model import Problem

PEER: Final = "peer"  # a capture that each message has: the other side's address, or the serial port


class LineMap(MapSettings, kw_only=True, forbid_unknown_fields=True):
    """Messages in which `match` is found; its named groups `(?P<unit>…)` are captures. The first that fits counts."""

    match: str = ""


class LineCall(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A call: `write` is sent; the first message in which `reply` is found is the answer (its first group, if any)."""

    write: str
    reply: str = ""
    timeout: str | float = 5.0


class LineSettings(Settings, kw_only=True, forbid_unknown_fields=True):
    """Either `connect` or `listen`."""

    connect: str = ""  # tcp://host:port, serial:///dev/ttyUSB0?baud=9600&parity=E&stop=1&bits=8
    listen: str = ""  # tcp://0.0.0.0:7000, udp://0.0.0.0:7000
    delimiter: str = "\n"
    length: int = 0  # fixed; 0: by delimiter
    length_prefix: Literal["", "uint8", "uint16", "uint32", "uint16-little", "uint32-little"] = ""
    max_frame: str | int = 65_536
    map: list[LineMap] = msgspec.field(default_factory=list)
    ack: str = ""  # written when a message is on disk; {device}, {peer}
    refuse: str = ""  # written when it is not taken; {reason}, {peer}
    rpc: dict[str, LineCall] = msgspec.field(default_factory=dict)
    shared: str = ""  # written for each shared attribute that changes; {device}, {key}, {$.value}
    max_connections: int = 1_000
    idle_timeout: str | float = 0.0  # a connection that is silent for so long is closed; 0: never


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line is."""

    scheme: str  # tcp | udp | serial
    host: str = ""
    port: int = 0
    path: str = ""
    baud: int = 9_600
    parity: str = "N"
    stop: float = 1
    bits: int = 8

    def __str__(self) -> str:
        return self.path or f"{self.scheme}://{self.host}:{self.port}"


def place_of(text: str) -> Place:
    """Raises: ValueError whose text says the form."""
    parts = urlsplit(text)
    if parts.scheme == "serial":
        return _serial(text, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)))
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("tcp", "udp") or not parts.hostname or port is None:
        raise ValueError(f"'{text}' is no line; write tcp://10.0.0.5:7000, or serial:///dev/ttyUSB0?baud=9600")
    return Place(parts.scheme, parts.hostname, port)


def _serial(text: str, path: str, options: dict[str, str]) -> Place:
    for name in options:
        if name not in ("baud", "parity", "stop", "bits"):
            known = ("baud", "parity", "stop", "bits")
            raise ValueError(f"'{name}' is no option of a serial line{did_you_mean(name, known)}")
    try:
        baud, bits = int(options.get("baud", "9600")), int(options.get("bits", "8"))
        stop, parity = float(options.get("stop", "1")), options.get("parity", "N").upper()
    except ValueError:
        raise ValueError(f"'{text}': baud, bits and stop are numbers, such as ?baud=9600&bits=8&stop=1") from None
    if not path or parity not in tuple("NEOMS") or bits not in (5, 6, 7, 8) or stop not in (1, 1.5, 2) or baud <= 0:
        raise ValueError(f"'{text}' is no serial line; write serial:///dev/ttyUSB0?baud=9600&parity=E&stop=1&bits=8")
    return Place("serial", path=path, baud=baud, parity=parity, stop=int(stop) if stop != 1.5 else stop, bits=bits)


def captures_of(one: LineMap) -> set[str]:
    """What its templates may use. Raises: re.error."""
    return {PEER, *re.compile(one.match).groupindex}


def check(settings: LineSettings) -> list[Problem]:
    """See `ConnectorKind.check`."""
    problems: list[Problem] = []

    def attempt(path: tuple[str | int, ...], work: Callable[[], object]) -> None:
        try:
            work()
        except re.error as error:
            problems.append(Problem(path, f"no regular expression: {error}"))
        except (MappingProblems, ValueError) as error:
            problems.append(Problem(path, str(error)))

    if bool(settings.connect) == bool(settings.listen):
        problems.append(Problem((), 'give either connect = "tcp://host:port" or listen = "tcp://0.0.0.0:7000"'))
    if settings.connect:
        attempt(("connect",), lambda: _allowed(settings.connect, "connect", ("tcp", "serial")))
    if settings.listen:
        attempt(("listen",), lambda: _allowed(settings.listen, "listen", ("tcp", "udp")))
    if not settings.delimiter and not settings.length and not settings.length_prefix:
        problems.append(Problem(("delimiter",), "say where a message ends: delimiter, length or length_prefix"))
    if settings.length and settings.length_prefix:
        problems.append(Problem(("length",), f"length or length_prefix ({', '.join(PREFIXES)}), not both"))
    if settings.length < 0 or settings.max_connections < 1:
        problems.append(Problem((), "length and max_connections are positive numbers"))
    attempt(("max_frame",), lambda: _check_max_frame(settings))
    attempt(("idle_timeout",), lambda: parse_duration(settings.idle_timeout))
    attempt(("ack",), lambda: compile_template(settings.ack))
    attempt(("refuse",), lambda: compile_template(settings.refuse))
    attempt(("shared",), lambda: compile_template(settings.shared))
    for method, call in settings.rpc.items():
        attempt(("rpc", method, "write"), lambda call=call: compile_body(call.write))  # type: ignore[misc]
        attempt(("rpc", method, "reply"), lambda call=call: re.compile(call.reply))  # type: ignore[misc]
        attempt(("rpc", method, "timeout"), lambda call=call: parse_duration(call.timeout))  # type: ignore[misc]
    return problems + _check_maps(settings)


def _check_max_frame(settings: LineSettings) -> None:
    most = parse_size(settings.max_frame)
    if most < 1:
        raise ValueError("no message would be taken; write a size of at least 1 B")
    if settings.length > most:
        raise ValueError(f"length: {settings.length} is above max_frame, which is {most}; raise max_frame")


def _allowed(text: str, where: str, schemes: tuple[str, ...]) -> None:
    place = place_of(text)
    if place.scheme not in schemes:
        raise ValueError(f"{where} takes {' or '.join(f'{scheme}://' for scheme in schemes)}, not {place.scheme}://")


def _check_maps(settings: LineSettings) -> list[Problem]:
    if not settings.map:
        return [Problem(("map",), 'a line needs [[line.map]] with format = "text", "csv", "json" or "bytes"')]
    problems: list[Problem] = []
    for place, one in enumerate(settings.map):
        try:
            captures = captures_of(one)
        except re.error as error:
            problems.append(Problem(("map", place, "match"), f"no regular expression: {error}"))
            continue
        problems += [Problem(("map", place, *problem.path), problem.text) for problem in check_map(one, captures)]
    return problems
