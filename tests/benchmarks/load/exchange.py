"""The engine for one-at-a-time exchanges: a request, its answer, then the next request on the same channel.

It knows no protocol. A channel is an HTTP connection, a CoAP endpoint or a short MQTT dialogue; the engine
starts its exchanges (again at once, or when they are due), waits for sockets, and counts.
"""

from __future__ import annotations

import enum
import select
import time
from typing import Protocol

from .measure import Meter, Plan

CHECK_PERIOD_S = 0.25
ERRORS_TO_GIVE_UP = 1000


class Outcome(enum.Enum):
    """What a readable socket means for the exchange under way."""

    PENDING = enum.auto()  # more has to come
    ANSWERED = enum.auto()  # the right answer is there
    FAILED = enum.auto()  # a wrong answer or a lost connection; the channel is ready for its next exchange


class Channel(Protocol):
    """One exchange at a time; `channels` of the wiring map file descriptors to it."""

    failure: str

    def start(self, number: int) -> None:
        """Send the request of exchange `number`, which no other exchange of the run has."""

    def ready(self, events: int) -> Outcome:
        """The socket is readable or writable (`select.EPOLL…` in `events`)."""

    def overdue(self, waited_s: float) -> Outcome:
        """Still no answer `waited_s` after the start; called a few times a second (retransmit, give up)."""

    def close(self) -> None:
        """No further exchange."""


class Wiring:
    """Which socket belongs to which channel."""

    __slots__ = ("channels", "poll")

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.channels: dict[int, Channel] = {}

    def watch(self, fd: int, channel: Channel, events: int = select.EPOLLIN) -> None:
        """Tell `channel` about `events` on `fd`; closing the descriptor ends that by itself."""
        self.channels[fd] = channel
        self.poll.register(fd, events)


class ExchangeLoad:
    """All channels together."""

    def __init__(self, plan: Plan, wiring: Wiring, channels: list[Channel], meter: Meter) -> None:
        self._plan = plan
        self._wiring = wiring
        self._meter = meter
        self._idle = channels
        self._busy: dict[Channel, tuple[float, float]] = {}  # channel -> (due, started)
        self._restarting = plan.rate is None
        self._check_at = 0.0
        self.sent = 0
        self.acknowledged = 0

    def run(self, *, first_number: int = 0) -> None:
        """Warm up, measure, drain. Exchanges are numbered from `first_number`."""
        self._first_number = first_number
        started = time.perf_counter()
        self._load(started)
        self._restarting = False
        drained_by = time.perf_counter() + self._plan.answer_timeout + CHECK_PERIOD_S * 2
        while self._busy and time.perf_counter() < drained_by:
            self._step(0.1)
        self._meter.end(time.perf_counter())  # a run by count ends with its last answer
        if self._busy:
            self._meter.fail("answers missing", len(self._busy))

    def _load(self, started: float) -> None:
        plan, meter = self._plan, self._meter
        opens = started + plan.warmup
        closes = float("inf") if plan.count else opens + plan.seconds
        wait_s = 0.1 if plan.rate is None else 0.001
        while True:
            now = time.perf_counter()
            if not meter.measuring and now >= opens:
                meter.begin(now)
            if now >= closes or (plan.count and self.sent >= plan.count) or meter.errors >= ERRORS_TO_GIVE_UP:
                break
            if plan.rate is None:
                for _ in range(len(self._idle) if not plan.count else min(len(self._idle), plan.count - self.sent)):
                    self._start(self._idle.pop(), time.perf_counter())
            else:
                self._keep_pace(started, now, plan.rate)
            self._step(wait_s)
        if not plan.count:
            meter.end(time.perf_counter())

    def _keep_pace(self, started: float, now: float, rate: float) -> None:
        """Start what is due; when every channel is busy the rest waits, and its latency runs."""
        due = int((now - started) * rate)
        while self.sent < due and self._idle:
            self._start(self._idle.pop(), started + self.sent / rate)

    def _start(self, channel: Channel, since: float) -> None:
        self._busy[channel] = (since, time.perf_counter())
        number = self._first_number + self.sent
        self.sent += 1
        try:
            channel.start(number)
        except OSError as error:
            channel.failure = f"cannot send: {error}"
            self._finish(channel, Outcome.FAILED)

    def _step(self, wait_s: float) -> None:
        channels = self._wiring.channels
        for fd, events in self._wiring.poll.poll(wait_s):
            channel = channels[fd]
            outcome = channel.ready(events)
            if outcome is not Outcome.PENDING:
                self._finish(channel, outcome)
        now = time.perf_counter()
        if now >= self._check_at:
            self._check_at = now + CHECK_PERIOD_S
            for channel, (_, started) in list(self._busy.items()):
                outcome = channel.overdue(now - started)
                if outcome is not Outcome.PENDING:
                    self._finish(channel, outcome)

    def _finish(self, channel: Channel, outcome: Outcome) -> None:
        times = self._busy.pop(channel, None)
        if times is None:  # nothing was asked: an idle connection was closed, or a late duplicate came
            return
        now = time.perf_counter()
        if outcome is Outcome.ANSWERED:
            self.acknowledged += 1
            self._meter.record(now - times[0])
        else:
            self._meter.fail(channel.failure)
        if self._restarting and outcome is Outcome.ANSWERED and not self._plan.count:
            self._start(channel, now)
        else:
            self._idle.append(channel)


def run_exchanges(
    plan: Plan, wiring: Wiring, channels: list[Channel], *, first_number: int = 0
) -> tuple[Meter, ExchangeLoad]:
    """Run `plan` over `channels` and close them."""
    meter = Meter(plan)
    load = ExchangeLoad(plan, wiring, list(channels), meter)
    load.run(first_number=first_number)
    for channel in channels:
        channel.close()
    return meter, load
