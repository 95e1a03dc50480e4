"""From a mapping's settings to a `CompiledMap`, or to everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from edge_gateway.mapping.formats import FORMATS, compile_at, decode_csv, decode_json, decode_text, is_named_column
from edge_gateway.mapping.interface import CompiledMap, Line, MappingError, MapSettings, NoValue
from edge_gateway.mapping.keys import Key, Taken, checked_template, compile_key, report_rule
from edge_gateway.mapping.paths import MAX_FOUND, MISSING, Path, compile_path
from edge_gateway.mapping.problems import MappingProblems, did_you_mean
from edge_gateway.mapping.templates import Pick, Template, split
from edge_gateway.mapping.times import TimeReader, time_reader
from edge_gateway.mapping.values import shown
from edge_gateway.model import Json, Problem, Reading, ReportRule

_MAX_FAULTS_TOLD: Final = 3
_MAX_NAMES_TOLD: Final = 8


def compile_map(settings: MapSettings, captures: Collection[str] = ()) -> CompiledMap:
    """`settings`, ready for use; `captures` are the names that the connector's pattern (or the connector) supplies.

    Raises: MappingProblems, with the paths of `check_map`.
    """
    draft = _Draft(settings, captures)
    if draft.problems:
        raise MappingProblems(draft.problems)
    return _Map(draft)


def check_map(settings: MapSettings, captures: Collection[str] = ()) -> list[Problem]:
    """All mistakes at once; a path such as ("telemetry", 2, "report") is relative to the map."""
    return _Draft(settings, captures).problems


class _Draft:
    """The parts of a map as far as they can be compiled, and what is wrong with the others."""

    def __init__(self, settings: MapSettings, captures: Collection[str]) -> None:
        self.problems: list[Problem] = []
        self.format = settings.format
        if self.format not in FORMATS:
            self._problem(("format",), f"'{self.format}' is no format{did_you_mean(self.format, FORMATS)}")
            self.format = "json"
        self.delimiter = settings.delimiter
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            self._problem(("delimiter",), "the delimiter is one character, such as ',' or ';' or '\\t'")
        names = {*captures, *(("each",) if settings.each else ())}
        self.each = self._try(("each",), lambda: self._each(settings.each))
        self.device = self._try(("device",), lambda: self._name(settings.device, names))
        self.type = self._try(("type",), lambda: checked_template(settings.type, self.format, names))
        self.ts = self._try(("ts",), lambda: compile_at(settings.ts, self.format) if settings.ts else None)
        self.ts_at = settings.ts
        self.read_time: TimeReader = self._try(("ts_format",), lambda: time_reader(settings.ts_format))
        self.report = self._try(("report",), lambda: report_rule(settings.report))
        self.telemetry = self._keys("telemetry", settings.telemetry, names)
        self.attributes = self._keys("attributes", settings.attributes, names)
        if not settings.telemetry and not settings.attributes:
            self._problem((), 'the map takes nothing; give it telemetry = ["$.path -> key"] or attributes')
        self.has_header = self.format == "csv" and self._needs_header(settings)

    def _problem(self, path: tuple[str | int, ...], text: str) -> None:
        self.problems.append(Problem(path, text))

    def _try(self, path: tuple[str | int, ...], work: Callable[[], Any]) -> Any:
        """What `work` gives, or None and its problems."""
        try:
            return work()
        except MappingProblems as error:
            for problem in error.problems:
                self._problem((*path, *problem.path), problem.text)
        except ValueError as error:
            self._problem(path, str(error))
        return None

    def _each(self, text: str) -> Path | None:
        if text and self.format != "json":
            raise MappingProblems.of("each goes with JSON only; each row of csv is a reading by itself")
        return compile_path(text) if text else None

    def _name(self, text: str, names: Collection[str]) -> Template:
        if not text.strip():
            raise MappingProblems.of('device is empty; write a name, "{capture}" or "{$.path}"')
        return checked_template(text, self.format, names)

    def _keys(self, where: str, lines: Sequence[str | Line], names: Collection[str]) -> list[Key]:
        keys: list[Key] = []
        for place, line in enumerate(lines):
            compiled = self._try((where, place), partial(compile_key, line, self.format, names))
            if compiled is None:
                continue
            if any(compiled.name is not None and compiled.name == other.name for other in keys):
                self._problem((where, place), f"the key '{compiled.name}' is given twice; name one of them differently")
            keys.append(replace(compiled, report=self.report) if compiled.report is None else compiled)
        return keys

    def _needs_header(self, settings: MapSettings) -> bool:
        ats = [settings.ts] + [key.line.at for key in (*self.telemetry, *self.attributes)]
        for text in (settings.device, settings.type, *(key.line.key for key in (*self.telemetry, *self.attributes))):
            try:
                ats += [part.at for part in split(text) if isinstance(part, Pick)]
            except MappingProblems:  # told already
                continue
        return any(is_named_column(at) for at in ats)


@dataclass(frozen=True, slots=True)
class _Scope:
    """One document that becomes one reading."""

    document: Json
    whole: Json  # MISSING: the document itself
    captures: Mapping[str, str]
    label: str  # "" or such as "element 3: "


class _Map:
    """The `CompiledMap`."""

    def __init__(self, draft: _Draft) -> None:
        self._draft = draft
        self._decode: Callable[[bytes], list[Json]] = self._decoder(draft)
        self._telemetry = draft.telemetry
        self._attributes = draft.attributes
        self._keys = [*draft.telemetry, *draft.attributes]
        self._reports = self._static_reports()

    @staticmethod
    def _decoder(draft: _Draft) -> Callable[[bytes], list[Json]]:
        if draft.format == "csv":
            return lambda payload: decode_csv(payload, draft.delimiter, draft.has_header)
        decoders: dict[str, Callable[[bytes], Json]] = {"json": decode_json, "text": decode_text, "bytes": bytes}
        one = decoders[draft.format]
        return lambda payload: [one(payload)]

    def _static_reports(self) -> dict[str, ReportRule] | None:
        """The rules by key where all keys are known; None where readings need their own."""
        if any(key.name is None and key.report for key in self._keys):
            return None
        return {key.name: key.report for key in self._keys if key.name is not None and key.report is not None}

    def readings(self, payload: bytes, captures: Mapping[str, str], *, wants_raw: bool = False) -> list[Reading]:
        """See `CompiledMap`."""
        readings: list[Reading] = []
        faults: list[str] = []
        scopes = self._scopes(payload, captures)
        for scope in scopes:
            reading = self._reading(scope, wants_raw, faults)
            if reading is not None:
                readings.append(reading)
        if faults:
            told = "; ".join(faults[:_MAX_FAULTS_TOLD])
            more = len(faults) - _MAX_FAULTS_TOLD
            raise MappingError(told + (f"; and {more} more" if more > 0 else ""), readings)
        if not readings:
            raise MappingError(self._nothing(scopes))
        return readings

    def _scopes(self, payload: bytes, captures: Mapping[str, str]) -> list[_Scope]:
        documents = self._decode(payload)
        each = self._draft.each
        if each is None:
            if len(documents) == 1:
                return [_Scope(documents[0], MISSING, captures, "")]
            return [_Scope(document, MISSING, captures, f"row {n}: ") for n, document in enumerate(documents, 1)]
        whole = documents[0]
        found = each.all(whole)
        if each.is_single and found and type(found[0][1]) is list:
            found = [(str(place), element) for place, element in enumerate(found[0][1])]
            if not found:
                raise MappingError("each: the array is empty")
        if not found:
            raise MappingError(f"each: finds nothing{_here(whole)}")
        if len(found) > MAX_FOUND:
            raise MappingError(f"each: more than {MAX_FOUND} elements")
        return [_Scope(element, whole, {**captures, "each": name}, f"element {name}: ") for name, element in found]

    def _reading(self, scope: _Scope, wants_raw: bool, faults: list[str]) -> Reading | None:
        """None where there is nothing to tell; what is wrong is added to `faults`."""
        draft = self._draft
        try:
            device = draft.device.render(scope.captures, scope.document, scope.whole)
        except MappingError as error:
            faults.append(f"{scope.label}device: {error}{_here(scope.document)}")
            return None
        if not device.strip():
            faults.append(f"{scope.label}device: the name is empty")
            return None
        own: list[str] = []
        reports: dict[str, ReportRule] | None = {} if self._reports is None else None
        raw: dict[str, str] | None = {} if wants_raw else None
        telemetry = Taken({}, own, reports, raw)
        for key in self._telemetry:
            key.take(scope.document, scope.captures, telemetry)
        attributes = Taken({}, own, reports, raw)
        if self._attributes:
            for key in self._attributes:
                key.take(scope.document, scope.captures, attributes)
        ts_ms = self._time(scope, own) if draft.ts is not None else None
        if own:
            faults += [scope.label + fault for fault in own]
        if telemetry.lacks_required or attributes.lacks_required or not (telemetry.values or attributes.values):
            return None
        return Reading(
            device,
            self._type(scope),
            ts_ms,
            telemetry.values or None,
            attributes.values or None,
            (self._reports if reports is None else reports) or None,
            raw,
        )

    def _type(self, scope: _Scope) -> str:
        template: Template = self._draft.type
        if template.constant is not None:
            return template.constant
        try:
            return template.render(scope.captures, scope.document, scope.whole)
        except MappingError:  # a message may leave it out: the type is unknown then
            return ""

    def _time(self, scope: _Scope, faults: list[str]) -> int | None:
        """None when the source gave none."""
        value = self._draft.ts.first(scope.document, MISSING)
        if value is MISSING and scope.whole is not MISSING:
            value = self._draft.ts.first(scope.whole, MISSING)
        if value is MISSING or value is None:
            return None
        try:
            return self._draft.read_time(value.decode("ascii", "replace") if type(value) is bytes else value)
        except NoValue:
            return None
        except MappingError as error:
            faults.append(f"ts: {error} ({self._draft.ts_at})")
            return None

    def _nothing(self, scopes: list[_Scope]) -> str:
        looked = ", ".join(key.line.at for key in self._keys[:_MAX_NAMES_TOLD])
        more = ", …" if len(self._keys) > _MAX_NAMES_TOLD else ""
        return f"nothing of the mapping is in the payload: looked for {looked}{more}{_here(scopes[0].document)}"


def _here(document: Json) -> str:
    """The end of a sentence: what there is instead."""
    if type(document) is dict:
        names = [name if len(name) <= 40 else name[:40] + "…" for name in list(document)[:_MAX_NAMES_TOLD]]
        more = ", …" if len(document) > _MAX_NAMES_TOLD else ""
        return f"; there are {', '.join(names)}{more}" if names else "; the object is empty"
    if type(document) is bytes:
        return f"; it has {len(document)} bytes"
    columns = getattr(document, "columns", None)
    if columns:
        return f"; the columns are {', '.join(list(columns)[:_MAX_NAMES_TOLD])}"
    cells = getattr(document, "cells", None)
    return f"; the row has {len(cells)} columns" if cells is not None else f"; it is {shown(document)}"
