"""The server side of one connection: CONNECT, and what comes before CONNACK."""

from __future__ import annotations

import pytest

from shared.mqtt.codec import encode
from shared.mqtt.codes import ConnectReturnCode, Property, ReasonCode
from shared.mqtt.connection import Limits, ServerConnection
from shared.mqtt.errors import LocalProtocolError
from shared.mqtt.legality import State
from shared.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from tests.shared.mqtt.catalogue import BAD_CONNECTS, Bad
from tests.shared.mqtt.connections import (
    LIMITS,
    VERSIONS,
    connected,
    connection_in,
    receive,
    sent,
    violation_of,
)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_connect_is_for_the_caller_to_answer(version: int) -> None:
    """The CONNECT is returned with all it says; nothing is sent before the caller decides."""
    connection = ServerConnection(LIMITS)
    packet = Connect("dev", version, keep_alive_s=20, user_name="t", will=Will("w", b"x", 1, True))
    assert connection.receive_data(encode(packet)) == [packet]
    assert (connection.version, connection.client_id, connection.keep_alive_s) == (version, "dev", 20)
    assert connection.idle_limit_s == 30.0  # [MQTT-3.1.2-22]
    assert connection.data_to_send() == b""


def test_a_keep_alive_of_0_means_no_limit() -> None:
    """A client may be silent for ever if it says so."""
    assert connected(4).idle_limit_s is None


@pytest.mark.parametrize("version", [3, 4])
def test_older_clients_are_accepted_by_four_bytes(version: int) -> None:
    """CONNACK 0 without session; an interval of ours cannot be told and is not in force."""
    connection = ServerConnection(LIMITS)
    connection.receive_data(encode(Connect("", version, keep_alive_s=10)))
    connection.accept(assigned_client_id="made-up", server_keep_alive_s=5)
    assert connection.data_to_send() == b"\x20\x02\x00\x00"
    assert connection.client_id == "made-up"
    assert connection.keep_alive_s == 10


def test_a_v5_client_is_told_our_limits() -> None:
    """CONNACK carries what differs from the defaults of the specification, and only that."""
    connection = ServerConnection(Limits(max_packet_bytes=2000, receive_maximum=20))
    connection.receive_data(encode(Connect("d", 5)))
    connection.accept(assigned_client_id="not needed")
    assert sent(connection) == [
        Connack(
            0,
            False,
            {
                Property.RECEIVE_MAXIMUM: 20,
                Property.RETAIN_AVAILABLE: 0,
                Property.MAXIMUM_PACKET_SIZE: 2000,
                Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE: 0,
                Property.SHARED_SUBSCRIPTION_AVAILABLE: 0,
            },
        )
    ]
    assert connection.client_id == "d"


def test_a_v5_client_is_told_what_we_chose_for_it() -> None:
    """An identifier it lacked, our keep-alive, and that its session will not be kept."""
    connection = ServerConnection(LIMITS)
    connection.receive_data(encode(Connect("", 5, properties={Property.SESSION_EXPIRY_INTERVAL: 60})))
    with pytest.raises(LocalProtocolError):
        connection.accept()
    connection.accept(assigned_client_id="made-up", server_keep_alive_s=7)
    (connack,) = sent(connection)
    assert isinstance(connack, Connack)
    properties = connack.properties or {}
    assert properties[Property.ASSIGNED_CLIENT_IDENTIFIER] == "made-up"  # [MQTT-3.2.2-16]
    assert properties[Property.SERVER_KEEP_ALIVE] == 7  # [MQTT-3.1.2-21]
    assert properties[Property.SESSION_EXPIRY_INTERVAL] == 0
    assert (connection.client_id, connection.keep_alive_s) == ("made-up", 7)


@pytest.mark.parametrize(("version", "code"), [(3, 5), (4, 5), (5, 0x86)])
def test_a_refusal_has_the_code_of_the_version(version: int, code: int) -> None:
    """CONNACK with the return code of v3 or the reason code of v5, and the end."""
    connection = connection_in(State.AUTHENTICATING, version)
    connection.refuse(ConnectReturnCode.NOT_AUTHORIZED, ReasonCode.BAD_USER_NAME_OR_PASSWORD)
    assert sent(connection) == [Connack(code)]
    assert connection.is_closed


@pytest.mark.parametrize(
    ("version", "properties"), [(3, None), (4, None), (5, {Property.REASON_STRING: "it has ended"})]
)
def test_a_refusal_may_say_why_on_v5(version: int, properties: object) -> None:
    """Older clients have no place for it."""
    connection = connection_in(State.AUTHENTICATING, version)
    connection.refuse(ConnectReturnCode.NOT_AUTHORIZED, ReasonCode.NOT_AUTHORIZED, reason="it has ended")
    (connack,) = sent(connection)
    assert isinstance(connack, Connack)
    assert connack.properties == properties


@pytest.mark.parametrize(
    ("name", "level", "answer"),
    [
        (b"MQTT", 0, b"\x20\x02\x00\x01"),
        (b"MQTT", 3, b"\x20\x02\x00\x01"),
        (b"MQIsdp", 4, b"\x20\x02\x00\x01"),
        (b"MQTT", 0x84, b"\x20\x02\x00\x01"),  # a bridge: it falls back on level 4
        (b"MQIsdp", 0x83, b"\x20\x02\x00\x01"),
        (b"MQTT", 6, b"\x20\x03\x00\x84\x00"),
        (b"MQTT", 255, b"\x20\x03\x00\x84\x00"),
        (b"HTTP", 4, b""),
    ],
)
def test_a_level_we_do_not_speak_is_answered_in_a_form_its_client_reads(name: bytes, level: int, answer: bytes) -> None:
    """CONNACK 0x01 or 0x84 and close; another protocol gets no answer [MQTT-3.1.2-2]."""
    connection = ServerConnection(LIMITS)
    body = b"\0" + bytes((len(name),)) + name + bytes((level,)) + b"whatever follows"
    error = violation_of(lambda: connection.receive_data(b"\x10" + bytes((len(body),)) + body))
    assert error.reason_code is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION
    assert connection.data_to_send() == answer
    assert connection.is_closed


def test_an_empty_identifier_needs_a_clean_session_on_v311() -> None:
    """CONNACK 0x02 and close [MQTT-3.1.3-8]; v3.1 and v5 are not asked."""
    connection = ServerConnection(LIMITS)
    error = violation_of(lambda: connection.receive_data(encode(Connect("", 4, False))))
    assert error.packets == []
    assert connection.data_to_send() == b"\x20\x02\x00\x02"
    assert connection.is_closed
    for version in (3, 5):
        packet = Connect("", version, False)
        assert ServerConnection(LIMITS).receive_data(encode(packet)) == [packet]


def test_a_long_identifier_is_welcome_on_v31() -> None:
    """The 23 characters of MQTT 3.1 are not enforced."""
    packet = Connect("x" * 100, 3)
    assert ServerConnection(LIMITS).receive_data(encode(packet)) == [packet]


def test_enhanced_authentication_is_refused() -> None:
    """An authentication method is answered by CONNACK 0x8C [MQTT-4.12.0-1]."""
    connection = ServerConnection(LIMITS)
    packet = Connect("d", 5, properties={Property.AUTHENTICATION_METHOD: "SCRAM"})
    error = violation_of(lambda: connection.receive_data(encode(packet)))
    assert error.reason_code is ReasonCode.BAD_AUTHENTICATION_METHOD
    assert sent(connection) == [Connack(ReasonCode.BAD_AUTHENTICATION_METHOD)]
    assert connection.is_closed


@pytest.mark.parametrize("bad", BAD_CONNECTS, ids=lambda bad: bad.name)
def test_a_malformed_connect_closes_the_connection(bad: Bad) -> None:
    """The first packet must be a CONNECT without fault; only an unknown level is answered."""
    connection = ServerConnection(LIMITS)
    error = violation_of(lambda: connection.receive_data(bad.wire))
    assert error.reason_code is bad.code
    assert connection.is_closed
    if bad.code is not ReasonCode.UNSUPPORTED_PROTOCOL_VERSION:
        assert connection.data_to_send() == b""


@pytest.mark.parametrize("first", [b"G", b"\x16", b"\x30", b"\xff", b"\x00"])
def test_another_protocol_is_recognised_by_its_first_byte(first: bytes) -> None:
    """An HTTP request or a TLS hello is not waited for [MQTT-3.1.0-1]."""
    connection = ServerConnection(LIMITS)
    violation_of(lambda: connection.receive_data(first))
    assert connection.is_closed
    assert connection.data_to_send() == b""


@pytest.mark.parametrize("version", VERSIONS)
def test_packets_before_connack_wait_for_it(version: int) -> None:
    """Clients need not wait for CONNACK [MQTT-3.1.4-5]: what they send is handed over by `accept`, in order."""
    connection = ServerConnection(LIMITS)
    early: list[Packet] = [
        Subscribe(1, [Subscription("r")]),
        Pingreq(),
        Publish("a", b"x", 1, 2),
        Disconnect(),
        Publish("too late", b""),
    ]
    wire = b"".join(encode(packet, version) for packet in (Connect("d", version), *early))
    assert connection.receive_data(wire) == [Connect("d", version)]
    assert connection.data_to_send() == b""
    assert connection.accept() == early[:4]
    connack, ping = sent(connection)
    assert isinstance(connack, Connack)
    assert ping == Pingresp()
    assert connection.is_closed


def test_packets_before_connack_are_limited_in_number() -> None:
    """The 101st packet closes the connection as a quota, without an answer [MQTT-3.14.0-1]."""
    connection = connection_in(State.AUTHENTICATING)
    receive(connection, *[Publish("a", b"")] * 100)
    error = violation_of(lambda: receive(connection, Pingreq()))
    assert error.reason_code is ReasonCode.QUOTA_EXCEEDED
    assert connection.is_closed
    assert connection.data_to_send() == b""


@pytest.mark.parametrize(
    "packet",
    [
        Publish("a", b"x" * 60_000),
        Subscribe(1, [Subscription("a")] * 10_000),
        Unsubscribe(1, ["a"] * 10_000),
        Publish("a", b"", properties={Property.USER_PROPERTY: [("", "")] * 10_000}),
    ],
    ids=["payload", "subscriptions", "filters", "user properties"],
)
def test_packets_before_connack_are_limited_in_memory(packet: Packet) -> None:
    """A stranger cannot make us hold megabytes, whatever it fills its packets with."""
    connection = connection_in(State.AUTHENTICATING)
    error = violation_of(lambda: receive(connection, *[packet] * 20))
    assert error.reason_code is ReasonCode.QUOTA_EXCEEDED


def test_a_violation_among_the_early_packets_is_found_by_accept() -> None:
    """The same rules hold for them; what was legal before comes with the error."""
    connection = connection_in(State.AUTHENTICATING)
    receive(connection, Publish("a", b""), Publish("", b"", properties={Property.TOPIC_ALIAS: 1}))
    error = violation_of(connection.accept)
    assert error.reason_code is ReasonCode.TOPIC_ALIAS_INVALID
    assert error.packets == [Publish("a", b"")]
    assert sent(connection)[1:] == [Disconnect(ReasonCode.TOPIC_ALIAS_INVALID)]
