"""The server side of one connection: what it sends, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.mqtt.codes import REASONS, PacketKind, Property, ReasonCode
from shared.mqtt.connection import Limits, ServerConnection
from shared.mqtt.errors import LocalProtocolError
from shared.mqtt.legality import State
from shared.mqtt.packets import (
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
    Unsuback,
)
from tests.shared.mqtt.connections import (
    VERSIONS,
    Told,
    connected,
    connection_in,
    receive,
    sent,
    violation_of,
)


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
