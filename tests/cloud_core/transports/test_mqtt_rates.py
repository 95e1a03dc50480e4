"""Message rates over MQTT (wire-contract.md section 2.12): nothing that was acknowledged is lost."""

from __future__ import annotations

from typing import Any

import pytest

from shared.mqtt.packets import Disconnect, Puback, Publish
from tests.support.mqtt import MqttPeer, MqttServer, server_with_device
from tests.support.parts import Budget, RecordingRpc
from tests.support.stores import StoreUnderTest

TELEMETRY = "v1/devices/me/telemetry"


@pytest.fixture
def server(sqlite_store: StoreUnderTest) -> MqttServer:
    server = server_with_device(sqlite_store)
    server.api.api.rpc = RecordingRpc()  # type: ignore[assignment]
    return server


def limit(server: MqttServer, left: int, **options: Any) -> Budget:
    budget = Budget(left, **options)
    server.api.api.rates = budget  # type: ignore[assignment]
    return budget


def telemetry(*numbers: int, qos: int = 1) -> list[Publish]:
    return [Publish(TELEMETRY, b'{"n%d":%d}' % (one, one), qos, one if qos else 0) for one in numbers]


def stored(server: MqttServer) -> set[str]:
    server.settle()
    found: dict[str, Any] = server.api.store.read(lambda tx: tx.latest(tx.device_by_name(1, "dev").id))
    return set(found)


def is_paused(peer: MqttPeer) -> bool:
    return peer.transport.producerState == "paused"


def test_a_v5_client_is_told(server: MqttServer) -> None:
    """PUBACK 0x97 for each message above the rate; it may send them again later."""
    limit(server, 2)
    peer = server.log_in(5)
    peer.send(*telemetry(1, 2, 3, 4))
    assert [(one.packet_id, one.reason_code) for one in peer.received()] == [(1, 0), (2, 0), (3, 0x97), (4, 0x97)]
    assert stored(server) == {"n1", "n2"}
    assert server.service.counters.rate_limited == 2
    assert not is_paused(peer)


def test_a_v3_client_is_slowed_down(server: MqttServer) -> None:
    """It is not read until its rate allows the message, which is then taken, in order; nothing is lost."""
    budget = limit(server, 2)
    peer = server.log_in()
    peer.send(*telemetry(1, 2, 3), Publish("v1/devices/me/rpc/response/4", b"1", 1, 4), *telemetry(5))
    assert [one.packet_id for one in peer.received()] == [1, 2]
    assert is_paused(peer)
    budget.left = 1
    server.tick(2)
    assert [one.packet_id for one in peer.received()] == [3]
    assert is_paused(peer)
    budget.left = 10
    server.tick(2)
    assert [one.packet_id for one in peer.received()] == [4, 5]
    assert not is_paused(peer)
    assert stored(server) == {"n1", "n2", "n3", "n5"}
    assert server.service.counters.rate_limited == 0


def test_a_client_that_is_slowed_down_is_not_silent(server: MqttServer) -> None:
    """Its keep-alive cannot be heard while it is not read."""
    limit(server, 0)
    peer = server.log_in(keep_alive_s=5)
    peer.send(*telemetry(1))
    server.tick(100)
    assert not peer.is_closed


def test_a_slowed_client_that_goes_is_forgotten(server: MqttServer) -> None:
    """What it sent was not acknowledged: it sends it again when it comes back."""
    budget = limit(server, 0)
    peer = server.log_in()
    peer.send(*telemetry(1))
    peer.protocol.connectionLost()
    budget.left = 10
    server.tick(5)
    assert stored(server) == set()


@pytest.mark.parametrize("version", [4, 5])
def test_messages_without_acknowledgement_are_dropped_and_counted(server: MqttServer, version: int) -> None:
    limit(server, 1)
    peer = server.log_in(version)
    peer.send(*telemetry(1, 2, 3, qos=0))
    assert peer.received() == []
    assert stored(server) == {"n1"}
    assert server.service.counters.rate_limited == 2
    assert not is_paused(peer)


@pytest.mark.parametrize("version", [4, 5])
def test_what_can_never_be_allowed_is_not_waited_for(server: MqttServer, version: int) -> None:
    """More at once than the limit ever gives: dropped, told where possible."""
    limit(server, 0, retry_after_s=None)
    peer = server.log_in(version)
    assert peer.publish(TELEMETRY, b'{"a":1}') == [Puback(1, 0x97 if version == 5 else 0)]
    assert not is_paused(peer)


def test_every_kind_of_message_is_counted(server: MqttServer) -> None:
    """Replies, calls, claims and downloads as messages."""
    limit(server, 0)
    peer = server.log_in(5)
    topics = (
        "v1/devices/me/rpc/response/1", "v1/devices/me/rpc/request/1", "v1/devices/me/claim", "v2/fw/request/1/chunk/0"
    )  # fmt: skip
    for topic in topics:
        assert [one.reason_code for one in peer.publish(topic, b"{}")] == [0x97]
    assert server.api.api.rpc.replies == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(("version", "goodbye"), [(4, []), (5, [Disconnect(0x96)])])
def test_a_peer_that_keeps_on_is_disconnected(server: MqttServer, version: int, goodbye: list[Any]) -> None:
    """After a minute above its rate without a pause; one that stops in between begins anew."""
    limit(server, 0)
    peer = server.log_in(version)

    def sends_for(seconds: int) -> None:
        for _ in range(seconds):
            server.api.now_s += 1
            peer.send(*telemetry(1, qos=0))

    sends_for(50)
    server.api.now_s += 30
    sends_for(50)
    assert not peer.is_closed
    sends_for(15)
    assert peer.received() == goodbye
    assert peer.is_closed


def test_a_client_that_obeys_is_never_disconnected(server: MqttServer) -> None:
    """Being slowed down is no fault."""
    budget = limit(server, 0)
    peer = server.log_in()
    for number in range(1, 100):
        peer.send(*telemetry(number))
        server.api.now_s += 1
        budget.left = 1
        server.tick(2)
    assert not peer.is_closed
    assert len(stored(server)) == 99


def test_a_gateway_that_keeps_on_is_refused_and_not_cut_off(server: MqttServer) -> None:
    """Closing it would silence all devices behind it (section 5.6, Ours)."""
    profile_id = server.api.store.read(lambda tx: tx.device_by_name(1, "dev").profile_id)
    server.add_gateway("gw", "gateway-token", profile_id)
    limit(server, 0)
    peer = server.connect(user_name="gateway-token", version=5)
    peer.received()
    for _ in range(120):
        server.api.now_s += 1
        peer.send(*telemetry(1, qos=0))
    assert not peer.is_closed
    assert [one.reason_code for one in peer.publish(TELEMETRY, b'{"a":1}')] == [0x97]
