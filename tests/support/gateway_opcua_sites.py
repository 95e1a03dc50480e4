"""A connector's counterpart that remembers, a running connector, and a server of OPC UA with a small plant."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest_twisted
from asyncua import Server, ua, uamethod
from twisted.internet.defer import Deferred

from edge_gateway.config.typed import Reader
from edge_gateway.connectors.interface import Connector, Done
from edge_gateway.connectors.opcua import KINDS
from edge_gateway.connectors.opcua.settings import OpcuaSettings
from edge_gateway.model import Health, Reading, Refusal

DEADLINE_S = 20.0
[KIND] = KINDS


class OpcuaSite:
    """Remembers everything; `outcomes` are the answers of the next `accept`s, which are taken over otherwise."""

    def __init__(self, name: str = "plant") -> None:
        self.name = name
        self.wants_raw = False
        self.is_congested = False
        self.outcomes: list[Refusal] = []
        self.denied: set[str] = set()
        self.readings: list[Reading] = []
        self.rejected: list[tuple[str, bytes, str]] = []
        self.devices: dict[str, str] = {}  # those that are there, with their types
        self.state: tuple[Health, str] = (Health.STARTING, "")
        self._rooms: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    def accept(self, readings: Sequence[Reading], done: Done | None = None) -> None:
        refusal = self.outcomes.pop(0) if self.outcomes else None
        if any(reading.device in self.denied for reading in readings):
            refusal = Refusal(reason="not allowed")
        if refusal is None:
            self.readings += readings
        if done is not None:
            done(refusal)
        self._changed.set()

    def reject(self, source: str, payload: bytes, why: str) -> None:
        self.rejected.append((source, payload, why))
        self._changed.set()

    def seen(self, device: str, type: str = "") -> None:
        self.devices[device] = type
        self._changed.set()

    def gone(self, device: str) -> None:
        self.devices.pop(device, None)
        self._changed.set()

    def health(self, health: Health, reason: str = "") -> None:
        self.state = (health, reason)
        self._changed.set()

    def when_room(self, callback: Callable[[], None]) -> None:
        self._rooms.append(callback)
        self._changed.set()

    def make_room(self) -> None:
        self.is_congested = False
        rooms, self._rooms = self._rooms, []
        for callback in rooms:
            callback()

    def values(self, device: str, key: str) -> list[Any]:
        """All values of a key so far, of telemetry and attributes."""
        return [
            values[key]
            for reading in self.readings
            for values in (reading.telemetry or {}, reading.attributes or {})
            if reading.device == device and key in values
        ]

    async def until(self, holds: Callable[[], Any]) -> None:
        """Returns when `holds()` after something happened here; fails after a while."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.state}, {self.devices}, {self.readings[-5:]}, {self.rejected[-5:]}") from None


def settings_of(**table: Any) -> OpcuaSettings:
    """The settings, read as the configuration does it."""
    reader = Reader()
    settings = reader.table({"name": "plant", "connect": "opc.tcp://10.0.0.20:4840", **table}, OpcuaSettings)
    assert not reader.problems, reader.problems
    assert isinstance(settings, OpcuaSettings)
    return settings


def problems_of(**table: Any) -> list[str]:
    """What `check` says, each with its path."""
    return [f"{'.'.join(map(str, one.path))}: {one.text}" for one in KIND.check(settings_of(**table))]


@contextlib.asynccontextmanager
async def running(site: OpcuaSite, **table: Any) -> AsyncIterator[Connector]:
    """The connector at work."""
    settings = settings_of(**table)
    assert KIND.check(settings) == []
    connector = KIND.build(settings, site)
    task = asyncio.ensure_future(connector.run())
    try:
        yield connector
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What `coroutine` gives; for fixtures, which are no coroutines."""
    return pytest_twisted.blockon(Deferred.fromFuture(asyncio.ensure_future(coroutine)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Plant:
    """`Objects/Plant/{B1,B2}` with `Temp`, `Limit` (Int16), `Mode`, and the method `Add` in each boiler."""

    def __init__(self, port: int) -> None:
        self.url = f"opc.tcp://127.0.0.1:{port}/plant"
        self.server = Server()
        self.space = 0
        self.folder: Any = None

    async def start(self, *boilers: str, **temperatures: float) -> Plant:
        await self.server.init()
        self.server.iserver.disabled_clock = True  # it would take a second to stop
        self.server.set_endpoint(self.url)
        self.space = await self.server.register_namespace("urn:plant")
        self.folder = await self.server.nodes.objects.add_folder(self.space, "Plant")
        for boiler in boilers:
            await self.add_boiler(boiler, temperatures.get(boiler, 20.5))
        await self.server.start()
        return self

    async def reset(self, *boilers: str) -> None:
        """These boilers, as they are at first."""
        await self.server.delete_nodes(await self.folder.get_children(), recursive=True)
        for boiler in boilers:
            await self.add_boiler(boiler)

    async def add_boiler(self, name: str, temperature: float = 20.5) -> None:
        boiler = await self.folder.add_object(ua.NodeId(name, self.space), f"{self.space}:{name}")
        for key, value, kind in (
            ("Temp", temperature, ua.VariantType.Double),
            ("Limit", 5, ua.VariantType.Int16),
            ("Serial", f"S-{name}", ua.VariantType.String),
            ("Levels", [1.0, 2.0], ua.VariantType.Float),
        ):
            node_id = ua.NodeId(f"{name}.{key}", self.space)
            node = await boiler.add_variable(node_id, f"{self.space}:{key}", value, kind)
            await node.set_writable(key in ("Limit", "Levels"))
        await boiler.add_method(self.space, "Add", _add, [_argument("a"), _argument("b")], [_argument("sum")])

    def node(self, name: str) -> Any:
        """The node of "B1.Temp"."""
        return self.server.get_node(ua.NodeId(name, self.space))

    async def stop(self) -> None:
        await self.server.stop()


def _argument(name: str) -> Any:
    return ua.Argument(Name=name, DataType=ua.NodeId(ua.ObjectIds.Int32), ValueRank=-1)


@uamethod
def _add(_parent: Any, a: int, b: int) -> int:
    return a + b
