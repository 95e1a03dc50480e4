"""The data types of the MQTT wire: integers, strings, binary data (MQTT 5 section 1.5).

Readers take a whole packet body and an offset and return the value with the offset behind it. They never
read past the end of `body`; what does not fit is a malformed packet. Writers raise `LocalProtocolError`
for values that have no encoding.
"""

from __future__ import annotations

from shared.mqtt.codes import ReasonCode
from shared.mqtt.errors import LocalProtocolError, RemoteProtocolError

MAX_VARIABLE_INTEGER = 268_435_455  # four bytes of seven bits [MQTT-1.5.5]
MAX_TEXT_BYTES = 65_535  # the length prefix has two bytes [MQTT-1.5.4]


def malformed(text: str) -> RemoteProtocolError:
    """The error for bytes that cannot be parsed; to be raised by the caller."""
    return RemoteProtocolError(ReasonCode.MALFORMED_PACKET, text)


def protocol_error(text: str) -> RemoteProtocolError:
    """The error for a packet that parses but is not allowed; to be raised by the caller."""
    return RemoteProtocolError(ReasonCode.PROTOCOL_ERROR, text)


def read_byte(body: bytes, at: int) -> tuple[int, int]:
    """One byte as an integer."""
    if at >= len(body):
        raise malformed("The packet ends inside a byte field")
    return body[at], at + 1


def read_u16(body: bytes, at: int) -> tuple[int, int]:
    """A two-byte big-endian integer."""
    end = at + 2
    if end > len(body):
        raise malformed("The packet ends inside a two-byte integer")
    return body[at] << 8 | body[at + 1], end


def read_u32(body: bytes, at: int) -> tuple[int, int]:
    """A four-byte big-endian integer."""
    end = at + 4
    if end > len(body):
        raise malformed("The packet ends inside a four-byte integer")
    return int.from_bytes(body[at:end], "big"), end


def read_variable_integer(body: bytes, at: int) -> tuple[int, int]:
    """A v5 variable byte integer, which must use as few bytes as possible [MQTT-1.5.5-1]."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte, at = read_byte(body, at)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                raise malformed("A variable byte integer is longer than needed")
            return value, at
    raise malformed("A variable byte integer has more than four bytes")


def read_binary(body: bytes, at: int) -> tuple[bytes, int]:
    """Binary data behind a two-byte length."""
    length, start = read_u16(body, at)
    end = start + length
    if end > len(body):
        raise malformed("The packet ends inside a string or binary field")
    return body[start:end], end


def read_text(body: bytes, at: int) -> tuple[str, int]:
    """A UTF-8 string behind a two-byte length; see `text_from`."""
    raw, end = read_binary(body, at)
    return text_from(raw), end


def text_from(raw: bytes) -> str:
    """The string these bytes encode: strict UTF-8, so no surrogates [MQTT-1.5.4-1], no NUL [MQTT-1.5.4-2]."""
    if b"\0" in raw:
        raise malformed("A string contains U+0000")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed("A string is not valid UTF-8") from None


def pack_u16(value: int) -> bytes:
    """Two bytes, big-endian."""
    if not 0 <= value <= 0xFFFF:
        raise LocalProtocolError(f"{value} does not fit in two bytes")
    return value.to_bytes(2, "big")


def pack_variable_integer(value: int) -> bytes:
    """A variable byte integer of one to four bytes."""
    if not 0 <= value <= MAX_VARIABLE_INTEGER:
        raise LocalProtocolError(f"{value} does not fit in a variable byte integer")
    if value < 0x80:
        return bytes((value,))
    packed = bytearray()
    while value > 0x7F:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def pack_binary(value: bytes) -> bytes:
    """Binary data with its two-byte length."""
    if len(value) > MAX_TEXT_BYTES:
        raise LocalProtocolError(f"{len(value)} bytes do not fit behind a two-byte length")
    return len(value).to_bytes(2, "big") + value


def pack_text(value: str) -> bytes:
    """A string as UTF-8 with its two-byte length."""
    try:
        raw = value.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalProtocolError("A string with a lone surrogate has no encoding") from None
    if b"\0" in raw:
        raise LocalProtocolError("A string may not contain U+0000")
    return pack_binary(raw)
