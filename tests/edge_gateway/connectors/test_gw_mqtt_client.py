"""The client of a broker without a broker: what its messages say, and when they are acknowledged."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from edge_gateway.connectors.mqtt.client import MqttClient
from edge_gateway.connectors.mqtt.offers import Offers
from edge_gateway.connectors.mqtt.settings import MqttSettings
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_sites import FakeSite, until

PLANT = {
    "topic": "plant/{unit}",
    "device": "{unit}",
    "telemetry": ["$.temp -> temperature: float", "$.n -> count: int"],
}


class Connection:
    """Keeps what is acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def acknowledge(self, message: Any) -> None:
        self.acknowledged.append(message.mid)


class Arrived:
    """A message as paho gives it."""

    retain, qos = False, 1

    def __init__(self, topic: str, payload: bytes, mid: int) -> None:
        self.topic, self.payload, self.mid = topic, payload, mid


@asyncio_test
async def test_a_message_that_is_wrong_in_part_gives_the_rest() -> None:
    """One broken sensor does not silence the others; the message is acknowledged, and the fault is shown."""
    site = FakeSite()
    members = {"name": "plant", "connect": "mqtt://127.0.0.1", "map": [PLANT]}
    client = MqttClient(msgspec.convert(members, MqttSettings), site)
    client._offers = Offers(site, asyncio.get_running_loop(), client._settled)
    connection: Any = Connection()
    client.take(connection, Arrived("plant/a", b'{"temp": "broken", "n": 3}', 7))
    client.push()
    await until(lambda: connection.acknowledged)
    assert connection.acknowledged == [7]
    assert site.values() == [("a", {"count": 3})]
    assert "broken" in site.rejected[0][2]
