"""Firmware and software in pieces (wire-contract.md section 2.10).

One piece of a session is fetched at a time, and none while the peer does not read, so that what a session holds in
memory is bounded by two pieces. ThingsBoard closes the connection behind `v2/fw/error`; here it stays open, because a
device that asked wrongly has other things to say too.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace

from twisted.logger import Logger

from cloud_core.transports.mqtt.conversation import Conversation
from cloud_core.transports.mqtt.slots import Slot
from shared import topics
from shared.errors import MalformedRequest, PackageNotFound, PlatformError, RateLimited, RequestTooLarge
from shared.messages import PackageChunk, PackageKind, PackageRequest
from shared.mqtt.packets import Publish
from shared.topics import DeviceTopic

log = Logger()

_Fetched = Callable[[PackageChunk | PlatformError], None]
MAX_REMEMBERED_SIZES = 16
MAX_WAITING = 100  # as many as `getSessionLimits` allows in flight
MAX_SIZE_DIGITS = 10
# What the error topic says.
TEXTS: dict[type[PlatformError], str] = {PackageNotFound: "NOT_FOUND", RequestTooLarge: "PAYLOAD_TOO_LARGE"}


class Downloads:
    """What a session has asked for: chunk sizes by request, and pieces that wait for their turn."""

    __slots__ = ("_is_busy", "_sizes", "_waiting")

    def __init__(self) -> None:
        self._sizes: OrderedDict[tuple[PackageKind, int], int] = OrderedDict()
        self._waiting: deque[tuple[Slot, DeviceTopic, int]] = deque()
        self._is_busy = False

    def chunk_bytes(self, kind: PackageKind, request_id: int, body: bytes) -> int:
        """The size in `body`, else the one given before for this request, else 0: everything at once.

        Raises: MalformedRequest.
        """
        key, text = (kind, request_id), body.strip()
        if not text:
            return self._sizes.get(key, 0)
        if not text.isdigit() or len(text) > MAX_SIZE_DIGITS:
            raise MalformedRequest("The body must be the chunk size in bytes as decimal text, or empty.")
        self._sizes[key] = int(text)
        self._sizes.move_to_end(key)
        if len(self._sizes) > MAX_REMEMBERED_SIZES:
            self._sizes.popitem(last=False)
        return int(text)

    def ask(self, session: Conversation, slot: Slot, topic: DeviceTopic, chunk_bytes: int) -> None:
        """A piece is sent when its turn comes."""
        if len(self._waiting) >= MAX_WAITING:
            _refuse(session, slot, topic, RateLimited("Too many pieces are asked for at once; await their answers."))
            return
        self._waiting.append((slot, topic, chunk_bytes))
        self.proceed(session)

    def forget(self) -> None:
        """The session is over: what waits is not fetched."""
        self._waiting.clear()

    def proceed(self, session: Conversation) -> None:
        """Fetches the next piece, if it may. Also called when the peer reads again."""
        if self._is_busy or not self._waiting or session.is_blocked:
            return
        self._is_busy = True
        slot, topic, chunk_bytes = self._waiting.popleft()

        def fetched(outcome: PackageChunk | PlatformError) -> None:
            self._is_busy = False
            if isinstance(outcome, PlatformError):
                _refuse(session, slot, topic, outcome)
            else:
                _send(session, slot, topic, outcome.data)
            self.proceed(session)

        assert topic.package is not None  # of every DOWNLOAD
        request = PackageRequest(kind=topic.package, chunk_bytes=chunk_bytes, chunk=topic.chunk)
        if chunk_bytes:
            session.api.packages.fetch(session.device, request, fetched)
        else:
            _fetch_whole(session, request, fetched)


def download(session: Conversation, packet: Publish, topic: DeviceTopic) -> None:
    """Acknowledged at once; the piece, or what is wrong, follows on its own topic."""
    assert topic.package is not None  # of every DOWNLOAD
    chunk_bytes = session.downloads.chunk_bytes(topic.package, topic.request_id, packet.payload)
    slot = session.take(packet)
    session.conclude(slot, packet, None)
    if chunk_bytes > session.settings.max_chunk_bytes:
        detail = f"The chunk size {chunk_bytes} is above {session.settings.max_chunk_bytes}."
        _refuse(session, slot, topic, RequestTooLarge(detail))
    else:
        session.downloads.ask(session, slot, topic, chunk_bytes)


def _fetch_whole(session: Conversation, request: PackageRequest, done: _Fetched) -> None:
    """Everything at once, if it is not too much: its first piece says how much it is."""
    if request.chunk:
        done(PackageChunk(data=b"", file_name="", content_type="", total_bytes=0))  # past the end
        return
    most = session.settings.max_whole_package_bytes

    def began(outcome: PackageChunk | PlatformError) -> None:
        if isinstance(outcome, PlatformError):
            done(outcome)
        elif outcome.total_bytes > most:
            done(RequestTooLarge(f"The package has {outcome.total_bytes} bytes; ask for it in chunks."))
        elif outcome.total_bytes <= len(outcome.data):
            done(outcome)
        else:
            session.api.packages.fetch(session.device, request, done)

    first = replace(request, chunk_bytes=session.settings.max_chunk_bytes)
    session.api.packages.fetch(session.device, first, began)


def _send(session: Conversation, slot: Slot, topic: DeviceTopic, data: bytes) -> None:
    assert topic.package is not None  # of every DOWNLOAD
    session.answer(slot, topics.chunk_topic(topic.package, topic.request_id, topic.chunk), data)


def _refuse(session: Conversation, slot: Slot, topic: DeviceTopic, error: PlatformError) -> None:
    """On `v2/fw/error` for both kinds, as ThingsBoard does; on `v2/sw/error` for who subscribed to that alone."""
    if session.is_line_due():
        log.warn("{device} gets no piece of its package: {error}", device=session.device.device_name, error=str(error))
    firmware = topics.package_error_topic(PackageKind.FIRMWARE)
    software = topics.package_error_topic(PackageKind.SOFTWARE)
    is_software = topic.package is PackageKind.SOFTWARE and software in session.subscriptions
    error_topic = software if is_software and firmware not in session.subscriptions else firmware
    session.answer(slot, error_topic, TEXTS.get(type(error), error.reason.value).encode())
