"""What operators are told of the connections that a device has."""

from __future__ import annotations

from aiocoap.numbers.codes import Code

from cloud_core.core.downlinks import Downlinks, Interest, Link, Whereabouts
from cloud_core.model import Peer, Transport
from shared.credentials import AccessToken
from shared.mqtt.packets import Connect
from tests.support.api import ApiUnderTest
from tests.support.coap import CoapServer, request
from tests.support.http import HttpPeer
from tests.support.mqtt import MqttPeer, MqttServer
from tests.support.stores import StoreUnderTest


def test_an_mqtt_session_tells_its_address(sqlite_store: StoreUnderTest) -> None:
    """Of a device and of the gateway that another one is behind; afterwards nothing is left."""
    server = MqttServer(ApiUnderTest(sqlite_store))
    gateway_id = server.add_gateway("GW", "gw-token", sqlite_store.add_profile("default"))
    peer = MqttPeer(server)
    peer.protocol.peer = Peer(Transport.MQTT, "192.0.2.5")
    peer.send(Connect(client_id="c", user_name="gw-token", version=4))
    peer.received()
    downlinks = server.api.api.downlinks
    assert downlinks.links(gateway_id) == [Link(Whereabouts("MQTT", "192.0.2.5"), Interest.NOTHING)]
    peer.publish("v1/gateway/connect", b'{"device": "PLC"}')
    (link,) = downlinks.links(server.device_id("PLC"))
    assert link.whereabouts == Whereabouts("gateway", "GW")
    peer.protocol.connectionLost()
    assert downlinks.links(gateway_id) == []


def test_a_long_poll_tells_what_it_waits_for(sqlite_store: StoreUnderTest) -> None:
    """The way is HTTP; its address is not kept."""
    device_id = sqlite_store.add_device("dev", sqlite_store.add_profile(), AccessToken("tok"))
    peer = HttpPeer(ApiUnderTest(sqlite_store))
    peer.ask("/api/v1/tok/rpc?timeout=5000")
    assert peer.api.api.downlinks.links(device_id) == [Link(Whereabouts("HTTP", ""), Interest.COMMANDS)]
    peer.lose()
    peer.close()


def test_an_observation_tells_its_address() -> None:
    """As people write it."""
    server = CoapServer()
    assert server.receive(request("api/v1/tok/rpc", b"", code=Code.GET, mid=1, observe=0))
    (link,) = server.api.downlinks.links(1)
    assert link == Link(Whereabouts("CoAP", "192.0.2.7"), Interest.COMMANDS)


class _Silent:
    """A downlink that does not say where it leads."""

    def ended(self, why: object) -> None: ...


def test_what_does_not_tell_is_left_out() -> None:
    """It is open all the same."""
    downlinks = Downlinks()
    downlinks.open(1, _Silent(), Interest.NOTHING)  # type: ignore[arg-type]
    assert downlinks.links(1) == [] and downlinks.is_open(1)
