"""Whose turn it is on a bus; time is passed in."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.connectors.modbus.schedule import BACKOFF_MAX_S, Poll, Schedule, State


def polls(units: int, period_s: float = 1.0) -> list[Poll]:
    return [Poll(unit, period_s) for unit in range(1, units + 1)]


class Bus:
    """A bus on paper: an answer takes `answer_s`, silence `timeout_s`. `log` has (time, unit) of each turn."""

    def __init__(self, schedule: Schedule, *, answer_s: float, timeout_s: float, dead: frozenset[int]) -> None:
        self.schedule, self.dead = schedule, dead
        self.answer_s, self.timeout_s = answer_s, timeout_s
        self.log: list[tuple[float, int]] = []
        self.now = 0.0

    def run(self, until: float, *, has_spare: bool = False) -> None:
        while self.now < until:
            poll = self.schedule.take(self.now, has_spare=has_spare)
            if poll is None:
                self.now += self.schedule.wait_s(self.now, has_spare=has_spare)
                continue
            self.log.append((self.now, poll.unit))
            if poll.unit in self.dead:
                self.now += self.timeout_s
                self.schedule.silent(poll, self.now, cost_s=self.timeout_s)
            else:
                self.now += self.answer_s
                self.schedule.answered(poll, self.now)

    def turns(self, unit: int, since: float = 0.0) -> list[float]:
        return [at for at, one in self.log if one == unit and at >= since]


def test_polls_of_a_period_are_spread_over_it() -> None:
    """Ten units each second: one each 100 ms, each second."""
    schedule = Schedule(polls(10), now=0.0)
    bus = Bus(schedule, answer_s=0.01, timeout_s=1, dead=frozenset())
    bus.run(3.0)
    assert [unit for _, unit in bus.log[:10]] == list(range(1, 11))
    assert all(abs(at - place * 0.1) < 0.002 for place, (at, _) in enumerate(bus.log[:30]))
    assert schedule.missed == 0


def test_a_poll_that_had_no_time_is_skipped_and_counted() -> None:
    """A bus of twice the load makes half of the polls, evenly, and none of them is made up for."""
    schedule = Schedule(polls(10), now=0.0)
    bus = Bus(schedule, answer_s=0.2, timeout_s=1, dead=frozenset())
    bus.run(100.0)
    counts = [len(bus.turns(unit)) for unit in range(1, 11)]
    assert sum(counts) in (500, 501) and max(counts) - min(counts) <= 2
    assert 480 <= schedule.missed <= 520


def test_a_silent_unit_is_tried_after_1_2_4_seconds_up_to_a_minute() -> None:
    """After one more attempt at once."""
    schedule = Schedule(polls(1), now=0.0, try_cost_s=0.1)
    bus = Bus(schedule, answer_s=0.01, timeout_s=0.1, dead=frozenset({1}))
    bus.run(400.0)
    gaps = [later - earlier for earlier, later in zip(bus.turns(1), bus.turns(1)[1:], strict=False)]
    assert [round(gap) for gap in gaps[:8]] == [0, 1, 2, 4, 8, 16, 32, 60]
    assert all(gap < BACKOFF_MAX_S + 1 for gap in gaps)


def test_an_answer_brings_a_unit_back_into_the_rotation() -> None:
    """All its polls, none of them twice, and the silent time counts as no miss."""
    fast, slow = Poll(1, 1.0), Poll(1, 60.0)
    schedule = Schedule([fast, slow], now=0.0, try_cost_s=0.1)
    bus = Bus(schedule, answer_s=0.01, timeout_s=0.1, dead=frozenset({1}))
    bus.run(100.0)
    assert schedule.units[1].state is State.DEAD
    bus.dead = frozenset()
    bus.run(160.0)
    assert schedule.units[1].state is State.ALIVE
    bus.log.clear()
    bus.run(280.0)
    assert len(bus.log) in (121, 122, 123)  # 120 of the one, two of the other
    assert schedule.missed == 0


def test_with_a_spare_connection_dead_units_take_nothing_of_the_main_one() -> None:
    """After their first silence it never asks them."""
    schedule = Schedule(polls(20), now=0.0)
    bus = Bus(schedule, answer_s=0.005, timeout_s=0.1, dead=frozenset({4, 5}))
    bus.run(10.0, has_spare=True)
    assert len(bus.turns(4)) == len(bus.turns(5)) == 1
    assert all(len(bus.turns(unit)) == 10 for unit in range(1, 21) if unit not in bus.dead)
    assert schedule.units[4].state is State.DOUBTED  # until the spare one has asked


def test_attempts_on_the_spare_connection() -> None:
    """At once, then after the back-off."""
    schedule = Schedule(polls(1), now=0.0)
    first = schedule.take(0.0, has_spare=True)
    assert first is not None
    assert not schedule.silent(first, 0.1)
    again = schedule.take_try(0.1)
    assert again is first
    assert schedule.take_try(0.2) is None  # it is under way
    assert schedule.silent(again, 0.9)
    assert schedule.take_try(1.0) is None and round(schedule.try_wait_s(1.0), 3) == 0.9
    assert schedule.take_try(1.9) is first
    schedule.answered(first, 1.95)
    assert schedule.units[1].state is State.ALIVE
    assert schedule.take(2.0, has_spare=True) is first


@given(st.integers(2, 30), st.sets(st.integers(1, 30), max_size=10), st.floats(0.2, 5.0), st.floats(0.05, 0.9))
def test_dead_units_leave_the_others_their_turns(units: int, dead: set[int], period_s: float, timeout_s: float) -> None:
    """On one connection, after the beginning: nobody alive waits longer than a period and one timeout."""
    schedule = Schedule(polls(units, period_s), now=0.0, try_cost_s=timeout_s)
    bus = Bus(schedule, answer_s=period_s / units / 4, timeout_s=timeout_s, dead=frozenset(dead))
    settled = 2 * len(dead) * timeout_s + 3 * period_s
    bus.run(settled + 10 * period_s)
    for unit in set(range(1, units + 1)) - dead:
        turns = bus.turns(unit, settled)
        longest = max((later - earlier for earlier, later in itertools.pairwise(turns)), default=0)
        assert longest <= period_s + timeout_s + 0.1, (unit, turns)


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0.5, 1.0, 7.0])), min_size=1, max_size=12), st.data())
def test_whatever_happens_no_poll_is_lost_or_doubled(kinds: list[tuple[int, float]], data: st.DataObject) -> None:
    """Answers, silences, broken connections and calls in any order: once all is well, each is made once a period."""
    schedule = Schedule([Poll(unit, period_s) for unit, period_s in kinds], now=0.0, try_cost_s=0.2)
    now = 0.0
    for _ in range(data.draw(st.integers(0, 60))):
        poll = schedule.take(now, has_spare=False) if data.draw(st.booleans()) else schedule.take_try(now)
        now += data.draw(st.sampled_from([0.0, 0.01, 0.3, 2.0]))
        if poll is None:
            schedule.heard(data.draw(st.sampled_from(sorted(schedule.units))), now)
            continue
        outcome = data.draw(st.sampled_from(["answer", "silence", "lost"]))
        if outcome == "answer":
            schedule.answered(poll, now)
        elif outcome == "silence":
            schedule.silent(poll, now, cost_s=0.2)
        else:
            schedule.put_back(poll)
            schedule.resume(now)
    bus = Bus(schedule, answer_s=0.001, timeout_s=0.2, dead=frozenset())
    bus.now = now
    bus.run(now + 150.0)
    begin = {poll: poll.made for unit in schedule.units.values() for poll in unit.polls}
    bus.run(now + 150.0 + 70.0)
    for poll, before in begin.items():
        assert abs(poll.made - before - 70.0 / poll.period_s) <= 1.01, poll
