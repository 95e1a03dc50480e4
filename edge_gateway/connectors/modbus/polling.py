"""One poll of a slave: its blocks are read, what they hold becomes a reading."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.modbus.addresses import shown_place
from edge_gateway.connectors.modbus.bus import ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, Bus, Refused, Silent
from edge_gateway.connectors.modbus.faults import Faults, refusal_text
from edge_gateway.connectors.modbus.fields import Raw
from edge_gateway.connectors.modbus.planner import Block
from edge_gateway.connectors.modbus.slaves import Group, Point, Slave
from edge_gateway.mapping.interface import MappingError, NoValue
from edge_gateway.model import Json, Reading, ReportRule

REFUSED_AGAIN_S: Final = 60.0  # what a slave does not have is asked for so seldom
_MAX_RAW_WORDS: Final = 16


@dataclass(slots=True)
class _Found:
    telemetry: dict[str, Json] = field(default_factory=dict)
    attributes: dict[str, Json] = field(default_factory=dict)
    reports: dict[str, ReportRule] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)


class Polling:
    """Reads groups. What goes wrong with single blocks is noted in `faults`."""

    def __init__(self, site: Site, faults: Faults) -> None:
        self._site = site
        self._faults = faults

    async def read(self, slave: Slave, group: Group, bus: Bus, *, timeout_s: float | None = None) -> Reading | None:
        """What could be read. Raises: Silent when the slave did not answer to the first block; BusLost."""
        found = _Found()
        has_answered = False
        pending = list(group.blocks)
        while pending:
            block = pending.pop(0)
            if group.refused_until.get(block, 0.0) > asyncio.get_running_loop().time():
                continue
            try:
                raw, took_s = await self._block(slave, block, bus, timeout_s, has_answered)
            except Refused as refused:
                pending[:0] = self._refused(slave, group, block, refused)
                has_answered = True
                continue
            except Silent:
                if not has_answered:
                    raise
                self._fault(slave, group, block, "no answer, though it answers elsewhere; check `at`")
                continue
            has_answered = True
            group.refused_until.pop(block, None)
            self._faults.gone(slave.unit, _place(slave, block))
            self._decode(slave, group, block, raw, took_s, found)
        return self._reading(slave, found)

    @staticmethod
    async def _block(
        slave: Slave, block: Block, bus: Bus, timeout_s: float | None, has_answered: bool
    ) -> tuple[Raw, float]:
        """A slave that has just answered gets a second chance, and its full time, before a block of it is doubted."""
        async with bus.turn():
            try:
                raw = await bus.read(slave.unit, block.table, block.first, block.count, timeout_s=timeout_s)
            except Silent:
                if not has_answered:
                    raise
                raw = await bus.read(slave.unit, block.table, block.first, block.count)
            return raw, bus.last_s

    def _refused(self, slave: Slave, group: Group, block: Block, refused: Refused) -> list[Block]:
        """What to read instead."""
        if refused.code in (ILLEGAL_ADDRESS, ILLEGAL_VALUE) and (parts := group.split(block)):
            return parts
        is_lasting = refused.code in (ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE)
        self._fault(slave, group, block, refusal_text(refused, _place(slave, block)), is_lasting=is_lasting)
        return []

    def _fault(self, slave: Slave, group: Group, block: Block, text: str, *, is_lasting: bool = True) -> None:
        place = _place(slave, block)
        if is_lasting:
            group.refused_until[block] = asyncio.get_running_loop().time() + REFUSED_AGAIN_S
        self._faults.note(slave.unit, place, text if place in text else f"{text} ({place})")

    # --- values ----------------------------------------------------------------------------------

    def _decode(self, slave: Slave, group: Group, block: Block, raw: Raw, took_s: float, found: _Found) -> None:
        wants_raw = self._site.wants_raw
        for point in group.points_of(block):
            part = _part(point, block, raw)
            try:
                value = point.field.decode(part)
            except NoValue:
                continue
            except MappingError as error:
                source = f"unit {slave.unit} {point.field.place}"
                payload = bytes(part)
                self._site.reject(source, payload, f"{point.key}: {error}; check `as` and `words`")
                continue
            (found.attributes if point.is_attribute else found.telemetry)[point.key] = value
            if point.report is not None:
                found.reports[point.key] = point.report
            if wants_raw:
                found.raw[point.key] = f"{point.field.place} raw {shown_raw(part)}, {took_s * 1000:.0f} ms"

    @staticmethod
    def _reading(slave: Slave, found: _Found) -> Reading | None:
        if not found.telemetry and not found.attributes:
            return None
        return Reading(
            device=slave.device,
            type=slave.type,
            telemetry=found.telemetry or None,
            attributes=found.attributes or None,
            reports=found.reports or None,
            raw=found.raw or None,
        )


def _part(point: Point, block: Block, raw: Raw) -> Raw:
    at = point.field.address.first - block.first
    width = 1 if isinstance(raw, list) else 2
    return raw[at * width : (at + point.field.count) * width]


def _place(slave: Slave, block: Block) -> str:
    return shown_place(block.table, block.first, block.count, slave.base)


def shown_raw(raw: Raw) -> str:
    """`0x447F 0x2000`, or `1 0 1`."""
    if isinstance(raw, list):
        return " ".join("1" if bit else "0" for bit in raw[:_MAX_RAW_WORDS])
    words = [f"0x{raw[at : at + 2].hex().upper()}" for at in range(0, len(raw), 2)]
    return " ".join(words[:_MAX_RAW_WORDS])
