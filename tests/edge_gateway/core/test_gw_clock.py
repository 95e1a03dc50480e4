"""Which time a reading gets."""

from __future__ import annotations

from edge_gateway.core.clock import DAY_MS, RELEASED_MS, Clock
from edge_gateway.model import Content, Lane, Record
from edge_gateway.storage.interface import Boot
from tests.support.gateway_fakes import START_MS, FakeSpool


class Clocks:
    """Clocks that a test sets."""

    def __init__(self, *, wall_ms: int = START_MS, boots: dict[int, Boot] | None = None, newest_ms: int = 0) -> None:
        self.wall_ms = wall_ms
        self.elapsed_ms = 1_000
        self.spool = FakeSpool(boot=3)
        self.spool.boots |= boots or {}
        self.clock = Clock(
            wall_ms=lambda: self.wall_ms,
            monotonic_ms=lambda: self.elapsed_ms,
            boots=self.spool,
            newest_ms=newest_ms,
        )

    def passes(self, ms: int) -> None:
        self.wall_ms += ms
        self.elapsed_ms += ms

    def stamp(self, source_ms: int | None = None, device: str = "A") -> int:
        return self.clock.stamp(device, source_ms, self.clock.now())[0]

    def record(self, boot: int, elapsed_ms: int) -> Record:
        return Record(1, "A", Content.TELEMETRY, Lane.HISTORY, 0, boot, elapsed_ms, b"{}")


def test_a_thousand_readings_of_one_millisecond_get_times_of_their_own() -> None:
    """None replaces another; another device starts at the wall clock."""
    clocks = Clocks()
    assert [clocks.stamp() for _ in range(1_000)] == list(range(START_MS, START_MS + 1_000))
    assert clocks.stamp(device="B") == START_MS
    assert clocks.clock.lead_ms("A", clocks.clock.now()) == 999


def test_a_sources_time_is_kept_unless_it_is_absurd() -> None:
    """Also twice the same; before 2000 and far in the future the time of arrival goes, and is counted."""
    clocks = Clocks()
    assert clocks.stamp(START_MS - DAY_MS) == clocks.stamp(START_MS - DAY_MS) == START_MS - DAY_MS
    assert clocks.stamp(12) == START_MS
    assert clocks.stamp(START_MS + 2 * DAY_MS) == START_MS + 1
    assert clocks.clock.replaced_source_times == 2


def test_small_steps_back_keep_times_growing_and_great_ones_start_anew() -> None:
    """Within a minute times go on by a millisecond each; beyond, the old ones were wrong."""
    clocks = Clocks()
    first = clocks.stamp()
    clocks.wall_ms -= 30_000
    assert clocks.stamp() == first + 1
    assert clocks.clock.lead_ms("A", clocks.clock.now()) <= 1
    clocks.wall_ms -= 3_600_000
    assert clocks.stamp() == clocks.wall_ms
    assert clocks.clock.steps == 2
    assert clocks.spool.boots[3].known_ms == clocks.wall_ms - clocks.elapsed_ms


def test_while_the_time_is_unknown_records_are_kept_by_the_monotonic_clock() -> None:
    """As soon as it is known their times are worked out, in order, and new ones come after them."""
    clocks = Clocks(wall_ms=5_000)
    known: list[bool] = []
    clocks.clock.on_known(lambda: known.append(True))
    now = clocks.clock.now()
    stamps = [clocks.clock.stamp("A", None, now) for _ in range(3)]
    assert stamps == [(0, 1_000), (0, 1_001), (0, 1_002)]
    records = [clocks.record(3, elapsed) for _, elapsed in stamps]
    assert clocks.clock.resolve(records[0]) is None
    clocks.wall_ms = START_MS
    times = [clocks.clock.resolve(record) for record in records]
    assert times == [START_MS, START_MS + 1, START_MS + 2]
    assert known == [True]
    assert clocks.stamp() == START_MS + 3


def test_a_start_that_never_knew_the_time_is_placed_before_the_next_and_stays_there() -> None:
    """Spacing is kept; the place is remembered so that a repetition is equal."""
    clocks = Clocks(boots={1: Boot(number=1, known_ms=0, last_ms=9_000), 2: Boot(number=2, known_ms=0, last_ms=500)})
    start = START_MS - 1_000
    late, early = clocks.clock.resolve(clocks.record(1, 9_000)), clocks.clock.resolve(clocks.record(1, 4_000))
    assert late is not None and early is not None and late - early == 5_000
    assert late < clocks.spool.boots[2].known_ms < start
    assert clocks.clock.resolve(clocks.record(2, 500)) == start - 1
    assert clocks.spool.boots[1].known_ms == early - 4_000


def test_a_clock_older_than_the_newest_record_is_believed_after_ten_minutes() -> None:
    """One wrong time far in the future must not hold everything back for ever."""
    clocks = Clocks(newest_ms=START_MS + 10 * DAY_MS)
    assert not clocks.clock.is_known
    clocks.passes(600_000)
    assert clocks.clock.is_known
    assert not Clocks(wall_ms=RELEASED_MS - 1).clock.is_known
