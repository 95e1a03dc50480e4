"""What the commands share that talk REST to a running core: where it is, who is logged in, how refusals end."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import click

from cloud_core.console.exits import (
    EXIT_NO_ANSWER,
    EXIT_NOT_FOUND,
    EXIT_NOT_LOGGED_IN,
    EXIT_REFUSED,
    EXIT_UNCONFIRMED,
)
from cloud_core.console.output import HIDDEN as HIDDEN  # others find them here
from cloud_core.console.output import show as show
from cloud_core.rest_client import RestClient, RestError

_DATA_DIR = "cloud_core.data_dir"
_CA_FILE = "cloud_core.ca_file"
_CAUSES = {
    0: EXIT_NO_ANSWER, 401: EXIT_NOT_LOGGED_IN, 404: EXIT_NOT_FOUND, 429: EXIT_NO_ANSWER, 503: EXIT_NO_ANSWER,
}  # fmt: skip

dry_run = click.option("--dry-run", is_flag=True, help="Check, and say what would happen; change nothing.")
yes = click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")


def token_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "muster" / "login.json"


def connect(url: str | None) -> RestClient:
    """By `--data-dir` where that is given, else by `--url`, the environment, or the last login."""
    data_dir = click.get_current_context().find_root().meta.get(_DATA_DIR)
    if data_dir is not None:
        return _connect_here(Path(data_dir), url)
    saved = _saved()
    where = url or os.environ.get("CLOUD_CORE_URL") or saved.get("url") or "http://127.0.0.1:8080"
    token = os.environ.get("CLOUD_CORE_TOKEN") or (saved.get("token", "") if saved.get("url") == where else "")
    if not token:
        fail(
            f"not logged in; run: cloud-core login --url {where}"
            " (or on the core's own machine add --data-dir DIR, its data directory)",
            EXIT_NOT_LOGGED_IN,
        )
    return RestClient(where, token, ca_file=ca_file())


def local_ports() -> dict[str, int]:
    """The ports that devices use, by scheme, of the core that `--data-dir` names; nothing without it."""
    from cloud_core import local_token

    data_dir = click.get_current_context().find_root().meta.get(_DATA_DIR)
    try:
        return {} if data_dir is None else local_token.read(Path(data_dir)).ports
    except local_token.LocalTokenError as error:
        fail(str(error), EXIT_NO_ANSWER if error.is_missing else EXIT_NOT_LOGGED_IN)


def ca_file() -> str:
    """The CA of the core's certificate, by `--ca-file` or the environment; empty: those that the system trusts."""
    given = click.get_current_context().find_root().meta.get(_CA_FILE)
    return str(given or os.environ.get("CLOUD_CORE_CA_FILE") or "")


def _saved() -> dict[str, str]:
    try:
        saved: dict[str, str] = json.loads(token_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        fail(f"{token_file()} cannot be used; log in again: cloud-core login", EXIT_NOT_LOGGED_IN)
    return saved


def _connect_here(data_dir: Path, url: str | None) -> RestClient:
    from cloud_core import local_token

    if url is not None:
        raise click.UsageError("--data-dir finds the core by itself; leave --url out.")
    try:
        found = local_token.read(data_dir)
    except local_token.LocalTokenError as error:
        fail(str(error), EXIT_NO_ANSWER if error.is_missing else EXIT_NOT_LOGGED_IN)
    return RestClient(found.url, found.token)


def _kept(key: str) -> Any:  # Any: click's callback
    """Keeps an option's value where `connect` looks for it."""

    def keep(context: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.find_root().meta[key] = value

    return keep


trusted_ca = click.option(
    "--ca-file", expose_value=False, callback=_kept(_CA_FILE), type=click.Path(dir_okay=False),
    help="https: PEM file of the CA of the core's certificate.",
)  # fmt: skip


def at_core(command: Any) -> Any:  # Any: click decorators
    """Which core: the command takes `url`; `connect` knows the rest."""
    command = click.option(
        "--data-dir", expose_value=False, callback=_kept(_DATA_DIR), type=click.Path(file_okay=False),
        help="On the core's own machine: its data directory; no login is needed.",
    )(command)  # fmt: skip
    command = trusted_ca(command)
    return click.option("--url", help="Address of the core.  [default: where you logged in]")(command)


def common(command: Any) -> Any:
    command = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(command)
    return at_core(command)


def fail(message: str, code: int) -> NoReturn:
    for line in message.splitlines():
        click.echo(f"cloud-core: {line}", err=True)
    sys.exit(code)


def call(function: Any) -> Any:
    """Runs REST calls; a refusal is one sentence and an exit code by cause."""
    try:
        return function()
    except RestError as error:
        message = str(error)
        if error.status == 401:
            message += "; log in again: cloud-core login"
        fail(message, _CAUSES.get(error.status, EXIT_REFUSED))


def confirm(question: str, *, is_sure: bool) -> None:
    """Before a deletion. Ends the command where the answer is no, or nobody is there to answer."""
    if is_sure:
        return
    try:
        is_sure = click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
    if not is_sure:
        fail("not confirmed, nothing has changed; --yes does not ask", EXIT_UNCONFIRMED)


def device_named(client: RestClient, name: str) -> dict[str, Any]:
    """Raises: RestError."""
    found: dict[str, Any] = client.get("/api/tenant/devices", deviceName=name)
    return found


def profile_named(client: RestClient, name: str) -> dict[str, Any]:
    """Raises: RestError."""
    for number in range(1_000):
        page = client.get("/api/deviceProfiles", pageSize=1000, page=number, textSearch=name)
        for one in page["data"]:
            if one["name"] == name:
                found: dict[str, Any] = one
                return found
        if not page["hasNext"]:
            break
    raise RestError(f"There is no device profile '{name}'; cloud-core profile list shows those there are.", 404)


def id_of(entity: dict[str, Any]) -> str:
    return quote(str(entity["id"]["id"]), safe="")
