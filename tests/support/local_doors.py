"""A local door on a free port in front of a gateway that remembers what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from twisted.internet import reactor

from edge_gateway.config import Config, ConnectorTable, load
from edge_gateway.connectors.interface import ConnectorKind, Settings
from edge_gateway.console.local_client import LocalClient
from edge_gateway.console.local_door import LocalDoor
from edge_gateway.console.local_port import LocalPort
from edge_gateway.model import Problem, Reading
from edge_gateway.settings import Local


class PlantSettings(Settings, kw_only=True):
    host: str = "127.0.0.1"
    password: str = ""
    url: str = ""


def _check(settings: PlantSettings) -> list[Problem]:
    return [Problem(("host",), "must not be empty; write the plant's address")] if not settings.host else []


KINDS = {"plant": ConnectorKind(name="plant", settings=PlantSettings, build=lambda *_: None, check=_check)}  # type: ignore[arg-type,return-value]


def table(name: str, *, is_enabled: bool = True, **raw: Any) -> ConnectorTable:
    settings = PlantSettings(name=name, enabled=is_enabled, **raw)
    return ConnectorTable(kind="plant", name=name, settings=settings, raw={"name": name, **raw}, line=1)


class FakeGateway:
    """Its connectors are as healthy as `healths` says; `broken_by` names what fails once a configuration is applied."""

    def __init__(self, config: Config | None = None) -> None:
        self.name = "gw-7"
        self.config = config or Config()
        self.healths: dict[str, tuple[str, str]] = {one.name: ("healthy", "") for one in self.config.connectors}
        self.breaks: Callable[[Config], dict[str, tuple[str, str]]] = lambda config: {}
        self.raises: Exception | None = None
        self.applied: list[Config] = []
        self.listeners: list[Callable[[str, Reading], None]] = []
        self.own_devices: list[dict[str, Any]] = []
        self.readings = 0

    def status(self) -> dict[str, Any]:
        return {
            "name": self.name, "version": "1.0", "loopBlocked": 0, "uptimeS": 90_061, "devices": len(self.own_devices),
            "core": {"url": "mqtts://core.example.com:8883", "state": "online", "stateText": "online", "reason": "",
                     "sinceS": 251, "mqtt": "5"},
            "sent": self.readings, "publishes": 1, "resent": 0, "dropped": {"age": 3},
            "samples": [{"at": 1, "source": "pump", "payload": "{}", "why": "the core does not take it"}],
            "spool": {"records": 4, "usedBytes": 1024, "maxBytes": 102_400, "freeDiskBytes": 10**9, "oldestAgeS": 7},
            "relay": {"isConnected": True},
            "connectors": {
                "": {"health": "starting", "reason": "", "samples": []},
                **{name: {"health": health, "reason": reason, "readings": self.readings, "withheld": 0, "rejected": 1,
                          "refused": {"name is too long": 2}, "uncommitted": 0,
                          "samples": [{"at": 2_000, "source": "t/1", "payload": "\x1b[2J?", "why": "no JSON"}]}
                   for name, (health, reason) in self.healths.items()},
            },
        }  # fmt: skip

    def devices(self) -> list[dict[str, Any]]:
        return self.own_devices

    def add_device(self, name: str, connector: str = "north") -> None:
        self.own_devices.append(
            {"name": name, "upstreamName": name, "type": "meter", "connector": connector, "state": "connected",
             "stateText": "connected", "lastSeenMs": 1_700_000_000_000}
        )  # fmt: skip

    def tap(self, listener: Callable[[str, Reading], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener) if listener in self.listeners else None

    def says(self, device: str, connector: str = "north", **values: Any) -> None:
        """A reading comes in."""
        for listener in list(self.listeners):
            listener(connector, Reading(device, telemetry=values, raw=dict.fromkeys(values, "0x01")))

    async def apply(self, config: Config) -> dict[str, list[str]]:
        if self.raises is not None:
            error, self.raises = self.raises, None
            raise error
        self.applied.append(config)
        self.config = config
        self.healths = {one.name: ("healthy", "") for one in config.connectors} | self.breaks(config)
        return {"started": [], "stopped": [], "restarted": [], "unchanged": [], "restart needed": ["core"]}


class DoorUnderTest:
    """Requests are made in a thread, as a foreign program would make them."""

    def __init__(
        self, folder: Path, text: str = "", gateway: Any = None, kinds: dict[str, ConnectorKind] = KINDS, **rest: Any
    ) -> None:
        self.folder = folder
        self._kinds = kinds
        self.file = folder / "gateway.toml"
        self.file.write_text(text)
        self.gateway: FakeGateway = gateway or FakeGateway(self.load())
        self.door = LocalDoor(
            gateway=self.gateway,
            data_dir=folder,
            load_config=self.load,
            check_text=self.load,
            config_path=self.file,
            reactor=reactor,
            **rest,
        )
        self.listening = LocalPort(settings=Local(port=0), data_dir=folder, reactor=reactor, serve=self.serve)
        self.port = 0

    def serve(self) -> Any:
        """What the local port does at the first caller."""
        return self.door.open()

    def load(self, text: str | None = None) -> Config:
        return load(self.file, {}, kinds=self._kinds, text=text)

    async def __aenter__(self) -> DoorUnderTest:
        self.port = await self.listening.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.listening.stop()
        await self.door.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pin(self) -> str:
        return (self.folder / "local-pin").read_text().strip()

    @property
    def token(self) -> dict[str, str]:
        """The commands' header."""
        return {"Authorization": f"Bearer {(self.folder / 'local-token').read_text().strip()}"}

    async def ask(self, method: str, path: str, **rest: Any) -> requests.Response:
        """Without a log-in, unless `headers` or `cookies` say it."""
        rest.setdefault("timeout", 10)
        return await asyncio.to_thread(requests.request, method, self.url + path, **rest)

    async def get(self, path: str) -> Any:
        """As the commands ask; decoded."""
        answer = await self.ask("GET", path, headers=self.token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any, status: int = 200) -> Any:
        answer = await self.ask("POST", path, headers=self.token, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def trial(self) -> dict[str, Any]:
        """The newest rollout, when it has ended."""
        while self.door.rollout.is_running:
            await asyncio.sleep(0)
        return self.door.rollout.shown()

    def client(self) -> LocalClient:
        return LocalClient(self.folder)
