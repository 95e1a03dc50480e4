"""Writes TOML that people go on editing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LINE_CHARS = 100  # a longer list is written over several lines
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}


def quoted(text: str) -> str:
    """A basic string; literal where that saves the reader backslashes."""
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return '"' + "".join(_ESCAPES.get(one, one if one.isprintable() else f"\\U{ord(one):08x}") for one in text) + '"'


def key(name: str) -> str:
    return name if _BARE.fullmatch(name) else quoted(name)


def inline(value: Any) -> str:
    """A value on one line. Raises: TypeError for what TOML has no word for, such as None."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        members = ", ".join(f"{key(name)} = {inline(member)}" for name, member in value.items())
        return f"{{ {members} }}" if members else "{}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(inline, value))}]"
    raise TypeError(f"no TOML for {type(value).__name__}")


def pair(name: str, value: Any, indent: str = "") -> str:
    """`name = value`, a long list over several lines."""
    line = f"{indent}{key(name)} = {inline(value)}"
    if isinstance(value, list) and value and len(line) > LINE_CHARS:
        elements = "".join(f"{indent}  {inline(element)},\n" for element in value)
        return f"{indent}{key(name)} = [\n{elements}{indent}]"
    return line


def section(name: str, values: Mapping[str, Any]) -> str:
    """`[name]`."""
    return "\n".join([f"[{name}]", *(pair(member, value) for member, value in values.items())]) + "\n"


def table(kind: str, values: Mapping[str, Any], comments: Iterable[str] = ()) -> str:
    """`[[kind]]`; lists of tables in it become `[[kind.member]]`, and inner tables that are no list `member.key`."""
    lines = [*(f"# {comment}" for comment in comments), f"[[{kind}]]"]
    lines += _pairs(values, "")
    for member, value in values.items():
        for element in value if _is_tables(value) else []:
            lines += ["", f"  [[{kind}.{key(member)}]]", *_pairs(element, "  ")]
    return "\n".join(lines) + "\n"


def _pairs(values: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in values.items():
        if indent == "" and _is_tables(value):
            continue
        if name == "rpc" and isinstance(value, Mapping):
            lines += [f"{indent}rpc.{key(method)} = {inline(how)}" for method, how in value.items()]
        else:
            lines.append(pair(name, value, indent))
    return lines


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
