"""Stops and reloads that come at a bad moment."""

from __future__ import annotations

import asyncio

from edge_gateway.core.downlinks import STOP_S
from edge_gateway.model import Call, Json
from tests.edge_gateway.core.test_gw_commands import Fragile, Way, turns
from tests.support.asyncio_tests import asyncio_test


@asyncio_test
async def test_two_reloads_at_once_start_each_connector_once() -> None:
    """The second waits for the first."""
    before = asyncio.all_tasks()  # other tests leave some behind
    fragile = Fragile()
    await fragile.supervisor.apply([fragile.table("a")])
    await turns()
    first, second = fragile.table("a", port=1), fragile.table("a", port=2)
    await asyncio.gather(fragile.supervisor.apply([first]), fragile.supervisor.apply([second]))
    await turns()
    alive = [task for task in asyncio.all_tasks() - before if task.get_name() == "connector a"]
    assert len(alive) == 1
    await fragile.supervisor.stop()


@asyncio_test
async def test_a_reload_that_is_under_way_at_a_stop_starts_nothing_any_more() -> None:
    """Nobody would stop it."""
    fragile = Fragile()
    fragile.is_stubborn = True
    await fragile.supervisor.apply([fragile.table("a")])
    await turns()
    fragile.is_stubborn = False
    reload = asyncio.ensure_future(fragile.supervisor.apply([fragile.table("b")]))
    await turns()
    stop = asyncio.ensure_future(fragile.supervisor.stop())
    await turns()
    fragile.end.set()
    fragile.sleeps[0][1].set_result(None)
    await asyncio.gather(reload, stop)
    await turns()
    assert fragile.built == ["a"]


@asyncio_test
async def test_a_command_that_cannot_be_cancelled_does_not_hold_the_stop() -> None:
    """It is left behind."""
    way = Way()
    end = asyncio.Event()

    async def stubborn(call: Call) -> Json:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return None

    way.machine.call = stubborn  # type: ignore[method-assign]
    way.call(1)
    await turns()
    await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(way.downlinks.stop())), STOP_S + 2)
    end.set()
    await turns()


@asyncio_test
async def test_a_command_whose_answer_cannot_be_sent_does_not_end_those_after_it() -> None:
    """Whatever the connection does."""
    way = Way()
    send, failures = way.urgent, [RuntimeError("a mistake")]

    def urgent(topic: str, payload: bytes) -> bool:
        if failures:
            raise failures.pop()
        return send(topic, payload)

    way.downlinks._urgent = urgent
    way.call(1)
    await turns()
    way.call(2)
    await turns()
    assert [reply["id"] for reply in way.replies] == [2]
