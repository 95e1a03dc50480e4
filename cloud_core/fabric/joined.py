"""Several nodes in one process: the same promises as over a network, for tests and for trying.

A `Hub` delivers when its clock advances, in order, and encodes each message as a network would. It can cut a node off
(`cut`), let it back (`heal`) and have it die (`kill`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cloud_core.fabric.interface import MAX_BODY_BYTES, Body


class Hub:
    """`call_later`: as the reactor's, or a `Clock`'s."""

    def __init__(self, call_later: Callable[..., Any]) -> None:
        self._call_later = call_later
        self._nodes: dict[str, Joined] = {}

    def join(self, node: str) -> Joined:
        """A new node, of which the others hear at once."""
        joined = self._nodes[node] = Joined(self, node)
        self._see()
        return joined

    def cut(self, node: str) -> None:
        """The fabric is away for this node, and the node for all others."""
        self._nodes[node].is_away = True
        self._see()

    def heal(self, node: str) -> None:
        """It is back."""
        joined = self._nodes[node]
        joined.is_away = False
        self._see()
        for callback in joined.back:
            callback()

    def kill(self, node: str) -> None:
        """The node is gone for good."""
        gone = self._nodes.pop(node)
        gone.is_away = True
        self._see()

    def carry(self, sender: Joined, to: str | None, kind: str, body: Body) -> None:
        """To one node, or to all but the sender."""
        encoded = msgspec.msgpack.encode(body)
        if sender.is_away or len(encoded) > MAX_BODY_BYTES:
            return
        for node in sender.others if to is None else sender.others & {to}:
            self._call_later(0, self._deliver, sender.node, node, kind, encoded)

    def _deliver(self, sender: str, to: str, kind: str, encoded: bytes) -> None:
        joined = self._nodes.get(to)
        if joined is not None and not joined.is_away and kind in joined.callbacks:
            joined.callbacks[kind](sender, msgspec.msgpack.decode(encoded))

    def _see(self) -> None:
        """Everybody learns who lives now."""
        linked = frozenset(name for name, one in self._nodes.items() if not one.is_away)
        for name, one in list(self._nodes.items()):
            before, one.others = one.others, linked - {name} if not one.is_away else frozenset()
            for node in before - one.others:
                _all(one.left, node)
            for node in one.others - before:
                _all(one.joined, node)


class Joined:
    """A `Fabric`: one node of a hub."""

    def __init__(self, hub: Hub, node: str) -> None:
        self._hub = hub
        self.node = node
        self.others: frozenset[str] = frozenset()
        self.is_away = False
        self.callbacks: dict[str, Callable[[str, Body], None]] = {}
        self.joined: list[Callable[[str], None]] = []
        self.left: list[Callable[[str], None]] = []
        self.back: list[Callable[[], None]] = []

    def hear(self, kind: str, callback: Callable[[str, Body], None]) -> None:
        self.callbacks[kind] = callback

    def tell_all(self, kind: str, body: Body) -> None:
        if self.others:
            self._hub.carry(self, None, kind, body)

    def tell(self, node: str, kind: str, body: Body) -> None:
        self._hub.carry(self, node, kind, body)

    def on_joined(self, callback: Callable[[str], None]) -> None:
        self.joined.append(callback)

    def on_left(self, callback: Callable[[str], None]) -> None:
        self.left.append(callback)

    def on_back(self, callback: Callable[[], None]) -> None:
        self.back.append(callback)


def _all(callbacks: list[Callable[[str], None]], node: str) -> None:
    for callback in callbacks:
        callback(node)
