"""What the parts of an MQTT session need of each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cloud_core.core.api import DeviceApi
from cloud_core.core.downlinks import Interest
from cloud_core.model import Identity, Peer, PresentedChain
from cloud_core.transports.mqtt.settings import Counters, Settings
from cloud_core.transports.mqtt.slots import Slot
from shared.errors import PlatformError
from shared.messages import PackageKind
from shared.mqtt.connection import OnSettled
from shared.mqtt.packets import Publish
from shared.topics import DeviceTopic


class Session(Protocol):
    """The socket side, as the adapter needs it."""

    peer: Peer

    def presented(self) -> PresentedChain | None:
        """The certificates that the peer showed in its TLS handshake; None without any."""

    def flush_soon(self) -> None:
        """Something is in the connection's outbound buffer."""

    def flush(self) -> None:
        """Write it now."""

    def logged_in(self, identity: Identity) -> None:
        """CONNECT was accepted; register the session."""

    def listen(self, interest: Interest) -> None:
        """The subscriptions have changed: what the core is to send."""

    def pause(self, seconds: float) -> None:
        """Read nothing for so long, then call `resume` of the adapter."""

    @property
    def is_blocked(self) -> bool:
        """Whether the peer does not take what was written; `resume` is called when it does again."""

    @property
    def is_full(self) -> bool:
        """Whether so much waits for a peer that does not read that nothing may be added."""

    def end(self) -> None:
        """Send what is buffered, then close."""


class GoneSession:
    """Stands in for a socket that is closed while answers are still awaited."""

    __slots__ = ("peer",)
    is_blocked = False
    is_full = False

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def presented(self) -> PresentedChain | None:
        """It is asked for only while the peer is there."""
        return None

    def flush_soon(self) -> None:
        """Nobody listens."""

    def flush(self) -> None:
        """Nobody listens."""

    def logged_in(self, identity: Identity) -> None:
        """Such a session never takes over a living one."""

    def listen(self, interest: Interest) -> None:
        """Nothing can be sent."""

    def pause(self, seconds: float) -> None:
        """Nothing more comes."""

    def end(self) -> None:
        """It has ended."""


class PieceQueue(Protocol):
    """What a session has asked for of its packages."""

    def chunk_bytes(self, kind: PackageKind, request_id: int, body: bytes) -> int:
        """The size of one piece, by what the body says now or has said before; 0: everything at once."""

    def ask(self, session: Conversation, slot: Slot, topic: DeviceTopic, chunk_bytes: int) -> None:
        """A piece is sent when its turn comes."""

    def proceed(self, session: Conversation) -> None:
        """Fetches the next piece, if it may."""


class Conversation(Protocol):
    """A session that is logged in, as one request needs it."""

    settings: Settings
    counters: Counters

    @property
    def api(self) -> DeviceApi: ...

    @property
    def downloads(self) -> PieceQueue:
        """What the session has asked for of its packages."""

    @property
    def device(self) -> Identity:
        """Who has logged in."""

    @property
    def peer(self) -> Peer: ...

    @property
    def received_ms(self) -> int:
        """When what is being handled was received."""

    @property
    def is_blocked(self) -> bool:
        """Whether the peer does not take what was written."""

    @property
    def subscriptions(self) -> dict[str, int]:
        """Filter -> granted QoS, the oldest first."""

    def take(self, packet: Publish) -> Slot:
        """The packet's place among the acknowledgements."""

    def conclude(self, slot: Slot, packet: Publish, outcome: object) -> None:
        """The outcome of what the packet asked for is known: a `PlatformError`, or anything else for success."""

    def done(self, packet: Publish) -> Callable[[Any], None]:
        """`take` and `conclude` in one, for requests that are answered by their acknowledgement."""

    def answer(self, slot: Slot, topic: str, payload: bytes) -> None:
        """Sends once the acknowledgement of `slot` has been sent, with the QoS of the matching subscription."""

    def publish(self, topic: str, payload: bytes, qos: int, on_acknowledged: OnSettled | None = None) -> bool:
        """Sends to the client; False if it cannot take it. `on_acknowledged` hears of it once, in any case."""

    def subscribed_qos(self, topic: str) -> int:
        """QoS of the subscription that matches; 1 without any (wire-contract.md section 2.2)."""

    def is_line_due(self) -> bool:
        """Whether the log hears of one more thing that went wrong here; the counters hear of all."""

    def unanswerable(self, topic: str, error: PlatformError) -> None:
        """Notes that nothing is sent on `topic`, and why."""
