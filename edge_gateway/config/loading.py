"""The configuration: TOML file and environment into one frozen tree, checked once, all problems together.

Later sources win: defaults, file, environment (`EDGE_GATEWAY__SECTION__KEY`, for the sections only). Every value of the
file may refer to a secret elsewhere, see `references`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from edge_gateway.config import checks
from edge_gateway.config.positions import Position, Positions
from edge_gateway.config.references import References
from edge_gateway.config.typed import Reader, Where, struct_type
from edge_gateway.connectors.interface import ConnectorKind, Settings
from edge_gateway.mapping.problems import MappingProblems, did_you_mean
from edge_gateway.model import Problem
from edge_gateway.settings import Core, Devices, Local, Log, Section, Statistics, Store

ENVIRONMENT_PREFIX: Final = "EDGE_GATEWAY__"
DATA_DIR_VARIABLE: Final = "EDGE_GATEWAY__DATA_DIR"  # the command line's; not read here
SECTIONS: Final[dict[str, type[Section]]] = {
    "core": Core,
    "store": Store,
    "devices": Devices,
    "local": Local,
    "statistics": Statistics,
    "log": Log,
}
_MAX_FILE_BYTES: Final = 16 * 1024**2
_TOML_PLACE = re.compile(r"^(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class ConfigProblem:
    """A mistake or a hint. `line` and `column` count from 1; 0: it does not stand in the file (`text` says where).

    `path` leads to it, such as ("modbus", 0, "timeout"); `text` begins with the table and says the fix."""

    line: int
    column: int
    path: Where = field(compare=False)
    text: str


class ConfigError(Exception):
    """The configuration cannot be used; `problems` are sorted by line, `str()` has one a line."""

    def __init__(self, problems: Sequence[ConfigProblem], hints: Sequence[ConfigProblem], file: str) -> None:
        self.problems = sorted(problems)
        self.hints = list(hints)
        super().__init__("\n".join(shown(problem, file) for problem in self.problems))


def shown(problem: ConfigProblem, file: str) -> str:
    """`gateway.toml:12:3: [[modbus]] plant: …`, as editors and terminals understand it."""
    return f"{file}:{problem.line}:{problem.column}: {problem.text}" if problem.line else problem.text


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorTable:
    """One `[[kind]]` table. `raw` is what it says, with secrets put in: equal ones need no restart at a reload."""

    kind: str
    name: str
    settings: Any = field(repr=False)  # an instance of the kind's own class
    raw: dict[str, Any] = field(repr=False)
    line: int
    number: int = 0  # among the tables of its kind, from 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that can be configured."""

    core: Core = field(default_factory=Core)
    store: Store = field(default_factory=Store)
    devices: Devices = field(default_factory=Devices)
    local: Local = field(default_factory=Local)
    statistics: Statistics = field(default_factory=Statistics)
    log: Log = field(default_factory=Log)
    connectors: tuple[ConnectorTable, ...] = ()
    hints: tuple[ConfigProblem, ...] = ()
    lines: Mapping[Where, int] = field(default_factory=dict, repr=False)  # of what the file says
    written: Mapping[Where, str] = field(default_factory=dict, repr=False)  # texts before secrets were put in
    variables: Mapping[Where, str] = field(default_factory=dict, repr=False)  # what the environment says, by its name


def load(
    path: Path | None, environment: Mapping[str, str], *, kinds: Mapping[str, ConnectorKind], text: str | None = None
) -> Config:
    """The effective configuration; without `path`, defaults and environment alone. `text` is read as if it stood in
    the file `path`.

    Raises: ConfigError naming every problem.
    """
    return _Loading(path, environment, kinds, text).config()


class _Loading:
    """One reading of the configuration."""

    def __init__(
        self,
        path: Path | None,
        environment: Mapping[str, str],
        kinds: Mapping[str, ConnectorKind],
        text: str | None = None,
    ) -> None:
        self._file = path.name if path else "configuration"
        self._kinds = kinds
        self._environment = environment
        self._references = References(environment, path.parent if path else Path())
        self._problems: list[ConfigProblem] = []
        self._variables: dict[Where, str] = {}
        self._names: dict[Where, str] = {}  # (kind, number) → name of the connector, as far as it has one
        self._positions = Positions("")
        self._document = self._resolved(self._text(path) if path and text is None else text or "")

    def config(self) -> Config:
        self._check_variables()
        self._check_top()
        sections = {name: self._section(name, cls) for name, cls in SECTIONS.items()}
        connectors = self._connectors()
        hints: list[ConfigProblem] = []
        for problem in checks.sections(sections):
            self._add(problem)
        for problem in checks.names([(table.kind, table.number, table.name) for table in connectors]):
            first = self._positions.of(problem.path[2:]).line
            self._add(Problem(problem.path[:2], f"{problem.text} (line {first}); names are unique"))
        for problem in (*checks.section_hints(sections), *checks.key_hints(self._tables())):
            hints.append(self._told(problem))
        if self._problems:
            raise ConfigError(self._problems, sorted(hints), self._file)
        return Config(
            **sections,
            connectors=tuple(connectors),
            hints=tuple(sorted(hints)),
            lines=self._positions.lines(),
            written=self._references.written,
            variables=self._variables,
        )

    # --- the file --------------------------------------------------------------------------------

    def _resolved(self, text: str) -> dict[str, Any]:
        try:
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            self._broken(error)
            return {}
        self._positions = Positions(text)
        resolved: dict[str, Any] = self._references.resolve(document)
        for kind in self._kinds:
            for number, table in enumerate(resolved.get(kind, []) if isinstance(resolved.get(kind), list) else []):
                if isinstance(table, dict) and isinstance(table.get("name"), str):
                    self._names[(kind, number)] = table["name"]
        for problem in self._references.problems:
            self._add(problem)
        return resolved

    def _text(self, path: Path) -> str:
        try:
            with path.open("rb") as source:
                content = source.read(_MAX_FILE_BYTES + 1)
            if len(content) > _MAX_FILE_BYTES:
                raise ValueError("it has more than 16 MiB")
            return content.decode("utf-8-sig")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            if isinstance(error, UnicodeDecodeError):
                reason = f"byte {error.start + 1} is not UTF-8; save it as UTF-8"
            self._problems.append(ConfigProblem(0, 0, (), f"cannot read the configuration {path}: {reason}"))
            return ""

    def _broken(self, error: Exception) -> None:
        found = _TOML_PLACE.match(str(error))
        if found is None:
            self._problems.append(
                ConfigProblem(0, 0, (), "the configuration is not valid TOML: it is nested too deeply")
            )
            return
        line, column = (int(found[2]), int(found[3])) if found[2] else (0, 0)
        text = f"not valid TOML: {found[1]}" + ("" if line else " at the end of the file")
        self._problems.append(ConfigProblem(line, column, (), text))

    def _check_variables(self) -> None:
        for variable in sorted(self._environment):
            if variable.startswith(ENVIRONMENT_PREFIX) and variable != DATA_DIR_VARIABLE:
                section, _, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
                if section not in SECTIONS or not key:
                    text = f"unknown section in the variable {variable}{did_you_mean(section, SECTIONS)}"
                    self._problems.append(ConfigProblem(0, 0, (), text))

    def _check_top(self) -> None:
        known = [*SECTIONS, *self._kinds]
        for name, value in self._document.items():
            if name not in known:
                what = f"unknown section [{name}]" if isinstance(value, dict | list) else f"unknown key '{name}'"
                self._add(Problem((name,), f"{what}{did_you_mean(name, known)}"))
            elif name in SECTIONS and not isinstance(value, dict):
                self._add(Problem((name,), f"[{name}] is a section that stands once; write [{name}]"))
            elif name in self._kinds and not _is_tables(value):
                self._add(Problem((name,), f"there can be several of [[{name}]]; write it with two brackets"))

    # --- sections --------------------------------------------------------------------------------

    def _section(self, name: str, cls: type[Section]) -> Any:
        """An instance, or the default where there are problems, so that the checks behind can go on."""
        said = self._document.get(name)
        values = dict(said) if isinstance(said, dict) else {}
        for variable, text in sorted(self._environment.items()):
            if variable.startswith(ENVIRONMENT_PREFIX):
                parts = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
                if parts[0] == name and len(parts) > 1:
                    self._override(values, cls, variable, tuple(parts), text)
        reader = Reader()
        section = reader.table(values, cls, (name,))
        for problem in reader.problems:
            self._add(problem)
        return section if section is not None else _default(cls)

    def _override(self, values: dict[str, Any], cls: type[Section], variable: str, path: Where, text: str) -> None:
        self._variables[path] = variable
        kind: Any = struct_type(cls)
        for part in path[1:]:
            fields = {one.encode_name: one.type for one in kind.fields} if kind else {}
            if part not in fields:
                self._add(Problem(path, f"unknown key '{part}'{did_you_mean(str(part), fields)}"))
                return
            leaf, kind = fields[str(part)], _inner_struct(fields[str(part)])
        if kind is not None:
            self._add(
                Problem(path, f"is a table; set its keys, such as {variable}__{kind.fields[0].encode_name.upper()}")
            )
            return
        reader = Reader(is_text=True)
        value = reader.value(text, leaf, path)
        if checks.is_secret(path):
            self._references.hide(text)
        for problem in reader.problems:
            self._add(problem)
        if not reader.problems:
            for part in path[1:-1]:
                values[str(part)] = dict(values.get(str(part)) or {})
                values = values[str(part)]
            values[str(path[-1])] = value

    # --- connectors ------------------------------------------------------------------------------

    def _tables(self) -> list[tuple[Where, dict[str, Any]]]:
        """Every connector table, with its path."""
        return [
            ((kind, number), table)
            for kind in self._kinds
            if _is_tables(self._document.get(kind))
            for number, table in enumerate(self._document[kind])
        ]

    def _connectors(self) -> list[ConnectorTable]:
        """In the order of the file; those with problems only as far as to find names that stand twice."""
        found: list[ConnectorTable] = []
        for path, values in self._tables():
            kind = self._kinds[str(path[0])]
            settings = self._settings(kind, path, values)
            name = values.get("name")
            if isinstance(name, str):
                line = self._positions.of(path).line
                found.append(
                    ConnectorTable(
                        kind=kind.name, name=name, settings=settings, raw=values, line=line, number=int(path[1])
                    )
                )
        return sorted(found, key=lambda table: table.line)

    def _settings(self, kind: ConnectorKind, path: Where, values: dict[str, Any]) -> Settings | None:
        reader = Reader()
        settings: Settings | None = reader.table(values, kind.settings)
        problems = list(reader.problems)
        if settings is not None:
            problems += checks.connector_name(settings.name)
            problems += self._checked(kind, path, settings)
        for problem in problems:
            self._add(Problem((*path, *problem.path), problem.text))
        return settings

    def _checked(self, kind: ConnectorKind, path: Where, settings: Settings) -> Sequence[Problem]:
        """Nothing while a secret of the table is missing: what would follow from that is no mistake of its own."""
        if any(tuple(problem.path[:2]) == tuple(path[:2]) for problem in self._references.problems):
            return []
        try:
            return kind.check(settings)
        except MappingProblems as error:
            return error.problems

    # --- problems --------------------------------------------------------------------------------

    def _add(self, problem: Problem) -> None:
        told = self._told(problem)
        if told not in self._problems:
            self._problems.append(told)

    def _told(self, problem: Problem) -> ConfigProblem:
        path = problem.path
        variable = self._variables.get(path)
        position = Position() if variable else self._positions.of(path)
        prefix = f"{variable}: " if variable else self._prefix(path, problem.text)
        text = self._references.masked(prefix + problem.text)
        return ConfigProblem(position.line, position.column, path, text)

    def _prefix(self, path: Where, text: str) -> str:
        """Such as `[[modbus]] plant: device 1, telemetry 3: `."""
        if len(path) < 2 and text.startswith(("unknown ", "[", "there ")):
            return ""
        rest = path[:-1] if text.startswith("unknown key") else path
        if path[0] in SECTIONS:
            inner = _in_words(rest[1:])
            return f"[{path[0]}] {inner}: " if inner else f"[{path[0]}]: "
        name = self._names.get(path[:2], f"number {int(path[1]) + 1}" if len(path) > 1 else "")
        inner = _in_words(rest[2:])
        return f"[[{path[0]}]] {name}: " + (f"{inner}: " if inner else "")


def _in_words(path: Where) -> str:
    """("map", 0, "telemetry", 2, "as") is `map 1, telemetry 3, as`; people count from 1."""
    words: list[str] = []
    for part in path:
        if isinstance(part, int) and words:
            words[-1] += f" {part + 1}"
        else:
            words.append(str(part))
    return ", ".join(words)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(table, dict) for table in value)


def _inner_struct(kind: Any) -> inspect.StructType | None:
    """The struct that a field is or may be."""
    if isinstance(kind, inspect.Metadata):
        return _inner_struct(kind.type)
    if isinstance(kind, inspect.UnionType):
        return next((found for one in kind.types if (found := _inner_struct(one))), None)
    return kind if isinstance(kind, inspect.StructType) else None


def _default(cls: type[Section]) -> Section:
    return msgspec.convert({}, cls)
