"""A source of numbered readings in front of a gateway, and the check that all of them reached the core, once and in
order."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from itertools import pairwise
from typing import Any

import paho.mqtt.client as paho

from shared.mqtt.codec import Decoder
from shared.mqtt.packets import Publish
from tests.support.server import CoreProcess

RESENT_WITHIN_S = 0.1


class NumberedSource:
    """Sub-devices on one MQTT connection that send 0, 1, 2, … at QoS 1, each with a time of its own.

    What the gateway did not acknowledge is sent again by paho, also after a reconnect. `acknowledged[device]` has the
    numbers for which the gateway has answered: those must never be lost."""

    def __init__(
        self, port: int, devices: list[str], *, client_id: str, topic: str = "in/{device}", has_time: bool = True
    ) -> None:
        self._has_time = has_time
        self._began_ms = round(time.time() * 1000) - 3_600_000
        self.sent = dict.fromkeys(devices, 0)
        self.acknowledged: dict[str, list[int]] = {device: [] for device in devices}
        self._topic = topic
        self._waiting: dict[int, tuple[str, int]] = {}
        self._answered: deque[int] = deque()
        self._lock = threading.Lock()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
        self.client.max_inflight_messages_set(50)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_publish = lambda c, d, mid, code, p: self._published(mid)
        self._connected_s = float("inf")
        self.client.on_connect = lambda *_: self._came_and_went(time.monotonic())
        self.client.on_disconnect = lambda *_: self._came_and_went(float("inf"))
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def _came_and_went(self, connected_s: float) -> None:
        self._connected_s = connected_s

    def _published(self, number: int) -> None:
        """Without our lock: paho holds one of its own here, which `publish` waits for with ours."""
        self._answered.append(number)

    def _match(self) -> None:
        """Notes what the gateway has answered; with the lock, after every number has its reading."""
        while self._answered:
            device, value = self._waiting.pop(self._answered.popleft())
            self.acknowledged[device].append(value)

    def send(self, device: str) -> None:
        """Nothing while there is no connection, and just after: paho would send it ahead of what it sends again."""
        if time.monotonic() - self._connected_s < RESENT_WITHIN_S:
            return
        with self._lock:
            value = self.sent[device]
            self.sent[device] = value + 1
            topic = self._topic.format(device=device)
            body = {"n": value, "ts": self._began_ms + value} if self._has_time else {"n": value}
            info = self.client.publish(topic, json.dumps(body), 1)
            self._waiting[info.mid] = (device, value)
            self._match()

    @property
    def unacknowledged(self) -> int:
        with self._lock:
            self._match()
            return len(self._waiting)

    def finish(self, within_s: float = 60.0) -> None:
        """Waits until everything is acknowledged, and ends."""
        deadline = time.monotonic() + within_s
        while self.unacknowledged and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self.unacknowledged
        self.client.disconnect()
        self.client.loop_stop()
        assert left == 0, f"{left} readings were never acknowledged by the gateway"


def stored(core: CoreProcess, device: str, key: str = "n") -> list[Any]:
    """All values that the core has, by their time."""
    identifier = core.device(device)["id"]["id"]
    answer = core.rest.get(
        f"/api/plugins/telemetry/DEVICE/{identifier}/values/timeseries",
        keys=key, startTs="0", endTs="4102444800000", limit="100000", orderBy="ASC", useStrictDataTypes="true",
    )  # fmt: skip
    return [point["value"] for point in answer.get(key, [])]


def missing(core: CoreProcess, source: NumberedSource) -> dict[str, list[int]]:
    """What the gateway acknowledged and the core does not have."""
    lost = {}
    for device, values in source.acknowledged.items():
        there = set(stored(core, device))
        gone = [value for value in values if value not in there]
        if gone:
            lost[device] = gone
    return lost


def doubled(core: CoreProcess, source: NumberedSource) -> list[str]:
    """Devices of which the core has a reading twice, or in another order than the source's times say."""
    return [
        device for device in source.sent if any(later <= earlier for earlier, later in pairwise(stored(core, device)))
    ]


class Arrivals:
    """Listens in on what a gateway publishes: by device the numbers in the order of their first arrival."""

    def __init__(self, key: str = "n") -> None:
        self.numbers: dict[str, list[int]] = defaultdict(list)
        self.repeated = 0
        self._key = key
        self._decoders: dict[int, Decoder] = {}

    def heard(self, connection: int, data: bytes) -> None:
        """Bytes of the gateway on one of its connections."""
        decoder = self._decoders.setdefault(connection, Decoder(1 << 20))
        for packet in decoder.feed(data):
            if isinstance(packet, Publish) and packet.topic == "v1/gateway/telemetry":
                for device, entries in json.loads(packet.payload).items():
                    self._take(device, [entry["values"][self._key] for entry in entries])

    def _take(self, device: str, numbers: list[int]) -> None:
        newest = self.numbers[device][-1] if self.numbers[device] else -1
        for number in numbers:
            if number > newest:
                self.numbers[device].append(number)
                newest = number
            else:
                self.repeated += 1

    def gaps(self) -> dict[str, list[int]]:
        """Numbers that came after a later one: they were out of order when they arrived, if at all."""
        return {
            device: gone
            for device, numbers in self.numbers.items()
            if (gone := sorted(set(range(numbers[-1] + 1)) - set(numbers)))
        }
