"""Packet bodies to packets: one function per kind of packet, given the body without its fixed header.

What is checked here needs nothing but the packet itself. Whether it may come now is the business of
`connection.py`. PUBLISH is decoded in `codec.py`, because it is the packet that has to be fast.
"""

from __future__ import annotations

from collections.abc import Callable

from shared.mqtt.codes import REASONS, PacketKind, Property, ReasonCode
from shared.mqtt.errors import RemoteProtocolError
from shared.mqtt.filters import SHARED_PREFIX, is_valid_filter
from shared.mqtt.packets import (
    V5,
    V31,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from shared.mqtt.properties import Carrier, read_properties
from shared.mqtt.wire import (
    malformed,
    protocol_error,
    read_binary,
    read_byte,
    read_text,
    read_u16,
)

# Name and level together make a version [MQTT-3.1.2-1] [MQTT-3.1.2-2].
VERSIONS: dict[tuple[bytes, int], int] = {(b"MQIsdp", 3): V31, (b"MQTT", 4): V311, (b"MQTT", 5): V5}
PROTOCOL_NAMES = frozenset(name for name, _ in VERSIONS)


class UnsupportedVersion(RemoteProtocolError):
    """A CONNECT of a protocol level we do not speak; unlike other violations it is answered.

    `level` is the protocol level asked for. The body behind it was not read, since its form is unknown.
    """

    def __init__(self, level: int) -> None:
        super().__init__(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, f"Protocol level {level} is not supported")
        self.level = level


def decode_connect(body: bytes, _version: int) -> Connect:
    """CONNECT. Raises UnsupportedVersion for a known protocol name with another level."""
    name, at = read_binary(body, 0)
    level, at = read_byte(body, at)
    if name not in PROTOCOL_NAMES:
        raise RemoteProtocolError(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, "The protocol name is not MQTT")
    version = VERSIONS.get((name, level))
    if version is None:
        raise UnsupportedVersion(level)
    flags, at = read_byte(body, at)
    _check_connect_flags(flags, version)
    keep_alive_s, at = read_u16(body, at)
    properties: Properties | None = None
    if version == V5:
        properties, at = read_properties(body, at, Carrier.CONNECT)
        _check_authentication(properties)
    client_id, at = read_text(body, at)
    will: Will | None = None
    if flags & 0x04:
        will, at = _read_will(body, at, flags, version)
    user_name, password = _read_login(body, at, flags, version)
    return Connect(client_id, version, bool(flags & 2), keep_alive_s, user_name, password, will, properties)


def _check_authentication(properties: Properties | None) -> None:
    """Authentication data need a method (MQTT 5 section 3.1.2.11.10)."""
    names = properties or ()
    if Property.AUTHENTICATION_DATA in names and Property.AUTHENTICATION_METHOD not in names:
        raise protocol_error("Authentication data without a method")


def _check_connect_flags(flags: int, version: int) -> None:
    """The connect flags may not contradict each other."""
    if flags & 0x01:
        raise malformed("The reserved connect flag is set")  # [MQTT-3.1.2-3]
    will_qos = flags >> 3 & 3
    if will_qos == 3:
        raise malformed("The will has QoS 3")  # [MQTT-3.1.2-12]
    if not flags & 0x04 and flags & 0x38:
        raise malformed("Will flags without a will")  # [MQTT-3.1.2-11] [MQTT-3.1.2-13]
    if version != V5 and flags & 0xC0 == 0x40:
        raise malformed("A password without a user name")  # [MQTT-3.1.2-22]


def _read_will(body: bytes, at: int, flags: int, version: int) -> tuple[Will, int]:
    """The will message; its topic is not validated further, because wills are ignored."""
    properties: Properties | None = None
    if version == V5:
        properties, at = read_properties(body, at, Carrier.WILL)
    topic, at = read_text(body, at)
    payload, at = read_binary(body, at)
    return Will(topic, payload, flags >> 3 & 3, bool(flags & 0x20), properties), at


def _read_login(body: bytes, at: int, flags: int, version: int) -> tuple[str | None, bytes | None]:
    """User name and password, each None when its flag is not set.

    On v3.1 the remaining length goes before the flags: a missing field is absent, not an error.
    Source: MQTT 3.1 section 3.1, "User name and password flags".
    """
    user_name: str | None = None
    password: bytes | None = None
    if flags & 0x80 and not (version == V31 and at == len(body)):
        user_name, at = read_text(body, at)
    if flags & 0x40 and not (version == V31 and at == len(body)):
        password, at = read_binary(body, at)
    _check_end(body, at)
    return user_name, password


def decode_connack(body: bytes, version: int) -> Connack:
    """CONNACK, for clients."""
    flags, at = read_byte(body, 0)
    if flags > 1:
        raise malformed("A reserved CONNACK flag is set")  # [MQTT-3.2.2-1]
    code, at = read_byte(body, at)
    properties: Properties | None = None
    if version == V5:
        _check_reason(code, PacketKind.CONNACK)
        properties, at = read_properties(body, at, Carrier.CONNACK)
    elif code > 5:
        raise malformed("A reserved CONNACK return code")
    _check_end(body, at)
    return Connack(code, bool(flags), properties)


def _acknowledgement(kind: PacketKind, body: bytes, version: int) -> tuple[int, int, Properties | None]:
    """Packet id, reason code and properties of PUBACK, PUBREC, PUBREL and PUBCOMP, which look alike."""
    packet_id, at = _read_packet_id(body)
    code = 0
    properties: Properties | None = None
    if at < len(body) and version == V5:
        code, at = read_byte(body, at)
        _check_reason(code, kind)
        if at < len(body):
            properties, at = read_properties(body, at, Carrier[kind.name])
    _check_end(body, at)
    return packet_id, code, properties


def decode_puback(body: bytes, version: int) -> Puback:
    """PUBACK; without a reason code it is a success (MQTT 5 section 3.4.2.1)."""
    return Puback(*_acknowledgement(PacketKind.PUBACK, body, version))


def decode_pubrec(body: bytes, version: int) -> Pubrec:
    """PUBREC, the same form as PUBACK."""
    return Pubrec(*_acknowledgement(PacketKind.PUBREC, body, version))


def decode_pubrel(body: bytes, version: int) -> Pubrel:
    """PUBREL, the same form as PUBACK."""
    return Pubrel(*_acknowledgement(PacketKind.PUBREL, body, version))


def decode_pubcomp(body: bytes, version: int) -> Pubcomp:
    """PUBCOMP, the same form as PUBACK."""
    return Pubcomp(*_acknowledgement(PacketKind.PUBCOMP, body, version))


def decode_subscribe(body: bytes, version: int) -> Subscribe:
    """SUBSCRIBE with at least one subscription [MQTT-3.8.3-2]."""
    packet_id, at = _read_packet_id(body)
    properties: Properties | None = None
    if version == V5:
        properties, at = read_properties(body, at, Carrier.SUBSCRIBE)
    subscriptions: list[Subscription] = []
    while at < len(body):
        topic_filter, at = _read_filter(body, at)
        options, at = read_byte(body, at)
        subscriptions.append(_subscription(topic_filter, options, version))
    if not subscriptions:
        raise protocol_error("A SUBSCRIBE without filters")
    return Subscribe(packet_id, subscriptions, properties)


def _subscription(topic_filter: str, options: int, version: int) -> Subscription:
    """One entry of a SUBSCRIBE from its filter and options byte."""
    if options & (0xC0 if version == V5 else 0xFC):
        raise malformed("Reserved bits of the subscription options are set")  # [MQTT-3.8.3-5]
    if options & 0x03 == 3:
        raise protocol_error("A subscription asks for QoS 3")  # [MQTT-3-8.3-4]
    if options & 0x30 == 0x30:
        raise protocol_error("A subscription has retain handling 3")
    if options & 0x04 and topic_filter.startswith(SHARED_PREFIX):
        raise protocol_error("A shared subscription with No Local")  # [MQTT-3.8.3-4]
    return Subscription(topic_filter, options & 3, bool(options & 4), bool(options & 8), options >> 4)


def decode_suback(body: bytes, version: int) -> Suback:
    """SUBACK, for clients."""
    packet_id, at = _read_packet_id(body)
    properties: Properties | None = None
    if version == V5:
        properties, at = read_properties(body, at, Carrier.SUBACK)
    codes = list(body[at:])
    for code in codes:
        if version == V5:
            _check_reason(code, PacketKind.SUBACK)
        elif code not in (0, 1, 2, 0x80):
            raise malformed("A reserved SUBACK return code")  # [MQTT-3.9.3-2]
    return Suback(packet_id, codes, properties)


def decode_unsubscribe(body: bytes, version: int) -> Unsubscribe:
    """UNSUBSCRIBE with at least one filter [MQTT-3.10.3-2]."""
    packet_id, at = _read_packet_id(body)
    properties: Properties | None = None
    if version == V5:
        properties, at = read_properties(body, at, Carrier.UNSUBSCRIBE)
    topic_filters: list[str] = []
    while at < len(body):
        topic_filter, at = _read_filter(body, at)
        topic_filters.append(topic_filter)
    if not topic_filters:
        raise protocol_error("An UNSUBSCRIBE without filters")
    return Unsubscribe(packet_id, topic_filters, properties)


def decode_unsuback(body: bytes, version: int) -> Unsuback:
    """UNSUBACK, for clients."""
    packet_id, at = _read_packet_id(body)
    if version != V5:
        _check_end(body, at)
        return Unsuback(packet_id)
    properties, at = read_properties(body, at, Carrier.UNSUBACK)
    codes = list(body[at:])
    for code in codes:
        _check_reason(code, PacketKind.UNSUBACK)
    return Unsuback(packet_id, codes, properties)


def decode_pingreq(body: bytes, _version: int) -> Pingreq:
    """PINGREQ, which has no body."""
    _check_end(body, 0)
    return Pingreq()


def decode_pingresp(body: bytes, _version: int) -> Pingresp:
    """PINGRESP, which has no body."""
    _check_end(body, 0)
    return Pingresp()


def decode_disconnect(body: bytes, version: int) -> Disconnect:
    """DISCONNECT; an empty body means reason 0."""
    code, properties = _reason_and_properties(PacketKind.DISCONNECT, body, version)
    return Disconnect(code, properties)


def decode_auth(body: bytes, version: int) -> Auth:
    """AUTH; the packet type is reserved before v5."""
    if version != V5:
        raise malformed("Packet type 15 is reserved")  # [MQTT-2.2.1]
    code, properties = _reason_and_properties(PacketKind.AUTH, body, version)
    return Auth(code, properties)


def _reason_and_properties(kind: PacketKind, body: bytes, version: int) -> tuple[int, Properties | None]:
    """The body of DISCONNECT and AUTH, whose parts may each be left out from the end."""
    at = code = 0
    properties: Properties | None = None
    if body and version == V5:
        code, at = read_byte(body, at)
        _check_reason(code, kind)
        if at < len(body):
            properties, at = read_properties(body, at, Carrier[kind.name])
    _check_end(body, at)
    return code, properties


def _read_packet_id(body: bytes) -> tuple[int, int]:
    """The packet identifier at the start of a body, which is never 0 [MQTT-2.2.1-3]."""
    packet_id, at = read_u16(body, 0)
    if not packet_id:
        raise malformed("Packet identifier 0")
    return packet_id, at


def _read_filter(body: bytes, at: int) -> tuple[str, int]:
    """A valid topic filter (MQTT section 4.7.1)."""
    topic_filter, at = read_text(body, at)
    if not is_valid_filter(topic_filter):
        raise protocol_error("A topic filter is empty or uses a wildcard inside a level")
    return topic_filter, at


def _check_reason(code: int, kind: PacketKind) -> None:
    """A packet carries the reason codes of its kind only."""
    if code not in REASONS[kind]:
        raise malformed(f"0x{code:02X} is no reason code of {kind.name}")


def _check_end(body: bytes, at: int) -> None:
    """Nothing may follow the last field."""
    if at != len(body):
        raise malformed("Bytes follow the last field of a packet")


Decode = Callable[[bytes, int], Packet]

DECODERS: dict[int, Decode] = {
    0x10: decode_connect,
    0x20: decode_connack,
    0x40: decode_puback,
    0x50: decode_pubrec,
    0x62: decode_pubrel,
    0x70: decode_pubcomp,
    0x82: decode_subscribe,
    0x90: decode_suback,
    0xA2: decode_unsubscribe,
    0xB0: decode_unsuback,
    0xC0: decode_pingreq,
    0xD0: decode_pingresp,
    0xE0: decode_disconnect,
    0xF0: decode_auth,
}
"""By the whole first byte, so that wrong fixed-header flags have no entry [MQTT-2.2.2-2]."""

V31_DECODERS: dict[int, Decode] = {0x6A: decode_pubrel, 0x8A: decode_subscribe, 0xAA: decode_unsubscribe}
"""v3.1 also re-sends these with the DUP flag (MQTT 3.1 section 2.1)."""
