"""What every fabric promises: on several nodes in one process, and on a real nats-server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import capturedLogs

from cloud_core.fabric.interface import MAX_BODY_BYTES, Body
from tests.support.asyncio_tests import asyncio_test, eventually, waited_for
from tests.support.clusters import Hearing, HubCluster, NatsCluster, acquainted


@pytest.fixture(params=["hub", "nats"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: HubCluster | NatsCluster = (
        HubCluster() if request.param == "hub" else NatsCluster(request.getfixturevalue("nats_server").port)
    )
    yield made
    waited_for(made.close())


@asyncio_test
async def test_nodes_learn_of_each_other(cluster: Any) -> None:
    """A node that joins is in `others` everywhere, each is told of once, and itself it does not see."""
    one = await cluster.join("one")
    hearing = Hearing(one)
    two, three = await cluster.join("two"), await cluster.join("three")
    await acquainted(one, two, three)
    assert sorted(hearing.joined) == ["three", "two"]
    assert not one.is_away and one.node == "one"


@asyncio_test
async def test_all_others_hear_what_is_told_to_all(cluster: Any) -> None:
    """With its sender; who tells does not hear itself."""
    one, two, three = [await cluster.join(name) for name in ("one", "two", "three")]
    hearings = [Hearing(one), Hearing(two), Hearing(three)]
    await acquainted(one, two, three)
    one.tell_all("news", {"a": 1})
    await eventually(lambda: hearings[1].heard and hearings[2].heard)
    two.tell("one", "news", "after")
    await eventually(lambda: hearings[0].heard)
    assert [hearing.heard for hearing in hearings] == [
        [("two", "news", "after")], [("one", "news", {"a": 1})], [("one", "news", {"a": 1})],
    ]  # fmt: skip


@asyncio_test
async def test_one_hears_what_is_told_to_it(cluster: Any) -> None:
    """And nobody else; whoever is not there hears nothing and harms nothing."""
    one, two, three = [await cluster.join(name) for name in ("one", "two", "three")]
    second, third = Hearing(two), Hearing(three)
    await acquainted(one, two, three)
    one.tell("nobody", "news", 0)
    one.tell("one", "news", 0)
    one.tell("two", "news", 1)
    one.tell_all("news", 2)
    await eventually(lambda: second.bodies == [1, 2] and third.bodies == [2])


@asyncio_test
async def test_messages_of_one_sender_keep_their_order(cluster: Any) -> None:
    """Those to all and those to one together, over many turns of the reactor."""
    one, two, three = [await cluster.join(name) for name in ("one", "two", "three")]
    second = Hearing(two, "news", "word")
    await acquainted(one, two, three)
    for start in range(0, 1_000, 100):
        for number in range(start, start + 100):
            if number % 3:
                one.tell_all("news", number)
            else:
                one.tell("two", "word", number)
        await eventually(lambda: bool(second.heard))
    await eventually(lambda: len(second.heard) == 1_000)
    assert second.bodies == list(range(1_000))
    assert second.backs == 0


@asyncio_test
async def test_bodies_are_carried_as_they_are_when_told(cluster: Any) -> None:
    """All that MessagePack knows; what the sender changes afterwards does not travel."""
    one, two = await cluster.join("one"), await cluster.join("two")
    second = Hearing(two)
    await acquainted(one, two)
    bodies: list[Body] = [None, True, 2**63, -1, 1.5, "ü", b"\x00\xff", [1, ["x"]], {"a": {"b": b""}}, {}, []]
    changed = [1]
    for body in [*bodies, changed]:
        one.tell_all("news", body)
    changed.append(2)
    await eventually(lambda: len(second.heard) == len(bodies) + 1)
    assert second.bodies == [*bodies, [1]]


@asyncio_test
async def test_what_cannot_be_told_is_logged_and_harms_nothing(cluster: Any) -> None:
    """Too large, or nothing that MessagePack carries: the next message arrives."""
    one, two = await cluster.join("one"), await cluster.join("two")
    second = Hearing(two)
    await acquainted(one, two)
    with capturedLogs() as captured:
        one.tell_all("large", b"x" * (MAX_BODY_BYTES + 1))
        one.tell("two", "strange", object())
    one.tell_all("news", "x" * (MAX_BODY_BYTES - 5))
    one.tell_all("news", 2)
    await eventually(lambda: len(second.heard) == 2)
    assert second.bodies[1] == 2
    assert [event["kind"] for event in captured if event.get("kind")] == ["large", "strange"]


@asyncio_test
async def test_a_callback_that_raises_harms_nobody(cluster: Any) -> None:
    """Neither other callbacks nor the messages behind."""
    one = await cluster.join("one")

    def fails(*_: object) -> None:
        raise RuntimeError("a fault")

    one.on_joined(fails)
    one.hear("broken", fails)
    first = Hearing(one)
    with capturedLogs() as captured:
        two = await cluster.join("two")
        await acquainted(one, two)
        two.tell_all("broken", 1)
        two.tell_all("news", 2)
        two.tell_all("unheard", 3)
        two.tell_all("news", 4)
        await eventually(lambda: len(first.heard) == 2)
    assert first.joined == ["two"] and first.bodies == [2, 4]
    assert len([event for event in captured if event.get("log_failure")]) == 2


@asyncio_test
async def test_a_node_that_goes_has_left(cluster: Any) -> None:
    """The others are told once, and have it no more in `others` by then."""
    one, two, three = [await cluster.join(name) for name in ("one", "two", "three")]
    first = Hearing(one)
    await acquainted(one, two, three)
    seen: list[frozenset[str]] = []
    one.on_left(lambda _: seen.append(one.others))
    await cluster.leave(two)
    await eventually(lambda: first.left)
    assert (first.left, seen, first.backs) == (["two"], [frozenset({"three"})], 0)
    one.tell("two", "news", 1)
    one.tell_all("news", 2)


@asyncio_test
async def test_a_node_that_is_cut_off_is_alone_and_comes_back(cluster: Any) -> None:
    """Away: no others, each has left. Back: it is called, and they join again under their names."""
    one, two, three = [await cluster.join(name) for name in ("one", "two", "three")]
    first, second = Hearing(one), Hearing(two)
    await acquainted(one, two, three)
    cluster.cut(two)
    await eventually(lambda: two.is_away)
    assert two.others == frozenset() and sorted(second.left) == ["one", "three"]
    await eventually(lambda: first.left == ["two"])
    assert (first.backs, second.backs) == (0, 0)
    two.tell_all("news", "into the void")
    one.tell_all("news", "two is not there")
    cluster.heal(two)
    await acquainted(one, two, three)
    assert not two.is_away and second.backs == 1 and second.joined[-2:] != []
    one.tell_all("news", "again")
    two.tell("one", "news", "here")
    await eventually(lambda: second.heard and first.heard)
    assert (first.bodies, second.bodies) == (["here"], ["again"])


@asyncio_test
async def test_who_missed_a_message_is_called(cluster: Any) -> None:
    """By the next that arrives at the latest; whoever missed nothing is not."""
    one, two = await cluster.join("one"), await cluster.join("two")
    first, second = Hearing(one), Hearing(two)
    await acquainted(one, two)
    one.tell("two", "news", 1)
    await eventually(lambda: second.heard)
    cluster.lose(one, two)
    one.tell("two", "news", 2)
    two.tell("one", "news", 3)
    await eventually(lambda: second.backs == 1 and first.heard)
    assert (first.bodies, first.backs, second.bodies) == ([3], 0, [1, 2])
