"""A connector to copy: it reads a number from a file every so often, as drivers of sensors offer it under /sys.

In your package's pyproject.toml:      [project.entry-points."muster.connectors"]
                                       acme-file = "acme.connector:KIND"
In the gateway's configuration:        [[plugin]]
                                       name = "boiler"
                                       plugin = "acme-file"
                                       settings = { path = "/sys/class/hwmon/hwmon0/temp1_input", key = "temperature" }
Is it a good one?                      python -m edge_gateway.connectors.plugin.conformance acme-file settings.toml
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from edge_gateway.connectors.interface import ConnectorKind, Settings, Site
from edge_gateway.model import Call, CallFailed, Health, Json, Problem, Reading


class FileSettings(Settings, kw_only=True, forbid_unknown_fields=True):
    """What may stand in the table; unknown names and wrong types are refused for you."""

    path: str
    key: str
    device: str = ""  # empty: the connector's name
    every_s: float = 5.0


def check(settings: FileSettings) -> list[Problem]:
    """What types cannot say, in words that name the fix. Opens nothing: the path may appear later."""
    if settings.every_s < 0.01:
        return [Problem(("every_s",), "every_s must be at least 0.01 seconds")]
    return []


class FileConnector:
    """One running source. The constructor stores; `run` opens, works and closes."""

    def __init__(self, settings: FileSettings, site: Site) -> None:
        self._settings, self._site = settings, site
        self._device = settings.device or site.name

    async def run(self) -> None:
        while True:  # until it is cancelled; let CancelledError pass
            try:
                # Whatever blocks belongs into a thread.
                text = await asyncio.to_thread(Path(self._settings.path).read_text)
                values = {self._settings.key: float(text)}
            except (OSError, ValueError) as error:
                # Trouble that may pass is a health, not an exception. Say what is wrong and where.
                self._site.health(Health.DEGRADED, f"{self._settings.path}: {error}")
            else:
                self._site.health(Health.HEALTHY)  # saying it again costs nothing
                # A source that wants an acknowledgement gives `done` and acknowledges in it, not before.
                self._site.accept([Reading(self._device, telemetry=values)])
            await asyncio.sleep(self._settings.every_s)

    async def call(self, call: Call) -> Json:
        """A command from the platform; its answer."""
        if call.method != "read":
            raise CallFailed(f"there is no method '{call.method}'; known is read")
        try:
            return await asyncio.to_thread(Path(self._settings.path).read_text)
        except OSError as error:
            raise CallFailed(f"{self._settings.path}: {error.strerror}") from error

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """Shared attributes changed; this one has nothing to write."""


KIND = ConnectorKind(name="acme-file", settings=FileSettings, build=FileConnector, check=check)
