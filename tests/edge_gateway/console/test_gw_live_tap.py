"""One live view, without a socket."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from edge_gateway.console.live_tap import EVENTS_PER_FLUSH, FLUSH_S, KEEP_ALIVE_S, MAX_QUEUE, TELL_S, Filter, LiveTap
from edge_gateway.model import Reading


class FakeRequest:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.producer: Any = None
        self._disconnected = False

    def setHeader(self, name: str, value: str) -> None:
        pass

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.written.append(data)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def request_() -> FakeRequest:
    return FakeRequest()


@pytest.fixture
def tap(clock: Clock, request_: FakeRequest) -> LiveTap:
    tap = LiveTap(request_, Filter(), reactor=clock, wall_ms=lambda: 1)
    tap.start()
    request_.written.clear()
    return tap


def test_a_reader_that_does_not_read_costs_nothing(clock: Clock, request_: FakeRequest, tap: LiveTap) -> None:
    """While its connection is full nothing is written and the queue is bounded; what it missed is told at the end."""
    request_.producer.pauseProducing()
    for number in range(MAX_QUEUE + 7):
        tap.heard("north", Reading("meter", telemetry={"n": number}))
    clock.pump([FLUSH_S] * 20)
    assert request_.written == []
    request_.producer.resumeProducing()
    clock.pump([FLUSH_S] * (MAX_QUEUE // EVENTS_PER_FLUSH))
    assert b"".join(request_.written).count(b"data: {") == MAX_QUEUE
    assert request_.written[-1].endswith(b"event: dropped\ndata: 7\n\n")


def test_in_an_endless_flood_it_is_told_what_is_missing(clock: Clock, request_: FakeRequest, tap: LiveTap) -> None:
    """Every few seconds, not only at the end."""
    for _ in range(round(TELL_S / FLUSH_S) + 1):
        for _ in range(MAX_QUEUE):
            tap.heard("north", Reading("meter", telemetry={"n": 1}))
        clock.advance(FLUSH_S)
    assert b"".join(request_.written).count(b"event: dropped") == 1


def test_a_quiet_view_says_a_word_now_and_then(clock: Clock, request_: FakeRequest, tap: LiveTap) -> None:
    """So that a reader that is gone is noticed."""
    clock.pump([FLUSH_S] * round(KEEP_ALIVE_S / FLUSH_S + 2))
    assert request_.written == [b": nothing for a while\n\n"]


def test_after_the_end_nothing_is_left(clock: Clock, request_: FakeRequest, tap: LiveTap) -> None:
    """No timer, no producer; a second end does no harm."""
    tap.heard("north", Reading("meter", telemetry={"n": 1}))
    tap.stop()
    tap.stop()
    assert clock.getDelayedCalls() == [] and request_.producer is None and request_.written == []


@pytest.mark.parametrize(
    ("pattern", "name", "is_taken"),
    [
        ("", "anything", True), ("meter-*", "METER-1", True), ("meter-?", "meter-12", False),
        ("meter", "meter-1", False),
        ("a[1]", "a[1]", True), ("a[1]", "a1", False), ("a.b", "axb", False), ("*", "", True),
    ],
)  # fmt: skip
def test_filters_take_names_and_simple_patterns(pattern: str, name: str, is_taken: bool) -> None:
    """`*` and `?` alone are special."""
    assert Filter(pattern).takes("north", Reading(name)) is is_taken
    assert Filter("", pattern).takes(name, Reading("meter")) is is_taken
