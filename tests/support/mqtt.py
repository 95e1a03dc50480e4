"""An MQTT connection in memory: real protocol, real adapter, real store, no socket."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from cloud_core.transports.mqtt.service import MqttService, Timeouts
from shared.mqtt.codec import Decoder, encode
from shared.mqtt.connection import Limits
from shared.mqtt.packets import Connect, Publish, Subscribe, Subscription
from tests.support.api import ApiUnderTest


class MqttServer:
    """The service with a clock of the test's own."""

    def __init__(self, api: ApiUnderTest) -> None:
        self.api = api
        self.clock = Clock()
        self.service = MqttService(api=api.api, reactor=self.clock, limits=Limits(), timeouts=Timeouts())
        self.service.start()

    def connect(self, **members: Any) -> MqttPeer:
        peer = MqttPeer(self)
        peer.send(Connect(**({"client_id": "c"} | members)))
        return peer

    def settle(self) -> None:
        """Runs what the store has answered, and the writes that follow."""
        self.api.store.run(lambda tx: None)
        self.api.store.read(lambda tx: None)
        self.api.store.run(lambda tx: None)
        self.clock.advance(0)

    def tick(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1.0)


class MqttPeer:
    """The client's end."""

    def __init__(self, server: MqttServer) -> None:
        self.server = server
        self.transport = StringTransport()
        self.protocol = server.service.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        self.version = 4
        self._decoder = Decoder(70_000)

    @property
    def is_closed(self) -> bool:
        return bool(self.transport.disconnecting)

    def send(self, *packets: Any) -> None:
        for packet in packets:
            if isinstance(packet, Connect):
                self.version = packet.version
                self._decoder.version = packet.version
        self.protocol.dataReceived(b"".join(encode(packet, self.version) for packet in packets))
        self.server.settle()

    def received(self) -> list[Any]:
        """What the server has sent since the last call."""
        self.server.settle()
        data = self.transport.value()
        self.transport.clear()
        return list(self._decoder.feed(data))

    def publish(self, topic: str, payload: bytes, packet_id: int = 1, qos: int = 1) -> list[Any]:
        self.send(Publish(topic, payload, qos, packet_id if qos else 0))
        return self.received()

    def subscribe(self, *filters: str, qos: int = 1) -> list[int]:
        self.send(Subscribe(9, [Subscription(one, qos) for one in filters]))
        codes: list[int] = self.received()[-1].codes
        return codes
