"""The connector: connects again and again, and carries out calls. The library is loaded when it runs, not before."""

from __future__ import annotations

import asyncio
import importlib
import random
from typing import Any

from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.opcua.compiled import Action, compile_device
from edge_gateway.connectors.opcua.settings import OpcuaSettings
from edge_gateway.mapping.interface import MappingError
from edge_gateway.model import Call, CallFailed, Health, Json


class OpcuaConnector:
    """See `connectors.interface.Connector`."""

    def __init__(self, settings: OpcuaSettings, site: Site) -> None:
        self._settings = settings
        self._site = site
        self._devices = [compile_device(device, number) for number, device in enumerate(settings.device)]
        self._session: Any = None  # Session, while there is a connection
        self._why_not = "it is still connecting"

    async def run(self) -> None:
        # Loading takes a second or two, which the loop must not stand still for.
        module = await asyncio.to_thread(importlib.import_module, "edge_gateway.connectors.opcua.session")
        backoff_s = self._settings.backoff_min
        while True:
            session = module.Session(self._settings, self._site, self._devices)
            try:
                await session.open()
                self._session, backoff_s = session, self._settings.backoff_min
                await session.work()
            except module.Trouble as error:
                self._why_not = str(error)
            finally:
                self._session = None
                await session.close()
            self._site.health(Health.DEGRADED, f"{self._why_not}; connecting again")
            await asyncio.sleep(backoff_s * random.uniform(0.8, 1.2))
            backoff_s = min(2 * backoff_s, self._settings.backoff_max)

    async def call(self, call: Call) -> Json:
        session = self._connected()
        targets = session.targets(call.device)
        for target in targets:
            action = target.device.rpc.get(call.method)
            if action is not None:
                return await self._carry_out(action, target, {"params": call.params}, call.timeout_s)
        known = sorted({method for target in targets for method in target.device.rpc})
        names = f"it knows {', '.join(known)}" if known else "it has no rpc in the configuration"
        raise CallFailed(f"{call.device} does not know the method '{call.method}'; {names}")

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        del deleted  # a node keeps its value
        entries = [entry for entry in self._devices if not entry.shared.keys().isdisjoint(values)]
        if not entries:
            return
        failures = []
        for target in self._connected().targets(device):
            for key, action in target.device.shared.items():
                if key not in values:
                    continue
                try:
                    await self._carry_out(
                        action, target, {"key": key, "value": values[key]}, self._settings.timeout * 3
                    )
                except CallFailed as error:
                    failures.append(f"{key}: {error}")
        if failures:
            raise CallFailed("; ".join(failures))

    def _connected(self) -> Any:
        """Raises: CallFailed."""
        if self._session is None:
            raise CallFailed(f"there is no connection to {self._settings.connect}: {self._why_not}")
        return self._session

    async def _carry_out(self, action: Action, target: Any, document: Json, timeout_s: float) -> Json:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connected().carry_out(action, target, document)
        except TimeoutError:
            raise CallFailed(f"{self._settings.connect}: no answer within {timeout_s:g} s") from None
        except MappingError as error:
            raise CallFailed(str(error)) from None
