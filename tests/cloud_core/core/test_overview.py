"""What is counted for the pages that people leave open."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from cloud_core.core import overview
from cloud_core.core.admin import AdminApi
from cloud_core.core.people.logins import Operator
from cloud_core.core.remembered import Remembered
from cloud_core.core.system_view import System
from cloud_core.core.traffic import MAX_SOURCES, MINUTES, OTHERS, Tally, Traffic
from cloud_core.model import Attempt, Peer, Transport
from shared.errors import Unavailable
from tests.support.api import ApiUnderTest
from tests.support.stores import StoreUnderTest
from tests.support.ui import somebody

MINUTE_MS = 60_000


def line(at_ms: int, outcome: str = "SUCCESS", source: str = "192.0.2.1", tenant_id: int | None = 1) -> Attempt:
    return Attempt(
        ref="", at_ms=at_ms, peer=Peer(Transport.MQTT, source), outcome=outcome, stage="", tenant_id=tenant_id
    )


# -- traffic --------------------------------------------------------------------------------------


def test_requests_are_counted_by_minute() -> None:
    """Granted, waiting and refused apart; the last minute is the one that is not over."""
    traffic, now_ms = Traffic(), 100 * MINUTE_MS + 5_000
    for one in (
        line(now_ms), line(now_ms, "REPLAYED"), line(now_ms, "APPROVAL_PENDING"), line(now_ms, "DEVICE_EXISTS"),
        line(now_ms - 2 * MINUTE_MS, "DEVICE_EXISTS"), line(now_ms - 61 * MINUTE_MS),
    ):  # fmt: skip
        traffic.count(one)
    minutes = traffic.rates(1, now_ms, with_unassigned=False).minutes
    assert len(minutes) == MINUTES
    assert (minutes[-1].granted, minutes[-1].waiting, minutes[-1].refusals) == (2, 1, 1)
    assert minutes[-3].requests == 1 and sum(one.requests for one in minutes) == 5


def test_tenants_do_not_see_each_others_requests() -> None:
    """Those of nobody's keys are for whoever runs the installation."""
    traffic = Traffic()
    for tenant_id in (1, 2, None):
        traffic.count(line(1_000, tenant_id=tenant_id))
    assert traffic.rates(1, 1_000, with_unassigned=False).recent.requests == 1
    assert traffic.rates(1, 1_000, with_unassigned=True).recent.requests == 2
    assert traffic.rates(3, 1_000, with_unassigned=False).recent.requests == 0


def test_a_flood_of_addresses_is_bounded() -> None:
    """Some are told apart, the others counted together; after some minutes addresses are forgotten, counts are not."""
    traffic = Traffic()
    for one in range(MAX_SOURCES + 100):
        traffic.count(line(1_000, source=f"10.0.{one // 250}.{one % 250}"))
    recent = traffic.rates(1, 1_000, with_unassigned=False).recent
    assert len(recent.sources) == MAX_SOURCES + 1 and recent.sources[OTHERS] == 100
    traffic.count(line(10 * MINUTE_MS))
    minutes = traffic.rates(1, 10 * MINUTE_MS, with_unassigned=False).minutes
    assert sum(one.requests for one in minutes) == MAX_SOURCES + 101
    assert sum(len(one.sources) for one in minutes) == 1


def test_what_comes_in_now_is_told_by_whole_seconds() -> None:
    """Of the last ten seconds that are over."""
    traffic = Traffic()
    for second in range(100, 120):
        for _ in range(3):
            traffic.count(line(second * 1_000))
    assert traffic.rates(1, 119_900, with_unassigned=False).per_second == 3.0
    assert traffic.rates(1, 300_000, with_unassigned=False).per_second == 0


def test_tallies_add_up() -> None:
    """Counts and names alike."""
    one, other = Tally(), Tally()
    for tally in (one, other):
        tally.count("DEVICE_EXISTS", "192.0.2.1")
    one.add(other)
    assert (one.refused["DEVICE_EXISTS"], one.sources["192.0.2.1"], one.requests) == (2, 2, 2)


# -- what is kept ---------------------------------------------------------------------------------


class Question:
    """Answers when told to; counts how often it was asked."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.open: list[Deferred[str]] = []
        self.asked = 0
        self.remembered = Remembered(self.ask, now_ms=lambda: self.now_ms, fresh_ms=5_000)

    async def ask(self, _operator: Operator) -> str:
        self.asked += 1
        self.open.append(Deferred())
        return await self.open[-1]

    def answer(self, outcome: Any) -> None:
        asked = self.open.pop(0)
        asked.errback(outcome) if isinstance(outcome, Exception) else asked.callback(outcome)


def first(question: Question, by: Operator) -> list[Any]:
    found: list[Any] = []
    Deferred.fromCoroutine(question.remembered.first(by)).addBoth(found.append)
    return found


def test_one_asks_for_all() -> None:
    """Who comes first waits, others wait with them; later ones get the last answer while one looks anew."""
    question, by = Question(), somebody()
    waiting = [first(question, by) for _ in range(200)]
    question.answer("one")
    assert question.asked == 1 and all(one == ["one"] for one in waiting)
    question.now_ms += 4_999
    assert question.remembered.known(by) == "one" and question.asked == 1
    question.now_ms += 1
    assert [question.remembered.known(by) for _ in range(50)] == ["one"] * 50 and question.asked == 2
    question.answer("two")
    assert question.remembered.known(by) == "two"


def test_what_took_long_is_kept_longer() -> None:
    """So that a reader is busy with it for 2 % of the time at most."""
    question, by = Question(), somebody()
    question.remembered.known(by)
    question.now_ms += 1_000
    question.answer("slow")
    question.now_ms += 48_000
    assert question.remembered.known(by) == "slow" and question.asked == 1
    question.now_ms += 1_001
    question.remembered.known(by)
    assert question.asked == 2


def test_a_busy_store_leaves_what_was_known() -> None:
    """And the next look asks again."""
    question, by = Question(), somebody()
    first(question, by)
    question.answer("one")
    question.now_ms += 6_000
    question.remembered.known(by)
    question.answer(Unavailable())
    assert question.remembered.known(by) == "one"
    question.now_ms += 6_000
    question.remembered.known(by)
    assert question.asked == 3


def test_a_first_answer_that_takes_long_is_not_waited_for() -> None:
    """Those who wait are let go with nothing."""
    question, by = Question(), somebody()
    found = first(question, by)
    question.remembered.let_go(by)
    assert found == [None]


def test_a_change_is_looked_at_anew() -> None:
    """A look that was under way before the change does not count."""
    question, by = Question(), somebody()
    question.remembered.known(by)
    done: list[Any] = []
    Deferred.fromCoroutine(question.remembered.anew(by)).addBoth(done.append)
    question.answer("before")
    assert done == []
    question.answer("after")
    assert done == [None] and question.remembered.known(by) == "after"


def test_a_clock_that_is_set_back_ends_what_is_kept() -> None:
    """Nothing is shown for hours because of it."""
    question, by = Question(), somebody()
    first(question, by)
    question.answer("one")
    question.now_ms -= 3_600_000
    question.remembered.known(by)
    assert question.asked == 2


# -- the funnel -----------------------------------------------------------------------------------


@pytest.fixture
def admin(sqlite_store: StoreUnderTest) -> AdminApi:
    return AdminApi(store=sqlite_store.store, api=ApiUnderTest(sqlite_store).api, jwt_key=b"j" * 64)


def counted(store: StoreUnderTest, admin: AdminApi) -> Any:
    found: list[Any] = []
    Deferred.fromCoroutine(admin.overview.counted(somebody())).addBoth(found.append)
    store.reactor.run_until(lambda: found)
    return found[0]


def test_a_fleet_is_counted_part_by_part(
    sqlite_store: StoreUnderTest, admin: AdminApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over profiles of whatever size, empty ones included, every device once."""
    monkeypatch.setattr(overview, "DEVICES_AT_ONCE", 3)
    monkeypatch.setattr(overview, "PATIENCE", 1_000)
    sizes = {"a": 7, "b": 0, "c": 3, "d": 1}
    for name, size in sizes.items():
        profile_id = sqlite_store.add_profile(name)
        for number in range(size):
            sqlite_store.add_device(f"{name}{number}", profile_id)
    found = counted(sqlite_store, admin)
    by_name = {one.place.name: one.stages.created for one in found.profiles if one.place.name in sizes}
    assert by_name == sizes and found.funnel().created == 11
    (d,) = (one.place.uuid for one in found.profiles if one.place.name == "d")
    assert found.funnel(d).created == 1


def test_a_large_fleet_is_not_waited_for(
    sqlite_store: StoreUnderTest, admin: AdminApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first view comes back with nothing, a later one with the count."""
    monkeypatch.setattr(overview, "DEVICES_AT_ONCE", 1)
    monkeypatch.setattr(overview, "PATIENCE", 2)
    profile_id = sqlite_store.add_profile()
    for number in range(9):
        sqlite_store.add_device(f"d{number}", profile_id)
    assert counted(sqlite_store, admin) is None
    sqlite_store.reactor.run_until(lambda: admin.overview._counted.known(somebody()))
    assert counted(sqlite_store, admin).funnel().created == 9


def test_low_disks_and_long_queues_are_told() -> None:
    """By their shares; what is not known is no trouble."""
    nothing = System(reasons=(), connections=[])
    assert not nothing.is_disk_low and not nothing.is_queue_long
    full = System(
        reasons=(), connections=[], queued=60, queue_limit=100, disk_free_bytes=9 * 2**30, disk_bytes=100 * 2**30
    )
    assert full.is_disk_low and full.is_queue_long
