"""Commands to devices of other nodes: who gets them, and what becomes of them whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from cloud_core.core.nodes import commands as elsewhere_module
from cloud_core.core.nodes.commands import ANSWER_S, LOST_TEXT
from cloud_core.core.nodes.messages import body_of
from cloud_core.core.rpc import commands as rpc_module
from cloud_core.core.rpc.commands import Answer
from cloud_core.core.rpc.decisions import FIRST_NUMBER
from shared.device_json import NotJson, render_json
from shared.errors import DeviceOffline, DeviceTimeout, MalformedRequest, RateLimited, Unavailable, leaf_classes
from shared.lenient_json import NumberText
from tests.support.joined_nodes import NodesUnderTest
from tests.support.stores import StoreUnderTest

_TWO_WAY = {"is_oneway": False}


@pytest.fixture
def nodes(sqlite_store: StoreUnderTest) -> NodesUnderTest:
    return NodesUnderTest(sqlite_store)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged as a warning."""
    found: list[str] = []

    def observer(event: Any) -> None:
        if event.get("log_level") is not None and event["log_level"].name == "warn":
            found.append(str(event.get("log_format", "")))

    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


def outcome_types(outcomes: list[Any]) -> list[type]:
    return [type(one) for one in outcomes]


def test_a_one_way_command_reaches_a_device_of_another_node(nodes: NodesUnderTest) -> None:
    """It is over when the device has it; the device hears it once, with its parameters as they were written."""
    a, b, _ = nodes
    downlink = b.downlink()
    params = {"pin": 7, "big": 2**70, "text": "ä", "exact": NumberText("1e400"), "list": [None, True, 1.5]}
    outcomes = a.send("setGpio", params=params)
    assert outcomes == []
    downlink.deliveries[0].delivered()
    nodes.settle()
    assert outcomes == [Answer()]
    assert downlink.methods == ["setGpio"] and downlink.commands[0].is_oneway
    assert render_json(downlink.commands[0].params) == render_json(params)


@pytest.mark.parametrize(
    "value", [{"v": 1}, None, "text", NotJson("plain text"), 2**70, NumberText("1.50e3"), [1, {"a": []}], False]
)
def test_a_reply_comes_back_as_the_device_gave_it(nodes: NodesUnderTest, value: Any) -> None:
    """JSON of any kind, numbers as they were written, and text that is none."""
    a, b, _ = nodes
    downlink = b.downlink()
    outcomes = a.send(**_TWO_WAY)
    downlink.deliveries[0].delivered()
    nodes.settle()
    assert outcomes == []
    b.reply(downlink.commands[0].number, value)
    assert outcomes == [Answer(value)] and type(outcomes[0].value) is type(value)


def test_a_device_that_nobody_has_is_offline_at_once(nodes: NodesUnderTest) -> None:
    """Everybody says so, and nobody is waited for."""
    assert [str(one) for one in nodes.nodes[0].send()] == [str(DeviceOffline())]


def test_where_there_is_one_other_node_it_is_not_asked_first(sqlite_store: StoreUnderTest) -> None:
    """One message there, two back; it says so where it has no such device."""
    nodes = NodesUnderTest(sqlite_store, names=("a", "b"))
    a, b = nodes
    questions = b.hears("question")
    assert outcome_types(a.send()) == [DeviceOffline]
    downlink = b.downlink(acknowledges=True)
    assert a.send() == [Answer()] and len(downlink.commands) == 1 and not questions


def test_a_silent_node_is_as_one_without_the_device(nodes: NodesUnderTest) -> None:
    """After a second; the others' word is not waited for any longer than that."""
    a, b, _ = nodes
    b.is_deaf_to("question")
    outcomes = a.send()
    nodes.pass_time(ANSWER_S / 2)
    assert outcomes == []
    nodes.pass_time(ANSWER_S / 2)
    assert outcome_types(outcomes) == [DeviceOffline]


def test_a_silent_node_does_not_hold_up_who_has_the_device(nodes: NodesUnderTest) -> None:
    """The first that has the newest way gets the command at once."""
    a, b, c = nodes
    c.is_deaf_to("question")
    b.downlink(acknowledges=True)
    assert a.send() == [Answer()]


def test_a_node_that_falls_silent_with_the_command_counts_as_absent(nodes: NodesUnderTest) -> None:
    """The command is given to nobody else: it might come to the device twice."""
    a, b, c = nodes
    b.downlink(), c.downlink()
    again = [one.is_deaf_to("command") for one in (b, c)]
    outcomes = a.send()
    nodes.pass_time(ANSWER_S)
    assert outcome_types(outcomes) == [DeviceOffline]
    for hear in again:
        hear()
    nodes.pass_time(ANSWER_S)
    assert len(outcomes) == 1


def test_a_device_that_left_between_question_and_command_is_looked_for_elsewhere(nodes: NodesUnderTest) -> None:
    """Whoever was given the command says that the device has gone; the next one has it."""
    a, b, c = nodes
    first = b.downlink()
    ordered = b.fabric.by_kind["command"]

    def gone(sender: str, body: Any) -> None:
        first.close()
        c.downlink(acknowledges=True)
        ordered(sender, body)

    c_way = c.fabric.by_kind["question"]
    c.fabric.by_kind["question"] = lambda sender, body: nodes.clock.callLater(0.01, c_way, sender, body)
    b.fabric.by_kind["command"] = gone
    outcomes = a.send()
    nodes.pass_time(0.01)
    assert outcomes == [Answer()] and first.commands == []


def test_the_newest_way_gets_the_command_wherever_it_is(nodes: NodesUnderTest) -> None:
    """A way that was opened later at another node goes before one of this node, and of others."""
    a, b, c = nodes
    older_here, older, newest = a.downlink(), None, None
    nodes.pass_time(5)
    older = b.downlink()
    nodes.pass_time(5)
    newest = c.downlink(acknowledges=True)
    nodes.pass_time(5)
    assert [one.send() for one in nodes] == [[Answer()]] * 3
    assert [len(one.commands) for one in (older_here, older, newest)] == [0, 0, 3]


def test_when_the_newest_way_has_closed_an_older_one_is_taken(nodes: NodesUnderTest) -> None:
    """At another node, or at this one."""
    a, b, c = nodes
    here = a.downlink(acknowledges=True)
    nodes.pass_time(5)
    there = b.downlink(acknowledges=True)
    nodes.pass_time(5)
    c.downlink().close()
    nodes.pass_time(5)
    assert c.send() == [Answer()] and (len(here.commands), len(there.commands)) in ((1, 0), (0, 1))
    there.close()
    assert (a.send(), c.send()) == ([Answer()], [Answer()])
    assert len(here.commands) + len(there.commands) == 3


def test_one_that_is_opened_anew_here_goes_first_again(nodes: NodesUnderTest) -> None:
    """Nobody is asked any more."""
    a, b, _ = nodes
    a.downlink()
    nodes.pass_time(5)
    b.downlink()
    nodes.pass_time(5)
    newest = a.downlink(acknowledges=True)
    questions = b.hears("question")
    assert a.send() == [Answer()] and len(newest.commands) == 1 and questions == []


@pytest.mark.parametrize("kind", sorted(leaf_classes(), key=lambda one: one.__name__), ids=lambda one: one.__name__)
def test_errors_keep_their_type_and_text(nodes: NodesUnderTest, kind: Any) -> None:
    """Whatever another node refuses with."""
    a, b, _ = nodes
    b.downlink()
    rpc: Any = b.api.rpc

    def refuse(*args: Any) -> Any:
        args[-1](kind("for a reason", retry_after_s=2.5))
        return lambda: None

    rpc.take = refuse
    (outcome,) = a.send()
    assert (type(outcome), str(outcome), outcome.retry_after_s) == (kind, "for a reason", 2.5)


def test_an_error_that_is_not_known_here_is_unavailable_with_its_text(nodes: NodesUnderTest) -> None:
    """A later version has refusals of its own."""
    a, b, _ = nodes
    b.downlink()
    b.fabric.by_kind["command"] = lambda sender, body: b.fabric.tell(
        sender, "command-said", [body[0], "error", b"", "ON_HOLIDAY", "back on Monday", None]
    )
    (outcome,) = a.send()
    assert (type(outcome), str(outcome)) == (Unavailable, "back on Monday")


def test_a_device_that_does_not_acknowledge_or_answer_is_a_timeout(nodes: NodesUnderTest) -> None:
    """By the clock of the node that has the device, and in its words."""
    a, b, _ = nodes
    downlink = b.downlink()
    unacknowledged, unanswered = a.send(), a.send(**_TWO_WAY)
    downlink.deliveries[1].delivered()
    nodes.pass_time(10)
    assert [str(one) for one in unacknowledged] == ["The device did not acknowledge the command in time."]
    assert unanswered == []
    nodes.pass_time(10)
    assert outcome_types(unanswered) == [DeviceTimeout]


def test_a_command_ends_in_time_even_if_its_outcome_is_lost(nodes: NodesUnderTest) -> None:
    """A second after it has expired, however the message was lost."""
    a, b, _ = nodes
    b.downlink()
    outcomes = a.send(**_TWO_WAY)
    a.is_deaf_to("command-said")
    nodes.pass_time(20)
    assert outcomes == []
    nodes.pass_time(ANSWER_S)
    assert outcome_types(outcomes) == [DeviceTimeout]


def test_an_expired_command_is_given_to_nobody(nodes: NodesUnderTest) -> None:
    """Neither at the start, nor after the search has taken all of its time."""
    a, b, c = nodes
    downlink = b.downlink()
    assert outcome_types(a.send(in_ms=0)) == [DeviceTimeout]
    c.is_deaf_to("question")
    c_downlink = c.downlink()
    nodes.pass_time(0.1)
    assert b.api.others.takeovers.is_outdated(nodes.device_id)
    outcomes = a.send(in_ms=500)
    nodes.pass_time(ANSWER_S)
    assert outcome_types(outcomes) == [DeviceTimeout] and downlink.commands == c_downlink.commands == []


def test_clocks_that_differ_change_nothing_about_the_end_of_a_command(nodes: NodesUnderTest) -> None:
    """What is told is how long it may wait, not until when."""
    a, b, _ = nodes
    b.skew_s = -3_600.0
    downlink = b.downlink()
    outcomes = a.send(**_TWO_WAY)
    downlink.deliveries[0].delivered()
    nodes.pass_time(19.9)
    assert outcomes == []
    nodes.pass_time(0.2)
    assert outcome_types(outcomes) == [DeviceTimeout]


def test_the_node_that_has_the_device_dies(nodes: NodesUnderTest) -> None:
    """The command was lost with the connection; nobody waits for its time to be over."""
    a, b, _ = nodes
    b.downlink()
    outcomes = a.send(**_TWO_WAY)
    nodes.hub.kill("b")
    assert [(type(one), str(one)) for one in outcomes] == [(DeviceOffline, LOST_TEXT)]
    nodes.pass_time(30)
    assert len(outcomes) == 1


def test_a_node_that_dies_while_it_is_asked_is_not_waited_for(nodes: NodesUnderTest) -> None:
    """The others' word counts."""
    a, b, c = nodes
    b.is_deaf_to("question")
    outcomes = a.send()
    nodes.hub.kill("b")
    assert outcome_types(outcomes) == [DeviceOffline]
    c.downlink(acknowledges=True)
    assert a.send() == [Answer()]


def test_the_node_that_asked_dies(nodes: NodesUnderTest) -> None:
    """The one with the device forgets the command without a word: its place is free, a reply is dropped."""
    a, b, c = nodes
    downlink = b.downlink()
    a.send(**_TWO_WAY)
    assert b.api.rpc._waiting_count == 1
    nodes.hub.kill("a")
    assert b.api.rpc._waiting_count == 0
    said = c.hears("command-said")
    b.reply(downlink.commands[0].number, 1)
    downlink.deliveries[0].delivered()
    nodes.pass_time(30)
    assert said == []


def test_a_node_that_is_cut_off_sends_to_its_own_devices_alone(nodes: NodesUnderTest) -> None:
    """To others' they are offline; when the fabric is back, so are they."""
    a, b, c = nodes
    b.downlink(acknowledges=True)
    nodes.hub.cut("a")
    assert outcome_types(a.send()) == [DeviceOffline]
    assert c.send() == [Answer()]
    nodes.hub.heal("a")
    assert a.send() == [Answer()]


def test_a_command_that_comes_twice_is_sent_once(nodes: NodesUnderTest) -> None:
    """Whether the first is still under way or long over."""
    a, b, _ = nodes
    downlink = b.downlink()
    ordered = b.hears("command")
    outcomes = a.send(**_TWO_WAY)
    (_, body) = ordered[0]
    b.fabric.by_kind["command"]("a", body)
    b.reply(downlink.commands[0].number, 5)
    b.fabric.by_kind["command"]("a", body)
    nodes.settle()
    assert outcomes == [Answer(5)] and len(downlink.commands) == 1


def test_what_comes_late_or_from_somebody_else_is_dropped(nodes: NodesUnderTest) -> None:
    """The first outcome counts, of the node that was given the command."""
    a, b, c = nodes
    downlink = b.downlink()
    outcomes = a.send(**_TWO_WAY)
    number = a.api.rpc._elsewhere._number
    c.fabric.tell("a", "command-said", [number, "json", b'"forged"'])
    c.fabric.tell("a", "command-said", [number, "absent"])
    nodes.settle()
    assert outcomes == []
    b.reply(downlink.commands[0].number, 1)
    b.fabric.tell("a", "command-said", [number, "json", b"2"])
    b.fabric.tell("a", "command-said", [number + 1, "taken"])
    b.fabric.tell("a", "reply-to-question", [1, 2])
    nodes.pass_time(30)
    assert outcomes == [Answer(1)]


# -- replies at another node --------------------------------------------------------------------------


def test_a_reply_may_come_in_at_any_node(nodes: NodesUnderTest) -> None:
    """HTTP and CoAP devices answer where their request is taken: at the node that asked, or at a third."""
    a, b, c = nodes
    downlink = b.downlink(acknowledges=True)
    for place in (a, c):
        outcomes = a.send(**_TWO_WAY)
        place.reply(downlink.commands[-1].number, place.fabric.node)
        assert outcomes == [Answer(place.fabric.node)]


def test_a_reply_to_a_command_of_the_nodes_own_is_told_to_nobody(nodes: NodesUnderTest) -> None:
    """And neither is one to a persistent command, whose place is the disk."""
    a, b, _ = nodes
    told = b.hears("device-reply")
    downlink = a.downlink(acknowledges=True)
    outcomes = a.send(**_TWO_WAY)
    a.reply(downlink.commands[0].number, 1)
    a.reply(FIRST_NUMBER + 5, 1)
    assert outcomes == [Answer(1)] and told == []


def test_a_reply_counts_only_for_the_device_that_was_asked(nodes: NodesUnderTest) -> None:
    """Another device cannot answer in its place, at whichever node."""
    a, b, c = nodes
    downlink = b.downlink(acknowledges=True)
    outcomes = a.send(**_TWO_WAY)
    c.api.rpc.reply_of(nodes.device_id + 1, downlink.commands[0].number, "forged", lambda _: None)
    nodes.settle()
    assert outcomes == []


def test_numbers_of_two_nodes_do_not_meet(nodes: NodesUnderTest) -> None:
    """Each begins at a random place and counts on, so that a reply finds its own command."""
    a, b, _ = nodes
    first, second = a.downlink(acknowledges=True), None
    mine = [a.send(**_TWO_WAY), a.send(**_TWO_WAY)]
    second = b.downlink(acknowledges=True)
    theirs = b.send(**_TWO_WAY)
    numbers = [one.number for one in (*first.commands, *second.commands)]
    assert numbers[1] == numbers[0] + 1 and len(set(numbers)) == 3 and max(numbers) < FIRST_NUMBER
    b.reply(numbers[0], "first")
    assert (mine[0], mine[1], theirs) == ([Answer("first")], [], [])


def test_whoever_replies_to_nothing_does_not_keep_all_nodes_busy(
    nodes: NodesUnderTest, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """So many a second are told, then none until the next second; one line says so."""
    monkeypatch.setattr(elsewhere_module, "MAX_REPLIES_PER_S", 2)
    a, b, _ = nodes
    told = b.hears("device-reply")
    for number in range(5):
        a.reply(number, 1)
    assert len(told) == 2 and len(lines) == 1
    nodes.pass_time(1)
    a.reply(9, 1)
    assert len(told) == 3


def test_a_reply_that_nests_too_deeply_is_an_error_of_its_command(nodes: NodesUnderTest) -> None:
    """The operator hears what is wrong with it; nothing breaks on the way."""
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    a, b, c = nodes
    downlink = b.downlink(acknowledges=True)
    outcomes = a.send(**_TWO_WAY)
    c.reply(downlink.commands[0].number, deep)
    assert outcomes == []
    b.reply(downlink.commands[0].number, deep)
    assert outcome_types(outcomes) == [MalformedRequest]


# -- bounds -------------------------------------------------------------------------------------------


def test_commands_at_other_nodes_count_as_waiting(
    sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the device, where it is asked for and where it is; and in all."""
    nodes = NodesUnderTest(sqlite_store, max_waiting_per_device=2)
    a, b, c = nodes
    downlink = b.downlink(acknowledges=True)
    waiting = [a.send(**_TWO_WAY), a.send(**_TWO_WAY)]
    assert outcome_types(a.send(**_TWO_WAY)) == outcome_types(c.send(**_TWO_WAY)) == [RateLimited]
    b.reply(downlink.commands[0].number, 1)
    assert waiting == [[Answer(1)], []] and c.send(**_TWO_WAY) == []
    monkeypatch.setattr(rpc_module, "MAX_WAITING", 1)
    assert outcome_types(a.send(**_TWO_WAY)) == [Unavailable]


def test_nothing_is_kept_of_what_is_over(nodes: NodesUnderTest) -> None:
    """Neither of commands that ended well, nor of those that did not."""
    a, b, _ = nodes
    downlink = b.downlink()
    a.send(), a.send(**_TWO_WAY)
    downlink.deliveries[0].delivered()
    b.reply(downlink.commands[1].number, 1)
    a.send(**_TWO_WAY)
    nodes.pass_time(60)
    downlink.close()
    a.send()
    nodes.pass_time(60)
    for node in nodes:
        mine = node.api.rpc._elsewhere
        assert (mine._asked, mine._count_of, mine._taken, node.api.others.questions._open) == ({}, {}, {}, {})
    assert not nodes.clock.getDelayedCalls()


# -- another version ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["command", "command-said", "device-reply", "question", "reply-to-question"])
@pytest.mark.parametrize("body", [None, 5, "x", b"\xff", [], [[]], {"number": 1}, ["x"] * 9, [1, 2, 3, 4, 5, 6]])
def test_nonsense_is_ignored_and_logged_once(nodes: NodesUnderTest, lines: list[str], kind: str, body: Any) -> None:
    """A node of another version may say what it likes: this one goes on, and does not fill its log."""
    a, b, c = nodes
    b.downlink(acknowledges=True)
    nodes.settle()
    for _ in range(5):
        c.fabric.tell("a", kind, body)
        c.fabric.tell("b", kind, body)
    nodes.settle()
    assert len(lines) <= 2
    assert a.send() == [Answer()]


def test_parameters_that_are_not_json_are_refused(nodes: NodesUnderTest) -> None:
    """The node that asks hears so, and the device nothing."""
    _, b, c = nodes
    downlink = b.downlink()
    said = c.hears("command-said")
    c.fabric.tell("b", "command", [1, nodes.device_id, "m", b"{", True, 5_000])
    nodes.settle()
    assert downlink.commands == [] and [body[1] for _, body in said] == ["error"]


def test_a_question_that_is_not_known_is_not_answered(nodes: NodesUnderTest) -> None:
    """Whoever asks counts this node as silent."""
    a, _, c = nodes
    answers: list[Any] = []
    a.api.others.questions.ask("the weather", None, 0.3, answers.append)
    replies = a.hears("reply-to-question")
    nodes.settle()
    assert answers == [] and replies == []
    nodes.pass_time(0.3)
    assert answers[0].by_node == {} and answers[0].silent == {"b", "c"}
    assert c.api.others.questions._open == {}


def test_messages_are_arrays_that_may_grow(nodes: NodesUnderTest) -> None:
    """Members that a later version adds at the end are passed over."""
    a, b, _ = nodes
    downlink = b.downlink()
    order = elsewhere_module.Order(1, nodes.device_id, "m", b"null", True, 5_000)
    a.fabric.tell("b", "command", [*body_of(order), "new", {"in": "the next version"}])
    nodes.settle()
    assert downlink.methods == ["m"]


def test_an_order_that_was_held_up_is_not_carried_out(nodes: NodesUnderTest) -> None:
    """Its sender has said long ago that the device does not have it."""
    a, b, _ = nodes
    downlink = b.downlink()
    b.fabric.is_late = True
    outcomes = a.send("open")
    nodes.pass_time(ANSWER_S)
    assert outcome_types(outcomes) == [DeviceOffline] and downlink.methods == []
    b.fabric.is_late = False
    a.send("open")
    nodes.settle()
    assert downlink.methods == ["open"]
