"""The settings, compiled: for each unit what is read of it, how often, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from edge_gateway.connectors.modbus.addresses import parse_units
from edge_gateway.connectors.modbus.fields import Field, make_field
from edge_gateway.connectors.modbus.links import Link, parse_link
from edge_gateway.connectors.modbus.planner import MAX_BLOCK, Block, Span, plan, split
from edge_gateway.connectors.modbus.settings import ActionSettings, DeviceSettings, ModbusSettings, PointSettings
from edge_gateway.mapping.lines import parse_line
from edge_gateway.mapping.paths import Path, compile_path
from edge_gateway.mapping.problems import MappingProblems, did_you_mean
from edge_gateway.mapping.reports import parse_report
from edge_gateway.mapping.templates import compile_template
from edge_gateway.model import Problem, ReportRule

MIN_EVERY_S: Final = 0.01
_NAMES: Final = ("unit", "connector")
_Made = TypeVar("_Made")
Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A key and where its value stands."""

    key: str
    field: Field
    is_attribute: bool
    report: ReportRule | None
    is_alone: bool = False

    @property
    def span(self) -> Span:
        return Span(self.field.address.table, self.field.address.first, self.field.count, self.is_alone)


@dataclass(frozen=True, slots=True)
class Action:
    """What a call or a shared attribute does. `value` finds the value to write in the call."""

    field: Field
    is_write: bool
    value: Path
    verify: bool
    multiple: bool


@dataclass(slots=True)
class Group:
    """What is read of a slave in one period. `blocks` changes: those that the slave refuses are split."""

    period_s: float
    points: tuple[Point, ...]
    blocks: list[Block]
    refused_until: dict[Block, float] = field(default_factory=dict)  # what the slave does not have, asked seldom

    def points_of(self, block: Block) -> list[Point]:
        """Those whose value `block` has."""
        if block not in self._points:
            spans = set(block.spans)
            self._points[block] = [point for point in self.points if point.span in spans]
        return self._points[block]

    def split(self, block: Block) -> list[Block]:
        """Smaller ones, from now on, instead of one that the slave refuses; none when it cannot be split."""
        parts = split(block)
        if parts is None:
            return []
        at = self.blocks.index(block)
        self.blocks[at : at + 1] = parts
        self._points.pop(block, None)
        return list(parts)

    _points: dict[Block, list[Point]] = field(default_factory=dict)


@dataclass(slots=True)
class Slave:
    unit: int
    device: str
    type: str
    base: int
    groups: list[Group] = field(default_factory=list)
    rpc: dict[str, Action] = field(default_factory=dict)
    shared: dict[str, Action] = field(default_factory=dict)


@dataclass(slots=True)
class Plant:
    """Everything that one `[[modbus]]` table says."""

    link: Link
    slaves: list[Slave]


def compile_plant(settings: ModbusSettings) -> Plant:
    """Raises: MappingProblems naming everything that is wrong."""
    compiling = _Compiling(settings)
    link = compiling.attempt(("connect",), lambda: parse_link(settings.connect))
    compiling.limits()
    slaves = list(compiling.slaves(link))
    if compiling.problems or link is None:
        raise MappingProblems(compiling.problems)
    return Plant(link, slaves)


def check(settings: ModbusSettings) -> list[Problem]:
    """As `ConnectorKind.check`."""
    try:
        compile_plant(settings)
    except MappingProblems as error:
        return error.problems
    return []


class _Compiling:
    """Gathers the problems on the way."""

    def __init__(self, settings: ModbusSettings) -> None:
        self.problems: list[Problem] = []
        self._settings = settings

    def _problem(self, path: Where, text: str) -> None:
        self.problems.append(Problem(path, text))

    def attempt(self, path: Where, work: Callable[[], _Made]) -> _Made | None:
        """What `work` gives, or None and its problems."""
        try:
            return work()
        except MappingProblems as error:
            self.problems += [Problem((*path, *problem.path), problem.text) for problem in error.problems]
        except ValueError as error:
            self._problem(path, str(error))
        return None

    def limits(self) -> None:
        """What is wrong with the table's own numbers."""
        limits: tuple[tuple[str, float, float, str], ...] = (
            ("every", MIN_EVERY_S, 365 * 86_400, '"10 ms" to "365 d"'),
            ("timeout", 0.01, 60, '"10 ms" to "60 s"'),
            ("pause", 0, 10, '"0 s" to "10 s"'),
            ("retries", 0, 10, "0 to 10"),
            ("max_gap", 0, MAX_BLOCK, f"0 to {MAX_BLOCK} registers"),
            ("max_block", 1, MAX_BLOCK, f"1 to {MAX_BLOCK} registers"),
        )
        for name, low, high, words in limits:
            if not low <= getattr(self._settings, name) <= high:
                self._problem((name,), f"{name} must be {words}")
        if not self._settings.device:
            self._problem((), "nothing would be read; add a [[modbus.device]] with unit, device and telemetry")

    # --- slaves ----------------------------------------------------------------------------------

    def slaves(self, link: Link | None) -> Iterator[Slave]:
        names: dict[str, int] = {}
        for number, device in enumerate(self._settings.device):
            path: Where = ("device", number)
            for unit in self._units(device, path, link):
                before = len(self.problems)
                slave = self._slave(device, unit, path)
                if slave is not None and slave.device in names:
                    self._problem(
                        (*path, "device"), f"units {names[slave.device]} and {unit} would both be '{slave.device}'; "
                        "write another name, or put {unit} into it",
                    )  # fmt: skip
                if len(self.problems) > before:
                    break  # the others of this table have the same
                assert slave is not None
                names[slave.device] = unit
                yield slave

    def _units(self, device: DeviceSettings, path: Where, link: Link | None) -> list[int]:
        if (device.unit is None) == (not device.units):
            self._problem(path, 'say either unit = 3, or units = "1-32,40" for several of the same kind')
            return []
        if device.unit is not None:
            place, units = (*path, "unit"), [device.unit]
        else:
            place = (*path, "units")
            units = self.attempt(place, lambda: parse_units(device.units)) or []
        low, high = (1, 247) if link is not None and link.is_rtu else (0, 255)
        if wrong := [unit for unit in units if not low <= unit <= high]:
            why = "; 0 is for everybody, and nobody answers it" if wrong[0] == 0 else ""
            self._problem(place, f"{wrong[0]} is no unit; they go from {low} to {high} here{why}")
            return []
        return units

    def _slave(self, device: DeviceSettings, unit: int, path: Where) -> Slave | None:
        before = len(self.problems)
        name = self._rendered(device.device, unit, (*path, "device"))
        type = self._rendered(device.type, unit, (*path, "type"))
        if name == "":
            self._problem((*path, "device"), "the device needs a name, such as meter-{unit}")
        base = self._settings.base if device.base is None else device.base
        if device.every is not None and device.every < MIN_EVERY_S:
            self._problem((*path, "every"), 'every must be at least "10 ms"')
        self.attempt((*path, "report"), lambda: _report(device.report))
        periods: dict[float, list[Point]] = {}
        keys: set[tuple[bool, str]] = set()
        for kind in ("telemetry", "attributes"):
            for number, line in enumerate(getattr(device, kind)):
                self._point(device, line, kind, base, (*path, kind, number), periods, keys)
        if not (periods or device.rpc or device.shared or len(self.problems) > before):
            self._problem(path, "nothing would be read or written; add telemetry, attributes, rpc or shared")
        slave = Slave(unit, name or "", type or "", base)
        slave.rpc = self._actions(device.rpc, "rpc", "$.params", device, base, path)
        slave.shared = self._actions(device.shared, "shared", "$.value", device, base, path)
        if len(self.problems) > before:
            return None
        slave.groups = [self._group(period_s, points) for period_s, points in sorted(periods.items())]
        return slave

    def _rendered(self, text: str, unit: int, path: Where) -> str | None:
        def render() -> str:
            template = compile_template(text)
            for name in sorted(template.names):
                if name not in _NAMES:
                    raise ValueError(f"'{{{name}}}' in '{text}' stands for nothing{did_you_mean(name, _NAMES)}")
            if "{$" in text.replace(" ", ""):
                raise ValueError(f"'{text}': a slave sends no document to pick from; known are {{unit}}, {{connector}}")
            return template.render({"unit": unit, "connector": self._settings.name})

        return self.attempt(path, render)

    # --- points ----------------------------------------------------------------------------------

    def _point(
        self, device: DeviceSettings, line: str | PointSettings, kind: str, base: int, path: Where,
        periods: dict[float, list[Point]], keys: set[tuple[bool, str]],
    ) -> None:  # fmt: skip
        point = self.attempt(path, lambda: _as_point(line))
        if point is None:
            return
        is_attribute = kind == "attributes"
        if not point.key.strip() or (is_attribute, point.key) in keys:
            self._problem((*path, "key"), f"'{point.key}' stands twice" if point.key.strip() else "the key is empty")
        keys.add((is_attribute, point.key))
        every = next(one for one in (point.every, device.every, self._settings.every) if one is not None)
        if point.every is not None and point.every < MIN_EVERY_S:
            self._problem((*path, "every"), 'every must be at least "10 ms"')
        found = self.attempt(path, lambda: _field(point, point.at, device, base, is_written=False))
        report = self.attempt((*path, "report"), lambda: _report(point.report or device.report))
        if found is not None:
            periods.setdefault(every, []).append(Point(point.key, found, is_attribute, report, point.alone))

    def _group(self, period_s: float, points: list[Point]) -> Group:
        blocks = plan((point.span for point in points), self._settings.max_gap, self._settings.max_block)
        return Group(period_s, tuple(points), blocks)

    # --- actions ---------------------------------------------------------------------------------

    def _actions(
        self,
        actions: Mapping[str, ActionSettings],
        kind: str,
        usual: str,
        device: DeviceSettings,
        base: int,
        path: Where,
    ) -> dict[str, Action]:
        found = {}
        for name, settings in actions.items():
            place = (*path, kind, name)
            if bool(settings.write) == bool(settings.read) or (kind == "shared" and settings.read):
                what = 'write = "holding:200"' + ("" if kind == "shared" else ', or read = "holding:5"')
                self._problem(place, f"say what it does: {what}")
                continue
            at, is_write = settings.write or settings.read, bool(settings.write)
            if not is_write and (settings.value or settings.verify or settings.multiple):
                self._problem(place, "value, verify and multiple belong to write; leave them out of a read")
            path_of = self.attempt((*place, "value"), lambda: compile_path(settings.value or usual))  # noqa: B023
            made = self.attempt(place, lambda: _field(settings, at, device, base, is_written=is_write))  # noqa: B023
            if made is not None and path_of is not None:
                found[name] = Action(made, is_write, path_of, settings.verify, settings.multiple)
        return found


def _as_point(line: str | PointSettings) -> PointSettings:
    """The table for the text form."""
    if isinstance(line, PointSettings):
        return line
    parsed = parse_line(line)
    return PointSettings(at=parsed.at, key=parsed.key, as_=parsed.as_)


def _field(settings: Any, at: str, device: DeviceSettings, base: int, *, is_written: bool) -> Field:
    order = settings.words or device.words
    return make_field(
        at, settings.as_, order, settings.scale, settings.offset, settings.bit, base, is_written=is_written
    )


def _report(text: str) -> ReportRule | None:
    return parse_report(text) if text.strip() else None
