"""What all commands share: where configuration and data lie, how to fail, exit codes."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from edge_gateway.config import DATA_DIR_VARIABLE, Config, ConfigError, load
from edge_gateway.connectors.interface import ConnectorKind
from edge_gateway.storage.credentials import FileUnusable
from edge_gateway.storage.errors import SpoolUnavailable

EXIT_FAULT = 1  # something is wrong with what was looked at
EXIT_CONFIG = 2
EXIT_START = 3
EXIT_REFUSED = 4  # the core, a file that is there already, or an agent at work is in the way

CONFIG_VARIABLE = "EDGE_GATEWAY_CONFIG"
CONFIG_PLACES = (Path("gateway.toml"), Path("/etc/edge-gateway/gateway.toml"))
SYSTEM_DATA_DIR = Path("/var/lib/edge-gateway")  # made by the service's installation
DATA_DIR = Path("gateway-data")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one gateway lives. `config` is the file that was named or found, or where it would be."""

    config: Path
    data_dir: Path

    @property
    def has_config(self) -> bool:
        return self.config.exists()


def in_place(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--config` and `--data-dir`; the command gets them as `place`. What keeps a file from being used is one
    sentence and an exit code."""

    @click.option(
        "--config", "config_path", type=click.Path(path_type=Path), envvar=CONFIG_VARIABLE,
        help="Configuration file (TOML).  [default: ./gateway.toml, else /etc/edge-gateway/gateway.toml]",
    )  # fmt: skip
    @click.option(
        "--data-dir", type=click.Path(path_type=Path), envvar=DATA_DIR_VARIABLE, default=usual_data_dir,
        show_default="/var/lib/edge-gateway where it is, else ./gateway-data",
        help="Where spool, credentials and history lie.",
    )  # fmt: skip
    @functools.wraps(command)
    def placed(*args: Any, config_path: Path | None, data_dir: Path, **options: Any) -> Any:
        try:
            return command(*args, place=Place(config_path or _usual_config(), data_dir), **options)
        except SpoolUnavailable as error:
            fail(str(error), EXIT_START)
        except FileUnusable as error:
            fail(str(error), EXIT_START)

    return placed


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--json`."""
    return click.option("--json", "is_json", is_flag=True, help="Machine-readable output.")(command)


def usual_data_dir() -> Path:
    """The service's where this machine has one, else one in the working directory."""
    return SYSTEM_DATA_DIR if SYSTEM_DATA_DIR.is_dir() else DATA_DIR


def _usual_config() -> Path:
    return next((path for path in CONFIG_PLACES if path.exists()), CONFIG_PLACES[0])


def known_kinds() -> Mapping[str, ConnectorKind]:
    """All kinds of connectors; those of the program's caller (`main(obj=…)`) where it gave some."""
    context = click.get_current_context(silent=True)
    if context is not None and context.obj is not None:
        given: Mapping[str, ConnectorKind] = context.obj
        return given
    kinds: Mapping[str, ConnectorKind] = importlib.import_module("edge_gateway.kinds").KINDS
    return kinds


def environment() -> Mapping[str, str]:
    """What `config.load` reads beside the file."""
    return os.environ


def configuration(place: Place) -> Config:
    """The effective configuration; ends the program with every problem, one a line, when there is one."""
    if not place.has_config:
        fail(
            f"there is no configuration at {place.config}: make one with `edge-gateway setup`, or name it by --config",
            EXIT_CONFIG,
        )
    try:
        return load(place.config, environment(), kinds=known_kinds())
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_CONFIG)


def configuration_or_defaults(place: Place) -> Config:
    """For commands that need only to know where things lie: without a file, defaults and environment."""
    return configuration(place) if place.has_config else load(None, environment(), kinds=known_kinds())


def fail(message: str, code: int) -> NoReturn:
    """Ends the program."""
    for line in message.splitlines():
        click.echo(f"edge-gateway: {line}", err=True)
    sys.exit(code)
