"""Live events and request rates of several nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from twisted.logger import globalLogPublisher

from cloud_core.core.events import FLUSH_S, GAP, KEPT, MAX_AT_ONCE, Events
from cloud_core.core.nodes.news import EVENTS_PART
from cloud_core.core.people.logins import Operator
from cloud_core.core.traffic import MAX_SOURCES, OTHERS
from cloud_core.model import Attempt, Peer, Transport
from tests.support.api import PEER
from tests.support.joined_nodes import NodesUnderTest, NodeUnderTest
from tests.support.rest import ADMINISTRATOR
from tests.support.stores import TENANT, StoreUnderTest

OTHER = replace(ADMINISTRATOR, tenant_id=TENANT + 1, tenant_uuid=UUID(int=8), user_uuid=UUID(int=9))


@pytest.fixture
def nodes(sqlite_store: StoreUnderTest) -> NodesUnderTest:
    return NodesUnderTest(sqlite_store)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    found: list[str] = []

    def observer(event: Any) -> None:
        if event.get("log_level") is not None and event["log_level"].name == "warn":
            found.append(str(event.get("log_format", "")))

    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


def listen(node: NodeUnderTest, who: Operator = ADMINISTRATOR, last_id: str = "") -> tuple[Any, list[bool]]:
    woken: list[bool] = []
    return node.api.events.listen(who, last_id, lambda: woken.append(True), lambda: None), woken


def kinds(node: NodeUnderTest, listener: Any) -> list[str]:
    return [one.kind for one in node.api.events.take(listener)]


def line(now_s: float, outcome: str = "SUCCESS", source: str = "192.0.2.1", tenant_id: int | None = TENANT) -> Attempt:
    return Attempt(
        ref="", at_ms=int(now_s * 1000), peer=Peer(Transport.MQTT, source), outcome=outcome, stage="",
        tenant_id=tenant_id,
    )  # fmt: skip


def flushed(nodes: NodesUnderTest) -> None:
    """What was published is told, and those who listen elsewhere are woken."""
    nodes.pass_time(FLUSH_S)
    nodes.pass_time(FLUSH_S)


def test_events_are_told_at_every_node(nodes: NodesUnderTest) -> None:
    """In their order, with the time and the data that they had; whoever listens there is woken."""
    a, b, c = nodes
    listeners = [listen(one) for one in nodes]
    for number in range(3):
        a.api.events.publish(TENANT, "gateway", {"number": number, "name": "ä", "open": True, "ref": None})
    b.api.events.publish(TENANT, "audit", {})
    flushed(nodes)
    assert all(woken for _, woken in listeners)
    assert kinds(a, listeners[0][0]) == ["gateway"] * 3 + ["audit"]
    for node, (listener, _) in zip((b, c), listeners[1:], strict=True):
        assert sorted(kinds(node, listener)) == ["audit", "gateway", "gateway", "gateway"]
    mine, theirs = (one.api.events.recent(ADMINISTRATOR, "gateway", 9) for one in (a, c))
    assert [(one.data, one.at_ms) for one in mine] == [(one.data, one.at_ms) for one in theirs]


def test_a_provision_request_at_one_node_is_seen_at_the_others(nodes: NodesUnderTest) -> None:
    """As an event, and in the rates."""
    a, b, _ = nodes
    nodes.store.add_profile("p")
    listener, _ = listen(b)
    a.core.provision(PEER, provision_key="p-key", provision_secret="p-secret", device_name="SN-1")
    flushed(nodes)
    told = b.api.events.take(listener)
    assert [one.kind for one in told] == ["attempt", "deviceCreated"]
    assert told[0].data["deviceName"] == "SN-1" and "p-secret" not in repr([one.data for one in told])
    now_ms = b.api.now_ms()
    assert b.api.events.traffic.rates(TENANT, now_ms, with_unassigned=False).minutes[-1].granted == 1


def test_nobody_hears_at_another_node_what_is_not_of_his_tenant(nodes: NodesUnderTest) -> None:
    """The same rule as at the node where it happened."""
    a, b, _ = nodes
    mine, _ = listen(b)
    theirs, _ = listen(b, OTHER)
    for tenant_id, kind in ((TENANT, "a"), (TENANT + 1, "b"), (None, "c")):
        a.api.events.publish(tenant_id, kind, {})
        a.api.events.logged(line(nodes.now_s, tenant_id=tenant_id))
    flushed(nodes)
    assert (kinds(b, mine), kinds(b, theirs)) == (["a", "attempt", "c", "attempt"], ["b", "attempt"])
    rates = b.api.events.traffic.rates
    assert rates(TENANT + 1, b.api.now_ms(), with_unassigned=False).recent.requests == 1
    assert rates(TENANT, b.api.now_ms(), with_unassigned=True).recent.requests == 2
    assert b.api.events.recent(OTHER, "a", 9) == []


def test_rationed_attempts_are_counted_everywhere_and_told_nowhere(nodes: NodesUnderTest) -> None:
    """Whoever is refused in masses pushes nothing out of anybody's buffer."""
    a, b, _ = nodes
    heard = b.hears("events")
    for _ in range(500):
        a.api.events.logged(line(nodes.now_s, "RATE_LIMITED"))
    flushed(nodes)
    assert heard == []
    rates = b.api.events.traffic.rates(TENANT, b.api.now_ms(), with_unassigned=False)
    assert rates.recent.refused == {"RATE_LIMITED": 500}


def test_what_is_told_is_bounded(nodes: NodesUnderTest) -> None:
    """The newest of each flush in parts; that others were left out is heard as a gap, and then it goes on."""
    a, b, _ = nodes
    heard = b.hears("events")
    listener, _ = listen(b)
    for number in range(5 * MAX_AT_ONCE):
        a.api.events.publish(TENANT, "attempt", {"number": number})
    flushed(nodes)
    assert [len(body[1]) for _, body in heard] == [EVENTS_PART] * (MAX_AT_ONCE // EVENTS_PART)
    assert kinds(b, listener) == [GAP]
    (last,) = b.api.events.recent(ADMINISTRATOR, "attempt", 1)
    assert last.data == {"number": 5 * MAX_AT_ONCE - 1}
    a.api.events.publish(TENANT, "one more", {})
    flushed(nodes)
    assert kinds(b, listener) == ["one more"]


def test_who_lost_its_connection_goes_on_at_the_same_node(nodes: NodesUnderTest) -> None:
    """Over events of all nodes; at another node it hears of a gap, for that has numbers of its own."""
    a, b, c = nodes
    listener, _ = listen(b)
    a.api.events.publish(TENANT, "one", {})
    flushed(nodes)
    (seen,) = b.api.events.take(listener)
    last_id = b.api.events.id_of(seen)
    c.api.events.publish(TENANT, "two", {})
    b.api.events.publish(TENANT, "three", {})
    flushed(nodes)
    again, _ = listen(b, last_id=last_id)
    assert kinds(b, again) == ["three", "two"]
    elsewhere, _ = listen(a, last_id=last_id)
    assert kinds(a, elsewhere) == [GAP]


def test_nothing_is_told_twice_or_told_on(nodes: NodesUnderTest) -> None:
    """What comes from another node stays here."""
    a, b, c = nodes
    heard = {one: one.hears("events") for one in nodes}
    a.api.events.publish(TENANT, "a", {})
    for _ in range(5):
        flushed(nodes)
    assert (len(heard[a]), len(heard[b]), len(heard[c])) == (0, 1, 1)
    assert not nodes.clock.getDelayedCalls()


def test_rates_are_those_of_all_nodes(nodes: NodesUnderTest) -> None:
    """Minutes, sources and what comes in now; of an hour."""
    a, b, c = nodes
    for node, source in ((a, "192.0.2.1"), (b, "192.0.2.2"), (c, "192.0.2.2")):
        for outcome in ("SUCCESS", "APPROVAL_PENDING", "DEVICE_EXISTS"):
            node.api.events.logged(line(nodes.now_s, outcome, source))
    nodes.pass_time(1)
    flushed(nodes)
    for node in nodes:
        rates = node.api.events.traffic.rates(TENANT, node.api.now_ms(), with_unassigned=False)
        assert (rates.recent.granted, rates.recent.waiting, rates.recent.refusals) == (3, 3, 3)
        assert rates.recent.sources == {"192.0.2.1": 3, "192.0.2.2": 6} and rates.per_second == 0.9


def test_who_joins_is_told_the_last_hour(sqlite_store: StoreUnderTest) -> None:
    """And a node that was cut off counts nothing twice when it is back."""
    nodes = NodesUnderTest(sqlite_store)
    a, b, c = nodes

    def counted(node: NodeUnderTest) -> list[int]:
        minutes = node.api.events.traffic.rates(TENANT, node.api.now_ms(), with_unassigned=False).minutes
        return [one.requests for one in minutes if one.requests]

    a.api.events.logged(line(nodes.now_s))
    flushed(nodes)
    nodes.hub.cut("c")
    nodes.pass_time(120)
    for node in nodes:
        node.api.events.logged(line(nodes.now_s))
    flushed(nodes)
    assert [counted(one) for one in nodes] == [[1, 2], [1, 2], [1, 1]]
    c.api.events.logged(line(nodes.now_s))
    nodes.hub.heal("c")
    flushed(nodes)
    assert [counted(one) for one in nodes] == [[1, 4], [1, 4], [1, 4]]
    nodes.pass_time(3_700)
    nodes.hub.kill("a")
    assert [one.api.events.traffic._elsewhere for one in (b, c)] == [{}, {}]


def test_what_was_missed_is_a_gap(nodes: NodesUnderTest) -> None:
    """Whoever listens at a node that was cut off reads the lists when it is back."""
    a, b, _ = nodes
    listener, _ = listen(b)
    a.api.events.publish(TENANT, "a", {})
    flushed(nodes)
    nodes.hub.cut("b")
    a.api.events.publish(TENANT, "missed", {})
    flushed(nodes)
    assert kinds(b, listener) == ["a"]
    nodes.hub.heal("b")
    flushed(nodes)
    assert kinds(b, listener) == [GAP]
    a.api.events.publish(TENANT, "b", {})
    flushed(nodes)
    assert kinds(b, listener) == ["b"]


def test_a_gap_among_few_events_repeats_none() -> None:
    """However few there are behind it and before it."""
    events = Events()
    early = events.listen(ADMINISTRATOR, "", lambda: None, lambda: None)
    for kind in ("a", "b"):
        events.publish(TENANT, kind, {})
    assert [one.kind for one in events.take(early)] == ["a", "b"]
    events.heard([], 1)
    late = events.listen(ADMINISTRATOR, "", lambda: None, lambda: None)
    events.publish(TENANT, "c", {})
    assert [one.kind for one in events.take(early)] == [GAP]
    assert [one.kind for one in events.take(late)] == ["c"]
    for _ in range(KEPT):
        events.publish(TENANT, "d", {})
    events.take(early)
    events.heard([], 5 * KEPT)
    events.publish(TENANT, "e", {})
    assert [one.kind for one in events.take(early)] == [GAP]


def test_a_flood_of_addresses_at_another_node_is_a_flood_here(nodes: NodesUnderTest) -> None:
    """Not more addresses than one node would list, whatever it is told."""
    a, b, _ = nodes
    for number in range(MAX_SOURCES + 50):
        a.api.events.logged(line(nodes.now_s, source=f"s{number}"))
    flushed(nodes)
    sources = b.api.events.traffic.rates(TENANT, b.api.now_ms(), with_unassigned=False).recent.sources
    assert sources.total() == MAX_SOURCES + 50 and sources[OTHERS] == 50
    told = [TENANT, b.api.now_ms() // 1000, 0, 0, {}, {f"t{number}": 1 for number in range(2 * MAX_SOURCES)}]
    a.fabric.tell("b", "traffic", [[told]])
    nodes.settle()
    sources = b.api.events.traffic.rates(TENANT, b.api.now_ms(), with_unassigned=False).recent.sources
    assert len(sources) <= MAX_SOURCES + 1


@pytest.mark.parametrize("kind", ["events", "traffic"])
@pytest.mark.parametrize(
    "body",
    [None, 1, "x", [], [0, [["gateway", "one", {}, 5]]], [0, [["gateway", 1, {"a": {"b": 1}}, 5]]], [[[1]]], {"a": 1}],
)
def test_nonsense_is_ignored_and_logged_once(nodes: NodesUnderTest, warnings: list[str], kind: str, body: Any) -> None:
    """A node of another version may say what it likes."""
    a, b, _ = nodes
    listener, _ = listen(b)
    for _ in range(3):
        a.fabric.tell("b", kind, body)
    nodes.settle()
    assert len(warnings) == 1 and kinds(b, listener) == []
    a.api.events.publish(TENANT, "fine", {})
    flushed(nodes)
    assert kinds(b, listener) == ["fine"]


def test_alone_nothing_is_gathered(nodes: NodesUnderTest) -> None:
    """Neither events nor counts."""
    for name in ("b", "c"):
        nodes.hub.kill(name)
    events = nodes.nodes[0].api.events
    events.publish(TENANT, "a", {})
    events.logged(line(nodes.now_s))
    assert (list(events.untold), events.untold_count, events.traffic.take_noted()) == ([], 0, {})
    assert not nodes.clock.getDelayedCalls()
