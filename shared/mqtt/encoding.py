"""Packets to bytes: one function per kind of packet, in the form of a protocol version.

Values that have no encoding are our own mistake: `LocalProtocolError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.mqtt.codes import FIRST_FAILURE
from shared.mqtt.errors import LocalProtocolError
from shared.mqtt.packets import (
    V5,
    V31,
    Acknowledgement,
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
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from shared.mqtt.properties import pack_properties
from shared.mqtt.wire import pack_binary, pack_text, pack_u16, pack_variable_integer


def encode(packet: Packet, version: int = 4) -> bytes:
    """`packet` as the bytes of protocol `version` (3, 4 or 5), fixed header included.

    A CONNECT is encoded in its own version. What an older version cannot say (properties, reason codes) is
    left out.

    Raises: LocalProtocolError for values that have no encoding.
    """
    return _ENCODERS[type(packet)](packet, version)


def _frame(first_byte: int, body: bytes) -> bytes:
    """Fixed header and body."""
    return bytes((first_byte,)) + pack_variable_integer(len(body)) + body


def _properties(properties: Properties | None, version: int) -> bytes:
    """Packed properties on v5, nothing before."""
    return pack_properties(properties) if version == V5 else b""


def _packet_id(packet_id: int) -> bytes:
    """A packet identifier, which is never 0 [MQTT-2.2.1-3]."""
    if not packet_id:
        raise LocalProtocolError("A packet identifier is missing")
    return pack_u16(packet_id)


def encode_connect(packet: Connect, _version: int) -> bytes:
    """CONNECT, for clients."""
    version, will = packet.version, packet.will
    flags = packet.clean_start << 1 | (packet.user_name is not None) << 7 | (packet.password is not None) << 6
    payload = pack_text(packet.client_id)
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
        payload += _properties(will.properties, version) + pack_text(will.topic) + pack_binary(will.payload)
    if packet.user_name is not None:
        payload += pack_text(packet.user_name)
    if packet.password is not None:
        payload += pack_binary(packet.password)
    name = b"\0\6MQIsdp" if version == V31 else b"\0\4MQTT"
    head = name + bytes((version, flags)) + pack_u16(packet.keep_alive_s)
    return _frame(0x10, head + _properties(packet.properties, version) + payload)


def encode_connack(packet: Connack, version: int) -> bytes:
    """CONNACK; no session is present in a refusal [MQTT-3.2.2-4]."""
    present = packet.session_present and not packet.reason_code
    head = bytes((present, packet.reason_code))
    return _frame(0x20, head + _properties(packet.properties, version))


def encode_publish(packet: Publish, version: int) -> bytes:
    """PUBLISH."""
    qos = packet.qos
    first_byte = 0x30 | packet.dup << 3 | qos << 1 | packet.retain
    body = pack_text(packet.topic)
    if qos:
        body += _packet_id(packet.packet_id)
    if version == V5:
        body += pack_properties(packet.properties)
    return _frame(first_byte, body + packet.payload)


def _acknowledgement(first_byte: int) -> Callable[[Acknowledgement, int], bytes]:
    """The encoder of PUBACK, PUBREC, PUBREL or PUBCOMP, which look alike.

    A success without properties is four bytes on every version (MQTT 5 section 3.4.2.1).
    """

    def encode_acknowledgement(packet: Acknowledgement, version: int) -> bytes:
        body = _packet_id(packet.packet_id)
        if version == V5 and (packet.reason_code or packet.properties):
            body += bytes((packet.reason_code,))
            if packet.properties:
                body += pack_properties(packet.properties)
        return _frame(first_byte, body)

    return encode_acknowledgement


def encode_subscribe(packet: Subscribe, version: int) -> bytes:
    """SUBSCRIBE, for clients."""
    entries = b"".join(pack_text(s.topic_filter) + _options(s, version) for s in packet.subscriptions)
    return _frame(0x82, _packet_id(packet.packet_id) + _properties(packet.properties, version) + entries)


def _options(wanted: Subscription, version: int) -> bytes:
    """The subscription options byte; QoS alone before v5."""
    if version != V5:
        return bytes((wanted.qos,))
    flags = wanted.no_local << 2 | wanted.retain_as_published << 3 | wanted.retain_handling << 4
    return bytes((wanted.qos | flags,))


def encode_suback(packet: Suback, version: int) -> bytes:
    """SUBACK; before v5 every failure is 0x80 [MQTT-3.9.3-2]."""
    codes = packet.codes
    if version != V5:
        codes = [min(code, FIRST_FAILURE) for code in codes]
    body = _packet_id(packet.packet_id) + _properties(packet.properties, version) + bytes(codes)
    return _frame(0x90, body)


def encode_unsubscribe(packet: Unsubscribe, version: int) -> bytes:
    """UNSUBSCRIBE, for clients."""
    entries = b"".join(pack_text(topic_filter) for topic_filter in packet.topic_filters)
    return _frame(0xA2, _packet_id(packet.packet_id) + _properties(packet.properties, version) + entries)


def encode_unsuback(packet: Unsuback, version: int) -> bytes:
    """UNSUBACK; before v5 it carries no codes."""
    codes = bytes(packet.codes) if version == V5 else b""
    return _frame(0xB0, _packet_id(packet.packet_id) + _properties(packet.properties, version) + codes)


def _reason_packet(first_byte: int) -> Callable[[Disconnect | Auth, int], bytes]:
    """The encoder of DISCONNECT or AUTH: reason 0 without properties has an empty body."""

    def encode_reason(packet: Disconnect | Auth, version: int) -> bytes:
        if version != V5 or not (packet.reason_code or packet.properties):
            return _frame(first_byte, b"")
        properties = pack_properties(packet.properties) if packet.properties else b""
        return _frame(first_byte, bytes((packet.reason_code,)) + properties)

    return encode_reason


def _empty(first_byte: int) -> Callable[[Packet, int], bytes]:
    """The encoder of a packet without a body."""
    frame = bytes((first_byte, 0))
    return lambda packet, version: frame


# Any: each encoder takes the packet of its key, which a dict type cannot say.
_ENCODERS: dict[type[Packet], Callable[[Any, int], bytes]] = {
    Connect: encode_connect,
    Connack: encode_connack,
    Publish: encode_publish,
    Puback: _acknowledgement(0x40),
    Pubrec: _acknowledgement(0x50),
    Pubrel: _acknowledgement(0x62),
    Pubcomp: _acknowledgement(0x70),
    Subscribe: encode_subscribe,
    Suback: encode_suback,
    Unsubscribe: encode_unsubscribe,
    Unsuback: encode_unsuback,
    Pingreq: _empty(0xC0),
    Pingresp: _empty(0xD0),
    Disconnect: _reason_packet(0xE0),
    Auth: _reason_packet(0xF0),
}
