"""One connection at work: frames to readings, acknowledgements, commands and their answers."""

from __future__ import annotations

import asyncio
import re
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.line.framing import Framer, FramingLost
from edge_gateway.connectors.line.links import Link
from edge_gateway.connectors.line.settings import PEER, LineMap, captures_of
from edge_gateway.mapping.compiling import compile_map
from edge_gateway.mapping.interface import CompiledTemplate, MappingError
from edge_gateway.mapping.values import by_look
from edge_gateway.model import CallFailed, Json, Reading, Refusal

_MAX_WAITING: Final = 256  # messages of one connection that wait for the disk
_TURN: Final = 100  # messages of one connection that are looked at in one turn of the loop


class Map:
    """A compiled `LineMap`."""

    def __init__(self, settings: LineMap) -> None:
        self._match = re.compile(settings.match) if settings.match else None
        self._map = compile_map(settings, captures_of(settings))

    def readings(self, frame: bytes, peer: str, *, wants_raw: bool) -> list[Reading] | None:
        """None when it is not for this map. Raises: MappingError."""
        captures = {PEER: peer}
        if self._match is not None:
            found = self._match.search(frame.decode("utf-8", "replace"))
            if found is None:
                return None
            captures |= {name: text or "" for name, text in found.groupdict().items()}
        return self._map.readings(frame, captures, wants_raw=wants_raw)


@dataclass(frozen=True, slots=True)
class Rules:
    """What all connections of a connector share."""

    site: Site
    maps: Sequence[Map]
    ack: CompiledTemplate | None
    refuse: CompiledTemplate | None
    spoke: Callable[[Session, str], None]  # a device spoke on this connection
    ended: Callable[[Session, str], None]


class Session:
    """The `Receiver` of a link."""

    def __init__(self, rules: Rules, link: Link, peer: str, framer: Framer, *, can_wait: bool = True) -> None:
        self._rules, self.link, self._peer, self._framer = rules, link, peer, framer
        self._can_wait = can_wait and rules.refuse is None  # a sender that is told sends again
        self._frames: deque[bytes] = deque()  # of the last read, that are not looked at yet
        self._is_working = False
        self._waiting = 0
        self._last_number = 0
        self._held: list[tuple[int, Sequence[Reading]]] = []  # refused for now, in the order in which they came
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._awaits_room = False
        self._reply: tuple[re.Pattern[str], asyncio.Future[Json]] | None = None
        self._one_call = asyncio.Lock()
        self._skipped = 0
        self.heard_s = time.monotonic()
        self.is_over = False
        self.devices: set[str] = set()  # that spoke here last

    # -- Receiver ---------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Some bytes of the stream."""
        self.heard_s = time.monotonic()
        try:
            frames = self._framer.feed(data)
        except FramingLost as error:
            self._rules.site.reject(self._peer, data, str(error))
            self.link.close()
            self.lost(str(error))
            return
        self._note_skipped(data)
        self._frames += [frame for frame in frames if not self._is_reply(frame)]
        self._work()

    def datagram(self, data: bytes) -> None:
        """A message, or several; none goes on in the next datagram."""
        self.heard_s = time.monotonic()
        try:
            for frame in self._framer.feed(data):
                if not self._is_reply(frame):
                    self._take(frame)
            self._framer.end()
        except FramingLost as error:
            self._framer.reset()
            self._rules.site.reject(self._peer, data, str(error))
        self._note_skipped(data)

    def _note_skipped(self, data: bytes) -> None:
        if self._framer.skipped > self._skipped:
            self._skipped = self._framer.skipped
            self._rules.site.reject(self._peer, data, "a message is longer than max_frame; raise it or mend the sender")

    def lost(self, why: str) -> None:
        """The link is gone. May be called again."""
        was_over, self.is_over = self.is_over, True
        if self._reply is not None and not self._reply[1].done():
            self._reply[1].set_exception(CallFailed(f"the connection was lost: {why}"))
        if not was_over:
            self._offer_for_the_last_time()
            self._rules.ended(self, why)

    @property
    def silent_s(self) -> float:
        """Since when the other side has said nothing; who is not read cannot be called silent."""
        return 0.0 if self._is_paused else time.monotonic() - self.heard_s

    # -- commands ---------------------------------------------------------------------------------------

    async def ask(self, line: bytes, reply: re.Pattern[str] | None, timeout_s: float) -> Json:
        """Writes `line`; the answer when there is a `reply` to wait for. Raises: CallFailed."""
        async with self._one_call:
            if self.is_over:
                raise CallFailed("the connection was lost")
            if reply is None:
                self.write(line)
                return None
            answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
            self._reply = (reply, answer)
            try:
                self.write(line)
                async with asyncio.timeout(timeout_s):
                    return await answer
            except TimeoutError:
                raise CallFailed(f"no answer that fits '{reply.pattern}' within {timeout_s:g} s") from None
            finally:
                self._reply = None

    def write(self, line: bytes) -> None:
        """One frame."""
        self.link.send(self._framer.wrap(line))

    # -- readings ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Takes what the gateway has room for, and not too much in one turn of the loop: others live there too."""
        if self._is_working:
            return
        self._is_working = True
        try:
            for _ in range(_TURN):
                if not self._frames or self._is_full:
                    break
                self._take(self._frames.popleft())
        finally:
            self._is_working = False
        if self._frames and not self._is_full:
            asyncio.get_running_loop().call_soon(self._work)
        self._keep_pace()

    def _take(self, frame: bytes) -> None:
        site = self._rules.site
        try:
            readings = self._read(frame, wants_raw=site.wants_raw)
        except MappingError as error:
            site.reject(self._peer, frame, str(error))
            readings = error.readings
            if not readings:
                self._answer(self._rules.refuse, reason=str(error))
                return
        for device in {reading.device for reading in readings} if not self.is_over else ():
            self._rules.spoke(self, device)
        self._last_number += 1
        self._offer(self._last_number, readings)

    def _offer(self, number: int, readings: Sequence[Reading]) -> None:
        if self._held:  # none overtakes
            insort(self._held, (number, readings))
            return
        self._waiting += 1
        self._rules.site.accept(readings, partial(self._settled, number, readings))

    def _offer_again(self) -> None:
        self._timer = None
        held, self._held = self._held, []
        for number, readings in held:
            self._offer(number, readings)
        self._work()

    def _offer_for_the_last_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        for _, readings in held:
            self._rules.site.accept(readings)

    def _is_reply(self, frame: bytes) -> bool:
        if self._reply is None or self._reply[1].done():
            return False
        found = self._reply[0].search(frame.decode("utf-8", "replace"))
        if found is None:
            return False
        self._reply[1].set_result(by_look((found[1] if found.re.groups else found[0]) or ""))
        return True

    def _read(self, frame: bytes, *, wants_raw: bool) -> list[Reading]:
        for one in self._rules.maps:
            readings = one.readings(frame, self._peer, wants_raw=wants_raw)
            if readings is not None:
                return readings
        raise MappingError("no map matches the message")

    def _settled(self, number: int, readings: Sequence[Reading], refusal: Refusal | None) -> None:
        self._waiting -= 1
        if refusal is None:
            self._answer(self._rules.ack, device=readings[0].device)
        elif refusal.retry_after_s is not None and self._can_wait and not self.is_over:
            insort(self._held, (number, readings))
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(refusal.retry_after_s, self._offer_again)
        else:
            self._answer(self._rules.refuse, reason=refusal.reason)
        self._work()

    def _answer(self, template: CompiledTemplate | None, **values: str) -> None:
        if template is not None and not self.is_over:
            self.write(template.render({"device": "", "reason": "", PEER: self._peer, **values}).encode())

    @property
    def _is_full(self) -> bool:
        return self._rules.site.is_congested or self._waiting >= _MAX_WAITING or bool(self._held)

    def _keep_pace(self) -> None:
        """Stops reading while too much waits, or the gateway has no room."""
        is_nobody_to_wake_us = bool(self._frames) and not self._waiting and not self._held
        if (self._rules.site.is_congested or is_nobody_to_wake_us) and not self._awaits_room:
            self._awaits_room = True
            self._rules.site.when_room(self._has_room)
        if self.is_over:
            return
        must_pause = self._is_full or bool(self._frames)
        if must_pause and not self._is_paused:
            self.link.pause()
        elif self._is_paused and not must_pause:
            self.heard_s = time.monotonic()
            self.link.resume()
        self._is_paused = must_pause

    def _has_room(self) -> None:
        self._awaits_room = False
        self._work()
