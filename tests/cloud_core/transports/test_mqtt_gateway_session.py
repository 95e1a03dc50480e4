"""Which sessions are those of gateways, and what reaches their adapter."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.transports.mqtt import adapter as mqtt_adapter
from shared.errors import MalformedRequest, RateLimited
from shared.mqtt.packets import Pingreq, Puback, Publish
from tests.support.mqtt import MqttPeer, MqttServer, server_with_device
from tests.support.stores import StoreUnderTest


class RecordingGateway:
    """Stands for `GatewayAdapter`; `made` are all of a test."""

    made: list[RecordingGateway]

    def __init__(self, _api: Any, identity: Any, port: Any) -> None:
        self.identity, self.port = identity, port
        self.packets: list[Publish] = []
        self.outcomes: list[Any] = []  # of the next messages, said at once
        self.pings = 0
        self.reads = 0
        self.is_closed = False
        self.made.append(self)

    def publish(self, packet: Publish) -> None:
        self.packets.append(packet)
        if self.outcomes:
            self.port.slot(packet)(self.outcomes.pop(0))

    def heard(self) -> None:
        self.reads += 1

    def pinged(self) -> None:
        self.pings += 1

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


@pytest.fixture
def server(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> MqttServer:
    RecordingGateway.made = []
    monkeypatch.setattr(mqtt_adapter, "GatewayAdapter", RecordingGateway)
    server = server_with_device(sqlite_store)
    server.add_gateway("gw", "gateway-token", sqlite_store.add_profile("gateways"))
    return server


def gateway(server: MqttServer, version: int = 5) -> tuple[MqttPeer, RecordingGateway]:
    peer = server.log_in(version, "gateway-token")
    return peer, RecordingGateway.made[-1]


def test_a_gateways_own_topics_reach_its_adapter(server: MqttServer) -> None:
    """All below `v1/gateway/`, unknown ones too, in order; PINGREQ as well; the end once."""
    peer, adapter = gateway(server)
    assert adapter.identity.device_name == "gw"
    peer.send(Publish("v1/gateway/connect", b"{}", 1, 1), Pingreq(), Publish("v1/gateway/none", b"", 0, 0))
    assert [one.topic for one in adapter.packets] == ["v1/gateway/connect", "v1/gateway/none"]
    assert adapter.pings == 1
    peer.protocol.connectionLost()
    assert adapter.is_closed


def test_a_gateway_is_a_device_too(server: MqttServer) -> None:
    """Its own data go the usual way, and count as its activity, which may be that of its devices (G9)."""
    peer, adapter = gateway(server)
    reads = adapter.reads
    assert peer.publish("v1/devices/me/telemetry", b'{"a":1}') == [Puback(1)]
    assert adapter.packets == []
    assert adapter.reads == reads + 1


def test_a_plain_device_has_no_such_adapter(server: MqttServer) -> None:
    server.log_in()
    assert RecordingGateway.made == []


def test_acknowledgements_keep_their_order(server: MqttServer) -> None:
    """A gateway's messages wait for their outcome in the same row as its own data [MQTT-4.6.0-2]."""
    peer, adapter = gateway(server)
    peer.send(Publish("v1/gateway/telemetry", b"{}", 1, 1), Publish("v1/devices/me/telemetry", b'{"a":1}', 1, 2))
    done = adapter.port.slot(adapter.packets[0])
    assert peer.received() == [Puback(2)], "no place was taken for the first one yet"
    peer.send(Publish("v1/devices/me/telemetry", b'{"a":2}', 1, 3))
    assert peer.received() == []
    done(MalformedRequest("bad"))
    assert peer.received() == [Puback(1, 0x99), Puback(3)]


def test_a_limited_gateway_of_version_3_is_slowed_down(server: MqttServer) -> None:
    """A refusal that is said at once brings the message again, before what came behind it."""
    peer, adapter = gateway(server, version=4)
    adapter.outcomes = [RateLimited(retry_after_s=3.0), None]
    peer.send(Publish("v1/gateway/telemetry", b"{}", 1, 1), Publish("v1/devices/me/telemetry", b'{"a":2}', 1, 2))
    assert peer.received() == []
    assert peer.transport.producerState == "paused"
    server.tick(3)
    assert peer.received() == [Puback(1), Puback(2)]
    assert [one.packet_id for one in adapter.packets] == [1, 1]
    assert peer.transport.producerState == "producing"


def test_a_late_refusal_of_version_3_is_not_acknowledged(server: MqttServer) -> None:
    """The gateway is not read for a while, and sends the message again when it reconnects."""
    peer, adapter = gateway(server, version=4)
    peer.send(Publish("v1/gateway/telemetry", b"{}", 1, 1))
    adapter.port.slot(adapter.packets[0])(RateLimited(retry_after_s=3.0))
    peer.send(Publish("v1/devices/me/telemetry", b'{"a":2}', 1, 2))
    assert peer.received() == [Puback(2)]
    assert peer.transport.producerState == "paused"
    server.tick(3)
    assert peer.transport.producerState == "producing"


@pytest.mark.parametrize(("closes", "is_closed"), [(True, True), (False, False)])
def test_a_bad_message_of_a_gateway_is_as_that_of_a_device(server: MqttServer, closes: bool, is_closed: bool) -> None:
    """Acknowledged, or the end, as the profile says (M4)."""
    server.give_profile(closes_on_malformed=closes)
    peer, adapter = gateway(server, version=4)
    adapter.outcomes = [MalformedRequest("bad")]
    assert peer.publish("v1/gateway/telemetry", b"x") == ([] if closes else [Puback(1)])
    assert peer.is_closed is is_closed
    assert adapter.is_closed is is_closed
    assert server.service.counters.malformed == 1


def test_a_gateway_sends_by_its_port(server: MqttServer) -> None:
    """With the QoS of its subscription, and hears what became of it, in any case once."""
    peer, adapter = gateway(server)
    outcomes: list[Any] = []
    assert adapter.port.subscribed_qos("v1/gateway/rpc") == 1
    peer.subscribe("v1/gateway/+", qos=0)
    assert adapter.port.subscribed_qos("v1/gateway/rpc") == 0
    assert adapter.port.publish("v1/gateway/rpc", b"{}", 0, outcomes.append)
    assert outcomes == [True]
    assert adapter.port.publish("v1/gateway/rpc", b"{}", 1, outcomes.append)
    message = peer.received()[-1]
    peer.send(Puback(message.packet_id))
    assert outcomes == [True, True]
    peer.protocol.connectionLost()
    assert not adapter.port.publish("v1/gateway/rpc", b"{}", 1, outcomes.append)
    assert outcomes == [True, True, False]
