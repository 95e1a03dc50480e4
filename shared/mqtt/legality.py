"""What may happen when on one connection: the states, and every transition between them.

The tables are the whole law: a pair that has no entry is a violation, by the peer for what it sends, by us
for what the caller does. Beside them stand the rules about what we have not offered. Bytes and delivery are
the business of other modules.
"""

from __future__ import annotations

from enum import Enum, auto

from shared.mqtt.codes import PacketKind, Property, ReasonCode
from shared.mqtt.errors import LocalProtocolError, RemoteProtocolError
from shared.mqtt.packets import (
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
)
from shared.mqtt.wire import malformed, protocol_error

TLS_HANDSHAKE = 0x16  # the first byte of a TLS client


class State(Enum):
    """Where a connection stands."""

    AWAITING_CONNECT = auto()
    """Nothing came yet; only a CONNECT may."""
    AUTHENTICATING = auto()
    """The CONNECT is with the caller; what the client sends meanwhile is kept."""
    ACTIVE = auto()
    """The client is accepted; packets flow both ways."""
    CLOSED = auto()
    """Over; what arrives is ignored, what we still want to send is dropped."""


class Action(Enum):
    """What the caller does."""

    ACCEPT = auto()
    """Answer the CONNECT with success."""
    REFUSE = auto()
    """Answer the CONNECT with a refusal."""
    SEND = auto()
    """Send a packet of an accepted connection: acknowledgements, SUBACK, PUBLISH."""
    DISCONNECT = auto()
    """End the connection."""


_AFTER_CONNECT: tuple[type[Packet], ...] = (
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Unsubscribe,
    Pingreq,
)

RECEIVED: dict[tuple[State, type[Packet]], State] = {
    (State.AWAITING_CONNECT, Connect): State.AUTHENTICATING,  # [MQTT-3.1.0-1]
    **{(State.AUTHENTICATING, kind): State.AUTHENTICATING for kind in (*_AFTER_CONNECT, Disconnect)},
    **{(State.ACTIVE, kind): State.ACTIVE for kind in _AFTER_CONNECT},
    (State.ACTIVE, Disconnect): State.CLOSED,  # [MQTT-3.14.4-2]
}
"""What the client may send: no entry is a protocol error, such as a second CONNECT [MQTT-3.1.0-2]."""

PERFORMED: dict[tuple[State, Action], State] = {
    (State.AUTHENTICATING, Action.ACCEPT): State.ACTIVE,
    (State.AUTHENTICATING, Action.REFUSE): State.CLOSED,  # [MQTT-3.2.2-7]
    (State.ACTIVE, Action.SEND): State.ACTIVE,
    **{(state, Action.DISCONNECT): State.CLOSED for state in State},
    # Storage and authentication may finish after the connection has.
    **{(State.CLOSED, action): State.CLOSED for action in Action},
}
"""What the caller may do: no entry is our bug."""


def state_after_packet(state: State, packet: Packet) -> State:
    """The state after `packet` has come. Raises RemoteProtocolError if it may not come now."""
    after = RECEIVED.get((state, type(packet)))
    if after is None:
        raise protocol_error(f"{type(packet).__name__.upper()} while {state.name}")
    return after


def state_after_action(state: State, action: Action) -> State:
    """The state after `action`. Raises LocalProtocolError if it comes too early."""
    after = PERFORMED.get((state, action))
    if after is None:
        raise LocalProtocolError(f"{action.name} while {state.name}")
    return after


def check_first_byte(first_byte: int) -> None:
    """Recognise a peer that does not speak MQTT without waiting for a whole packet."""
    if first_byte == TLS_HANDSHAKE:
        raise malformed("It speaks TLS: have it connect to the port for TLS (mqtts), or without TLS")
    if first_byte >> 4 != PacketKind.CONNECT:
        raise protocol_error("The first packet is not CONNECT")  # [MQTT-3.1.0-1]
    if first_byte & 0x0F:
        raise malformed("The fixed header of CONNECT has flags")  # [MQTT-2.2.2-2]


def check_publish_properties(properties: Properties) -> None:
    """We offer no topic aliases, and subscription identifiers are the server's to send."""
    if Property.TOPIC_ALIAS in properties:
        raise RemoteProtocolError(ReasonCode.TOPIC_ALIAS_INVALID, "A topic alias")  # [MQTT-3.3.2-9]
    if Property.SUBSCRIPTION_IDENTIFIER in properties:
        raise protocol_error("A PUBLISH with a subscription identifier")  # [MQTT-3.3.4-6]


def check_subscribe(packet: Subscribe) -> None:
    """We offer no subscription identifiers (MQTT 5 section 3.2.2.3.12)."""
    if Property.SUBSCRIPTION_IDENTIFIER in (packet.properties or ()):
        code = ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED
        raise RemoteProtocolError(code, "A subscription identifier")
