"""JSONPath (RFC 9535) for payloads; simple ones are compiled to plain look-ups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

from jsonpath_rfc9535 import JSONPathEnvironment, JSONPathError, JSONPathQuery
from jsonpath_rfc9535.segments import JSONPathChildSegment
from jsonpath_rfc9535.selectors import IndexSelector, NameSelector, WildcardSelector

from edge_gateway.mapping.interface import MappingError
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.model import Json

MAX_FOUND: Final = 10_000

MISSING: Final[Any] = object()
"""What a look-up that finds nothing gives where null is a value."""

_environment = JSONPathEnvironment()


class Path(Protocol):
    """A compiled path, or another way to pick values from a message."""

    def first(self, document: Json, missing: Json = None) -> Json:
        """The first value found, else `missing`. Raises: MappingError when the document cannot be searched."""

    def all(self, document: Json) -> list[tuple[str, Json]]:
        """Everything found, each with its last segment: the member's name or the index. Raises: MappingError."""

    @property
    def is_single(self) -> bool:
        """Whether it can find one value at most."""

    @property
    def is_wildcard(self) -> bool:
        """Whether it ends by `*`, so that the key must tell the values apart."""


def compile_path(text: str) -> Path:
    """Raises: MappingProblems, with what is wrong and where."""
    if not text.startswith("$"):
        plain = text if text.replace("_", "a").isalnum() else "name"
        raise MappingProblems.of(f"'{text}' is no path; a path begins with $, such as $.{plain}")
    try:
        query = _environment.compile(text)
    except JSONPathError as error:
        column = error.token.position()[1] if error.token else 1
        reason = str(error.args[0]) if error.args else "it cannot be read"
        raise MappingProblems.of(
            f"'{text}' is no path: {reason} at character {column}; "
            "a name with signs or blanks in it is written $['my name'], all members are $.*"
        ) from None
    except RecursionError:
        raise MappingProblems.of(f"'{text[:40]}…' is no path: it is nested too deeply") from None
    return _simple(query) or _General(query)


def _simple(query: JSONPathQuery) -> Path | None:
    """A look-up for `$.a.b[0]`, `$.a.*` and the like; None for what needs the whole language."""
    steps: list[str | int] = []
    for place, segment in enumerate(query.segments):
        if not isinstance(segment, JSONPathChildSegment) or len(segment.selectors) != 1:
            return None
        selector = segment.selectors[0]
        if isinstance(selector, NameSelector):
            steps.append(selector.name)
        elif isinstance(selector, IndexSelector) and selector.index >= 0:
            steps.append(selector.index)
        elif isinstance(selector, WildcardSelector) and place == len(query.segments) - 1:
            return _Members(_getter(steps))
        else:
            return None
    return _Single(_getter(steps), str(steps[-1]) if steps else "")


Getter = Callable[..., Json]  # (document, missing=None)


def _getter(steps: list[str | int]) -> Getter:
    if len(steps) == 1 and isinstance(steps[0], str):
        return _member(steps[0])

    def get(document: Json, missing: Json = None) -> Json:
        for step in steps:
            if type(document) is dict:
                document = document.get(step, MISSING)
                if document is MISSING:
                    return missing
            elif type(document) is list and type(step) is int and step < len(document):
                document = document[step]
            else:
                return missing
        return document

    return get


def _member(name: str) -> Getter:
    def get(document: Json, missing: Json = None) -> Json:
        return document.get(name, missing) if type(document) is dict else missing

    return get


class _Single:
    is_single = True
    is_wildcard = False

    def __init__(self, getter: Getter, segment: str) -> None:
        self.first = getter
        self._segment = segment

    def all(self, document: Json) -> list[tuple[str, Json]]:
        value = self.first(document, MISSING)
        return [] if value is MISSING else [(self._segment, value)]


class _Members:
    is_single = False
    is_wildcard = True

    def __init__(self, getter: Getter) -> None:
        self._parent = getter

    def first(self, document: Json, missing: Json = None) -> Json:
        found = self.all(document)
        return found[0][1] if found else missing

    def all(self, document: Json) -> list[tuple[str, Json]]:
        parent = self._parent(document)
        if not isinstance(parent, dict | list):
            return []
        if len(parent) > MAX_FOUND:
            raise MappingError(f"more than {MAX_FOUND} values")
        if type(parent) is dict:
            return list(parent.items())
        return [(str(place), value) for place, value in enumerate(parent)]


@dataclass(frozen=True, slots=True)
class _General:
    query: JSONPathQuery

    @property
    def is_single(self) -> bool:
        return self.query.singular_query()

    @property
    def is_wildcard(self) -> bool:
        return any(isinstance(one, WildcardSelector) for one in self.query.segments[-1].selectors)

    def first(self, document: Json, missing: Json = None) -> Json:
        found = self._find(document, 1)
        return found[0][1] if found else missing

    def all(self, document: Json) -> list[tuple[str, Json]]:
        found = self._find(document, MAX_FOUND + 1)
        if len(found) > MAX_FOUND:
            raise MappingError(f"more than {MAX_FOUND} values")
        return found

    def _find(self, document: Json, limit: int) -> list[tuple[str, Json]]:
        try:
            nodes = list(islice(self.query.finditer(document), limit))
        except (JSONPathError, RecursionError):
            raise MappingError(f"the message is nested too deeply for {self.query}") from None
        return [(str(node.location[-1]) if node.location else "", node.value) for node in nodes]
