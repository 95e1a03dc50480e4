"""Commands that are sent at once, over recording downlinks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cloud_core.core.downlinks import Ending
from cloud_core.core.rpc import commands as rpc_module
from cloud_core.core.rpc.commands import Answer
from cloud_core.core.rpc.decisions import FIRST_NUMBER
from cloud_core.model import PROVISIONING_IDENTITY
from shared.errors import (
    DeviceOffline,
    DeviceTimeout,
    InvalidArgument,
    MalformedRequest,
    NotAuthorized,
    RateLimited,
    RequestTooLarge,
    Unavailable,
)
from tests.support.downlinks import RecordingDownlink
from tests.support.rpc import RpcUnderTest
from tests.support.stores import TENANT, StoreUnderTest


@pytest.fixture
def core(sqlite_store: StoreUnderTest) -> Iterator[RpcUnderTest]:
    yield RpcUnderTest(sqlite_store)


def test_a_command_to_an_offline_device_is_refused_at_once(core: RpcUnderTest) -> None:
    """No downlink that takes commands: DeviceOffline (R1)."""
    assert [type(one) for one in core.send()] == [DeviceOffline]


def test_a_one_way_command_is_over_when_it_is_delivered(core: RpcUnderTest) -> None:
    """The device hears method and params; the caller nothing but that it has them (R2)."""
    downlink = core.downlink()
    outcomes = core.send("setGpio", params={"pin": 7})
    assert outcomes == []
    downlink.deliveries[0].delivered()
    assert outcomes == [Answer()]
    assert (downlink.commands[0].method, downlink.commands[0].params) == ("setGpio", {"pin": 7})


def test_a_two_way_command_is_over_when_the_device_answers(core: RpcUnderTest) -> None:
    """Its reply is the answer, whether it comes behind the acknowledgement or before it (R3)."""
    downlink = core.downlink()
    first, second = core.send(is_oneway=False), core.send(is_oneway=False)
    downlink.deliveries[0].delivered()
    assert first == []
    core.reply(0, {"value": 1})
    core.reply(1, 2)
    downlink.deliveries[1].delivered()
    assert (first, second) == ([Answer({"value": 1})], [Answer(2)])


def test_numbers_of_a_device_count_from_0(core: RpcUnderTest) -> None:
    """Each device has its own."""
    other = core.store.add_device("other", core.store.add_profile("p2"))
    mine, theirs = core.downlink(), RecordingDownlink(core.api.downlinks, other).open()
    core.send()
    core.send()
    core.rpc.send(TENANT, other, core.command(), [].append)
    assert [one.number for one in mine.commands] == [0, 1]
    assert [one.number for one in theirs.commands] == [0]


def test_a_reply_counts_only_for_the_device_that_was_asked(core: RpcUnderTest) -> None:
    """Another device cannot answer in its place."""
    core.downlink()
    outcomes = core.send(is_oneway=False)
    core.rpc.reply_of(core.device_id + 1, 0, "forged", lambda _: None)
    assert outcomes == []


def test_a_late_or_unknown_reply_is_dropped_and_confirmed(core: RpcUnderTest) -> None:
    """The device cannot mend it, so it hears nothing of it."""
    core.downlink(acknowledges=True)
    outcomes = core.send(is_oneway=False, in_ms=5_000)
    core.pass_time(5.1)
    assert [type(one) for one in outcomes] == [DeviceTimeout]
    for number in (0, 99, FIRST_NUMBER, FIRST_NUMBER + 99):
        assert core.reply(number, "late") is None
    assert len(outcomes) == 1


@pytest.mark.parametrize(("in_ms", "waits_s"), [(20_000, 10.0), (6_000, 6.0)])
def test_a_command_that_is_not_acknowledged_ends_in_a_timeout(core: RpcUnderTest, in_ms: int, waits_s: float) -> None:
    """After the acknowledgement's time, or the command's own where that is shorter."""
    core.downlink()
    outcomes = core.send(in_ms=in_ms)
    core.pass_time(waits_s - 0.1)
    assert outcomes == []
    core.pass_time(0.2)
    assert [type(one) for one in outcomes] == [DeviceTimeout]


@pytest.mark.parametrize("order", ["close first", "failed first"])
def test_a_command_whose_connection_is_lost_ends_in_offline(core: RpcUnderTest, order: str) -> None:
    """In whatever order the transport tidies up."""
    downlink = core.downlink()
    outcomes = core.send()
    steps = [downlink.close, downlink.deliveries[0].failed]
    for step in steps if order == "close first" else reversed(steps):
        step()
    core.settle()
    assert [type(one) for one in outcomes] == [DeviceOffline]


def test_a_failure_on_an_open_connection_is_a_timeout(core: RpcUnderTest) -> None:
    """For instance a notification that was never acknowledged."""
    downlink = core.downlink()
    outcomes = core.send()
    downlink.deliveries[0].failed()
    core.settle()
    assert [type(one) for one in outcomes] == [DeviceTimeout]


def test_commands_that_wait_in_memory_are_bounded(
    sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per device and in all; what has ended makes room again."""
    core = RpcUnderTest(sqlite_store, max_waiting_per_device=2)
    downlink = core.downlink()
    core.send()
    core.send()
    assert [type(one) for one in core.send()] == [RateLimited]
    downlink.deliveries[0].delivered()
    assert core.send() == []
    monkeypatch.setattr(rpc_module, "MAX_WAITING", 2)
    downlink.deliveries[1].delivered()
    assert core.send() == []
    other = core.store.add_device("other", core.store.add_profile("p2"))
    RecordingDownlink(core.api.downlinks, other).open()
    outcomes: list[Any] = []
    core.rpc.send(TENANT, other, core.command(), outcomes.append)
    assert [type(one) for one in outcomes] == [Unavailable]


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("is_persistent", [False, True])
@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"method": ""}, InvalidArgument),
        ({"method": "x" * 256}, InvalidArgument),
        ({"params": "x" * 65_536}, RequestTooLarge),
        ({"additional_info": "x" * 65_536}, RequestTooLarge),
        ({"params": _nested(40)}, MalformedRequest),
        ({"expires_ms": 2**63}, InvalidArgument),
    ],
)
def test_a_command_that_no_device_could_be_sent_is_refused(
    core: RpcUnderTest, members: dict[str, Any], error: type, is_persistent: bool
) -> None:
    """Before it is stored or written."""
    downlink = core.downlink()
    assert [type(one) for one in core.send(is_persistent=is_persistent, **members)] == [error]
    assert downlink.commands == []


def test_a_provision_only_session_may_not_reply(core: RpcUnderTest) -> None:
    outcomes: list[Any] = []
    core.rpc.reply(PROVISIONING_IDENTITY, 0, None, outcomes.append)
    assert [type(one) for one in outcomes] == [NotAuthorized]


def test_the_session_of_a_silent_device_ends_where_that_is_configured(sqlite_store: StoreUnderTest) -> None:
    """Also for a command that does not wait on disk (R6)."""
    core = RpcUnderTest(sqlite_store, closes_session_on_delivery_timeout=True)
    downlink = core.downlink()
    outcomes = core.send()
    core.pass_time(10.1)
    assert [type(one) for one in outcomes] == [DeviceTimeout]
    assert downlink.endings == [Ending.COMMAND_UNACKNOWLEDGED]
