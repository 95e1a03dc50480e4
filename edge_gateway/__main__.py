"""Command line of the edge gateway."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import click

_CONSOLE = "edge_gateway.console"
_COMMANDS = {
    "setup": "first_setup:setup",
    "check": "checking:check",
    "try": "trying:try_connector",
    "run": "running:run",
    "apply": "live:apply",
    "status": "live:status",
    "devices": "live:devices",
    "tap": "live:tap",
    "doctor": "doctor:doctor",
    "spool": "spool:spool",
    "config": "versions:config",
    "import-thingsboard": "thingsboard_import:import_thingsboard",
    "support-bundle": "support_bundle:support_bundle",
    "factory-reset": "factory_reset:factory_reset",
}
"""Name to module and attribute: a command imports what it needs, and only when it is asked for."""


class Commands(click.Group):
    """Finds commands in the modules of `console`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, place in _COMMANDS.items() if importlib.util.find_spec(_module(place))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        place = _COMMANDS[cmd_name]
        command: Any = getattr(importlib.import_module(_module(place)), place.partition(":")[2])
        assert isinstance(command, click.Command)
        return command


def _module(place: str) -> str:
    return f"{_CONSOLE}.{place.partition(':')[0]}"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="muster", prog_name="edge-gateway")
def main() -> None:
    """Registers the devices behind this gateway with a cloud core and relays their data.

    \b
    On a new site:
      edge-gateway setup          asks, tests, and writes gateway.toml
      edge-gateway try plant      one connector, live, nothing sent
      edge-gateway run            the agent itself
      edge-gateway doctor         when something does not work

    Exit codes: 0 well, 1 something is wrong with what was looked at, 2 the configuration, 3 it cannot start,
    4 refused, or taken back.
    """


if __name__ == "__main__":
    main()
