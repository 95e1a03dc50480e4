"""Which time a reading gets.

A reading keeps its source's time. Without one it gets its time of arrival, strictly increasing by device: two readings
of one device never share a millisecond, so none replaces another at the core. While the gateway does not know the
time (no battery, no network yet) a record carries the monotonic clock of this start of the machine, and its time is
worked out when it is sent.

What happens at the edges:
- More than 1,000 readings a second of one device run ahead of the wall clock. From `LEAD_MS` on the source is held back
  (`is_ahead`), from `MAX_LEAD_MS` on it is refused for a while; whatever was accepted keeps a time of its own.
- The wall clock is set back by at most `HOLD_MS`: times go on from where they were, 1 ms a reading, until the clock has
  caught up. Set back farther, the old times were wrong: they are forgotten, and times start again at the new clock.
- A source's time before 2000, or more than a day ahead, is replaced by the time of arrival, and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from edge_gateway.model import Record
from edge_gateway.storage.interface import Boot

RELEASED_MS = 1_767_225_600_000  # 2026-01-01: an earlier wall clock was never set
YEAR_2000_MS = 946_684_800_000
YEAR_2100_MS = 4_102_444_800_000
DAY_MS = 86_400_000
STEP_MS = 2_000  # wall minus monotonic clock differing by more is a step
LEAD_MS = 5_000
MAX_LEAD_MS = 60_000
HOLD_MS = 60_000
TRUST_AFTER_MS = 600_000  # a clock older than the newest record is believed after so long: that record was wrong
MAX_STAMPS = 50_000


class Boots(Protocol):
    """The part of the spool that knows about clocks."""

    @property
    def boots(self) -> dict[int, Boot]: ...

    def remember_boot(self, boot: Boot) -> None: ...


class Delayed(Protocol):
    """A call that waits."""

    def cancel(self) -> None: ...

    def active(self) -> int: ...


class Timers(Protocol):
    """The part of a reactor that knows about time."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> Any: ...  # Any: a Delayed

    def seconds(self) -> float: ...


class Clock:
    """Stamps readings and resolves records.

    `wall_ms` is the Unix time, `monotonic_ms` that of this start of the machine. `newest_ms` is the newest time of
    arrival ever stored: before it, the wall clock cannot be right.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        wall_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        boots: Boots,
        newest_ms: int = 0,
        released_ms: int = RELEASED_MS,
    ) -> None:
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms
        self._boots = boots
        self._known = dict(boots.boots)
        self.boot = max(self._known, default=0)
        self._released_ms = released_ms
        self._floor_ms = max(released_ms, newest_ms)
        self._started_ms = monotonic_ms()
        self._offset_ms: int | None = None  # wall minus monotonic, once the time is known
        self._hold_ms = 0
        self._last: dict[str, int] = {}
        self._last_elapsed: dict[str, int] = {}
        self._on_known: list[Callable[[], None]] = []
        self.replaced_source_times = 0
        self.steps = 0

    @property
    def is_known(self) -> bool:
        """Whether the time is known; asks the clocks."""
        return self.now()[0] != 0

    def on_known(self, callback: Callable[[], None]) -> None:
        """Calls back each time when the time has become known or was corrected."""
        self._on_known.append(callback)

    def now(self) -> tuple[int, int]:
        """The wall time, 0 while it is unknown, and the monotonic time of this start of the machine."""
        elapsed = self._monotonic_ms()
        wall = self._wall_ms()
        offset = self._offset_ms
        if offset is not None and -STEP_MS <= wall - elapsed - offset <= STEP_MS:
            return wall, elapsed
        return self._look(wall, elapsed), elapsed

    def stamp(self, device: str, source_ms: int | None, now: tuple[int, int]) -> tuple[int, int]:
        """The time of a reading of `device`, 0 while it is unknown, and its monotonic time. `now` is from `now()`."""
        wall, elapsed = now
        if source_ms is not None:
            if YEAR_2000_MS <= source_ms <= (wall + DAY_MS if wall else YEAR_2100_MS):
                return source_ms, elapsed
            self.replaced_source_times += 1
        if not wall:
            last = self._last_elapsed.get(device, -1)
            self._last_elapsed[device] = elapsed = elapsed if elapsed > last else last + 1
            return 0, elapsed
        last = self._last.get(device, 0)
        self._last[device] = stamp = wall if wall > last else last + 1
        if len(self._last) > MAX_STAMPS:
            self._last = {name: ms for name, ms in self._last.items() if ms >= wall}
        return stamp, elapsed

    def lead_ms(self, device: str, now: tuple[int, int]) -> int:
        """How far the times of a device run ahead because it sends more than a reading a millisecond."""
        wall, elapsed = now
        if not wall:
            return self._last_elapsed.get(device, 0) - elapsed
        return self._last.get(device, 0) - max(wall, self._hold_ms)

    def forget(self, device: str) -> None:
        """The device is gone for good."""
        self._last.pop(device, None)
        self._last_elapsed.pop(device, None)

    def resolve(self, record: Record) -> int | None:
        """The time of a record; None while it cannot be told.

        A record of an earlier start that never knew the time is placed just before the next start, its distances to
        the others of that start kept. The place is remembered, so that a repetition says the same.
        """
        if record.ts_ms:
            return record.ts_ms
        if not self.is_known:
            return None
        boot = self._known.get(record.boot)
        if boot is None or not boot.known_ms:
            boot = self._place(record)
        return boot.known_ms + record.elapsed_ms

    def _place(self, record: Record) -> Boot:
        later = sorted((number for number in self._known if number > record.boot), reverse=True)
        for number in later:
            if not self._known[number].known_ms:
                self._place_before_next(number, self._known[number].last_ms)
        known = self._known.get(record.boot)
        last_ms = known.last_ms if known is not None and known.last_ms else record.elapsed_ms + DAY_MS
        return self._place_before_next(record.boot, last_ms)

    def _place_before_next(self, number: int, last_ms: int) -> Boot:
        start_ms = min((boot.known_ms for boot in self._known.values() if boot.number > number), default=0)
        boot = Boot(number=number, known_ms=start_ms - 1 - last_ms, last_ms=last_ms)
        self._remember(boot)
        return boot

    def _remember(self, boot: Boot) -> None:
        self._known[boot.number] = boot
        self._boots.remember_boot(boot)

    def _look(self, wall: int, elapsed: int) -> int:
        """The clocks do not agree with what is known: the wall time, or 0."""
        offset = wall - elapsed
        if self._offset_ms is None:
            if not self._is_credible(wall, elapsed):
                return 0
            for device, last in self._last_elapsed.items():
                self._last[device] = last + offset
            self._last_elapsed.clear()
        else:
            if wall < self._released_ms:
                return elapsed + self._offset_ms  # nonsense, such as 1970 after a dead battery: we know better
            self._step(wall, offset - self._offset_ms)
        self._offset_ms = offset
        known = self._known.get(self.boot)
        self._remember(Boot(number=self.boot, known_ms=offset, last_ms=known.last_ms if known else 0))
        for callback in list(self._on_known):
            callback()
        return wall

    def _is_credible(self, wall: int, elapsed: int) -> bool:
        if wall >= self._floor_ms:
            return True
        known = self._known.get(self.boot)
        if known is not None and known.known_ms and abs(known.known_ms + elapsed - wall) <= STEP_MS:
            return True  # known before in this start of the machine
        return wall >= self._released_ms and elapsed - self._started_ms >= TRUST_AFTER_MS

    def _step(self, wall: int, by_ms: int) -> None:
        self.steps += 1
        if by_ms < -HOLD_MS:
            self._last.clear()
            self._hold_ms = 0
        elif by_ms < 0:
            self._hold_ms = wall - by_ms
        self._log.warn("the wall clock was set by {by_ms} ms; times of new readings follow it", by_ms=by_ms)
