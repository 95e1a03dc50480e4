"""Firmware and software on their way to a device: any length, one block of it in memory at a time.

Source: wire-contract.md section 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from cloud_core.storage.interface import Done
from cloud_core.storage.interface.packages import BLOCK_BYTES
from shared.errors import PackageNotFound, PlatformError
from shared.messages import PackageChunk, PackageRequest

CHANGED = "The package was replaced while it was read; ask again."
Fetch = Callable[[PackageRequest, Done[PackageChunk]], None]
_TOKEN = re.compile(r"[A-Za-z0-9!#$&^_.+-]+")  # what needs no quotes (RFC 9110 section 5.6.2, cautiously)
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")


class Download:
    """A package, or the piece of it that was asked for. A push producer once `send` was called.

    What is larger than a block is fetched in aligned blocks, of which the first and the last may count in part.
    """

    def __init__(self, fetch: Fetch, request: PackageRequest) -> None:
        self._fetch = fetch
        self._request = request
        self._is_one_piece = 0 < request.chunk_bytes <= BLOCK_BYTES
        self._start = request.chunk_bytes * request.chunk
        self._end = 0  # in the package; known with the first block
        self._block = self._start // BLOCK_BYTES  # the next one
        self._ready = b""  # what is fetched and not written
        self._is_paused = self._is_fetching = self._is_pumping = self._is_over = False
        self._write: Callable[[bytes], None] = _nowhere
        self._finished: Callable[[PlatformError | None], None] = _nobody
        self.file_name = self.content_type = ""
        self.length_bytes = 0

    def open(self, done: Done[Download]) -> None:
        """Fetches the beginning; `done` with itself, so that the head of the answer can be written."""

        def arrived(outcome: PackageChunk | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                done(outcome)
                return
            self.file_name, self.content_type = outcome.file_name, outcome.content_type
            done(self if self._begin(outcome) else PackageNotFound(CHANGED))

        self._fetch(self._next_request(), arrived)

    def send(self, write: Callable[[bytes], None], finished: Callable[[PlatformError | None], None]) -> None:
        """Writes all of it, then `finished(None)`; with an error when the package was lost on the way."""
        self._write, self._finished = write, finished
        self._pump()

    # -- push producer ----------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._pump()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._is_over = True
        self._ready = b""

    # -- inside -----------------------------------------------------------------------------------

    def _next_request(self) -> PackageRequest:
        asked = self._request
        if self._is_one_piece:
            return asked
        return PackageRequest(
            kind=asked.kind, title=asked.title, version=asked.version, chunk_bytes=BLOCK_BYTES, chunk=self._block
        )

    def _begin(self, first: PackageChunk) -> bool:
        if self._is_one_piece:
            self._ready = first.data
            self.length_bytes = len(first.data)
            return True
        asked_bytes = self._request.chunk_bytes or first.total_bytes
        self._end = max(self._start, min(self._start + asked_bytes, first.total_bytes))
        self.length_bytes = self._end - self._start
        return self._take(first.data)

    def _take(self, data: bytes) -> bool:
        """The part of a block that is asked for; whether it is all there."""
        at = self._block * BLOCK_BYTES
        start, end = max(self._start - at, 0), min(max(self._end - at, 0), BLOCK_BYTES)
        self._ready = data[start:end]
        self._block += 1
        return len(self._ready) == max(end - start, 0)

    def _pump(self) -> None:
        if self._is_pumping:
            return
        self._is_pumping = True
        while not (self._is_paused or self._is_fetching or self._is_over):
            if self._ready:
                data, self._ready = self._ready, b""
                self._write(data)
            elif self._is_one_piece or self._block * BLOCK_BYTES >= self._end:
                self._finish(None)
            else:
                self._is_fetching = True
                self._fetch(self._next_request(), self._arrived)
        self._is_pumping = False

    def _arrived(self, outcome: PackageChunk | PlatformError) -> None:
        self._is_fetching = False
        if self._is_over:
            return
        if isinstance(outcome, PlatformError):
            self._finish(outcome)
            return
        if self._take(outcome.data):
            self._pump()
        else:
            self._finish(PackageNotFound(CHANGED))

    def _finish(self, error: PlatformError | None) -> None:
        self._is_over = True
        self._finished(error)


def disposition(file_name: str) -> str:
    """`Content-Disposition` of a file name, whatever it holds; ASCII."""
    if _TOKEN.fullmatch(file_name):
        return f"attachment;filename={file_name}"
    plain = "".join(one if one.isprintable() and one.isascii() and one not in '"\\' else "_" for one in file_name)
    return f"attachment;filename=\"{plain}\";filename*=UTF-8''{_encoded(file_name)}"


def header_name(file_name: str) -> str:
    """The file name for `x-filename`: as it is where a header can hold it, else percent-encoded."""
    is_plain = file_name.isascii() and file_name.isprintable()
    return file_name if is_plain else _encoded(file_name)


def media_type(content_type: str) -> str:
    """The type that the operator gave, where it is one."""
    return content_type if _MEDIA_TYPE.fullmatch(content_type) else "application/octet-stream"


def _encoded(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _nowhere(_data: bytes) -> None:
    raise AssertionError("written before `send`")


def _nobody(_error: PlatformError | None) -> None:
    raise AssertionError("finished before `send`")
