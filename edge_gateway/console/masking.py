"""The text of a configuration without its secrets, and back again after somebody has edited it.

References such as `${CORE_TOKEN}` are no secrets and stay. What cannot be masked for certain is not shown."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final

from edge_gateway.config.references import MASK, is_secret, is_secret_name, url_secrets, without_password
from edge_gateway.config.typed import Where

_PAIR = re.compile(
    r"""(?P<key>[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')(?P<equals>\s*=\s*)"""
    r"""(?P<value>\"{3}(?:[^"\\]|\\.|"(?!""))*"{3}|'''(?:[^']|'(?!''))*'''|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s,#\]}"']+)""",
    re.DOTALL,
)
_COMMENTED = re.compile(r"^(?P<start>[ \t]*#.*?\b(?P<key>[A-Za-z0-9_-]+)[ \t]*=[ \t]*)(?P<value>\S.*)$", re.MULTILINE)
_REFERENCE = re.compile(r"^(?:file:.*|\$\{[A-Za-z_][A-Za-z0-9_]*\})$", re.DOTALL)
_HIDDEN_NAME = re.compile(rf"({MASK}\d+{MASK})(\d+)")
_MIN_SOUGHT_CHARS: Final = 4  # a shorter one is part of ordinary words


class CannotMask(Exception):
    """The text cannot be shown without showing its secrets; `str()` says why."""


def masked(text: str) -> str:
    """`text` with `••••` for each secret written into it. Raises: CannotMask."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CannotMask(f"the file on the gateway is not valid TOML ({error}); mend it there") from None
    secrets = _literal_secrets(document)
    result = _PAIR.sub(lambda found: _masked_pair(found, {(path[-1], str(value)) for path, value in secrets}), text)
    for _, value in secrets:  # elements of arrays
        result = result.replace(f'"{value}"', f'"{MASK}"') if isinstance(value, str) else result
    names = [name for _, table in _user_tables(document) for name in table]
    for _, table in _user_tables(document):
        result = _without_names(result, list(table))
    result = _COMMENTED.sub(_masked_comment, result)
    result = without_password(result)
    for value in [*(value for _, value in secrets), *names]:
        if len(str(value)) >= _MIN_SOUGHT_CHARS and str(value) in result:
            raise CannotMask(
                "a secret stands in the file in a place where it cannot be hidden; look at the file itself"
            )
    if any(str(value) != MASK for _, value in _literal_secrets(tomllib.loads(result))):
        raise CannotMask("the file's secrets are written in a way that cannot be hidden; look at the file itself")
    return result


def restored(text: str, original: str) -> str:
    """`text`, edited by people, with the secrets of `original` where it has `••••`.

    A table is found again by its name, so tables may be moved. Where `original` has no secret `••••` stays. Text that
    is no valid TOML comes back as it is: it cannot be applied anyway.
    """
    numbered, count = _numbered(text)
    if not count:
        return text
    try:
        places = {_place(path, edited): (path, value) for path, value, edited in _strings(tomllib.loads(numbered))}
        known = {_place(path, document): value for path, value, document in _strings(tomllib.loads(original))}
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    secrets: dict[str, str] = {}
    for place, (_, value) in places.items():
        for mark in re.findall(rf"{MASK}\d+{MASK}", value):
            before = known.get(place, "")
            if value == mark and before:
                secrets[mark] = _escaped(before)
        marks = re.findall(rf"{MASK}\d+{MASK}", value)
        before = known.get(place, "")
        hidden = [before[start:end] for start, end in url_secrets(before)]
        if value not in marks and len(hidden) == len(marks):
            secrets |= {mark: _escaped(one) for mark, one in zip(marks, hidden, strict=True)}
    numbered = _with_names(numbered, original)
    return re.sub(rf"{MASK}\d+{MASK}", lambda found: secrets.get(found[0], MASK), numbered)


def _literal_secrets(value: Any, path: Where = ()) -> list[tuple[Where, Any]]:  # Any: decoded TOML
    """Each secret that stands in the document itself, with the path whose last part is its key."""
    if isinstance(value, dict):
        return [found for key, member in value.items() for found in _literal_secrets(member, (*path, key))]
    if isinstance(value, list):
        return [found for index, one in enumerate(value) for found in _literal_secrets(one, (*path, index))]
    if not is_secret(path) or value == "" or isinstance(value, bool):
        return []
    return [] if isinstance(value, str) and _REFERENCE.match(value) else [(path, value)]


def _user_tables(value: Any, path: Where = ()) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Tables whose names are secrets."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        if isinstance(member, dict) and is_secret_name((*path, key, "")):
            yield (*path, key), member
        elif isinstance(member, dict | list):
            yield from _user_tables(member, (*path, key))


def _without_names(text: str, names: list[str]) -> str:
    """`text` with each name hidden, and told apart by its number in the table."""
    for number, name in enumerate(names, 1):
        forms = rf"""(?:"{re.escape(name)}"|'{re.escape(name)}'|(?<![\w-]){re.escape(name)})(?=\s*=)"""
        text = re.sub(forms, lambda _, number=number: f'"{MASK}{number}"', text)  # type: ignore[misc]
    return text


def _with_names(numbered: str, original: str) -> str:
    """The hidden names of tables put in again."""
    edited, before = tomllib.loads(numbered), tomllib.loads(original)
    known = {_place(path, before): list(table) for path, table in _user_tables(before)}
    for path, table in _user_tables(edited):
        names = known.get(_place(path, edited), [])
        for name in table:
            hidden = _HIDDEN_NAME.fullmatch(name)
            if hidden and 0 < int(hidden[2]) <= len(names):
                numbered = numbered.replace(name, _escaped(names[int(hidden[2]) - 1]))
    return numbered


def _masked_pair(found: re.Match[str], secrets: set[tuple[str | int, str]]) -> str:
    key, token = found["key"].strip("\"'"), found["value"]
    try:
        value = tomllib.loads(f"v = {token}")["v"]
    except tomllib.TOMLDecodeError:
        return found[0]
    return f'{found["key"]}{found["equals"]}"{MASK}"' if (key, str(value)) in secrets else found[0]


def _masked_comment(found: re.Match[str]) -> str:
    is_reference = _REFERENCE.match(found["value"].strip().strip("\"'"))
    return found[0] if is_reference or not is_secret((found["key"],)) else f"{found['start']}{MASK}"


def _numbered(text: str) -> tuple[str, int]:
    """`text` with each mask told apart, and how many there are."""
    parts = text.split(MASK)
    marks = [f"{MASK}{number}{MASK}" for number in range(len(parts) - 1)]
    return "".join(one + mark for one, mark in zip(parts, [*marks, ""], strict=True)), len(marks)


def _strings(value: Any, path: Where = (), top: Any = None) -> Iterator[tuple[Where, str, Any]]:
    top = value if top is None else top
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        if isinstance(member, dict | list):
            yield from _strings(member, (*path, key), top)
        else:
            yield (*path, key), str(member), top


def _place(path: Where, document: Any) -> Where:
    """`path` with the names of named tables for their numbers."""
    place: list[str | int] = []
    for part in path:
        document = document[part]
        name = document.get("name") if isinstance(part, int) and isinstance(document, dict) else None
        place.append(f"named {name}" if isinstance(name, str) else part)
    return tuple(place)


def _escaped(text: str) -> str:
    """For a basic string of TOML."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return "".join(escapes.get(one, one if one.isprintable() else f"\\U{ord(one):08x}") for one in text)
