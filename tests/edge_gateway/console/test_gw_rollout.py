"""A new configuration on trial."""

from __future__ import annotations

from edge_gateway.config import Config
from edge_gateway.console.rollout import Rollout, Trial, difference
from edge_gateway.settings import Core
from tests.support.asyncio_tests import asyncio_test
from tests.support.local_doors import FakeGateway, table

OLD = Config(connectors=(table("north"), table("south")))


class Time:
    """Sleeping is what moves it; `events` happen on the way."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.events: dict[float, tuple[FakeGateway, str, str, str]] = {}

    def seconds(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        for at_s in [one for one in self.events if one <= self.now_s - 100.0]:
            gateway, name, health, reason = self.events.pop(at_s)
            gateway.healths[name] = (health, reason)


class Kept:
    def __init__(self, error: OSError | None = None) -> None:
        self.times = 0
        self._error = error

    def __call__(self) -> None:
        self.times += 1
        if self._error:
            raise self._error


def rollout_of(gateway: FakeGateway, time: Time) -> Rollout:
    return Rollout(gateway, seconds=time.seconds, sleep=time.sleep)


async def run(rollout: Rollout, new: Config, kept: Kept, watch_s: float = 60.0) -> None:
    await rollout.run(rollout.begin(new), new, watch_s, kept)


def test_the_difference_is_told_by_connector_and_section() -> None:
    """Added, removed, changed and untouched; a disabled connector is as one that is not there."""
    new = Config(
        core=Core(token="x"),
        connectors=(table("north"), table("south", host="10.0.0.9"), table("west"), table("east", is_enabled=False)),
    )
    assert difference(OLD, new) == {
        "added": ["west"], "removed": [], "changed": ["south"], "unchanged": ["north"], "sections": ["core"],
    }  # fmt: skip
    assert difference(new, OLD)["removed"] == ["west"]


@asyncio_test
async def test_what_stays_healthy_is_kept() -> None:
    """After the whole watch the configuration is good, and what takes a restart is named."""
    gateway, time, kept = FakeGateway(OLD), Time(), Kept()
    rollout = rollout_of(gateway, time)
    await run(rollout, Config(connectors=(table("north"),)), kept)
    assert (rollout.trial, kept.times, time.now_s) == (Trial.GOOD, 1, 160.0)
    assert rollout.shown()["restartNeeded"] == ["core"]


@asyncio_test
async def test_a_healthy_connector_that_fails_brings_the_last_good_one_back() -> None:
    """It is not waited for the end of the watch, and the reason names the connector."""
    gateway, time, kept = FakeGateway(OLD), Time(), Kept()
    gateway.breaks = lambda config: {"south": ("failed", "no route to 10.0.0.9")} if config is not OLD else {}
    rollout = rollout_of(gateway, time)
    await run(rollout, Config(connectors=(table("north"), table("south", host="10.0.0.9"))), kept)
    assert rollout.trial is Trial.ROLLED_BACK and gateway.config is OLD and kept.times == 0
    assert rollout.reason == "south was healthy before and fails now: no route to 10.0.0.9"
    assert time.now_s == 110.0


@asyncio_test
async def test_a_short_failure_is_forgiven() -> None:
    """A connector that comes back within ten seconds was only started again."""
    gateway, time, kept = FakeGateway(OLD), Time(), Kept()
    time.events = {3.0: (gateway, "north", "failed", "port is taken"), 6.0: (gateway, "north", "starting", ""),
                   9.0: (gateway, "north", "degraded", "unit 3 is silent")}  # fmt: skip
    rollout = rollout_of(gateway, time)
    await run(rollout, Config(connectors=(table("north"),)), kept)
    assert rollout.trial is Trial.GOOD and kept.times == 1


@asyncio_test
async def test_failing_and_starting_in_turns_is_failing() -> None:
    """A new attempt that only starts is no recovery."""
    gateway, time, kept = FakeGateway(OLD), Time(), Kept()
    time.events = {3.0: (gateway, "north", "failed", "refused"), 4.0: (gateway, "north", "starting", ""),
                   12.0: (gateway, "north", "failed", "refused")}  # fmt: skip
    rollout = rollout_of(gateway, time)
    await run(rollout, Config(connectors=(table("north"),)), kept)
    assert rollout.trial is Trial.ROLLED_BACK and time.now_s == 113.0


@asyncio_test
async def test_a_failure_at_the_very_end_counts() -> None:
    """Nobody would look at it afterwards."""
    gateway, time, kept = FakeGateway(OLD), Time(), Kept()
    time.events = {59.0: (gateway, "north", "failed", "refused")}
    rollout = rollout_of(gateway, time)
    await run(rollout, Config(connectors=(table("north"),)), kept)
    assert rollout.trial is Trial.ROLLED_BACK


@asyncio_test
async def test_what_was_unwell_before_is_no_reason_to_go_back() -> None:
    """Neither is a new connector that does not work yet: both are told."""
    gateway, time, kept = FakeGateway(OLD), Time(), Kept()
    gateway.healths["south"] = ("failed", "no power")
    gateway.breaks = lambda _: {"south": ("failed", "no power"), "west": ("starting", "")}
    rollout = rollout_of(gateway, time)
    await run(rollout, Config(connectors=(*OLD.connectors, table("west"))), kept)
    assert rollout.trial is Trial.GOOD
    assert rollout.shown()["notHealthy"] == {"south": "no power", "west": "starting"}


@asyncio_test
async def test_a_configuration_that_cannot_be_applied_is_taken_back() -> None:
    """Whatever goes wrong inside, the last good one runs."""
    gateway, time, kept = FakeGateway(OLD), Time(), Kept()
    gateway.raises = RuntimeError("no memory")
    rollout = rollout_of(gateway, time)
    await run(rollout, Config(), kept)
    assert rollout.trial is Trial.ROLLED_BACK and gateway.applied == [OLD]
    assert "RuntimeError: no memory" in rollout.reason


@asyncio_test
async def test_a_file_that_cannot_be_written_takes_the_change_back() -> None:
    """Else the next start would silently run another configuration."""
    gateway, time, kept = FakeGateway(OLD), Time(), Kept(OSError(30, "Read-only file system"))
    rollout = rollout_of(gateway, time)
    await run(rollout, Config(connectors=(table("north"),)), kept)
    assert rollout.trial is Trial.ROLLED_BACK and gateway.config is OLD
    assert rollout.reason == "the file could not be written: Read-only file system"


@asyncio_test
async def test_when_nothing_can_be_brought_back_it_is_said() -> None:
    """People must look at the gateway then."""
    gateway, time = FakeGateway(OLD), Time()
    gateway.breaks = lambda _: {"south": ("failed", "x")}
    rollout = rollout_of(gateway, time)
    old, new = rollout.begin(OLD), Config(connectors=(table("south", host="h"),))
    original = gateway.apply

    async def apply(config: Config) -> dict[str, list[str]]:
        if config is old:
            raise RuntimeError("broken")
        return await original(config)

    gateway.apply = apply  # type: ignore[method-assign]
    await rollout.run(old, new, 60.0, Kept())
    assert rollout.trial is Trial.FAILED and "could not be brought back: broken" in rollout.reason
