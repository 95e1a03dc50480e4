"""QoS 1 and 2 delivery per packet identifier: each pair of both tables, and the bookkeeping around them."""

from __future__ import annotations

from itertools import product

import pytest

from shared.mqtt.errors import LocalProtocolError, RemoteProtocolError
from shared.mqtt.inflight import (
    INBOUND,
    MAX_PACKET_ID,
    OUTBOUND,
    Answer,
    Inbound,
    InboundDelivery,
    InboundEvent,
    Outbound,
    OutboundDelivery,
    OutboundEvent,
    event_of,
    packet_for,
)
from shared.mqtt.packets import Puback, Pubcomp, Publish, Pubrec, Pubrel

OURS = {InboundEvent.ACCEPTED, InboundEvent.REFUSED}
SENDING = {OutboundEvent.SEND_QOS1, OutboundEvent.SEND_QOS2}
PATHS_IN: dict[Inbound, list[InboundEvent]] = {
    Inbound.FREE: [],
    Inbound.OWES_PUBACK: [InboundEvent.PUBLISH_QOS1],
    Inbound.OWES_PUBREC: [InboundEvent.PUBLISH_QOS2],
    Inbound.AWAITS_PUBREL: [InboundEvent.PUBLISH_QOS2, InboundEvent.ACCEPTED],
}


def inbound_in(state: Inbound) -> InboundDelivery:
    """A delivery whose identifier 7 is in `state`."""
    delivery = InboundDelivery()
    for event in PATHS_IN[state]:
        (delivery.settle if event in OURS else delivery.received)(7, event)
    assert delivery.state_of(7) is state
    return delivery


def outbound_in(state: Outbound) -> OutboundDelivery:
    """A delivery whose identifier 1 is in `state`."""
    delivery = OutboundDelivery(10, 10)
    if state is not Outbound.FREE:
        delivery.send(Publish("a", b"", 1 if state is Outbound.AWAITS_PUBACK else 2))
    if state is Outbound.AWAITS_PUBCOMP:
        delivery.received(1, OutboundEvent.PUBREC)
    assert delivery.states.get(1, Outbound.FREE) is state
    return delivery


@pytest.mark.parametrize(("state", "event"), list(product(Inbound, InboundEvent)), ids=lambda value: value.name)
def test_an_identifier_of_the_client_follows_its_table(state: Inbound, event: InboundEvent) -> None:
    """A pair in the table leads where it says; any other is the error of whoever caused it."""
    delivery = inbound_in(state)
    apply = delivery.settle if event in OURS else delivery.received
    if (state, event) not in INBOUND:
        with pytest.raises(LocalProtocolError if event in OURS else RemoteProtocolError):
            apply(7, event)
        return
    after, answer = INBOUND[state, event]
    assert apply(7, event) is answer
    assert delivery.state_of(7) is after


@pytest.mark.parametrize(
    ("state", "event"),
    [pair for pair in product(Outbound, OutboundEvent) if pair[1] not in SENDING],
    ids=lambda value: value.name,
)
def test_an_identifier_of_ours_follows_its_table(state: Outbound, event: OutboundEvent) -> None:
    """A pair in the table leads where it says; any other is the peer's violation."""
    delivery = outbound_in(state)
    if (state, event) not in OUTBOUND:
        with pytest.raises(RemoteProtocolError):
            delivery.received(1, event)
        return
    after, answer = OUTBOUND[state, event]
    assert delivery.received(1, event) is answer
    assert delivery.states.get(1, Outbound.FREE) is after


def test_we_send_only_under_a_free_identifier() -> None:
    """The two events of sending have an entry for FREE and no other."""
    assert {state for state, event in OUTBOUND if event in SENDING} == {Outbound.FREE}


def test_each_answer_is_one_packet_or_none() -> None:
    """Answers that need a packet name its kind and reason."""
    assert packet_for(Answer.NOTHING, 7) is None
    assert packet_for(Answer.DELIVER, 7) is None
    assert packet_for(Answer.PUBACK, 7, 0x99) == Puback(7, 0x99)
    assert packet_for(Answer.PUBREC, 7) == Pubrec(7)
    assert packet_for(Answer.PUBREL, 7) == Pubrel(7)
    assert packet_for(Answer.PUBREL_NOT_FOUND, 7) == Pubrel(7, 0x92)
    assert packet_for(Answer.PUBCOMP, 7) == Pubcomp(7)
    assert packet_for(Answer.PUBCOMP_NOT_FOUND, 7) == Pubcomp(7, 0x92)


def test_a_pubrec_with_a_failure_is_a_refusal() -> None:
    """Reason codes from 0x80 end the exchange; 0x10 (no subscribers) does not."""
    assert event_of(Pubrec(1, 0x10)) is OutboundEvent.PUBREC
    assert event_of(Pubrec(1, 0x80)) is OutboundEvent.PUBREC_REFUSED
    assert event_of(Puback(1, 0x80)) is OutboundEvent.PUBACK
    assert event_of(Pubcomp(1, 0x92)) is OutboundEvent.PUBCOMP


def test_a_message_sent_twice_is_acknowledged_twice() -> None:
    """Each copy of a QoS 1 message counts and gets its own PUBACK, then the identifier is free."""
    delivery = InboundDelivery()
    for _ in range(3):
        assert delivery.received(7, InboundEvent.PUBLISH_QOS1) is Answer.DELIVER
    assert delivery.count == 3
    assert not delivery.settle_all([7])
    for left in (2, 1, 0):
        assert delivery.settle(7, InboundEvent.ACCEPTED) is Answer.PUBACK
        assert delivery.count == left
    assert delivery.state_of(7) is Inbound.FREE
    with pytest.raises(LocalProtocolError):
        delivery.settle(7, InboundEvent.ACCEPTED)


def test_many_acknowledgements_at_once_free_their_identifiers() -> None:
    """The bulk path does what the table says for each, and notices identifiers that owe nothing."""
    delivery = InboundDelivery()
    for packet_id in range(1, 101):
        delivery.received(packet_id, InboundEvent.PUBLISH_QOS1)
    assert delivery.settle_all(range(1, 100))
    assert delivery.count == 1
    with pytest.raises(LocalProtocolError):
        delivery.settle_all([100, 100])
    with pytest.raises(LocalProtocolError):
        delivery.settle_all([5])


def test_the_bulk_path_leaves_qos_2_to_the_table() -> None:
    """With a QoS 2 exchange open, acknowledgements go one by one."""
    delivery = inbound_in(Inbound.OWES_PUBREC)
    assert not delivery.settle_all([7])
    assert delivery.state_of(7) is Inbound.OWES_PUBREC


def test_messages_beyond_the_window_wait_in_order() -> None:
    """At most `window` messages are on their way; an acknowledgement sends the next."""
    delivery = OutboundDelivery(2, 3)
    messages = [Publish(str(number), b"", 1 + number % 2) for number in range(6)]
    sent = [delivery.send(message) for message in messages]
    assert [len(one) if one is not None else None for one in sent] == [1, 1, 0, 0, 0, None]
    assert delivery.received(1, OutboundEvent.PUBACK) is Answer.NOTHING
    assert [(one.topic, one.packet_id) for one in delivery.next_messages()] == [("2", 3)]
    assert delivery.next_messages() == []


def test_without_a_queue_only_the_window_counts() -> None:
    """A queue of 0 still lets through what can go at once."""
    delivery = OutboundDelivery(1, 0)
    assert delivery.send(Publish("a", b"", 1)) is not None
    assert delivery.send(Publish("b", b"", 1)) is None


def test_identifiers_are_reused_only_when_free() -> None:
    """After 65,535 comes 1, unless it is still in use [MQTT-2.2.1-3]."""
    delivery = OutboundDelivery(100_000, 10)
    delivery.send(Publish("kept", b"", 1))
    for _ in range(2, MAX_PACKET_ID + 1):
        sent = delivery.send(Publish("a", b"", 1))
        assert sent is not None
        delivery.received(sent[0].packet_id, OutboundEvent.PUBACK)
    sent = delivery.send(Publish("a", b"", 1))
    assert sent is not None
    assert sent[0].packet_id == 2
