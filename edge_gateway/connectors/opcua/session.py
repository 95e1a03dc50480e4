"""One connection at work: surveys, watches, carries out commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.opcua.commands import Commands
from edge_gateway.connectors.opcua.compiled import Action, Device
from edge_gateway.connectors.opcua.link import Link, Lost, Trouble, open_link, told
from edge_gateway.connectors.opcua.settings import OpcuaSettings
from edge_gateway.connectors.opcua.surveying import Spot, Survey, Target, survey
from edge_gateway.connectors.opcua.taking import Taking
from edge_gateway.connectors.opcua.troubles import Troubles
from edge_gateway.connectors.opcua.watching import Watch
from edge_gateway.model import CallFailed, Json

__all__ = ["Session", "Trouble"]

_CHECK_S = 5.0


class Session:
    """Used once: `open`, `work` until it raises, `close`."""

    def __init__(self, settings: OpcuaSettings, site: Site, devices: Sequence[Device]) -> None:
        self._settings = settings
        self._site = site
        self._devices = devices
        self._troubles = Troubles(site, settings.connect)
        self._link: Link | None = None
        self._watch: Watch | None = None
        self._survey = Survey()

    async def open(self) -> None:
        """Raises: Trouble."""
        self._link = await open_link(self._settings)
        taking = Taking(self._site, self._troubles, self._settings.timestamp)
        self._watch = Watch(self._link, taking, self._troubles)

    async def work(self) -> None:
        """Raises: Trouble, when the connection is over."""
        assert self._link is not None and self._watch is not None
        loop = asyncio.get_running_loop()
        await self._look()
        look_s = loop.time() + self._settings.browse_every
        while True:
            await asyncio.wait({self._link.lost}, timeout=_CHECK_S if not self._settings.browse_every else
                               max(0.0, min(_CHECK_S, look_s - loop.time())))  # fmt: skip
            if self._link.lost.done():
                raise Trouble(f"{self._settings.connect}: {self._link.lost.result()}")
            self._watch.check()
            if self._settings.browse_every and loop.time() >= look_s:
                await self._look()
                look_s = loop.time() + self._settings.browse_every

    async def close(self) -> None:
        if self._watch is not None:
            await self._watch.close()
        if self._link is not None:
            await self._link.close()
        for name in self._survey.targets:
            self._site.gone(name)

    async def _look(self) -> None:
        """Surveys the server and watches what it has."""
        assert self._link is not None and self._watch is not None
        with told(self._settings):
            found = await survey(self._link, self._devices, self._settings.max_nodes)
            for name in found.targets:
                if name not in self._survey.targets:
                    self._site.seen(name, found.types[name])
            for name in self._survey.targets:
                if name not in found.targets:
                    self._site.gone(name)
            self._survey = found
            self._troubles.replace(Spot, found.troubles)
            await self._watch.update(found.points)

    def targets(self, device: str) -> list[Target]:
        """Raises: CallFailed for a device that is not there."""
        found = self._survey.targets.get(device)
        if not found:
            raise CallFailed(f"{self._settings.connect} has no device '{device}' now")
        return found

    async def carry_out(self, action: Action, target: Target, document: Json) -> Json:
        """Raises: CallFailed, MappingError."""
        assert self._link is not None
        try:
            with told(self._settings):
                return await Commands(self._link).carry_out(action, target, document)
        except (Trouble, Lost) as error:
            raise CallFailed(str(error)) from None
