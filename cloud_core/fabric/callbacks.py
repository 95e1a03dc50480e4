"""Who hears what: the callbacks of a node. One that raises is logged and harms nobody."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from cloud_core.fabric.interface import Body

log = Logger()


class Callbacks:
    """The part of a `Fabric` that all who have others share."""

    def __init__(self) -> None:
        self.by_kind: dict[str, Callable[[str, Body], None]] = {}
        self._joined: list[Callable[[str], None]] = []
        self._left: list[Callable[[str], None]] = []
        self._back: list[Callable[[], None]] = []

    def hear(self, kind: str, callback: Callable[[str, Body], None]) -> None:
        self.by_kind[kind] = callback

    def on_joined(self, callback: Callable[[str], None]) -> None:
        self._joined.append(callback)

    def on_left(self, callback: Callable[[str], None]) -> None:
        self._left.append(callback)

    def on_back(self, callback: Callable[[], None]) -> None:
        self._back.append(callback)

    def deliver(self, sender: str, kind: str, body: Body) -> bool:
        """Whether somebody hears that kind."""
        callback = self.by_kind.get(kind)
        if callback is None:
            return False
        try:
            callback(sender, body)
        except Exception:
            log.failure("What {sender} told of {kind} could not be taken", sender=sender, kind=kind)
        return True

    def say_joined(self, node: str) -> None:
        for callback in self._joined:
            self._call(callback, node)

    def say_left(self, node: str) -> None:
        for callback in self._left:
            self._call(callback, node)

    def say_back(self) -> None:
        for callback in self._back:
            self._call(callback)

    def _call(self, callback: Callable[..., None], *args: str) -> None:
        try:
            callback(*args)
        except Exception:
            log.failure("Who lives could not be taken in")
