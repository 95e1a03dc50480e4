"""Where a node is: a NodeId, or a path of BrowseNames with `*` and `{captures}`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_NODE_ID = re.compile(r"(?:ns=\d+;)?(?:i=\d+|s=.+|g=[0-9a-fA-F-]{36}|b=.+)", re.DOTALL)
_PIECE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}|(\*)")
_NAMESPACE = re.compile(r"(\d+):(.+)", re.DOTALL)
ROOTS: Final = ("Root", "Objects", "Types", "Views")


@dataclass(frozen=True, slots=True)
class Segment:
    """One step: `text` as it was written, and the expression a BrowseName must match."""

    text: str
    expression: re.Pattern[str]
    namespace: int | None
    captures: tuple[str, ...]

    def match(self, namespace: int, name: str) -> dict[str, str] | None:
        if self.namespace is not None and namespace != self.namespace:
            return None
        found = self.expression.fullmatch(name)
        return None if found is None else found.groupdict()


@dataclass(frozen=True, slots=True)
class Place:
    """`node_id`, or `segments` from `root` on (Root, Objects, …), or from the device's place when `root` is empty."""

    text: str
    node_id: str = ""
    root: str = ""
    segments: tuple[Segment, ...] = ()

    @property
    def captures(self) -> frozenset[str]:
        return frozenset(name for segment in self.segments for name in segment.captures)

    @property
    def is_open(self) -> bool:
        """Whether it may find several nodes."""
        return any(segment.captures or "*" in segment.text for segment in self.segments)


def parse_place(text: str) -> Place:
    """Raises: ValueError whose text says how to write it."""
    stripped = text.strip()
    if _NODE_ID.fullmatch(stripped):
        return Place(stripped, node_id=stripped)
    names = stripped.strip("/").split("/")
    root = ""
    if names[0].partition(":")[2] in ROOTS or names[0] in ROOTS:
        root = names.pop(0).rpartition(":")[2]
    if not all(names) or not (names or root):
        raise ValueError(
            f"'{text}' is no node; write a NodeId such as ns=2;i=5 or ns=2;s=Boiler.Temp, "
            "or a path of browse names such as Objects/Plant/Boiler*/Temp"
        )
    segments = tuple(_segment(name, text) for name in names)
    captures = [name for segment in segments for name in segment.captures]
    if len(set(captures)) < len(captures):
        raise ValueError(f"a capture stands twice in '{text}'; each needs its own name")
    return Place(stripped, root=root, segments=segments)


def _segment(name: str, whole: str) -> Segment:
    namespace = _NAMESPACE.fullmatch(name)
    text = namespace[2] if namespace else name
    expression, at, captures = "", 0, []
    for piece in _PIECE.finditer(text):
        expression += re.escape(text[at : piece.start()])
        if piece[2]:
            expression += ".*"
        else:
            captures.append(piece[1])
            expression += f"(?P<{piece[1]}>.+?)"
        at = piece.end()
    rest = text[at:]
    if "{" in rest or "{" in _PIECE.sub("", text):
        raise ValueError(
            f"'{name}' in '{whole}' has a placeholder that is none; write {{name}} with letters and digits"
        )
    expression += re.escape(rest)
    if len(captures) != len(set(captures)):
        raise ValueError(f"a capture stands twice in '{whole}'; each needs its own name")
    return Segment(name, re.compile(expression, re.DOTALL), int(namespace[1]) if namespace else None, tuple(captures))
