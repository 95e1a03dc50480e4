"""ThingsBoard's expressions (`${temp}`, `[0:4]`, `ON_CHANGE`) in our words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from edge_gateway.console.thingsboard_import.findings import Notes, table_of, tables_of

_PLACE = re.compile(r"\$\{([^{}]*)\}")
_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[.\[].*)?")
_SLICE = re.compile(r"\[(\d*)(:?)(\d*)\]")
_TYPES = {
    "string": "string", "double": "float", "float": "float", "integer": "int", "int": "int", "long": "int",
    "boolean": "bool", "bool": "bool", "json": "json",
}  # fmt: skip
_REPORTS = {"ON_RECEIVED": "received", "ON_CHANGE": "change"}


def path_of(name: str) -> str:
    """`temp` and `a.b[0]` as JSONPath."""
    name = name.strip()
    if name.startswith("$"):
        return name
    return f"$.{name}" if _SIMPLE.fullmatch(name) else f"$['{name}']"


def template(text: str, known: Mapping[str, str] | None = None) -> str:
    """`${a}-${b}` is `{$.a}-{$.b}`; names in `known`, such as deviceName, become what stands there."""
    known = known or {}
    return _PLACE.sub(lambda found: known.get(found[1].strip(), f"{{{path_of(found[1])}}}"), text)


def has_place(text: str) -> bool:
    return bool(_PLACE.search(text))


def duration(seconds: float) -> str:
    """`800 ms`, `5 s`."""
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


def milliseconds(value: Any) -> str:
    return duration(float(value) / 1000)


def json_line(entry: Mapping[str, Any], notes: Notes) -> str | dict[str, Any] | None:
    """A key of a `json` converter; None, with a note, for what has no equivalent."""
    key, value = str(entry.get("key", "")), str(entry.get("value", ""))
    if not key or not value:
        notes.missing("a key without name or value was left out")
        return None
    whole = _PLACE.fullmatch(value.strip())
    if whole is not None:
        at = path_of(whole[1])
    elif value.lstrip().startswith("${"):
        at = template(value)
    else:
        what = "text that does not begin with ${…}" if has_place(value) else "a constant"
        notes.missing(f"{what} cannot be a value: set it as an attribute of the device at the core")
        return None
    return _line(at, template(key), _type(entry, notes), report_of(entry, notes))


def _type(entry: Mapping[str, Any], notes: Notes) -> str:
    name = str(entry.get("type", "")).lower()
    if name in ("", "raw"):
        return ""
    if name not in _TYPES:
        notes.approximated("its type is not known here: the value is taken as it comes")
        return ""
    return _TYPES[name]


def bytes_line(entry: Mapping[str, Any], notes: Notes) -> str | dict[str, Any] | None:
    """A key of a `bytes` converter, which reads slices as text."""
    key = str(entry.get("key", ""))
    at = bytes_at(str(entry.get("value", "")))
    if not key or at is None:
        notes.missing("only one slice, such as [0:4], can be read")
        return None
    return _line(at, key, "hex" if entry.get("hexMode") else "string", report_of(entry, notes))


def bytes_at(text: str) -> str | None:
    """`[0:4]` is `bytes:0-3`, `[4:]` is `bytes:4-`; None for another expression."""
    found = _SLICE.fullmatch(text.strip())
    if found is None or (not found[2] and not found[1]):
        return None
    if not found[2]:
        return f"bytes:{found[1]}"
    first = int(found[1] or 0)
    if not found[3]:
        return f"bytes:{first}-"
    return f"bytes:{first}-{int(found[3]) - 1}" if int(found[3]) > first else None


def _line(at: str, key: str, type: str, report: str) -> str | dict[str, Any]:
    if report or "->" in at or ":" in key:
        values = {"at": at, "key": key, "as": type, "report": report}
        return {name: value for name, value in values.items() if value}
    return f"{at} -> {key}: {type}" if type else f"{at} -> {key}"


def lines(
    entries: Any, notes: Notes, one: Callable[[Mapping[str, Any], Notes], str | dict[str, Any] | None]
) -> list[str | dict[str, Any]]:
    """All keys of a list that have an equivalent."""
    made = [one(entry, notes.at(place)) for place, entry in enumerate(tables_of(entries))]
    return [line for line in made if line is not None]


def report_of(entry: Mapping[str, Any], notes: Notes) -> str:
    """`reportStrategy`, or the older `sendDataOnlyOnChange`."""
    strategy = entry.get("reportStrategy")
    if strategy is None:
        return "change" if entry.get("sendDataOnlyOnChange") is True else ""
    wanted = table_of(strategy)
    name = str(wanted.get("type", "")).upper()
    period = wanted.get("reportPeriod")
    if name == "ON_REPORT_PERIOD" and isinstance(period, int | float):
        return milliseconds(period)
    if name == "ON_CHANGE_OR_REPORT_PERIOD" and isinstance(period, int | float):
        return f"change | {milliseconds(period)}"
    if name in _REPORTS:
        return "" if name == "ON_RECEIVED" else _REPORTS[name]
    notes.at("reportStrategy").missing("this strategy is not known here: every value is sent")
    return ""


def device_and_type(info: Mapping[str, Any], converter: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Expressions and sources of name and profile, from the newer `deviceInfo` or the older flat members."""
    if info:
        name, kind = str(info.get("deviceNameExpression", "")), str(info.get("deviceProfileExpression", ""))
        return (
            name, _source(info.get("deviceNameExpressionSource"), name),
            kind, _source(info.get("deviceProfileExpressionSource"), kind),
        )  # fmt: skip
    found: list[str] = []
    for part in ("Name", "Type"):
        topic, json = converter.get(f"device{part}TopicExpression"), converter.get(f"device{part}JsonExpression")
        text = str(topic or json or converter.get(f"device{part}") or "")
        found += [text, "topic" if topic else _source(None, text)]
    return found[0], found[1], found[2], found[3]


def _source(said: Any, expression: str) -> str:
    """constant | message | topic."""
    if said in ("constant", "topic"):
        return str(said)
    return "message" if has_place(expression) or said in ("message", "request") else "constant"


def plain_name(pattern: str) -> str | None:
    """The one name that a regular expression means; None when it can mean several."""
    text = pattern.removeprefix("^").removesuffix("$")
    return text if text and re.escape(text).replace(r"\-", "-").replace(r"\ ", " ") == text else None


def is_everything(pattern: str) -> bool:
    return pattern.strip() in ("", ".*", "^.*$", ".+")


def fits(pattern: str, name: str) -> bool:
    """As ThingsBoard's gateway searches; a broken pattern fits nothing."""
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False
