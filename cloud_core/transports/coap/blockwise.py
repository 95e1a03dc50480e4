"""Bodies that travel in several messages, in bounded space (RFC 7959)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from cloud_core.transports.coap.adapter import MAX_BODY_BYTES
from cloud_core.transports.coap.errors import INCOMPLETE, TOO_LARGE

BLOCK_EXPONENT = 6
BLOCK_BYTES = 1 << BLOCK_EXPONENT + 4
_MAX_UPLOADS = 2_000
_MAX_UPLOAD_BYTES = 16_777_216
_MAX_DOWNLOADS = 2_000


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


@dataclass(slots=True)
class Answered:
    """A response whose payload is too large for one message."""

    code: int
    payload: bytes
    content_format: int | None
    max_age_s: int | None


class Downloads:
    """Large responses, kept until the peer has asked for their last block."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, Answered] = OrderedDict()

    def keep(self, key: Hashable, answered: Answered) -> None:
        self._answers[key] = answered
        self._answers.move_to_end(key)
        if len(self._answers) > _MAX_DOWNLOADS:
            self._answers.popitem(last=False)

    def get(self, key: Hashable) -> Answered | None:
        return self._answers.get(key)
