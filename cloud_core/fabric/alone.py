"""The embedded default: one node, nobody to tell."""

from __future__ import annotations

from collections.abc import Callable

from cloud_core.fabric.interface import Body
from cloud_core.measures import Family

_NOBODY: frozenset[str] = frozenset()


class Alone:
    """A `Fabric` without others."""

    node = "alone"
    others = _NOBODY
    is_away = False
    is_late = False

    def hear(self, kind: str, callback: Callable[[str, Body], None]) -> None:
        """There is nobody to hear."""

    def tell_all(self, kind: str, body: Body) -> None:
        """There is nobody to tell."""

    def tell(self, node: str, kind: str, body: Body) -> None:
        """There is nobody to tell."""

    def on_joined(self, callback: Callable[[str], None]) -> None:
        """Nobody joins."""

    def on_left(self, callback: Callable[[str], None]) -> None:
        """Nobody leaves."""

    def on_back(self, callback: Callable[[], None]) -> None:
        """It is never away."""

    async def start(self) -> None:
        """There is nothing to start."""

    async def stop(self) -> None:
        """There is nobody to say goodbye to."""

    def families(self) -> list[Family]:
        """Numbers of a fabric would mean that there is one."""
        return []
