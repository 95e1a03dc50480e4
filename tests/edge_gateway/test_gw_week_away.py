"""The core is away for a week: what the gateway took meanwhile, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec

from tests.support.gateway_fakes import START_MS, FakeSpool, Flow
from tests.support.spools import SpoolUnderTest

DEVICES = [f"d{number}" for number in range(10)]
STEP_S = 600
WEEK_STEPS = 7 * 24 * 3600 // STEP_S


class Week:
    """A real spool and the real flow, with time that the test advances."""

    def __init__(self, folder: Path, **store: Any) -> None:
        self.spool = SpoolUnderTest(folder / "spool.db", **store)
        self.flow = Flow(cast(FakeSpool, self.spool.spool))
        self.flow.wall_start_ms = START_MS
        self.accepted = 0

    def advance(self, seconds: float) -> None:
        self.flow.timers.advance(seconds)
        self.spool.now_s = self.flow.monotonic_ms() / 1000

    def pass_without_core(self, steps: int) -> None:
        for step in range(steps):
            self.advance(STEP_S)
            for device in DEVICES:
                self.flow.accept(device, {"step": step})
                self.accepted += 1
            if step % 50 == 0:
                self.spool.history(limit_records=1)
        self.spool.history(limit_records=1)

    def deliver(self) -> dict[str, list[tuple[int, int]]]:
        """The core is back and acknowledges everything: (time, step) by device, in the order of arrival."""
        self.flow.connect()
        arrived: dict[str, list[tuple[int, int]]] = {device: [] for device in DEVICES}
        for _ in range(20_000):
            while self.flow.uplink.waiting:
                topic, payload = self.flow.uplink.answer()
                if topic == "v1/gateway/telemetry":
                    for device, entries in msgspec.json.decode(payload).items():
                        arrived[device] += [(entry["ts"], entry["values"]["step"]) for entry in entries]
            self.advance(0.01)
            self.spool.history(limit_records=1)  # the disk has answered what was asked before
            if not self.flow.uplink.waiting and self.spool.spool.levels().records == 0:
                return arrived
        raise AssertionError(f"{self.spool.spool.levels().records} records are left")


def test_everything_of_a_week_arrives_in_order_with_its_own_time(tmp_path: Path) -> None:
    """Ten thousand readings, none lost, none dated when it was sent."""
    week = Week(tmp_path)
    week.pass_without_core(WEEK_STEPS)
    arrived = week.deliver()
    times = [START_MS + 1_000 + (step + 1) * STEP_S * 1000 for step in range(WEEK_STEPS)]
    for device in DEVICES:
        assert [step for _, step in arrived[device]] == list(range(WEEK_STEPS))
        assert [ts for ts, _ in arrived[device]] == times
    week.spool.close()


def test_what_is_older_than_allowed_is_given_up_counted_and_the_rest_arrives(tmp_path: Path) -> None:
    """With `max_age` of three days the last three days are there, and every other reading stands in the count."""
    week = Week(tmp_path, max_age=3 * 86_400.0)
    week.pass_without_core(WEEK_STEPS)
    arrived = week.deliver()
    dropped = week.spool.spool.levels().dropped
    assert set(dropped) == {"age"}
    assert sum(map(len, arrived.values())) + dropped["age"] == week.accepted
    for device in DEVICES:
        steps = [step for _, step in arrived[device]]
        assert steps == list(range(steps[0], WEEK_STEPS))
        assert len(steps) >= 3 * 86_400 // STEP_S - 1
    week.spool.close()


def test_the_power_goes_in_the_middle_of_the_week(tmp_path: Path) -> None:
    """The gateway starts again, goes on, and the whole week arrives in order."""
    week = Week(tmp_path)
    week.pass_without_core(WEEK_STEPS // 2)
    week.spool.abandon()
    again = Week(tmp_path, machine_start="two")
    again.flow.wall_start_ms = START_MS + WEEK_STEPS // 2 * STEP_S * 1000
    again.pass_without_core(WEEK_STEPS - WEEK_STEPS // 2)
    arrived = again.deliver()
    for device in DEVICES:
        assert len(arrived[device]) == WEEK_STEPS
        times = [ts for ts, _ in arrived[device]]
        assert times == sorted(times)
    again.spool.close()
