"""What the MQTT adapter needs of the socket side, and what stands in once the socket is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cloud_core.model import Identity, Peer
from shared.mqtt.codes import ReasonCode


class Session(Protocol):
    """What the adapter needs of the socket side."""

    peer: Peer

    def flush_soon(self) -> None:
        """Something is in the connection's outbound buffer."""

    def logged_in(self, identity: Identity) -> None:
        """CONNECT was accepted; register the session."""

    def pause(self, seconds: float, resumed: Callable[[], None] | None = None) -> None:
        """Read nothing for so long: the peer sends faster than it may. Then `resumed`, if the peer is still there."""

    def close_with(self, reason: ReasonCode) -> None:
        """Ends it; a 5.0 client is told `reason`."""

    def end(self) -> None:
        """Send what is buffered, then close."""


class Counters:
    """Of one listener, for operators; see `MqttService.counters`."""

    __slots__ = ("malformed", "rate_limited", "refused_topics", "undelivered")

    def __init__(self) -> None:
        self.malformed = 0
        self.rate_limited = 0
        self.refused_topics = 0
        self.undelivered = 0


class GoneSession:
    """Stands in for a socket that is closed while answers are still awaited."""

    __slots__ = ("peer",)

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def flush_soon(self) -> None:
        """Nobody listens."""

    def logged_in(self, identity: Identity) -> None:
        """Such a session never takes over a living one."""

    def pause(self, seconds: float, resumed: Callable[[], None] | None = None) -> None:
        """Nothing is read any more."""

    def close_with(self, reason: ReasonCode) -> None:
        """It is closed."""

    def end(self) -> None:
        """It has ended."""
