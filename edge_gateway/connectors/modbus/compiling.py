"""From the settings to points, actions and polls, or to everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from edge_gateway.connectors.modbus.addresses import parse_units
from edge_gateway.connectors.modbus.bus import Target, parse_target
from edge_gateway.connectors.modbus.fields import MAX_REGISTERS, Field, make_field
from edge_gateway.connectors.modbus.planner import Block, Span, plan
from edge_gateway.connectors.modbus.settings import ActionSettings, DeviceSettings, ModbusSettings, PointSettings
from edge_gateway.mapping.amounts import parse_duration
from edge_gateway.mapping.interface import MappingError
from edge_gateway.mapping.lines import parse_line
from edge_gateway.mapping.paths import Path, compile_path
from edge_gateway.mapping.problems import MappingProblems, did_you_mean
from edge_gateway.mapping.reports import parse_report
from edge_gateway.mapping.templates import Template, compile_template
from edge_gateway.model import Json, Problem, ReportRule

MAX_UNITS: Final = 5_000
_NAMES: Final = ("unit", "connector")
At = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A key of a device."""

    key: str
    field: Field
    device: str
    type: str
    is_attribute: bool
    report: ReportRule | None
    shown_unit: str
    span: Span


@dataclass(frozen=True, slots=True)
class Action:
    """What a call or shared attribute does with a unit."""

    unit: int
    field: Field
    value: Path | None  # None: `constant`
    constant: Json  # or the path as it was written
    is_write: bool
    is_verified: bool
    is_multiple: bool


@dataclass(slots=True)
class PollPlan:
    """What is read of a unit in one period; `blocks` change when the slave refuses some."""

    unit: int
    period_s: float
    blocks: list[Block]
    points: dict[Span, list[Point]]
    shunned: dict[Block, float] = field(default_factory=dict)  # refused by itself: asked again at that time


@dataclass(slots=True)
class Actions:
    """Of one device."""

    rpc: dict[str, Action] = field(default_factory=dict)
    shared: dict[str, Action] = field(default_factory=dict)


class Draft:
    """The settings as far as they can be compiled, and what is wrong with the others."""

    def __init__(self, settings: ModbusSettings) -> None:
        self.problems: list[Problem] = []
        self._settings = settings
        self._points: dict[tuple[int, float], list[Point]] = {}
        self.actions: dict[str, Actions] = {}
        self.types: dict[str, str] = {}
        self.devices_of: dict[int, list[str]] = {}
        self.target: Target = self._try(("connect",), lambda: parse_target(settings.connect))
        self.timeout_s: float = self._positive(("timeout",), settings.timeout)
        self._every_s = self._positive(("every",), settings.every)
        self._check_numbers()
        if not settings.device:
            self.problems.append(Problem(("device",), "no slave is named; add a [[modbus.device]] table with `unit`"))
        for number, device in enumerate(settings.device):
            self._device(("device", number), device)
        if len(self.devices_of) > MAX_UNITS:
            self.problems.append(Problem(("device",), f"more than {MAX_UNITS} units; use several [[modbus]] tables"))

    def _check_numbers(self) -> None:
        settings = self._settings
        for name, number, low, high in (
            ("retries", settings.retries, 0, 10),
            ("pipelines", settings.pipelines, 1, 16),
            ("base", settings.base, 0, 1),
            ("max_gap", settings.max_gap, 0, MAX_REGISTERS),
            ("max_block", settings.max_block, 1, MAX_REGISTERS),
        ):
            if not low <= number <= high:
                self.problems.append(
                    Problem((name,), f"{name} = {number} is out of range; it goes from {low} to {high}")
                )

    def _try(self, at: At, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except MappingProblems as error:
            self.problems += [Problem((*at, *problem.path), problem.text) for problem in error.problems]
        except (ValueError, MappingError) as error:
            self.problems.append(Problem(at, str(error)))
        return None

    def _positive(self, at: At, text: str | float) -> float:
        def work() -> float:
            seconds = parse_duration(text)
            if seconds < 0.01:
                raise ValueError(f"'{text}' is too short; at least 10 ms")
            return seconds

        return self._try(at, work) or 1.0

    # --- devices -------------------------------------------------------------------------------

    def _device(self, at: At, device: DeviceSettings) -> None:
        units = self._units(at, device)
        every_s = self._positive((*at, "every"), device.every) if device.every != "" else self._every_s
        base = self._settings.base if device.base is None else device.base
        if base not in (0, 1):
            self.problems.append(
                Problem((*at, "base"), "base is 0 or 1: the number by which the first register is called")
            )
            base = 0
        report = self._try((*at, "report"), lambda: parse_report(device.report)) if device.report.strip() else None
        name = self._template((*at, "device"), device.device)
        type_of = self._template((*at, "type"), device.type)
        drafts = [
            one
            for kind, lines in (("telemetry", device.telemetry), ("attributes", device.attributes))
            for number, line in enumerate(lines)
            if (one := self._point((*at, kind, number), line, device, base, every_s, kind == "attributes", report))
        ]
        rpc = self._actions((*at, "rpc"), device.rpc, device, base, "$.params")
        shared = self._actions((*at, "shared"), device.shared, device, base, "$.value")
        if not (drafts or rpc or shared or self.problems):
            self.problems.append(
                Problem(at, "nothing is read or written here; add telemetry, attributes, rpc or shared")
            )
        if name is None or type_of is None:
            return
        if len(units) > 1 and name.constant is not None:
            self.problems.append(
                Problem(
                    (*at, "device"), f"several units would share the name '{device.device}'; write {{unit}} into it"
                )
            )
            return
        for unit in units:
            self._one(unit, name, type_of, drafts, rpc, shared)

    def _one(
        self,
        unit: int,
        name: Template,
        type_of: Template,
        drafts: list[Any],
        rpc: dict[str, Any],
        shared: dict[str, Any],
    ) -> None:
        captures = {"unit": unit, "connector": self._settings.name}
        device, type = name.render(captures), type_of.render(captures)
        self.types.setdefault(device, type)
        names = self.devices_of.setdefault(unit, [])
        if device not in names:
            names.append(device)
        for period_s, make in drafts:
            self._points.setdefault((unit, period_s), []).append(make(device, type))
        actions = self.actions.setdefault(device, Actions())
        for method, make_action in rpc.items():
            actions.rpc.setdefault(method, make_action(unit))
        for key, make_action in shared.items():
            actions.shared.setdefault(key, make_action(unit))

    def _units(self, at: At, device: DeviceSettings) -> list[int]:
        if (device.unit is None) == (device.units == ""):
            self.problems.append(Problem((*at, "unit"), 'write either `unit = 3` or `units = "1-32,40"`'))
            return []
        if device.unit is None:
            return self._try((*at, "units"), lambda: parse_units(device.units)) or []
        if not 0 <= device.unit <= 255:
            self.problems.append(Problem((*at, "unit"), f"unit = {device.unit} is no unit; they go from 0 to 255"))
        return [device.unit]

    def _template(self, at: At, text: str) -> Any:
        def work() -> Any:
            template = compile_template(text)
            for name in sorted(template.names):
                if name not in _NAMES:
                    raise ValueError(f"'{{{name}}}' is not known here{did_you_mean(name, _NAMES)}")
            if at[-1] == "device" and not text.strip():
                raise ValueError('the device needs a name, such as "meter-{unit}"')
            return template

        return self._try(at, work)

    def _point(
        self, at: At, given: str | PointSettings, device: DeviceSettings, base: int, every_s: float,
        is_attribute: bool, report: ReportRule | None,
    ) -> Any:  # fmt: skip
        line = self._try(at, lambda: _as_table(given))
        if line is None:
            return None
        if line.every != "":
            every_s = self._positive((*at, "every"), line.every)
        if line.report.strip():
            report = self._try((*at, "report"), lambda: parse_report(line.report))
        if not line.key.strip():
            self.problems.append(Problem((*at, "key"), "the key is empty; give it a name"))
        order = line.words or device.words
        made: Field | None = self._try(
            (*at, "at"), lambda: make_field(line.at, line.as_, order, line.scale, line.offset, line.bit, base)
        )
        if made is None:
            return None
        span = Span(made.address.table, made.address.first, made.count, line.no_group)
        return every_s, lambda name, type: Point(line.key, made, name, type, is_attribute, report, line.unit, span)

    def _actions(
        self, at: At, given: dict[str, ActionSettings], device: DeviceSettings, base: int, default: str
    ) -> dict[str, Any]:
        made = {}
        for name, settings in given.items():
            work = partial(_action, settings, device, base, default, at[-1] == "rpc")
            one = self._try((*at, name), work)
            if one is not None:
                made[name] = one
        return made

    # --- polls ---------------------------------------------------------------------------------

    def polls(self) -> list[PollPlan]:
        """Units of one table one after the other, so that they are spread."""
        plans = []
        for (unit, period_s), points in self._points.items():
            by_span: dict[Span, list[Point]] = {}
            for point in points:
                by_span.setdefault(point.span, []).append(point)
            blocks = plan(by_span, self._settings.max_gap, self._settings.max_block)
            plans.append(PollPlan(unit, period_s, blocks, by_span))
        return plans


def _as_table(given: str | PointSettings) -> PointSettings:
    if isinstance(given, PointSettings):
        return given
    line = parse_line(given)
    return PointSettings(at=line.at, key=line.key, as_=line.as_)


def _action(
    settings: ActionSettings, device: DeviceSettings, base: int, default: str, is_rpc: bool
) -> Callable[[int], Action]:
    if bool(settings.write) == bool(settings.read):
        raise ValueError('write either `write = "holding:200"` or `read = "holding:5"`')
    if settings.read and not is_rpc:
        raise ValueError("a shared attribute is written: use `write`")
    made = make_field(
        settings.write or settings.read, settings.as_, settings.words or device.words, settings.scale, settings.offset,
        settings.bit, base, is_written=bool(settings.write),
    )  # fmt: skip
    value = settings.value if settings.value != "" else default
    path = compile_path(value) if isinstance(value, str) and value.startswith("$") else None
    if path is None and settings.write:
        made.encode(value)
    return lambda unit: Action(unit, made, path, value, bool(settings.write), settings.verify, settings.multiple)


def check(settings: ModbusSettings) -> list[Problem]:
    """As `ConnectorKind.check`."""
    return Draft(settings).problems
