"""The numbers MQTT gives a meaning to: reason codes, return codes, property and packet identifiers.

Tables only. What may be done with them stands in `properties.py`, `decoding.py` and `connection.py`.
"""

from __future__ import annotations

from enum import IntEnum


class PacketKind(IntEnum):
    """The upper four bits of a fixed header [MQTT-2.1.2]."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class ReasonCode(IntEnum):
    """A v5 reason code: its byte, and `text`, its name in the specification (MQTT 5 section 2.4)."""

    text: str

    def __new__(cls, value: int, text: str = "") -> ReasonCode:
        code = int.__new__(cls, value)
        code._value_ = value
        code.text = text
        return code

    SUCCESS = 0x00, "Success"
    NORMAL_DISCONNECTION = 0x00, "Normal disconnection"
    GRANTED_QOS_0 = 0x00, "Granted QoS 0"
    GRANTED_QOS_1 = 0x01, "Granted QoS 1"
    GRANTED_QOS_2 = 0x02, "Granted QoS 2"
    DISCONNECT_WITH_WILL = 0x04, "Disconnect with Will Message"
    NO_MATCHING_SUBSCRIBERS = 0x10, "No matching subscribers"
    NO_SUBSCRIPTION_EXISTED = 0x11, "No subscription existed"
    CONTINUE_AUTHENTICATION = 0x18, "Continue authentication"
    REAUTHENTICATE = 0x19, "Re-authenticate"
    UNSPECIFIED_ERROR = 0x80, "Unspecified error"
    MALFORMED_PACKET = 0x81, "Malformed Packet"
    PROTOCOL_ERROR = 0x82, "Protocol Error"
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83, "Implementation specific error"
    UNSUPPORTED_PROTOCOL_VERSION = 0x84, "Unsupported Protocol Version"
    CLIENT_IDENTIFIER_NOT_VALID = 0x85, "Client Identifier not valid"
    BAD_USER_NAME_OR_PASSWORD = 0x86, "Bad User Name or Password"
    NOT_AUTHORIZED = 0x87, "Not authorized"
    SERVER_UNAVAILABLE = 0x88, "Server unavailable"
    SERVER_BUSY = 0x89, "Server busy"
    BANNED = 0x8A, "Banned"
    SERVER_SHUTTING_DOWN = 0x8B, "Server shutting down"
    BAD_AUTHENTICATION_METHOD = 0x8C, "Bad authentication method"
    KEEP_ALIVE_TIMEOUT = 0x8D, "Keep Alive timeout"
    SESSION_TAKEN_OVER = 0x8E, "Session taken over"
    TOPIC_FILTER_INVALID = 0x8F, "Topic Filter invalid"
    TOPIC_NAME_INVALID = 0x90, "Topic Name invalid"
    PACKET_IDENTIFIER_IN_USE = 0x91, "Packet Identifier in use"
    PACKET_IDENTIFIER_NOT_FOUND = 0x92, "Packet Identifier not found"
    RECEIVE_MAXIMUM_EXCEEDED = 0x93, "Receive Maximum exceeded"
    TOPIC_ALIAS_INVALID = 0x94, "Topic Alias invalid"
    PACKET_TOO_LARGE = 0x95, "Packet too large"
    MESSAGE_RATE_TOO_HIGH = 0x96, "Message rate too high"
    QUOTA_EXCEEDED = 0x97, "Quota exceeded"
    ADMINISTRATIVE_ACTION = 0x98, "Administrative action"
    PAYLOAD_FORMAT_INVALID = 0x99, "Payload format invalid"
    RETAIN_NOT_SUPPORTED = 0x9A, "Retain not supported"
    QOS_NOT_SUPPORTED = 0x9B, "QoS not supported"
    USE_ANOTHER_SERVER = 0x9C, "Use another server"
    SERVER_MOVED = 0x9D, "Server moved"
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E, "Shared Subscriptions not supported"
    CONNECTION_RATE_EXCEEDED = 0x9F, "Connection rate exceeded"
    MAXIMUM_CONNECT_TIME = 0xA0, "Maximum connect time"
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1, "Subscription Identifiers not supported"
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2, "Wildcard Subscriptions not supported"


FIRST_FAILURE = 0x80
"""Reason codes from here on mean failure; in a v3 SUBACK this is the only one [MQTT-3.9.3-2]."""


class ConnectReturnCode(IntEnum):
    """The return code of a v3.1 and v3.1.1 CONNACK (MQTT 3.1.1 section 3.2.2.3)."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_USER_NAME_OR_PASSWORD = 4
    NOT_AUTHORIZED = 5


class Property(IntEnum):
    """Identifier of a v5 property (MQTT 5 section 2.2.2.2)."""

    PAYLOAD_FORMAT_INDICATOR = 0x01
    MESSAGE_EXPIRY_INTERVAL = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY_INTERVAL = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY_INTERVAL = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


_PUBLISH_ANSWERS = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
_RELEASE_ANSWERS = frozenset({0x00, 0x92})

REASONS: dict[PacketKind, frozenset[int]] = {
    PacketKind.CONNACK: frozenset({0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0xA0)}),
    PacketKind.PUBACK: _PUBLISH_ANSWERS,  # [MQTT-3.4.2-1]
    PacketKind.PUBREC: _PUBLISH_ANSWERS,  # [MQTT-3.5.2-1]
    PacketKind.PUBREL: _RELEASE_ANSWERS,  # [MQTT-3.6.2-1]
    PacketKind.PUBCOMP: _RELEASE_ANSWERS,  # [MQTT-3.7.2-1]
    PacketKind.SUBACK: frozenset({0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}),
    PacketKind.UNSUBACK: frozenset({0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91}),
    PacketKind.DISCONNECT: frozenset(
        {0x00, 0x04, *range(0x80, 0x84), 0x87, 0x89, 0x8B, *range(0x8D, 0x91), *range(0x93, 0xA3)}
    ),  # [MQTT-3.14.2-1]
    PacketKind.AUTH: frozenset({0x00, 0x18, 0x19}),  # [MQTT-3.15.2-1]
}
"""The reason codes each v5 packet may carry, in either direction (MQTT 5 section 2.4)."""
