"""The few CoAP messages the fast path needs: GET and POST requests in, responses out (RFC 7252 section 3).

Whatever is not understood here is aiocoap's business; nothing here raises on any bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cloud_core.transports.coap.recent import Recent
from cloud_core.transports.coap.requests import ACCEPTED, JSON, OCTETS, Answered, route
from shared.device_paths import DevicePath

CON, NON, ACK, RST = range(4)

ETAG, OBSERVE = 4, 6
URI_HOST, URI_PORT, URI_PATH, CONTENT_FORMAT, MAX_AGE = 3, 7, 11, 12, 14
URI_QUERY, ACCEPT, BLOCK2, BLOCK1, SIZE2, SIZE1 = 15, 17, 23, 27, 28, 60
NO_RESPONSE = 258
ACCEPTED_FORMATS = (JSON, OCTETS)
_IGNORED = (URI_HOST, URI_PORT)

_MAX_CACHED_BYTES = 256
_MAX_CACHED_HEADS = 60_000


@dataclass(slots=True)
class Head:
    """The options of a request, as far as they matter; read-only, shared by equal requests.

    `is_plain` says that a POST needs nothing beyond path and format.
    """

    path: DevicePath | None
    segments: tuple[str, ...]
    content_format: int | None
    queries: tuple[str, ...] = ()
    observe: int | None = None
    block2: int | None = None
    accept: int | None = None
    is_plain: bool = True


class HeadReader:
    """Options of requests, remembered by their bytes: devices repeat them in every message."""

    def __init__(self) -> None:
        self._known: Recent[bytes, Head] = Recent(max_entries=_MAX_CACHED_HEADS)

    def read(self, data: bytes, start: int) -> tuple[Head, int] | None:
        """The options from `start` and where the payload begins; None for what is not understood.

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
    number, size, options = 0, len(data), _Options()
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
            if not options.take(number, data[at : at + length]):
                return None
            at += length
    except (IndexError, UnicodeDecodeError):
        return None
    return options.head(), at


@dataclass(slots=True)
class _Options:
    """The options met so far."""

    segments: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    is_plain: bool = True

    def take(self, number: int, value: bytes) -> bool:
        """False for a critical option that is not understood, or an understood one of a wrong length."""
        if number == URI_PATH:
            self.segments.append(value.decode())
        elif number == URI_QUERY:
            self.queries.append(value.decode("utf-8", "replace"))
        elif number in _LONGEST:
            if len(value) > _LONGEST[number]:
                return False
            self.numbers[number] = int.from_bytes(value, "big")
        elif number == NO_RESPONSE:
            self.is_plain = False
        elif number & 1:
            return number in _IGNORED
        return True

    def head(self) -> Head:
        observe, block2, accept = map(self.numbers.get, (OBSERVE, BLOCK2, ACCEPT))
        is_special = observe is not None or block2 is not None or accept not in (None, *ACCEPTED_FORMATS)
        segments = tuple(self.segments)
        return Head(
            route(segments), segments, self.numbers.get(CONTENT_FORMAT), tuple(self.queries), observe, block2, accept,
            is_plain=self.is_plain and not is_special,
        )  # fmt: skip


_LONGEST = {CONTENT_FORMAT: 2, OBSERVE: 3, BLOCK2: 3, ACCEPT: 2}


def encode(kind: int, message_id: int, token: bytes, answered: Answered) -> bytes:
    """A response as its message."""
    head = bytes((0x40 | kind << 4 | len(token), answered.code, message_id >> 8, message_id & 255))
    if answered is ACCEPTED:
        return head + token  # the answer to nearly every message
    parts, previous = [head, token], 0
    for number, value in (
        (ETAG, answered.etag or None), (OBSERVE, answered.observe), (CONTENT_FORMAT, answered.content_format),
        (MAX_AGE, answered.max_age_s), (BLOCK2, answered.block2), (SIZE2, answered.size2),
    ):  # fmt: skip
        if value is None:
            continue
        encoded = value if isinstance(value, bytes) else value.to_bytes((value.bit_length() + 7) // 8, "big")
        delta = number - previous
        if delta < 13:
            parts.append(bytes((delta << 4 | len(encoded),)))
        else:
            parts.append(bytes((13 << 4 | len(encoded), delta - 13)))
        parts.append(encoded)
        previous = number
    if answered.payload:
        parts.append(b"\xff")
        parts.append(answered.payload)
    return b"".join(parts)


def empty(kind: int, message_id: int) -> bytes:
    """An empty acknowledgement or reset."""
    return bytes((0x40 | kind << 4, 0, message_id >> 8, message_id & 255))
