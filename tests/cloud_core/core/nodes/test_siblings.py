"""One scrape shows all workers of a machine, whichever of them is asked."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from cloud_core.core.nodes.siblings import LIMIT_S, MAX_SAMPLES, Place, Siblings
from cloud_core.fabric.messages import encoded
from cloud_core.measures import gauge
from tests.support.joined_nodes import NodesUnderTest, NodeUnderTest
from tests.support.metrics import parsed
from tests.support.stores import StoreUnderTest

FABRIC_TAKES_BYTES = 900_000


@pytest.fixture
def nodes(sqlite_store: StoreUnderTest) -> NodesUnderTest:
    """`a` and `b` are workers of one machine, `c` of another."""
    nodes = NodesUnderTest(sqlite_store)
    for node, place in zip(nodes, (Place("s", 0, 2), Place("s", 1, 2), Place("t", 0, 2)), strict=True):
        settled(node, place)
    return nodes


def settled(node: NodeUnderTest, place: Place) -> None:
    metrics = node.api.metrics
    metrics.sources.append(lambda: [gauge("here", "What it counts.", [({"of": place.site}, place.index + 1)])])
    Siblings(place, metrics=metrics, questions=node.api.others.questions)


def scraped(node: NodeUnderTest, *, in_s: float = 0.0) -> dict[Any, float]:
    texts: list[str] = []
    Deferred.fromCoroutine(node.api.metrics.shown()).addCallback(texts.append)
    node.nodes.settle()
    if in_s:
        assert texts == []
        node.nodes.pass_time(in_s)
    (text,) = texts
    return parsed(text)


def here(found: dict[Any, float]) -> dict[str, float]:
    """By worker."""
    return {dict(labels)["worker"]: value for (name, labels), value in found.items() if name == "muster_here"}


def test_each_worker_shows_all_of_its_machine_under_their_numbers(nodes: NodesUnderTest) -> None:
    """The same whichever is asked; other machines of the cluster are not among them."""
    a, b, _ = nodes
    nodes.hub.kill("c")
    for node in (a, b):
        found = scraped(node)
        assert here(found) == {"0": 1, "1": 2}
        assert (found["muster_workers_seen", ()], found["muster_workers", ()]) == (2, 2)
        assert all(dict(labels).get("worker") for (name, labels) in found if not name.startswith("muster_workers"))


def test_a_histogram_keeps_its_buckets_for_each_worker(nodes: NodesUnderTest) -> None:
    """What is counted there comes with all its labels."""
    a, b, _ = nodes
    b.core.provision(device_name="d-1")
    found = scraped(a)
    assert found["muster_provision_seconds_bucket", (("le", "+Inf"), ("transport", "http"), ("worker", "1"))] == 1
    assert found["muster_provision_seconds_count", (("transport", "http"), ("worker", "0"))] == 0


def test_another_machine_that_is_silent_holds_no_scrape_up(nodes: NodesUnderTest) -> None:
    """All siblings are there: nothing is waited for."""
    a, _, c = nodes
    c.is_deaf_to("question")
    assert here(scraped(a)) == {"0": 1, "1": 2}


def test_a_worker_that_does_not_answer_is_left_out(nodes: NodesUnderTest) -> None:
    """After the limit, and the scrape says how many are there; the next one has all again."""
    a, b, _ = nodes
    again = b.is_deaf_to("question")
    found = scraped(a, in_s=LIMIT_S)
    assert here(found) == {"0": 1}
    assert (found["muster_workers_seen", ()], found["muster_workers", ()]) == (1, 2)
    again()
    assert here(scraped(a)) == {"0": 1, "1": 2}


def test_a_worker_without_the_fabric_shows_itself_at_once(nodes: NodesUnderTest) -> None:
    """Nobody can be asked, so nothing is waited for."""
    a, b, _ = nodes
    nodes.hub.cut("a")
    found = scraped(a)
    assert (here(found), found["muster_workers_seen", ()]) == ({"0": 1}, 1)
    found = scraped(b)
    assert (here(found), found["muster_workers_seen", ()]) == ({"1": 2}, 1)


@pytest.mark.parametrize(
    "body", ["text", [], [1], [1, [["only", "three", "members"]]], [9, []], [-1, []], [1, [["n", "gauge", "t", {}]]]]
)
def test_what_is_no_answer_is_as_none(nodes: NodesUnderTest, body: Any) -> None:
    """Another version's worker, or one of a number that there is not, breaks no scrape."""
    a, b, _ = nodes
    b.api.others.questions.answer("metrics", lambda _: body)
    found = scraped(a)
    assert (here(found), found["muster_workers_seen", ()]) == ({"0": 1}, 1)


def test_an_answer_fits_a_message(nodes: NodesUnderTest) -> None:
    """However much a worker counted: what is above the bound is not told."""
    a, b, _ = nodes
    heard: list[Any] = []
    a.fabric.by_kind["reply-to-question"], known = (
        lambda sender, body: (heard.append(body), known(sender, body)),
        a.fabric.by_kind["reply-to-question"],
    )
    many = [({"label": "x" * 40, "number": str(number)}, number) for number in range(MAX_SAMPLES)]
    b.api.metrics.sources.append(lambda: [gauge("many", "Too many.", many)])
    assert here(scraped(a)) == {"0": 1, "1": 2}
    assert heard and all(len(encoded(body)) < FABRIC_TAKES_BYTES for body in heard)
    few = [({"label": "x" * 40, "number": str(number)}, number) for number in range(MAX_SAMPLES - 1_000)]
    b.api.metrics.sources[-1] = lambda: [gauge("many", "As many as there may be.", few)]
    found = scraped(a)
    assert sum(name == "muster_many" for name, _ in found) == len(few)
    assert all(len(encoded(body)) < FABRIC_TAKES_BYTES for body in heard)


def test_one_process_alone_shows_no_worker(sqlite_store: StoreUnderTest) -> None:
    """As before: no label, no number of workers."""
    (alone,) = NodesUnderTest(sqlite_store, names=("a",))
    found = scraped(alone)
    assert found
    assert not any("worker" in dict(labels) or "workers" in name for name, labels in found)
