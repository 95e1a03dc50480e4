"""An MQTT connection in memory: real protocol, real adapter, real store, no socket."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any
from uuid import uuid4

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from cloud_core.core.downlinks import Ending
from cloud_core.model import Identity
from cloud_core.profile_options import ProfileOptions
from cloud_core.storage.interface import NewDevice
from cloud_core.transports.mqtt.service import MqttService, Settings, Timeouts
from shared.credentials import AccessToken
from shared.mqtt.codec import Decoder, encode
from shared.mqtt.connection import Limits
from shared.mqtt.packets import Connect, Publish, Subscribe, Subscription
from tests.support.api import ApiUnderTest
from tests.support.stores import TENANT, StoreUnderTest


class MqttServer:
    """The service with a clock of the test's own."""

    def __init__(self, api: ApiUnderTest, **settings: Any) -> None:
        self.api = api
        self.clock = Clock()
        self.service = MqttService(
            api=api.api, reactor=self.clock, limits=Limits(), timeouts=Timeouts(), settings=Settings(**settings)
        )
        self.service.start()

    def connect(self, **members: Any) -> MqttPeer:
        peer = MqttPeer(self)
        peer.send(Connect(**({"client_id": "c"} | members)))
        return peer

    def log_in(self, version: int = 4, token: str = "tok", **members: Any) -> MqttPeer:
        """A device that has its CONNACK."""
        peer = self.connect(user_name=token, version=version, **members)
        (answer,) = peer.received()
        assert answer.reason_code == 0
        return peer

    def device_id(self, name: str = "dev") -> int:
        return int(self.api.store.read(lambda tx: tx.device_by_name(TENANT, name).id))

    def add_gateway(self, name: str, token: str, profile_id: int) -> int:
        def insert(tx: Any) -> int:
            device = NewDevice(
                uuid=uuid4(), tenant_id=TENANT, profile_id=profile_id, name=name, created_ms=1, is_gateway=True
            )
            device_id = int(tx.insert_device(device))
            tx.put_credentials(device_id, AccessToken(token), now_ms=1)
            return device_id

        return int(self.api.store.run(insert))

    def give_profile(self, **options: Any) -> None:
        """Devices that log in from now on have these members of `ProfileOptions`."""
        api, authenticate = self.api.api, self.api.api.authenticate

        def authenticate_with_options(presented: Any, done: Any) -> None:
            def known(outcome: Any) -> None:
                if isinstance(outcome, Identity):
                    outcome = replace(outcome, options=replace(outcome.options, **options))
                done(outcome)

            authenticate(presented, known)

        api.authenticate = authenticate_with_options  # type: ignore[method-assign]

    def give_codec(self, codec: Any) -> None:
        """Devices that log in from now on have a profile that leaves nothing to JSON but what is forced to it."""
        self.give_profile(**{one.name: codec for one in fields(ProfileOptions) if one.name.endswith("codec")})

    def end(self, why: Ending, name: str = "dev") -> None:
        """Administration ends what the device has open."""
        self.api.api.device_changed(self.device_id(name), why)

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


def server_with_device(store: StoreUnderTest, *, document: dict[str, Any] | None = None, **settings: Any) -> MqttServer:
    """A service whose store has the device `dev` with the access token `tok`."""
    profile_id = store.add_profile(document=document)
    store.add_device("dev", profile_id, AccessToken("tok"))
    return MqttServer(ApiUnderTest(store), **settings)
