"""From what TOML says to what a settings class wants, with everything that is wrong in words for the field."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect

from edge_gateway.mapping.amounts import parse_duration, parse_size
from edge_gateway.mapping.problems import did_you_mean
from edge_gateway.model import Problem

Where = tuple[str | int, ...]

_LIMITS: Final[dict[str, tuple[str, Callable[[Any, Any], bool]]]] = {
    "ge": ("at least", operator.ge),
    "gt": ("more than", operator.gt),
    "le": ("at most", operator.le),
    "lt": ("less than", operator.lt),
    "min_length": ("not shorter than", operator.ge),
    "max_length": ("not longer than", operator.le),
}

_UNITS: Final[dict[str, Callable[[Any], Any]]] = {"seconds": parse_duration, "bytes": parse_size}
_TRUE: Final = {"true": True, "1": True, "yes": True, "on": True}
_FALSE: Final = {"false": False, "0": False, "no": False, "off": False}


class Reader:
    """Reads one table; `problems` fills while it does.

    `is_text`: values come from the environment, where everything is text."""

    def __init__(self, *, is_text: bool = False) -> None:
        self.problems: list[Problem] = []
        self._is_text = is_text

    def table(self, values: Mapping[str, Any], cls: type[msgspec.Struct], path: Where = ()) -> Any:
        """An instance of `cls`, or None when there were problems."""
        before = len(self.problems)
        clean = self._struct(values, struct_type(cls), path)
        if len(self.problems) > before:
            return None
        try:
            return msgspec.convert(clean, cls)
        except (msgspec.ValidationError, ValueError, TypeError) as error:  # a check of the class itself
            self._problem(path, str(error))
            return None

    def value(self, value: Any, kind: inspect.Type, path: Where, unit: str = "") -> Any:
        """`value` as `kind`; None and a problem when it is not."""
        if isinstance(kind, inspect.Metadata):
            return self.value(value, kind.type, path, (kind.extra or {}).get("unit", unit))
        if unit in _UNITS and not isinstance(kind, inspect.UnionType):
            return self._amount(value, unit, path)
        if isinstance(kind, inspect.AnyType):
            return value
        if isinstance(kind, inspect.UnionType):
            return self._union(value, kind, path, unit)
        if isinstance(kind, inspect.StructType):
            return self._struct(value, kind, path) if isinstance(value, Mapping) else self._wrong(value, kind, path)
        if isinstance(kind, inspect.DictType):
            return self._dict(value, kind, path)
        if isinstance(kind, inspect.ListType | inspect.VarTupleType | inspect.SetType):
            return self._list(value, kind, path)
        if isinstance(kind, inspect.LiteralType):
            return self._literal(value, kind.values, path)
        if isinstance(kind, inspect.EnumType):
            return self._literal(value, tuple(member.value for member in kind.cls), path)
        return self._scalar(value, kind, path)

    def _problem(self, path: Where, text: str) -> None:
        self.problems.append(Problem(path, text))

    def _wrong(self, value: Any, kind: inspect.Type, path: Where) -> None:
        self._problem(path, f"must be {_described(kind)}, not {_seen(value)}")

    # --- containers ------------------------------------------------------------------------------

    def _struct(self, values: Mapping[str, Any], kind: inspect.StructType, path: Where) -> dict[str, Any]:
        fields = {field.encode_name: field for field in kind.fields}
        clean: dict[str, Any] = {}
        for key, value in values.items():
            if key in fields:
                clean[key] = self.value(value, fields[key].type, (*path, key))
            else:
                self._problem((*path, key), f"unknown key '{key}'{did_you_mean(key, fields)}")
        for name, field in fields.items():
            if field.required and name not in values:
                self._problem(path, f"'{name}' is missing; add {name} = {_example(field.type)}")
        return clean

    def _dict(self, value: Any, kind: inspect.DictType, path: Where) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(value, kind, path)
        return {key: self.value(member, kind.value_type, (*path, key)) for key, member in value.items()}

    def _list(self, value: Any, kind: Any, path: Where) -> Any:
        if self._is_text and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list):
            return self._wrong(value, kind, path)
        return [self.value(element, kind.item_type, (*path, place)) for place, element in enumerate(value)]

    def _union(self, value: Any, kind: inspect.UnionType, path: Where, unit: str) -> Any:
        """By the shape of the value: the alternative that it can be meant for."""
        for one in kind.types:
            if _has_shape(value, one, unit) or (self._is_text and isinstance(value, str) and _is_simple(one)):
                return self.value(value, one, path, unit)
        return self._wrong(value, kind, path)

    # --- single values ---------------------------------------------------------------------------

    def _literal(self, value: Any, allowed: tuple[Any, ...], path: Where) -> Any:
        if value in allowed:
            return value
        if isinstance(value, str):
            words = [str(one) for one in allowed]
            self._problem(path, f"'{value}' is none of {', '.join(words)}{_closest(value, words)}")
        else:
            self._problem(path, f"must be one of {', '.join(map(str, allowed))}, not {_seen(value)}")
        return None

    def _amount(self, value: Any, unit: str, path: Where) -> Any:
        try:
            if self._is_text and isinstance(value, str):
                value = value.strip()
            return _UNITS[unit](value)
        except ValueError as error:
            self._problem(path, str(error))
            return None

    def _scalar(self, value: Any, kind: inspect.Type, path: Where) -> Any:
        if self._is_text and isinstance(value, str):
            value = _of_text(value, kind)
        is_right = (
            (isinstance(kind, inspect.StrType) and isinstance(value, str))
            or (isinstance(kind, inspect.BoolType) and isinstance(value, bool))
            or (isinstance(kind, inspect.IntType) and isinstance(value, int) and not isinstance(value, bool))
            or (isinstance(kind, inspect.FloatType) and isinstance(value, int | float) and not isinstance(value, bool))
        )
        if not is_right:
            return self._wrong(value, kind, path)
        if isinstance(value, float) and not abs(value) < float("inf"):
            self._problem(path, "must be a number, not nan or inf")
        self._check_limits(value, kind, path)
        return value

    def _check_limits(self, value: Any, kind: Any, path: Where) -> None:
        for name, (words, is_kept) in _LIMITS.items():
            limit = getattr(kind, name, None)
            measured = len(value) if isinstance(value, str) else value
            if limit is not None and not is_kept(measured, limit):
                signs = " characters" if isinstance(value, str) else f", not {value}"
                self._problem(path, f"must be {words} {limit}{signs}")


def struct_type(cls: type[msgspec.Struct]) -> inspect.StructType:
    """What msgspec knows about the fields of `cls`."""
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return info


def _has_shape(value: Any, kind: inspect.Type, unit: str) -> bool:
    while isinstance(kind, inspect.Metadata):
        unit = (kind.extra or {}).get("unit", unit)
        kind = kind.type
    if isinstance(kind, inspect.LiteralType):
        return value in kind.values or (isinstance(value, str) and any(isinstance(one, str) for one in kind.values))
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number or (unit in _UNITS and isinstance(value, str))
    shapes: tuple[tuple[Any, Any], ...] = (
        (inspect.StrType, str),
        (inspect.BoolType, bool),
        (inspect.StructType | inspect.DictType, Mapping),
        (inspect.ListType | inspect.VarTupleType | inspect.SetType, list),
        (inspect.AnyType, object),
    )
    return any(isinstance(kind, meant) and isinstance(value, shape) for meant, shape in shapes)


def _is_simple(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.StrType | inspect.IntType | inspect.FloatType | inspect.BoolType)


def _of_text(text: str, kind: inspect.Type) -> Any:
    """A value of the environment; the text itself where it cannot be one."""
    word = text.strip().lower()
    if isinstance(kind, inspect.BoolType):
        return {**_TRUE, **_FALSE}.get(word, text)
    try:
        if isinstance(kind, inspect.IntType):
            return int(word)
        if isinstance(kind, inspect.FloatType):
            return float(word)
    except ValueError:
        return text
    return text


def _closest(word: str, words: list[str]) -> str:
    guess = did_you_mean(word, words)
    return guess if "did you mean" in guess else ""


def _described(kind: inspect.Type, unit: str = "") -> str:
    if isinstance(kind, inspect.Metadata):
        return _described(kind.type, (kind.extra or {}).get("unit", unit))
    if isinstance(kind, inspect.UnionType):
        return " or ".join(dict.fromkeys(_described(one, unit) for one in kind.types if _described(one)))
    if unit in _UNITS:
        return "a duration" if unit == "seconds" else "a size"
    names: tuple[tuple[Any, str], ...] = (
        (inspect.NoneType, ""),
        (inspect.StrType, 'a text in quotes ("…")'),
        (inspect.BoolType, "true or false (without quotes)"),
        (inspect.IntType, "a whole number (without quotes)"),
        (inspect.FloatType, "a number (without quotes)"),
        (inspect.StructType | inspect.DictType, "a table ({ key = value })"),
        (inspect.ListType | inspect.VarTupleType | inspect.SetType, "a list ([ … ])"),
    )
    return next((text for meant, text in names if isinstance(kind, meant)), "another value")


def _seen(value: Any) -> str:
    """What kind of value it is; never the value itself, which may be a secret."""
    if isinstance(value, bool):
        return "true or false"
    kinds = ((str, "a text"), (int, "a whole number"), (float, "a number"), (Mapping, "a table"), (list, "a list"))
    return next((text for kind, text in kinds if isinstance(value, kind)), "a date or time")


def _example(kind: inspect.Type) -> str:
    while isinstance(kind, inspect.Metadata):
        if (kind.extra or {}).get("unit") in _UNITS:
            return '"5 s"' if (kind.extra or {})["unit"] == "seconds" else '"1 MiB"'
        kind = kind.type
    if isinstance(kind, inspect.LiteralType):
        return f'"{kind.values[0]}"'
    names = ((inspect.BoolType, "true"), (inspect.IntType, "1"), (inspect.FloatType, "1.0"), (inspect.ListType, "[…]"))
    return next((text for meant, text in names if isinstance(kind, meant)), '"…"')
