"""One value per MQTT control packet, the same for every protocol version.

Values use `slots` only: one PUBLISH is built for each message, and a frozen one costs four times as much.
Treat them as read-only. `properties` holds v5 properties and is None when there are none, and always on
v3.1 and v3.1.1. Nothing here checks anything; `decoding.py` and `encoding.py` do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.mqtt.codes import Property

V31 = 3
V311 = 4
V5 = 5

# Integers of every width, UTF-8 strings, binary data; user properties as pairs in the order given, because
# names may repeat; subscription identifiers as a list, because a PUBLISH may carry several.
PropertyValue = int | str | bytes | list[tuple[str, str]] | list[int]
Properties = dict[Property, PropertyValue]


@dataclass(slots=True)
class Will:
    """The message a client asks the server to publish for it when the connection breaks."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None


@dataclass(slots=True)
class Connect:
    """Client to server, first packet. `keep_alive_s` 0 means none; absent credentials are None, not empty.

    The user name of a device is its access token, so neither it nor the password appears in `repr`.
    """

    client_id: str
    version: int = V311
    clean_start: bool = True
    keep_alive_s: int = 0
    user_name: str | None = field(default=None, repr=False)
    password: bytes | None = field(default=None, repr=False)
    will: Will | None = None
    properties: Properties | None = None


@dataclass(slots=True)
class Connack:
    """Server to client, answer to CONNECT: a `ConnectReturnCode` on v3, a `ReasonCode` on v5."""

    reason_code: int = 0
    session_present: bool = False
    properties: Properties | None = None


@dataclass(slots=True)
class Publish:
    """A message, either way. `packet_id` is 0 exactly when `qos` is 0."""

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    dup: bool = False
    retain: bool = False
    properties: Properties | None = None


@dataclass(slots=True)
class Puback:
    """The receiver owns the QoS 1 message `packet_id`, or (v5, reason >= 0x80) refuses it."""

    packet_id: int
    reason_code: int = 0
    properties: Properties | None = None


@dataclass(slots=True)
class Pubrec:
    """The receiver owns the QoS 2 message `packet_id`, or (v5, reason >= 0x80) refuses it for good."""

    packet_id: int
    reason_code: int = 0
    properties: Properties | None = None


@dataclass(slots=True)
class Pubrel:
    """The sender of a QoS 2 message will not send it again."""

    packet_id: int
    reason_code: int = 0
    properties: Properties | None = None


@dataclass(slots=True)
class Pubcomp:
    """The receiver of a QoS 2 message has forgotten `packet_id`; the exchange is complete."""

    packet_id: int
    reason_code: int = 0
    properties: Properties | None = None


@dataclass(slots=True)
class Subscription:
    """One entry of a SUBSCRIBE: a filter and the greatest QoS wanted; the rest is v5 only."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(slots=True)
class Subscribe:
    """Client to server. At least one subscription, each with a valid filter."""

    packet_id: int
    subscriptions: list[Subscription]
    properties: Properties | None = None


@dataclass(slots=True)
class Suback:
    """Server to client: one code per subscription, in the order asked."""

    packet_id: int
    codes: list[int]
    properties: Properties | None = None


@dataclass(slots=True)
class Unsubscribe:
    """Client to server. At least one filter, each valid."""

    packet_id: int
    topic_filters: list[str]
    properties: Properties | None = None


@dataclass(slots=True)
class Unsuback:
    """Server to client: one code per filter on v5; on v3 there are none and `codes` is empty."""

    packet_id: int
    codes: list[int] = field(default_factory=list)
    properties: Properties | None = None


@dataclass(slots=True)
class Pingreq:
    """Client to server: I am still here."""


@dataclass(slots=True)
class Pingresp:
    """Server to client: so am I."""


@dataclass(slots=True)
class Disconnect:
    """The sender ends the connection in order; from the server on v5 only."""

    reason_code: int = 0
    properties: Properties | None = None


@dataclass(slots=True)
class Auth:
    """One step of an enhanced authentication, either way; v5 only."""

    reason_code: int = 0
    properties: Properties | None = None


Acknowledgement = Puback | Pubrec | Pubrel | Pubcomp
Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
