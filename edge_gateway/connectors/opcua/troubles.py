"""What is wrong with parts of a server, told as the connector's health."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping
from typing import Any, Final

from edge_gateway.connectors.interface import Site
from edge_gateway.model import Health

_MAX_TOLD: Final = 3


class Troubles:
    """By part, in words."""

    def __init__(self, site: Site, endpoint: str) -> None:
        self._site = site
        self._endpoint = endpoint
        self._texts: dict[Hashable, str] = {}

    def add(self, part: Hashable, text: str) -> None:
        if self._texts.get(part) != text:
            self._texts[part] = text
            self.tell()

    def remove(self, part: Hashable) -> None:
        if self._texts.pop(part, None) is not None:
            self.tell()

    def replace(self, kind: type, troubles: Mapping[Any, str]) -> None:
        """All troubles whose part is a `kind` are now these."""
        self._texts = {part: text for part, text in self._texts.items() if not isinstance(part, kind)} | dict(troubles)
        self.tell()

    def keep(self, kind: type, parts: Container[Hashable]) -> None:
        """Forgets the troubles whose part is a `kind` and not among `parts`."""
        self._texts = {part: text for part, text in self._texts.items() if not isinstance(part, kind) or part in parts}
        self.tell()

    def tell(self) -> None:
        if not self._texts:
            self._site.health(Health.HEALTHY)
            return
        texts = list(dict.fromkeys(self._texts.values()))
        more = f"; and {len(texts) - _MAX_TOLD} more" if len(texts) > _MAX_TOLD else ""
        self._site.health(Health.DEGRADED, f"{self._endpoint}: {'; '.join(texts[:_MAX_TOLD])}{more}")
