"""From DataValues to readings.

`Any` stands for asyncua's objects, whose types are partial."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Enum
from functools import partial
from typing import Any, Final

import msgspec

from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.opcua.library import ua
from edge_gateway.connectors.opcua.settings import MAX_VALUE_BYTES
from edge_gateway.connectors.opcua.surveying import Point
from edge_gateway.connectors.opcua.troubles import Troubles
from edge_gateway.connectors.opcua.values import epoch_ms, of_variant
from edge_gateway.mapping.interface import MappingError, NoValue
from edge_gateway.mapping.values import shown
from edge_gateway.model import Content, Json, Reading, Refusal

_PLAIN: Final = (int, float, bool)
_OVERFLOW: Final = 0x480  # InfoType DataValue, Overflow (part 4, 7.39)
_MIN_RETRY_S: Final = 0.05


class Taking:
    """Makes readings of what the server says, and hands them over."""

    def __init__(self, site: Site, troubles: Troubles, timestamp: str) -> None:
        self._site = site
        self._troubles = troubles
        self._timestamp = timestamp
        self.names: dict[Point, type[Enum]] = {}  # enumerations whose values are told by name

    async def room(self) -> None:
        """Returns when the gateway can take more."""
        while self._site.is_congested:
            room = asyncio.Event()
            self._site.when_room(room.set)
            await room.wait()

    async def accept(self, values: Iterable[tuple[Point, Any]]) -> None:
        """Returns when the values are durable; waits while the gateway refuses them for now.

        Each device is a call of its own: one that is not allowed must not keep the others out."""
        waiting: dict[str, list[Reading]] = {}
        for reading in self.readings(values):
            waiting.setdefault(reading.device, []).append(reading)
        while waiting:
            await self.room()
            refusals = await asyncio.gather(*[self._offer(readings) for readings in waiting.values()])
            delays_s = {
                device: refusal.retry_after_s
                for device, refusal in zip(waiting, refusals, strict=True)
                if refusal is not None and refusal.retry_after_s is not None
            }
            waiting = {device: waiting[device] for device in delays_s}
            if delays_s:
                await asyncio.sleep(max(*delays_s.values(), _MIN_RETRY_S))

    def _offer(self, readings: list[Reading]) -> asyncio.Future[Refusal | None]:
        outcome: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._site.accept(readings, partial(_settle, outcome))
        return outcome

    def readings(self, values: Iterable[tuple[Point, Any]]) -> list[Reading]:
        """One reading for all keys of a device that have the same time."""
        open_readings: dict[tuple[str, int | None], Reading] = {}
        readings: list[Reading] = []
        for point, value in values:
            try:
                json = self._checked(point, value)
            except NoValue:
                self._troubles.remove(point.key)
                continue
            except MappingError as error:
                self._reject(point, value, str(error))
                continue
            self._settle_trouble(point, value)
            ts_ms = self._time(value)
            place = (point.key.device, ts_ms)
            reading = open_readings.get(place)
            if reading is None or point.key.key in self._values(reading, point):
                reading = open_readings[place] = Reading(point.key.device, point.type, ts_ms)
                readings.append(reading)
            self._put(reading, point, json, value)
        return readings

    def _settle_trouble(self, point: Point, value: Any) -> None:
        """A good value ends the trouble with its node, unless the server says that it lost others before."""
        if value.StatusCode is None or value.StatusCode.value & _OVERFLOW != _OVERFLOW:
            self._troubles.remove(point.key)
            return
        why = "the server dropped values before this one; raise queue, or shorten publishing"
        self._troubles.add(point.key, f"{point.source}: {why}")
        self._site.reject(point.source, b"", why)

    def _values(self, reading: Reading, point: Point) -> dict[str, Json]:
        is_telemetry = point.key.content is Content.TELEMETRY
        values = reading.telemetry if is_telemetry else reading.attributes
        if values is None:
            values = {}
            if is_telemetry:
                reading.telemetry = values
            else:
                reading.attributes = values
        assert isinstance(values, dict)
        return values

    def _put(self, reading: Reading, point: Point, json: Json, value: Any) -> None:
        key = point.key.key
        self._values(reading, point)[key] = json
        if point.line.report is not None:
            reports = reading.reports = reading.reports if isinstance(reading.reports, dict) else {}
            reports[key] = point.line.report
        if self._site.wants_raw:
            kind = getattr(value.Value.VariantType, "name", "")
            reading.raw = {**(reading.raw or {}), key: f"{point.key.node_id.to_string()} {kind} {shown(json)}"}

    def _checked(self, point: Point, value: Any) -> Json:
        """Raises: MappingError, NoValue."""
        status = value.StatusCode
        if status is not None and status.is_bad():
            raise MappingError(f"bad quality: {status.name}")
        raw = value.Value.Value if value.Value is not None else None
        if isinstance(raw, str | bytes) and len(raw) > MAX_VALUE_BYTES:
            raise MappingError(_too_big(len(raw)))
        json = point.line.convert(self._name(point, raw) or of_variant(value.Value))
        if not isinstance(json, _PLAIN):
            size = len(msgspec.json.encode(json))
            if size > MAX_VALUE_BYTES:
                raise MappingError(_too_big(size))
        return json

    def _name(self, point: Point, raw: Any) -> str | None:
        """The name of an enumeration's value, for a line that wants text."""
        names = self.names.get(point)
        if names is None or not isinstance(raw, int):
            return None
        return next((member.name for member in names if member.value == raw), None)

    def _reject(self, point: Point, value: Any, why: str) -> None:
        self._troubles.add(point.key, f"{point.source}: {why}")
        raw = value.Value.Value if value.Value is not None else None
        payload = raw[:1024] if isinstance(raw, bytes) else str(raw)[:1024].encode("utf-8", "replace")
        self._site.reject(point.source, b"" if raw is None else payload, why)

    def _time(self, value: Any) -> int | None:
        if self._timestamp == "gateway":
            return None
        if self._timestamp == "source" and (source_ms := epoch_ms(value.SourceTimestamp)) is not None:
            return source_ms
        return epoch_ms(value.ServerTimestamp)


def _settle(outcome: asyncio.Future[Refusal | None], refusal: Refusal | None) -> None:
    if not outcome.done():
        outcome.set_result(refusal)


def _too_big(size: int) -> str:
    return f"the value has {size} bytes; at most {MAX_VALUE_BYTES // 1024} KiB are taken: choose a smaller node"


def enumeration(data_type: Any) -> type[Enum] | None:
    """The enumeration of a data type, None when it is none that the server describes."""
    found = ua.enums_by_datatype.get(data_type)
    if found is None and data_type.NamespaceIndex == 0:
        found = getattr(ua, ua.ObjectIdNames.get(data_type.Identifier, ""), None)
    return found if isinstance(found, type) and issubclass(found, Enum) else None
