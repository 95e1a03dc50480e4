"""Where a node is: a path of BrowseNames with captures, or a node id.

`Plant/{boiler}/Temp`, `2:Plant/Temp` (BrowseName of namespace 2), `.` (the starting point itself), `ns=2;i=5`,
`nsu=urn:plant;s=Temp`. `&` before a sign takes it literally, as in OPC UA's own paths: `Ratio A&/B`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge_gateway.mapping.interface import CompiledPattern
from edge_gateway.mapping.patterns import compile_pattern
from edge_gateway.mapping.problems import MappingProblems

_LOOKS_LIKE_ID = re.compile(r"(?:ns|nsu|i|s|g|b|svr|srv)=")
_NODE_ID = re.compile(
    r"(?:ns=[0-9]{1,5};|nsu=[^;]+;)?"
    r"(?:i=[0-9]{1,10}|s=.+|g=[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|b=[A-Za-z0-9+/]+=*)",
    re.DOTALL,
)
_NAMESPACE = re.compile(r"([0-9]{1,5}):(?=.)")
_SEPARATOR = re.compile(r"((?:&.|[^/&])*)(/|$)", re.DOTALL)
_ESCAPED = re.compile(r"&(.)", re.DOTALL)
_SLASH: Final = "\0"  # stands for a slash inside a BrowseName while it is matched; no name has it
MAX_STEPS: Final = 32


@dataclass(frozen=True, slots=True)
class Step:
    """One level of a path: a BrowseName, or a pattern for it. `namespace` None fits every namespace."""

    text: str
    namespace: int | None
    name: str | None
    pattern: CompiledPattern | None

    def match(self, name: str, namespace: int) -> Mapping[str, str] | None:
        """The captures, None when the BrowseName does not fit."""
        if self.namespace is not None and namespace != self.namespace:
            return None
        if self.pattern is None:
            return {} if name == self.name else None
        found = self.pattern.match(name.replace("/", _SLASH))
        return None if found is None else {key: value.replace(_SLASH, "/") for key, value in found.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """`node_id` as it was written, or the `steps` that lead from the starting point to the node."""

    text: str
    node_id: str = ""
    steps: tuple[Step, ...] = ()

    @property
    def captures(self) -> frozenset[str]:
        return frozenset(name for step in self.steps if step.pattern is not None for name in step.pattern.captures)

    @property
    def is_single(self) -> bool:
        """Whether it leads to one node at most."""
        return all(step.pattern is None for step in self.steps)


def parse_place(text: str) -> Place:
    """Raises: MappingProblems."""
    text = text.strip()
    if not text:
        raise MappingProblems.of('the node is missing; write a path of BrowseNames such as "Temp", or "ns=2;i=5"')
    if _LOOKS_LIKE_ID.match(text):
        if not _NODE_ID.fullmatch(text):
            raise MappingProblems.of(
                f"'{text}' is no node id; write ns=2;i=5 (number), ns=2;s=Name (text), ns=2;g=… (GUID) or ns=2;b=… "
                "(base64), or nsu=<namespace URI>; in place of ns="
            )
        return Place(text, node_id=text)
    if text == ".":
        return Place(text)
    steps = tuple(_step(segment, text) for segment in _segments(text))
    if len(steps) > MAX_STEPS:
        raise MappingProblems.of(f"'{text}' has more than {MAX_STEPS} levels; begin at a node id in place of a path")
    names = [name for step in steps if step.pattern is not None for name in step.pattern.captures]
    for name in names:
        if names.count(name) > 1:
            raise MappingProblems.of(f"'{{{name}}}' stands twice in '{text}'; each capture needs its own name")
    return Place(text, steps=steps)


def _segments(text: str) -> list[str]:
    segments, at = [], 1 if text.startswith("/") else 0
    while at <= len(text):
        found = _SEPARATOR.match(text, at)
        if found is None:
            raise MappingProblems.of(f"'{text}' ends with '&', which takes the next sign literally; write && for &")
        segments.append(found[1])
        at = found.end() if found[2] else len(text) + 1
    return segments


def _step(segment: str, text: str) -> Step:
    space = _NAMESPACE.match(segment)
    namespace = int(space[1]) if space else None
    rest = segment[space.end() :] if space else segment
    if not rest:
        raise MappingProblems.of(f"'{text}' has an empty level; write the BrowseNames with one '/' between them")
    if rest == "#" or rest.endswith("#}"):
        raise MappingProblems.of(f"'{rest}' in '{text}': write out each level, such as {{area}}/{{boiler}}")
    if "{" in rest or rest in ("*", "+"):
        return Step(segment, namespace, None, compile_pattern(rest))
    return Step(segment, namespace, _ESCAPED.sub(r"\1", rest), None)
