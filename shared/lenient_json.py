"""JSON the way ThingsBoard's device transports read it: Gson in lenient mode.

The fallback for bodies that strict parsing refused, such as the `{temperature:25}` that ThingsBoard's
own pages tell people to send. Pure, linear in the length of the text, and bounded in depth.

Beyond JSON it reads unquoted and single-quoted names and strings, `=` or `=>` for `:`, `;` for `,`,
`//`, `#` and `/* */` comments, literals in any case, missing array elements (as null), raw control
characters in strings, a leading `)]}'` line and a byte order mark. It refuses a second value after
the first, a trailing comma in an object, and unquoted words with spaces.

Source: wire-contract.md section 7.0 (Gson `JsonReader`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 35

# A number of fewer characters has at most 16 decimal places and fits 64 bits.
_PLAIN_NUMBER_CHARS = 19

_NON_EXECUTE_PREFIX = ")]}'\n"
_SKIP = re.compile(r"(?:[ \t\r\n]++|//[^\r\n]*+|#[^\r\n]*+|/\*(?s:.*?)\*/)*+")
_WORD = re.compile(r"[^/\\;#={}\[\]:, \t\f\r\n]++")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_RUN = {'"': re.compile(r'[^"\\]*+'), "'": re.compile(r"[^'\\]*+")}
_HEX4 = re.compile(r"[0-9a-fA-F]{4}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LITERALS = {"true": True, "false": False, "null": None}
_ESCAPES = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f"} | {c: c for c in "\n'\"\\/"}


class LenientJsonError(ValueError):
    """The text is no JSON even by the lenient rules; the message quotes none of it."""

    def __init__(self, fault: str, position: int) -> None:
        self.position = position  # in characters, from 0
        super().__init__(f"{fault} at character {position + 1}")


@dataclass(frozen=True, slots=True)
class NumberText:
    """A JSON number whose value cannot be told from its `int` or `float`; `text` is as written."""

    text: str


def number_of(text: str) -> int | float | NumberText:
    """A JSON number literal: plain short ones by value, any other as its text."""
    if len(text) >= _PLAIN_NUMBER_CHARS or "e" in text or "E" in text:
        return NumberText(text)
    return float(text) if "." in text else int(text)


def parse(
    text: str, *, max_depth: int = MAX_DEPTH, number: Callable[[str], object] = number_of
) -> Any:  # Any: decoded JSON
    """The value of `text`: dict, list, str, bool, None, or what `number` makes of a number literal.

    An empty text is None. The last of several members with one name wins. Surrogates without a
    partner become U+FFFD.

    Raises: LenientJsonError.
    """
    reader = _Reader(text, number, max_depth)
    reader.skip_prefix()
    if reader.at_end():
        return None
    value = reader.value(0)
    if not reader.at_end():
        raise reader.fault("more text after the value")
    return value


class _Reader:
    """A position in a text; every method reads one construct and leaves the position behind it."""

    def __init__(self, text: str, number: Callable[[str], object], max_depth: int) -> None:
        self._text = text
        self._number = number
        self._max_depth = max_depth
        self._at = 0

    def fault(self, what: str) -> LenientJsonError:
        return LenientJsonError(what, self._at)

    def skip_prefix(self) -> None:
        if self._text.startswith("\ufeff"):
            self._at = 1
        self._peek()
        if self._text.startswith(_NON_EXECUTE_PREFIX, self._at):
            self._at += len(_NON_EXECUTE_PREFIX)

    def at_end(self) -> bool:
        return not self._peek()

    def value(self, depth: int) -> object:
        match self._peek():
            case "{":
                return self._object(self._deeper(depth))
            case "[":
                return self._array(self._deeper(depth))
            case '"' | "'" as quote:
                return self._string(quote)
            case _:
                return self._word_value()

    def _peek(self) -> str:
        """The next character that is neither white space nor comment; empty at the end."""
        skipped = _SKIP.match(self._text, self._at)
        assert skipped is not None  # the pattern matches the empty text
        self._at = skipped.end()
        if self._text.startswith("/*", self._at):
            raise self.fault("unterminated comment")
        return self._text[self._at : self._at + 1]

    def _deeper(self, depth: int) -> int:
        if depth >= self._max_depth:
            raise self.fault(f"nested deeper than {self._max_depth} levels")
        self._at += 1  # the bracket
        return depth + 1

    def _object(self, depth: int) -> dict[str, object]:
        members: dict[str, object] = {}
        if self._peek() == "}":
            self._at += 1
            return members
        while True:
            name = self._name()
            self._separator()
            members[name] = self.value(depth)
            end = self._peek()
            if end not in ("}", ",", ";"):  # the empty string is the end of the text
                raise self.fault("expected ',' or '}'")
            self._at += 1
            if end == "}":
                return members

    def _name(self) -> str:
        start = self._peek()
        return self._string(start) if start in ('"', "'") else self._word("a member name")

    def _separator(self) -> None:
        sign = self._peek()
        if sign not in (":", "="):
            raise self.fault("expected ':'")
        self._at += 2 if self._text.startswith("=>", self._at) else 1

    def _array(self, depth: int) -> list[object]:
        elements: list[object] = []
        if self._peek() == "]":
            self._at += 1
            return elements
        while True:
            missing = self._peek() in (",", ";", "]")
            elements.append(None if missing else self.value(depth))
            end = self._peek()
            if end not in ("]", ",", ";"):
                raise self.fault("expected ',' or ']'")
            self._at += 1
            if end == "]":
                return elements

    def _word(self, expected: str) -> str:
        found = _WORD.match(self._text, self._at)
        if found is None:
            raise self.fault(f"expected {expected}")
        self._at = found.end()
        return found.group()

    def _word_value(self) -> object:
        word = self._word("a value")
        if word.lower() in _LITERALS:
            return _LITERALS[word.lower()]
        return self._number(word) if _NUMBER.fullmatch(word) else word

    def _string(self, quote: str) -> str:
        parts: list[str] = []
        self._at += 1
        while True:
            run = _RUN[quote].match(self._text, self._at)
            assert run is not None  # the pattern matches the empty text
            parts.append(run.group())
            self._at = run.end() + 1
            if self._at > len(self._text):
                self._at -= 1
                raise self.fault("unterminated string")
            if self._text[self._at - 1] == quote:
                return _well_formed("".join(parts))
            parts.append(self._escape())

    def _escape(self) -> str:
        letter = self._text[self._at : self._at + 1]
        if letter == "u":
            digits = _HEX4.match(self._text, self._at + 1)
            if digits is None:
                raise self.fault("invalid \\u escape")
            self._at += 5
            return chr(int(digits.group(), 16))
        if letter not in _ESCAPES:
            raise self.fault("invalid escape")
        self._at += 1
        return _ESCAPES[letter]


def _well_formed(text: str) -> str:
    """`text` with surrogate pairs joined and single surrogates replaced."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
