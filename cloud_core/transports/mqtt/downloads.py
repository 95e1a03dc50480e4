"""Firmware and software in chunks (wire-contract.md section 2.10).

ThingsBoard closes the connection after an error; here it stays: a device that asked too early asks again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from cloud_core.core.packages import PackagesApi
from cloud_core.model import Identity
from shared import topics
from shared.errors import MalformedRequest, PackageNotFound, PlatformError
from shared.messages import PackageChunk, PackageKind, PackageRequest
from shared.topics import Target

MAX_REQUESTS = 16  # whose chunk size is remembered
MAX_CHUNK_BYTES = 65_536
MAX_WHOLE_BYTES = 4_194_304  # of a package asked for in one piece


class Downloads:
    """The chunk size of each request id of one session; made when the first chunk is asked for."""

    __slots__ = ("_identity", "_packages", "_publish", "_sizes")

    def __init__(self, identity: Identity, packages: PackagesApi, publish: Callable[[str, bytes], None]) -> None:
        self._identity = identity
        self._packages = packages
        self._publish = publish
        self._sizes: OrderedDict[tuple[bool, int], int] = OrderedDict()

    def fetch(self, target: Target, payload: bytes, done: Callable[[object], None]) -> None:
        """Sends the chunk, or the error's name, after `done` has acknowledged the request."""
        try:
            size = self._size(target, payload)
        except PlatformError as error:
            done(error)
            return
        if size > MAX_CHUNK_BYTES:
            done(None)
            self._publish(topics.download_error_topic(target), b"PAYLOAD_TOO_LARGE")
            return
        kind = PackageKind.SOFTWARE if target.is_software else PackageKind.FIRMWARE

        def fetched(outcome: PackageChunk | PlatformError) -> None:
            done(None)
            if isinstance(outcome, PlatformError):
                name = b"NOT_FOUND" if isinstance(outcome, PackageNotFound) else outcome.reason.value.encode()
                self._publish(topics.download_error_topic(target), name)
            elif len(outcome.data) > MAX_WHOLE_BYTES:
                self._publish(topics.download_error_topic(target), b"PAYLOAD_TOO_LARGE")
            else:
                self._publish(topics.chunk_topic(target), outcome.data)

        self._packages.fetch(self._identity, PackageRequest(kind=kind, chunk_bytes=size, chunk=target.chunk), fetched)

    def _size(self, target: Target, payload: bytes) -> int:
        """Of the payload, or as given before for this request id; 0 is the whole package."""
        key = (target.is_software, target.request_id)
        text = payload.strip()
        if not text:
            return self._sizes.get(key, 0)
        if not text.isdigit() or len(text) > 10:
            raise MalformedRequest("The payload must be the chunk size in bytes as decimal text, or empty.")
        size = int(text)
        self._sizes[key] = size
        self._sizes.move_to_end(key)
        if len(self._sizes) > MAX_REQUESTS:
            self._sizes.popitem(last=False)
        return size
