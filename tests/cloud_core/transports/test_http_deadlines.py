"""One timer for all who wait."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from cloud_core.transports.http.deadlines import TICK_S, Deadlines


class Waiter:
    """Says when its time was over."""

    def __init__(self, clock: Clock) -> None:
        self.tick = 0
        self._clock = clock
        self.expired_at: list[float] = []

    def expired(self) -> None:
        self.expired_at.append(self._clock.seconds())


@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.1, 0.15, 3.0, 299.95])
@pytest.mark.parametrize("start_s", [0.0, 1_700_000_000.07])
def test_a_deadline_is_met_never_early_and_at_most_a_tick_late(delay_s: float, start_s: float) -> None:
    """Two ticks where the timer starts between them."""
    clock = Clock()
    clock.rightNow = start_s
    deadlines, waiter = Deadlines(clock), Waiter(clock)
    deadlines.add(waiter, delay_s)
    while not waiter.expired_at:
        clock.advance(0.05)
    late_s = waiter.expired_at[0] - (start_s + delay_s)
    assert -1e-6 <= late_s <= 2 * TICK_S + 1e-6
    clock.advance(1_000)
    assert len(waiter.expired_at) == 1


def test_ten_thousand_deadlines_cost_one_timer_and_none_remains() -> None:
    """Neither when they are over nor when all were discarded."""
    clock = Clock()
    deadlines = Deadlines(clock)
    waiters = [Waiter(clock) for _ in range(10_000)]
    for number, waiter in enumerate(waiters):
        deadlines.add(waiter, number / 100)
    assert len(clock.getDelayedCalls()) == 1
    for waiter in waiters[1::2]:
        deadlines.discard(waiter)
    while clock.getDelayedCalls():
        clock.advance(0.1)
    assert all(waiter.expired_at for waiter in waiters[::2])
    assert not any(waiter.expired_at for waiter in waiters[1::2])


def test_a_discarded_deadline_may_be_discarded_again() -> None:
    """And one that came already, too."""
    clock = Clock()
    deadlines, waiter = Deadlines(clock), Waiter(clock)
    deadlines.discard(waiter)
    deadlines.add(waiter, 1)
    deadlines.discard(waiter)
    deadlines.discard(waiter)
    clock.advance(2)
    assert waiter.expired_at == []


def test_a_clock_that_jumps_ahead_ends_all_waits() -> None:
    """Whatever lies between is looked at in one go."""
    clock = Clock()
    deadlines, waiter = Deadlines(clock), Waiter(clock)
    deadlines.add(waiter, 300)
    clock.advance(86_400)
    assert len(waiter.expired_at) == 1


def test_who_adds_a_deadline_when_one_is_over_is_heard() -> None:
    """A device that polls again at once."""
    clock = Clock()
    deadlines, second = Deadlines(clock), Waiter(clock)

    class Again(Waiter):
        def expired(self) -> None:
            super().expired()
            deadlines.add(second, 0.5)

    first = Again(clock)
    deadlines.add(first, 0.5)
    for _ in range(15):
        clock.advance(0.1)
    assert (len(first.expired_at), len(second.expired_at)) == (1, 1)


def test_stopped_deadlines_leave_no_timer() -> None:
    """Nor is anybody told."""
    clock = Clock()
    deadlines, waiter = Deadlines(clock), Waiter(clock)
    deadlines.add(waiter, 1)
    deadlines.stop()
    clock.advance(5)
    assert (clock.getDelayedCalls(), waiter.expired_at) == ([], [])
