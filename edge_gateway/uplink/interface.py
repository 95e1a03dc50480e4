"""One attempt at a connection to the core, and what it tells.

Everything is called in the loop's thread. An uplink is used for one connection: when it has ended, a new one is made,
so that nothing of the old one is sent again behind our back."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol


class Ended(Enum):
    """Why a connection is over."""

    UNREACHABLE = "the core cannot be reached"
    LOST = "the connection was lost"
    SILENT = "the core does not answer any more"
    REFUSED_CREDENTIALS = "the core does not know these credentials"
    REFUSED_VERSION = "the core does not speak this version of MQTT"
    BUSY = "the core asks to come back later"
    UNTRUSTED = "the core's certificate is not trusted"
    CLOSED = "closed by us"


class UplinkEvents(Protocol):
    """Who uses an uplink. `ended` is called exactly once and last."""

    def connected(self, *, max_packet_bytes: int, receive_maximum: int) -> None:
        """CONNACK came; limits of the core's CONNACK, or the protocol's defaults."""

    def received(self, topic: str, payload: bytes) -> None:
        """A message of the core."""

    def ended(self, why: Ended, text: str) -> None:
        """`text` is for people: what failed and where."""


Published = Callable[[int], None]
"""The reason code of the PUBACK (0 success; 3.1.1 knows no other). Never called when the connection ends before it."""


class Uplink(Protocol):
    """One connection."""

    def open(self, events: UplinkEvents) -> None:
        """Starts connecting; never blocks."""

    def publish(self, topic: str, payload: bytes, published: Published | None = None) -> None:
        """QoS 1. Messages arrive in the order of the calls."""

    def subscribe(self, topics: list[str], granted: Callable[[list[int]], None]) -> None:
        """QoS 1; the codes of the SUBACK."""

    def close(self) -> None:
        """Ends it; `ended(CLOSED)` follows."""
