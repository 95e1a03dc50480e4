"""Plug-ins as third parties would write them, good and bad, for the process that hosts them."""

from __future__ import annotations

import asyncio
import os
import time

from edge_gateway.connectors.interface import ConnectorKind, Settings, Site
from edge_gateway.model import Call, CallFailed, Health, Json, Problem, Reading, Refusal


class OddSettings(Settings, kw_only=True, forbid_unknown_fields=True):
    count: int = 1
    start: str = ""  # crash | block


class Odd:
    """Sends `count` readings, and tells as a device `fate` what became of each; does as it is called."""

    def __init__(self, settings: OddSettings, site: Site) -> None:
        self._settings, self._site = settings, site

    async def run(self) -> None:
        if self._settings.start == "crash":
            raise RuntimeError("no such port")
        if self._settings.start == "block":
            time.sleep(60)
        print("hello from the plug-in")
        self._site.health(Health.HEALTHY)
        for number in range(self._settings.count):
            self._site.accept([Reading("d", ts_ms=number, telemetry={"n": number})], self._told)
        await asyncio.get_running_loop().create_future()

    def _told(self, refusal: Refusal | None) -> None:
        self._site.seen("fate", refusal.reason if refusal else "on disk")

    async def call(self, call: Call) -> Json:
        match call.method:
            case "echo":
                return call.params
            case "environment":
                return sorted(os.environ)
            case "exit":
                os._exit(3)
            case "block":
                time.sleep(60)
        raise CallFailed("known are echo, environment, exit and block")

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        self._site.seen(device, repr((values, deleted)))


def _check(settings: OddSettings) -> list[Problem]:
    return [Problem(("count",), "count must not be negative")] if settings.count < 0 else []


ODD = ConnectorKind(name="odd", settings=OddSettings, build=Odd, check=_check)


class Sloppy(Odd):
    """Breaks the contract wherever it can."""

    def __init__(self, settings: OddSettings, site: Site) -> None:
        super().__init__(settings, site)
        self._file = open(os.devnull)  # noqa: SIM115

    async def run(self) -> None:
        asyncio.ensure_future(asyncio.sleep(60))  # noqa: RUF006
        self._site.health(Health.DEGRADED)
        await asyncio.get_running_loop().create_future()

    async def call(self, call: Call) -> Json:
        return None


class LooseSettings(Settings, kw_only=True, forbid_unknown_fields=False):
    pass


def _look(settings: LooseSettings) -> list[Problem]:
    os.listdir("/")
    return []


LOOSE = ConnectorKind(name="loose", settings=LooseSettings, build=Sloppy, check=_look)
SLOPPY = ConnectorKind(name="sloppy", settings=OddSettings, build=Sloppy, check=_check)
