"""MQTT as a device sees it: a paho client that shows all it is told, and a bare socket for what paho hides.

paho does not tell the reason of a DISCONNECT (it reads only those with properties), and sends nothing before CONNACK.
"""

from __future__ import annotations

import json
import queue
import socket
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from shared.mqtt.codec import Decoder, encode
from shared.mqtt.packets import Connect, Packet
from tests.contract.drivers import WAIT_S, encoded
from tests.support.server import CoreProcess

on_mqtt = pytest.mark.parametrize("transport", ["mqtt3", "mqtt5"], indirect=True)
on_mqtt5 = pytest.mark.parametrize("transport", ["mqtt5"], indirect=True)

# paho tells the codes of 3.1.1 by the names of 5.
_CONNACK_V3 = {0: 0, 132: 1, 133: 2, 136: 3, 134: 4, 135: 5}


@dataclass(frozen=True)
class Message:
    """What the server has published; `body` is its JSON."""

    topic: str
    body: Any
    qos: int


class MqttSession:
    """A paho client. `code` is that of the CONNACK, as the version on the wire has it; check it."""

    def __init__(
        self,
        port: int,
        version: int,
        *,
        user_name: str | None = None,
        password: str | None = None,
        client_id: str = "c",
        maximum_packet_size: int | None = None,
    ) -> None:
        self._connected: queue.Queue[int] = queue.Queue()
        self._closed: queue.Queue[bool] = queue.Queue()
        self._published: queue.Queue[int] = queue.Queue()
        self._subscribed: queue.Queue[list[int]] = queue.Queue()
        self._unsubscribed: queue.Queue[list[int]] = queue.Queue()
        self._messages: queue.Queue[Message] = queue.Queue()
        self.client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTProtocolVersion(version),
            reconnect_on_failure=False,
        )  # fmt: skip
        if user_name is not None:
            client.username_pw_set(user_name, password)
        client.on_connect = lambda c, d, f, code, p: self._connected.put(code.value)
        client.on_disconnect = lambda c, d, f, code, p: self._closed.put(True)
        client.on_publish = lambda c, d, mid, code, p: self._published.put(code.value)
        client.on_subscribe = lambda c, d, mid, codes, p: self._subscribed.put([one.value for one in codes])
        client.on_unsubscribe = lambda c, d, mid, codes, p: self._unsubscribed.put([one.value for one in codes])
        client.on_message = lambda c, d, one: self._messages.put(Message(one.topic, json.loads(one.payload), one.qos))
        properties = None
        if maximum_packet_size is not None:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = maximum_packet_size
        client.connect("127.0.0.1", port, properties=properties)
        client.loop_start()
        code = self._connected.get(timeout=WAIT_S)
        self.code = code if version == 5 else _CONNACK_V3[code]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, topic: str, body: Any, qos: int = 1) -> None:
        """Without waiting for the acknowledgement."""
        self.client.publish(topic, encoded(body), qos)

    def publish(self, topic: str, body: Any) -> int:
        """QoS 1; the reason of the PUBACK, 0 on 3.1.1."""
        self.send(topic, body)
        return self._published.get(timeout=WAIT_S)

    def subscribe(self, *topic_filters: str, qos: int = 1) -> list[int]:
        self.client.subscribe([(one, qos) for one in topic_filters])
        return self._subscribed.get(timeout=WAIT_S)

    def unsubscribe(self, *topic_filters: str) -> list[int]:
        """The reasons of the UNSUBACK, none on 3.1.1."""
        self.client.unsubscribe(list(topic_filters))
        return self._unsubscribed.get(timeout=WAIT_S)

    def received(self) -> Message:
        """The next message; waits for it."""
        return self._messages.get(timeout=WAIT_S)

    def wait_for_the_end(self) -> None:
        """Returns when the server has closed the connection; an error if it does not."""
        self._closed.get(timeout=WAIT_S)


class BareSession:
    """A socket; CONNECT and what follows leave in one write."""

    def __init__(self, port: int, connect: Connect, *packets: Packet) -> None:
        self._version = connect.version
        self._decoder = Decoder(70_000)
        self._decoder.version = connect.version
        self._received: list[Packet] = []
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self.send(connect, *packets)

    def close(self) -> None:
        self._socket.close()

    def send(self, *packets: Packet) -> None:
        self._socket.sendall(b"".join(encode(one, self._version) for one in packets))

    def received(self, count: int) -> list[Any]:
        """The next packets; fewer if the server closes the connection before."""
        while len(self._received) < count and self._read():
            pass
        found, self._received = self._received[:count], self._received[count:]
        return found

    def rest(self) -> list[Any]:
        """All that still comes until the server closes the connection; an error if it does not."""
        while self._read():
            pass
        found, self._received = self._received, []
        return found

    def rest_of_bytes(self) -> bytes:
        """As `rest`, for what our own codec would not read; of a session that has received nothing yet."""
        found = b""
        while data := self._bytes():
            found += data
        return found

    def _read(self) -> bool:
        data = self._bytes()
        self._received += self._decoder.feed(data)
        return bool(data)

    def _bytes(self) -> bytes:
        try:
            return self._socket.recv(65_536)
        except ConnectionResetError:  # closed before it had read all that was sent
            return b""


def make_device(core: CoreProcess, name: str, *, is_gateway: bool = False, **configuration: Any) -> str:
    """The token of a new device whose profile, of type MQTT, has this transport configuration."""
    core.rest.post(
        "/api/deviceProfile",
        {
            "name": f"mqtt-profile-of-{name}", "type": "DEFAULT", "transportType": "MQTT", "provisionType": "DISABLED",
            "profileData": {
                "configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "MQTT", **configuration},
                "provisionConfiguration": {"type": "DISABLED"},
            },
        },
    )  # fmt: skip
    device = {"name": name, "type": f"mqtt-profile-of-{name}", "additionalInfo": {"gateway": is_gateway}}
    core.rest.post(f"/api/device?accessToken=token-{name}", device)
    return f"token-{name}"
