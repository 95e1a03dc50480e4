"""The server side of one connection: states and violations."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from shared.mqtt.codec import encode
from shared.mqtt.codes import ConnectReturnCode, Property, ReasonCode
from shared.mqtt.connection import ServerConnection
from shared.mqtt.errors import LocalProtocolError
from shared.mqtt.legality import PERFORMED, RECEIVED, Action, State
from shared.mqtt.packets import (
    Disconnect,
    Packet,
    Publish,
    Subscribe,
    Subscription,
)
from tests.shared.mqtt.catalogue import BAD_AFTER_CONNECT, SERVER_ONLY, Bad, Good
from tests.shared.mqtt.connections import (
    SAMPLES,
    connected,
    connection_in,
    receive,
    sent,
    violation_of,
)

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
