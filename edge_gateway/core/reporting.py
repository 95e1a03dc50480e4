"""Which values are worth sending.

Rules by (device, key), see `model.ReportRule`. The first value of a key always goes; a period begins with a value that
went. At its end the newest value that came meanwhile goes, with the time it had when it came; when none came, nothing
goes, and the next value goes at once. A value that is not sent counts as handed over: its source is told so at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edge_gateway.core.clock import Delayed, Timers
from edge_gateway.model import Content, Json, ReportOn, ReportRule

STALE_ENDS = 1_000  # ends of periods that have become meaningless, kept beside one for each key
MAX_KEYS = 200_000  # remembered; a key beyond is sent always
Stamp = tuple[int, int]
"""Time of a reading as the clock gave it: wall, monotonic."""

Emit = Callable[[str, Content, Stamp, dict[str, Json]], None]
"""Sends values of a device whose period is over."""


class _Nothing:
    """Stands for no value; None is one."""


NOTHING: Final = _Nothing()


@dataclass(slots=True)
class _Memory:
    """What is remembered of one key. `due_s` is set while `pending` waits."""

    rule: ReportRule
    sent: Json | _Nothing = NOTHING
    sent_s: float = 0.0
    pending: Json | _Nothing = NOTHING
    stamp: Stamp = (0, 0)
    due_s: float = 0.0


class Reports:
    """The report rules with their memory. `default` is for keys for which nobody says another."""

    def __init__(
        self, *, timers: Timers, emit: Emit, default: ReportRule | None = None, max_keys: int = MAX_KEYS
    ) -> None:
        self._timers = timers
        self._emit = emit
        self._default = default if default is not None and default.on is not ReportOn.RECEIVED else None
        self._max_keys = max_keys
        self._devices: dict[str, dict[tuple[Content, str], _Memory]] = {}
        self._keys = 0
        self._due: list[tuple[float, str, Content, str]] = []
        self._timer: Delayed | None = None
        self._rings_s = 0.0
        self.withheld = 0  # values that a rule kept back for good

    def worth_sending(
        self,
        device: str,
        content: Content,
        values: Mapping[str, Json],
        rules: Mapping[str, ReportRule] | None,
        stamp: Stamp,
    ) -> Mapping[str, Json]:
        """Those of `values` that go now; the same object when all do."""
        default = self._default
        if not rules and default is None:
            return values
        now_s = self._timers.seconds()
        sent: dict[str, Json] = {}
        for key, value in values.items():
            rule = (rules.get(key) if rules else None) or default
            if (
                rule is None
                or rule.on is ReportOn.RECEIVED
                or self._goes(device, content, key, value, rule, stamp, now_s)
            ):
                sent[key] = value
        return values if len(sent) == len(values) else sent

    def unsure(self, device: str) -> None:
        """Values of the device that went were refused after all: the next ones go, whatever they are."""
        for memory in self._devices.get(device, {}).values():
            memory.sent = NOTHING

    def forget(self, device: str) -> None:
        """Drops the memory of a device that was deleted, with what waits for its period."""
        self._keys -= len(self._devices.pop(device, {}))

    def again(self, device: str, content: Content, stamp: Stamp, values: Mapping[str, Json], after_s: float) -> None:
        """Values whose period was over could not be stored: they go after a while, unless newer ones wait by then."""
        for key, value in values.items():
            memory = self._devices.get(device, {}).get((content, key))
            if memory is not None and isinstance(memory.pending, _Nothing):
                memory.pending, memory.stamp = value, stamp
                self._end(memory, self._timers.seconds() + after_s, device, content, key)

    def flush(self) -> None:
        """Sends everything that waits for its period: the gateway stops."""
        for device in list(self._devices):
            self._flush(device)
        self._due.clear()
        self._stop_timer()

    def _goes(
        self, device: str, content: Content, key: str, value: Json, rule: ReportRule, stamp: Stamp, now_s: float
    ) -> bool:
        memory = self._memory(device, content, key, rule)
        if memory is None:
            return True
        has_period = rule.on is not ReportOn.CHANGE
        goes = isinstance(memory.sent, _Nothing)
        if not goes and rule.on is not ReportOn.PERIOD:
            goes = differs(value, memory.sent, rule)
        if not goes and has_period:
            goes = now_s >= memory.sent_s + rule.period_s
        if goes:
            if not isinstance(memory.pending, _Nothing):
                self.withheld += 1
                memory.pending, memory.due_s = NOTHING, 0.0
            memory.sent, memory.sent_s = value, now_s
            return True
        if has_period and isinstance(memory.pending, _Nothing):
            self._end(memory, memory.sent_s + rule.period_s, device, content, key)
        else:
            self.withheld += 1
        if has_period:
            memory.pending, memory.stamp = value, stamp
        return False

    def _memory(self, device: str, content: Content, key: str, rule: ReportRule) -> _Memory | None:
        keys = self._devices.get(device)
        if keys is None:
            keys = self._devices[device] = {}
        memory = keys.get((content, key))
        if memory is None:
            if self._keys >= self._max_keys:
                return None
            memory = keys[(content, key)] = _Memory(rule)
            self._keys += 1
        memory.rule = rule
        return memory

    def _end(self, memory: _Memory, due_s: float, device: str, content: Content, key: str) -> None:
        """Says when what waits of this key goes."""
        memory.due_s = due_s
        heapq.heappush(self._due, (due_s, device, content, key))
        if len(self._due) > 2 * self._keys + STALE_ENDS:
            self._due = [one for one in self._due if self._is_due(*one)]
            heapq.heapify(self._due)
        self._start_timer()

    def _is_due(self, due_s: float, device: str, content: Content, key: str) -> bool:
        memory = self._devices.get(device, {}).get((content, key))
        return memory is not None and memory.due_s == due_s

    def _start_timer(self) -> None:
        if not self._due or (self._timer is not None and self._rings_s <= self._due[0][0]):
            return
        self._stop_timer()
        self._rings_s = self._due[0][0]
        self._timer = self._timers.callLater(max(0.0, self._rings_s - self._timers.seconds()), self._ring)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _ring(self) -> None:
        self._timer = None
        now_s = self._timers.seconds()
        ripe: dict[tuple[str, Content, Stamp], dict[str, Json]] = {}
        while self._due and self._due[0][0] <= now_s:
            due_s, device, content, key = heapq.heappop(self._due)
            memory = self._devices.get(device, {}).get((content, key))
            if memory is not None and memory.due_s == due_s and not isinstance(memory.pending, _Nothing):
                self._take(memory, device, content, key, ripe)
        self._start_timer()
        for (device, content, stamp), values in ripe.items():
            self._emit(device, content, stamp, values)

    def _flush(self, device: str) -> None:
        ripe: dict[tuple[str, Content, Stamp], dict[str, Json]] = {}
        for (content, key), memory in self._devices.get(device, {}).items():
            if not isinstance(memory.pending, _Nothing):
                self._take(memory, device, content, key, ripe)
        for (_, content, stamp), values in ripe.items():
            self._emit(device, content, stamp, values)

    def _take(
        self,
        memory: _Memory,
        device: str,
        content: Content,
        key: str,
        ripe: dict[tuple[str, Content, Stamp], dict[str, Json]],
    ) -> None:
        ripe.setdefault((device, content, memory.stamp), {})[key] = memory.pending
        memory.sent, memory.sent_s = memory.pending, self._timers.seconds()
        memory.pending, memory.due_s = NOTHING, 0.0


def differs(value: Json, sent: Json, rule: ReportRule) -> bool:
    """Whether a change counts. Numbers differ by at least the dead band; percents of 0: any change counts."""
    if _is_number(value) and _is_number(sent):
        if value == sent:
            return False
        band = abs(sent) * rule.dead_band / 100 if rule.is_percent else rule.dead_band
        return bool(abs(value - sent) >= band * (1 - 1e-9))  # 20.2 - 20.1 is a little less than 0.1
    return isinstance(value, bool) is not isinstance(sent, bool) or bool(value != sent)


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
