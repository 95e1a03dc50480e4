"""The master of one bus: polls, calls and writes through one queue."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.modbus.addresses import shown_place
from edge_gateway.connectors.modbus.bus import Bus, CannotConnect, ConnectionGone, Refused, Silence
from edge_gateway.connectors.modbus.compiling import Action, Draft, Point, PollPlan
from edge_gateway.connectors.modbus.fields import Raw
from edge_gateway.connectors.modbus.planner import Block, Span, split
from edge_gateway.connectors.modbus.schedule import Poll, Schedule, State
from edge_gateway.connectors.modbus.settings import ModbusSettings
from edge_gateway.mapping.interface import MappingError, NoValue
from edge_gateway.mapping.paths import MISSING
from edge_gateway.mapping.problems import MappingProblems
from edge_gateway.mapping.values import shown
from edge_gateway.model import Call, CallFailed, Health, Json, Reading

_SHUNNED_S: Final = 60.0
_RECONNECT_MIN_S, _RECONNECT_MAX_S = 1.0, 30.0
_SPARE_AGAIN_S: Final = 60.0
_GONE_AFTER_S: Final = 30.0
_MAX_SILENT_IN_A_ROW: Final = 8  # without one answer in between: the connection itself is doubted
_MAX_JOBS: Final = 1_000
_MAX_TOLD: Final = 3
_SHOWN_BYTES: Final = 16
_LIMITS_OF_PLAN: Final = (1, 2, 3)  # exceptions that say the place is wrong


@dataclass(eq=False, slots=True)
class Job:
    """A call or write; goes before polls."""

    work: Callable[[Bus], Awaitable[Json]]
    done: asyncio.Future[Json]


class ModbusConnector:
    """As `Connector`."""

    def __init__(self, settings: ModbusSettings, site: Site) -> None:
        draft = Draft(settings)
        if draft.problems:
            raise MappingProblems(draft.problems)
        self._settings, self._site, self._draft = settings, site, draft
        self._jobs: deque[Job] = deque()
        self._sleepers: set[asyncio.Future[None]] = set()
        self._plans: dict[Poll, PollPlan] = {}
        self._schedule = Schedule([], now=0.0)
        self._troubles: dict[int, str] = {}  # by unit
        self._gone: set[int] = set()
        self._down = f"connecting to {draft.target}"  # why there is no connection; empty when there is
        self._spares = 0  # further connections that are open
        self._is_held = False

    # --- running -------------------------------------------------------------------------------

    async def run(self) -> None:
        """As `Connector.run`."""
        polls = []
        for plan in self._draft.polls():
            poll = Poll(plan.unit, plan.period_s)
            self._plans[poll] = plan
            polls.append(poll)
        self._schedule = Schedule(polls, now=time.monotonic(), retries=self._settings.retries)
        spares = self._settings.pipelines - 1 if self._draft.target.scheme == "tcp" else 0
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._main())
                for _ in range(spares):
                    group.create_task(self._spare())
        finally:
            self._down = "the connector has stopped"
            self._fail_jobs()

    async def _main(self) -> None:
        wait_s = _RECONNECT_MIN_S
        bus = Bus(self._draft.target, self._draft.timeout_s)
        try:
            while True:
                try:
                    await bus.open()
                    wait_s, self._down = _RECONNECT_MIN_S, ""
                    self._tell_health()
                    self._wake_all()
                    await self._serve(bus, is_spare=False)
                except (CannotConnect, ConnectionGone) as error:
                    self._down = str(error)
                    self._site.health(Health.FAILED, f"{error}; trying again")
                    self._fail_jobs()
                bus.close()
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _RECONNECT_MAX_S)
        finally:
            bus.close()

    async def _spare(self) -> None:
        """A further connection, opened when it is of use; where there can be none, the first does everything."""
        bus = Bus(self._draft.target, self._draft.timeout_s)
        try:
            while True:
                while self._down or not self._is_spare_wanted():
                    await self._pause(0.25)
                try:
                    await bus.open()
                    await self._serve_as_spare(bus)
                except (CannotConnect, ConnectionGone):
                    bus.close()
                await asyncio.sleep(_SPARE_AGAIN_S if not self._down else _RECONNECT_MIN_S)
        finally:
            bus.close()

    async def _serve_as_spare(self, bus: Bus) -> None:
        self._spares += 1
        try:
            await self._serve(bus, is_spare=True)
        finally:
            self._spares -= 1

    def _is_spare_wanted(self) -> bool:
        return self._schedule.has_doubts or self._schedule.is_behind(time.monotonic())

    async def _serve(self, bus: Bus, *, is_spare: bool) -> None:
        """Works until the connection goes. Raises: ConnectionGone."""
        silent_in_a_row = 0
        while True:
            if is_spare and self._down:
                raise ConnectionGone(self._down)
            await self._run_jobs(bus)
            now = time.monotonic()
            poll = None if self._is_congested() else self._schedule.take(
                now, is_spare=is_spare, has_spare=self._spares > 0
            )  # fmt: skip
            if poll is None:
                await self._pause(self._schedule.wait_s(now, is_spare=is_spare, has_spare=self._spares > 0), bus)
                continue
            if await self._make(poll, bus):
                silent_in_a_row = 0
                continue
            silent_in_a_row += 1
            if silent_in_a_row >= _MAX_SILENT_IN_A_ROW and not is_spare and not self._draft.target.is_serial:
                silent_in_a_row = 0
                await bus.open()

    def _is_congested(self) -> bool:
        if self._site.is_congested and not self._is_held:
            self._is_held = True
            self._site.when_room(self._released)
        return self._is_held

    def _released(self) -> None:
        self._is_held = False
        self._wake_all()

    async def _pause(self, wait_s: float, bus: Bus | None = None) -> None:
        """Until there may be something to do; ConnectionGone when the connection goes meanwhile."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.add(sleeper)
        waiting = [sleeper] if bus is None or bus.lost is None else [sleeper, bus.lost]
        try:
            await asyncio.wait(waiting, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._sleepers.discard(sleeper)
        if bus is not None and not bus.is_open:
            raise ConnectionGone(f"{self._draft.target} closed the connection")

    def _wake_all(self) -> None:
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    async def _run_jobs(self, bus: Bus) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            if job.done.done():  # its caller has given up
                continue
            try:
                result = await job.work(bus)
            except CallFailed as error:
                _settle(job.done, error=error)
            except BaseException as error:
                _settle(job.done, error=CallFailed(f"the command may or may not have arrived: {error}"))
                raise
            else:
                _settle(job.done, result)

    def _fail_jobs(self) -> None:
        while self._jobs:
            _settle(self._jobs.popleft().done, error=CallFailed(self._down))

    # --- polls ---------------------------------------------------------------------------------

    async def _make(self, poll: Poll, bus: Bus) -> bool:
        """Whether the unit answered. Raises: ConnectionGone."""
        plan, started = self._plans[poll], time.monotonic()
        try:
            found, faults = await self._read_all(plan, bus, self._timeout_of(plan.unit))
        except Silence:
            now = time.monotonic()
            self._schedule.silent(poll, now, cost_s=now - started)
            self._unit_silent(plan.unit, now)
            return False
        except BaseException:
            self._schedule.put_back(poll)
            raise
        if self._schedule.answered(poll, time.monotonic()):
            self._unit_there(plan.unit)
        self._give(plan, found, faults)
        return True

    def _timeout_of(self, unit: int) -> float:
        """A unit of a tcp connection that was never seen is waited for briefly, so that many dead ones do not hold up
        the start; it is tried again with the whole time-out a second later."""
        timeout_s = self._draft.timeout_s
        if self._draft.target.scheme == "tcp" and self._schedule.units[unit].state is State.NEW:
            return min(timeout_s, max(0.1, timeout_s / 4))
        return timeout_s

    async def _read_all(
        self, plan: PollPlan, bus: Bus, timeout_s: float
    ) -> tuple[dict[Span, tuple[Raw, float]], list[str]]:
        """The raw values and the milliseconds they took, and what was refused."""
        found: dict[Span, tuple[Raw, float]] = {}
        faults: list[str] = []
        pending = deque(plan.blocks)
        is_known = self._schedule.units[plan.unit].state is State.ALIVE
        while pending:
            block = pending.popleft()
            if is_known and plan.shunned.get(block, 0.0) > time.monotonic():
                faults.append(_refused(plan, block))
                continue
            if found or faults:
                await self._run_jobs(bus)
            started = time.monotonic()
            try:
                raw = await bus.read(plan.unit, block.table, block.first, block.count, timeout_s)
            except Refused as refused:
                halves = split(block) if refused.code in (2, 3) else None
                if halves is not None:
                    at = plan.blocks.index(block)
                    plan.blocks[at : at + 1] = halves
                    pending.extendleft(reversed(halves))
                    continue
                if refused.code in _LIMITS_OF_PLAN:
                    plan.shunned[block] = time.monotonic() + _SHUNNED_S
                faults.append(_refused(plan, block, refused))
                continue
            plan.shunned.pop(block, None)
            took_ms = (time.monotonic() - started) * 1000
            for span in block.spans:
                found[span] = (_part(raw, block, span), took_ms)
        return found, faults

    def _give(self, plan: PollPlan, found: dict[Span, tuple[Raw, float]], faults: list[str]) -> None:
        readings: dict[str, Reading] = {}
        for span, (raw, took_ms) in found.items():
            for point in plan.points[span]:
                try:
                    value = point.field.decode(raw)
                except NoValue:
                    continue
                except MappingError as error:
                    faults.append(f"{point.device}: {point.key} at {point.field.place}: {error}")
                    continue
                self._put(readings, point, value, raw, took_ms)
        if readings:
            self._site.accept(list(readings.values()))
        self._trouble(plan.unit, "; ".join(faults[:_MAX_TOLD]))

    def _put(self, readings: dict[str, Reading], point: Point, value: Json, raw: Raw, took_ms: float) -> None:
        reading = readings.get(point.device)
        if reading is None:
            reading = readings[point.device] = Reading(point.device, point.type)
        if point.is_attribute:
            reading.attributes = {**(reading.attributes or {}), point.key: value}
        else:
            reading.telemetry = {**(reading.telemetry or {}), point.key: value}
        if point.report is not None:
            reading.reports = {**(reading.reports or {}), point.key: point.report}
        if self._site.wants_raw:
            unit = f" {point.shown_unit}" if point.shown_unit else ""
            text = f"{point.field.place} raw {_shown_raw(raw)}, {took_ms:.0f} ms{unit}"
            reading.raw = {**(reading.raw or {}), point.key: text}

    # --- health --------------------------------------------------------------------------------

    def _unit_there(self, unit: int) -> None:
        self._gone.discard(unit)
        for device in self._draft.devices_of[unit]:
            self._site.seen(device, self._draft.types[device])
        self._trouble(unit, "")
        self._tell_health()

    def _unit_silent(self, unit: int, now: float) -> None:
        state = self._schedule.units[unit]
        if state.state is not State.DEAD:
            return
        if unit not in self._gone and now - state.silent_since >= _GONE_AFTER_S:
            self._gone.add(unit)
            for device in self._draft.devices_of[unit]:
                self._site.gone(device)
        self._tell_health()

    def _trouble(self, unit: int, text: str) -> None:
        if self._troubles.get(unit, "") == text:
            return
        if text:
            self._troubles[unit] = text
        else:
            del self._troubles[unit]
        self._tell_health()

    def _tell_health(self) -> None:
        if self._down:
            return
        reasons = []
        dead = self._schedule.dead_units()
        if dead:
            told = ", ".join(str(unit) for unit in sorted(dead)[:10]) + (
                f" and {len(dead) - 10} more" if dead[10:] else ""
            )
            verb = f"unit {told} does" if len(dead) == 1 else f"units {told} do"
            others = "" if len(dead) == len(self._schedule.units) else "; other units are not slowed down"
            wait = f"within {self._draft.timeout_s * 1000:.0f} ms"
            reasons.append(f"{verb} not answer {wait}: check address, wiring and power{others}")
        reasons += list(self._troubles.values())[:_MAX_TOLD]
        if len(self._troubles) > _MAX_TOLD:
            reasons.append(f"and {len(self._troubles) - _MAX_TOLD} more units with errors")
        self._site.health(Health.DEGRADED if reasons else Health.HEALTHY, "; ".join(reasons))

    @property
    def missed_polls(self) -> int:
        """Polls skipped because the bus or the unit was too slow."""
        return self._schedule.missed

    # --- the way back --------------------------------------------------------------------------

    async def call(self, call: Call) -> Json:
        """As `Connector.call`."""
        actions = self._draft.actions.get(call.device)
        if actions is None:
            raise CallFailed(f"there is no device '{call.device}' at this connector")
        action = actions.rpc.get(call.method)
        if action is None:
            known = ", ".join(sorted(actions.rpc))
            hint = f"known are {known}" if known else "its table has no rpc"
            raise CallFailed(f"{call.device} has no method '{call.method}'; {hint}")
        document = {"method": call.method, "params": call.params, "device": call.device}
        return await self._act(action, document, call.method, call.timeout_s)

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """As `Connector.attributes_changed`. A deleted attribute leaves the register as it is."""
        actions = self._draft.actions.get(device)
        failures = []
        for key, value in values.items():
            action = actions.shared.get(key) if actions is not None else None
            if action is None:
                continue
            try:
                await self._act(action, {"key": key, "value": value, "device": device}, key, 30.0)
            except CallFailed as error:
                failures.append(f"{key}: {error}")
        if failures:
            raise CallFailed("; ".join(failures))

    async def _act(self, action: Action, document: Json, name: str, timeout_s: float) -> Json:
        raw: Raw | None = None
        if action.is_write:
            value = action.constant if action.value is None else action.value.first(document, MISSING)
            if value is MISSING:
                raise CallFailed(f"{name}: {action.constant} finds nothing in {shown(document)}")
            try:
                raw = action.field.encode(value)
            except MappingError as error:
                raise CallFailed(f"{name}: {error}") from error
        if self._down:
            raise CallFailed(self._down)
        if len(self._jobs) >= _MAX_JOBS:
            raise CallFailed("too many commands wait for this bus; try again later")
        job = Job(lambda bus: self._carry_out(action, raw, bus), asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._wake_all()
        try:
            async with asyncio.timeout(timeout_s):
                return await job.done
        except TimeoutError:
            raise CallFailed(f"{name}: not carried out within {timeout_s:g} s; the bus is too busy") from None

    async def _carry_out(self, action: Action, raw: Raw | None, bus: Bus) -> Json:
        field = action.field
        try:
            if raw is None:
                return field.decode(await bus.read(action.unit, field.address.table, field.address.first, field.count))
            await self._write(action, raw, bus)
            if action.is_verified:
                await self._verify(action, raw, bus)
            return {"success": True}
        except Silence:
            wait = f"within {self._draft.timeout_s * 1000:.0f} ms: check address, wiring and power"
            raise CallFailed(f"unit {action.unit} did not answer {wait}") from None
        except Refused as refused:
            hint = "; check the place and `base`" if refused.code == 2 else ""
            raise CallFailed(f"unit {action.unit}: {refused} at {field.place}{hint}") from refused
        except MappingError as error:
            raise CallFailed(f"unit {action.unit}: {field.place}: {error}") from error

    async def _write(self, action: Action, raw: Raw, bus: Bus) -> None:
        address = action.field.address
        if address.bit is not None:
            before = int.from_bytes(bytes(await bus.read(action.unit, address.table, address.first, 1)), "big")
            mask = 1 << address.bit
            after = before | mask if raw[0] else before & ~mask
            raw = after.to_bytes(2, "big")
        await bus.write(action.unit, address.table, address.first, raw, multiple=action.is_multiple)

    async def _verify(self, action: Action, raw: Raw, bus: Bus) -> None:
        field = action.field
        there = await bus.read(action.unit, field.address.table, field.address.first, field.count)
        is_same = field.decode(there) is bool(raw[0]) if field.address.bit is not None else there == raw
        if not is_same:
            raise CallFailed(
                f"unit {action.unit} took the write to {field.place}, but {_shown_raw(there)} stands there"
            )


def _refused(plan: PollPlan, block: Block, refused: Refused | None = None) -> str:
    base = plan.points[block.spans[0]][0].field.base
    place = shown_place(block.table, block.first, block.count, base)
    code = 2 if refused is None else refused.code
    hint = {1: f"; it may have no {block.table} table", 2: "; check `at` and `base`"}.get(code, "")
    return f"unit {plan.unit}: {refused or Refused(code)} at {place}{hint}"


def _settle(done: asyncio.Future[Any], result: Json = None, error: Exception | None = None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def _part(raw: Raw, block: Block, span: Span) -> Raw:
    at = span.first - block.first
    return raw[at : at + span.count] if isinstance(raw, list) else raw[at * 2 : (at + span.count) * 2]


def _shown_raw(raw: Raw) -> str:
    if isinstance(raw, list):
        return "".join("1" if bit else "0" for bit in raw[: _SHOWN_BYTES * 2])
    return " ".join(f"0x{raw[at : at + 2].hex().upper()}" for at in range(0, min(len(raw), _SHOWN_BYTES), 2))
