"""Attributes over MQTT: requests, posts, and the news of shared ones (wire-contract.md sections 2.7 and 2.8)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_core.core.downlinks import Interest
from cloud_core.model import Scope
from shared.codecs import JSON
from shared.mqtt.codes import Property
from shared.mqtt.packets import Puback, Publish, Unsubscribe
from tests.support.mqtt import MqttPeer, MqttServer, server_with_device
from tests.support.parts import MarkedCodec
from tests.support.stores import StoreUnderTest


@pytest.fixture
def server(sqlite_store: StoreUnderTest) -> MqttServer:
    return server_with_device(sqlite_store)


def put_shared(server: MqttServer, **values: Any) -> None:
    server.api.outcome(lambda done: server.api.api.attributes.put(server.device_id(), Scope.SHARED, values, done))


def delete_shared(server: MqttServer, *keys: str) -> None:
    server.api.outcome(lambda done: server.api.api.attributes.delete(server.device_id(), Scope.SHARED, keys, done))


def pushed(peer: MqttPeer) -> list[tuple[str, Any, int]]:
    return [(one.topic, json.loads(one.payload), one.qos) for one in peer.received()]


@pytest.mark.parametrize(
    ("topic", "answered_on"),
    [
        ("v1/devices/me/attributes/request/7", "v1/devices/me/attributes/response/7"),
        ("v2/a/req/7", "v2/a/res/7"),
        ("v2/a/req/j/7", "v2/a/res/j/7"),
        ("v1/devices/me/attributes/request/-7", "v1/devices/me/attributes/response/-7"),
    ],
)
def test_an_attribute_request_is_acknowledged_and_then_answered(
    server: MqttServer, topic: str, answered_on: str
) -> None:
    """Client and shared attributes by comma lists, on the matching topic, with the id of the request (M8)."""
    put_shared(server, target=5, other=1)
    peer = server.log_in()
    peer.publish("v1/devices/me/attributes", b'{"fw":"1.0.1","missing":null}')
    acknowledgement, answer = peer.publish(topic, b'{"clientKeys":"fw,missing","sharedKeys":"target"}', 2)
    assert acknowledgement == Puback(2)
    assert (answer.topic, json.loads(answer.payload)) == (
        answered_on,
        {"client": {"fw": "1.0.1"}, "shared": {"target": 5}},
    )
    assert answer.qos == 1, "without a subscription"


@pytest.mark.parametrize("qos", [0, 1])
def test_the_answer_has_the_qos_of_the_subscription(server: MqttServer, qos: int) -> None:
    """A filter with wildcards counts too (M5)."""
    peer = server.log_in()
    peer.subscribe("v1/devices/me/attributes/response/+", qos=qos)
    answer = peer.publish("v1/devices/me/attributes/request/1", b"{}", 2)[-1]
    assert (answer.qos, answer.payload) == (qos, b"{}")


def test_a_request_without_acknowledgement_is_answered_too(server: MqttServer) -> None:
    """QoS 0: nothing but the answer."""
    peer = server.log_in()
    assert [one.topic for one in peer.publish("v2/a/req/1", b"{}", qos=0)] == ["v2/a/res/1"]


@pytest.mark.parametrize("topic", ["v1/devices/me/attributes", "v2/a", "v2/a/j"])
def test_posted_attributes_keep_their_types(server: MqttServer, topic: str) -> None:
    """In client scope, on every topic (M6)."""
    peer = server.log_in()
    body = b'{"s":"text","b":true,"d":3.0,"l":4,"j":{"a":[1,2]}}'
    assert peer.publish(topic, body) == [Puback(1)]
    answer = peer.publish("v1/devices/me/attributes/request/1", b'{"clientKeys":"s,b,d,l,j"}', 2)[-1]
    assert json.loads(answer.payload) == {"client": {"s": "text", "b": True, "d": 3.0, "l": 4, "j": {"a": [1, 2]}}}


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("v1/devices/me/attributes", "v1/devices/me/attributes"),
        ("v2/a", "v2/a"),
        ("v2/a/j", "v2/a/j"),
        ("v1/devices/me/#", "v1/devices/me/attributes"),
        ("v1/devices/me/attributes/#", "v1/devices/me/attributes"),
        ("v2/#", "v2/a"),
    ],
)
@pytest.mark.parametrize("qos", [0, 1])
def test_changes_of_shared_attributes_follow_the_subscription(
    server: MqttServer, topic_filter: str, topic: str, qos: int
) -> None:
    """Written ones as one object, deleted ones by name, in the flavour and QoS asked for (M5, M7)."""
    peer = server.log_in()
    peer.subscribe(topic_filter, qos=qos)
    put_shared(server, a=1, b="x")
    assert pushed(peer) == [(topic, {"a": 1, "b": "x"}, qos)]
    delete_shared(server, "a", "never there")
    assert pushed(peer) == [(topic, {"deleted": ["a"]}, qos)]


def test_nothing_is_pushed_without_a_subscription(server: MqttServer) -> None:
    """Neither before it nor after its end; a subscription to answers is none."""
    peer = server.log_in()
    peer.subscribe("v1/devices/me/attributes/response/+")
    put_shared(server, a=1)
    assert peer.received() == []
    peer.subscribe("v1/devices/me/attributes")
    peer.send(Unsubscribe(4, ["v1/devices/me/attributes"]))
    peer.received()
    put_shared(server, a=2)
    assert peer.received() == []
    assert server.api.api.downlinks.interest(server.device_id(), peer.protocol) is Interest.NOTHING


def test_the_last_subscription_decides_the_flavour(server: MqttServer) -> None:
    """One push, however many subscriptions; a repeated one counts as the last; the one before it comes back."""
    peer = server.log_in()
    peer.subscribe("v1/devices/me/attributes", "v2/a/j")
    put_shared(server, a=1)
    assert [topic for topic, _, _ in pushed(peer)] == ["v2/a/j"]
    peer.subscribe("v1/devices/me/attributes", qos=0)
    put_shared(server, a=2)
    assert pushed(peer) == [("v1/devices/me/attributes", {"a": 2}, 0)]
    peer.send(Unsubscribe(4, ["v1/devices/me/attributes"]))
    peer.received()
    put_shared(server, a=3)
    assert [topic for topic, _, _ in pushed(peer)] == ["v2/a/j"]


def test_each_flavour_has_its_encoding(server: MqttServer) -> None:
    """Plain topics that of the profile, `/j` JSON, `/p` protobuf; requests are answered as they came."""
    server.give_codec(MarkedCodec(JSON))
    put_shared(server, a=1)
    peer = server.log_in(5)
    for topic_filter, mark in (("v1/devices/me/attributes", b"P"), ("v2/a", b"P"), ("v2/a/j", b"{"), ("v2/a/p", b"P")):
        peer.subscribe(topic_filter)
        put_shared(server, a=2)
        assert [one.payload[:1] for one in peer.received()] == [mark]
    for topic, body in (("v2/a/req/1", b"P{}"), ("v2/a/req/p/1", b"P{}"), ("v2/a/req/j/1", b"{}")):
        acknowledgement, answer = peer.publish(topic, body, 2)
        assert (acknowledgement.reason_code, answer.payload[:1]) == (0, body[:1])
    assert peer.publish("v2/a/req/1", b"{}", 3)[0].reason_code == 0x99


def test_a_profile_without_protobuf_says_so(server: MqttServer) -> None:
    """`/p` messages are refused as malformed; a `/p` subscription is granted and does not silence another."""
    peer = server.log_in(5)
    assert [one.reason_code for one in peer.publish("v2/t/p", b"\x0a")] == [0x99]
    assert [one.reason_code for one in peer.publish("v2/a/p", b"\x0a", 2)] == [0x99]
    assert peer.subscribe("v2/a", "v2/a/p") == [1, 1]
    put_shared(server, a=1)
    assert [topic for topic, _, _ in pushed(peer)] == ["v2/a"]


def test_a_clients_packet_size_is_honoured(server: MqttServer) -> None:
    """Maximum Packet Size 99: a smaller push arrives, a larger one is not sent, the connection stays (C2)."""
    peer = server.log_in(5, properties={Property.MAXIMUM_PACKET_SIZE: 99})
    peer.subscribe("v1/devices/me/attributes")
    put_shared(server, a="x" * 200)
    put_shared(server, b="small")
    assert pushed(peer) == [("v1/devices/me/attributes", {"b": "small"}, 1)]
    assert not peer.is_closed
    assert server.service.counters.undeliverable == 1


def test_a_clients_receive_maximum_is_honoured(server: MqttServer) -> None:
    """Pushes beyond it wait for its acknowledgements, in order."""
    peer = server.log_in(5, properties={Property.RECEIVE_MAXIMUM: 1})
    peer.subscribe("v1/devices/me/attributes")
    put_shared(server, a=1)
    put_shared(server, a=2)
    (first,) = peer.received()
    peer.send(Puback(first.packet_id))
    (second,) = peer.received()
    assert (first.payload, second.payload) == (b'{"a":1}', b'{"a":2}')


def test_no_message_is_answered_twice_or_out_of_order(server: MqttServer) -> None:
    """Telemetry on its way to disk, then a request: the request's PUBACK waits, and its answer for that."""
    peer = server.log_in()
    peer.send(
        Publish("v1/devices/me/telemetry", b'{"t":1}', 1, 1),
        Publish("v1/devices/me/attributes/request/1", b"{}", 1, 2),
        Publish("v1/devices/me/telemetry", b'{"t":2}', 1, 3),
    )
    kinds = [one.packet_id if isinstance(one, Puback) else one.topic for one in peer.received()]
    assert kinds.index(1) < kinds.index(2) < kinds.index("v1/devices/me/attributes/response/1")
    assert kinds.index(2) < kinds.index(3)
