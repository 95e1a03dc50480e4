"""Commands that wait on disk: order, retries, restarts, and every state."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from cloud_core.core.downlinks import Ending
from cloud_core.core.rpc import decisions as decisions
from cloud_core.core.rpc.commands import SubmitStrategy
from cloud_core.core.rpc.decisions import FIRST_NUMBER, NEXT, RpcEvent
from cloud_core.model import Page, RpcStatus
from shared.device_json import NotJson
from shared.errors import (
    InvalidArgument,
    NotFound,
    RateLimited,
    Unavailable,
)
from tests.support.rpc import RpcUnderTest
from tests.support.stores import TENANT, StoreUnderTest

ON_ACK = SubmitStrategy.SEQUENTIAL_ON_ACK_FROM_DEVICE
ON_RESPONSE = SubmitStrategy.SEQUENTIAL_ON_RESPONSE_FROM_DEVICE


@pytest.fixture
def core(sqlite_store: StoreUnderTest) -> Iterator[RpcUnderTest]:
    yield RpcUnderTest(sqlite_store)


def test_a_persistent_command_waits_for_its_device(core: RpcUnderTest) -> None:
    """It has its id at once, and is sent and answered when the device comes (R8)."""
    [uuid] = core.queue("reboot", params={"in": 5}, is_oneway=False)
    assert core.states([uuid]) == ["QUEUED"]
    downlink = core.downlink()
    core.settle()
    [command] = downlink.commands
    assert (command.method, command.params, command.number > FIRST_NUMBER) == ("reboot", {"in": 5}, True)
    assert core.states([uuid]) == ["SENT"]
    downlink.deliveries[0].delivered()
    core.settle()
    assert core.states([uuid]) == ["DELIVERED"]
    core.reply(command.number, {"ok": True})
    assert (core.states([uuid]), core.stored(uuid).response) == (["SUCCESSFUL"], {"ok": True})


def test_a_persistent_one_way_command_succeeds_on_delivery(core: RpcUnderTest) -> None:
    """A device that is there gets it at once."""
    downlink = core.downlink(acknowledges=True)
    uuids = core.queue("a")
    core.settle()
    assert (downlink.methods, core.states(uuids)) == (["a"], ["SUCCESSFUL"])


@pytest.mark.parametrize("acknowledges", [True, False], ids=["qos0", "qos1"])
def test_ten_commands_arrive_in_order_after_subscribing(core: RpcUnderTest, acknowledges: bool) -> None:
    """All at once where nothing else is configured (R5)."""
    methods = [f"m{number}" for number in range(10)]
    uuids = core.queue(*methods)
    downlink = core.downlink(acknowledges=acknowledges)
    core.settle()
    assert downlink.methods == methods
    assert set(core.states(uuids)) == {"SUCCESSFUL" if acknowledges else "SENT"}


def test_more_commands_than_may_be_on_their_way_follow_the_acknowledgements(core: RpcUnderTest) -> None:
    """A burst is bounded, and complete in the end."""
    methods = [f"m{number}" for number in range(70)]
    core.queue(*methods)
    downlink = core.downlink()
    core.settle()
    assert downlink.methods == methods[:32]
    for at in itertools.count():
        if at >= len(downlink.deliveries):
            break
        downlink.deliveries[at].delivered()
        core.settle()
    assert downlink.methods == methods


def test_on_ack_sends_the_next_command_only_behind_an_acknowledgement(sqlite_store: StoreUnderTest) -> None:
    """Of a two-way command too: its answer is not waited for (R5)."""
    core = RpcUnderTest(sqlite_store, submit_strategy=ON_ACK)
    core.queue("a", "b", "c", is_oneway=False)
    downlink = core.downlink()
    core.settle()
    for sent in (["a"], ["a", "b"], ["a", "b", "c"]):
        assert downlink.methods == sent
        downlink.deliveries[-1].delivered()
        core.settle()


def test_on_response_sends_the_next_command_only_behind_an_answer(sqlite_store: StoreUnderTest) -> None:
    """A one-way command has no other answer than its delivery (R5)."""
    core = RpcUnderTest(sqlite_store, submit_strategy=ON_RESPONSE)
    core.queue("a", is_oneway=False)
    core.queue("b")
    core.queue("c", is_oneway=False)
    downlink = core.downlink(acknowledges=True)
    core.settle()
    assert downlink.methods == ["a"]
    core.reply(downlink.commands[0].number, None)
    assert downlink.methods == ["a", "b", "c"]


@pytest.mark.parametrize("strategy", [SubmitStrategy.BURST, ON_ACK])
def test_a_command_that_expires_on_its_way_from_the_disk_is_not_sent(
    sqlite_store: StoreUnderTest, strategy: SubmitStrategy
) -> None:
    """As where the store is slow, or the process stands still; those behind it are."""
    core = RpcUnderTest(sqlite_store, submit_strategy=strategy)
    core.downlink().close()
    core.settle()
    uuids = core.queue("a", in_ms=5_000) + core.queue("b", in_ms=60_000)
    downlink = core.downlink(acknowledges=True)
    core.now_s = core.under_test.now_s = core.now_s + 10  # before the store has answered
    core.settle()
    assert downlink.methods == ["b"]
    assert core.states(uuids) == ["EXPIRED", "SUCCESSFUL"]


def test_an_answer_that_never_comes_holds_the_others_back_until_it_expires(sqlite_store: StoreUnderTest) -> None:
    """Then the next one is sent without anything else happening."""
    core = RpcUnderTest(sqlite_store, submit_strategy=ON_RESPONSE)
    [first] = core.queue("a", is_oneway=False, in_ms=60_000)
    core.queue("b")
    downlink = core.downlink(acknowledges=True)
    core.settle()
    core.pass_time(61)
    assert downlink.methods == ["a"]
    core.rpc.maintain()
    core.settle()
    assert (downlink.methods, core.states([first])) == (["a", "b"], ["EXPIRED"])


def test_a_long_poll_is_given_one_command_after_the_other(core: RpcUnderTest) -> None:
    """Each poll closes with its command; none is marked as sent that was not."""
    uuids = core.queue("a", "b", "c")
    for sent in ("a", "b", "c"):
        poll = core.downlink(acknowledges=True, takes=1)
        core.settle()
        assert poll.methods == [sent]
    assert core.states(uuids) == ["SUCCESSFUL"] * 3


def test_a_downlink_that_closes_within_a_batch_leaves_the_rest_queued(core: RpcUnderTest) -> None:
    """What was not written is not shown as sent."""
    uuids = core.queue("a", "b", "c")
    downlink = core.downlink(takes=2)
    core.settle()
    assert (downlink.methods, core.states(uuids)) == (["a", "b"], ["SENT", "SENT", "QUEUED"])


def test_a_retry_is_not_missed_while_others_are_looked_for(core: RpcUnderTest) -> None:
    """Two fail at once, and the first of them is gone by then."""
    gone, kept = core.queue("a", "b", retries=1)
    downlink = core.downlink()
    core.settle()
    core.under_test.outcome(lambda done: core.rpc.delete(TENANT, gone, done))
    core.pass_time(10.1)
    assert (downlink.methods, core.states([kept])) == (["a", "b", "b"], ["SENT"])


def test_a_lost_connection_costs_no_retry(core: RpcUnderTest) -> None:
    """The command waits until the device is back."""
    uuids = core.queue("a", retries=0)
    for _ in range(3):
        downlink = core.downlink()
        core.settle()
        assert downlink.methods == ["a"]
        downlink.deliveries[0].failed()
        downlink.close()
        core.settle()
        assert core.states(uuids) == ["QUEUED"]


def test_unacknowledged_commands_are_sent_again_as_often_as_allowed(core: RpcUnderTest) -> None:
    """Then they end in TIMEOUT."""
    uuids = core.queue("a", retries=2)
    downlink = core.downlink()
    core.settle()
    for sent in (1, 2, 3):
        assert (len(downlink.commands), core.states(uuids)) == (sent, ["SENT"])
        core.pass_time(10.1)
    assert (len(downlink.commands), core.states(uuids)) == (3, ["TIMEOUT"])


def test_retries_are_bounded_by_the_configuration(sqlite_store: StoreUnderTest) -> None:
    core = RpcUnderTest(sqlite_store, max_retries=1)
    [uuid] = core.queue("a", retries=100)
    assert core.stored(uuid).retries_left == 1


def test_an_unacknowledged_command_ends_the_session_and_returns_to_the_queue(sqlite_store: StoreUnderTest) -> None:
    """Where that is configured; it has no response, and is sent again when the device is back (R6)."""
    core = RpcUnderTest(sqlite_store, closes_session_on_delivery_timeout=True)
    [uuid] = core.queue("a", retries=0)
    downlink = core.downlink()
    core.settle()
    core.pass_time(10.1)
    assert downlink.endings == [Ending.COMMAND_UNACKNOWLEDGED]
    stored = core.stored(uuid)
    assert (stored.status, stored.response) == (RpcStatus.QUEUED, None)
    again = core.downlink(acknowledges=True)
    core.settle()
    assert (again.methods, core.states([uuid])) == (["a"], ["SUCCESSFUL"])


def test_an_answer_settles_a_command_whose_acknowledgement_is_missing(core: RpcUnderTest) -> None:
    """The device has it, evidently; no retry follows."""
    uuids = core.queue("a", is_oneway=False, retries=3)
    downlink = core.downlink()
    core.settle()
    core.reply(downlink.commands[0].number, 1)
    core.pass_time(30)
    downlink.deliveries[0].failed()
    core.settle()
    assert (core.states(uuids), downlink.methods) == (["SUCCESSFUL"], ["a"])


def test_an_answer_that_is_no_json_fails_the_command(core: RpcUnderTest) -> None:
    """The text is kept for whoever looks into it."""
    [uuid] = core.queue("a", is_oneway=False)
    downlink = core.downlink(acknowledges=True)
    core.settle()
    core.reply(downlink.commands[0].number, NotJson("segfault at 0"))
    stored = core.stored(uuid)
    assert (stored.status, stored.response) == (RpcStatus.FAILED, "segfault at 0")


def test_a_restart_sends_again_what_was_not_acknowledged(core: RpcUnderTest) -> None:
    """In order; what was delivered is not sent again and still takes its reply."""
    uuids = core.queue("a", "b", is_oneway=False)
    before = core.downlink()
    core.settle()
    before.deliveries[0].delivered()
    core.settle()
    number = before.commands[0].number
    uuids += core.queue("c")
    assert core.states(uuids) == ["DELIVERED", "SENT", "SENT"]
    core.restart()
    after = core.downlink(acknowledges=True)
    core.settle()
    assert after.methods == ["b", "c"]
    core.reply(number, "late but right")
    assert core.states(uuids) == ["SUCCESSFUL", "DELIVERED", "SUCCESSFUL"]


def test_a_command_whose_time_is_over_is_not_sent(core: RpcUnderTest) -> None:
    """Though nothing has marked it before; the next one is."""
    uuids = core.queue("a", in_ms=5_000) + core.queue("b")
    core.pass_time(6)
    downlink = core.downlink(acknowledges=True)
    core.settle()
    assert (downlink.methods, core.states(uuids)) == (["b"], ["EXPIRED", "SUCCESSFUL"])


def test_ended_commands_are_kept_for_a_week(core: RpcUnderTest) -> None:
    """Those that wait are kept until they expire."""
    core.downlink(acknowledges=True)
    [ended] = core.queue("a")
    core.settle()
    [waiting] = core.queue("b", is_oneway=False, in_ms=30 * 86_400_000)
    core.pass_time(6 * 86_400)
    core.rpc.maintain()
    core.settle()
    assert core.states([ended]) == ["SUCCESSFUL"]
    core.pass_time(2 * 86_400)
    for _ in range(60):
        core.rpc.maintain()
    core.settle()
    with pytest.raises(NotFound):
        core.stored(ended)
    assert core.states([waiting]) == ["DELIVERED"]


def test_a_deleted_command_is_neither_found_nor_sent(core: RpcUnderTest) -> None:
    """Also when it is on its way: it is not sent again."""
    waiting, sent = core.queue("a", "b")
    assert core.under_test.outcome(lambda done: core.rpc.delete(TENANT, waiting, done)) is None
    downlink = core.downlink()
    core.settle()
    assert downlink.methods == ["b"]
    core.under_test.outcome(lambda done: core.rpc.delete(TENANT, sent, done))
    core.pass_time(10.1)
    assert downlink.methods == ["b"]
    for uuid in (waiting, sent):
        with pytest.raises(NotFound):
            core.stored(uuid)
        assert isinstance(core.under_test.outcome(lambda done, one=uuid: core.rpc.delete(TENANT, one, done)), NotFound)


def test_commands_that_wait_on_disk_are_bounded(sqlite_store: StoreUnderTest) -> None:
    """The refusal says what to do."""
    core = RpcUnderTest(sqlite_store, max_waiting_per_device=2)
    core.queue("a", "b")
    [refusal] = core.queue("c")
    assert isinstance(refusal, RateLimited) and "delete some" in str(refusal)


def test_a_persistent_command_needs_a_device_and_a_future(core: RpcUnderTest) -> None:
    outcomes: list[Any] = []
    core.rpc.send(TENANT, 999, core.command(is_persistent=True), outcomes.append)
    core.rpc.send(TENANT + 1, core.device_id, core.command(is_persistent=True), outcomes.append)
    core.rpc.send(TENANT, core.device_id, core.command(is_persistent=True, in_ms=-1), outcomes.append)
    core.settle()
    assert {type(one) for one in outcomes} == {NotFound, InvalidArgument} and len(outcomes) == 3


def test_the_caller_may_choose_the_id_of_a_command_once(core: RpcUnderTest) -> None:
    """A second one of the same id is refused."""
    uuid = uuid4()
    assert core.queue("a", uuid=uuid) == [uuid]
    assert isinstance(core.queue("b", uuid=uuid)[0], InvalidArgument)


def test_commands_are_listed_by_state(core: RpcUnderTest) -> None:
    core.downlink(acknowledges=True)
    core.queue("a")
    core.settle()
    core.queue("b", is_oneway=False)

    def listed(status: RpcStatus | None) -> list[str]:
        rows, total = core.under_test.outcome(
            lambda done: core.rpc.list(TENANT, core.device_id, Page(10, 0), status, done)
        )
        assert total == len(rows)
        return [one.method for one in rows]

    assert listed(None) == ["a", "b"]
    assert (listed(RpcStatus.SUCCESSFUL), listed(RpcStatus.DELIVERED), listed(RpcStatus.QUEUED)) == (["a"], ["b"], [])


def test_devices_without_commands_come_and_go_without_a_look_up(core: RpcUnderTest) -> None:
    """A fleet that reconnects does not wait for the disk, nor do those whose commands have ended."""
    core.queue("a")
    for _ in range(2):
        downlink = core.downlink(acknowledges=True)
        core.settle()
        downlink.close()
    work: list[Any] = []
    core.store.store.submit = lambda *args: work.append(args)  # type: ignore[method-assign]
    core.store.store.read = lambda *args: work.append(args)  # type: ignore[method-assign]
    core.downlink()
    assert work == []


def test_a_busy_store_does_not_lose_what_was_delivered(core: RpcUnderTest) -> None:
    """Recording it is tried again, and the command is not sent twice meanwhile."""
    uuids = core.queue("a")
    downlink = core.downlink()
    core.settle()
    submit = core.store.store.submit
    core.store.store.submit = lambda work, args, done: done(Unavailable())  # type: ignore[method-assign]
    downlink.deliveries[0].delivered()
    core.store.store.submit = submit  # type: ignore[method-assign]
    assert core.states(uuids) == ["SENT"]
    core.pass_time(1.1)
    assert (core.states(uuids), downlink.methods) == (["SUCCESSFUL"], ["a"])


# -- states ---------------------------------------------------------------------------------------

_Q, _S, _D = RpcStatus.QUEUED, RpcStatus.SENT, RpcStatus.DELIVERED
_TAKEN: dict[RpcEvent, dict[RpcStatus, RpcStatus]] = {
    RpcEvent.SENT: {_Q: _S, _S: _S},
    RpcEvent.DELIVERED: {_S: _D},
    RpcEvent.COMPLETED: dict.fromkeys((_Q, _S, _D), RpcStatus.SUCCESSFUL),
    RpcEvent.UNUSABLE: dict.fromkeys((_Q, _S, _D), RpcStatus.FAILED),
    RpcEvent.RETURNED: {_S: _Q},
    RpcEvent.EXHAUSTED: {_S: RpcStatus.TIMEOUT},
    RpcEvent.EXPIRED: dict.fromkeys((_Q, _S, _D), RpcStatus.EXPIRED),
    RpcEvent.DELETED: dict.fromkeys(set(RpcStatus) - {RpcStatus.DELETED}, RpcStatus.DELETED),
}


@pytest.mark.parametrize(("status", "event"), list(itertools.product(RpcStatus, RpcEvent)))
def test_every_state_takes_the_events_it_should_and_no_other(
    core: RpcUnderTest, status: RpcStatus, event: RpcEvent
) -> None:
    """On the table and on disk: an event that comes too late changes nothing."""
    expected = _TAKEN[event].get(status)
    assert NEXT.get((status, event)) is expected
    if status is RpcStatus.DELETED:
        return  # no stored command is in it
    [uuid] = core.queue("a")
    command = core.stored(uuid)
    core.store.run(lambda tx: tx.update_command(command.id, status=status, retries_left=0))
    core.store.run(decisions.advance, (command.id,), event)
    found = core.store.read(lambda tx: tx.command(TENANT, uuid))
    if expected is RpcStatus.DELETED:
        assert found is None
    else:
        assert found.status is (expected or status)


def test_numbers_of_stored_commands_stay_below_32_bits(core: RpcUnderTest) -> None:
    """However many commands there have been, and a reply still finds its own."""
    assert decisions.number_of(5) == FIRST_NUMBER + 5
    assert max(map(decisions.number_of, (1, FIRST_NUMBER - 1, FIRST_NUMBER, 7 * FIRST_NUMBER + 3))) < 2**31
    core.store.run(
        lambda tx: tx.connection.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('command', ?)", (3 * FIRST_NUMBER,)
        )
    )
    [uuid] = core.queue("a", is_oneway=False)
    downlink = core.downlink(acknowledges=True)
    core.settle()
    assert downlink.commands[0].number == FIRST_NUMBER + 1
    core.reply(FIRST_NUMBER + 1, True)
    assert core.states([uuid]) == ["SUCCESSFUL"]
