"""JSONPath (RFC 9535) for payloads; simple ones are compiled to plain look-ups."""

from __future__ import annotations

from typing import Protocol

from edge_gateway.model import Json


class Path(Protocol):
    """A compiled path."""

    def first(self, document: Json, missing: Json = None) -> Json:
        """The first value found, else `missing`."""

    def all(self, document: Json) -> list[tuple[str, Json]]:
        """Everything found, each with its last segment: the member's name or the index."""

    @property
    def is_single(self) -> bool:
        """Whether it can find one value at most."""


def compile_path(text: str) -> Path:
    """Raises: MappingProblems, with what is wrong and where."""
    raise NotImplementedError
