"""Topics and paths with captures: `site/{line}/{unit}/data`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_gateway.mapping.interface import CompiledPattern
from edge_gateway.mapping.problems import MappingProblems

_PIECE = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def compile_pattern(text: str) -> CompiledPattern:
    """`{name}`, `+` and `*` stand for one segment, which may have text around a capture (`unit-{n}`); `#` at the end
    for the rest, `{name#}` captures the rest. A leading `/` counts: topics and paths are matched as they are.

    A capture before other text in its segment ends where that text first begins: `{line}-{unit}` takes `a-b-c` as
    line `a` and unit `b-c`. Raises: MappingProblems.
    """
    if not text:
        raise MappingProblems.of('the pattern is empty; write one such as "site/{line}/data"')
    segments = text.split("/")
    captures: list[str] = []
    expression, levels = "", []
    for place, segment in enumerate(segments):
        is_last = place == len(segments) - 1
        slash = "/" if place else ""
        if segment == "#" or (segment.startswith("{") and segment.endswith("#}")):
            if not is_last:
                raise MappingProblems.of(f"'{segment}' in '{text}' stands for the rest and must be the last segment")
            expression += _rest(segment, slash, captures)
            levels.append("#")
        else:
            part, is_open = _segment(segment, text, captures)
            expression += slash + part
            levels.append("+" if is_open else segment)
    doubles = {name for name in captures if captures.count(name) > 1}
    if doubles:
        raise MappingProblems.of(f"'{{{doubles.pop()}}}' stands twice in '{text}'; each capture needs its own name")
    return _Pattern(re.compile(expression, re.DOTALL), "/".join(levels), frozenset(captures))


def _rest(segment: str, slash: str, captures: list[str]) -> str:
    if segment == "#":
        return "(?:/.*)?" if slash else ".*"
    captures.append(_checked(segment[1:-2]))
    return f"{slash}(?P<{captures[-1]}>.+)"


def _segment(segment: str, text: str, captures: list[str]) -> tuple[str, bool]:
    """The expression of one segment, and whether it has a capture or wildcard."""
    if segment in ("+", "*"):
        return "[^/]*", True
    if any(sign in _PIECE.sub("", segment) for sign in "+#*{}"):
        raise MappingProblems.of(
            f"'{segment}' in '{text}' is no segment; write text, {{name}}, '+' or '*' for one segment, '#' for the rest"
        )
    pieces = _PIECE.split(segment)  # text, name, text, name, text
    expression = re.escape(pieces[0])
    for place in range(1, len(pieces), 2):
        name, behind = pieces[place : place + 2]
        captures.append(_checked(name))
        is_last = place == len(pieces) - 2
        if not behind and not is_last:
            raise MappingProblems.of(f"two captures touch in '{segment}'; put text between them, such as '-'")
        stop = "" if is_last else re.escape(behind[0])
        expression += f"(?P<{name}>[^/{stop}]+){re.escape(behind)}"
    return expression, len(pieces) > 1


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise MappingProblems.of(f"'{{{name}}}' is no capture; a name has letters, digits and '_', such as {{line}}")
    return name


@dataclass(frozen=True, slots=True)
class _Pattern:
    expression: re.Pattern[str]
    filter: str
    captures: frozenset[str]

    def match(self, text: str) -> dict[str, str] | None:
        found = self.expression.fullmatch(text)
        return None if found is None else found.groupdict()
