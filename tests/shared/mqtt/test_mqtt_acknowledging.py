"""The server side of one connection: acknowledging what the client sends."""

from __future__ import annotations

from functools import partial

import pytest

from shared.mqtt.codec import encode
from shared.mqtt.codes import ReasonCode
from shared.mqtt.connection import Limits
from shared.mqtt.errors import LocalProtocolError
from shared.mqtt.inflight import INBOUND, Answer, Inbound, InboundEvent
from shared.mqtt.legality import PERFORMED, RECEIVED, Action, State
from shared.mqtt.packets import (
    Disconnect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
)
from tests.shared.mqtt.connections import (
    VERSIONS,
    connected,
    receive,
    sent,
    violation_of,
)


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
