"""The life of an MQTT session: takeover, presence, deadlines, back-pressure (wire-contract.md sections 2.1 and 2.6)."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.core.downlinks import Ending
from cloud_core.model import Scope
from shared.mqtt.codes import Property
from shared.mqtt.packets import Connack, Disconnect, Pingreq, Pingresp, Puback, Publish
from tests.support.downlinks import RecordingDownlink
from tests.support.mqtt import MqttPeer, MqttServer, server_with_device
from tests.support.parts import RecordingPresence
from tests.support.stores import StoreUnderTest

TELEMETRY = "v1/devices/me/telemetry"


@pytest.fixture
def server(sqlite_store: StoreUnderTest) -> MqttServer:
    return server_with_device(sqlite_store)


@pytest.fixture
def presence(server: MqttServer) -> RecordingPresence:
    recording = RecordingPresence()
    server.api.api.presence = recording  # type: ignore[assignment]
    return recording


@pytest.mark.parametrize(("version", "goodbye"), [(4, []), (5, [Disconnect(0x8E)])])
def test_the_newer_session_of_a_device_stays(server: MqttServer, version: int, goodbye: list[Any]) -> None:
    """The older one is told why, where it can be (C4)."""
    first, second = server.log_in(version), server.log_in(version)
    assert first.received() == goodbye
    assert first.is_closed and not second.is_closed


def test_a_device_that_still_observes_over_coap_is_not_called_gone(
    server: MqttServer, presence: RecordingPresence
) -> None:
    """Its MQTT session ends; it can still be reached."""
    observation = RecordingDownlink(server.api.api.downlinks, server.device_id()).open()
    server.log_in().send(Disconnect())
    assert ("disconnected", server.device_id()) not in presence.events
    observation.close()
    server.log_in().send(Disconnect())
    assert ("disconnected", server.device_id()) in presence.events


def test_a_profile_may_allow_several_sessions(server: MqttServer) -> None:
    """The oldest is replaced when there are too many; each hears of changes."""
    server.give_profile(max_sessions=2)
    first, second = server.log_in(), server.log_in()
    for peer in (first, second):
        peer.subscribe("v1/devices/me/attributes", qos=0)
    put = server.api.api.attributes.put
    server.api.outcome(lambda done: put(server.device_id(), Scope.SHARED, {"a": 1}, done))
    assert [len(peer.received()) for peer in (first, second)] == [1, 1]
    third = server.log_in()
    assert [peer.is_closed for peer in (first, second, third)] == [True, False, False]


@pytest.mark.parametrize(("version", "goodbye"), [(4, []), (5, [Disconnect(0x98)])])
def test_a_deleted_device_is_disconnected(server: MqttServer, version: int, goodbye: list[Any]) -> None:
    """As one whose credentials have changed (C6)."""
    peer = server.log_in(version)
    server.end(Ending.DEVICE_DELETED)
    assert peer.received() == goodbye
    assert peer.is_closed


def test_no_session_outlives_its_connection(server: MqttServer) -> None:
    """Session present is 0, and a session expiry that is asked for is answered 0."""
    peer = server.connect(
        user_name="tok", version=5, clean_start=False, properties={Property.SESSION_EXPIRY_INTERVAL: 3600}
    )
    (answer,) = peer.received()
    assert isinstance(answer, Connack)
    assert not answer.session_present
    assert answer.properties is not None and answer.properties[Property.SESSION_EXPIRY_INTERVAL] == 0
    old = server.connect(user_name="tok", clean_start=False)
    assert old.received() == [Connack(0, session_present=False)]


def test_presence_is_kept(server: MqttServer, presence: RecordingPresence) -> None:
    """Connected at login, seen once per read whatever it brings, disconnected with the last session."""
    peer = server.log_in()
    device_id = server.device_id()
    assert presence.events[0] == ("connected", device_id)
    presence.events.clear()
    peer.send(Pingreq(), Pingreq())
    assert presence.events == [("seen", device_id)]
    assert peer.received() == [Pingresp(), Pingresp()]
    peer.send(Puback(77))
    assert presence.events == [("seen", device_id)] * 2
    presence.events.clear()
    second = server.log_in()
    assert ("connected", device_id) in presence.events
    peer.protocol.connectionLost()
    assert ("disconnected", device_id) not in presence.events
    second.send(Disconnect())
    second.protocol.connectionLost()
    assert presence.events.count(("disconnected", device_id)) == 1


def test_a_provision_session_is_nobodys_presence(server: MqttServer, presence: RecordingPresence) -> None:
    peer = server.connect(user_name="provision")
    peer.send(Pingreq())
    peer.protocol.connectionLost()
    assert presence.events == []


@pytest.mark.parametrize(("keep_alive_s", "silence_s", "reason"), [(10, 17, 0x8D), (0, 602, 0xA0), (1_000, 602, 0xA0)])
def test_a_silent_client_hears_why_it_is_closed(
    server: MqttServer, keep_alive_s: int, silence_s: int, reason: int
) -> None:
    """Its own keep-alive, or the limit of the server."""
    peer = server.log_in(5, keep_alive_s=keep_alive_s)
    server.tick(silence_s)
    assert peer.received() == [Disconnect(reason)]


def test_whoever_does_not_read_is_not_read(server: MqttServer) -> None:
    """The transport says that what was written piles up; when it is gone, reading goes on."""
    peer = server.log_in()
    put = server.api.api.attributes.put
    server.api.outcome(lambda done: put(server.device_id(), Scope.SHARED, {"a": "x" * 5_000}, done))
    transport = SlowTransport(peer)
    peer.send(Publish("v1/devices/me/attributes/request/1", b"{}", 0, 0))
    assert transport.is_paused
    server.tick(20)
    transport.drained()
    assert not transport.is_paused
    assert peer.transport.producer is None


def test_whoever_never_reads_is_closed(server: MqttServer) -> None:
    """Silence counts on while nothing is taken; a closing connection that is stuck is cut."""
    peer = server.log_in(keep_alive_s=10)
    put = server.api.api.attributes.put
    server.api.outcome(lambda done: put(server.device_id(), Scope.SHARED, {"a": "x" * 5_000}, done))
    transport = SlowTransport(peer)
    peer.send(Publish("v1/devices/me/attributes/request/1", b"{}", 0, 0))
    for unsent in (3_000, 2_000, 1_000):
        transport.unsent_bytes = unsent
        server.tick(10)
        assert not peer.is_closed, "it makes progress"
    server.tick(17)
    assert peer.is_closed
    server.tick(12)
    assert peer.transport.disconnected


class SlowTransport:
    """Makes a peer's transport ask for a pause at each write that is watched."""

    def __init__(self, peer: MqttPeer) -> None:
        self._peer = peer
        self._write = peer.transport.write
        self.unsent_bytes = 4_000
        peer.transport.write = self.write  # type: ignore[method-assign]
        peer.protocol._count_unsent = lambda: self.unsent_bytes

    @property
    def is_paused(self) -> bool:
        return self._peer.transport.producerState == "paused"

    def write(self, data: bytes) -> None:
        self._write(data)
        producer = self._peer.transport.producer
        if producer is not None:
            producer.pauseProducing()

    def drained(self) -> None:
        self._peer.transport.producer.resumeProducing()
