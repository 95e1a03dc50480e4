"""What the configuration says about MQTT sessions, and what the service counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloud_core.core.line_ration import LineRation

MAX_LINES = 100  # of the log about peers that did not get in, in LineRation's span


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds (product.md section 5, "Limits"; wire-contract.md section 2.1)."""

    connect_s: float = 10.0
    provision_session_s: float = 60.0
    inactivity_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`max_chunk_bytes` bounds one piece of a package, `max_whole_package_bytes` one that is asked for without a
    chunk size. `max_overrun_s` is how long a peer may send above its rate before it is disconnected."""

    repeats_refusal: bool = False  # a DISCONNECT behind a refusing CONNACK of MQTT 5 (wire-contract.md section 2.4)
    max_chunk_bytes: int = 65_536
    max_whole_package_bytes: int = 16_777_216
    max_overrun_s: float = 60.0


@dataclass(slots=True, kw_only=True)
class Counters:
    """Messages that were not taken or not delivered, and peers, since the start; one instance for the whole service."""

    lines: LineRation = field(default_factory=lambda: LineRation(MAX_LINES), repr=False, compare=False)
    """Of the log, about peers that are counted here and have no session of their own."""
    refused_logins: int = 0
    """CONNECTs that opened no session."""
    violations: int = 0
    """Connections that ended because the peer broke the protocol."""
    malformed: int = 0
    """Dropped: the payload or an id in the topic could not be read."""
    unknown_topic: int = 0
    """Dropped: no such topic."""
    not_authorized: int = 0
    """Dropped: the session may not publish there."""
    rate_limited: int = 0
    """Refused or dropped: above the sender's rate."""
    delayed: int = 0
    """Held back with its sender until the rate allowed it (MQTT 3, which knows no refusal)."""
    refused: int = 0
    """Dropped for any other reason: the core refused it."""
    undeliverable: int = 0
    """Not sent to the client: above its packet size, its queue full, or not expressible in its encoding."""
