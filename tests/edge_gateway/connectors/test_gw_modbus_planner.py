"""Places, fields and the planner of block reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.connectors.modbus.addresses import Address, Table, parse_address, parse_units
from edge_gateway.connectors.modbus.fields import MAX_BITS, MAX_REGISTERS, make_field
from edge_gateway.connectors.modbus.planner import Block, Span, plan, split
from edge_gateway.mapping.interface import MappingError


@pytest.mark.parametrize(
    ("text", "base", "address"),
    [
        ("holding:100", 0, Address(Table.HOLDING, 100, None)),
        ("holding:100", 1, Address(Table.HOLDING, 99, None)),
        ("Input:0x10", 0, Address(Table.INPUT, 16, None)),
        ("holding:0-7", 0, Address(Table.HOLDING, 0, 8)),
        ("holding:5.3", 0, Address(Table.HOLDING, 5, 1, 3)),
        ("coil:7", 0, Address(Table.COIL, 7, None)),
        ("discrete:1-8", 1, Address(Table.DISCRETE, 0, 8)),
        ("40101", 0, Address(Table.HOLDING, 100, None)),
        ("40101", 1, Address(Table.HOLDING, 100, None)),
        ("300001", 0, Address(Table.INPUT, 0, None)),
        ("465536", 0, Address(Table.HOLDING, 65_535, None)),
        ("00001-00008", 0, Address(Table.COIL, 0, 8)),
    ],
)
def test_places_are_read_in_every_notation(text: str, base: int, address: Address) -> None:
    """Names and numbers, hexadecimal ones, ranges, bits, and Modicon's numbers, which begin with 1."""
    assert parse_address(text, base) == address


@pytest.mark.parametrize(
    ("text", "base", "why"),
    [
        ("holding", 0, "write holding:100, input:100, coil:7"),
        ("register:5", 0, "is no place in a slave"),
        ("holding:0", 1, "before the first register, which is 1 here"),
        ("holding:70000", 0, "goes from 0 to 65535"),
        ("holding:9-5", 0, "a range ends behind its beginning"),
        ("coil:7.1", 0, "a coil is one bit already"),
        ("holding:7.16", 0, "the bits 0 to 15"),
        ("40001-30005", 0, "begins in one table and ends in another"),
        ("40000", 0, "goes from 0 to 65535"),
    ],
)
def test_a_place_that_cannot_be_meant_is_explained(text: str, base: int, why: str) -> None:
    """With what would be right."""
    with pytest.raises(ValueError) as error:
        parse_address(text, base)
    assert why in str(error.value)


def test_units_are_numbers_and_ranges() -> None:
    """Each once, in the order written."""
    assert parse_units("1-3, 7,2") == [1, 2, 3, 7]
    for wrong in ("", "a", "3-1", "256", "1,,2"):
        with pytest.raises(ValueError, match="is no list of units"):
            parse_units(wrong)


@pytest.mark.parametrize(
    ("at", "type", "raw", "value"),
    [
        ("holding:1", "", b"\x12\x34", 0x1234),
        ("holding:1.2", "", b"\x00\x04", True),
        ("holding:1", "int8", b"\xff\xff", -1),
        ("holding:1-2", "hex", b"\x01\x02\x03\x04", "01020304"),
        ("holding:1", "bits", b"\x00\x05", [True, False, True] + [False] * 13),
        ("coil:1", "", [True], True),
        ("coil:1", "uint16", [True], 1),
        ("coil:1-3", "", [True, False, True], [True, False, True]),
    ],
)
def test_fields_are_decoded_and_encoded(at: str, type: str, raw: bytes | list[bool], value: object) -> None:
    """What is written is what is read."""
    field = make_field(at, type, "big", 1, 0, None, 0)
    assert field.decode(raw) == value
    encoded = field.encode(value)
    assert encoded == ([True] if field.address.bit is not None else raw)


def test_between_two_steps_of_the_scale_the_nearest_is_written() -> None:
    """An integer register with a scale takes a float."""
    field = make_field("holding:1", "uint16", "big", 0.1, 0, None, 0)
    assert field.encode(12.34) == (123).to_bytes(2, "big")
    with pytest.raises(MappingError, match="out of range"):
        field.encode(-1)


spans = st.builds(
    Span, st.sampled_from(list(Table)), st.integers(0, 400), st.integers(1, 20), st.sampled_from([False, False, True])
)


@given(st.lists(spans, max_size=60), st.integers(0, 30), st.integers(1, 125))
def test_every_span_is_read_within_the_limits(wanted: list[Span], max_gap: int, max_block: int) -> None:
    """Each span once, in one block of its table that holds it whole; no block is longer than allowed but by need."""
    blocks = plan(wanted, max_gap, max_block)
    assert sorted(span for block in blocks for span in block.spans) == sorted(set(wanted))
    for block in blocks:
        limit = min(max_block * 16, MAX_BITS) if block.table.is_bits else min(max_block, MAX_REGISTERS)
        assert block.count <= max(limit, max(span.count for span in block.spans))
        assert len(block.spans) == 1 or not any(span.is_alone for span in block.spans)
        for span in block.spans:
            assert span.table is block.table
            assert block.first <= span.first and span.end <= block.first + block.count


@given(st.lists(spans, min_size=1, max_size=60), st.integers(0, 30))
def test_no_gap_is_wider_than_allowed(wanted: list[Span], max_gap: int) -> None:
    """Registers that nobody wants are read only to save a request."""
    for block in plan(wanted, max_gap, 125):
        end = block.first
        for span in block.spans:
            assert span.first - end <= (max_gap * 16 if block.table.is_bits else max_gap)
            end = max(end, span.end)


@given(st.lists(spans, min_size=1, max_size=30))
def test_splitting_ends_with_every_span_alone(wanted: list[Span]) -> None:
    """Whatever a slave refuses is found, and nothing else is lost."""
    pending, single = plan(wanted, 30, 125), []
    while pending:
        block: Block = pending.pop()
        parts = split(block)
        if parts is None:
            single.append(block)
        else:
            pending += parts
    assert sorted(block.spans[0] for block in single) == sorted(set(wanted))
