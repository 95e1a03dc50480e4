"""The table `[[plugin]]`."""

from __future__ import annotations

import msgspec

from edge_gateway.connectors.interface import Settings
from edge_gateway.model import Json, Problem


class PluginSettings(Settings, kw_only=True, forbid_unknown_fields=True):
    """Either `plugin` or `command`; `settings` is the plug-in's own table."""

    plugin: str = ""  # entry point of the group muster.connectors, or module:ATTRIBUTE
    command: list[str] = msgspec.field(default_factory=list)  # a program that speaks JSON lines
    settings: dict[str, Json] = msgspec.field(default_factory=dict)
    environment: dict[str, str] = msgspec.field(default_factory=dict)  # beside PATH, HOME, LANG, TZ
    max_unacknowledged: int = 1_000  # messages with readings that wait for the disk


def check(settings: PluginSettings) -> list[Problem]:
    """See `ConnectorKind.check`. The plug-in's own settings are checked by the plug-in when it starts."""
    problems: list[Problem] = []
    if bool(settings.plugin) == bool(settings.command):
        problems.append(Problem((), 'give either plugin = "name" (an installed one) or command = ["program", "…"]'))
    if settings.max_unacknowledged < 1:
        problems.append(Problem(("max_unacknowledged",), "max_unacknowledged must be at least 1"))
    if "name" in settings.settings:
        problems.append(Problem(("settings", "name"), "the plug-in gets its name from the table above; leave it out"))
    return problems
