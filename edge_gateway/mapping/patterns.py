"""Topics and paths with captures: `site/{line}/{unit}/data`."""

from __future__ import annotations

from edge_gateway.mapping.interface import CompiledPattern


def compile_pattern(text: str) -> CompiledPattern:
    """`{name}`, `+` and `*` stand for one segment, which may have text around a capture (`unit-{n}`); `#` at the end
    for the rest, `{name#}` captures the rest. A leading `/` counts: topics and paths are matched as they are.

    Raises: MappingProblems.
    """
    raise NotImplementedError
