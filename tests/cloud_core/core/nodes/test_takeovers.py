"""Sessions of one device at several nodes: who came last has it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from cloud_core.core.nodes import takeovers as takeovers_module
from cloud_core.core.nodes.takeovers import FLUSH_S, NEAR_MS, PART_OF_ALL, Held
from cloud_core.model import Identity, Role
from shared.mqtt.packets import Disconnect
from tests.support.gateways import RecordingLink
from tests.support.joined_nodes import NodesUnderTest
from tests.support.mqtt import MqttPeer, MqttServer
from tests.support.stores import TENANT, StoreUnderTest


class Brokers:
    """The nodes, each with its MQTT."""

    def __init__(self, store: StoreUnderTest, **options: Any) -> None:
        self.nodes = NodesUnderTest(store)
        self.servers = [MqttServer(one.core) for one in self.nodes]
        for server in self.servers if options else ():
            server.give_profile(**options)
        self.peers: list[MqttPeer] = []

    def log_in(self, at: int, **members: Any) -> MqttPeer:
        peer = self.servers[at].log_in(token="token-dev", **members)
        self.peers.append(peer)
        return peer

    def told(self) -> None:
        self.nodes.pass_time(FLUSH_S)

    @property
    def living(self) -> list[int]:
        """Which of the peers, in the order of their logins."""
        return [at for at, peer in enumerate(self.peers) if not peer.is_closed]

    def presence(self, at: int) -> Any:
        """As it is on disk once the node has written it."""
        self.nodes.nodes[at].api.presence.flush()
        self.nodes.settle()
        return self.nodes.store.read(lambda tx: tx.presence(self.nodes.device_id))


@pytest.fixture
def brokers(sqlite_store: StoreUnderTest) -> Brokers:
    return Brokers(sqlite_store)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    found: list[str] = []

    def observer(event: Any) -> None:
        if event.get("log_level") is not None and event["log_level"].name == "warn":
            found.append(str(event.get("log_format", "")))

    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


def test_a_session_at_another_node_replaces_the_one_here(brokers: Brokers) -> None:
    """Two milliseconds later; a 5.0 client is told why (C4)."""
    first = brokers.log_in(0, version=5)
    brokers.nodes.pass_time(60)
    brokers.log_in(1)
    assert brokers.living == [0, 1]
    brokers.told()
    assert brokers.living == [1] and first.received() == [Disconnect(0x8E)]
    brokers.nodes.pass_time(60)
    brokers.log_in(2)
    brokers.told()
    assert brokers.living == [2]


def test_who_is_taken_over_is_not_called_gone(brokers: Brokers) -> None:
    """The node that lost the session writes nothing; the one that has it says when it ends."""
    brokers.log_in(0)
    brokers.nodes.pass_time(60)
    second = brokers.log_in(1)
    brokers.told()
    connected = brokers.presence(1)
    for at in (0, 1, 2):
        assert brokers.presence(at).last_disconnect_ms == 0
    brokers.nodes.nodes[0].api.presence.stop()
    assert brokers.presence(0).last_disconnect_ms == 0
    brokers.nodes.pass_time(1)
    second.send(Disconnect())
    assert brokers.presence(1).last_disconnect_ms > connected.last_connect_ms > 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("skew_s", [0.0, -1.5, 1.5, -3_600.0, 3_600.0])
def test_the_last_one_stays_whatever_the_clocks_say(
    sqlite_store: StoreUnderTest, order: tuple[int, ...], skew_s: float
) -> None:
    """Ages are compared, not times: a node whose clock is wrong takes over and is taken over like any other."""
    brokers = Brokers(sqlite_store)
    brokers.nodes.nodes[1].skew_s = skew_s
    for at in order:
        brokers.log_in(at)
        brokers.told()
        brokers.nodes.pass_time(NEAR_MS / 1000 + 1)
    assert brokers.living == [2]


@pytest.mark.parametrize("delay_s", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("skew_s", [0.0, -1.0, 1.0])
@pytest.mark.parametrize("apart_s", [0.0, 0.001, 0.3])
def test_of_connections_at_the_same_moment_one_stays(
    sqlite_store: StoreUnderTest, delay_s: float, skew_s: float, apart_s: float
) -> None:
    """At all three nodes, before any has heard of the others, however long the messages take."""
    brokers = Brokers(sqlite_store)
    brokers.nodes.delay_s = delay_s
    brokers.nodes.nodes[1].skew_s = skew_s
    for at in range(3):
        brokers.log_in(at)
        brokers.nodes.now_s += apart_s
    brokers.told()
    for _ in range(5):
        brokers.nodes.pass_time(1.0)
    assert len(brokers.living) == 1
    if not skew_s:
        assert brokers.living == [2]  # the newest, or the last name of the alphabet


def test_two_devices_that_swap_their_nodes_at_once_both_stay(brokers: Brokers) -> None:
    """Each leaves one session behind and keeps the other; nobody closes what is newer, now or later."""
    store, nodes = brokers.nodes.store, brokers.nodes
    store.add_device("dev2", store.read(lambda tx: tx.device_by_id(nodes.device_id)).profile_id)

    def log_in(at: int, token: str) -> MqttPeer:
        return brokers.servers[at].log_in(token=token)

    old = [log_in(0, "token-dev"), log_in(1, "token-dev2")]
    nodes.pass_time(60)
    new = [log_in(1, "token-dev"), log_in(0, "token-dev2")]
    for _ in range(10):
        nodes.pass_time(1)
    assert [one.is_closed for one in (*old, *new)] == [True, True, False, False]


def test_a_device_that_hurries_from_node_to_node_ends_with_its_last_session(brokers: Brokers) -> None:
    """Before the others have been told of the one before."""
    for at in (0, 1, 0, 2, 1):
        brokers.log_in(at)
        brokers.nodes.now_s += 0.001
    brokers.told()
    assert brokers.living == [4]


@pytest.mark.parametrize("most", [2, 3])
def test_as_many_sessions_stay_as_the_profile_allows(sqlite_store: StoreUnderTest, most: int) -> None:
    """Over all nodes together, the newest ones: each node tells what it has when it hears of another."""
    brokers = Brokers(sqlite_store, max_sessions=most)
    for number, at in enumerate((0, 1, 2, 0, 0, 1, 2, 2, 1)):
        brokers.log_in(at)
        for _ in range(3):
            brokers.told()
        brokers.nodes.pass_time(5)
        assert brokers.living == list(range(max(0, number + 1 - most), number + 1))
    brokers.nodes.pass_time(60)
    assert brokers.nodes.nodes[0].api.others.takeovers._notes == {}


def test_what_has_been_settled_is_not_told_for_ever(brokers: Brokers) -> None:
    """An answer is not answered."""
    told = [one.hears("opened") for one in brokers.nodes]
    for at in (0, 1, 2):
        brokers.log_in(at)
    for _ in range(20):
        brokers.told()
    assert all(len(one) <= 4 for one in told)


def test_several_sessions_at_the_same_moment_are_not_too_few(sqlite_store: StoreUnderTest) -> None:
    """Where two may live, two of three stay."""
    brokers = Brokers(sqlite_store, max_sessions=2)
    for at in (0, 1, 2):
        brokers.log_in(at)
    brokers.told()
    brokers.nodes.pass_time(1)
    assert brokers.living == [1, 2]


def test_a_storm_of_logins_is_one_message(brokers: Brokers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What opens within two milliseconds is told together, in parts that a message can hold."""
    monkeypatch.setattr(takeovers_module, "PART", 3)
    store, nodes = brokers.nodes.store, brokers.nodes
    profile_id = store.read(lambda tx: tx.device_by_id(nodes.device_id)).profile_id
    told = nodes.nodes[1].hears("opened")
    for number in range(5):
        store.add_device(f"d{number}", profile_id)
        brokers.servers[0].log_in(token=f"token-d{number}")
    brokers.told()
    assert [len(body[1]) for _, body in told] == [3, 2]


def test_sessions_of_a_time_in_which_a_node_was_cut_off_are_told_afterwards(brokers: Brokers) -> None:
    """The newer one stays, on whichever side it is."""
    store, nodes = brokers.nodes.store, brokers.nodes
    profile_id = store.read(lambda tx: tx.device_by_id(nodes.device_id)).profile_id
    for name in ("left", "came"):
        store.add_device(name, profile_id)
    left = [brokers.servers[0].log_in(token="token-left")]
    came = [brokers.servers[1].log_in(token="token-came")]
    nodes.pass_time(600)
    nodes.hub.cut("a")
    nodes.pass_time(600)
    left.append(brokers.servers[1].log_in(token="token-left"))
    came.append(brokers.servers[0].log_in(token="token-came"))
    nodes.pass_time(600)
    assert [one.is_closed for one in (*left, *came)] == [False] * 4
    nodes.hub.heal("a")
    nodes.settle()
    assert [one.is_closed for one in (*left, *came)] == [True, False, True, False]


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
def test_sessions_from_before_the_first_other_node_was_met_are_told(
    sqlite_store: StoreUnderTest, order: tuple[str, ...]
) -> None:
    """A node that starts while the fabric is away has the same devices as others, for a while."""
    brokers = Brokers(sqlite_store)
    nodes = brokers.nodes
    for name in ("a", "b", "c"):
        nodes.hub.cut(name)
    for one in nodes:
        one.api.others.takeovers._left.clear()
        one.api.others.takeovers._met_ms = None
    for at in range(3):
        brokers.log_in(at)
        nodes.pass_time(600)
    assert brokers.living == [0, 1, 2]
    for name in order:
        nodes.hub.heal(name)
        brokers.told()
        nodes.pass_time(100)
    assert brokers.living == [2]


def test_what_was_missed_is_asked_for(brokers: Brokers) -> None:
    """A node that hears that it may have missed something asks what was opened; at most once in ten seconds."""
    a = brokers.nodes.nodes[0]
    brokers.log_in(0)
    again = a.is_deaf_to("opened")
    brokers.nodes.pass_time(5)
    brokers.log_in(1)
    brokers.told()
    again()
    assert brokers.living == [0, 1]
    asked = brokers.nodes.nodes[1].hears("opened-lately")
    for _ in range(20):
        a.fabric.say_back()
        brokers.nodes.pass_time(0.1)
        brokers.nodes.settle()
    assert brokers.living == [1] and len(asked) == 1
    brokers.nodes.pass_time(60)
    assert len(asked) == 2 and not a.api.others.takeovers._is_asking


def test_a_node_that_dies_takes_nothing_along(brokers: Brokers) -> None:
    """What it had told just before counts; sessions elsewhere stay."""
    brokers.log_in(0)
    brokers.nodes.pass_time(60)
    brokers.nodes.hub.kill("b")
    brokers.nodes.pass_time(60)
    assert brokers.living == [0]
    brokers.log_in(2)
    brokers.told()
    assert brokers.living == [1]


def test_alone_nothing_is_gathered(brokers: Brokers) -> None:
    """Nor is it where the others are away."""
    for name in ("b", "c"):
        brokers.nodes.hub.kill(name)
    brokers.log_in(0)
    brokers.peers[0].subscribe("v1/devices/me/rpc/request/+")
    takeovers = brokers.nodes.nodes[0].api.others.takeovers
    assert (takeovers._notes, takeovers._ways, takeovers._outdated) == ({}, {}, {})


@pytest.mark.parametrize(
    "body", [None, 5, [], [[]], [1, [[1]]], [1, [["x", [], 1, 1]]], {"opened": 1}, [1, [[1, [5.5], 1, 0]]]]
)
def test_nonsense_closes_nothing_and_is_logged_once(brokers: Brokers, warnings: list[str], body: Any) -> None:
    """A node of another version may say what it likes."""
    brokers.log_in(0)
    brokers.told()
    for _ in range(3):
        brokers.nodes.nodes[1].fabric.tell_all("opened", body)
    brokers.nodes.settle()
    assert brokers.living == [0] and len(warnings) <= 2  # each of the two others


# -- ways for commands, and devices behind gateways -------------------------------------------------------


class Behind:
    """A gateway `gw` at any node, with `dev` behind it."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.nodes = NodesUnderTest(store)
        self.link = RecordingLink()
        profile_id = store.read(lambda tx: tx.device_by_id(self.nodes.device_id)).profile_id
        self.gateways = [store.add_device(name, profile_id) for name in ("gw-a", "gw-b")]

    def connect(self, at: int, gateway: int = 0) -> tuple[Any, RecordingLink]:
        node = self.nodes.nodes[at]
        device = self.nodes.store.read(lambda tx: tx.device_by_id(self.gateways[gateway]))
        identity = Identity(Role.GATEWAY, TENANT, device.id, device.uuid, device.name, device.profile_id)
        link = RecordingLink()
        session = node.api.gateways.open(identity, link)
        node.core.outcome(lambda done: session.connect("dev", "", done))
        self.nodes.settle()
        return session, link

    def presence(self, at: int) -> Any:
        self.nodes.nodes[at].api.presence.flush()
        self.nodes.settle()
        return self.nodes.store.read(lambda tx: tx.presence(self.nodes.device_id))


@pytest.fixture
def behind(sqlite_store: StoreUnderTest) -> Behind:
    return Behind(sqlite_store)


def test_a_device_that_comes_behind_another_gateway_leaves_the_one_before(behind: Behind) -> None:
    """At another node: the gateway before is told, and commands go by the new one (G6)."""
    first, first_link = behind.connect(0)
    behind.nodes.pass_time(5)
    second, second_link = behind.connect(1, 1)
    behind.nodes.pass_time(FLUSH_S)
    assert (first.is_connected("dev"), second.is_connected("dev")) == (False, True)
    assert (first_link.ends, second_link.ends) == (["dev"], [])
    assert len(behind.nodes.nodes[0].send()) == len(second_link.commands) == 1
    assert behind.presence(0).last_disconnect_ms == 0


def test_a_device_that_connects_by_itself_leaves_its_gateway_at_another_node(behind: Behind) -> None:
    """And one that comes behind a gateway gets its commands there, though its own session is still open."""
    session, link = behind.connect(0)
    behind.nodes.pass_time(5)
    direct = behind.nodes.nodes[1].downlink(acknowledges=True)
    behind.nodes.pass_time(5)
    assert (session.is_connected("dev"), link.ends) == (False, ["dev"])
    _, again = behind.connect(2)
    behind.nodes.pass_time(5)
    for node in behind.nodes:
        node.send()
    behind.nodes.pass_time(1)
    assert (len(direct.commands), len(again.commands)) == (0, 3)


def test_two_gateways_that_name_a_device_at_the_same_moment_end_with_one(behind: Behind) -> None:
    """Neither closes the other's for ever; both know whose it is."""
    first, _ = behind.connect(0)
    second, _ = behind.connect(1, 1)
    behind.nodes.pass_time(FLUSH_S)
    behind.nodes.pass_time(5)
    assert (first.is_connected("dev"), second.is_connected("dev")) == (False, True)
    outcomes = behind.nodes.nodes[2].send()
    assert [type(one).__name__ for one in outcomes] == ["Answer"]


def test_a_gateway_that_moves_to_another_node_takes_its_devices_along(behind: Behind) -> None:
    """That its session at the node before ended is no news of devices that are with it again already."""
    first, _ = behind.connect(0)
    behind.nodes.pass_time(5)
    behind.connect(1)
    first.close()  # as the takeover of the gateway's own session does
    behind.nodes.pass_time(FLUSH_S)
    behind.presence(1)
    assert behind.presence(0).last_disconnect_ms == 0


def test_long_polls_and_observations_are_not_closed(behind: Behind) -> None:
    """They end by themselves; the newest way gets the commands."""
    first = behind.nodes.nodes[0].downlink(takes=1)
    behind.nodes.pass_time(5)
    second = behind.nodes.nodes[1].downlink(takes=1)
    behind.nodes.pass_time(5)
    behind.nodes.nodes[0].send("one")
    behind.nodes.nodes[0].send("two")
    assert (second.methods, first.methods) == (["one"], ["two"])
    assert first.endings == second.endings == []


def test_what_is_remembered_of_newer_ways_goes_with_their_node(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with the devices, where there are too many."""
    a, b, _ = behind.nodes
    here = a.downlink()
    behind.nodes.pass_time(5)
    b.downlink()
    behind.nodes.pass_time(5)
    assert a.api.others.takeovers.is_outdated(behind.nodes.device_id)
    behind.nodes.hub.kill("b")
    assert not a.api.others.takeovers.is_outdated(behind.nodes.device_id)
    behind.nodes.nodes[2].downlink()
    behind.nodes.pass_time(5)
    assert a.api.others.takeovers.is_outdated(behind.nodes.device_id)
    here.close()
    monkeypatch.setattr(takeovers_module, "MAX_OUTDATED", 0)
    behind.nodes.nodes[2].downlink()
    behind.nodes.pass_time(5)
    assert a.api.others.takeovers._outdated == {}


class ManySessions:
    """A transport with sessions of many devices."""

    def held(self, device_id: int) -> Held:
        return Held((1,), 1)

    def give_up(self, device_id: int, count: int) -> None:
        raise AssertionError("nobody has taken any over")

    def opened_since(self, ms: int) -> list[int]:
        return list(range(1, 10 * PART_OF_ALL + 2))


def test_a_node_that_joins_is_told_of_many_sessions_a_part_with_each_turn(brokers: Brokers) -> None:
    """The node that tells has devices to answer meanwhile."""
    one = brokers.nodes.nodes[0]
    one.api.others.takeovers.serve(ManySessions())
    told: list[int] = []
    tell = one.fabric.tell
    one.fabric.tell = lambda node, kind, body: (told.append(len(body[1])), tell(node, kind, body))  # type: ignore[method-assign, func-returns-value]
    one.api.others.takeovers._tell_since(brokers.nodes.nodes[1].fabric.node, 0)
    assert told == [PART_OF_ALL]
    for _ in range(20):
        brokers.nodes.pass_time(0)
    assert told == [PART_OF_ALL] * 10 + [1]
