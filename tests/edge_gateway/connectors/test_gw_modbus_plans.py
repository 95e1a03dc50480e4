"""Addresses, settings, block planning and the schedule of the Modbus master: no sockets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.connectors.modbus import KINDS
from edge_gateway.connectors.modbus.addresses import Address, Table, parse_address, parse_units
from edge_gateway.connectors.modbus.bus import parse_target
from edge_gateway.connectors.modbus.planner import Block, Span, plan, split
from edge_gateway.connectors.modbus.schedule import Poll, Schedule
from tests.support.gateway_plc_sites import problems_of

MODBUS = KINDS[0]


@pytest.mark.parametrize(
    ("text", "base", "address"),
    [
        ("holding:100", 0, Address(Table.HOLDING, 100, None)),
        ("holding:100", 1, Address(Table.HOLDING, 99, None)),
        ("input:0x10", 0, Address(Table.INPUT, 16, None)),
        ("holding:0-7", 0, Address(Table.HOLDING, 0, 8)),
        ("holding:5.3", 0, Address(Table.HOLDING, 5, 1, 3)),
        ("coil:7", 0, Address(Table.COIL, 7, None)),
        ("40101", 0, Address(Table.HOLDING, 100, None)),
        ("40101", 1, Address(Table.HOLDING, 100, None)),
        ("400101-400102", 0, Address(Table.HOLDING, 100, 2)),
        ("30001", 0, Address(Table.INPUT, 0, None)),
        ("10001", 0, Address(Table.DISCRETE, 0, None)),
        ("00001", 0, Address(Table.COIL, 0, None)),
        ("4x0001", 0, Address(Table.HOLDING, 0, None)),
    ],
)
def test_places_are_read_in_each_notation(text: str, base: int, address: Address) -> None:
    """Table and number, ranges, bits, hexadecimal and Modicon numbers mean the place on the wire."""
    assert parse_address(text, base) == address


@pytest.mark.parametrize(
    "text", ["holding", "holdng:5", "holding:70000", "holding:7-3", "coil:1.2", "holding:1.16", "5"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    """The error quotes what stood there."""
    with pytest.raises(ValueError, match=text):
        parse_address(text)


def test_units_are_numbers_and_ranges() -> None:
    """Each unit once, in order."""
    assert parse_units("1-3, 40,2") == [1, 2, 3, 40]
    with pytest.raises(ValueError, match="list of units"):
        parse_units("3-1")


def test_a_connection_is_taken_apart() -> None:
    """Serial options are read; unknown ones are refused by name."""
    serial = parse_target("serial:///dev/ttyUSB0?baud=9600&parity=E&stop=2")
    assert (serial.host, serial.baud, serial.parity, serial.stop) == ("/dev/ttyUSB0", 9600, "E", 2)
    assert str(parse_target("tcp://10.0.0.20")) == "10.0.0.20:502"
    for wrong in ("10.0.0.20", "http://x", "serial:///dev/ttyS0?bauds=9600", "serial:///dev/ttyS0?parity=X", "tcp://"):
        with pytest.raises(ValueError, match=wrong.partition("?")[0]):
            parse_target(wrong)


def test_every_mistake_in_the_settings_is_told_at_once() -> None:
    """Problems lead to their places and say the fix."""
    table: dict[str, Any] = {
        "connect": "tcp:/x",
        "every": "5 parsecs",
        "device": [
            {
                "units": "1-3",
                "device": "meter",
                "telemetry": ["holding:1 -> a: float33", {"key": "b", "at": "holding:0-1", "as": "uint16"}],
                "rpc": {"set": {"write": "input:5"}, "none": {}},
            },
            {"unit": 300, "device": "m-{slave}", "telemetry": [{"key": "c", "at": "holding:1", "report": "often"}]},
        ],
    }
    problems = "\n".join(problems_of(MODBUS, table))
    for expected in (
        "connect: 'tcp:/x' is no connection",
        "every: '5 parsecs' is no duration",
        "device.0.telemetry.0: 'float33'",
        "device.0.telemetry.1.at: uint16 takes 1 register",
        "device.0.rpc.set: 'input:5' cannot be written",
        "device.0.rpc.none: write either",
        "device.0.device: several units would share the name 'meter'",
        "device.1.unit: unit = 300",
        "device.1.device: '{slave}' is not known here",
        "device.1.telemetry.0.report: 'often' is no report strategy",
    ):
        assert expected in problems


# --- planner -----------------------------------------------------------------------------------

spans = st.builds(
    Span,
    st.sampled_from(list(Table)),
    st.integers(0, 2000),
    st.integers(1, 20),
    st.booleans(),
)


@given(st.lists(spans, max_size=60), st.integers(0, 20), st.integers(20, 125))
def test_blocks_cover_every_span_within_the_limits(wanted: list[Span], max_gap: int, max_block: int) -> None:
    """Each span lies in exactly one block of its table; no block is too long; a lone span is alone."""
    blocks = plan(wanted, max_gap, max_block)
    assert sorted(span for block in blocks for span in block.spans) == sorted(set(wanted))
    for block in blocks:
        assert block.count <= (min(max_block * 16, 2000) if block.table.is_bits else max_block)
        for span in block.spans:
            assert span.table == block.table
            assert block.first <= span.first and span.end <= block.first + block.count
        assert len(block.spans) == 1 or not any(span.is_alone for span in block.spans)


@given(st.lists(spans, min_size=1, max_size=30))
def test_splitting_ends_at_single_spans_and_loses_none(wanted: list[Span]) -> None:
    """Cut again and again, a block falls into its spans, each exactly as long as it is."""
    pending, ends = plan(wanted, 8, 125), []
    while pending:
        block = pending.pop()
        halves = split(block)
        if halves is None:
            ends.append(block)
        else:
            assert halves[0].spans + halves[1].spans == block.spans
            pending += halves
    assert sorted(block.spans[0] for block in ends) == sorted(set(wanted))
    assert all(block.count == block.spans[0].count for block in ends)


def test_a_block_is_cut_in_its_widest_gap() -> None:
    """What a slave has not got lies most likely between the fields."""
    near, far = Span(Table.HOLDING, 0, 2), Span(Table.HOLDING, 8, 2)
    (block,) = plan([near, Span(Table.HOLDING, 3, 1), far], 8, 125)
    assert split(block) == (
        Block(Table.HOLDING, 0, 4, (near, Span(Table.HOLDING, 3, 1))),
        Block(Table.HOLDING, 8, 2, (far,)),
    )


# --- schedule ----------------------------------------------------------------------------------


class Simulation:
    """One bus on which an answer takes `answer_s`, and a dead unit the time-out."""

    def __init__(
        self, polls: list[Poll], dead: set[int], *, answer_s: float, timeout_s: float, retries: int = 1
    ) -> None:
        self.schedule = Schedule(polls, now=0.0, retries=retries)
        self.dead, self.answer_s, self.timeout_s = dead, answer_s, timeout_s
        self.made: list[tuple[float, Poll]] = []
        self.tried: list[tuple[float, int]] = []
        self.now = 0.0

    def run(self, until: float) -> None:
        while self.now < until:
            poll = self.schedule.take(self.now)
            if poll is None:
                self.now += self.schedule.wait_s(self.now)
            elif poll.unit in self.dead:
                self.tried.append((self.now, poll.unit))
                self.now += self.timeout_s
                self.schedule.silent(poll, self.now, cost_s=self.timeout_s)
            else:
                self.now += self.answer_s
                self.made.append((self.now, poll))
                self.schedule.answered(poll, self.now)


def test_polls_of_a_period_are_spread_over_it() -> None:
    """Ten units a second are due a tenth of a second apart, and each is read once a second."""
    polls = [Poll(unit, 1.0) for unit in range(10)]
    simulation = Simulation(polls, set(), answer_s=0.01, timeout_s=1)
    assert [poll.due for poll in polls] == pytest.approx([unit / 10 for unit in range(10)])
    simulation.run(10)
    assert all(9 <= poll.made <= 11 and poll.missed == 0 for poll in polls)


def test_a_bus_that_is_too_slow_skips_whole_periods() -> None:
    """Reads never pile up: what could not be made is counted, and every unit gets its share."""
    polls = [Poll(unit, 1.0) for unit in range(10)]
    simulation = Simulation(polls, set(), answer_s=0.2, timeout_s=1)
    simulation.run(100)
    assert all(45 <= poll.made <= 55 for poll in polls)
    assert all(abs(poll.made + poll.missed - 100) <= 3 for poll in polls)


def test_a_dead_unit_is_tried_less_and_less_and_comes_back() -> None:
    """1 s, 2 s, 4 s … 60 s; after its return it is read in its period at once."""
    polls = [Poll(1, 1.0), Poll(2, 1.0)]
    simulation = Simulation(polls, {2}, answer_s=0.001, timeout_s=0.01)
    simulation.run(200)
    pauses = [later[0] - earlier[0] for earlier, later in zip(simulation.tried, simulation.tried[1:], strict=False)]
    assert pauses[:6] == pytest.approx([1, 2, 4, 8, 16, 32], abs=0.2)
    assert max(pauses) < 61
    simulation.dead.clear()
    simulation.run(300)
    assert polls[1].made >= 30


def test_a_unit_that_missed_one_answer_is_asked_again_at_once() -> None:
    """One lost frame does not put a unit out of the rotation."""
    polls = [Poll(1, 1.0)]
    schedule = Schedule(polls, now=0.0, retries=1)
    first = schedule.take(0.0)
    assert first is not None and schedule.answered(first, 0.01)
    second = schedule.take(1.0)
    assert second is not None
    schedule.silent(second, 1.5, cost_s=0.5)
    assert schedule.dead_units() == []
    third = schedule.take(1.5)
    assert third is not None and schedule.answered(third, 1.6)
    schedule.take(2.0)


def test_on_one_line_dead_units_take_a_tenth_of_the_time() -> None:
    """Twenty dead of two hundred on a serial line: the others miss nothing once the dead are known."""
    polls = [Poll(unit, 10.0) for unit in range(200)]
    simulation = Simulation(polls, set(range(0, 200, 10)), answer_s=0.02, timeout_s=0.5)
    simulation.run(60)
    missed = {poll.unit: poll.missed for poll in polls}
    tries = len(simulation.tried)
    simulation.run(660)
    assert all(poll.missed == missed[poll.unit] for poll in polls if poll.unit not in simulation.dead)
    assert (len(simulation.tried) - tries) * 0.5 <= 600 * 0.11


def test_a_spare_connection_takes_the_doubtful_and_the_others_keep_clear() -> None:
    """With a spare connection the first never gets a unit that does not answer."""
    polls = [Poll(1, 1.0), Poll(2, 1.0)]
    schedule = Schedule(polls, now=0.0, retries=0)
    first = schedule.take(0.0, has_spare=True)
    assert first is not None
    schedule.silent(first, 0.1)
    for tick in range(5, 100):
        poll = schedule.take(tick / 10, has_spare=True)
        if poll is not None:
            assert poll.unit == 2
            schedule.answered(poll, tick / 10)
    tried = schedule.take(10.0, is_spare=True)
    assert tried is not None and tried.unit == 1
