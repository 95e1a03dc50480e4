"""Which requests read the fields of a slave: neighbours share one, up to the limits of the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edge_gateway.connectors.modbus.addresses import Table
from edge_gateway.connectors.modbus.fields import MAX_BITS, MAX_REGISTERS

MAX_BLOCK: Final = MAX_REGISTERS


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """What one field needs."""

    table: Table
    first: int
    count: int
    is_alone: bool = False  # never in one request with others

    @property
    def end(self) -> int:
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class Block:
    """What one request reads: `spans` in order of their place."""

    table: Table
    first: int
    count: int
    spans: tuple[Span, ...]


def plan(spans: Iterable[Span], max_gap: int, max_block: int) -> list[Block]:
    """Blocks that cover every span, each at most `max_block` registers long; a gap of more than `max_gap` registers
    (sixteen times as many bits) begins a new one."""
    blocks: list[Block] = []
    gathered: list[Span] = []
    end = 0
    for span in sorted(set(spans)):
        if gathered and not _fits(gathered[0], end, span, max_gap, max_block):
            blocks.append(_block(gathered))
            gathered = []
        end = span.end if not gathered else max(end, span.end)
        gathered.append(span)
        if span.is_alone:
            blocks.append(_block(gathered))
            gathered = []
    if gathered:
        blocks.append(_block(gathered))
    return blocks


def _fits(first: Span, end: int, span: Span, max_gap: int, max_block: int) -> bool:
    if span.table != first.table or span.is_alone:
        return False
    if span.table.is_bits:
        return span.first - end <= max_gap * 16 and max(end, span.end) - first.first <= min(max_block * 16, MAX_BITS)
    return span.first - end <= max_gap and max(end, span.end) - first.first <= min(max_block, MAX_REGISTERS)


def _block(spans: Sequence[Span]) -> Block:
    first = spans[0].first
    return Block(spans[0].table, first, max(span.end for span in spans) - first, tuple(spans))


def split(block: Block) -> tuple[Block, Block] | None:
    """Two blocks instead of one that the slave refuses: cut in the widest gap, which is what it most likely has not
    got, else in the middle. None when only one span is left."""
    if len(block.spans) < 2:
        return None
    end, cut, widest = block.spans[0].end, 0, 0
    for number, span in enumerate(block.spans[1:], 1):
        if span.first - end > widest:
            cut, widest = number, span.first - end
        end = max(end, span.end)
    cut = cut or len(block.spans) // 2
    return _block(block.spans[:cut]), _block(block.spans[cut:])
