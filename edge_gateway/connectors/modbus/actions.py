"""Calls and shared attributes: a value is read from, or written to, a slave."""

from __future__ import annotations

from typing import Final

from edge_gateway.connectors.modbus.bus import ILLEGAL_FUNCTION, Bus, BusLost, Refused, Silent
from edge_gateway.connectors.modbus.faults import refusal_text, unreachable_text
from edge_gateway.connectors.modbus.fields import Raw
from edge_gateway.connectors.modbus.links import Link
from edge_gateway.connectors.modbus.polling import shown_raw
from edge_gateway.connectors.modbus.slaves import Action, Slave
from edge_gateway.mapping.interface import MappingError, NoValue
from edge_gateway.mapping.paths import MISSING
from edge_gateway.mapping.values import shown
from edge_gateway.model import CallFailed, Json

_REGISTER: Final = 2  # bytes


async def perform(action: Action, slave: Slave, bus: Bus, link: Link, document: Json) -> Json:
    """What was read, or the value that was written. It goes before polls. Raises: CallFailed."""
    place = action.field.place
    try:
        if not action.is_write:
            return await _read(action, slave, bus)
        value = action.value.first(document, MISSING)
        if value is MISSING:
            raise CallFailed(f"there is no value to write to {place} in {shown(document)}; see `value` of the mapping")
        raw = action.field.encode(value)
        async with bus.turn(is_urgent=True):
            await _write(action, slave, bus, raw)
        return value
    except Silent as silent:
        text = f"unit {slave.unit} does not answer at {link} ({silent}); check power, wiring and the unit number"
        raise CallFailed(text) from silent
    except Refused as refused:
        raise CallFailed(f"unit {slave.unit}: {refusal_text(refused, place, is_write=action.is_write)}") from refused
    except BusLost as lost:
        raise CallFailed(unreachable_text(link, str(lost))) from lost
    except MappingError as error:
        raise CallFailed(f"unit {slave.unit}, {place}: {error}") from error


async def _read(action: Action, slave: Slave, bus: Bus) -> Json:
    async with bus.turn(is_urgent=True):
        raw = await _fetch(action, slave, bus)
    try:
        return action.field.decode(raw)
    except NoValue:
        return None


async def _fetch(action: Action, slave: Slave, bus: Bus) -> Raw:
    address = action.field.address
    return await bus.read(slave.unit, address.table, address.first, action.field.count)


async def _write(action: Action, slave: Slave, bus: Bus, raw: Raw) -> None:
    """In one turn of the bus, so that nobody comes between the requests of a bit or of `verify`."""
    address = action.field.address
    if address.bit is not None:
        assert isinstance(raw, list)
        register = int.from_bytes(bytes(await _fetch(action, slave, bus)), "big")
        mask = 1 << address.bit
        raw = (register | mask if raw[0] else register & ~mask).to_bytes(_REGISTER, "big")
    try:
        await bus.write(slave.unit, address.table, address.first, raw, multiple=action.multiple)
    except Refused as refused:
        is_single = action.field.count == 1
        if refused.code != ILLEGAL_FUNCTION or not is_single:
            raise
        await bus.write(slave.unit, address.table, address.first, raw, multiple=not action.multiple)
    if action.verify:
        kept = await _fetch(action, slave, bus)
        if kept != raw:
            raise CallFailed(
                f"unit {slave.unit} took the value at {action.field.place}, but {shown_raw(kept)} stands there and not "
                f"{shown_raw(raw)}; it may be limited, read-only or locked"
            )
