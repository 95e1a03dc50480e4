"""v5 properties: which packet may carry which, their types, and both directions of the encoding.

Source: MQTT 5 section 2.2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from shared.mqtt.codes import Property, ReasonCode
from shared.mqtt.errors import LocalProtocolError, RemoteProtocolError
from shared.mqtt.filters import is_valid_topic
from shared.mqtt.packets import Properties, PropertyValue
from shared.mqtt.wire import (
    malformed,
    pack_binary,
    pack_text,
    pack_u16,
    pack_variable_integer,
    protocol_error,
    read_binary,
    read_byte,
    read_text,
    read_u16,
    read_u32,
    read_variable_integer,
)


class Carrier(Enum):
    """A place where properties can stand: a packet, or the will inside a CONNECT."""

    CONNECT = auto()
    WILL = auto()
    CONNACK = auto()
    PUBLISH = auto()
    PUBACK = auto()
    PUBREC = auto()
    PUBREL = auto()
    PUBCOMP = auto()
    SUBSCRIBE = auto()
    SUBACK = auto()
    UNSUBSCRIBE = auto()
    UNSUBACK = auto()
    DISCONNECT = auto()
    AUTH = auto()


def _read_pair(body: bytes, at: int) -> tuple[tuple[str, str], int]:
    name, at = read_text(body, at)
    value, at = read_text(body, at)
    return (name, value), at


Read = Callable[[bytes, int], tuple[int | str | bytes | tuple[str, str], int]]


class Rule(NamedTuple):
    """What holds for one property: its reader, its integer range, where it may stand."""

    read: Read
    carriers: frozenset[Carrier]
    least: int = 0
    most: int = 0xFFFF_FFFF


_MESSAGE = frozenset({Carrier.PUBLISH, Carrier.WILL})
_AUTHENTICATION = frozenset({Carrier.CONNECT, Carrier.CONNACK, Carrier.AUTH})
_BOTH_ENDS = frozenset({Carrier.CONNECT, Carrier.CONNACK})
_CONNECT = frozenset({Carrier.CONNECT})
_CONNACK = frozenset({Carrier.CONNACK})
_ANSWERS = frozenset(
    {
        Carrier.CONNACK,
        Carrier.PUBACK,
        Carrier.PUBREC,
        Carrier.PUBREL,
        Carrier.PUBCOMP,
        Carrier.SUBACK,
        Carrier.UNSUBACK,
        Carrier.DISCONNECT,
        Carrier.AUTH,
    }
)

RULES: dict[Property, Rule] = {
    Property.PAYLOAD_FORMAT_INDICATOR: Rule(read_byte, _MESSAGE, most=1),
    Property.MESSAGE_EXPIRY_INTERVAL: Rule(read_u32, _MESSAGE),
    Property.CONTENT_TYPE: Rule(read_text, _MESSAGE),
    Property.RESPONSE_TOPIC: Rule(read_text, _MESSAGE),
    Property.CORRELATION_DATA: Rule(read_binary, _MESSAGE),
    Property.SUBSCRIPTION_IDENTIFIER: Rule(
        read_variable_integer, frozenset({Carrier.PUBLISH, Carrier.SUBSCRIBE}), least=1
    ),
    Property.SESSION_EXPIRY_INTERVAL: Rule(read_u32, _BOTH_ENDS | {Carrier.DISCONNECT}),
    Property.ASSIGNED_CLIENT_IDENTIFIER: Rule(read_text, _CONNACK),
    Property.SERVER_KEEP_ALIVE: Rule(read_u16, _CONNACK),
    Property.AUTHENTICATION_METHOD: Rule(read_text, _AUTHENTICATION),
    Property.AUTHENTICATION_DATA: Rule(read_binary, _AUTHENTICATION),
    Property.REQUEST_PROBLEM_INFORMATION: Rule(read_byte, _CONNECT, most=1),
    Property.WILL_DELAY_INTERVAL: Rule(read_u32, frozenset({Carrier.WILL})),
    Property.REQUEST_RESPONSE_INFORMATION: Rule(read_byte, _CONNECT, most=1),
    Property.RESPONSE_INFORMATION: Rule(read_text, _CONNACK),
    Property.SERVER_REFERENCE: Rule(read_text, frozenset({Carrier.CONNACK, Carrier.DISCONNECT})),
    Property.REASON_STRING: Rule(read_text, _ANSWERS),
    Property.RECEIVE_MAXIMUM: Rule(read_u16, _BOTH_ENDS, least=1),
    Property.TOPIC_ALIAS_MAXIMUM: Rule(read_u16, _BOTH_ENDS),
    Property.TOPIC_ALIAS: Rule(read_u16, frozenset({Carrier.PUBLISH})),
    Property.MAXIMUM_QOS: Rule(read_byte, _CONNACK, most=1),
    Property.RETAIN_AVAILABLE: Rule(read_byte, _CONNACK, most=1),
    Property.USER_PROPERTY: Rule(_read_pair, frozenset(Carrier)),
    Property.MAXIMUM_PACKET_SIZE: Rule(read_u32, _BOTH_ENDS, least=1),
    Property.WILDCARD_SUBSCRIPTION_AVAILABLE: Rule(read_byte, _CONNACK, most=1),
    Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE: Rule(read_byte, _CONNACK, most=1),
    Property.SHARED_SUBSCRIPTION_AVAILABLE: Rule(read_byte, _CONNACK, most=1),
}


def integer(properties: Properties | None, name: Property, default: int) -> int:
    """The value of an integer property, or `default` when it is absent."""
    value = properties.get(name, default) if properties else default
    return value if isinstance(value, int) else default


def read_properties(body: bytes, at: int, carrier: Carrier) -> tuple[Properties | None, int]:
    """The properties that begin at `at`, None when there are none, and the offset behind them.

    Raises: RemoteProtocolError; malformed for an unknown or misplaced property [MQTT-2.2.2], protocol error
    for a repeated one or a value out of range.
    """
    length, at = read_variable_integer(body, at)
    if not length:
        return None, at
    end = at + length
    if end > len(body):
        raise malformed("The property length exceeds the packet")
    block = body[:end] if end < len(body) else body
    properties: Properties = {}
    while at < end:
        at = _read_property(block, at, carrier, properties)
    return properties, end


def _read_property(block: bytes, at: int, carrier: Carrier, properties: Properties) -> int:
    """Read one property into `properties`; the offset behind it."""
    number, at = read_variable_integer(block, at)
    try:
        name = Property(number)
    except ValueError:
        raise malformed(f"Property 0x{number:02X} does not exist") from None
    rule = RULES[name]
    if carrier not in rule.carriers:
        raise malformed(f"{name.name} is not allowed in {carrier.name}")
    value, at = rule.read(block, at)
    if isinstance(value, int) and not rule.least <= value <= rule.most:
        raise protocol_error(f"{name.name} is out of range")
    if name is Property.RESPONSE_TOPIC and not (isinstance(value, str) and is_valid_topic(value)):
        raise protocol_error("RESPONSE_TOPIC is not a topic name")  # [MQTT-3.3.2-14]
    if name is Property.TOPIC_ALIAS and value == 0:
        raise RemoteProtocolError(ReasonCode.TOPIC_ALIAS_INVALID, "A topic alias of 0")  # [MQTT-3.3.2-8]
    _store(properties, name, value, carrier)
    return at


def _store(
    properties: Properties, name: Property, value: int | str | bytes | tuple[str, str], carrier: Carrier
) -> None:
    """Add a value; only user properties, and subscription identifiers of a PUBLISH, may repeat."""
    known = properties.get(name)
    repeats = isinstance(value, tuple)
    repeats = repeats or (name is Property.SUBSCRIPTION_IDENTIFIER and carrier is Carrier.PUBLISH)
    if repeats and isinstance(known, list):
        known.append(value)  # type: ignore[arg-type]  # one property name, one type of item
    elif repeats:
        properties[name] = [value]  # type: ignore[assignment]  # a pair or an identifier, see above
    elif known is not None or isinstance(value, tuple):
        raise protocol_error(f"{name.name} is given twice")
    else:
        properties[name] = value


def pack_properties(properties: Properties | None) -> bytes:
    """Properties with their length, in the order of the dict; one zero byte for None."""
    if not properties:
        return b"\0"
    packed = b"".join(_pack_property(name, value) for name, value in properties.items())
    return pack_variable_integer(len(packed)) + packed


def _pack_property(name: Property, value: PropertyValue) -> bytes:
    """One property, or each value of one that repeats."""
    prefix = bytes((name,))
    if isinstance(value, list):
        return b"".join(prefix + _pack_item(item) for item in value)
    if isinstance(value, str):
        return prefix + pack_text(value)
    if isinstance(value, bytes):
        return prefix + pack_binary(value)
    return prefix + _pack_integer(name, value)


def _pack_item(item: tuple[str, str] | int) -> bytes:
    """A user property, or a subscription identifier of a PUBLISH."""
    if isinstance(item, tuple):
        return pack_text(item[0]) + pack_text(item[1])
    return pack_variable_integer(item)


def _pack_integer(name: Property, value: int) -> bytes:
    """An integer in the width its property has."""
    read = RULES[name].read
    if read is read_variable_integer:
        return pack_variable_integer(value)
    if read is read_u16:
        return pack_u16(value)
    width = 1 if read is read_byte else 4
    if not 0 <= value < 1 << 8 * width:
        raise LocalProtocolError(f"{value} does not fit in {name.name}")
    return value.to_bytes(width, "big")
