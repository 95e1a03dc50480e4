"""One live view of the readings, as Server-Sent Events; bounded, so that a slow reader costs the gateway nothing."""

from __future__ import annotations

import fnmatch
import re
from collections import deque
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from edge_gateway.model import Reading

MAX_QUEUE = 1_000  # readings that wait for this reader; further ones are counted
FLUSH_S = 0.1
EVENTS_PER_FLUSH = 100
KEEP_ALIVE_S = 15.0
TELL_S = 5.0  # so often, in an endless flood, it is told how much is dropped
MAX_RAW_CHARS = 500  # of each key


class Filter:
    """Chooses readings. `device` and `connector` are names, or patterns with `*` and `?`; empty: all. Case is nothing,
    because people type these on telephones."""

    def __init__(self, device: str = "", connector: str = "") -> None:
        self._device = _matcher(device)
        self._connector = _matcher(connector)

    def takes(self, connector: str, reading: Reading) -> bool:
        return (self._connector is None or self._connector.match(connector) is not None) and (
            self._device is None or self._device.match(reading.device) is not None
        )


def _matcher(pattern: str) -> re.Pattern[str] | None:
    """`fnmatch` without `[…]`, which device names may contain."""
    if not pattern:
        return None
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")), re.IGNORECASE)


@implementer(IPushProducer)
class LiveTap:
    """Writes to `request` until the reader goes away or `stop` is called. `ended` fires then."""

    def __init__(self, request: Any, chosen: Filter, *, reactor: Any, wall_ms: Any) -> None:  # Any: Twisted, zope
        self._request = request
        self._chosen = chosen
        self._reactor = reactor
        self._wall_ms = wall_ms
        self._queue: deque[tuple[int, str, Reading]] = deque()
        self._dropped = 0
        self._is_paused = False
        self._timer: Any = None
        self._quiet_since_s = 0.0
        self._told_s = 0.0  # when the count of what was dropped went out last
        self._is_over = False
        self.ended: Deferred[bytes] = Deferred()

    def start(self) -> None:
        """The first line goes out at once, so that the reader knows that it is connected."""
        self._request.setHeader("Content-Type", "text/event-stream; charset=utf-8")
        self._request.setHeader("X-Accel-Buffering", "no")
        self._request.registerProducer(self, True)
        self._request.write(b"retry: 3000\n\n: listening\n\n")
        self._quiet_since_s = self._told_s = self._reactor.seconds()
        self._schedule()

    def heard(self, connector: str, reading: Reading) -> None:
        """A reading, in the gateway's own pace: keep it cheap."""
        if not self._chosen.takes(connector, reading):
            return
        if len(self._queue) >= MAX_QUEUE:
            self._dropped += 1
        else:
            self._queue.append((self._wall_ms(), connector, reading))

    def _schedule(self) -> None:
        self._timer = self._reactor.callLater(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if not self._is_paused:
            self._write()
        if not self._is_over:
            self._schedule()

    def _write(self) -> None:
        events = [event(*self._queue.popleft()) for _ in range(min(EVENTS_PER_FLUSH, len(self._queue)))]
        now_s = self._reactor.seconds()
        if self._dropped and (not self._queue or now_s - self._told_s >= TELL_S):
            events.append(b"event: dropped\ndata: %d\n\n" % self._dropped)
            self._dropped, self._told_s = 0, now_s
        if not events and now_s - self._quiet_since_s < KEEP_ALIVE_S:
            return
        self._quiet_since_s = now_s
        self._request.write(b"".join(events) or b": nothing for a while\n\n")

    def stop(self) -> None:
        """Once is enough; more does no harm."""
        if self._is_over:
            return
        self._is_over = True
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._request._disconnected:
            self._request.unregisterProducer()
        if not self.ended.called:
            self.ended.callback(b"")

    # -- the reader's pace (IPushProducer)

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False

    def stopProducing(self) -> None:
        self.stop()


def event(at_ms: int, connector: str, reading: Reading) -> bytes:
    """One reading as an event; `at` is when it came, `ts` the source's own time, if any."""
    values: dict[str, Any] = {"at": at_ms, "connector": connector, "device": reading.device, "ts": reading.ts_ms}
    if reading.type:
        values["type"] = reading.type
    if reading.telemetry:
        values["telemetry"] = reading.telemetry
    if reading.attributes:
        values["attributes"] = reading.attributes
    if reading.raw:
        values["raw"] = {key: str(text)[:MAX_RAW_CHARS] for key, text in reading.raw.items()}
    return b"data: " + msgspec.json.encode(values) + b"\n\n"
