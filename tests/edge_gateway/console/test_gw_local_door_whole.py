"""The local door in front of a whole gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from edge_gateway.config import load
from edge_gateway.connectors.interface import ConnectorKind, Site
from edge_gateway.model import Call, Health, Json, Reading
from edge_gateway.service import Gateway
from tests.support.asyncio_tests import asyncio_test
from tests.support.local_doors import DoorUnderTest, PlantSettings

TEXT = """
[core]
url = "mqtt://127.0.0.1:1"
token = "core-token-1"

[[plant]]
name = "north"
"""


class Plant:
    """Healthy and talking, unless its host is "nowhere"."""

    def __init__(self, settings: PlantSettings, site: Site) -> None:
        self._settings = settings
        self._site = site

    async def run(self) -> None:
        if self._settings.host == "nowhere":
            raise ConnectionError("no route to nowhere")
        self._site.health(Health.HEALTHY)
        self._site.reject("t/1", b"?", "no JSON")
        while True:
            self._site.accept([Reading("meter-1", telemetry={"power": 1.5})])
            await asyncio.sleep(0.05)

    async def call(self, call: Call) -> Json:
        raise NotImplementedError

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        raise NotImplementedError


KINDS = {"plant": ConnectorKind(name="plant", settings=PlantSettings, build=Plant, check=lambda settings: [])}


class WholeGateway:
    def __init__(self, folder: Path) -> None:
        file = folder / "gateway.toml"
        file.write_text(TEXT)
        self.gateway = Gateway(
            load(file, {}, kinds=KINDS), data_dir=folder, reactor=reactor, kinds=KINDS, version="1.0",
            restart=lambda: None,
        )  # fmt: skip
        self.under_test = DoorUnderTest(folder, TEXT, gateway=self.gateway, kinds=KINDS)

    async def __aenter__(self) -> DoorUnderTest:
        await self.gateway.start()
        return await self.under_test.__aenter__()

    async def __aexit__(self, *_error: object) -> None:
        await self.under_test.__aexit__()
        await self.gateway.stop()


async def until_healthy(door: DoorUnderTest, name: str) -> dict[str, Any]:
    while True:
        status: dict[str, Any] = await door.get("/api/status")
        if status["connectors"].get(name, {}).get("health") == "healthy":
            return status
        await asyncio.sleep(0.02)


@asyncio_test
async def test_a_gateway_without_its_core_can_be_looked_at(tmp_path: Path) -> None:
    """Status, devices, samples, metrics and the commands' text, all from the real thing."""
    async with WholeGateway(tmp_path) as door:
        status = await until_healthy(door, "north")
        assert status["core"]["state"] != "online" and list(status["connectors"]) == ["north"]
        assert [one["name"] for one in (await door.get("/api/devices"))["devices"]] == ["meter-1"]
        assert (await door.get("/api/samples"))["samples"][0]["why"] == "no JSON"
        metrics = await door.ask("GET", "/api/metrics", headers=door.token)
        assert "edge_gateway_core_connected 0" in metrics.text
        shown = await door.get("/api/config")
        assert "core-token-1" not in str(shown)


@asyncio_test
async def test_a_gateway_goes_back_to_the_last_good_configuration_by_itself(tmp_path: Path) -> None:
    """When a connector that was healthy fails under the new one; a good change stays."""
    async with WholeGateway(tmp_path) as door:
        await until_healthy(door, "north")
        door.file.write_text(TEXT + 'host = "nowhere"\n')
        await door.post("/api/apply", {"watchS": 0.5}, status=202)
        trial = await door.trial()
        assert trial["state"] == "rolled back" and "no route to nowhere" in trial["reason"]
        await until_healthy(door, "north")
        door.file.write_text(TEXT + '[[plant]]\nname = "west"\n')
        await door.post("/api/apply", {"watchS": 0.2}, status=202)
        assert (await door.trial())["state"] == "good"
        status = await until_healthy(door, "west")
        assert list(status["connectors"]) == ["north", "west"]
