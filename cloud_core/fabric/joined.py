"""Several nodes in one process: the same promises as over a network, for tests and for trying.

A `Hub` delivers when its clock advances, in order, and encodes each message as a network would. It can cut a node off
(`cut`), let it back (`heal`), have it die (`kill`) and lose what it should hear (`lose`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from cloud_core.fabric.callbacks import Callbacks
from cloud_core.fabric.interface import Body
from cloud_core.fabric.messages import Untellable, decoded, encoded

log = Logger()


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
        joined.say_back()

    def kill(self, node: str) -> None:
        """The node is gone for good."""
        gone = self._nodes.pop(node)
        gone.is_away = True
        gone.others = frozenset()
        self._see()

    def lose(self, node: str) -> None:
        """The next message to this node is lost, which it notices."""
        self._nodes[node].loses_next = True

    def carry(self, sender: Joined, to: str | None, kind: str, body: Body) -> None:
        """To one node, or to all but the sender."""
        try:
            packed = encoded(body)
        except Untellable as error:
            log.error("A message of {kind} is not told: {error}", kind=kind, error=str(error))
            return
        for node in sender.others if to is None else sender.others & {to}:
            self._call_later(0, self._deliver, sender.node, node, kind, packed)

    def _deliver(self, sender: str, to: str, kind: str, packed: bytes) -> None:
        joined = self._nodes.get(to)
        if joined is None or joined.is_away:
            return
        if joined.loses_next:
            joined.loses_next = False
            joined.say_back()
            return
        joined.deliver(sender, kind, decoded(packed))

    def _see(self) -> None:
        """Everybody learns who lives now."""
        linked = frozenset(name for name, one in self._nodes.items() if not one.is_away)
        before = {name: one.others for name, one in self._nodes.items()}
        for name, one in self._nodes.items():
            one.others = linked - {name} if not one.is_away else frozenset()
        for name, one in list(self._nodes.items()):
            for node in before[name] - one.others:
                one.say_left(node)
            for node in one.others - before[name]:
                one.say_joined(node)


class Joined(Callbacks):
    """A `Fabric`: one node of a hub."""

    def __init__(self, hub: Hub, node: str) -> None:
        super().__init__()
        self._hub = hub
        self.node = node
        self.others: frozenset[str] = frozenset()
        self.is_away = False
        self.is_late = False  # set by whoever tests it
        self.loses_next = False

    def tell_all(self, kind: str, body: Body) -> None:
        if self.others:
            self._hub.carry(self, None, kind, body)

    def tell(self, node: str, kind: str, body: Body) -> None:
        self._hub.carry(self, node, kind, body)
