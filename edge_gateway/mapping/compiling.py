"""From a mapping's settings to a `CompiledMap`, or to everything that is wrong with them."""

from __future__ import annotations

from collections.abc import Collection

from edge_gateway.mapping.interface import CompiledMap, MapSettings
from edge_gateway.model import Problem


def compile_map(settings: MapSettings, captures: Collection[str] = ()) -> CompiledMap:
    """`settings`, ready for use; `captures` are the names that the connector's pattern (or the connector) supplies.

    Raises: MappingProblems, with the paths of `check_map`.
    """
    raise NotImplementedError


def check_map(settings: MapSettings, captures: Collection[str] = ()) -> list[Problem]:
    """All mistakes at once; a path such as ("telemetry", 2, "report") is relative to the map."""
    raise NotImplementedError
