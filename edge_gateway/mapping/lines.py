"""One key of a mapping: `"$.path -> key: type"` or a table."""

from __future__ import annotations

from edge_gateway.mapping.interface import Line


def parse_line(line: str | Line) -> Line:
    """The table for the text form; a table is returned as it is. Raises: MappingProblems."""
    raise NotImplementedError
