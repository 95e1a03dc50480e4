"""Bytes to packets and packets to bytes, for both ends of a connection.

`Decoder` finds the packets in a stream cut anywhere and decodes PUBLISH; the other packets are decoded in
`decoding.py`, and `encode` comes from `encoding.py`. The stream's version is learned from its CONNECT, so
that a PUBLISH right behind it in the same chunk is read by the right rules.
"""

from __future__ import annotations

from typing import Final

from shared.mqtt.codes import Property, ReasonCode
from shared.mqtt.decoding import DECODERS, V31_DECODERS
from shared.mqtt.encoding import encode
from shared.mqtt.errors import RemoteProtocolError
from shared.mqtt.filters import is_valid_topic
from shared.mqtt.packets import V5, V31, Connect, Packet, Properties, Publish
from shared.mqtt.properties import Carrier, read_properties
from shared.mqtt.wire import malformed, protocol_error, text_from

__all__ = ["Decoder", "encode"]

# Valid first bytes of PUBLISH -> (qos, dup, retain). QoS 3 [MQTT-3.3.1-4] and DUP with QoS 0 [MQTT-3.3.1-2]
# have no entry.
PUBLISH_FLAGS: Final[dict[int, tuple[int, bool, bool]]] = {
    0x30 | dup << 3 | qos << 1 | retain: (qos, bool(dup), bool(retain))
    for qos in (0, 1, 2)
    for dup in ((0, 1) if qos else (0,))
    for retain in (0, 1)
}

# Topic names that have been validated, by their bytes: devices repeat a handful of topics for ever, and the
# look-up costs a tenth of the validation. Shared by all decoders; bounded in both directions (about 0.5 MiB).
_TOPICS: dict[bytes, str] = {}
MAX_CACHED_TOPICS = 2_048
MAX_CACHED_TOPIC_BYTES = 128


class Decoder:
    """The packets of one direction of one connection.

    `version` is 0 until a CONNECT has passed (read as 3.1.1 meanwhile); a client, which sees no CONNECT,
    gives it. Limits are in bytes; `max_packet_bytes` includes the fixed header. After an error the decoder
    has no defined position in the stream and must not be fed again.
    """

    __slots__ = (
        "_max_packet_bytes",
        "_max_payload_bytes",
        "_max_topic_bytes",
        "_missing_until",
        "_partial",
        "version",
    )

    def __init__(
        self,
        max_packet_bytes: int,
        *,
        max_payload_bytes: int | None = None,
        max_topic_bytes: int = 65_535,
        version: int = 0,
    ) -> None:
        self.version = version
        self._max_packet_bytes = max_packet_bytes
        self._max_payload_bytes = max_packet_bytes if max_payload_bytes is None else max_payload_bytes
        self._max_topic_bytes = max_topic_bytes
        self._partial: bytearray | None = None  # the beginning of a packet whose rest has not come
        self._missing_until = 0  # length of `_partial` from which on it is worth another look

    @property
    def is_mid_packet(self) -> bool:
        """Whether the bytes fed so far end inside a packet."""
        return self._partial is not None

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that `data` completes, in order; the rest is kept for the next call.

        Raises: RemoteProtocolError, with the packets before the violation in its `packets`.
        """
        # One long function on purpose: this loop runs for every message, and calls are what it costs.
        if self._partial is not None:
            self._partial += data
            if len(self._partial) < self._missing_until:
                return []
            data = bytes(self._partial)
            self._partial = None
        packets: list[Packet] = []
        at, end, wanted = 0, len(data), 0
        max_packet_bytes = self._max_packet_bytes
        try:
            while end - at > 1:
                length = data[at + 1]
                start = at + 2
                if length > 0x7F:
                    if end - start and 0 < data[start] < 0x80:
                        length = length & 0x7F | data[start] << 7
                        start += 1
                    else:
                        length, start = self._read_long_length(data, at)
                        if not start:
                            break
                stop = start + length
                if stop - at > max_packet_bytes:
                    raise RemoteProtocolError(ReasonCode.PACKET_TOO_LARGE, "A packet is above the size limit")
                if stop > end:
                    wanted = stop - at
                    break
                flags = PUBLISH_FLAGS.get(data[at])
                if flags is not None:
                    packets.append(self._decode_publish(data, start, stop, flags))
                else:
                    packets.append(self._decode_other(data[at], data[start:stop]))
                at = stop
        except RemoteProtocolError as error:
            error.packets = packets
            raise
        if at < end:
            self._partial = bytearray(data[at:])
            self._missing_until = wanted
        return packets

    def _decode_publish(self, data: bytes, start: int, stop: int, flags: tuple[int, bool, bool]) -> Publish:
        """The PUBLISH whose body is `data[start:stop]`."""
        if stop - start < 2:
            raise malformed("A PUBLISH ends inside its topic")
        at = start + 2 + (data[start] << 8 | data[start + 1])
        if at > stop:
            raise malformed("A PUBLISH ends inside its topic")
        raw = data[start + 2 : at]
        topic = _TOPICS.get(raw)
        if topic is None or len(raw) > self._max_topic_bytes:
            topic = self._validated_topic(raw)
        qos, dup, retain = flags
        packet_id = 0
        if qos:
            if at + 2 > stop:
                raise malformed("A PUBLISH ends inside its packet identifier")
            packet_id = data[at] << 8 | data[at + 1]
            at += 2
            if not packet_id:
                raise malformed("Packet identifier 0")  # [MQTT-2.2.1-3]
        properties: Properties | None = None
        if self.version == V5:
            properties, at = _publish_properties(data, at, stop)
        if not topic and not (properties and Property.TOPIC_ALIAS in properties):
            raise protocol_error("A PUBLISH without a topic")  # [MQTT-4.7.3-1]
        if stop - at > self._max_payload_bytes:
            raise RemoteProtocolError(ReasonCode.PACKET_TOO_LARGE, "A payload is above the size limit")
        return Publish(topic, data[at:stop], qos, packet_id, dup, retain, properties)

    def _validated_topic(self, raw: bytes) -> str:
        """The topic name these bytes encode; "" for none, which a v5 topic alias may excuse."""
        if len(raw) > self._max_topic_bytes:
            raise RemoteProtocolError(ReasonCode.TOPIC_NAME_INVALID, "A topic is above the length limit")
        topic = text_from(raw)
        if topic and not is_valid_topic(topic):
            # [MQTT-3.3.2-2]
            raise RemoteProtocolError(ReasonCode.TOPIC_NAME_INVALID, "A topic with a wildcard")
        if topic and len(raw) <= MAX_CACHED_TOPIC_BYTES:
            if len(_TOPICS) >= MAX_CACHED_TOPICS:
                _TOPICS.clear()
            _TOPICS[raw] = topic
        return topic

    def _decode_other(self, first_byte: int, body: bytes) -> Packet:
        """Any packet but a valid PUBLISH; a CONNECT settles the version of what follows."""
        decode = DECODERS.get(first_byte)
        if decode is None and self.version == V31:
            decode = V31_DECODERS.get(first_byte)
        if decode is None:
            raise malformed(f"0x{first_byte:02X} starts no packet")  # [MQTT-2.2.2-2]
        packet = decode(body, self.version)
        if isinstance(packet, Connect):
            self.version = packet.version
        return packet

    def _read_long_length(self, data: bytes, at: int) -> tuple[int, int]:
        """The remaining length of the packet at `at` and where its body starts; (0, 0) if it is cut."""
        length = 0
        for index in range(4):
            where = at + 1 + index
            if where == len(data):
                return 0, 0
            length |= (data[where] & 0x7F) << 7 * index
            if data[where] < 0x80:
                if not data[where] and self.version == V5:
                    raise malformed("The remaining length is longer than needed")  # [MQTT-1.5.5-1]
                return length, where + 1
        raise malformed("The remaining length has more than four bytes")  # [MQTT-1.5.5]


def _publish_properties(data: bytes, at: int, stop: int) -> tuple[Properties | None, int]:
    """The properties of a PUBLISH that ends at `stop`; almost always there are none."""
    if at < stop and not data[at]:
        return None, at + 1
    properties, length = read_properties(data[at:stop], 0, Carrier.PUBLISH)
    return properties, at + length
