"""Peers that read nothing, ask for too much or say too much: they harm nobody but themselves."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from cloud_core.core.downlinks import Interest
from cloud_core.transports.mqtt import protocol
from shared.credentials import MqttBasic
from shared.messages import AttributesChange, PackageChunk, RpcCommand
from shared.mqtt.packets import Connect, Puback, Publish, Subscribe, Subscription
from tests.support.api import ApiUnderTest
from tests.support.mqtt import MqttPeer, MqttServer, server_with_device
from tests.support.parts import RecordingDelivery
from tests.support.stores import StoreUnderTest

ATTRIBUTES = "v1/devices/me/attributes"


@pytest.fixture
def server(sqlite_store: StoreUnderTest) -> MqttServer:
    return server_with_device(sqlite_store)


def blocked(server: MqttServer, *filters: str) -> MqttPeer:
    """Subscribed with QoS 0, and the transport has said that what is written piles up."""
    peer = server.log_in()
    peer.subscribe(*filters, qos=0)
    peer.transport.registerProducer(peer.protocol, True)
    peer.protocol.pauseProducing()
    return peer


def test_what_is_pushed_to_a_peer_that_does_not_read_is_bounded(server: MqttServer) -> None:
    """Beyond the bound news are dropped and counted, and a command is not called delivered."""
    peer = blocked(server, ATTRIBUTES, "v1/devices/me/rpc/request/+")
    change = AttributesChange(values={"k": "x" * 60_000})
    for _ in range(200):
        server.api.api.downlinks.attributes_changed(server.device_id(), change)
        server.clock.advance(0)
    assert len(peer.transport.value()) <= protocol.MAX_BACKLOG_BYTES + 70_000
    assert server.service.counters.undeliverable > 100
    delivery = RecordingDelivery()
    downlink = server.api.api.downlinks.for_commands(server.device_id())
    assert downlink is not None
    downlink.command(RpcCommand(number=1, method="m", params=None), delivery)
    assert delivery.outcomes == ["failed"]
    peer.transport.clear()
    peer.protocol.resumeProducing()
    server.api.api.downlinks.attributes_changed(server.device_id(), AttributesChange(values={"k": 1}))
    assert len(peer.received()) == 1


def test_a_filter_of_kilobytes_is_not_granted(server: MqttServer) -> None:
    """Filters are kept and matched for as long as the session lasts, and their meaning longer."""
    peer = server.log_in()
    assert peer.subscribe("v1/devices/me/rpc/+/" + "a" * 2_000) == [0x80]
    assert peer.subscribe("v1/devices/me/rpc/+/" + "a/" * 1_000) == [0x80]
    assert peer.subscribe("v1/devices/me/rpc/+/" + "a" * 100) == [1]


def test_subscriptions_of_one_read_are_weighed_once(server: MqttServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that subscribes again and again costs as much as what it says, not a hundred times that."""
    peer = server.log_in()
    peer.send(*(Subscribe(1, [Subscription(f"{ATTRIBUTES}/response/{i}", 1)]) for i in range(99)))
    peer.received()
    weighed: list[Any] = []
    follow = protocol.MqttProtocol.listen

    def listen(self: Any, interest: Interest) -> None:
        weighed.append(interest)
        follow(self, interest)

    monkeypatch.setattr(protocol.MqttProtocol, "listen", listen)
    peer.send(*(Subscribe(1, [Subscription("v2/a", 1)]) for _ in range(500)))
    assert len(weighed) == 1
    assert server.api.api.downlinks.interest(server.device_id(), peer.protocol) == Interest.ATTRIBUTES


def test_a_password_that_is_no_text_is_a_wrong_password(sqlite_store: StoreUnderTest) -> None:
    """It is refused like any other, also when the login is remembered."""
    profile_id = sqlite_store.add_profile()
    sqlite_store.add_device("dev", profile_id, MqttBasic("c", "u", "secret"))
    server = MqttServer(ApiUnderTest(sqlite_store))
    for _ in range(2):
        (answer,) = server.connect(user_name="u", password=b"\xff\xfe").received()
        assert answer.reason_code == 5
        (answer,) = server.connect(user_name="u", password=b"secret").received()
        assert answer.reason_code == 0


def test_an_error_in_what_came_behind_connect_ends_the_connection(
    server: MqttServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in what comes later: what is not acknowledged is sent again."""

    def fail(*_args: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(server.api.api.attributes, "post", fail)
    peer = MqttPeer(server)
    peer.send(Connect(client_id="c", user_name="tok"), Publish(ATTRIBUTES, b'{"a":1}', 1, 1))
    peer.received()
    assert peer.is_closed


def test_pieces_are_not_fetched_for_a_peer_that_is_gone(server: MqttServer) -> None:
    """What it has asked for before is forgotten with the connection."""
    fetched: list[Any] = []
    server.api.api.packages.fetch = lambda *args: fetched.append(args)  # type: ignore[method-assign]
    peer = server.log_in()
    peer.send(*(Publish(f"v2/fw/request/{i}/chunk/0", b"", 0) for i in range(50)))
    assert len(fetched) == 1
    peer.protocol.connectionLost(Failure(ConnectionDone()))
    fetched[0][2](PackageChunk(data=b"x", file_name="f", content_type="", total_bytes=1))
    assert len(fetched) == 1


def test_a_peer_that_only_sends_rubbish_does_not_fill_the_log(server: MqttServer) -> None:
    """All of it is counted; the log says it some times and then how much was left out."""
    lines: list[Any] = []
    peer = server.log_in(version=5)
    globalLogPublisher.addObserver(lines.append)  # type: ignore[arg-type]  # zope interface
    try:
        peer.send(*(Publish(ATTRIBUTES, b"rubbish{", 0) for _ in range(500)))
        peer.send(*(Publish("no/such/topic", b"", 0) for _ in range(500)))
    finally:
        globalLogPublisher.removeObserver(lines.append)  # type: ignore[arg-type]  # zope interface
    assert len(lines) < 50
    assert server.service.counters.malformed == 500
    assert server.service.counters.unknown_topic == 500


def test_a_gateway_hears_of_changes_of_thousands_of_devices(server: MqttServer) -> None:
    """What exceeds the window waits until the gateway has acknowledged what came before."""
    server.add_gateway("gw", "gwtok", 1)
    peer = server.log_in(token="gwtok")
    adapter = peer.protocol._adapter._gateway
    assert adapter is not None
    for number in range(5_000):
        adapter.attributes_changed(f"sub-device {number}", AttributesChange(values={"interval": number}))
    heard: list[bytes] = []
    while messages := peer.received():
        heard += [one.payload for one in messages]
        peer.send(*(Puback(one.packet_id) for one in messages))
    assert len(heard) == 5_000
    assert heard[-1] == b'{"device":"sub-device 4999","data":{"interval":4999}}'
    assert server.service.counters.undeliverable == 0


def test_peers_that_do_not_get_in_do_not_fill_the_log(server: MqttServer) -> None:
    """Wrong tokens and wrong bytes are counted, and said up to a number."""
    lines: list[Any] = []
    globalLogPublisher.addObserver(lines.append)  # type: ignore[arg-type]  # zope interface
    try:
        for _ in range(150):
            server.connect(user_name="guess")
            MqttPeer(server).protocol.dataReceived(b"GET / HTTP/1.1")
    finally:
        globalLogPublisher.removeObserver(lines.append)  # type: ignore[arg-type]  # zope interface
    assert len(lines) <= 101
    assert (server.service.counters.refused_logins, server.service.counters.violations) == (150, 150)
