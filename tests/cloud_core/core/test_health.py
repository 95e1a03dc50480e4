"""When the core says that it can serve."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from cloud_core.core.health import STORE, Health
from shared.errors import Unavailable


class FakeStore:
    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def submit(self, work: Any, args: Any, done: Any) -> None:
        self.waiting.append(done)


def health_of(store: Any, clock: Clock) -> Health:
    health = Health(store=store, now_s=clock.seconds, call_later=clock.callLater)
    health.checks = []
    return health


def test_it_is_not_ready_before_it_was_started() -> None:
    """Until the program says otherwise, it starts."""
    answers: list[Any] = []
    Health(store=FakeStore(), now_s=lambda: 0.0, call_later=Clock().callLater).ready(answers.append)
    assert answers == [("STARTING",)]


def test_many_who_ask_at_once_cost_one_decision() -> None:
    """One empty decision answers all that wait, and those of the next second."""
    store, clock, answers = FakeStore(), Clock(), []
    health = health_of(store, clock)
    for _ in range(100):
        health.ready(answers.append)
    assert len(store.waiting) == 1
    store.waiting.pop()(None)
    health.ready(answers.append)
    assert answers == [()] * 101
    assert not store.waiting
    clock.advance(1.5)
    health.ready(answers.append)
    assert len(store.waiting) == 1


def test_a_store_that_refuses_or_does_not_answer_is_not_ready() -> None:
    """A refusal says so at once, silence after two seconds; a late answer changes nothing."""
    store, clock, answers = FakeStore(), Clock(), []
    health = health_of(store, clock)
    health.ready(answers.append)
    store.waiting.pop()(Unavailable())
    clock.advance(1.5)
    health.ready(answers.append)
    clock.advance(2.0)
    assert answers == [(STORE,), (STORE,)]
    store.waiting.pop()(None)
    assert len(answers) == 2
    assert not clock.getDelayedCalls()
