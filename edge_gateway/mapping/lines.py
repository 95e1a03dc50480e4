"""One key of a mapping: `"$.path -> key: type"` or a table."""

from __future__ import annotations

from edge_gateway.mapping import values, words
from edge_gateway.mapping.interface import Line
from edge_gateway.mapping.problems import MappingProblems, did_you_mean

ARROW = "->"
ALL_TYPES = (*values.TYPES, *(name for name in words.TYPES if name not in values.TYPES))


def parse_line(line: str | Line) -> Line:
    """The table for the text form; a table is returned as it is. Raises: MappingProblems."""
    if isinstance(line, Line):
        return line
    at, arrow, target = (part.strip() for part in line.rpartition(ARROW))
    if not arrow:
        name = line.rpartition(".")[2].strip("'\"[] ") or "temperature"
        raise MappingProblems.of(f'\'{line}\' names no key; write "path -> key", such as "{line.strip()} -> {name}"')
    if not at:
        raise MappingProblems.of(f"'{line}' has no path before '->'; write \"path -> key\"")
    braces = target.rfind("}")
    colon = target.find(":", braces + 1)
    key, type = (target, "") if colon < 0 else (target[:colon].strip(), target[colon + 1 :].strip())
    if not key:
        raise MappingProblems.of(f"'{line}' has no key behind '->'; write \"path -> key\"")
    if colon >= 0 and type not in ALL_TYPES:
        raise MappingProblems.of(
            f"'{type}' in '{line}' is no type{did_you_mean(type, ALL_TYPES)} "
            "(a key with a ':' in it needs the form { at = …, key = … })"
        )
    return Line(at=at, key=key, as_=type)
