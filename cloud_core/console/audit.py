"""The audit on the command line: what operators decided, and whether anybody has changed that since."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import click

from cloud_core.console.calls import call, common, connect, show
from cloud_core.console.exits import EXIT_REFUSED


@click.group()
def audit() -> None:
    """What operators decided, in a chain of hashes that shows any change made afterwards."""


@audit.command("tail")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many entries.")
@click.option("--actor", default="", help="Of this user alone.")
@click.option("--action", default="", help="Of this action alone, such as DELETED or LOGIN_FAILED.")
@click.option("--entity-type", default="", help="About this kind alone, such as DEVICE or DEVICE_PROFILE.")
@common
def audit_tail(limit: int, actor: str, action: str, entity_type: str, url: str | None, as_json: bool) -> None:
    """Show the newest entries, the newest last."""
    client = connect(url)
    wanted = {"actor": actor, "action": action, "entityType": entity_type}
    given: dict[str, Any] = {name: value for name, value in wanted.items() if value}
    page = call(lambda: client.get("/api/audit", pageSize=limit, page=0, **given))
    rows = list(reversed(page["data"]))
    if not as_json:
        rows = [{**one, "createdTime": _time(one["createdTime"])} for one in rows]
    columns = {
        "NUMBER": "number", "TIME": "createdTime", "ACTOR": "actor", "ACTION": "action", "KIND": "entityType",
        "NAME": "entityName", "DETAIL": "detail",
    }  # fmt: skip
    show(rows, columns, as_json=as_json)


@audit.command("verify")
@common
def audit_verify(url: str | None, as_json: bool) -> None:
    """Compute the whole chain anew; exit code 4 where it does not hold."""
    client = connect(url)
    verdict = call(lambda: client.get("/api/audit/verify"))
    if as_json:
        click.echo(json.dumps(verdict, indent=2))
    elif verdict["intact"]:
        click.echo(f"Entries {verdict['firstNumber']} to {verdict['lastNumber']} are intact.")
        click.echo(f"hash of {verdict['lastNumber']}  {verdict['lastHash']}")
    else:
        click.echo(f"cloud-core: the audit was tampered with: {verdict['fault']}", err=True)
    if not verdict["intact"]:
        sys.exit(EXIT_REFUSED)


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
