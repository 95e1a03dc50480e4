"""The client of one server: subscriptions, polls, calls; connected again when the connection goes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.opcua.browse import Browser, Device, Found, Item
from edge_gateway.connectors.opcua.compiling import Action, Draft
from edge_gateway.connectors.opcua.library import UaError, ua
from edge_gateway.connectors.opcua.session import Lost, Session
from edge_gateway.connectors.opcua.settings import OpcuaSettings
from edge_gateway.connectors.opcua.values import converted, to_json, to_variant
from edge_gateway.mapping.interface import MappingError, NoValue
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.mapping.times import plausible
from edge_gateway.model import Call, CallFailed, Health, Json, Reading

logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what it says there, health says in words

_RECONNECT_MIN_S, _RECONNECT_MAX_S = 1.0, 30.0
_CHUNK: Final = 500  # nodes in one request
_MAX_TOLD: Final = 3


class OpcuaConnector:
    """As `Connector`."""

    def __init__(self, settings: OpcuaSettings, site: Site) -> None:
        draft = Draft(settings)
        if draft.problems:
            raise MappingProblems(draft.problems)
        self._settings, self._site, self._draft = settings, site, draft
        self._session: Session | None = None
        self._down = f"connecting to {settings.connect}"
        self._found = Found()
        self._items: dict[Any, list[Item]] = {}  # by node
        self._bad: dict[Item, str] = {}  # without a good value now, and why
        self._source_ms: dict[Item, int] = {}  # of polled values
        self._pending: list[tuple[Item, Any]] = []  # data values of one turn of the loop
        self._held: dict[Item, Any] = {}  # the newest while the gateway has no room
        self._is_held = False
        self.bad_values = 0

    # --- running -------------------------------------------------------------------------------

    async def run(self) -> None:
        """As `Connector.run`."""
        wait_s = _RECONNECT_MIN_S
        while True:
            session = Session(self._settings, self._draft)
            try:
                await session.open()
                self._session, self._down, wait_s = session, "", _RECONNECT_MIN_S
                await self._work(session)
            except Lost as error:
                self._down = str(error)
                self._site.health(Health.FAILED, f"{error}; trying again")
            finally:
                self._session = None
                await session.close()
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _RECONNECT_MAX_S)

    async def _work(self, session: Session) -> None:
        """Until the connection goes. Raises: Lost."""
        subscription: Any = None
        known: Any = None
        polls: list[asyncio.Task[None]] = []
        try:
            while True:
                found = await session.ask(Browser(session.client).find(self._draft))
                wanted = (found.items, list(found.devices))
                if wanted != known:
                    for poll in polls:
                        poll.cancel()
                    self._take_over(found)
                    if subscription is not None:
                        await session.ask(subscription.delete())
                    subscription = await self._subscribe(session, found.items)
                    polls = self._start_polls(session, found.items)
                    known = wanted
                self._found = found
                self._tell_health()
                await session.wait(self._draft.browse_every_s or None, polls)
        finally:
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, return_exceptions=True)

    def _take_over(self, found: Found) -> None:
        for name in self._found.devices:
            if name not in found.devices:
                self._site.gone(name)
        for name, devices in found.devices.items():
            self._site.seen(name, devices[0].type)
        self._found = found
        self._items = {}
        for item in found.items:
            self._items.setdefault(item.node, []).append(item)
        self._bad = {}

    def _start_polls(self, session: Session, items: list[Item]) -> list[asyncio.Task[None]]:
        by_period: dict[float, list[Item]] = {}
        for item in items:
            if item.wanted.every_s > 0:
                by_period.setdefault(item.wanted.every_s, []).append(item)
        return [asyncio.ensure_future(self._poll(session, period_s, those)) for period_s, those in by_period.items()]

    async def _poll(self, session: Session, period_s: float, items: list[Item]) -> None:
        """Reads never pile up: a period that was missed is left out."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for at in range(0, len(items), _CHUNK):
                chunk = items[at : at + _CHUNK]
                nodes = [session.client.get_node(item.node) for item in chunk]
                answers = await session.ask(session.client.read_attributes(nodes, ua.AttributeIds.Value))
                if not self._is_congested():
                    self._give(list(zip(chunk, answers, strict=True)), is_polled=True)
            due += period_s * max(1, int((loop.time() - due) / period_s))
            await asyncio.sleep(max(0.0, due - loop.time()))

    # --- subscription --------------------------------------------------------------------------

    async def _subscribe(self, session: Session, items: list[Item]) -> Any:
        """The subscription, or None where everything is polled."""
        wanted: dict[tuple[Any, float], Item] = {}
        for item in items:
            if item.wanted.every_s == 0:
                wanted.setdefault((item.node, item.wanted.dead_band), item)
        if not wanted:
            return None
        subscription = await session.ask(session.client.create_subscription(self._draft.publishing_s * 1000, self))
        by_band: dict[float, list[Any]] = {}
        for node, band in wanted:
            by_band.setdefault(band, []).append(node)
        for band, nodes in by_band.items():
            for at in range(0, len(nodes), _CHUNK):
                chunk = nodes[at : at + _CHUNK]
                results = await session.ask(
                    subscription._subscribe(
                        [session.client.get_node(node) for node in chunk],
                        mfilter=_dead_band(band),
                        sampling_interval=self._draft.sampling_s * 1000 or -1,
                        queuesize=10,
                    )
                )
                for node, result in zip(chunk, results, strict=True):
                    if isinstance(result, ua.StatusCode):
                        for item in self._items.get(node, ()):
                            self._bad[item] = result.name
        return subscription

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        """Called by asyncua for each value."""
        band = _band_of(data.subscription_data.mfilter)
        for item in self._items.get(node.nodeid, ()):
            if item.wanted.every_s == 0 and item.wanted.dead_band == band:
                if not self._pending:
                    asyncio.get_running_loop().call_soon(self._flush)
                self._pending.append((item, data.monitored_item.Value))

    def status_change_notification(self, status: Any) -> None:
        """Called by asyncua when the server ends the subscription: everything is set up anew."""
        if self._session is not None:
            self._session.lose("the server has ended the subscription")

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if self._is_congested():
            self._held |= dict(pending)
        else:
            self._give(pending)

    def _is_congested(self) -> bool:
        if self._site.is_congested and not self._is_held:
            self._is_held = True
            self._site.when_room(self._released)
        return self._is_held

    def _released(self) -> None:
        self._is_held = False
        held, self._held = self._held, {}
        self._give(list(held.items()))

    # --- values --------------------------------------------------------------------------------

    def _give(self, values: Sequence[tuple[Item, Any]], *, is_polled: bool = False) -> None:
        """Values of one device and time are one reading."""
        readings: dict[tuple[str, int | None], Reading] = {}
        for item, data in values:
            try:
                value = self._value_of(item, data)
            except NoValue:
                continue
            except MappingError as error:
                self._is_bad(item, str(error))
                continue
            ts_ms = self._time_of(item, data, is_polled)
            reading = readings.get((item.device, ts_ms))
            if reading is None:
                reading = readings[item.device, ts_ms] = Reading(item.device, item.type, ts_ms)
            self._put(reading, item, value, data)
        if readings:
            self._site.accept(list(readings.values()))

    def _value_of(self, item: Item, data: Any) -> Json:
        status = data.StatusCode
        if status is not None and status.is_bad():
            self.bad_values += 1
            self._is_bad(item, status.name)
            raise NoValue(status.name)
        value = converted(data.Value, item.wanted.type, item.wanted.scale, item.wanted.offset)
        if self._bad.pop(item, None) is not None:
            self._tell_health()
        return value

    def _is_bad(self, item: Item, why: str) -> None:
        if self._bad.get(item) != why:
            self._bad[item] = why
            self._tell_health()

    def _time_of(self, item: Item, data: Any, is_polled: bool) -> int | None:
        """The source's time. A polled value that has not changed since is one of now."""
        source = data.SourceTimestamp
        if source is None:
            return None
        ts_ms = _milliseconds(source)
        if not plausible(ts_ms, int(time.time() * 1000)):
            return None
        if is_polled:
            if self._source_ms.get(item) == ts_ms:
                return None
            self._source_ms[item] = ts_ms
        return ts_ms

    def _put(self, reading: Reading, item: Item, value: Json, data: Any) -> None:
        if item.wanted.is_attribute:
            reading.attributes = {**(reading.attributes or {}), item.key: value}
        else:
            reading.telemetry = {**(reading.telemetry or {}), item.key: value}
        if item.wanted.report is not None:
            reading.reports = {**(reading.reports or {}), item.key: item.wanted.report}
        if self._site.wants_raw:
            kind = data.Value.VariantType.name if data.Value is not None else "nothing"
            unit = f" {item.wanted.shown_unit}" if item.wanted.shown_unit else ""
            quality = data.StatusCode.name if data.StatusCode is not None else "Good"
            reading.raw = {**(reading.raw or {}), item.key: f"{item.node.to_string()} {kind}, {quality}{unit}"}

    def _tell_health(self) -> None:
        if self._down:
            return
        reasons = self._found.faults[:_MAX_TOLD]
        if self._found.faults[_MAX_TOLD:]:
            reasons.append(f"and {len(self._found.faults) - _MAX_TOLD} more paths that find nothing")
        if self._bad:
            item, why = next(iter(self._bad.items()))
            count = f"{len(self._bad)} values are" if len(self._bad) > 1 else "a value is"
            reasons.append(f"{count} without good quality: {item.device} {item.key} ({item.node.to_string()}): {why}")
        self._site.health(Health.DEGRADED if reasons else Health.HEALTHY, "; ".join(reasons))

    # --- the way back --------------------------------------------------------------------------

    async def call(self, call: Call) -> Json:
        """As `Connector.call`."""
        session = self._session_now()
        devices = self._found.devices.get(call.device)
        if devices is None:
            raise CallFailed(f"there is no device '{call.device}' on the server now")
        for device in devices:
            if call.method in device.rpc:
                document = {"method": call.method, "params": call.params, "device": call.device}
                return await self._act(session, device, device.rpc[call.method], document, call.timeout_s)
        known = ", ".join(sorted({name for device in devices for name in device.rpc}))
        hint = f"known are {known}" if known else "its table has no rpc"
        raise CallFailed(f"{call.device} has no method '{call.method}'; {hint}")

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """As `Connector.attributes_changed`. A deleted attribute leaves the node as it is."""
        failures = []
        for one in self._found.devices.get(device, ()):
            for key, value in values.items():
                if key not in one.shared:
                    continue
                document = {"key": key, "value": value, "device": device}
                try:
                    await self._act(self._session_now(), one, one.shared[key], document, 30.0)
                except CallFailed as error:
                    failures.append(f"{key}: {error}")
        if failures:
            raise CallFailed("; ".join(failures))

    def _session_now(self) -> Session:
        if self._session is None:
            raise CallFailed(self._down or f"no connection to {self._settings.connect}")
        return self._session

    async def _act(self, session: Session, device: Device, action: Action, document: Json, timeout_s: float) -> Json:
        try:
            async with asyncio.timeout(timeout_s):
                return await session.ask(self._carry_out(session, device, action, document))
        except TimeoutError:
            raise CallFailed(f"{action.place.text}: not carried out within {timeout_s:g} s") from None
        except Lost as error:
            raise CallFailed(f"the command may or may not have arrived: {error}") from error
        except MappingError as error:
            raise CallFailed(f"{action.place.text}: {error}") from error
        except UaError as error:
            raise CallFailed(f"{action.place.text}: {_in_words(error)}") from error

    async def _carry_out(self, session: Session, device: Device, action: Action, document: Json) -> Json:
        browser = Browser(session.client)
        matches = await browser.matches(action.place, device.base)
        if not matches:
            raise MappingError(await browser.why_nothing(action.place, device.base))
        node = session.client.get_node(matches[0][0])
        if action.kind == "read":
            return to_json(await node.read_value())
        if action.kind == "write":
            variant = to_variant(action.value.value(document), await node.read_data_type_as_variant_type())
            await node.write_value(ua.DataValue(variant))  # without times: many servers refuse those of a client
            return {"success": True}
        parent = matches[0][1]
        owner = session.client.get_node(parent) if parent is not None else await node.get_parent()
        given = [source.value(document) for source in action.args]
        return to_json(await owner.call_method(node.nodeid, *await _arguments(node, given)))


async def _arguments(method: Any, given: list[Json]) -> list[Any]:
    """`given` in the types of the method's InputArguments. Raises: MappingError."""
    declared: list[Any] = []
    for child in await method.get_properties():
        if (await child.read_browse_name()).Name == "InputArguments":
            declared = await child.read_value() or []
    if len(declared) != len(given):
        names = ", ".join(one.Name or "?" for one in declared)
        raise MappingError(f"the method takes {len(declared)} arguments ({names}); `args` gives {len(given)}")
    return [to_variant(value, _variant_type(one.DataType)) for value, one in zip(given, declared, strict=True)]


def _variant_type(node: Any) -> Any:
    if node.NamespaceIndex == 0 and isinstance(node.Identifier, int) and 1 <= node.Identifier <= 25:
        return ua.VariantType(node.Identifier)
    raise MappingError(f"arguments of the type {node.to_string()} cannot be given")


def _dead_band(band: float) -> Any:
    if band == 0:
        return None
    absolute = ua.uaprotocol_auto.DeadbandType.Absolute
    return ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValue, DeadbandType=absolute, DeadbandValue=band)


def _band_of(filter: Any) -> float:
    return float(filter.DeadbandValue) if isinstance(filter, ua.DataChangeFilter) else 0.0


def _milliseconds(source: datetime) -> int:
    aware = source if source.tzinfo else source.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)


def _in_words(error: Exception) -> str:
    hints = {
        "BadNotWritable": "the node cannot be written",
        "BadUserAccessDenied": "the user may not do that; give `user` and `password` of one who may",
        "BadNodeIdUnknown": "there is no such node on the server",
        "BadTypeMismatch": "the server wants another type",
        "BadOutOfRange": "the server takes the value for too great or too small",
    }
    name = type(error).__name__
    return f"{hints[name]} ({name})" if name in hints else f"{name}: {error}"
