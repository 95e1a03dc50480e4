"""The two sides of an edge gateway, both in one process so that one clock sees a reading leave and arrive.

South: `Source`, one MQTT 3.1.1 connection with QoS 1 and a window. North: `StubCore`, which accepts every login,
acknowledges every publish at once and keeps what it needs of it in memory. A reading carries its number as `"n"`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable

from . import mqtt_wire

NUMBERS = re.compile(rb'"n":(\d+)')
TELEMETRY = b"v1/gateway/telemetry"
CONNECT = b"v1/gateway/connect"
LIMITS_REQUEST = b"v1/devices/me/rpc/request/"
LIMITS_RESPONSE = "v1/devices/me/rpc/response/"
NO_LIMITS = b'{"maxPayloadSize":65536,"maxInflightMessages":100,"rateLimits":{},"gatewayRateLimits":{}}'
TOPIC = "in/{device}"


def body(number: int, ts_ms: int | None) -> bytes:
    """A reading of about 60 bytes; without `ts_ms` it has no time of its own."""
    values = b'"temperature":%02d.%02d,"on":true,"n":%d}' % (20 + number % 10, number % 97, number)
    return b"{" + values if ts_ms is None else b'{"ts":%d,%b' % (ts_ms, values)


class StubCore:
    """The north side. `arrived(numbers, now)` hears each telemetry message, `announced` counts `connect`s."""

    def __init__(self, arrived: Callable[[list[bytes], float], None]) -> None:
        self.arrived = arrived
        self.announced = 0
        self.announced_at = 0.0  # the last of them
        self.connected_at = 0.0
        self.publishes = 0
        self.links: set[CoreLink] = set()

    async def listen(self, host: str, port: int) -> None:
        """Opens the port. Raises: OSError."""
        await asyncio.get_running_loop().create_server(lambda: CoreLink(self), host, port)

    def drop(self) -> None:
        """Resets every connection; what they announced is forgotten."""
        self.announced = 0
        for link in list(self.links):
            link.transport.abort()


class CoreLink(asyncio.Protocol):
    """One connection of a gateway."""

    def __init__(self, core: StubCore) -> None:
        self._core = core
        self._rest = b""
        self._is_v5 = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._core.links.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._core.links.discard(self)

    def data_received(self, data: bytes) -> None:
        packets, self._rest = mqtt_wire.complete_packets(self._rest + data)
        answers = [self._answer(first, packet) for first, packet in packets]
        self.transport.write(b"".join(answers))

    def _answer(self, first: int, packet: bytes) -> bytes:
        kind = first >> 4
        if kind == mqtt_wire.PUBLISH_TYPE:
            return self._published(first, packet)
        if kind == 1:
            self._is_v5 = packet[6] == 5
            self._core.connected_at = time.perf_counter()
            return b"\x20\x03\x00\x00\x00" if self._is_v5 else mqtt_wire.CONNACK_ACCEPTED
        if kind == 8:
            return self._subscribed(packet)
        return mqtt_wire.PINGRESP if kind == 12 else b""

    def _published(self, first: int, packet: bytes) -> bytes:
        core, now = self._core, time.perf_counter()
        core.publishes += 1
        end = 2 + int.from_bytes(packet[:2], "big")
        topic, acknowledgement = packet[2:end], b""
        if first & 0x06:
            acknowledgement = b"\x40\x02" + packet[end : end + 2]
            end += 2
        if topic == TELEMETRY:
            core.arrived(NUMBERS.findall(packet, end), now)
        elif topic == CONNECT:
            core.announced += 1
            core.announced_at = now
        elif topic.startswith(LIMITS_REQUEST):
            number = topic.removeprefix(LIMITS_REQUEST).decode()
            return acknowledgement + self._message(LIMITS_RESPONSE + number, NO_LIMITS)
        return acknowledgement

    def _message(self, topic: str, payload: bytes) -> bytes:
        return mqtt_wire.publish(topic, b"\x00" + payload if self._is_v5 else payload)

    def _subscribed(self, packet: bytes) -> bytes:
        at, filters = 2 + self._is_v5, 0
        while at < len(packet):
            at += 2 + int.from_bytes(packet[at : at + 2], "big") + 1
            filters += 1
        codes = packet[:2] + b"\x00" * self._is_v5 + b"\x01" * filters
        return bytes([0x90, len(codes)]) + codes


class Source(asyncio.Protocol):
    """The south side: one client. `send` puts messages in line; at most `window` of them are unacknowledged."""

    def __init__(self, client_id: str, window: int, on_idle: Callable[[], None] = lambda: None) -> None:
        self._client_id = client_id
        self._window = window
        self._on_idle = on_idle
        self._rest = b""
        self._line: deque[tuple[str, bytes]] = deque()
        self._packet_id = 0
        self._unanswered: deque[int] = deque()
        self.acknowledged = 0
        self.errors: list[str] = []
        self.is_open = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(mqtt_wire.connect(client_id=self._client_id, username=self._client_id))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_open.done():
            self.is_open.set_exception(ConnectionError("closed before the CONNACK"))
        elif self._line or self._unanswered:
            self.errors.append(f"{self._client_id}: connection lost: {error}")
            self._on_idle()

    def data_received(self, data: bytes) -> None:
        packets, self._rest = mqtt_wire.complete_packets(self._rest + data)
        for first, packet in packets:
            if first == 0x20:
                self.is_open.set_result(packet == b"\x00\x00")
            elif first != 0x40 or not self._unanswered or packet != self._unanswered.popleft().to_bytes(2, "big"):
                self.errors.append(f"{self._client_id}: unexpected {first:#x} {packet[:20].hex()}")
            else:
                self.acknowledged += 1
        self._fill()
        if not self._line and not self._unanswered:
            self._on_idle()

    def send(self, device: str, payload: bytes) -> None:
        self._line.append((TOPIC.format(device=device), payload))
        self._fill()

    def send_all(self, messages: list[tuple[str, bytes]]) -> None:
        self._line.extend((TOPIC.format(device=device), payload) for device, payload in messages)
        self._fill()

    def _fill(self) -> None:
        packets = []
        while self._line and len(self._unanswered) < self._window:
            topic, payload = self._line.popleft()
            self._packet_id = self._packet_id % 65_535 + 1
            self._unanswered.append(self._packet_id)
            packets.append(mqtt_wire.publish(topic, payload, packet_id=self._packet_id))
        if packets:
            self.transport.write(b"".join(packets))

    @property
    def is_idle(self) -> bool:
        """Nothing waits and everything is acknowledged."""
        return not self._line and not self._unanswered


async def opened(host: str, port: int, client_id: str, window: int, *, within_s: float = 0.0) -> Source:
    """A connected source; tries every 2 ms for `within_s`. Raises: OSError."""
    loop = asyncio.get_running_loop()
    deadline = time.perf_counter() + within_s
    while True:
        try:
            _, source = await loop.create_connection(lambda: Source(client_id, window), host, port)
            await source.is_open
        except OSError:
            if time.perf_counter() >= deadline:
                raise
            await asyncio.sleep(0.002)
        else:
            return source
