"""Where a message ends in a stream of bytes: at a delimiter, after a fixed length, or as its length prefix says."""

from __future__ import annotations

from typing import Final

PREFIXES: Final = {
    "uint8": (1, "big"),
    "uint16": (2, "big"),
    "uint32": (4, "big"),
    "uint16-little": (2, "little"),
    "uint32-little": (4, "little"),
}


class FramingLost(Exception):
    """Nobody can tell where the next message begins: the connection must start anew."""


class Framer:
    """Cuts what comes into frames; one for each connection."""

    def __init__(self, *, delimiter: bytes = b"\n", length: int = 0, prefix: str = "", max_bytes: int = 65_536) -> None:
        self._delimiter, self._length, self._prefix, self._max = delimiter, length, prefix, max_bytes
        self._rest = bytearray()
        self._searched = 0
        self._is_skipping = False
        self.skipped = 0  # frames that were too long

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole now, without delimiter or prefix; empty lines are none. Raises: FramingLost."""
        self._rest += data
        if self._prefix:
            return self._by_prefix()
        if self._length:
            return self._by_length()
        return self._by_delimiter()

    def end(self) -> None:
        """Nothing follows. Raises: FramingLost when a message is not whole."""
        if self._rest:
            raise FramingLost(f"it ends within a message: {len(self._rest)} bytes are too few")

    def reset(self) -> None:
        """Forgets what is not whole; what comes next begins a message."""
        self._rest.clear()
        self._searched, self._is_skipping = 0, False

    def wrap(self, payload: bytes) -> bytes:
        """`payload` as a frame for the other side."""
        if self._prefix:
            size, order = PREFIXES[self._prefix]
            return len(payload).to_bytes(size, order) + payload  # type: ignore[arg-type]  # "big" or "little"
        if self._length or payload.endswith(self._delimiter):
            return payload
        return payload + self._delimiter

    def _by_delimiter(self) -> list[bytes]:
        frames: list[bytes] = []
        start = 0
        while (end := self._rest.find(self._delimiter, max(start, self._searched))) >= 0:
            frame = bytes(self._rest[start:end])
            if self._delimiter == b"\n":
                frame = frame.removesuffix(b"\r")
            if self._is_skipping or len(frame) > self._max:
                self.skipped += 1
                self._is_skipping = False
            elif frame:
                frames.append(frame)
            start = end + len(self._delimiter)
        del self._rest[:start]
        if len(self._rest) > self._max + len(self._delimiter):
            self._is_skipping = True
            del self._rest[: -len(self._delimiter)]
        self._searched = max(0, len(self._rest) - len(self._delimiter) + 1)
        return frames

    def _by_length(self) -> list[bytes]:
        count = len(self._rest) // self._length
        frames = [bytes(self._rest[one * self._length : (one + 1) * self._length]) for one in range(count)]
        del self._rest[: count * self._length]
        return frames

    def _by_prefix(self) -> list[bytes]:
        size, order = PREFIXES[self._prefix]
        frames: list[bytes] = []
        start = 0
        while len(self._rest) - start >= size:
            length = int.from_bytes(self._rest[start : start + size], order)  # type: ignore[arg-type]  # as above
            if length > self._max:
                raise FramingLost(
                    f"a message of {length} bytes is announced; at most {self._max} are taken (max_frame)"
                )
            end = start + size + length
            if len(self._rest) < end:
                break
            if length:
                frames.append(bytes(self._rest[start + size : end]))
            start = end
        del self._rest[:start]
        return frames
