"""Types of values: `string`, `int`, `float`, `bool`, `json`, converted leniently; scaling."""

from __future__ import annotations

from typing import Final

from edge_gateway.model import Json

TYPES: Final = ("string", "int", "float", "bool", "json")


def convert(value: Json, type: str) -> Json:
    """`value` as `type` ("" leaves it): "12.5" is 12.5 for float; true/on/yes/1 is True for bool; "{…}" is read for
    json. Raises: MappingError naming value and type."""
    raise NotImplementedError


def scaled(value: Json, scale: float = 1.0, offset: float = 0.0) -> Json:
    """`value * scale + offset` without the dust of binary fractions (1523 * 0.1 is 152.3); integers stay integers
    when both are whole. Raises: MappingError when it is no number."""
    raise NotImplementedError


def unscaled(value: Json, scale: float = 1.0, offset: float = 0.0) -> Json:
    """The way back: `(value - offset) / scale`."""
    raise NotImplementedError
