"""Time series of a device for operators: aggregation, and removal (wire-contract.md section 6.6).

Source: ThingsBoard's BaseTimeseriesService and AbstractChunkedAggregationTimeseriesDao.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from cloud_core.storage.interface import ReadTx, TimeSeriesQuery, Tx
from shared.errors import InvalidArgument
from shared.messages import Value

MAX_INTERVALS = 10_000
MAX_SAMPLES = 2_000_000  # looked at for one answer: some seconds
FOLDED_AT_ONCE = 5_000  # times of one look-up, so that other pages do not wait behind them: some 15 ms
MIN_INTERVAL_MS = 1_000
REMOVED_AT_ONCE = 2_000  # times of one commit, so that devices do not wait behind it
_BEGINNING, _END = -(2**62), 2**62


class Aggregation(StrEnum):
    """What is said of the values of an interval. MIN, MAX, AVG and SUM are of numbers; MIN and MAX else of texts."""

    MIN = "MIN"
    MAX = "MAX"
    AVG = "AVG"
    SUM = "SUM"
    COUNT = "COUNT"


@dataclass(frozen=True, slots=True)
class AggregateQuery:
    """`start_ms` ≤ ts < `end_ms` in intervals of `interval_ms`, 0 for one interval."""

    keys: tuple[str, ...]
    start_ms: int
    end_ms: int
    aggregation: Aggregation
    interval_ms: int = 0
    descending: bool = False

    def step_ms(self) -> int:
        """Raises: InvalidArgument for a range that is empty or falls into too many intervals."""
        span = self.end_ms - self.start_ms
        if span <= 0:
            raise InvalidArgument("endTs must be above startTs")
        step = max(self.interval_ms, MIN_INTERVAL_MS) if self.interval_ms > 0 else span
        if -(-span // step) > MAX_INTERVALS:
            raise InvalidArgument(
                f"Number of intervals is too high: {-(-span // step)}, at most {MAX_INTERVALS}. "
                "Increase 'interval' or reduce the time range of the query."
            )
        return step


class Removal(NamedTuple):
    """What to remove; without `is_latest_kept` latest values within the range go too."""

    keys: tuple[str, ...]
    start_ms: int
    end_ms: int
    is_latest_kept: bool = False
    is_latest_rewritten: bool = False


EVERYTHING = (_BEGINNING, _END)


class _Tally:
    """The values of one key in one interval, folded as they come."""

    __slots__ = ("count", "highest", "highest_text", "lowest", "lowest_text", "numbers", "total")

    def __init__(self) -> None:
        self.count = self.numbers = 0
        self.total: int | float = 0
        self.lowest: int | float = 0
        self.highest: int | float = 0
        self.lowest_text: str | None = None
        self.highest_text: str | None = None

    def add(self, value: Value) -> None:
        self.count += 1
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self.lowest = min(self.lowest, value) if self.numbers else value
            self.highest = max(self.highest, value) if self.numbers else value
            self.numbers += 1
            self.total += value
        elif isinstance(value, str):
            self.lowest_text = value if self.lowest_text is None else min(self.lowest_text, value)
            self.highest_text = value if self.highest_text is None else max(self.highest_text, value)

    def join(self, other: _Tally) -> None:
        """With the values of `other`, which come after these."""
        self.count += other.count
        if other.numbers:
            self.lowest = min(self.lowest, other.lowest) if self.numbers else other.lowest
            self.highest = max(self.highest, other.highest) if self.numbers else other.highest
            self.numbers += other.numbers
            self.total += other.total
        if other.lowest_text is not None and other.highest_text is not None:
            known = self.lowest_text
            self.lowest_text = other.lowest_text if known is None else min(known, other.lowest_text)
            self.highest_text = max(self.highest_text or "", other.highest_text)

    def result(self, aggregation: Aggregation) -> Value | None:
        """None where the interval has nothing of the kind."""
        if aggregation is Aggregation.COUNT:
            return self.count
        if not self.numbers:
            texts = {Aggregation.MIN: self.lowest_text, Aggregation.MAX: self.highest_text}
            return texts.get(aggregation)
        if aggregation is Aggregation.AVG:
            return self.total / self.numbers
        return {Aggregation.MIN: self.lowest, Aggregation.MAX: self.highest}.get(aggregation, self.total)


class Folded:
    """What is said of a history so far, interval by interval. Raises: InvalidArgument for too many samples."""

    def __init__(self, query: AggregateQuery) -> None:
        self._query = query
        self._step_ms = query.step_ms()
        self._tallies: dict[tuple[str, int], _Tally] = {}
        self._times = 0

    def take(self, samples: Iterable[tuple[int, dict[str, Value]]]) -> None:
        start_ms, step_ms = self._query.start_ms, self._step_ms
        for ts, values in samples:
            self._times += 1
            interval = (ts - start_ms) // step_ms
            for key, value in values.items():
                place = (key, interval)
                tally = self._tallies.get(place)
                if tally is None:
                    tally = self._tallies[place] = _Tally()
                tally.add(value)

    def join(self, other: Folded) -> None:
        """With what `other` has folded of another part of the range."""
        self._times += other._times
        if self._times > MAX_SAMPLES:
            raise InvalidArgument(f"More than {MAX_SAMPLES} times lie in the range; ask for a shorter one")
        for place, tally in other._tallies.items():
            known = self._tallies.setdefault(place, tally)
            if known is not tally:
                known.join(tally)

    def points(self) -> dict[str, list[tuple[int, Value]]]:
        """One for each interval with data, at its middle."""
        found: dict[str, list[tuple[int, Value]]] = {}
        for (key, interval), tally in sorted(self._tallies.items(), reverse=self._query.descending):
            result = tally.result(self._query.aggregation)
            if result is not None:
                first = self._query.start_ms + interval * self._step_ms
                last = min(first + self._step_ms, self._query.end_ms)
                found.setdefault(key, []).append((first + (last - first) // 2, result))
        return found


def fold_part(tx: ReadTx, device_id: int, query: AggregateQuery, from_ms: int) -> tuple[Folded, int | None]:
    """Of the device's history from there on, and from where to go on; None for the end of the range."""
    part = Folded(query)
    samples, rest = tx.samples(device_id, query.keys, from_ms, query.end_ms, at_most=FOLDED_AT_ONCE)
    part.take(samples)
    return part, rest


def remove(tx: Tx, device_id: int, removal: Removal, from_ms: int) -> int | None:
    """A part of the removal; from where to go on, None when it is done. The last part looks after the latest values."""
    keys, _, end_ms, is_latest_kept, is_rewritten = removal
    rest = tx.delete_samples(device_id, keys, from_ms, end_ms, at_most=REMOVED_AT_ONCE)
    if rest is not None or is_latest_kept:
        return rest
    for key, (ts, _) in tx.latest(device_id, keys).items():
        if removal.start_ms <= ts < end_ms:
            tx.delete_latest_of(device_id, key)
            older = is_rewritten and tx.history(
                device_id, TimeSeriesQuery((key,), _BEGINNING, removal.start_ms, limit=1)
            ).get(key)
            if older:
                tx.rewrite_latest(device_id, key, *older[0])
    return None
