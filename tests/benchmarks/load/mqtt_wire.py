"""MQTT 3.1.1 packets as bytes, as far as a load client needs them."""

from __future__ import annotations

from collections.abc import Iterator

CONNACK_ACCEPTED = b"\x20\x02\x00\x00"
DISCONNECT = b"\xe0\x00"
PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
PUBLISH_TYPE = 3


def connect(*, client_id: str, username: str, keep_alive_s: int = 120) -> bytes:
    """CONNECT with a clean session, a user name and no password."""
    variable = b"\x00\x04MQTT\x04\x82" + keep_alive_s.to_bytes(2, "big")
    return _packet(0x10, variable + _text(client_id) + _text(username))


def subscribe(packet_id: int, topic: str, qos: int) -> bytes:
    """SUBSCRIBE to one topic filter."""
    return _packet(0x82, packet_id.to_bytes(2, "big") + _text(topic) + bytes([qos]))


def publish(topic: str, payload: bytes, *, packet_id: int | None = None) -> bytes:
    """PUBLISH with QoS 1 when a packet id is given, else with QoS 0."""
    if packet_id is None:
        return _packet(0x30, _text(topic) + payload)
    return _packet(0x32, _text(topic) + packet_id.to_bytes(2, "big") + payload)


def puback(packet_id: int) -> bytes:
    """The answer to a QoS 1 PUBLISH: always four bytes in 3.1.1."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def complete_packets(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole packets in `data` as (type and flags, body), and the bytes of an unfinished one."""
    packets, start = [], 0
    for first, body_start, end in _bounds(data):
        packets.append((first, data[body_start:end]))
        start = end
    return packets, data[start:]


def _bounds(data: bytes) -> Iterator[tuple[int, int, int]]:
    start, size = 0, len(data)
    while size - start >= 2:
        length, shift, at = 0, 0, start + 1
        while at < size:
            length |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not data[at - 1] & 0x80:
                break
        else:
            return
        if at + length > size:
            return
        yield data[start], at, at + length
        start = at + length


def _packet(first: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(encoded) + body


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded
