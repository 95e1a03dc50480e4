"""Waiting over HTTP for commands and attribute changes (wire-contract.md sections 3.1 and 3.2)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_core.core.downlinks import Ending
from cloud_core.model import Scope
from cloud_core.transports.http.front import MAX_HELD_BYTES, Front
from cloud_core.transports.http.long_polls import MAX_POLLS_PER_DEVICE
from shared.credentials import AccessToken
from shared.messages import AttributesChange, RpcCommand
from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer
from tests.support.recording import RecordingDelivery, RecordingPresence
from tests.support.stores import StoreUnderTest

RPC, UPDATES = "/api/v1/tok/rpc", "/api/v1/tok/attributes/updates"
TELEMETRY = b'POST /api/v1/tok/telemetry HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n{"a":1}'
COMMAND = RpcCommand(number=7, method="setValue", params={"v": 1})


class Waiting(HttpPeer):
    """A peer whose device is known to the test."""

    device_id = 0

    def command(self, command: RpcCommand = COMMAND) -> RecordingDelivery | None:
        """Sends to the newest downlink; None where there is none."""
        downlink = self.api.api.downlinks.for_commands(self.device_id)
        if downlink is None:
            return None
        delivery = RecordingDelivery()
        downlink.command(command, delivery)
        return delivery

    @property
    def is_waiting(self) -> bool:
        return bool(self.api.api.downlinks.is_open(self.device_id))


def _peer(store: StoreUnderTest, *, is_fast: bool) -> Waiting:
    device_id = store.add_device("dev", store.add_profile(), AccessToken("tok"))
    peer = Waiting(ApiUnderTest(store), is_fast=is_fast)
    peer.device_id = device_id
    return peer


@pytest.fixture(params=[True, False], ids=["front", "klein"])
def http(request: pytest.FixtureRequest, sqlite_store: StoreUnderTest) -> Iterator[Waiting]:
    peer = _peer(sqlite_store, is_fast=request.param)
    yield peer
    peer.close()


@pytest.fixture
def front(sqlite_store: StoreUnderTest) -> Iterator[Waiting]:
    peer = _peer(sqlite_store, is_fast=True)
    yield peer
    peer.close()


# -- what ends a wait -----------------------------------------------------------------------------


def test_a_command_answers_the_poll_and_counts_as_delivered(http: Waiting) -> None:
    """One object with id, method and params; then nothing waits any more."""
    http.ask(RPC)
    delivery = http.command()
    assert delivery is not None
    ((status, headers, body),) = http.received()
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {"id": 7, "method": "setValue", "params": {"v": 1}}
    assert (delivery.outcomes, http.is_waiting) == (["delivered"], False)


def test_a_poll_takes_one_command(http: Waiting) -> None:
    """A second one that reaches it is not lost silently."""
    http.ask(RPC)
    downlink = http.api.api.downlinks.for_commands(http.device_id)
    assert downlink is not None
    first, second = RecordingDelivery(), RecordingDelivery()
    downlink.command(COMMAND, first)
    downlink.command(COMMAND, second)
    assert (first.outcomes, second.outcomes) == (["delivered"], ["failed"])
    assert len(http.received()) == 1


def test_a_change_of_shared_attributes_answers_the_other_poll(http: Waiting) -> None:
    """What was written by an operator, as it is on disk; deletions by name."""
    attributes = http.api.api.attributes
    http.ask(UPDATES)
    http.api.outcome(lambda done: attributes.put(http.device_id, Scope.SHARED, {"target": 5, "mode": "x"}, done))
    assert [(one[0], json.loads(one[2])) for one in http.received()] == [(200, {"target": 5, "mode": "x"})]
    http.ask(UPDATES)
    http.api.outcome(lambda done: attributes.delete(http.device_id, Scope.SHARED, ["target", "none"], done))
    assert [json.loads(one[2]) for one in http.received()] == [{"deleted": ["target"]}]
    assert not http.is_waiting


def test_each_poll_hears_only_what_it_asked_for(http: Waiting) -> None:
    """No command ends a wait for attributes, and no attribute one for commands."""
    other = http.another()
    http.ask(UPDATES)
    assert http.command() is None
    other.ask(RPC)
    http.api.api.downlinks.attributes_changed(http.device_id, AttributesChange(values={"a": 1}))
    assert [status for status, _, _ in http.received()] == [200]
    assert other.received() == []


@pytest.mark.parametrize(
    ("query", "after_s"), [("", 60), ("?timeout=0", 60), ("?timeout=1500", 1.5), ("?timeout=99999999999", 300)]
)
@pytest.mark.parametrize("path", [RPC, UPDATES])
def test_nothing_in_time_is_an_empty_408(http: Waiting, path: str, query: str, after_s: float) -> None:
    """In milliseconds; 0 or none is a minute, five minutes are the most; never early and at once afterwards."""
    http.ask(path + query)
    spent_s = 0.16  # `ask` has let the clock run
    while spent_s < after_s - 0.2:
        http.clock.advance(0.1)
        spent_s += 0.1
    assert http.received() == []
    for _ in range(4):
        http.clock.advance(0.1)
    ((status, headers, body),) = http.received()
    assert (status, body, "content-type" in headers, http.is_waiting) == (408, b"", False, False)


@pytest.mark.parametrize("query", ["?timeout=-1", "?timeout=soon", "?timeout=1.5"])
def test_a_timeout_that_is_no_number_is_400(http: Waiting, query: str) -> None:
    """The body says what it must be."""
    status, _, body = http.get(RPC + query)
    assert (status, http.is_waiting) == (400, False)
    assert "timeout" in json.loads(body)["message"]


def test_who_is_deleted_while_waiting_is_told(http: Waiting) -> None:
    """403 and ThingsBoard's text."""
    http.ask(RPC)
    http.api.api.device_changed(http.device_id, Ending.DEVICE_DELETED)
    ((status, headers, body),) = http.received()
    assert (status, headers["content-type"]) == (403, "text/plain; charset=utf-8")
    assert body == b"Device was deleted!"


@pytest.mark.parametrize("why", [Ending.CREDENTIALS_CHANGED, Ending.DEVICE_CHANGED])
def test_a_session_that_the_core_ends_is_an_empty_408(http: Waiting, why: Ending) -> None:
    """The device asks again, and is then told what is wrong."""
    http.ask(UPDATES)
    http.api.api.device_changed(http.device_id, why)
    assert [(status, body) for status, _, body in http.received()] == [(408, b"")]


def test_the_oldest_of_too_many_polls_ends(http: Waiting) -> None:
    """A device that asks again and again cannot fill the memory."""
    peers = [http, *(http.another() for _ in range(MAX_POLLS_PER_DEVICE))]
    for number, peer in enumerate(peers):
        peer.ask(RPC if number % 2 else UPDATES)
    assert [[status for status, _, _ in peer.received()] for peer in peers] == [[408]] + [[]] * MAX_POLLS_PER_DEVICE


def test_a_core_that_stops_sends_them_home(http: Waiting) -> None:
    """408, so that they ask again when it is back."""
    http.ask(RPC)
    http.service.stop()
    assert [status for status, _, _ in http.received()] == [408]


# -- connections that go away or say more -----------------------------------------------------------


@pytest.mark.parametrize("path", [RPC, UPDATES])
def test_a_client_that_goes_away_is_not_waited_for(http: Waiting, path: str) -> None:
    """Its downlink is closed: the next command finds nobody, and the deadline passes unheard."""
    http.ask(path)
    assert http.is_waiting
    http.lose()
    assert (http.is_waiting, http.command()) == (False, None)
    for _ in range(700):
        http.clock.advance(0.1)
    assert http.received() == []


def test_a_client_that_leaves_while_its_token_is_looked_up_never_waits(http: Waiting) -> None:
    """The answer of the store finds the request abandoned."""
    http.send(f"GET {RPC} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    http.lose()
    http.settle()
    assert not http.is_waiting


def test_a_command_for_a_connection_that_is_gone_has_failed(http: Waiting) -> None:
    """The core may still hold the downlink when the news of the loss arrives."""
    http.ask(RPC)
    downlink = http.api.api.downlinks.for_commands(http.device_id)
    assert downlink is not None
    http.lose()
    delivery = RecordingDelivery()
    downlink.command(COMMAND, delivery)
    assert delivery.outcomes == ["failed"]


def test_a_command_is_delivered_only_once_the_system_has_it_all(front: Waiting) -> None:
    """A client that does not read holds back the word; the sweep sees when it reads again."""
    front.ask(RPC)
    front.transport.unsent_bytes = 40
    delivery = front.command()
    assert delivery is not None
    front.clock.advance(1.0)
    assert delivery.outcomes == []
    front.transport.unsent_bytes = 0
    front.clock.advance(1.0)
    assert delivery.outcomes == ["delivered"]


def test_a_command_that_is_never_read_has_failed(front: Waiting) -> None:
    """The connection is ended like any other that stands still."""
    front.ask(RPC)
    front.transport.unsent_bytes = 40
    delivery = front.command()
    assert delivery is not None
    for _ in range(22):
        front.clock.advance(1.0)
    assert front.transport.disconnected
    front.lose()
    assert delivery.outcomes == ["failed"]


def test_what_comes_behind_a_waiting_request_is_served_after_it(http: Waiting) -> None:
    """In order: telemetry, another poll, and a request for klein."""
    http.ask(RPC)
    http.send(TELEMETRY + f"GET {RPC} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    http.send(b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n")
    assert http.responses() == []
    http.command()
    assert [status for status, _, _ in http.responses()] == [200, 200]
    http.command()
    assert [status for status, _, _ in http.responses()] == [200, 404]


def test_a_poll_behind_other_requests_waits_for_their_answers(http: Waiting) -> None:
    """A command is never handed to a request whose answer could not leave."""
    http.send(TELEMETRY + f"GET {RPC} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert http.command() is None
    assert [status for status, _, _ in http.responses()] == [200]
    assert http.command() is not None
    assert [status for status, _, _ in http.responses()] == [200]


def test_a_client_that_floods_while_it_waits_is_no_longer_read(http: Waiting) -> None:
    """The buffer is bounded; all of it is served in the end."""
    http.ask(RPC)
    count = MAX_HELD_BYTES // len(TELEMETRY) + 2
    http.send(TELEMETRY * count)
    assert http.transport.producerState == "paused"
    http.command()
    answered: list[int] = []
    for _ in range(count):
        answered += [status for status, _, _ in http.responses()]
    assert answered == [200] * (count + 1)
    assert http.transport.producerState == "producing"


def test_a_poll_may_close_its_connection(http: Waiting) -> None:
    """As simple clients do; the command is delivered all the same."""
    http.ask(RPC, "Connection: close\r\n")
    delivery = http.command()
    assert delivery is not None
    ((status, headers, _),) = http.received()
    assert (status, headers["connection"], http.transport.disconnecting) == (200, "close", True)
    assert delivery.outcomes == ["delivered"]


def test_a_poll_may_arrive_byte_by_byte(http: Waiting) -> None:
    """And is then one like any other."""
    for byte in f"GET {RPC}?timeout=5000 HTTP/1.1\r\nHost: h\r\n\r\n".encode():
        http.send(bytes([byte]))
    http.settle()
    assert http.is_waiting


def test_a_waiting_connection_is_not_idle(http: Waiting) -> None:
    """The deadline of requests and the one of silence do not end it."""
    http.ask(f"{RPC}?timeout=120000")
    for _ in range(100):
        http.clock.advance(1.0)
    assert http.is_waiting
    assert not http.transport.disconnecting


def test_a_device_polls_replies_and_polls_again_on_one_connection(front: Waiting) -> None:
    """Without ever losing the short cut, nor its presence."""
    presence: Any = RecordingPresence()
    front.api.api.presence = presence
    for number in range(3):
        front.ask(RPC)
        assert front.command(RpcCommand(number=number, method="m")) is not None
        assert [json.loads(body)["id"] for _, _, body in front.received()] == [number]
    assert isinstance(front.transport.protocol, Front)
    assert presence.devices == [front.device_id] * 3


def test_a_command_that_waits_for_the_device_is_taken_at_once(http: Waiting) -> None:
    """The core sends while the poll is being opened."""
    deliveries: list[RecordingDelivery | None] = []
    http.api.api.downlinks.on_reachable(lambda _device_id: deliveries.append(http.command()))
    assert json.loads(http.get(RPC)[2])["method"] == "setValue"
    assert [one.outcomes for one in deliveries if one] == [["delivered"]]
    assert http.get(RPC)[0] == 200
