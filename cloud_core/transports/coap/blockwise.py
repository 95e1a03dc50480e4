"""Bodies that travel in several messages, in bounded space (RFC 7959)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace

from cloud_core.transports.coap.errors import INCOMPLETE, TOO_LARGE
from cloud_core.transports.coap.requests import MAX_BODY_BYTES, Answered

BLOCK_EXPONENT = 6
BLOCK_BYTES = 1 << BLOCK_EXPONENT + 4
_MAX_UPLOADS = 2_000
_MAX_UPLOAD_BYTES = 16_777_216
_MAX_DOWNLOADS = 2_000
_MAX_DOWNLOAD_BYTES = 33_554_432


class Uploads:
    """Request bodies under way; the oldest gives way when space is short."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[Hashable, bytearray] = OrderedDict()
        self._bytes = 0

    def add(self, key: Hashable, number: int, exponent: int, block: bytes) -> int | None:
        """Takes one block; returns the code that refuses it, or None."""
        if number == 0:
            self.take(key)
            self._bodies[key] = bytearray()
        body = self._bodies.get(key)
        if body is None or len(body) != number << min(exponent, BLOCK_EXPONENT) + 4:
            return INCOMPLETE
        if len(body) + len(block) > MAX_BODY_BYTES:
            self.take(key)
            return TOO_LARGE
        body += block
        self._bytes += len(block)
        self._bodies.move_to_end(key)
        while len(self._bodies) > _MAX_UPLOADS or self._bytes > _MAX_UPLOAD_BYTES:
            self.take(next(iter(self._bodies)))
        return None

    def take(self, key: Hashable) -> bytes:
        """The body so far, which is forgotten here."""
        body = self._bodies.pop(key, bytearray())
        self._bytes -= len(body)
        return bytes(body)


class Downloads:
    """Large responses, kept for peers that come for their later blocks; the oldest gives way."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, Answered] = OrderedDict()
        self._bytes = 0

    def keep(self, key: Hashable, answered: Answered) -> None:
        self._drop(key)
        self._answers[key] = answered
        self._bytes += len(answered.payload)
        while len(self._answers) > _MAX_DOWNLOADS or self._bytes > _MAX_DOWNLOAD_BYTES:
            self._drop(next(iter(self._answers)))

    def later_block(self, key: Hashable, block2: int) -> Answered:
        """Block 1 and following of what was kept; 4.08 when it is not there any more."""
        kept = self._answers.get(key)
        return Answered(INCOMPLETE) if kept is None else part(kept, block2)

    def first_block(self, key: Hashable, answered: Answered, block2: int | None = None) -> Answered:
        """The answer itself where it fits into one message, else its first block, and the rest is kept."""
        if answered.block2 is not None or len(answered.payload) <= 1 << exponent_of(block2) + 4:
            return answered
        self.keep(key, answered)
        return part(answered, exponent_of(block2))

    def _drop(self, key: Hashable) -> None:
        dropped = self._answers.pop(key, None)
        if dropped is not None:
            self._bytes -= len(dropped.payload)


def download_key(address: tuple[object, ...], segments: tuple[str, ...], queries: tuple[str, ...]) -> Hashable:
    """Whose answer it is, and to what: a block's request repeats path and query (RFC 7959 section 2.4)."""
    return address[:3], segments, queries  # the third tells DTLS sessions apart


def exponent_of(block2: int | None) -> int:
    """The size exponent that the peer asks for, ours where it asks for none or too much."""
    return BLOCK_EXPONENT if block2 is None else min(block2 & 7, BLOCK_EXPONENT)


def part(answered: Answered, block2: int) -> Answered:
    """The block that `block2` asks for; 4.08 past the end."""
    number, exponent = block2 >> 4, exponent_of(block2)
    size_bytes = 1 << exponent + 4
    start = number * size_bytes
    if start >= len(answered.payload):
        return Answered(INCOMPLETE)
    is_last = start + size_bytes >= len(answered.payload)
    return replace(
        answered,
        payload=answered.payload[start : start + size_bytes],
        block2=number << 4 | (not is_last) << 3 | exponent,
        size2=len(answered.payload) if number == 0 else None,
        observe=answered.observe if number == 0 else None,
    )
