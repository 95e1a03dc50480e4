"""Where things stand in a TOML text: path → line and column.

The text must be valid TOML (`tomllib` has read it already): this only walks along it and writes down where each key
and each element of an array begins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

Path = tuple[str | int, ...]
"""Such as ("mqtt", 0, "map", 1, "telemetry", 2): the third entry of the second [[mqtt.map]] of the first [[mqtt]]."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Counted from 1; 0 when it stands nowhere in the file."""

    line: int = 0
    column: int = 0


NOWHERE: Final = Position()

_MAX_KEYS: Final = 100  # with dots between them; more are too deep for any setting
_BLANK = re.compile(r"[ \t]*")
_BLANK_AND_COMMENTS = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")
_LONG_BASIC = re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''(?:[^']|'(?!''))*'{3,5}", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]*")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_ESCAPES: Final = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


class Positions:
    """The places of a text."""

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._line_starts = [0, *(found.end() for found in re.finditer("\n", self._text))]
        self._offsets: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}  # of arrays of tables
        self._at = 0
        self._document()

    def of(self, path: Path) -> Position:
        """Where `path` begins, or else the nearest thing around it; NOWHERE if not even its table is there."""
        while path:
            if path in self._offsets:
                return self._position(self._offsets[path])
            path = path[:-1]
        return NOWHERE

    def lines(self) -> dict[Path, int]:
        """The line of each key and element."""
        return {path: self._position(offset).line for path, offset in self._offsets.items()}

    def _position(self, offset: int) -> Position:
        low, high = 0, len(self._line_starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._line_starts[middle] <= offset else (low, middle)
        return Position(low + 1, offset - self._line_starts[low] + 1)

    # --- walking -------------------------------------------------------------------------------

    def _document(self) -> None:
        table: Path = ()
        while True:
            self._skip(_BLANK_AND_COMMENTS)
            if self._at >= len(self._text):
                return
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:  # only if the text is no TOML after all
            raise ValueError(f"unexpected text in line {self._position(self._at).line}")
        self._at = found.end()
        return found.group()

    def _header(self) -> Path:
        start = self._at
        is_array = self._text.startswith("[[", start)
        self._at += 2 if is_array else 1
        keys = self._keys()[:_MAX_KEYS]
        self._at += 2 if is_array else 1  # the brackets at the end
        path: Path = ()
        for key in keys[:-1]:
            path = self._into_last((*path, key))
            self._offsets.setdefault(path, start)
        path = (*path, keys[-1])
        if not is_array:
            self._offsets.setdefault(path, start)
            return path
        self._offsets.setdefault(path, start)
        number = self._lengths.get(path, 0)
        self._lengths[path] = number + 1
        self._offsets[(*path, number)] = start
        return (*path, number)

    def _into_last(self, path: Path) -> Path:
        """An array of tables means its last table."""
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            keys.append(self._key())
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _key(self) -> str:
        sign = self._text[self._at : self._at + 1]
        if sign == "'":
            return self._skip(_LITERAL)[1:-1]
        if sign == '"':
            return _ESCAPE.sub(_unescaped, self._skip(_BASIC)[1:-1])
        return self._skip(_BARE_KEY)

    def _pair(self, table: Path) -> None:
        self._skip(_BLANK)
        start = self._at
        path = table
        for key in self._keys()[:_MAX_KEYS]:
            path = (*path, key)
            self._offsets.setdefault(path, start)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        text, at = self._text, self._at
        if text.startswith('"""', at):
            self._skip(_LONG_BASIC)
        elif text.startswith("'''", at):
            self._skip(_LONG_LITERAL)
        elif text.startswith('"', at):
            self._skip(_BASIC)
        elif text.startswith("'", at):
            self._skip(_LITERAL)
        elif text.startswith("[", at):
            self._array(path)
        elif text.startswith("{", at):
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self._at += 1
        number = 0
        while True:
            self._skip(_BLANK_AND_COMMENTS)
            sign = self._text[self._at : self._at + 1]
            if sign == ",":
                self._at += 1
            elif sign in ("]", ""):
                self._at += 1
                return
            else:
                self._offsets[(*path, number)] = self._at
                self._value((*path, number))
                number += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip(_BLANK_AND_COMMENTS)
            sign = self._text[self._at : self._at + 1]
            if sign == ",":
                self._at += 1
            elif sign in ("}", ""):
                self._at += 1
                return
            else:
                self._pair(path)


def _unescaped(found: re.Match[str]) -> str:
    if code := found[1] or found[2]:
        return chr(int(code, 16))
    return _ESCAPES.get(found[3], found[3])
