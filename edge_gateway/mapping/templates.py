"""Text with `{name}` and `{$.path}` in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edge_gateway.mapping.interface import CompiledTemplate, MappingError
from edge_gateway.mapping.paths import MISSING, Path, compile_path
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.mapping.values import shown
from edge_gateway.model import Json

_NAME = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}")
_PICK = re.compile(r"\s*(?:\$|(?:csv|bytes|bits|regex):)")
_LOOKS_MEANT = re.compile(r"\s*[A-Za-z_$]")


@dataclass(frozen=True, slots=True)
class Name:
    """`{name}`."""

    name: str


@dataclass(frozen=True, slots=True)
class Pick:
    """`{$.path}`, or another `at` of a mapping."""

    at: str


Part = str | Name | Pick


def split(text: str) -> list[Part]:
    """The parts of a template. Raises: MappingProblems for a placeholder that does not end."""
    parts: list[Part] = []
    at = 0
    while (brace := text.find("{", at)) >= 0:
        if name := _NAME.match(text, brace + 1):
            part: Part = Name(name[1])
            end = name.end()
        elif _PICK.match(text, brace + 1):
            end = _end_of_pick(text, brace + 1)
            part = Pick(text[brace + 1 : end - 1].strip())
        elif _LOOKS_MEANT.match(text, brace + 1):
            raise MappingProblems.of(
                f"'{text[brace : brace + 20]}' in '{text}' is no placeholder; write {{name}} with letters, digits and "
                "'_', or {$.path}"
            )
        else:
            part, end = "{", brace + 1
        parts += [text[at:brace], part]
        at = end
    parts.append(text[at:])
    return [part for part in parts if part != ""]


def _end_of_pick(text: str, at: int) -> int:
    """Behind the brace that closes a pick; braces in it are counted, those in quotes of a path are not."""
    is_path = text[at:].lstrip().startswith("$")
    depth, quote = 1, ""
    while at < len(text):
        sign = text[at]
        if sign == "\\":
            at += 1
        elif quote:
            quote = "" if sign == quote else quote
        elif is_path and sign in "'\"":
            quote = sign
        elif sign in "{}":
            depth += 1 if sign == "{" else -1
            if not depth:
                return at + 1
        at += 1
    raise MappingProblems.of(f"a placeholder in '{text}' does not end; close it by '}}'")


def as_text(value: Json) -> str:
    """`value` as a name or topic has it: a text as it is, bytes as hex, anything else as JSON."""
    if type(value) is str:
        return value
    if type(value) is bytes:
        return value.hex()
    return _as_json(value)


def _as_json(value: Json) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (OverflowError, RecursionError, TypeError, ValueError):
        if type(value) is int:
            return str(value)
        raise MappingError(f"{shown(value)} cannot be written as JSON") from None


def _in_quotes(value: Json) -> str:
    return _as_json(as_text(value))[1:-1]


Writer = Callable[[Json], str]


class Template:
    """A compiled template; `picks` finds values for `{$.path}`."""

    def __init__(self, parts: list[tuple[str | Name | Path, str, Writer]], *, forbidden: str, is_plain: bool) -> None:
        self._parts = parts  # with the placeholder as it was written
        self._forbidden = frozenset(forbidden)
        self._is_plain = is_plain  # objects and arrays are no values
        self.names = frozenset(part.name for part, _, _ in parts if isinstance(part, Name))
        self.constant = "".join(str(part) for part, _, _ in parts) if not self._has_places() else None

    def _has_places(self) -> bool:
        return any(not isinstance(part, str) for part, _, _ in self._parts)

    def render(self, values: Mapping[str, Any], document: Json = None, whole: Json = MISSING) -> str:
        """What `document` has not is looked for in `whole`. Raises: MappingError naming what is missing."""
        if self.constant is not None:
            return self.constant
        return "".join(
            part if type(part) is str else self._filled(part, written, write, values, document, whole)
            for part, written, write in self._parts
        )

    def _filled(
        self, part: Any, written: str, write: Writer, values: Mapping[str, Any], document: Json, whole: Json
    ) -> str:
        if type(part) is Name:
            value = values.get(part.name, MISSING)
        else:
            value = part.first(document, MISSING)
            if value is MISSING and whole is not MISSING:
                value = part.first(whole, MISSING)
        if value is MISSING or (value is None and write is as_text):
            raise MappingError(f"{written} finds nothing")
        if self._is_plain and isinstance(value, dict | list):
            raise MappingError(f"{written} is {shown(value)}; a text or number is needed")
        text = write(value)
        if self._forbidden and not self._forbidden.isdisjoint(text):
            sign = next(sign for sign in text if sign in self._forbidden)
            raise MappingError(f"{written} has a '{sign}' in it, which cannot stand there")
        return text


def build(
    text: str, picks: Callable[[str], Path], *, forbidden: str = "", is_plain: bool = True, is_json: bool = False
) -> Template:
    """`picks` compiles what stands in `{$.path}`. Raises: MappingProblems."""
    parts: list[tuple[str | Name | Path, str, Writer]] = []
    is_quoted = False
    for part in split(text):
        if isinstance(part, str):
            is_quoted ^= is_json and _unescaped_quotes(part) % 2 == 1
            parts.append((part, "", str))
            continue
        write: Writer = as_text if not is_json else _in_quotes if is_quoted else _as_json
        if isinstance(part, Name):
            parts.append((part, f"{{{part.name}}}", write))
        else:
            parts.append((picks(part.at), f"{{{part.at}}}", write))
    return Template(parts, forbidden=forbidden, is_plain=is_plain)


def _unescaped_quotes(text: str) -> int:
    return re.sub(r"\\.", "", text).count('"')


def compile_template(text: str, *, forbidden: str = "") -> CompiledTemplate:
    """A name, topic or path. `{name}` and `{$.path}` are put in; a `{` before anything else stands for itself.

    Numbers and booleans are written as in JSON; objects and arrays are refused at `render`, as is a value with a
    character of `forbidden` in it (such as "/+#" for topics). Raises: MappingProblems.
    """
    return build(text, compile_path, forbidden=forbidden)


def compile_body(text: str) -> CompiledTemplate:
    """A body. `$.params` alone is that value: a text as it is, anything else as JSON. A text that begins with `{` or
    `[` is JSON, and every value is put in as JSON (inside quotes: escaped). Any other text is a template. Empty: the
    whole document as JSON.

    Raises: MappingProblems.
    """
    stripped = text.strip()
    if stripped == "" or stripped.startswith("$"):
        return build(f"{{{stripped or '$'}}}", compile_path, is_plain=False)
    is_placeholder = _NAME.match(stripped, 1) or _PICK.match(stripped, 1)
    is_json = stripped[0] in "{[" and not (stripped[0] == "{" and is_placeholder)
    return build(text, compile_path, is_plain=False, is_json=is_json)


RESERVED: Final = frozenset({"key", "each"})
"""Names that the mapping itself supplies."""
