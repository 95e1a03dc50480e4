"""One key of a mapping, compiled: from a document to the values of its keys."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from edge_gateway.mapping import values, words
from edge_gateway.mapping.formats import bits_at, compile_at
from edge_gateway.mapping.interface import Line, MappingError, NoValue
from edge_gateway.mapping.lines import ALL_TYPES, parse_line
from edge_gateway.mapping.paths import MISSING, Path
from edge_gateway.mapping.problems import MappingProblems, did_you_mean
from edge_gateway.mapping.reports import parse_report
from edge_gateway.mapping.templates import Template, build
from edge_gateway.model import Json, Problem, ReportRule

Convert = Callable[[Json], Json]


@dataclass(slots=True)
class Taken:
    """What one document has given so far."""

    values: dict[str, Json]
    faults: list[str]
    reports: dict[str, ReportRule] | None = None
    raw: dict[str, str] | None = None
    lacks_required: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """A compiled line. `name` is None when the key has places to fill, or the path may find several values."""

    line: Line
    source: Path | Template
    key: Template
    convert: Convert
    report: ReportRule | None
    name: str | None

    def first(self, document: Json, captures: Mapping[str, str]) -> Json:
        if isinstance(self.source, Template):
            return self.source.render(captures, document)
        return self.source.first(document, MISSING)

    def take(self, document: Json, captures: Mapping[str, str], taken: Taken) -> None:
        """Adds to `taken` what the document has for this key, or what is wrong with it."""
        try:
            if self.name is not None:
                self._put(self.name, self.first(document, captures), taken)
                return
            found = self._found(document, captures)
        except MappingError as error:
            self._fault(taken, f"{self.line.key}: {error}")
            return
        if not found:
            self._lacking(taken, f"{self.line.at} finds nothing")
        for segment, value in found:
            try:
                name = self.key.render({**captures, "key": segment}, document)
                self._put(name, value, taken)
            except MappingError as error:
                self._fault(taken, f"{self.line.key}: {error}")

    def _found(self, document: Json, captures: Mapping[str, str]) -> list[tuple[str, Json]]:
        if isinstance(self.source, Template):
            return [("", self.source.render(captures, document))]
        return self.source.all(document)

    def _put(self, name: str, value: Json, taken: Taken) -> None:
        if value is MISSING:
            self._lacking(taken, f"{self.line.at} finds nothing")
            return
        if not name:
            self._fault(taken, f"'{self.line.key}' gives an empty key")
            return
        try:
            taken.values[name] = self.convert(value)
        except NoValue as nothing:
            self._lacking(taken, str(nothing))
            return
        except MappingError as error:
            self._fault(taken, f"{name}: {error} ({self.line.at})")
            return
        if self.report is not None and taken.reports is not None:
            taken.reports[name] = self.report
        if taken.raw is not None:
            taken.raw[name] = f"{self.line.at} {_on_the_wire(value)}"

    def _lacking(self, taken: Taken, why: str) -> None:
        if self.line.required:
            taken.faults.append(f"the required key '{self.line.key}' is missing: {why}")
            taken.lacks_required = True

    def _fault(self, taken: Taken, text: str) -> None:
        taken.faults.append(text)
        taken.lacks_required |= self.line.required


def _on_the_wire(value: Json) -> str:
    if type(value) is not bytes:
        return values.shown(value)
    return " ".join(f"0x{value[at : at + 2].hex().upper()}" for at in range(0, min(len(value), 16), 2))


# --- compiling -----------------------------------------------------------------------------------


def compile_key(text: str | Line, format: str, names: Collection[str]) -> Key:
    """`names` may stand in braces. Raises: MappingProblems, with paths into the line."""
    line = parse_line(text)
    problems: list[Problem] = []
    source = _attempt(problems, "at", lambda: _source(line, format, names))
    key = _attempt(problems, "key", lambda: checked_template(line.key, format, {*names, "key"}))
    convert = _attempt(problems, "as", lambda: _converter(line, format))
    report = _attempt(problems, "report", lambda: report_rule(line.report))
    if key is not None and not line.key.strip():
        problems.append(Problem(("key",), "the key is empty; give it a name"))
    is_wildcard = source is not None and not isinstance(source, Template) and source.is_wildcard
    if key is not None and is_wildcard and key.constant is not None:
        problems.append(
            Problem(
                ("key",), f"'{line.at}' finds several values; write the key with {{key}}, such as {line.key}_{{key}}"
            )
        )
    if problems or source is None or key is None or convert is None:
        raise MappingProblems(problems)
    name = key.constant if not is_wildcard else None
    return Key(line, source, key, convert, report, name)


def _attempt(problems: list[Problem], field: str, work: Callable[[], Any]) -> Any:
    """What `work` gives, or None and its problems."""
    try:
        return work()
    except MappingProblems as error:
        problems += [Problem((field, *problem.path), problem.text) for problem in error.problems]
    except ValueError as error:
        problems.append(Problem((field,), str(error)))
    return None


def report_rule(text: str) -> ReportRule | None:
    """Raises: ValueError."""
    return parse_report(text) if text.strip() else None


def checked_template(text: str, format: str, names: Collection[str]) -> Template:
    """A template of which every name is known. Raises: MappingProblems."""
    template = build(text, lambda at: compile_at(at, format))
    for name in sorted(template.names):
        if name not in names:
            raise MappingProblems.of(f"'{{{name}}}' in '{text}' is not captured by anything{did_you_mean(name, names)}")
    return template


def _source(line: Line, format: str, names: Collection[str]) -> Path | Template:
    if line.at.startswith("{"):
        return checked_template(line.at, format, names)
    return compile_at(line.at, format, line.as_ if line.as_ in words.TYPES else "")


def _converter(line: Line, format: str) -> Convert:
    if line.as_ and line.as_ not in ALL_TYPES:
        raise ValueError(f"'{line.as_}' is no type{did_you_mean(line.as_, ALL_TYPES)}")
    if line.words not in words.ORDERS:
        raise ValueError(f"words = '{line.words}' is no order{did_you_mean(line.words, words.ORDERS)}")
    convert = _of_bytes(line) if line.at.startswith("bytes:") else _of_value(line, format)
    if line.scale == 1 and line.offset == 0:
        return convert
    if line.as_ in ("string", "bool", "json", "hex", "bits"):
        raise ValueError(f"scale and offset need a number, not {line.as_}")
    if line.scale == 0:
        raise ValueError("scale = 0 would make every value the same; leave it out or give a factor")
    return lambda value: values.scaled(convert(value), line.scale, line.offset)


def _of_bytes(line: Line) -> Convert:
    if line.as_ not in words.TYPES:
        raise ValueError(
            f"bytes need a type that says how to read them{did_you_mean(line.as_, words.TYPES)}"
            if line.as_
            else f'bytes need a type, such as "{line.at} -> {line.key}: uint16"; known are {", ".join(words.TYPES)}'
        )
    return lambda value: values.convert(words.decode(value, line.as_, line.words), "")


def _of_value(line: Line, format: str) -> Convert:
    if line.as_ and line.as_ not in values.TYPES:
        raise ValueError(f"'{line.as_}' is a type of bytes; here are {', '.join(values.TYPES)}")
    if line.at.startswith("bits:") and not line.as_:
        return values.converter("bool" if _is_one_bit(line.at) else "int")
    if not line.as_ and format in ("text", "csv") and not line.at.startswith("{"):
        return values.by_look
    return values.converter(line.as_)


def _is_one_bit(at: str) -> bool:
    try:
        return bits_at(at)[1]
    except MappingProblems:  # told where `at` is compiled
        return False
