"""Where devices are connected and how all nodes fare, as people see it at any node."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

import pytest
from twisted.internet.defer import Deferred

from cloud_core.core.downlinks import Interest, Link, Whereabouts
from cloud_core.core.events import FLUSH_S
from cloud_core.core.nodes.whereabouts import LIMIT_S, Links, Reach
from cloud_core.core.system_view import Connection, SystemView
from cloud_core.measures import gauge
from cloud_core.model import Identity, Role
from cloud_core.storage.interface import NewDevice
from tests.support.downlinks import RecordingDownlink
from tests.support.gateways import RecordingLink
from tests.support.http import HttpPeer
from tests.support.joined_nodes import NodesUnderTest, NodeUnderTest
from tests.support.rest import ADMINISTRATOR
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Browser, somebody

GATEWAY = UUID(int=77)
SILENT = "not answered in time"


class Session(RecordingDownlink):
    """One that says where it leads."""

    whereabouts = Whereabouts("MQTT", "192.0.2.7")


@pytest.fixture
def nodes(sqlite_store: StoreUnderTest) -> NodesUnderTest:
    return NodesUnderTest(sqlite_store)


def ask(nodes: NodesUnderTest, coroutine: Coroutine[Any, Any, Any], *, in_s: float = 0.0) -> Any:
    answers: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallback(answers.append)
    nodes.settle()
    if in_s:
        assert answers == []
        nodes.pass_time(in_s)
    (answer,) = answers
    return answer


def connect(node: NodeUnderTest, peer: str, interest: Interest = Interest.COMMANDS) -> Session:
    session = Session(node.api.downlinks, node.nodes.device_id)
    session.whereabouts = Whereabouts("MQTT", peer)
    node.api.downlinks.open(node.nodes.device_id, session, interest)
    return session


def view_of(node: NodeUnderTest, connections: int, *, memory: int = 0, queued: int = 0) -> SystemView:
    """How the node fares: what its parts would tell `/metrics`."""
    api = node.api
    api.metrics.sources.append(
        lambda: [
            gauge("mqtt_connections", "", [((), connections)]),
            gauge("process_resident_memory_bytes", "", [((), memory)]),
            gauge("store_queue_units", "", [((), queued)]),
        ]
    )
    view = SystemView(metrics=api.metrics, health=api.health, now_ms=api.now_ms)
    api.others.whereabouts.serve(view)
    return view


def test_links_of_all_nodes_are_shown_at_each(nodes: NodesUnderTest) -> None:
    """The asked node's first; also those that hear nothing. One that closes is gone."""
    a, b, c = nodes
    connect(b, "192.0.2.2", Interest.NOTHING)
    last = connect(c, "192.0.2.3", Interest.COMMANDS | Interest.ATTRIBUTES)
    connect(a, "192.0.2.1")
    expected = [
        Link(Whereabouts("MQTT", "192.0.2.1"), Interest.COMMANDS),
        Link(Whereabouts("MQTT", "192.0.2.2"), Interest.NOTHING),
        Link(Whereabouts("MQTT", "192.0.2.3"), Interest.COMMANDS | Interest.ATTRIBUTES),
    ]
    assert ask(nodes, a.api.others.whereabouts.links(nodes.device_id)) == Links(expected, 0)
    last.close()
    assert ask(nodes, b.api.others.whereabouts.links(nodes.device_id)).links == [expected[1], expected[0]]
    assert ask(nodes, b.api.others.whereabouts.links(nodes.device_id + 1)) == Links([], 0)


def test_a_node_that_does_not_answer_in_time_is_marked(nodes: NodesUnderTest) -> None:
    """The others' links are shown after 300 ms; one that has left is not waited for, or marked."""
    a, b, c = nodes
    connect(b, "192.0.2.2")
    again = c.is_deaf_to("question")
    found = ask(nodes, a.api.others.whereabouts.links(nodes.device_id), in_s=LIMIT_S)
    assert (len(found.links), found.silent) == (1, 1)
    nodes.hub.kill("c")
    found = ask(nodes, a.api.others.whereabouts.links(nodes.device_id))
    assert (len(found.links), found.silent) == (1, 0)
    again()


def test_whether_a_device_takes_commands_is_asked_of_others_where_it_is_not_here(nodes: NodesUnderTest) -> None:
    """Nobody is asked about one that is."""
    a, b, c = nodes
    assert ask(nodes, a.api.others.whereabouts.reach(nodes.device_id)) == Reach(False, 0)
    session = connect(b, "192.0.2.2", Interest.ATTRIBUTES)
    assert ask(nodes, a.api.others.whereabouts.reach(nodes.device_id)) == Reach(False, 0)
    b.api.downlinks.open(nodes.device_id, session, Interest.COMMANDS)
    assert ask(nodes, a.api.others.whereabouts.reach(nodes.device_id)) == Reach(True, 0)
    questions = c.hears("question")
    assert ask(nodes, b.api.others.whereabouts.reach(nodes.device_id)) == Reach(True, 0) and questions == []
    b.is_deaf_to("question")
    assert ask(nodes, a.api.others.whereabouts.reach(nodes.device_id), in_s=LIMIT_S) == Reach(False, 1)


def test_numbers_of_all_nodes_are_added_up(nodes: NodesUnderTest) -> None:
    """Connections, what waits, memory; what is wrong anywhere is said."""
    a, b, c = nodes
    view = view_of(a, 7, memory=100, queued=1)
    view_of(b, 5, memory=50, queued=2), view_of(c, 1, queued=4)
    a.api.health.is_started = True
    here = view.now()
    found = ask(nodes, a.api.others.whereabouts.system(view))
    assert (here.node_count, here.connections) == (1, [Connection("MQTT connections", 7)])
    assert found.connections == [Connection("MQTT connections", 13)]
    assert (found.memory_bytes, found.queued, found.node_count, found.silent_count) == (150, 7, 3, 0)
    assert set(found.reasons) == {*a.api.health.reasons(), *b.api.health.reasons()}
    c.is_deaf_to("question")
    found = ask(nodes, a.api.others.whereabouts.system(view), in_s=LIMIT_S)
    assert (found.connections[0].total, found.node_count, found.silent_count) == (12, 2, 1)


@pytest.mark.parametrize("answer", [None, 5, "x", [], [["MQTT"]], [[1, 2, 3]], {"connections": 1}, [{"MQTT": "x"}]])
def test_an_answer_that_is_not_understood_adds_nothing(nodes: NodesUnderTest, answer: Any) -> None:
    """Whatever a node of another version says, the page is shown."""
    a, b, c = nodes
    view = view_of(a, 7)
    for node in (b, c):
        node.fabric.by_kind["question"] = lambda _, body, fabric=node.fabric: fabric.tell(
            "a", "reply-to-question", [body[0], answer]
        )
    assert ask(nodes, a.api.others.whereabouts.links(nodes.device_id)) == Links([], 0)
    assert ask(nodes, a.api.others.whereabouts.reach(nodes.device_id)).silent == 0
    assert ask(nodes, a.api.others.whereabouts.system(view)).connections == [Connection("MQTT connections", 7)]


def test_interests_of_a_later_version_are_passed_over(nodes: NodesUnderTest) -> None:
    """What is known of them is shown."""
    a, b, _ = nodes
    b.api.others.questions.answer("links", lambda _: [["QUIC", "x", 3 + 64, "more"]])
    (link,) = ask(nodes, a.api.others.whereabouts.links(nodes.device_id)).links
    assert link == Link(Whereabouts("QUIC", "x"), Interest.COMMANDS | Interest.ATTRIBUTES)


# -- pages --------------------------------------------------------------------------------------------------


class Window(Browser):
    """Pages of one node. `wait_s`: how much time passes until they are there."""

    def __init__(self, node: NodeUnderTest) -> None:
        self.node = node
        self.wait_s = 0.0
        HttpPeer.__init__(self, node.core)
        self.log_in_as(somebody())

    def settle(self) -> None:
        super().settle()
        self.node.nodes.settle()  # what has been asked is answered before time passes
        self.node.nodes.pass_time(self.wait_s)
        super().settle()


def test_the_pages_of_a_device_show_connections_of_all_nodes(nodes: NodesUnderTest) -> None:
    """Facts and commands; both say when a node has not answered."""
    a, b, c = nodes
    uuid = nodes.store.read(lambda tx: tx.device_by_id(nodes.device_id)).uuid
    window = Window(a)
    session = connect(b, "192.0.2.2")
    facts, commands = window.open(f"/ui/devices/{uuid}"), window.open(f"/ui/devices/{uuid}/commands")
    assert "192.0.2.2" in facts.text and SILENT not in facts.text
    assert "takes commands now" in commands.text and SILENT not in commands.text
    session.close()
    c.is_deaf_to("question")
    window.wait_s = LIMIT_S
    facts, commands = window.open(f"/ui/devices/{uuid}"), window.open(f"/ui/devices/{uuid}/commands")
    assert SILENT in facts.text and "Nothing is open now" not in facts.text
    assert "takes no commands now" in commands.text and SILENT in commands.text


def test_the_overview_shows_numbers_of_all_nodes(nodes: NodesUnderTest) -> None:
    """And how many nodes they are of; alone it says nothing of nodes."""
    a, b, c = nodes
    windows = [Window(one) for one in nodes]
    for node, count in ((a, 700), (b, 50), (c, 1)):
        view_of(node, count)
    words = windows[0].open("/ui/").words
    assert "MQTT connections 751" in words and "Nodes 3" in words and SILENT not in words
    c.is_deaf_to("question")
    windows[0].wait_s = LIMIT_S
    nodes.pass_time(60)
    words = windows[0].open("/ui/overview/live").words
    assert "MQTT connections 750" in words and "1 node has not answered in time" in words
    nodes.hub.kill("b")
    nodes.hub.kill("c")
    nodes.pass_time(60)
    words = windows[0].open("/ui/overview/live").words
    assert "MQTT connections 700" in words and "Nodes" not in words and SILENT not in words


def test_a_gateways_page_shows_its_connection_at_another_node(nodes: NodesUnderTest) -> None:
    """With what happened to its session, wherever that was."""
    a, b, c = nodes
    profile_id = nodes.store.read(lambda tx: tx.device_by_id(nodes.device_id)).profile_id
    device_id = nodes.store.run(
        lambda tx: tx.insert_device(
            NewDevice(uuid=GATEWAY, tenant_id=TENANT, profile_id=profile_id, name="GW", created_ms=1, is_gateway=True)
        )
    )
    identity = Identity(Role.GATEWAY, TENANT, device_id, GATEWAY, "GW", profile_id)
    b.api.gateways.open(identity, RecordingLink())
    b.api.presence.connected(device_id)
    b.api.presence.flush()
    session = Session(b.api.downlinks, device_id)
    b.api.downlinks.open(device_id, session, Interest.COMMANDS)
    nodes.pass_time(FLUSH_S)
    window = Window(a)
    words = window.open(f"/ui/gateways/{GATEWAY}").words
    assert "192.0.2.7" in words and SILENT not in words
    assert [one.data["connected"] for one in a.api.events.recent(ADMINISTRATOR, "gateway", 9)] == [True]
    c.is_deaf_to("question")
    window.wait_s = LIMIT_S
    assert SILENT in window.open(f"/ui/gateways/{GATEWAY}").text


def test_connections_over_rest(nodes: NodesUnderTest) -> None:
    """Of all nodes, with what each wants to hear, and how many nodes have not said."""
    a, b, c = nodes
    uuid = nodes.store.read(lambda tx: tx.device_by_id(nodes.device_id)).uuid
    connect(b, "192.0.2.2")
    a.downlink()  # it does not say where it leads
    connect(c, "", Interest.ATTRIBUTES)
    window = Window(a)
    token = window.cookies["muster_token"]

    def connections() -> Any:
        return json.loads(window.open(f"/api/device/{uuid}/connections", f"X-Authorization: Bearer {token}\r\n").text)

    assert connections() == {
        "connections": [
            {"transport": "MQTT", "peer": "192.0.2.2", "commands": True, "attributes": False},
            {"transport": "MQTT", "peer": None, "commands": False, "attributes": True},
        ],
        "silentNodes": 0,
    }
    c.is_deaf_to("question")
    window.wait_s = LIMIT_S
    assert (len(connections()["connections"]), connections()["silentNodes"]) == (1, 1)
