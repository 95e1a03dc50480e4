"""Commands to devices, their replies, and calls of devices over MQTT (wire-contract.md section 2.9)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_core.core.downlinks import Ending, Interest
from shared.errors import NotAuthorized
from shared.messages import RpcCommand, RpcRequest
from shared.mqtt.packets import Disconnect, Puback, Publish, Suback, Subscribe, Subscription
from tests.support.mqtt import MqttPeer, MqttServer, server_with_device
from tests.support.parts import RecordingDelivery, RecordingMethods, RecordingRpc
from tests.support.stores import StoreUnderTest

REQUESTS = "v1/devices/me/rpc/request/+"


@pytest.fixture
def server(sqlite_store: StoreUnderTest) -> MqttServer:
    server = server_with_device(sqlite_store)
    server.api.api.rpc = RecordingRpc()  # type: ignore[assignment]
    server.api.api.server_methods = RecordingMethods()  # type: ignore[assignment]
    return server


def command(server: MqttServer, number: int = 0, **members: Any) -> RecordingDelivery:
    """The core sends a command by the newest way to the device."""
    delivery = RecordingDelivery()
    downlink = server.api.api.downlinks.for_commands(server.device_id())
    assert downlink is not None
    downlink.command(RpcCommand(**({"number": number, "method": "m", "params": None} | members)), delivery)
    return delivery


def subscribed(server: MqttServer, topic_filter: str = REQUESTS, qos: int = 1, version: int = 4) -> MqttPeer:
    peer = server.log_in(version)
    assert peer.subscribe(topic_filter, qos=qos) == [qos]
    return peer


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        (REQUESTS, "v1/devices/me/rpc/request/3"),
        ("v2/r/req/+", "v2/r/req/3"),
        ("v2/r/req/j/+", "v2/r/req/j/3"),
        ("v1/devices/me/#", "v1/devices/me/rpc/request/3"),
        ("v2/#", "v2/r/req/3"),
    ],
)
@pytest.mark.parametrize("qos", [0, 1])
def test_a_command_follows_the_subscription(server: MqttServer, topic_filter: str, topic: str, qos: int) -> None:
    """Exactly method and params, on the topic and with the QoS subscribed to (R2, M5)."""
    peer = subscribed(server, topic_filter, qos)
    command(server, 3, method="setGpio", params={"pin": "23", "value": 1})
    (message,) = peer.received()
    assert (message.topic, message.qos) == (topic, qos)
    assert message.payload == b'{"method":"setGpio","params":{"pin":"23","value":1}}'


def test_a_command_of_qos_1_is_delivered_when_it_is_acknowledged(server: MqttServer) -> None:
    """PUBACK says delivered, each of its own command."""
    peer = subscribed(server)
    first, second = command(server, 0), command(server, 1)
    ids = [one.packet_id for one in peer.received()]
    assert (first.outcomes, second.outcomes) == ([], [])
    peer.send(Puback(ids[1]))
    assert (first.outcomes, second.outcomes) == ([], ["delivered"])
    peer.send(Puback(ids[0]), Puback(ids[1]))
    assert (first.outcomes, second.outcomes) == (["delivered"], ["delivered"])


def test_a_command_of_qos_0_is_delivered_when_it_is_written(server: MqttServer) -> None:
    """Nothing more can be known of it."""
    peer = subscribed(server, qos=0)
    assert command(server).outcomes == ["delivered"]
    assert len(peer.received()) == 1


def test_a_command_that_a_client_refuses_has_failed(server: MqttServer) -> None:
    """PUBACK with a reason of failure (5.0)."""
    peer = subscribed(server, version=5)
    delivery = command(server)
    peer.send(Puback(peer.received()[0].packet_id, 0x83))
    assert delivery.outcomes == ["failed"]


@pytest.mark.parametrize("end", ["lost", "closed by the client", "replaced"])
def test_a_command_without_acknowledgement_fails_with_its_connection(server: MqttServer, end: str) -> None:
    """And the device cannot be reached by it any more."""
    peer = subscribed(server)
    delivery = command(server)
    if end == "lost":
        peer.protocol.connectionLost()
    elif end == "replaced":
        server.log_in()
    else:
        peer.send(Disconnect())
    assert delivery.outcomes == ["failed"]
    assert server.api.api.downlinks.for_commands(server.device_id()) is None


def test_an_unacknowledged_command_may_end_the_session(server: MqttServer) -> None:
    """The core ends the device's ways: DISCONNECT 0x98, and the command has failed once (R6)."""
    peer = subscribed(server, version=5)
    delivery = command(server)
    peer.received()
    server.api.api.downlinks.end(server.device_id(), Ending.DEVICE_CHANGED)
    assert peer.received() == [Disconnect(0x98)]
    assert peer.is_closed
    assert delivery.outcomes == ["failed"]


def test_a_command_that_cannot_be_sent_fails_at_once(server: MqttServer) -> None:
    """Above the client's packet size."""
    from shared.mqtt.codes import Property

    peer = server.log_in(5, properties={Property.MAXIMUM_PACKET_SIZE: 60})
    peer.subscribe(REQUESTS)
    assert command(server, params="x" * 100).outcomes == ["failed"]
    assert peer.received() == []
    assert not peer.is_closed


@pytest.mark.parametrize("qos", [0, 1])
def test_commands_that_waited_come_in_order_behind_suback(server: MqttServer, qos: int) -> None:
    """The core hears of the subscription once SUBACK is written, and what it sends then follows it (R5)."""
    peer = server.log_in()
    downlinks = server.api.api.downlinks

    def send_ten(device_id: int) -> None:
        downlink = downlinks.for_commands(device_id)
        assert downlink is not None
        for number in range(10):
            downlink.command(RpcCommand(number=number, method="m"), RecordingDelivery())

    downlinks.on_reachable(send_ten)
    peer.send(Subscribe(1, [Subscription(REQUESTS, qos)]))
    first, *commands = peer.received()
    assert isinstance(first, Suback)
    assert [one.topic.rpartition("/")[2] for one in commands] == [str(number) for number in range(10)]


def test_the_next_command_may_be_sent_from_inside_an_acknowledgement(server: MqttServer) -> None:
    """What the strategies "on ack" do (R5)."""
    peer = subscribed(server)
    downlink = server.api.api.downlinks.for_commands(server.device_id())
    assert downlink is not None

    class Chain(RecordingDelivery):
        def delivered(self) -> None:
            super().delivered()
            if len(self.outcomes) < 3:
                downlink.command(RpcCommand(number=len(self.outcomes), method="m"), self)

    chain = Chain()
    downlink.command(RpcCommand(number=0, method="m"), chain)
    seen = []
    for _ in range(3):
        (message,) = peer.received()
        seen.append(message.topic[-1])
        peer.send(Puback(message.packet_id))
    assert seen == ["0", "1", "2"]
    assert chain.outcomes == ["delivered"] * 3


@pytest.mark.parametrize("topic", ["v1/devices/me/rpc/response/5", "v2/r/res/5", "v2/r/res/j/5"])
@pytest.mark.parametrize(
    ("body", "value"),
    [(b'{"ok":true}', {"ok": True}), (b"just text", "just text"), (b"", None), (b"3.5", 3.5)],
)
def test_a_reply_reaches_whoever_asked(server: MqttServer, topic: str, body: bytes, value: Any) -> None:
    """Any JSON, text as it is, acknowledged when the core has it (R3)."""
    peer = server.log_in()
    assert peer.publish(topic, body) == [Puback(1)]
    ((number, got),) = server.api.api.rpc.replies  # type: ignore[attr-defined]
    assert (number, got) == (5, value)


@pytest.mark.parametrize("version", [4, 5])
def test_a_reply_with_an_id_that_is_none_is_dropped(server: MqttServer, version: int) -> None:
    """Malformed, as a bad payload is; the connection stays."""
    peer = server.log_in(version)
    assert peer.publish("v1/devices/me/rpc/response/x", b"{}") == [Puback(1, 0x99 if version == 5 else 0)]
    assert not peer.is_closed
    assert server.service.counters.malformed == 1


@pytest.mark.parametrize(
    ("topic", "answered_on"),
    [
        ("v1/devices/me/rpc/request/1", "v1/devices/me/rpc/response/1"),
        ("v2/r/req/1", "v2/r/res/1"),
        ("v2/r/req/j/1", "v2/r/res/j/1"),
    ],
)
def test_a_call_is_acknowledged_before_it_is_answered(server: MqttServer, topic: str, answered_on: str) -> None:
    """The method may take its time; messages behind it do not wait (R7)."""
    limits = {"maxPayloadSize": 65536, "maxInflightMessages": 100, "rateLimits": {"messages": None}}
    methods = RecordingMethods()
    server.api.api.server_methods = methods  # type: ignore[assignment]
    peer = server.log_in()
    assert peer.publish(topic, b'{"method":"getSessionLimits","params":{}}') == [Puback(1)]
    assert peer.publish("v1/devices/me/telemetry", b'{"t":1}', 2) == [Puback(2)]
    ((request, done),) = methods.calls
    assert request == RpcRequest(method="getSessionLimits", params={})
    done(limits)
    (answer,) = peer.received()
    assert (answer.topic, json.loads(answer.payload)) == (answered_on, limits)


def test_an_answer_that_is_there_at_once_comes_behind_the_acknowledgement(server: MqttServer) -> None:
    """Even when the acknowledgement waits for telemetry before it (R7)."""
    server.api.api.server_methods = RecordingMethods({"a": 1})  # type: ignore[assignment]
    peer = server.log_in()
    peer.send(
        Publish("v1/devices/me/telemetry", b'{"t":1}', 1, 1),
        Publish("v1/devices/me/rpc/request/9", b'{"method":"m"}', 1, 2),
    )
    assert [type(one) for one in peer.received()] == [Puback, Puback, Publish]


def test_a_refused_call_is_answered_with_an_error(server: MqttServer) -> None:
    """A device does not wait for nothing."""
    server.api.api.server_methods = RecordingMethods(NotAuthorized())  # type: ignore[assignment]
    peer = server.log_in()
    answer = peer.publish("v1/devices/me/rpc/request/1", b'{"method":"m"}')[-1]
    assert list(json.loads(answer.payload)) == ["error"]


def test_a_malformed_call_is_no_call(server: MqttServer) -> None:
    peer = server.log_in(5)
    assert [one.reason_code for one in peer.publish("v1/devices/me/rpc/request/1", b'{"params":1}')] == [0x99]
    assert server.api.api.server_methods.calls == []  # type: ignore[attr-defined]


def test_only_a_subscription_to_commands_makes_a_device_reachable(server: MqttServer) -> None:
    """Answers to calls are not commands."""
    peer = server.log_in()
    peer.subscribe("v1/devices/me/rpc/response/+", "v1/devices/me/attributes")
    downlinks = server.api.api.downlinks
    assert downlinks.for_commands(server.device_id()) is None
    assert downlinks.interest(server.device_id(), peer.protocol) is Interest.ATTRIBUTES
