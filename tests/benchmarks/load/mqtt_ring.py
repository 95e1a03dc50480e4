"""A ring of ready PUBLISH packets whose digits are patched in place, lap after lap.

All packets of a ring have one size, so any run of them is one slice of one buffer. Packet ids are the
position in the ring plus one; because 3.1.1 acknowledges in order [MQTT-4.6.0-2] and a window is never
larger than the ring, an id is never used twice at once, and the bytes the server must answer with are known
beforehand.
"""

from __future__ import annotations

from . import bodies, mqtt_wire

RING = 100
RING_DIGITS = 2
"""The last two digits of `ts` are the position in the ring; a lap patches only the digits above them."""
ACKNOWLEDGEMENTS = b"".join(mqtt_wire.puback(position + 1) for position in range(RING)) * 2
"""What comes back for two laps, so that any expected stretch is one slice."""


class MessageRing:
    """The messages of one connection: an endless sequence, each with its own `ts`."""

    __slots__ = ("_buffer", "_lap", "_patched", "packets", "size")

    def __init__(self, *, topic: str, ts_base_ms: int, seed: int, server_time: bool) -> None:
        """`ts_base_ms` must be a multiple of the ring's length."""
        self._lap = ts_base_ms // RING
        self._patched: tuple[tuple[int, int], ...] = ()
        self._buffer = bytearray()
        for position in range(RING):
            number = seed * RING + position
            body = bodies.flat_telemetry(number) if server_time else bodies.telemetry(ts_base_ms + position, number)
            self._buffer += mqtt_wire.publish(topic, body, packet_id=position + 1)
        self.size = len(self._buffer) // RING
        self.packets = memoryview(self._buffer)
        if not server_time:
            digits = bodies.TS_DIGITS - RING_DIGITS
            at = self._buffer.index(b'{"ts":') + len(b'{"ts":')
            self._patched = tuple((at + digit, digit) for digit in range(digits))

    def next_lap(self) -> None:
        """Advance `ts` of all messages by one lap; call only when none of them is waiting to be written."""
        old, self._lap = b"%011d" % self._lap, self._lap + 1
        new = b"%011d" % self._lap
        for at, digit in self._patched:
            if old[digit] != new[digit]:
                self._buffer[at :: self.size] = new[digit : digit + 1] * RING
