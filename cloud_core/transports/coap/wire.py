"""The few CoAP messages the fast path needs: plain POST requests in, responses out (RFC 7252 section 3).

Whatever is not understood here is aiocoap's business; nothing here raises on any bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloud_core.transports.coap.adapter import route
from cloud_core.transports.coap.recent import Recent
from shared.topics import DevicePath

CON, NON, ACK, RST = range(4)

URI_HOST, URI_PORT, URI_PATH, CONTENT_FORMAT, MAX_AGE = 3, 7, 11, 12, 14
URI_QUERY, ACCEPT, BLOCK2, BLOCK1, SIZE1 = 15, 17, 23, 27, 60
OBSERVE, NO_RESPONSE = 6, 258
_IGNORED = (URI_HOST, URI_PORT, URI_QUERY, SIZE1)
_ACCEPTED_FORMATS = (b"\x32", b"\x2a")

_MAX_CACHED_BYTES = 256
_MAX_CACHED_HEADS = 60_000


@dataclass(slots=True)
class Head:
    """The options of a request, as far as they matter; read-only, shared by equal requests."""

    path: DevicePath | None
    segments: tuple[str, ...]
    content_format: int | None


class HeadReader:
    """Options of requests, remembered by their bytes: devices repeat them in every message."""

    def __init__(self) -> None:
        self._known: Recent[bytes, Head] = Recent(max_entries=_MAX_CACHED_HEADS)

    def read(self, data: bytes, start: int) -> tuple[Head, int] | None:
        """The options from `start` and where the payload begins; None for what is not plain.

        The options are self-delimiting, so equal bytes up to an end marker that was one before mean
        the same again.
        """
        marker = data.find(b"\xff", start)
        if marker >= 0:
            known = self._known.get(data[start:marker])
            if known is not None:
                return None if marker + 1 == len(data) else (known, marker + 1)
        parsed = _parse(data, start)
        if parsed is None:
            return None
        head, end = parsed
        if end == marker and end - start <= _MAX_CACHED_BYTES:
            self._known.put(data[start:end], head)
        if end == len(data):
            return head, end
        return None if end + 1 == len(data) else (head, end + 1)  # a marker and no payload: format error


def _parse(data: bytes, at: int) -> tuple[Head, int] | None:
    """The options and the index of the payload marker, or of the end of the message."""
    number, segments, content_format = 0, [], None
    size = len(data)
    try:
        while at < size and data[at] != 0xFF:
            delta, length = data[at] >> 4, data[at] & 15
            at += 1
            if delta == 13:
                delta, at = data[at] + 13, at + 1
            elif delta == 14:
                delta, at = (data[at] << 8 | data[at + 1]) + 269, at + 2
            if length == 13:
                length, at = data[at] + 13, at + 1
            elif length == 14:
                length, at = (data[at] << 8 | data[at + 1]) + 269, at + 2
            if delta == 15 or length == 15 or at + length > size:
                return None
            number += delta
            value = data[at : at + length]
            at += length
            if number == URI_PATH:
                segments.append(value.decode())
            elif number == CONTENT_FORMAT and length <= 2:
                content_format = int.from_bytes(value, "big")
            elif not _is_harmless(number, value):
                return None
    except (IndexError, UnicodeDecodeError):
        return None
    return Head(route(segments), tuple(segments), content_format), at


def _is_harmless(number: int, value: bytes) -> bool:
    """Whether the fast path may overlook the option: known to change nothing, or elective and unknown."""
    if number in _IGNORED:
        return True
    if number == ACCEPT:
        return value in _ACCEPTED_FORMATS
    return not number & 1 and number not in (OBSERVE, NO_RESPONSE, CONTENT_FORMAT)


def response(
    kind: int,
    code: int,
    message_id: int,
    token: bytes,
    *,
    payload: bytes = b"",
    content_format: int | None = None,
    max_age_s: int | None = None,
    block2: int | None = None,
) -> bytes:
    """An encoded message. `block2` is the option's number: block << 4 | more << 3 | size exponent."""
    parts = [bytes((0x40 | kind << 4 | len(token), code, message_id >> 8, message_id & 255)), token]
    previous = 0
    for number, value in ((CONTENT_FORMAT, content_format), (MAX_AGE, max_age_s), (BLOCK2, block2)):
        if value is None:
            continue
        encoded = value.to_bytes((value.bit_length() + 7) // 8, "big")
        delta = number - previous
        if delta < 13:
            parts.append(bytes((delta << 4 | len(encoded),)))
        else:
            parts.append(bytes((13 << 4 | len(encoded), delta - 13)))
        parts.append(encoded)
        previous = number
    if payload:
        parts.append(b"\xff")
        parts.append(payload)
    return b"".join(parts)
