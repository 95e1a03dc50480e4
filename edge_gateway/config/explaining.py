"""Every value that is in effect, and who said it; without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from edge_gateway.config.loading import SECTIONS, Config
from edge_gateway.config.references import MASK, is_secret, is_secret_name, without_password
from edge_gateway.config.typed import Where, struct_type
from edge_gateway.mapping.amounts import format_duration, format_size


class Explained(NamedTuple):
    """`path` such as `modbus.plant.device[0].unit`; `source`: default | file line 12 | environment NAME."""

    path: str
    value: str
    source: str


def explain(config: Config) -> list[Explained]:
    """Sections first, then connectors in the order of the file."""
    lines: list[Explained] = []
    for name in SECTIONS:
        lines += _Explaining(config).struct(getattr(config, name), (name,), name)
    for table in config.connectors:
        lines += _Explaining(config).struct(table.settings, (table.kind, table.number), f"{table.kind}.{table.name}")
    return lines


class _Explaining:
    def __init__(self, config: Config) -> None:
        self._config = config

    def struct(self, value: msgspec.Struct, path: Where, label: str) -> Iterator[Explained]:
        for field in struct_type(type(value)).fields:
            member = getattr(value, field.name)
            unit = field.type.extra or {} if isinstance(field.type, inspect.Metadata) else {}
            yield from self.value(
                member, (*path, field.encode_name), f"{label}.{field.encode_name}", unit.get("unit", "")
            )

    def value(self, value: Any, path: Where, label: str, unit: str = "") -> Iterator[Explained]:
        if isinstance(value, msgspec.Struct):
            yield from self.struct(value, path, label)
        elif isinstance(value, dict) and value:
            for name, member in value.items():
                shown = MASK if is_secret_name((*path, name)) else name
                yield from self.value(member, (*path, name), f"{label}.{shown}")
        elif isinstance(value, list) and value:
            for place, element in enumerate(value):
                yield from self.value(element, (*path, place), f"{label}[{place}]")
        else:
            yield Explained(label, self._shown(value, path, unit), self._source(path))

    def _shown(self, value: Any, path: Where, unit: str) -> str:
        if path in self._config.written and path not in self._config.variables:
            return without_password(msgspec.json.encode(self._config.written[path]).decode())
        if is_secret(path) and value not in ("", None, [], {}):
            return MASK
        if unit == "seconds" and isinstance(value, int | float):
            return format_duration(value)
        if unit == "bytes" and isinstance(value, int):
            return format_size(value)
        return without_password(msgspec.json.encode(value).decode())

    def _source(self, path: Where) -> str:
        if path in self._config.variables:
            return f"environment {self._config.variables[path]}"
        if path in self._config.lines:
            return f"file line {self._config.lines[path]}"
        if path[:-1] in self._config.variables:  # an element of a list
            return f"environment {self._config.variables[path[:-1]]}"
        return "default"
