"""The command line of the cloud core, called in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from cloud_core.__main__ import main


class Console:
    """Runs commands with a fixed environment; `core` names one that is running, by address and token."""

    def __init__(self, folder: Path, **environment: str | None) -> None:
        self.environment: dict[str, str | None] = {
            "CLOUD_CORE_URL": None, "CLOUD_CORE_TOKEN": None, "XDG_CONFIG_HOME": str(folder / "config"), **environment,
        }  # fmt: skip

    def run(self, *arguments: str, typed: str = "") -> Result:
        return CliRunner().invoke(main, list(arguments), env=self.environment, input=typed)

    def out(self, *arguments: str, typed: str = "") -> str:
        result = self.run(*arguments, typed=typed)
        assert result.exit_code == 0, result.output
        return result.output

    def json(self, *arguments: str, typed: str = "") -> Any:
        result = self.run(*arguments, "--json", typed=typed)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def refused(self, *arguments: str, typed: str = "") -> tuple[int, str]:
        """Exit code and what was said."""
        result = self.run(*arguments, typed=typed)
        assert result.exit_code != 0, result.output
        return result.exit_code, result.output


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Every command that is no group, by its path; those that programs call are hidden."""
    found: dict[tuple[str, ...], click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, (*path, name))
        elif not command.hidden:
            found[(*path, name)] = command
    return found
