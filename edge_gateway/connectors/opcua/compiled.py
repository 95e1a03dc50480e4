"""The settings, compiled: places, templates, conversions."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from edge_gateway.connectors.opcua.places import Place, parse_place
from edge_gateway.connectors.opcua.settings import ActionSettings, DeviceSettings, PointSettings
from edge_gateway.mapping.interface import CompiledTemplate, MappingError
from edge_gateway.mapping.lines import parse_line
from edge_gateway.mapping.paths import Path, compile_path
from edge_gateway.mapping.problems import MappingProblems, did_you_mean
from edge_gateway.mapping.reports import parse_report
from edge_gateway.mapping.templates import compile_template
from edge_gateway.mapping.values import TYPES, converter, scaled, unscaled
from edge_gateway.model import Content, Json, Problem, ReportRule

T = TypeVar("T")
CONNECTOR = "connector"  # a name that every template knows


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A key of a device."""

    content: Content
    place: Place
    key: CompiledTemplate
    convert: Callable[[Json], Json]
    report: ReportRule | None
    every_s: float
    sampling_s: float | None
    is_text: bool  # enumerations are told by their names


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """A call or a shared attribute. `kind`: write, read, method."""

    kind: str
    place: Place
    object: Place | None
    value: Path
    args: list[Path | Json] | None
    convert: Callable[[Json], Json]
    unscale: Callable[[Json], Json]


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """One `[[opcua.device]]`; `number` is its place in the table."""

    number: int
    root: Place
    name: CompiledTemplate
    type: CompiledTemplate
    lines: tuple[Line, ...]
    rpc: dict[str, Action]
    shared: dict[str, Action]


class _Attempts:
    """Gathers problems; what could not be compiled is None."""

    def __init__(self, problems: list[Problem], path: tuple[str | int, ...]) -> None:
        self.problems = problems
        self._path = path

    def at(self, *path: str | int) -> _Attempts:
        return _Attempts(self.problems, (*self._path, *path))

    def wrong(self, text: str, *path: str | int) -> None:
        self.problems.append(Problem((*self._path, *path), text))

    def compile(self, field: str, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except (MappingProblems, MappingError, ValueError) as error:
            self.wrong(str(error), *((field,) if field else ()))
            return None


def compile_device(settings: DeviceSettings, number: int = 0) -> Device:
    """Raises: MappingProblems, with paths into the table."""
    problems: list[Problem] = []
    attempts = _Attempts(problems, ())
    root = attempts.compile("root", lambda: parse_place(settings.root))
    names = {CONNECTOR, *(root.captures if root is not None else ())}
    name = attempts.compile("device", lambda: _template(settings.device, names))
    kind = attempts.compile("type", lambda: _template(settings.type, names))
    if not settings.device.strip():
        attempts.wrong('the device needs a name, such as device = "{boiler}"', "device")
    if root is not None and name is not None and root.captures and name.names.isdisjoint(root.captures):
        attempts.wrong(
            f"'{settings.root}' finds several devices, but they would all be called '{settings.device}'; put a capture "
            f"into the name, such as {{{min(root.captures)}}}",
            "device",
        )
    report = attempts.compile("report", lambda: _report(settings.report))
    lines = [
        _line(line, Content[field.upper()], attempts.at(field, place), names, report)
        for field, entries in (("telemetry", settings.telemetry), ("attributes", settings.attributes))
        for place, line in enumerate(entries)
    ]
    rpc = {key: _action(one, attempts.at("rpc", key), "$.params") for key, one in settings.rpc.items()}
    shared = {key: _action(one, attempts.at("shared", key), "$.value") for key, one in settings.shared.items()}
    for key, one in settings.shared.items():
        if not one.write:
            attempts.wrong('a shared attribute is written: give it write = "node"', "shared", key)
    if not lines and not rpc and not shared:
        attempts.wrong('the device says nothing; give it telemetry = ["Temp -> temperature"], or rpc')
    if problems or root is None or name is None or kind is None:
        raise MappingProblems(problems)
    return Device(
        number, root, name, kind, tuple(line for line in lines if line), {k: a for k, a in rpc.items() if a},
        {k: a for k, a in shared.items() if a},
    )  # fmt: skip


def _template(text: str, names: Collection[str]) -> CompiledTemplate:
    template = compile_template(text)
    for name in sorted(template.names):
        if name not in names:
            raise ValueError(f"'{{{name}}}' in '{text}' is not captured by anything{did_you_mean(name, names)}")
    try:
        template.render(dict.fromkeys(names, "x"))
    except MappingError:
        raise ValueError(f"'{text}': there is no message to pick from here; use captures of root") from None
    return template


def _report(text: str) -> ReportRule | None:
    return parse_report(text) if text.strip() else None


def _line(
    text: str | PointSettings, content: Content, attempts: _Attempts, names: set[str], report: ReportRule | None
) -> Line | None:
    point = text if isinstance(text, PointSettings) else attempts.compile("", lambda: _point(text))
    if point is None:
        return None
    place = attempts.compile("at", lambda: parse_place(point.at))
    known = {*names, *(place.captures if place is not None else ())}
    key = attempts.compile("key", lambda: _template(point.key, known))
    if not point.key.strip():
        attempts.wrong("the key is empty; give it a name", "key")
    if place is not None and key is not None and not place.is_single and key.names.isdisjoint(place.captures):
        attempts.wrong(
            f"'{point.at}' finds several nodes; put a capture into path and key, such as "
            '{ at = "Sensors/{sensor}", key = "{sensor}_temperature" }',
            "key",
        )
    convert = attempts.compile("as", lambda: _converter(point.as_, point.scale, point.offset))
    own = attempts.compile("report", lambda: _report(point.report))
    _check_every(point.every, attempts)
    if place is None or key is None or convert is None:
        return None
    return Line(content, place, key, convert, own or report, point.every, point.sampling, point.as_ == "string")


def _point(text: str) -> PointSettings:
    line = parse_line(text)
    return PointSettings(at=line.at, key=line.key, as_=line.as_)


def _check_every(every_s: float, attempts: _Attempts) -> None:
    if 0 < every_s < MIN_EVERY_S:
        attempts.wrong(f'every = {every_s:g} s is too often; write at least "50 ms", or subscribe', "every")


MIN_EVERY_S = 0.05


def _converter(as_: str, scale: float, offset: float) -> Callable[[Json], Json]:
    if as_ not in ("", *TYPES):
        raise ValueError(f"'{as_}' is no type{did_you_mean(as_, TYPES)}")
    if scale == 0 or not math.isfinite(scale) or not math.isfinite(offset):
        raise ValueError("scale = 0 would make every value the same; leave it out or give a factor")
    convert = converter(as_)
    if scale == 1 and offset == 0:
        return convert
    if as_ in ("string", "bool", "json"):
        raise ValueError(f"scale and offset need a number, not {as_}")
    return lambda value: scaled(convert(value), scale, offset)


def _action(one: ActionSettings, attempts: _Attempts, value: str) -> Action | None:
    given = [(kind, text) for kind in ("write", "read", "method") if (text := getattr(one, kind))]
    if len(given) != 1:
        attempts.wrong('give one of write = "node", read = "node" and method = "node"')
        return None
    kind, text = given[0]
    for field, is_given in (("object", bool(one.object)), ("args", one.args is not None)):
        if is_given and kind != "method":
            attempts.wrong(f"{field} goes with method", field)
    if one.value and kind != "write":
        attempts.wrong("value goes with write" + ("; a method has args" if kind == "method" else ""), "value")
    place = attempts.compile(kind, lambda: _single(text))
    object = attempts.compile("object", lambda: _single(one.object)) if one.object else None
    path = attempts.compile("value", lambda: compile_path(one.value or value))
    args = None if one.args is None else [_arg(arg, attempts.at("args", at)) for at, arg in enumerate(one.args)]
    convert = attempts.compile("as", lambda: _converter(one.as_, one.scale, one.offset))
    if place is None or path is None or convert is None:
        return None
    return Action(kind, place, object, path, args, convert, lambda raw: unscaled(raw, one.scale, one.offset))


def _single(text: str) -> Place:
    place = parse_place(text)
    if not place.is_single:
        raise ValueError(f"'{text}' must lead to one node; write the BrowseNames without captures")
    return place


def _arg(arg: Any, attempts: _Attempts) -> Path | Json:
    if isinstance(arg, str) and arg.startswith("$"):
        return attempts.compile("", lambda: compile_path(arg))
    return arg
