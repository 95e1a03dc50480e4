"""Histograms, tallies and the table of states."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from cloud_core.simulator import tally as curves
from cloud_core.simulator.histogram import Histogram, bucket_of, ceiling_of
from cloud_core.simulator.states import FINAL, NEXT, Event, State
from cloud_core.simulator.tally import MAX_NAMED, MAX_TEXTS, Tally, merged


@pytest.mark.parametrize("us", [0, 1, 63, 64, 65, 1_000, 123_456, 86_400_000_000])
def test_a_bucket_holds_its_latency_within_three_per_cent(us: int) -> None:
    """The bucket's upper bound is not below the latency, and at most a thirty-second above it."""
    assert us <= ceiling_of(bucket_of(us)) <= us + us / 32 + 1


def test_buckets_are_without_gaps() -> None:
    """Each microsecond follows into the same bucket or the next."""
    buckets = [bucket_of(us) for us in range(10_000)]
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(buckets))


def test_percentiles_are_those_of_the_values() -> None:
    """Of ten thousand random latencies, within the width of a bucket."""
    chance = random.Random(1)
    values = sorted(chance.lognormvariate(-4, 1) for _ in range(10_000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for percent in (50, 90, 99):
        exact_ms = values[percent * 100 - 1] * 1000
        assert (
            exact_ms <= histogram.percentile_ms(percent) * 1.001 and histogram.percentile_ms(percent) < exact_ms * 1.04
        )
    assert histogram.percentile_ms(100) == pytest.approx(values[-1] * 1000, abs=0.01)
    assert sum(count for _, count in histogram.by_octave()) == 10_000


def test_histograms_of_processes_add_up() -> None:
    """Counted apart and merged is the same as counted together; also over the wire."""
    one, other, whole = Histogram(), Histogram(), Histogram()
    for number in range(1_000):
        (one if number % 3 else other).add(number / 1_000)
        whole.add(number / 1_000)
    one.merge(msgspec.json.decode(msgspec.json.encode(other), type=Histogram))
    one.merge(Histogram())
    assert one == whole


def test_an_empty_histogram_has_no_latency() -> None:
    """Zeros, not an error."""
    assert Histogram().summary() == {"count": 0, "p50Ms": 0, "p90Ms": 0, "p99Ms": 0, "maxMs": 0}
    assert Histogram().by_octave() == []


def test_tallies_of_processes_add_up() -> None:
    """Counters, curves and failures; it is over when every part is."""
    one, other = Tally(states={"online": 2}, is_home=True), Tally(states={"online": 1, "off": 1})
    one.mark(curves.PROVISIONED, 0.5)
    other.mark(curves.PROVISIONED, 2.5)
    other.mark(curves.PROVISIONED, 0.1)
    other.fail("d", "why")
    other.timed(other.request_s, "mqtt", 0.1)
    whole = merged([one, msgspec.json.decode(msgspec.json.encode(other), type=Tally)])
    assert whole.states == {"online": 3, "off": 1}
    assert whole.curves == {curves.PROVISIONED: [2, 0, 1]}
    assert (whole.at_s[curves.PROVISIONED], whole.total(curves.PROVISIONED)) == (2.5, 3)
    assert [(one.name, one.reason) for one in whole.failures] == [("d", "why")]
    assert whole.request_s["mqtt"].total == 1
    assert not whole.is_home


def test_a_tally_stays_small() -> None:
    """However many errors and failures there are, so many are told apart and the rest counted."""
    tally = Tally()
    for number in range(1_000):
        tally.error(f"error {number}")
        tally.fail(f"device {number}", "why")
    assert len(tally.errors) == MAX_TEXTS + 1 and sum(tally.errors.values()) == 1_000
    assert len(tally.failures) == MAX_NAMED and tally.counts["failed"] == 1_000


def test_nothing_leads_out_of_a_final_state() -> None:
    """What is over stays over; every other state has a way on."""
    assert {state for state, _ in NEXT} == set(State) - FINAL


def test_every_state_and_event_is_reached() -> None:
    """From off, by the table alone; and no event is without use."""
    reached, fresh = set[State](), {State.OFF}
    while fresh:
        reached |= fresh
        fresh = {after for (state, _), after in NEXT.items() if state in reached} - reached
    assert reached == set(State)
    assert {event for _, event in NEXT} == set(Event)


@pytest.mark.parametrize("state", sorted(set(State) - FINAL - {State.OFF, State.ASLEEP, State.ONLINE}))
def test_every_state_on_the_way_in_can_be_given_up(state: State) -> None:
    """No device can be stuck where it would never be counted as failed."""
    assert NEXT[state, Event.GIVE_UP] is State.FAILED


def test_what_is_not_in_the_table_is_an_error() -> None:
    """A device that connects before it has credentials would be a fault of the program."""
    with pytest.raises(KeyError):
        NEXT[State.OFF, Event.CONNECT]
