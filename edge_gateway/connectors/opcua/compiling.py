"""From the settings to what is looked for on the server, or to everything that is wrong with them. Imports no
asyncua: settings are checked where it is missing, too."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from edge_gateway.connectors.opcua.places import Place, parse_place
from edge_gateway.connectors.opcua.settings import ActionSettings, DeviceSettings, NodeSettings, OpcuaSettings
from edge_gateway.mapping.amounts import parse_duration
from edge_gateway.mapping.interface import MappingError
from edge_gateway.mapping.lines import parse_line
from edge_gateway.mapping.paths import MISSING, Path, compile_path
from edge_gateway.mapping.problems import MappingProblems, did_you_mean
from edge_gateway.mapping.reports import parse_report
from edge_gateway.mapping.templates import Template, compile_template
from edge_gateway.mapping.values import TYPES, shown
from edge_gateway.model import Json, Problem, ReportRule

At = tuple[str | int, ...]
MISSING_EXTRA = "OPC UA needs the package asyncua: pip install 'muster[opcua]'"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key of a kind of device."""

    place: Place
    key: Template
    type: str
    scale: float
    offset: float
    dead_band: float
    every_s: float  # 0: subscribed
    is_attribute: bool
    report: ReportRule | None
    shown_unit: str


@dataclass(frozen=True, slots=True)
class Source:
    """A path into the document of a call, or a constant."""

    path: Path | None
    constant: Json  # or the path as it was written

    def value(self, document: Json) -> Json:
        """Raises: MappingError."""
        if self.path is None:
            return self.constant
        found = self.path.first(document, MISSING)
        if found is MISSING:
            raise MappingError(f"{self.constant} finds nothing in {shown(document)}")
        return found


@dataclass(frozen=True, slots=True)
class Action:
    kind: str  # write | read | method
    place: Place
    value: Source
    args: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class DeviceDraft:
    """One `[[opcua.device]]`."""

    place: Place | None
    device: Template
    type: Template
    wanted: tuple[Wanted, ...]
    rpc: dict[str, Action]
    shared: dict[str, Action]


class Draft:
    """The settings as far as they can be compiled, and what is wrong with the others."""

    def __init__(self, settings: OpcuaSettings) -> None:
        self.problems: list[Problem] = []
        self._settings = settings
        if importlib.util.find_spec("asyncua") is None:
            self.problems.append(Problem((), MISSING_EXTRA))
        self._check_connection(settings)
        self.timeout_s = self._seconds(("timeout",), settings.timeout) or 4.0
        self.publishing_s = self._seconds(("publishing",), settings.publishing) or 1.0
        self.sampling_s = self._seconds(("sampling",), settings.sampling) if settings.sampling != "" else 0.0
        self.browse_every_s = self._seconds(("browse_every",), settings.browse_every)
        if not settings.device:
            self.problems.append(Problem(("device",), "nothing is read; add a [[opcua.device]] table with telemetry"))
        found = [self._device(("device", number), device) for number, device in enumerate(settings.device)]
        self.devices = [device for device in found if device is not None]

    def _check_connection(self, settings: OpcuaSettings) -> None:
        try:
            parts = urlsplit(settings.connect)
            is_url = parts.scheme == "opc.tcp" and bool(parts.hostname) and parts.port != 0
            has_password = "@" in parts.netloc
        except ValueError:
            is_url, has_password = False, False
        if has_password:  # not quoted: it has a password in it
            self.problems.append(Problem(("connect",), "write user and password into `user` and `password`, not here"))
        elif not is_url:
            text = f"'{settings.connect}' is no OPC UA server; write opc.tcp://host:4840"
            self.problems.append(Problem(("connect",), text))
        if settings.security != "none":
            for name in ("certificate", "private_key"):
                if not getattr(settings, name):
                    text = f'security = "{settings.security}" needs `{name}`, a .pem or .der file'
                    self.problems.append(Problem((name,), text))
        if settings.password and not settings.user:
            self.problems.append(Problem(("user",), "there is a password without a user"))

    def _try(self, at: At, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except MappingProblems as error:
            self.problems += [Problem((*at, *problem.path), problem.text) for problem in error.problems]
        except (ValueError, MappingError) as error:
            self.problems.append(Problem(at, str(error)))
        return None

    def _seconds(self, at: At, text: str | float) -> float:
        return self._try(at, lambda: parse_duration(text)) or 0.0

    def _device(self, at: At, device: DeviceSettings) -> DeviceDraft | None:
        before = len(self.problems)
        place = self._try((*at, "at"), lambda: parse_place(device.at)) if device.at.strip() else None
        captures = place.captures if place is not None else frozenset()
        every_s = self._seconds((*at, "every"), device.every) if device.every != "" else 0.0
        report = self._try((*at, "report"), lambda: parse_report(device.report)) if device.report.strip() else None
        make = partial(self._wanted, captures=captures, has_place=place is not None, every_s=every_s, report=report)
        wanted = [
            make((*at, kind, number), line, is_attribute=kind == "attributes")
            for kind, lines in (("telemetry", device.telemetry), ("attributes", device.attributes))
            for number, line in enumerate(lines)
        ]
        rpc = self._actions((*at, "rpc"), device.rpc, "$.params")
        shared = self._actions((*at, "shared"), device.shared, "$.value")
        name = self._try((*at, "device"), lambda: _template(device.device, captures, is_needed=True))
        type_of = self._try((*at, "type"), lambda: _template(device.type, captures))
        if not (wanted or rpc or shared):
            self.problems.append(
                Problem(at, "nothing is read or written here; add telemetry, attributes, rpc or shared")
            )
        if name is not None and place is not None and place.is_open and name.constant is not None:
            text = f"'{device.at}' finds several devices that would share the name '{device.device}'; use a capture"
            self.problems.append(Problem((*at, "device"), text))
        if len(self.problems) > before:
            return None
        return DeviceDraft(place, name, type_of, tuple(one for one in wanted if one is not None), rpc, shared)

    def _wanted(
        self, at: At, given: str | NodeSettings, *, captures: frozenset[str], has_place: bool, every_s: float,
        report: ReportRule | None, is_attribute: bool,
    ) -> Wanted | None:  # fmt: skip
        line = self._try(at, lambda: _as_table(given))
        if line is None:
            return None
        place = self._try((*at, "at"), lambda: _line_place(line.at, has_place))
        if line.every != "":
            every_s = self._seconds((*at, "every"), line.every)
        if line.report.strip():
            report = self._try((*at, "report"), lambda: parse_report(line.report))
        if line.as_ and line.as_ not in TYPES:
            self.problems.append(Problem((*at, "as"), f"'{line.as_}' is no type here{did_you_mean(line.as_, TYPES)}"))
        if line.scale == 0:
            self.problems.append(Problem((*at, "scale"), "scale = 0 would make every value the same"))
        if place is None:
            return None
        names = {*captures, *place.captures, "key"}
        key = self._try((*at, "key"), lambda: _template(line.key, names, is_needed=True))
        if key is None:
            return None
        if place.is_open and key.constant is not None:
            text = f"'{line.at}' finds several values; write the key with {{key}}, such as {line.key}_{{key}}"
            self.problems.append(Problem((*at, "key"), text))
        return Wanted(
            place, key, line.as_, line.scale, line.offset, line.dead_band, every_s, is_attribute, report, line.unit
        )

    def _actions(self, at: At, given: dict[str, ActionSettings], default: str) -> dict[str, Action]:
        made = {name: self._try((*at, name), partial(_action, settings, default)) for name, settings in given.items()}
        return {name: action for name, action in made.items() if action is not None}


def _as_table(given: str | NodeSettings) -> NodeSettings:
    if isinstance(given, NodeSettings):
        return given
    line = parse_line(given)
    return NodeSettings(at=line.at, key=line.key, as_=line.as_)


def _line_place(text: str, has_place: bool) -> Place:
    place = parse_place(text)
    if not (place.node_id or place.root or has_place):
        raise ValueError(f"'{text}' begins nowhere; begin it with Objects/, or give the device a place by `at`")
    return place


def _template(text: str, names: Collection[str], *, is_needed: bool = False) -> Any:
    template = compile_template(text)
    if is_needed and not text.strip():
        raise ValueError("the name is empty")
    for name in sorted(template.names):
        if name not in names:
            raise ValueError(f"'{{{name}}}' in '{text}' is not captured by anything{did_you_mean(name, names)}")
    return template


def _action(settings: ActionSettings, default: str) -> Action:
    kinds = [kind for kind in ("write", "read", "method") if getattr(settings, kind)]
    if len(kinds) != 1:
        raise ValueError('write one of `write`, `read` and `method`, such as { write = "ns=2;i=5" }')
    place = parse_place(getattr(settings, kinds[0]))
    if place.is_open:
        raise ValueError(f"'{place.text}' may find several nodes; an action needs one")
    return Action(
        kinds[0], place, _source(settings.value if settings.value != "" else default),
        tuple(_source(one) for one in settings.args),
    )  # fmt: skip


def _source(given: Json) -> Source:
    if isinstance(given, str) and given.startswith("$"):
        return Source(compile_path(given), given)
    return Source(None, given)


def check(settings: OpcuaSettings) -> list[Problem]:
    """As `ConnectorKind.check`."""
    return Draft(settings).problems
