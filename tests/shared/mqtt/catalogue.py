"""Control packets as bytes, good and malformed, for every test that feeds a decoder.

Written by hand from the specifications, not by our encoder, so that one can be tested by the other.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.mqtt.codes import Property, ReasonCode
from shared.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
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
    Will,
)


class Good(NamedTuple):
    """A packet on the wire of `version` and its value; not `is_canonical`: we would encode it otherwise."""

    name: str
    version: int
    wire: bytes
    packet: Packet
    is_canonical: bool = True


class Bad(NamedTuple):
    """Bytes that a decoder of `version` refuses, and the reason code it gives."""

    name: str
    version: int
    wire: bytes
    code: ReasonCode


GOOD: list[Good] = [
    Good(
        "v3.1 CONNECT",
        3,
        b"\x10\x11"  # CONNECT, 17 bytes follow
        b"\x00\x06MQIsdp\x03"  # protocol name, level 3
        b"\x02\x00\x3c"  # clean session, keep alive 60
        b"\x00\x03dev",  # client identifier
        Connect("dev", 3, True, 60),
    ),
    Good(
        "v3.1 CONNECT whose user name flag promises more than there is",
        3,
        b"\x10\x11\x00\x06MQIsdp\x03"
        b"\xc2\x00\x3c"  # user name and password flags
        b"\x00\x03dev",  # and the end
        Connect("dev", 3, True, 60),
        is_canonical=False,
    ),
    Good(
        "v3.1 SUBSCRIBE sent again with the DUP flag",
        3,
        b"\x8a\x06\x00\x05\x00\x01a\x01",
        Subscribe(5, [Subscription("a", 1)]),
        is_canonical=False,
    ),
    Good(
        "v3.1.1 CONNECT with everything",
        4,
        b"\x10\x25"
        b"\x00\x04MQTT\x04"  # protocol name, level 4
        b"\xf6\x00\x0a"  # user, password, will retain, will QoS 2, will, clean; keep alive 10
        b"\x00\x03dev"  # client identifier
        b"\x00\x04last"  # will topic
        b"\x00\x03\x00\xff\x01"  # will message, binary
        b"\x00\x05token"  # user name
        b"\x00\x02\xff\xfe",  # password, binary
        Connect("dev", 4, True, 10, "token", b"\xff\xfe", Will("last", b"\0\xff\x01", 2, True)),
    ),
    Good(
        "v3.1.1 CONNECT with empty client identifier and empty credentials",
        4,
        b"\x10\x10\x00\x04MQTT\x04\xc2\x00\x00\x00\x00\x00\x00\x00\x00",
        Connect("", 4, True, 0, "", b""),
    ),
    Good("v3.1.1 CONNACK", 4, b"\x20\x02\x01\x00", Connack(0, True)),
    Good("v3.1.1 CONNACK, refused", 4, b"\x20\x02\x00\x05", Connack(5)),
    Good("PUBLISH QoS 0", 4, b"\x30\x05\x00\x01ahi", Publish("a", b"hi")),
    Good("PUBLISH QoS 0 without payload", 4, b"\x30\x03\x00\x01a", Publish("a", b"")),
    Good("PUBLISH QoS 1", 4, b"\x32\x07\x00\x01a\x00\x07hi", Publish("a", b"hi", 1, 7)),
    Good(
        "PUBLISH QoS 2 with DUP and RETAIN",
        4,
        b"\x3d\x05\x00\x01a\xff\xff",
        Publish("a", b"", 2, 65535, True, True),
    ),
    Good("PUBLISH to a topic outside ASCII", 4, b"\x30\x05\x00\x03/\xc3\xa9", Publish("/é", b"")),
    Good(
        "PUBLISH to a topic with a byte order mark",
        4,
        b"\x30\x05\x00\x03\xef\xbb\xbf",
        Publish("\ufeff", b""),
    ),
    Good(
        "PUBLISH with a two-byte remaining length",
        4,
        b"\x30\x83\x01\x00\x01a" + b"x" * 128,
        Publish("a", b"x" * 128),
    ),
    Good(
        "PUBLISH with a three-byte remaining length",
        4,
        b"\x30\x83\x80\x01\x00\x01a" + b"x" * 16_384,
        Publish("a", b"x" * 16_384),
    ),
    Good(
        "v3.1.1 PUBLISH with a remaining length longer than needed",
        4,
        b"\x30\x83\x00\x00\x01a",
        Publish("a", b""),
        is_canonical=False,
    ),
    Good("PUBACK", 4, b"\x40\x02\x00\x07", Puback(7)),
    Good("PUBREC", 4, b"\x50\x02\x00\x07", Pubrec(7)),
    Good("PUBREL", 4, b"\x62\x02\x00\x07", Pubrel(7)),
    Good("PUBCOMP", 4, b"\x70\x02\x00\x07", Pubcomp(7)),
    Good(
        "SUBSCRIBE to two filters",
        4,
        b"\x82\x0c\x00\x05\x00\x03a/+\x01\x00\x01#\x02",
        Subscribe(5, [Subscription("a/+", 1), Subscription("#", 2)]),
    ),
    Good("SUBACK", 4, b"\x90\x04\x00\x05\x01\x80", Suback(5, [1, 0x80])),
    Good("UNSUBSCRIBE", 4, b"\xa2\x08\x00\x06\x00\x01a\x00\x01b", Unsubscribe(6, ["a", "b"])),
    Good("UNSUBACK", 4, b"\xb0\x02\x00\x06", Unsuback(6)),
    Good("PINGREQ", 4, b"\xc0\x00", Pingreq()),
    Good("PINGRESP", 4, b"\xd0\x00", Pingresp()),
    Good("DISCONNECT", 4, b"\xe0\x00", Disconnect()),
    Good(
        "v5 CONNECT with properties and a will",
        5,
        b"\x10\x30\x00\x04MQTT\x05\x06\x00\x78"
        b"\x0f"  # 15 bytes of properties
        b"\x11\x00\x00\x00\x0a"  # session expiry 10 s
        b"\x21\x00\x14"  # receive maximum 20
        b"\x26\x00\x01k\x00\x01v"  # user property
        b"\x00\x00"  # client identifier, empty
        b"\x05\x18\x00\x00\x00\x05"  # will properties: delay 5 s
        b"\x00\x04last\x00\x06gone..",
        Connect(
            "",
            5,
            True,
            120,
            will=Will("last", b"gone..", properties={Property.WILL_DELAY_INTERVAL: 5}),
            properties={
                Property.SESSION_EXPIRY_INTERVAL: 10,
                Property.RECEIVE_MAXIMUM: 20,
                Property.USER_PROPERTY: [("k", "v")],
            },
        ),
    ),
    Good(
        "v5 CONNECT with a password alone",
        5,
        b"\x10\x13\x00\x04MQTT\x05\x42\x00\x00\x00\x00\x01d\x00\x03pwd",
        Connect("d", 5, password=b"pwd"),
    ),
    Good(
        "v5 CONNACK with properties",
        5,
        b"\x20\x0b\x00\x00\x08\x21\x00\x0a\x27\x00\x01\x00\x00",
        Connack(0, False, {Property.RECEIVE_MAXIMUM: 10, Property.MAXIMUM_PACKET_SIZE: 65_536}),
    ),
    Good("v5 PUBLISH without properties", 5, b"\x32\x08\x00\x01a\x00\x07\x00hi", Publish("a", b"hi", 1, 7)),
    Good(
        "v5 PUBLISH with every type of property",
        5,
        b"\x30\x2c\x00\x01a"
        b"\x26"  # 38 bytes of properties
        b"\x01\x01"  # payload format: text
        b"\x02\x00\x00\x00\x3c"  # expires in 60 s
        b"\x03\x00\x01j"  # content type
        b"\x08\x00\x01r"  # response topic
        b"\x09\x00\x02\x00\xff"  # correlation data
        b"\x0b\x80\x01\x0b\x02"  # two subscription identifiers, 128 and 2
        b"\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x00"  # two user properties of one name
        b"hi",
        Publish(
            "a",
            b"hi",
            properties={
                Property.PAYLOAD_FORMAT_INDICATOR: 1,
                Property.MESSAGE_EXPIRY_INTERVAL: 60,
                Property.CONTENT_TYPE: "j",
                Property.RESPONSE_TOPIC: "r",
                Property.CORRELATION_DATA: b"\0\xff",
                Property.SUBSCRIPTION_IDENTIFIER: [128, 2],
                Property.USER_PROPERTY: [("k", "v"), ("k", "")],
            },
        ),
    ),
    Good(
        "v5 PUBLISH with a topic alias instead of a topic",
        5,
        b"\x30\x06\x00\x00\x03\x23\x00\x01",
        Publish("", b"", properties={Property.TOPIC_ALIAS: 1}),
    ),
    Good("v5 PUBACK without reason", 5, b"\x40\x02\x00\x07", Puback(7)),
    Good("v5 PUBACK with reason", 5, b"\x40\x03\x00\x07\x99", Puback(7, 0x99)),
    Good(
        "v5 PUBREC with reason and text",
        5,
        b"\x50\x08\x00\x07\x80\x04\x1f\x00\x01?",
        Pubrec(7, 0x80, {Property.REASON_STRING: "?"}),
    ),
    Good("v5 PUBREL, not found", 5, b"\x62\x03\x00\x07\x92", Pubrel(7, 0x92)),
    Good("v5 PUBCOMP with empty properties", 5, b"\x70\x04\x00\x07\x00\x00", Pubcomp(7), is_canonical=False),
    Good(
        "v5 SUBSCRIBE with all options",
        5,
        b"\x82\x09\x00\x05\x02\x0b\x07\x00\x01a\x2e",
        Subscribe(5, [Subscription("a", 2, True, True, 2)], {Property.SUBSCRIPTION_IDENTIFIER: 7}),
    ),
    Good("v5 SUBACK", 5, b"\x90\x05\x00\x05\x00\x01\x8f", Suback(5, [1, 0x8F])),
    Good("v5 UNSUBSCRIBE", 5, b"\xa2\x06\x00\x06\x00\x00\x01a", Unsubscribe(6, ["a"])),
    Good("v5 UNSUBACK", 5, b"\xb0\x05\x00\x06\x00\x00\x11", Unsuback(6, [0, 0x11])),
    Good("v5 DISCONNECT without reason", 5, b"\xe0\x00", Disconnect()),
    Good("v5 DISCONNECT with reason", 5, b"\xe0\x01\x04", Disconnect(4)),
    Good(
        "v5 DISCONNECT with properties",
        5,
        b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00",
        Disconnect(0, {Property.SESSION_EXPIRY_INTERVAL: 0}),
    ),
    Good("v5 AUTH", 5, b"\xf0\x06\x18\x04\x15\x00\x01m", Auth(0x18, {Property.AUTHENTICATION_METHOD: "m"})),
]

_MALFORMED = ReasonCode.MALFORMED_PACKET
_PROTOCOL = ReasonCode.PROTOCOL_ERROR
_TOPIC = ReasonCode.TOPIC_NAME_INVALID
_LEVEL = ReasonCode.UNSUPPORTED_PROTOCOL_VERSION

BAD_CONNECTS: list[Bad] = [
    Bad("fixed header flags", 4, b"\x11\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01d", _MALFORMED),
    Bad("a protocol name that is not MQTT", 4, b"\x10\x0d\x00\x04MQTX\x04\x02\x00\x00\x00\x01d", _LEVEL),
    Bad("a level from the future", 4, b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x01d", _LEVEL),
    Bad("the name of v3.1.1 at level 3", 4, b"\x10\x0d\x00\x04MQTT\x03\x02\x00\x00\x00\x01d", _LEVEL),
    Bad("the reserved flag", 4, b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01d", _MALFORMED),
    Bad("will QoS 3", 4, b"\x10\x13\x00\x04MQTT\x04\x1e\x00\x00\x00\x01d\x00\x01w\x00\x01x", _MALFORMED),
    Bad("will QoS without a will", 4, b"\x10\x0d\x00\x04MQTT\x04\x0a\x00\x00\x00\x01d", _MALFORMED),
    Bad("will retain without a will", 4, b"\x10\x0d\x00\x04MQTT\x04\x22\x00\x00\x00\x01d", _MALFORMED),
    Bad(
        "a password without a user name",
        4,
        b"\x10\x10\x00\x04MQTT\x04\x42\x00\x00\x00\x01d\x00\x01p",
        _MALFORMED,
    ),
    Bad(
        "a user name flag without a user name",
        4,
        b"\x10\x0d\x00\x04MQTT\x04\x82\x00\x00\x00\x01d",
        _MALFORMED,
    ),
    Bad("bytes behind the last field", 4, b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x01d!", _MALFORMED),
    Bad(
        "a client identifier that ends outside",
        4,
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x02d",
        _MALFORMED,
    ),
    Bad("a client identifier with NUL", 4, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01\x00", _MALFORMED),
    Bad(
        "a client identifier that is not UTF-8",
        4,
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01\xff",
        _MALFORMED,
    ),
    Bad("an empty body", 4, b"\x10\x00", _MALFORMED),
    Bad(
        "receive maximum 0",
        5,
        b"\x10\x11\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x01d",
        _PROTOCOL,
    ),
    Bad(
        "maximum packet size 0",
        5,
        b"\x10\x13\x00\x04MQTT\x05\x02\x00\x00\x05\x27\x00\x00\x00\x00\x00\x01d",
        _PROTOCOL,
    ),
    Bad(
        "receive maximum twice",
        5,
        b"\x10\x14\x00\x04MQTT\x05\x02\x00\x00\x06\x21\x00\x01\x21\x00\x01\x00\x01d",
        _PROTOCOL,
    ),
    Bad(
        "a property of another packet",
        5,
        b"\x10\x11\x00\x04MQTT\x05\x02\x00\x00\x03\x23\x00\x01\x00\x01d",
        _MALFORMED,
    ),
    Bad("a boolean property of 2", 5, b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x02\x17\x02\x00\x01d", _PROTOCOL),
    Bad(
        "authentication data without a method",
        5,
        b"\x10\x12\x00\x04MQTT\x05\x02\x00\x00\x04\x16\x00\x01x\x00\x01d",
        _PROTOCOL,
    ),
]

BAD_AFTER_CONNECT: list[Bad] = [
    Bad("packet type 0", 4, b"\x00\x00", _MALFORMED),
    Bad("packet type 15 before v5", 4, b"\xf0\x00", _MALFORMED),
    Bad("a remaining length of five bytes", 4, b"\x30\x80\x80\x80\x80\x01", _MALFORMED),
    Bad("a v5 remaining length longer than needed", 5, b"\x30\x84\x00\x00\x01a\x00", _MALFORMED),
    Bad("PUBLISH QoS 3", 4, b"\x36\x05\x00\x01a\x00\x01", _MALFORMED),
    Bad("PUBLISH QoS 0 with DUP", 4, b"\x38\x03\x00\x01a", _MALFORMED),
    Bad("PUBLISH with packet identifier 0", 4, b"\x32\x05\x00\x01a\x00\x00", _MALFORMED),
    Bad("PUBLISH without a body", 4, b"\x30\x00", _MALFORMED),
    Bad("PUBLISH that ends inside its topic length", 4, b"\x30\x01\x00", _MALFORMED),
    Bad("PUBLISH that ends inside its topic", 4, b"\x30\x03\x00\x02a", _MALFORMED),
    Bad("PUBLISH that ends inside its packet identifier", 4, b"\x32\x04\x00\x01a\x00", _MALFORMED),
    Bad("PUBLISH without a topic", 4, b"\x30\x02\x00\x00", _PROTOCOL),
    Bad("v5 PUBLISH without topic and alias", 5, b"\x30\x03\x00\x00\x00", _PROTOCOL),
    Bad("PUBLISH to +", 4, b"\x30\x05\x00\x03a/+", _TOPIC),
    Bad("PUBLISH to #", 4, b"\x30\x05\x00\x03a/#", _TOPIC),
    Bad("PUBLISH to a topic with NUL", 4, b"\x30\x05\x00\x03a\x00b", _MALFORMED),
    Bad("PUBLISH to a topic with a surrogate", 4, b"\x30\x05\x00\x03\xed\xa0\x80", _MALFORMED),
    Bad("PUBLISH to a topic in Latin-1", 4, b"\x30\x03\x00\x01\xe9", _MALFORMED),
    Bad("v5 PUBLISH without its property length", 5, b"\x30\x03\x00\x01a", _MALFORMED),
    Bad("v5 PUBLISH whose properties end outside", 5, b"\x30\x05\x00\x01a\x05\x01", _MALFORMED),
    Bad(
        "v5 PUBLISH with a property cut by the property length",
        5,
        b"\x30\x07\x00\x01a\x02\x23\x00\x01",
        _MALFORMED,
    ),
    Bad("v5 PUBLISH with an expiry of three bytes", 5, b"\x30\x08\x00\x01a\x04\x02\x00\x00\x00", _MALFORMED),
    Bad("v5 PUBLISH with an unknown property", 5, b"\x30\x06\x00\x01a\x02\x7f\x00", _MALFORMED),
    Bad(
        "v5 PUBLISH with topic alias 0",
        5,
        b"\x30\x07\x00\x01a\x03\x23\x00\x00",
        ReasonCode.TOPIC_ALIAS_INVALID,
    ),
    Bad("v5 PUBLISH with a wildcard to respond to", 5, b"\x30\x08\x00\x01a\x04\x08\x00\x01#", _PROTOCOL),
    Bad("v5 PUBLISH with payload format 2", 5, b"\x30\x06\x00\x01a\x02\x01\x02", _PROTOCOL),
    Bad("v5 PUBLISH with payload format twice", 5, b"\x30\x08\x00\x01a\x04\x01\x01\x01\x01", _PROTOCOL),
    Bad("v5 PUBLISH with subscription identifier 0", 5, b"\x30\x06\x00\x01a\x02\x0b\x00", _PROTOCOL),
    Bad("v5 PUBLISH with a padded property length", 5, b"\x30\x05\x00\x01a\x80\x00", _MALFORMED),
    Bad("v5 PUBLISH with a five-byte property length", 5, b"\x30\x08\x00\x01a\x80\x80\x80\x80\x01", _MALFORMED),
    Bad("PUBACK with flags", 4, b"\x41\x02\x00\x07", _MALFORMED),
    Bad("PUBACK with packet identifier 0", 4, b"\x40\x02\x00\x00", _MALFORMED),
    Bad("PUBACK of one byte", 4, b"\x40\x01\x00", _MALFORMED),
    Bad("v3.1.1 PUBACK with a reason", 4, b"\x40\x03\x00\x07\x00", _MALFORMED),
    Bad("v5 PUBACK with a reason of DISCONNECT", 5, b"\x40\x03\x00\x07\x8e", _MALFORMED),
    Bad("v5 PUBACK with bytes behind its properties", 5, b"\x40\x05\x00\x07\x00\x00\x00", _MALFORMED),
    Bad("PUBREL without its flags", 4, b"\x60\x02\x00\x07", _MALFORMED),
    Bad("v3.1.1 PUBREL with DUP", 4, b"\x6a\x02\x00\x07", _MALFORMED),
    Bad("SUBSCRIBE without its flags", 4, b"\x80\x06\x00\x05\x00\x01a\x01", _MALFORMED),
    Bad("SUBSCRIBE with packet identifier 0", 4, b"\x82\x06\x00\x00\x00\x01a\x01", _MALFORMED),
    Bad("SUBSCRIBE without filters", 4, b"\x82\x02\x00\x05", _PROTOCOL),
    Bad("SUBSCRIBE without options", 4, b"\x82\x05\x00\x05\x00\x01a", _MALFORMED),
    Bad("SUBSCRIBE with QoS 3", 4, b"\x82\x06\x00\x05\x00\x01a\x03", _PROTOCOL),
    Bad("SUBSCRIBE with reserved bits", 4, b"\x82\x06\x00\x05\x00\x01a\x04", _MALFORMED),
    Bad("SUBSCRIBE to an empty filter", 4, b"\x82\x05\x00\x05\x00\x00\x01", _PROTOCOL),
    Bad("SUBSCRIBE to a#", 4, b"\x82\x07\x00\x05\x00\x02a#\x01", _PROTOCOL),
    Bad("v5 SUBSCRIBE with reserved bits", 5, b"\x82\x07\x00\x05\x00\x00\x01a\x40", _MALFORMED),
    Bad("v5 SUBSCRIBE with retain handling 3", 5, b"\x82\x07\x00\x05\x00\x00\x01a\x30", _PROTOCOL),
    Bad("v5 SUBSCRIBE, shared and No Local", 5, b"\x82\x10\x00\x05\x00\x00\x0a$share/g/a\x04", _PROTOCOL),
    Bad(
        "v5 SUBSCRIBE with two identifiers",
        5,
        b"\x82\x0b\x00\x05\x04\x0b\x01\x0b\x02\x00\x01a\x00",
        _PROTOCOL,
    ),
    Bad("UNSUBSCRIBE without filters", 4, b"\xa2\x02\x00\x06", _PROTOCOL),
    Bad("UNSUBSCRIBE from a/#/b", 4, b"\xa2\x09\x00\x06\x00\x05a/#/b", _PROTOCOL),
    Bad("PINGREQ with a body", 4, b"\xc0\x01\x00", _MALFORMED),
    Bad("PINGREQ with flags", 4, b"\xc1\x00", _MALFORMED),
    Bad("DISCONNECT with flags", 4, b"\xe1\x00", _MALFORMED),
    Bad("v3.1.1 DISCONNECT with a reason", 4, b"\xe0\x01\x00", _MALFORMED),
    Bad("v5 DISCONNECT with a reason of SUBACK", 5, b"\xe0\x01\x02", _MALFORMED),
    Bad("v5 AUTH with a reason of CONNACK", 5, b"\xf0\x01\x87", _MALFORMED),
]

BAD_FROM_SERVER: list[Bad] = [
    Bad("CONNACK with reserved flags", 4, b"\x20\x02\x02\x00", _MALFORMED),
    Bad("v3.1.1 CONNACK with a reserved code", 4, b"\x20\x02\x00\x06", _MALFORMED),
    Bad("v3.1.1 SUBACK with a reserved code", 4, b"\x90\x03\x00\x05\x03", _MALFORMED),
    Bad("v3.1.1 UNSUBACK with codes", 4, b"\xb0\x03\x00\x05\x00", _MALFORMED),
    Bad("v5 CONNACK without properties", 5, b"\x20\x02\x00\x00", _MALFORMED),
]

BAD = [*BAD_CONNECTS, *BAD_AFTER_CONNECT, *BAD_FROM_SERVER]

# From a client that is connected: the packets only a server may send.
SERVER_ONLY = [good for good in GOOD if isinstance(good.packet, Connack | Suback | Unsuback | Pingresp | Auth)]
