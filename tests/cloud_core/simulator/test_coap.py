"""Exchanges over CoAP by themselves: a real pair of sockets, and time that a test moves."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_core.simulator.coap import (
    ACK_RANDOM_FACTOR,
    ACK_TIMEOUT_S,
    MAX_RETRANSMIT,
    POST,
    CoapPort,
    Exchange,
    Message,
)


class Clock:
    """One timer, moved by hand."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.sleeper: Any = None

    def after(self, delay_s: float, sleeper: Any) -> None:
        self.delay_s, self.sleeper = delay_s, sleeper

    def cancel(self, _sleeper: Any) -> None:
        self.sleeper = None


class Owner:
    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.silences = 0

    def response(self, _exchange: Exchange, message: Message) -> None:
        self.answers.append(message.payload)

    def silence(self, _exchange: Exchange) -> None:
        self.silences += 1


class Pair:
    """A port under test and the core's side of it."""

    def __init__(self) -> None:
        self.core = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.core.bind(("127.0.0.1", 0))
        self.core.settimeout(5)
        ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ours.connect(self.core.getsockname())
        ours.settimeout(5)
        self.clock = Clock()
        clock: Any = self.clock
        self.retransmissions = 0
        self.port = CoapPort(ours, clock, self._retransmitted)
        self.owner = Owner()
        self.exchange = self.port.request(self.owner, POST, ["api", "v1", "provision"], b"{}")
        self.exchange.send()
        self.request, self.address = self.core.recvfrom(2_048)

    def answer(self, data: bytes) -> None:
        """The core sends, the port reads all that has come."""
        self.core.sendto(data, self.address)
        self.port.sock.settimeout(5)
        self.port.sock.recv(1, socket.MSG_PEEK)
        self.port.sock.setblocking(False)
        self.port.ready(0)

    def said(self) -> bytes | None:
        self.core.settimeout(0.2)
        try:
            return self.core.recv(2_048)
        except TimeoutError:
            return None

    @property
    def acknowledgement(self) -> bytes:
        return b"\x60\x00" + self.request[2:4]

    def response(self, first: int, message_id: bytes) -> bytes:
        return bytes((first | 4, 0x41)) + message_id + self.request[4:8] + b"\xffok"

    def _retransmitted(self) -> None:
        self.retransmissions += 1


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.core.close()
    made.port.sock.close()


def test_an_answer_in_the_acknowledgement_ends_an_exchange(pair: Pair) -> None:
    """And nothing is sent any more."""
    pair.answer(pair.response(0x60, pair.request[2:4]))
    assert pair.owner.answers == [b"ok"] and pair.clock.sleeper is None
    assert pair.said() is None


def test_a_request_is_sent_again_with_doubled_waits_and_then_given_up(pair: Pair) -> None:
    """The same bytes, four times more (RFC 7252 section 4.2)."""
    waits = []
    while not pair.owner.silences:
        waits.append(pair.clock.delay_s)
        pair.clock.sleeper.wake()
    assert ACK_TIMEOUT_S <= waits[0] <= ACK_TIMEOUT_S * ACK_RANDOM_FACTOR
    assert waits == pytest.approx([waits[0] * 2**number for number in range(MAX_RETRANSMIT + 1)])
    assert [pair.said() for _ in range(MAX_RETRANSMIT)] == [pair.request] * MAX_RETRANSMIT
    assert pair.retransmissions == MAX_RETRANSMIT and pair.said() is None


def test_a_separate_answer_is_waited_for_and_acknowledged(pair: Pair) -> None:
    """After the empty acknowledgement nothing is sent again (section 5.2.2)."""
    pair.answer(pair.acknowledgement)
    assert pair.clock.delay_s > 10 and pair.owner.answers == []
    pair.answer(pair.response(0x40, b"\x12\x34"))
    assert pair.owner.answers == [b"ok"]
    assert pair.said() == b"\x60\x00\x12\x34"


def test_an_answer_that_is_lost_on_its_way_is_not_acknowledged(pair: Pair) -> None:
    """So that the core sends it again; the second one counts."""
    pair.exchange.is_dropping = True
    pair.answer(pair.acknowledgement)
    pair.answer(pair.response(0x40, b"\x12\x34"))
    assert pair.owner.answers == [] and pair.said() is None
    pair.answer(pair.response(0x40, b"\x12\x34"))
    assert pair.owner.answers == [b"ok"] and pair.said() == b"\x60\x00\x12\x34"


def test_a_confirmable_message_that_nobody_awaits_is_reset(pair: Pair) -> None:
    """As section 4.2 asks; a stranger's token changes nothing."""
    pair.answer(b"\x44\x45\x12\x34zzzz")
    assert pair.said() == b"\x70\x00\x12\x34" and pair.owner.answers == []
