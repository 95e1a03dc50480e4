"""The master of a bus: polls its slaves, and carries out calls between the polls."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from edge_gateway.connectors.interface import ConnectorKind, Site
from edge_gateway.connectors.modbus.actions import perform
from edge_gateway.connectors.modbus.bus import Bus, BusLost, Silent
from edge_gateway.connectors.modbus.faults import Faults, silent_text, unreachable_text
from edge_gateway.connectors.modbus.polling import Polling
from edge_gateway.connectors.modbus.schedule import Poll, Schedule, State
from edge_gateway.connectors.modbus.settings import ModbusSettings
from edge_gateway.connectors.modbus.slaves import Action, Slave, check, compile_plant
from edge_gateway.mapping.problems import did_you_mean
from edge_gateway.model import Call, CallFailed, Health, Json

RECONNECT_MIN_S: Final = 1.0
RECONNECT_MAX_S: Final = 60.0
LOAD_EVERY_S: Final = 60.0
STALE_S: Final = 30.0  # nobody answers for so long: the connection may be one that only we believe in
_MISSED_SHARE: Final = 0.05
_SPARE_IDLE_S: Final = 60.0
_PATIENCE_MIN_S: Final = 0.05
_PATIENCE_LESS: Final = 0.999
_LOST = "the connection was lost"


class Modbus:
    """One `[[modbus]]` table at work.

    Over TCP a second connection asks the units that are silent. The first one then waits for an answer only for
    `_patience_s`, which is far less than the timeout: whoever is slower is asked again on the second one, and when it
    turns out to be alive the patience grows. Thus even many units that die at once hold nobody up."""

    def __init__(self, settings: ModbusSettings, site: Site) -> None:
        plant = compile_plant(settings)
        self._settings = settings
        self._site = site
        self._link = plant.link
        self._slaves = plant.slaves
        self._by_device = {slave.device: slave for slave in plant.slaves}
        self._jobs = {
            Poll(slave.unit, group.period_s): (slave, group) for slave in plant.slaves for group in slave.groups
        }
        self._schedule = Schedule(
            list(self._jobs), now=0.0, retries=settings.retries, try_cost_s=settings.timeout
        )  # `resume` brings it to the present
        self._main = Bus(self._link, timeout_s=settings.timeout, pause_s=settings.pause)
        self._spare = Bus(self._link, timeout_s=settings.timeout, pause_s=settings.pause)
        self._woken, self._doubted = asyncio.Event(), asyncio.Event()
        self._present: set[int] = set()  # units that have answered
        self._faults = Faults()
        self._polling = Polling(site, self._faults)
        self._has_second = settings.connections == 2 and not plant.link.is_rtu
        self._has_spare = self._has_second  # while the second connection can be had
        self._patience_s = min(settings.timeout, _PATIENCE_MIN_S)
        self._reconnect_s = RECONNECT_MIN_S
        self._load = ""
        self._heard_at = 0.0  # when somebody answered last

    async def run(self) -> None:
        """As `Connector.run`."""
        try:
            while True:
                await self._connect_and_serve()
        finally:
            self._main.close()
            self._spare.close()

    # --- connection ------------------------------------------------------------------------------

    async def _connect_and_serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._main.open()
        except BusLost as error:
            self._everybody_gone()
            self._site.health(Health.FAILED, unreachable_text(self._link, str(error)))
        else:
            self._schedule.resume(loop.time())
            for slave in self._slaves:
                if not slave.groups:  # it is never read: known from the start, so that it can be called
                    self._site.seen(slave.device, slave.type)
            self._heard_at = loop.time()
            self._report()
            await self._serve()
            is_stale = self._main.is_open
            self._main.close()
            self._spare.close()
            if is_stale:
                return
            text = unreachable_text(self._link, f"{_LOST}; trying again in {self._reconnect_s:g} s")
            self._site.health(Health.DEGRADED, text)
        await asyncio.sleep(self._reconnect_s)
        self._reconnect_s = min(self._reconnect_s * 2, RECONNECT_MAX_S)

    async def _serve(self) -> None:
        """Until the connection is lost. An error of a lane is ours."""
        lanes = [self._main.lost(), self._main_lane(), self._load_lane()]
        if self._has_second:
            lanes.append(self._spare_lane())
        if not self._link.is_serial:
            lanes.append(self._stale_lane())
        tasks = [asyncio.ensure_future(lane) for lane in lanes]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            with contextlib.suppress(BusLost, asyncio.CancelledError):
                task.result()

    def _everybody_gone(self) -> None:
        for unit in sorted(self._present):
            self._is_gone(unit)

    def _is_gone(self, unit: int) -> None:
        if unit in self._present:
            self._present.discard(unit)
            for slave in self._of_unit(unit):
                self._site.gone(slave.device)

    def _of_unit(self, unit: int) -> list[Slave]:
        return [slave for slave in self._slaves if slave.unit == unit]

    # --- lanes -----------------------------------------------------------------------------------

    async def _main_lane(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room()
            poll = self._schedule.take(loop.time(), has_spare=self._has_spare)
            if poll is None:
                await _wait(self._woken, self._schedule.wait_s(loop.time(), has_spare=self._has_spare))
            else:
                await self._poll(poll, self._main)

    async def _spare_lane(self) -> None:
        loop = asyncio.get_running_loop()
        used_at = loop.time()
        while True:
            await self._room()
            poll = self._schedule.take_try(loop.time())
            if poll is None:
                await _wait(self._doubted, self._schedule.try_wait_s(loop.time()))
                if loop.time() - used_at > _SPARE_IDLE_S:
                    self._spare.close()
                continue
            used_at = loop.time()
            try:
                if not self._spare.is_open:
                    await self._open_spare(poll)
                await self._poll(poll, self._spare)
            except BusLost:
                await self._without_spare()

    async def _open_spare(self, poll: Poll) -> None:
        try:
            await self._spare.open()
        except (BusLost, asyncio.CancelledError):
            self._schedule.put_back(poll)
            raise

    async def _without_spare(self) -> None:
        """There is but one connection to be had for now: the main lane makes the attempts in its gaps."""
        self._has_spare = False
        self._woken.set()
        try:
            await asyncio.sleep(_SPARE_IDLE_S)
        finally:
            self._has_spare = True

    async def _room(self) -> None:
        """Waits until the gateway can take more."""
        while self._site.is_congested:
            room = asyncio.Event()
            self._site.when_room(room.set)
            await room.wait()

    # --- polls -----------------------------------------------------------------------------------

    async def _poll(self, poll: Poll, bus: Bus) -> None:
        """Raises: BusLost."""
        slave, group = self._jobs[poll]
        loop = asyncio.get_running_loop()
        began = loop.time()
        is_main = bus is self._main
        timeout_s = self._patience_s if is_main and self._has_spare else None
        was_doubted = self._schedule.units[poll.unit].state is State.DOUBTED
        try:
            reading = await self._polling.read(slave, group, bus, timeout_s=timeout_s)
        except Silent:
            now = loop.time()
            if self._schedule.silent(poll, now, cost_s=now - began if is_main else 0.0):
                self._is_gone(poll.unit)
                self._report()
            self._doubted.set()
        except (BusLost, asyncio.CancelledError):
            self._schedule.put_back(poll)
            raise
        else:
            self._schedule.answered(poll, loop.time())
            self._is_heard(slave)
            self._adjust_patience(is_slow=was_doubted and not is_main)
            if reading is not None:
                self._site.accept([reading])
        if self._faults.has_changed:
            self._report()

    def _is_heard(self, slave: Slave) -> None:
        self._reconnect_s = RECONNECT_MIN_S
        self._heard_at = asyncio.get_running_loop().time()
        if slave.unit not in self._present:
            self._present.add(slave.unit)
            for one in self._of_unit(slave.unit):
                self._site.seen(one.device, one.type)
            self._woken.set()
            self._report()

    def _adjust_patience(self, *, is_slow: bool) -> None:
        factor = 2.0 if is_slow else _PATIENCE_LESS
        self._patience_s = min(self._settings.timeout, max(_PATIENCE_MIN_S, self._patience_s * factor))

    # --- health ----------------------------------------------------------------------------------

    def _report(self) -> None:
        self._faults.has_changed = False
        units = self._schedule.units
        silent = [number for number, unit in units.items() if unit.state is State.DEAD]
        reasons = [silent_text(silent, len(units), self._link), self._faults.shown(), self._load]
        reason = "; ".join(one for one in reasons if one)
        self._site.health(Health.DEGRADED if reason else Health.HEALTHY, reason)

    async def _load_lane(self) -> None:
        """Says when the bus is too slow for what is asked of it."""
        schedule = self._schedule
        while True:
            made, missed = schedule.made, schedule.missed
            await asyncio.sleep(LOAD_EVERY_S)
            made, missed = schedule.made - made, schedule.missed - missed
            share = missed / max(1, made + missed)
            load = ""
            if share > _MISSED_SHARE:
                load = f"{share:.0%} of the reads were skipped in the last minute; lengthen `every` or split the bus"
            if load != self._load:
                self._load = load
                self._report()

    async def _stale_lane(self) -> None:
        """Returns when the connection should be made anew, since nobody answers on it."""
        loop = asyncio.get_running_loop()
        units = self._schedule.units.values()
        while True:
            await asyncio.sleep(max(0.05, self._heard_at + STALE_S - loop.time()))
            if loop.time() - self._heard_at >= STALE_S:
                if units and all(unit.is_out for unit in units):
                    return
                self._heard_at = loop.time()

    # --- commands --------------------------------------------------------------------------------

    async def call(self, call: Call) -> Json:
        """As `Connector.call`."""
        slave = self._slave(call.device)
        action = slave.rpc.get(call.method)
        if action is None:
            known = did_you_mean(call.method, sorted(slave.rpc)) or "; it has no rpc in the configuration"
            raise CallFailed(f"{call.device} has no method '{call.method}'{known}")
        document = {"method": call.method, "params": call.params}
        try:
            async with asyncio.timeout(call.timeout_s):
                return await self._perform(action, slave, document)
        except TimeoutError:
            raise CallFailed(f"{self._link} did not get to it within {call.timeout_s:g} s; the bus is busy") from None

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """As `Connector.attributes_changed`; all are tried."""
        slave = self._by_device.get(device)
        failures = []
        for key, value in values.items():
            action = slave.shared.get(key) if slave else None
            if slave is not None and action is not None:
                try:
                    await self._perform(action, slave, {"key": key, "value": value})
                except CallFailed as error:
                    failures.append(f"{key}: {error}")
        if failures:
            raise CallFailed("; ".join(failures))

    def _slave(self, device: str) -> Slave:
        try:
            return self._by_device[device]
        except KeyError:
            raise CallFailed(f"'{device}' is no slave of {self._site.name}") from None

    async def _perform(self, action: Action, slave: Slave, document: Json) -> Json:
        unit = self._schedule.units.get(slave.unit)
        bus = self._spare if unit is not None and unit.is_out and self._spare.is_open else self._main
        answer = await perform(action, slave, bus, self._link, document)
        if unit is not None:
            if unit.is_out:
                self._schedule.heard(slave.unit, asyncio.get_running_loop().time())
                self._woken.set()
            self._is_heard(slave)
        return answer


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until somebody sets it, or for so long; then it is clear again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()


KINDS: tuple[ConnectorKind, ...] = (ConnectorKind(name="modbus", settings=ModbusSettings, build=Modbus, check=check),)
