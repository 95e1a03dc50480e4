"""Devices that are not there: for demonstrations, tests and a first look."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from edge_gateway.connectors.interface import ConnectorKind, Settings, Site
from edge_gateway.mapping.amounts import parse_duration
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.mapping.reports import parse_report
from edge_gateway.mapping.templates import compile_template
from edge_gateway.model import Call, CallFailed, Health, Json, Problem, Reading, ReportRule

_MAX_DEVICES: Final = 20_000


class Generator(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A key's values: a sine between `min` and `max`, a walk between them by at most `step`, a counter that grows by
    `step` (from `min`; begins again after `max` if that is greater), always `value`, or one of `values` by chance."""

    key: str
    kind: Literal["sine", "walk", "counter", "constant", "enum"] = "sine"
    min: float = 0.0
    max: float = 100.0
    period: str | float = 60.0  # of a sine
    step: float = 1.0
    value: Json = None
    values: list[Json] = []
    decimals: int = 2
    report: str = ""


class SimulatorSettings(Settings, kw_only=True, forbid_unknown_fields=True):
    """The table `[[simulator]]`."""

    devices: int = 1
    device: str = "sim-{number}"  # {number} from 1, {name} of the connector
    type: str = "simulated"
    every: str | float = 1.0
    jitter: str | float = 0.0  # each reading comes so much earlier or later, at most
    seed: int = 0  # the same values again; 0: other ones each time
    telemetry: list[Generator] = msgspec.field(default_factory=list)
    attributes: dict[str, Json] = msgspec.field(default_factory=dict)  # sent once at start


def check(settings: SimulatorSettings) -> list[Problem]:
    """See `ConnectorKind.check`."""
    problems: list[Problem] = []

    def attempt(path: tuple[str | int, ...], work: Callable[[], object]) -> None:
        try:
            work()
        except (MappingProblems, ValueError) as error:
            problems.append(Problem(path, str(error)))

    if not 1 <= settings.devices <= _MAX_DEVICES:
        problems.append(Problem(("devices",), f"devices goes from 1 to {_MAX_DEVICES}"))
    attempt(("every",), lambda: _positive(settings.every))
    attempt(("jitter",), lambda: parse_duration(settings.jitter))
    attempt(("device",), lambda: compile_template(settings.device))
    if settings.devices > 1 and "{number}" not in settings.device:
        problems.append(Problem(("device",), "several devices need {number} in their name"))
    if not settings.telemetry:
        problems.append(Problem(("telemetry",), 'nothing to send; write telemetry = [{ key = "temperature" }]'))
    for place, one in enumerate(settings.telemetry):
        attempt(("telemetry", place, "period"), lambda one=one: _positive(one.period))  # type: ignore[misc]
        if one.report:
            attempt(("telemetry", place, "report"), lambda one=one: parse_report(one.report))  # type: ignore[misc]
        problems += [Problem(("telemetry", place), text) for text in _mistakes(one)]
    return problems


def _positive(text: str | float) -> float:
    seconds = parse_duration(text)
    if seconds < 0.001:
        raise ValueError('write a time of at least "1 ms"')
    return seconds


def _mistakes(one: Generator) -> list[str]:
    if not one.key:
        return ["key is empty"]
    if one.kind in ("sine", "walk") and one.max <= one.min:
        return [f"max must be greater than min for a {one.kind}"]
    if one.kind == "constant" and one.value is None:
        return ["a constant needs value = …"]
    if one.kind == "enum" and not one.values:
        return ['an enum needs values = ["on", "off"]']
    return []


class _Values:
    """What one device shows of one key."""

    def __init__(self, settings: Generator, chance: random.Random) -> None:
        self._settings, self._chance = settings, chance
        self._phase = chance.random()
        self._last = settings.min - settings.step
        if settings.kind == "walk":
            self._last = chance.uniform(settings.min, settings.max)

    def next(self, elapsed_s: float) -> Json:
        """The value so long after the start."""
        one = self._settings
        match one.kind:
            case "constant":
                return one.value
            case "enum":
                return self._chance.choice(one.values)
            case "counter":
                self._last += one.step
                if one.max > one.min and self._last > one.max:
                    self._last = one.min
                return int(self._last) if self._last == int(self._last) else round(self._last, one.decimals)
            case "walk":
                self._last += self._chance.uniform(-one.step, one.step)
                self._last = min(max(self._last, one.min), one.max)
                return round(self._last, one.decimals)
        wave = math.sin(2 * math.pi * (elapsed_s / parse_duration(one.period) + self._phase))
        return round(one.min + (one.max - one.min) * (wave + 1) / 2, one.decimals)


class Simulator:
    """The connector."""

    def __init__(self, settings: SimulatorSettings, site: Site) -> None:
        self._settings, self._site = settings, site
        self._every_s = parse_duration(settings.every)
        self._jitter_s = min(parse_duration(settings.jitter), self._every_s / 2)
        self._chance = random.Random(settings.seed or None)
        rules = {one.key: parse_report(one.report) for one in settings.telemetry if one.report}
        self._reports: dict[str, ReportRule] | None = rules or None
        template = compile_template(settings.device)
        self._devices = {
            template.render({"number": number, "name": settings.name}): [
                (one.key, _Values(one, self._chance)) for one in settings.telemetry
            ]
            for number in range(1, settings.devices + 1)
        }
        self.shared: dict[str, dict[str, Json]] = {}  # what the core has set, by device

    async def run(self) -> None:
        """See `Connector`."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        if self._settings.attributes:
            attributes = self._settings.attributes
            self._site.accept([Reading(name, self._settings.type, attributes=attributes) for name in self._devices])
        self._site.health(Health.HEALTHY)
        round_number = 0
        while True:
            await self._round(start_s + round_number * self._every_s, start_s)
            round_number = max(round_number + 1, int((loop.time() - start_s) / self._every_s))

    async def _round(self, due_s: float, start_s: float) -> None:
        """One reading of each device; those without jitter go together."""
        loop = asyncio.get_running_loop()
        jitters = [
            self._chance.uniform(-self._jitter_s, self._jitter_s) if self._jitter_s else 0 for _ in self._devices
        ]
        for late_s, (name, keys) in sorted(zip(jitters, self._devices.items(), strict=True), key=lambda one: one[0]):
            if (wait_s := due_s + late_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            await self._room()
            now_s = loop.time() - start_s
            values = {key: generator.next(now_s) for key, generator in keys}
            self._site.accept([Reading(name, self._settings.type, telemetry=values, reports=self._reports)])
        await asyncio.sleep(0)

    async def _room(self) -> None:
        while self._site.is_congested:
            has_room = asyncio.Event()
            self._site.when_room(has_room.set)
            await has_room.wait()

    async def call(self, call: Call) -> Json:
        """Any method of a device of ours is answered by an echo."""
        if call.device not in self._devices:
            raise CallFailed(f"the simulator has no device '{call.device}'")
        return {"method": call.method, "params": call.params}

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """Remembered, and told back as attributes of the device."""
        if device not in self._devices:
            return
        known = self.shared.setdefault(device, {})
        known.update(values)
        for key in deleted:
            known.pop(key, None)
        if values:
            self._site.accept([Reading(device, self._settings.type, attributes=dict(values))])


KINDS: tuple[ConnectorKind, ...] = (
    ConnectorKind(name="simulator", settings=SimulatorSettings, build=Simulator, check=check),
)
