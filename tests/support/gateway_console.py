"""The gateway's command line under test: in this process by click's runner, or as a process of its own.

As a program (`python -m tests.support.gateway_console run …`) it knows a kind `clock` beside those that are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from click.testing import CliRunner, Result

from edge_gateway.__main__ import main
from edge_gateway.connectors.interface import ConnectorKind, Settings, Site
from edge_gateway.console.loop import installed_reactor
from edge_gateway.mapping.interface import Line
from edge_gateway.model import Call, CallFailed, Health, Json, Problem, Reading, Refusal

ROOT = Path(__file__).parents[2]
PROTOCOLS = ("mqtt", "http", "coap", "modbus", "opcua", "line", "simulator", "plugin")


class ClockSettings(Settings, kw_only=True):
    """A source that counts: `count` readings of `device`, then silence."""

    device: str = "clock-1"
    every: float = 0.02
    count: int = 5
    token: str = ""
    connect: str = ""
    listen: str = ""
    is_broken: bool = False
    telemetry: list[str | Line] = msgspec.field(default_factory=list)


class ClockConnector:
    """Reads nothing but a counter; every third message is one that cannot be read."""

    def __init__(self, settings: ClockSettings, site: Site) -> None:
        self._settings = settings
        self._site = site
        self.answers: list[Refusal | None] = []

    async def run(self) -> None:
        settings, site = self._settings, self._site
        if settings.is_broken:
            raise ConnectionError("the clock stands still")
        site.health(Health.HEALTHY)
        for number in range(1, settings.count + 1):
            raw = {"tick": f"register 7 raw 0x{number:04X}"} if site.wants_raw else None
            reading = Reading(device=settings.device, type="clock", telemetry={"tick": number}, raw=raw)
            site.accept([reading], self.answers.append)
            if number % 3 == 0:
                site.reject("clock", b"\x00tock", "tock is no number")
            await asyncio.sleep(settings.every)
        await asyncio.Event().wait()

    async def call(self, call: Call) -> Json:
        raise CallFailed("a clock takes no calls")

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """Nothing can be set."""


def _check(settings: ClockSettings) -> list[Problem]:
    return [Problem(("every",), "every must be more than 0")] if settings.every <= 0 else []


CLOCK = ConnectorKind(name="clock", settings=ClockSettings, build=ClockConnector, check=_check)


def available_kinds() -> dict[str, ConnectorKind]:
    """Those of this installation, and `clock`."""
    kinds = {"clock": CLOCK}
    for protocol in PROTOCOLS:
        with contextlib.suppress(ModuleNotFoundError):
            module = importlib.import_module(f"edge_gateway.connectors.{protocol}")
            kinds |= {kind.name: kind for kind in module.KINDS}
    return kinds


class GatewayConsole:
    """One gateway's folder, and commands for it."""

    def __init__(self, folder: Path, kinds: Mapping[str, ConnectorKind] | None = None) -> None:
        self.folder = folder
        self.config = folder / "gateway.toml"
        self.data_dir = folder / "data"
        self.kinds = available_kinds() if kinds is None else kinds

    def write(self, text: str) -> None:
        self.config.write_text(text)

    @property
    def place(self) -> list[str]:
        return ["--config", str(self.config), "--data-dir", str(self.data_dir)]

    def __call__(self, *arguments: str, input: str | None = None, **environment: str) -> Result:
        """Runs a command in this process."""
        env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("EDGE_GATEWAY")}
        return CliRunner().invoke(
            main,
            [*arguments, *self.place],
            obj=self.kinds,
            input=input,
            env=env | environment,
            prog_name="edge-gateway",
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tests.support.gateway_console", *arguments, *self.place]

    def process(self, *arguments: str, timeout_s: float = 60.0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as a process, to its end."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=timeout_s, cwd=ROOT,
            env=clean_environment() | environment,
        )  # fmt: skip

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Starts a command as a process; its log goes to `log`."""
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                self.command(*arguments), stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
                env=clean_environment() | environment,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_GATEWAY", "NOTIFY_"))}


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


if __name__ == "__main__":
    installed_reactor()  # before the connectors are imported
    kinds: Any = available_kinds()
    main(obj=kinds, prog_name="edge-gateway")
