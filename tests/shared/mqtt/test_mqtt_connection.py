"""The server side of one connection: states, the opening, acknowledgements, messages, violations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest

from shared.mqtt.codec import Decoder, encode
from shared.mqtt.codes import REASONS, ConnectReturnCode, PacketKind, Property, ReasonCode
from shared.mqtt.connection import Delivered, Limits, ServerConnection
from shared.mqtt.errors import LocalProtocolError, RemoteProtocolError
from shared.mqtt.inflight import INBOUND, Answer, Inbound, InboundEvent
from shared.mqtt.legality import PERFORMED, RECEIVED, Action, State
from shared.mqtt.packets import (
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
    Will,
)
from tests.shared.mqtt.catalogue import BAD_AFTER_CONNECT, BAD_CONNECTS, SERVER_ONLY, Bad, Good

VERSIONS = [3, 4, 5]
LIMITS = Limits()
SAMPLES: dict[type[Packet], Packet] = {
    Connect: Connect("d", 5),
    Connack: Connack(),
    Publish: Publish("a", b""),
    Puback: Puback(1),
    Pubrec: Pubrec(1),
    Pubrel: Pubrel(1),
    Pubcomp: Pubcomp(1),
    Subscribe: Subscribe(1, [Subscription("a")]),
    Suback: Suback(1, [0]),
    Unsubscribe: Unsubscribe(1, ["a"]),
    Unsuback: Unsuback(1, [0]),
    Pingreq: Pingreq(),
    Pingresp: Pingresp(),
    Disconnect: Disconnect(),
    Auth: Auth(0x18),
}


def connection_in(state: State, version: int = 5, limits: Limits = LIMITS) -> ServerConnection:
    """A connection that has come to `state`, with nothing left to send."""
    connection = ServerConnection(limits)
    if state is not State.AWAITING_CONNECT:
        connection.receive_data(encode(Connect("d", version)))
    if state is State.ACTIVE:
        connection.accept()
    if state is State.CLOSED:
        connection.disconnect()
    assert connection.state is state
    connection.data_to_send()
    return connection


def connected(version: int, limits: Limits = LIMITS, properties: Properties | None = None) -> ServerConnection:
    """An accepted client, with nothing left to send."""
    connection = ServerConnection(limits)
    connection.receive_data(encode(Connect("d", version, properties=properties)))
    connection.accept()
    connection.data_to_send()
    return connection


def sent(connection: ServerConnection) -> list[Packet]:
    """The packets that wait to be sent, as the client would read them."""
    return Decoder(1_000_000, version=connection.version or 4).feed(connection.data_to_send())


def receive(connection: ServerConnection, *packets: Packet) -> list[Delivered]:
    """What the caller gets when the client sends `packets` in one chunk."""
    return connection.receive_data(b"".join(encode(packet, connection.version) for packet in packets))


def violation_of(call: Callable[[], object]) -> RemoteProtocolError:
    """The violation that `call` must report."""
    with pytest.raises(RemoteProtocolError) as caught:
        call()
    return caught.value


class Told:
    """Records what `on_settled` says of which message."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[int, bool]] = []

    def of(self, number: int) -> Callable[[bool], None]:
        return lambda is_acknowledged: self.outcomes.append((number, is_acknowledged))


# States


@pytest.mark.parametrize(
    ("state", "kind"),
    [pair for pair in product(State, SAMPLES) if pair[0] is not State.CLOSED],
    ids=lambda value: getattr(value, "name", None) or getattr(value, "__name__", None),
)
def test_what_the_client_sends_follows_the_table(state: State, kind: type[Packet]) -> None:
    """A packet in the table leads where it says; any other closes the connection as a protocol error."""
    connection = connection_in(state)
    wire = encode(SAMPLES[kind], 5)
    if (state, kind) in RECEIVED:
        connection.receive_data(wire)
        assert connection.state is RECEIVED[state, kind]
        return
    error = violation_of(lambda: connection.receive_data(wire))
    assert error.reason_code is ReasonCode.PROTOCOL_ERROR
    assert connection.state is State.CLOSED
    is_told = state is State.ACTIVE
    assert sent(connection) == ([Disconnect(ReasonCode.PROTOCOL_ERROR)] if is_told else [])


ACTIONS: dict[Action, Callable[[ServerConnection], object]] = {
    Action.ACCEPT: lambda connection: connection.accept(),
    Action.REFUSE: lambda connection: connection.refuse(ConnectReturnCode.NOT_AUTHORIZED, ReasonCode.BANNED),
    Action.SEND: lambda connection: connection.publish("a", b"", 0),
    Action.DISCONNECT: lambda connection: connection.disconnect(ReasonCode.SERVER_BUSY),
}


@pytest.mark.parametrize(("state", "action"), list(product(State, Action)), ids=lambda value: value.name)
def test_what_the_caller_does_follows_the_table(state: State, action: Action) -> None:
    """An action in the table leads where it says; any other is our own error and changes nothing."""
    connection = connection_in(state)
    if (state, action) not in PERFORMED:
        with pytest.raises(LocalProtocolError):
            ACTIONS[action](connection)
        assert connection.state is state
        return
    ACTIONS[action](connection)
    assert connection.state is PERFORMED[state, action]


def test_nothing_is_sent_after_the_end() -> None:
    """Results that come too late are dropped, and nothing follows a DISCONNECT [MQTT-3.14.4-1]."""
    connection = connection_in(State.CLOSED)
    assert connection.accept() == []
    connection.refuse(ConnectReturnCode.NOT_AUTHORIZED, ReasonCode.NOT_AUTHORIZED)
    connection.acknowledge([1, 2])
    connection.suback(1, [0])
    connection.unsuback(1, [0])
    connection.disconnect()
    assert not connection.publish("a", b"", 1)
    assert connection.data_to_send() == b""


def test_nothing_is_received_after_the_end() -> None:
    """After DISCONNECT even garbage in the same chunk is ignored."""
    connection = connected(4)
    wire = encode(Publish("a", b"")) + encode(Disconnect()) + encode(Publish("b", b"")) + b"\xff\xff"
    assert connection.receive_data(wire) == [Publish("a", b""), Disconnect()]
    assert connection.is_closed
    assert connection.receive_data(b"\x00") == []


# The opening


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


# What comes before CONNACK


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


# Violations


@pytest.mark.parametrize("bad", BAD_AFTER_CONNECT, ids=lambda bad: bad.name)
def test_a_malformed_packet_closes_the_connection(bad: Bad) -> None:
    """A v5 client is told why; what was legal before it is not lost."""
    connection = connected(bad.version)
    before = encode(Publish("a", b"x", 1, 9), bad.version)
    error = violation_of(lambda: connection.receive_data(before + bad.wire))
    assert error.reason_code is bad.code
    assert error.packets == [Publish("a", b"x", 1, 9)]
    assert connection.is_closed
    assert sent(connection) == ([Disconnect(bad.code)] if bad.version == 5 else [])


@pytest.mark.parametrize("good", SERVER_ONLY, ids=lambda good: good.name)
def test_a_client_may_not_send_what_servers_send(good: Good) -> None:
    """CONNACK, SUBACK, UNSUBACK, PINGRESP, and AUTH without a method, are protocol errors."""
    connection = connected(good.version)
    error = violation_of(lambda: connection.receive_data(good.wire))
    assert error.reason_code is ReasonCode.PROTOCOL_ERROR


def test_a_second_connect_of_an_unknown_level_is_a_protocol_error_too() -> None:
    """DISCONNECT cannot say 0x84, and a CONNACK would come too late [MQTT-3.1.0-2]."""
    connection = connected(5)
    violation_of(lambda: connection.receive_data(b"\x10\x07\x00\x04MQTT\x09"))
    assert sent(connection) == [Disconnect(ReasonCode.PROTOCOL_ERROR)]


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (Publish("", b"", properties={Property.TOPIC_ALIAS: 1}), ReasonCode.TOPIC_ALIAS_INVALID),
        (Publish("a", b"", properties={Property.TOPIC_ALIAS: 1}), ReasonCode.TOPIC_ALIAS_INVALID),
        (Publish("a", b"", properties={Property.SUBSCRIPTION_IDENTIFIER: [1]}), ReasonCode.PROTOCOL_ERROR),
        (
            Subscribe(1, [Subscription("a")], {Property.SUBSCRIPTION_IDENTIFIER: 1}),
            ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
        ),
        (Publish("a" * 1025, b""), ReasonCode.TOPIC_NAME_INVALID),
        (Publish("a", b"x" * 65_537), ReasonCode.PACKET_TOO_LARGE),
        (Publish("a", b"x" * 67_584), ReasonCode.PACKET_TOO_LARGE),
    ],
)
def test_what_we_have_not_offered_closes_the_connection(packet: Packet, code: ReasonCode) -> None:
    """CONNACK said what we offer; a client that goes beyond is told which rule it broke."""
    connection = connected(5)
    error = violation_of(lambda: receive(connection, packet))
    assert error.reason_code is code
    assert sent(connection) == [Disconnect(code)]


def test_retained_messages_and_shared_filters_are_not_our_decision() -> None:
    """The retain flag closes nothing, and `$share` goes to the caller as it came."""
    connection = connected(5)
    packets: list[Packet] = [Publish("a", b"x", retain=True), Subscribe(1, [Subscription("$share/g/a", 1)])]
    assert receive(connection, *packets) == packets


# Acknowledging what the client sends


@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_is_acknowledged_when_the_caller_says_so(version: int) -> None:
    """PUBACK comes by `acknowledge`, for many messages at once, in the order given [MQTT-4.6.0-2]."""
    connection = connected(version)
    messages = [Publish("a", b"x", 1, packet_id) for packet_id in (1, 65_535, 7)]
    assert receive(connection, *messages) == messages
    assert connection.data_to_send() == b""
    connection.acknowledge(message.packet_id for message in messages)
    assert connection.data_to_send() == b"\x40\x02\x00\x01\x40\x02\xff\xff\x40\x02\x00\x07"
    with pytest.raises(LocalProtocolError):
        connection.acknowledge([7])


def test_a_refused_message_has_its_reason_on_v5_only() -> None:
    """PUBACK 0x99 on v5; before, every PUBACK is a success."""
    for version, reason in ((5, 0x99), (4, 0)):
        connection = connected(version)
        receive(connection, Publish("a", b"x", 1, 7))
        connection.acknowledge([7], ReasonCode.PAYLOAD_FORMAT_INVALID)
        assert sent(connection) == [Puback(7, reason)]
        receive(connection, Publish("a", b"x", 1, 7))


def test_acknowledging_what_never_came_is_our_error() -> None:
    """A caller that loses count is told, not the client."""
    connection = connected(4)
    connection.acknowledge([])
    with pytest.raises(LocalProtocolError):
        connection.acknowledge([1])
    assert not connection.is_closed


def test_a_message_sent_again_is_delivered_and_acknowledged_again() -> None:
    """While the first copy is unacknowledged, each copy gets its own PUBACK."""
    connection = connected(4)
    message = Publish("a", b"x", 1, 7, True)
    assert receive(connection, message, message) == [message, message]
    connection.acknowledge([7])
    connection.acknowledge([7])
    assert sent(connection) == [Puback(7), Puback(7)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_qos_2_message_is_delivered_once(version: int) -> None:
    """PUBLISH, PUBREC when stored, PUBREL, PUBCOMP; copies in between are not delivered [MQTT-4.3.3-10]."""
    connection = connected(version)
    message = Publish("a", b"x", 2, 7)
    assert receive(connection, message, message) == [message]
    assert connection.data_to_send() == b""
    connection.acknowledge([7])
    assert sent(connection) == [Pubrec(7)]
    assert receive(connection, message) == []
    assert sent(connection) == [Pubrec(7)]
    assert receive(connection, Pubrel(7)) == []
    assert sent(connection) == [Pubcomp(7)]
    assert receive(connection, message) == [message]


def test_a_refused_qos_2_message_is_over() -> None:
    """On v5 PUBREC with a failure ends the exchange [MQTT-4.3.3-9]; on v3 there is no refusal."""
    connection = connected(5)
    receive(connection, Publish("a", b"x", 2, 7))
    connection.acknowledge([7], ReasonCode.QUOTA_EXCEEDED)
    assert sent(connection) == [Pubrec(7, 0x97)]
    assert receive(connection, Publish("a", b"y", 2, 7)) == [Publish("a", b"y", 2, 7)]
    older = connected(4)
    receive(older, Publish("a", b"x", 2, 7))
    older.acknowledge([7], ReasonCode.QUOTA_EXCEEDED)
    assert receive(older, Publish("a", b"x", 2, 7)) == []


@pytest.mark.parametrize(("version", "reason"), [(4, 0), (5, 0x92)])
def test_a_release_of_an_unknown_identifier_is_completed(version: int, reason: int) -> None:
    """A client that lost its connection in between is not held up."""
    connection = connected(version)
    receive(connection, Pubrel(9))
    assert sent(connection) == [Pubcomp(9, reason)]


def test_acknowledgements_of_both_kinds_keep_their_order() -> None:
    """PUBACK and PUBREC come in the order of the identifiers given."""
    connection = connected(4)
    receive(connection, Publish("a", b"", 1, 1), Publish("a", b"", 2, 2), Publish("a", b"", 1, 3))
    connection.acknowledge([1, 2, 3])
    assert sent(connection) == [Puback(1), Pubrec(2), Puback(3)]


def test_one_identifier_cannot_carry_two_messages() -> None:
    """A QoS 2 message under an identifier in use for QoS 1 is a protocol error [MQTT-2.2.1-3]."""
    for first, second in ((1, 2), (2, 1)):
        connection = connected(5)
        wire = encode(Publish("a", b"", first, 7), 5) + encode(Publish("a", b"", second, 7), 5)
        error = violation_of(partial(connection.receive_data, wire))
        assert error.reason_code is ReasonCode.PROTOCOL_ERROR
        assert len(error.packets) == 1


@pytest.mark.parametrize("qos", [1, 2])
def test_a_client_beyond_our_receive_maximum_is_cut_off(qos: int) -> None:
    """The message above the maximum is not delivered; those before it are [MQTT-3.3.4-9]."""
    connection = connected(5, Limits(receive_maximum=3))
    messages = [Publish("a", b"", qos, packet_id) for packet_id in (1, 2, 3, 4)]
    error = violation_of(lambda: receive(connection, *messages))
    assert error.reason_code is ReasonCode.RECEIVE_MAXIMUM_EXCEEDED
    assert error.packets == messages[:3]
    assert sent(connection) == [Disconnect(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)]


def test_copies_count_towards_the_receive_maximum() -> None:
    """Sending the same message again and again does not go around the limit."""
    connection = connected(5, Limits(receive_maximum=3))
    error = violation_of(lambda: receive(connection, *[Publish("a", b"", 1, 7)] * 4))
    assert error.reason_code is ReasonCode.RECEIVE_MAXIMUM_EXCEEDED


def test_an_acknowledgement_makes_room_under_the_receive_maximum() -> None:
    """The maximum limits what is open at one time, not what is sent in all."""
    connection = connected(5, Limits(receive_maximum=2))
    for packet_id in range(1, 50):
        receive(connection, Publish("a", b"", 1, packet_id), Publish("a", b"", 0))
        connection.acknowledge([packet_id])
    receive(connection, Publish("a", b"", 2, 1))
    connection.acknowledge([1])
    receive(connection, Publish("a", b"", 1, 2), Pubrel(1), Publish("a", b"", 1, 3))
    assert not connection.is_closed


def test_older_clients_are_not_bound_by_our_receive_maximum() -> None:
    """They cannot know it."""
    connection = connected(4, Limits(receive_maximum=2))
    assert len(receive(connection, *[Publish("a", b"", 1, packet_id) for packet_id in range(1, 1000)])) == 999


def test_the_inlined_transition_is_the_one_of_the_table() -> None:
    """The loop over messages takes (FREE, PUBLISH_QOS1) for granted, and that ACTIVE takes messages."""
    assert INBOUND[Inbound.FREE, InboundEvent.PUBLISH_QOS1] == (Inbound.OWES_PUBACK, Answer.DELIVER)
    assert RECEIVED[State.ACTIVE, Publish] is State.ACTIVE
    assert PERFORMED[State.ACTIVE, Action.SEND] is State.ACTIVE


# What we send


@pytest.mark.parametrize("version", VERSIONS)
def test_a_ping_is_answered_at_once(version: int) -> None:
    """PINGRESP without the caller, who hears of it all the same [MQTT-3.12.4-1]."""
    connection = connected(version)
    assert receive(connection, Pingreq(), Pingreq()) == [Pingreq(), Pingreq()]
    assert sent(connection) == [Pingresp(), Pingresp()]


@pytest.mark.parametrize(("version", "codes"), [(3, [1, 0x80]), (4, [1, 0x80]), (5, [1, 0x8F])])
def test_a_subscription_is_answered_with_the_codes_of_the_version(version: int, codes: list[int]) -> None:
    """SUBACK knows one failure before v5, UNSUBACK no codes at all."""
    connection = connected(version)
    connection.suback(5, [1, 0x8F])
    connection.unsuback(6, [ReasonCode.NO_SUBSCRIPTION_EXISTED])
    assert sent(connection) == [Suback(5, codes), Unsuback(6, [0x11] if version == 5 else [])]


@pytest.mark.parametrize("code", [code for code in ReasonCode if code in REASONS[PacketKind.DISCONNECT]])
def test_every_reason_a_disconnect_may_have_is_readable(code: ReasonCode) -> None:
    """What the server says at the end is legal for a strict client [MQTT-3.14.2-1]."""
    connection = connected(5)
    connection.disconnect(code)
    assert sent(connection) == [Disconnect(code)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_message_goes_out_and_is_acknowledged(version: int) -> None:
    """QoS 0, 1 and 2 with their handshakes; acknowledgements are not the caller's business."""
    connection = connected(version)
    assert all(connection.publish("a", b"x", qos) for qos in (0, 1, 2))
    assert sent(connection) == [Publish("a", b"x"), Publish("a", b"x", 1, 1), Publish("a", b"x", 2, 2)]
    assert receive(connection, Puback(1), Pubrec(2)) == []
    assert sent(connection) == [Pubrel(2)]
    assert receive(connection, Pubcomp(2)) == []
    assert connection.data_to_send() == b""


def test_the_sender_hears_which_message_was_acknowledged() -> None:
    """PUBACK and PUBREC settle, each once; a refusal of v5 is told as one."""
    connection, told = connected(5), Told()
    for number, qos in enumerate((1, 2, 1, 0)):
        connection.publish("a", b"", qos, told.of(number))
    receive(connection, Puback(1), Pubrec(2), Puback(3, 0x87), Pubcomp(2), Puback(1))
    assert told.outcomes == [(0, True), (1, True), (2, False)]


def test_a_message_that_waits_is_acknowledged_as_itself() -> None:
    """Its identifier is chosen when the window has room."""
    connection, told = connected(5, properties={Property.RECEIVE_MAXIMUM: 1}), Told()
    for number in range(3):
        connection.publish("a", b"", 1, told.of(number))
    receive(connection, Puback(1), Puback(2))
    assert told.outcomes == [(0, True), (1, True)]


@pytest.mark.parametrize(
    "end",
    [
        lambda connection: connection.disconnect(),
        lambda connection: receive(connection, Disconnect()),
        lambda connection: violation_of(lambda: receive(connection, Connect("again", 5))),
    ],
    ids=["ours", "the client's", "a violation"],
)
def test_what_was_not_acknowledged_before_the_end_has_failed(end: Callable[[ServerConnection], object]) -> None:
    """Sent or waiting; nobody is left without an outcome."""
    connection, told = connected(5, properties={Property.RECEIVE_MAXIMUM: 1}), Told()
    for number in range(2):
        connection.publish("a", b"", 1, told.of(number))
    end(connection)
    assert told.outcomes == [(0, False), (1, False)]
    assert not connection.publish("a", b"", 1, told.of(9))
    assert len(told.outcomes) == 2, "a message that was dropped is the caller's to report"


def test_whoever_hears_of_an_acknowledgement_may_send_or_end() -> None:
    """The next message from inside the callback, and the end too."""
    connection = connected(5)
    connection.publish("a", b"", 1, lambda _: connection.publish("b", b"", 1, lambda _: connection.disconnect()))
    sent(connection)
    receive(connection, Puback(1))
    assert sent(connection) == [Publish("b", b"", 1, 2)]
    assert receive(connection, Puback(2), Publish("x", b"")) == []
    assert connection.is_closed


def test_payloads_that_wait_are_limited_in_bytes() -> None:
    """A client that acknowledges nothing cannot fill our memory; a single large one may wait."""
    limits = Limits(max_outbound_queue_bytes=100)
    connection = connected(5, limits, {Property.RECEIVE_MAXIMUM: 1})
    assert [connection.publish("a", b"x" * size, 1) for size in (500, 200, 1)] == [True, True, False]
    receive(connection, Puback(1))
    assert [connection.publish("a", b"x" * size, 1) for size in (60, 60)] == [True, False]


def test_messages_wait_for_the_receive_maximum_of_the_client() -> None:
    """Beyond it they queue, beyond the queue they are dropped; QoS 0 passes [MQTT-3.3.4-7]."""
    connection = connected(5, Limits(max_outbound_queue=2), {Property.RECEIVE_MAXIMUM: 1})
    assert [connection.publish(str(number), b"", 1) for number in range(4)] == [True, True, True, False]
    assert connection.publish("now", b"", 0)
    assert sent(connection) == [Publish("0", b"", 1, 1), Publish("now", b"")]
    receive(connection, Puback(1))
    assert sent(connection) == [Publish("1", b"", 1, 2)]
    receive(connection, Puback(2, 0x80))
    assert sent(connection) == [Publish("2", b"", 1, 3)]


def test_a_message_above_the_packet_size_of_the_client_is_dropped() -> None:
    """Silently, as the specification demands [MQTT-3.1.2-24] [MQTT-3.1.2-25]."""
    connection = connected(5, properties={Property.MAXIMUM_PACKET_SIZE: 20})
    for qos, fits in ((0, 14), (1, 12)):
        assert connection.publish("a", b"x" * fits, qos)
        assert len(connection.data_to_send()) == 20
        assert not connection.publish("a", b"x" * (fits + 1), qos)
        assert connection.data_to_send() == b""


@pytest.mark.parametrize(("topic", "qos"), [("", 0), ("a/+", 0), ("#", 1), ("a", 3)])
def test_an_impossible_message_is_our_error(topic: str, qos: int) -> None:
    """The caller learns it, the client never sees it."""
    connection = connected(4)
    with pytest.raises(LocalProtocolError):
        connection.publish(topic, b"", qos)
    assert connection.data_to_send() == b""


@pytest.mark.parametrize(
    ("version", "packets"),
    [(3, []), (4, []), (5, [Disconnect(ReasonCode.SESSION_TAKEN_OVER)])],
)
def test_the_end_is_announced_on_v5_only(version: int, packets: list[Packet]) -> None:
    """Before v5 the server just closes."""
    connection = connected(version)
    connection.disconnect(ReasonCode.SESSION_TAKEN_OVER)
    assert sent(connection) == packets
    assert connection.is_closed


def test_a_client_that_was_not_accepted_gets_no_disconnect() -> None:
    """[MQTT-3.14.0-1]"""
    for state in (State.AWAITING_CONNECT, State.AUTHENTICATING):
        connection = connection_in(state)
        connection.disconnect(ReasonCode.SERVER_SHUTTING_DOWN)
        assert connection.data_to_send() == b""
        assert connection.is_closed
