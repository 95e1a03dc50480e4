"""Requests that come in blocks (RFC 7959), put together in bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

MAX_UPLOADS: Final = 200
_LIFETIME_S: Final = 93.0  # MAX_TRANSMIT_WAIT


class TooLarge(Exception):
    """More than is allowed."""


class Incomplete(Exception):
    """A block is missing before this one."""


@dataclass(slots=True)
class _Upload:
    at_s: float
    data: bytearray = field(default_factory=bytearray)


class Uploads:
    """What has come so far, by sender and path; the oldest makes room."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max = max_bytes
        self._clock = clock
        self._uploads: OrderedDict[Hashable, _Upload] = OrderedDict()

    def add(self, key: Hashable, start: int, block: bytes, *, has_more: bool) -> bytes | None:
        """The whole with its last block, else None. Raises: TooLarge, Incomplete."""
        now_s = self._clock()
        if start + len(block) > self._max:
            self._uploads.pop(key, None)
            raise TooLarge()
        if start == 0:
            self._uploads[key] = _Upload(now_s)
            self._uploads.move_to_end(key)
            if len(self._uploads) > MAX_UPLOADS:
                self._uploads.popitem(last=False)
        upload = self._uploads.get(key)
        if upload is None or len(upload.data) != start or now_s - upload.at_s > _LIFETIME_S:
            self._uploads.pop(key, None)
            raise Incomplete()
        upload.data += block
        if has_more:
            return None
        del self._uploads[key]
        return bytes(upload.data)
