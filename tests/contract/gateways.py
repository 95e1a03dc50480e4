"""A stock MQTT client seen packet by packet, and the gateway that speaks by it.

`drivers.MqttDevice` hides topics, QoS, acknowledgements and the end of a connection; the rows about those need them.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import paho.mqtt.client as paho

from tests.contract.drivers import WAIT_S, encoded
from tests.support.server import CoreProcess

PROTOCOLS = {"mqtt3": paho.MQTTv311, "mqtt5": paho.MQTTv5}
POLL_S = 0.05


def until(condition: Callable[[], Any]) -> None:
    """Waits for what the core does by itself."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        threading.Event().wait(POLL_S)


class Message(NamedTuple):
    """What the server published."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int

    @property
    def body(self) -> Any:
        return json.loads(self.payload)


class MqttPeer:
    """A logged-in paho client. With `acknowledges=False` the test sends each PUBACK by `acknowledge`."""

    def __init__(
        self, core: CoreProcess, username: str, transport: str, *, keepalive_s: int = 60, acknowledges: bool = True
    ) -> None:
        self.is_v5 = transport == "mqtt5"
        self._messages: queue.Queue[Message] = queue.Queue()
        self._granted: queue.Queue[int] = queue.Queue()
        self._acknowledged: queue.Queue[tuple[int, int]] = queue.Queue()
        self._ended: queue.Queue[int] = queue.Queue()
        connected: queue.Queue[int] = queue.Queue()
        self._client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            protocol=PROTOCOLS[transport],  # type: ignore[arg-type]
            reconnect_on_failure=False,
            manual_ack=not acknowledges,
        )
        client.username_pw_set(username)
        client.on_connect = lambda c, d, f, code, p: connected.put(code.value)
        client.on_message = lambda c, d, m: self._messages.put(Message(m.topic, m.payload, m.qos, m.mid))
        client.on_subscribe = lambda c, d, mid, codes, p: self._granted.put(codes[0].value)
        client.on_publish = lambda c, d, mid, code, p: self._acknowledged.put((mid, code.value))
        client.on_disconnect = lambda c, d, flags, code, p: self._ended.put(
            _reason_of_disconnect(c) if flags.is_disconnect_packet_from_server else code.value
        )
        client.connect("127.0.0.1", core.mqtt_port, keepalive_s)
        client.loop_start()
        assert connected.get(timeout=WAIT_S) == 0

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected()

    def subscribe(self, topic: str, qos: int = 1) -> None:
        self._client.subscribe(topic, qos)
        assert self._granted.get(timeout=WAIT_S) == qos

    def begin(self, topic: str, body: Any, qos: int = 1) -> int:
        """Publishes without waiting; the packet identifier."""
        return self._client.publish(topic, encoded(body), qos).mid

    def reason(self, packet_id: int, *, wait_s: float = WAIT_S) -> int:
        """Of the acknowledgement. Raises: queue.Empty."""
        while True:
            acknowledged, reason = self._acknowledged.get(timeout=wait_s)
            if acknowledged == packet_id:
                return reason

    def publish(self, topic: str, body: Any) -> int:
        """The reason of its acknowledgement; always 0 in 3.1.1."""
        return self.reason(self.begin(topic, body))

    def heard(self) -> Message:
        return self._messages.get(timeout=WAIT_S)

    def acknowledge(self, message: Message) -> None:
        self._client.ack(message.packet_id, message.qos)

    def hears_nothing(self, for_s: float = 0.1) -> bool:
        try:
            self._messages.get(timeout=for_s)
        except queue.Empty:
            return True
        return False

    def ending(self) -> int:
        """The reason with which the server ends the connection; 0x80 where it says none."""
        return self._ended.get(timeout=WAIT_S)


def _reason_of_disconnect(client: paho.Client) -> int:
    """paho overlooks the reason of a DISCONNECT that has no properties behind it; its packet still has it."""
    packet = client._in_packet["packet"]
    return packet[0] if packet else 0


class Gateway(MqttPeer):
    """Speaks of the devices behind it."""

    def say(self, what: str, body: Any) -> int:
        """The reason of the acknowledgement."""
        return self.publish(f"v1/gateway/{what}", body)

    def tell(self, what: str, body: Any, qos: int = 1) -> int:
        """As `say`, without waiting; the packet identifier."""
        return self.begin(f"v1/gateway/{what}", body, qos)


def add_gateway(core: CoreProcess, name: str, *, profile: str = "gateways", **info: Any) -> str:
    """Its access token."""
    document = {"name": name, "type": profile, "additionalInfo": {"gateway": True} | info}
    core.rest.post(f"/api/device?accessToken=token-{name}", document)
    return f"token-{name}"


@contextmanager
def peer(core: CoreProcess, username: str, transport: str, **options: Any) -> Iterator[MqttPeer]:
    opened = MqttPeer(core, username, transport, **options)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def gateway(core: CoreProcess, username: str, transport: str, **options: Any) -> Iterator[Gateway]:
    opened = Gateway(core, username, transport, **options)
    try:
        yield opened
    finally:
        opened.close()
