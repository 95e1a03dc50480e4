"""What the commands share that talk REST to a running core: where it is, who is logged in, tables, exit codes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from cloud_core.rest_client import RestClient, RestError

EXIT_REFUSED = 4
EXIT_NO_ANSWER = 5
EXIT_NOT_LOGGED_IN = 6
HIDDEN = "••••••"


def token_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "muster" / "login.json"


def connect(url: str | None) -> RestClient:
    saved: dict[str, str] = {}
    if token_file().exists():
        saved = json.loads(token_file().read_text(encoding="utf-8"))
    where = url or os.environ.get("CLOUD_CORE_URL") or saved.get("url") or "http://127.0.0.1:8080"
    token = os.environ.get("CLOUD_CORE_TOKEN") or (saved.get("token", "") if saved.get("url") == where else "")
    if not token:
        click.echo(f"cloud-core: not logged in; run: cloud-core login --url {where}", err=True)
        sys.exit(EXIT_NOT_LOGGED_IN)
    return RestClient(where, token)


def common(command: Any) -> Any:  # Any: click decorators
    command = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(command)
    return click.option("--url", help="Address of the core.  [default: where you logged in]")(command)


def call(function: Any) -> Any:
    """Runs REST calls; a refusal is one sentence and an exit code by cause."""
    try:
        return function()
    except RestError as error:
        click.echo(f"cloud-core: {error}", err=True)
        code = {0: EXIT_NO_ANSWER, 401: EXIT_NOT_LOGGED_IN}.get(error.status, EXIT_REFUSED)
        sys.exit(code)


def _plain(text: str) -> str:
    """Names come from devices: none shall move the cursor or write a line of its own."""
    return "".join(one if one.isprintable() else "?" for one in text)


def show(rows: list[dict[str, Any]], columns: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = [list(columns), *[[_plain(str(row.get(member, "") or "")) for member in columns.values()] for row in rows]]
    widths = [max(len(line[place]) for line in table) for place in range(len(columns))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
