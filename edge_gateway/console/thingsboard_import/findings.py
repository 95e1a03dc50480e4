"""What the conversion says of itself, and what it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = Any  # decoded JSON of a foreign file


class Fate(StrEnum):
    CONVERTED = "converted"
    APPROXIMATED = "approximated"
    MISSING = "no equivalent"


@dataclass(frozen=True, slots=True)
class Note:
    """`key` leads to the place in the file; `text` says what became of it. Never a value: it may be a secret."""

    fate: Fate
    file: str
    key: str
    text: str


@dataclass(slots=True)
class Notes:
    """Collects for one file; `at` gives a place further in."""

    file: str
    all: list[Note]
    prefix: str = ""

    def at(self, *parts: str | int) -> Notes:
        path = self.prefix
        for part in parts:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
        return Notes(self.file, self.all, path)

    def converted(self, text: str) -> None:
        self._add(Fate.CONVERTED, text)

    def approximated(self, text: str) -> None:
        self._add(Fate.APPROXIMATED, text)

    def missing(self, text: str) -> None:
        self._add(Fate.MISSING, text)

    def _add(self, fate: Fate, text: str) -> None:
        self.all.append(Note(fate, self.file, self.prefix, text))


@dataclass(slots=True)
class Table:
    """One `[[kind]]` table of our configuration. `files` go beside it, such as a list of logins, by name."""

    kind: str
    values: dict[str, Json]
    files: dict[str, str] = field(default_factory=dict, repr=False)


def table_of(value: Json) -> Mapping[str, Json]:
    """An object, or nothing when the file has something else there."""
    return value if isinstance(value, Mapping) else {}


def tables_of(value: Json) -> list[Mapping[str, Json]]:
    """The objects of a list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def without_empty(values: Mapping[str, Json]) -> dict[str, Json]:
    """Members that say something."""
    return {name: value for name, value in values.items() if value not in ("", None, [], {})}
