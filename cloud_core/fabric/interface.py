"""What the core may ask of the fabric: tell other nodes, hear them, know who lives.

The fabric makes things prompt; it is never the only place of anything. What must not be lost between nodes stands in
the database (`storage/changes.py`), written in the transaction that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

BEAT_S = 1.0  # each node says that it lives
GONE_AFTER_S = 3.5  # silent for longer: it has left
MAX_BODY_BYTES = 900_000  # of a message; NATS takes 1 MiB unless configured otherwise

Body = Any
"""What MessagePack carries: None, bool, int, float, str, bytes, lists, dicts with text keys."""


class Fabric(Protocol):
    """Messages between nodes: at most once, those of one sender in order.

    Everything happens in the reactor thread; nothing blocks or raises. A message that is longer than MAX_BODY_BYTES,
    or holds what MessagePack does not carry, is dropped and logged: whoever tells much tells it in parts. A callback
    that raises is logged and harms nobody else. In order means over `tell` and `tell_all` together.
    """

    @property
    def node(self) -> str:
        """This node's name: another one at each start of the program."""

    @property
    def others(self) -> frozenset[str]:
        """The living nodes but this one; none where it is alone, or the fabric is away."""

    @property
    def is_away(self) -> bool:
        """Whether there is a fabric that cannot be reached now."""

    @property
    def is_late(self) -> bool:
        """Whether what is heard now may have been told long ago: this process stood still, or what lies between did."""

    def hear(self, kind: str, callback: Callable[[str, Body], None]) -> None:
        """`callback(sender, body)` for each message of a kind; one callback for each kind."""

    def tell_all(self, kind: str, body: Body) -> None:
        """To all other nodes."""

    def tell(self, node: str, kind: str, body: Body) -> None:
        """To one of them; one that has left hears nothing."""

    def on_joined(self, callback: Callable[[str], None]) -> None:
        """`callback(node)` when another node is heard of for the first time."""

    def on_left(self, callback: Callable[[str], None]) -> None:
        """`callback(node)` when one has said goodbye, or was silent for GONE_AFTER_S, or the fabric is away.

        `others` is without it by then. It may join again under its name, unless it said goodbye.
        """

    def on_back(self, callback: Callable[[], None]) -> None:
        """`callback()` when messages may have been missed, for whoever keeps something by them: look at the truth.

        The fabric is back after it was away (others may join only after this); the numbers of a sender's messages have
        a gap, or it comes with a new connection; or this process stood still for so long that others may have taken it
        for dead. At most once a second where it goes on.
        """
