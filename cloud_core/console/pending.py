"""Provision requests that wait for an operator, on the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from cloud_core.console.calls import call, common, connect, show
from cloud_core.rest_client import RestClient, RestError


@click.command("pending")
@click.option("--search", default="", help="Part of a name or source.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000), help="So many at most.")
@common
def pending(search: str, limit: int, url: str | None, as_json: bool) -> None:
    """List the requests that wait for approval."""
    client = connect(url)
    page = call(lambda: client.get("/api/provisioning/pending", pageSize=limit, page=0, textSearch=search))
    rows = page["data"]
    if not as_json:
        rows = [{**one, "firstTime": _time(one["firstTime"]), "lastTime": _time(one["lastTime"])} for one in rows]
    columns = {
        "NAME": "name", "PROFILE": "profileName", "FROM": "source", "KEY": "keyName", "FIRST": "firstTime",
        "LAST": "lastTime", "ASKED": "count",
    }  # fmt: skip
    show(rows, columns, as_json=as_json)


def _decides(word: str, help_text: str) -> click.Command:
    @click.command(word, help=help_text)
    @click.argument("names", nargs=-1)
    @click.option("--search", default="", help="All that wait and have this in their name or source.")
    @click.option("--all", "is_all", is_flag=True, help="All that wait.")
    @click.option("--dry-run", is_flag=True, help="List those that are meant; change nothing.")
    @common
    def decide(
        names: tuple[str, ...], search: str, is_all: bool, dry_run: bool, url: str | None, as_json: bool
    ) -> None:
        if sum((bool(names), bool(search), is_all)) != 1:
            raise click.UsageError("Give names, or --search, or --all.")
        client = connect(url)
        path = "/api/provisioning/pending"
        if dry_run or names:
            meant = call(lambda: _meant(client, names, search))
            done = [one["name"] for one in meant]
            if not dry_run:
                for one in meant:
                    identifier = one["id"]["id"]
                    call(lambda identifier=identifier: client.post(f"{path}/{identifier}/{word}"))
        else:
            body: dict[str, Any] = {"all": True} if is_all else {"textSearch": search}
            done = call(lambda: client.post(f"{path}/{word}", body))["names"]
        if as_json:
            click.echo(json.dumps({"names": done, "dryRun": dry_run}, indent=2))
            return
        click.echo(f"{'Would ' if dry_run else ''}{word}{'' if dry_run else 'ed'}: {', '.join(done) or 'none'}")

    return decide


accept = _decides("accept", "Let these devices in when they ask next.")
reject = _decides("reject", "Refuse these devices; the same request is not asked about again for a week.")


def _meant(client: RestClient, names: tuple[str, ...], search: str) -> list[dict[str, Any]]:
    """All that are named and wait; a name may wait more than once, from several devices."""
    if not names:
        found: list[dict[str, Any]] = client.get(
            "/api/provisioning/pending", pageSize=10_000, page=0, textSearch=search
        )["data"]
        return found
    meant = []
    for name in names:
        page = client.get("/api/provisioning/pending", pageSize=1_000, page=0, textSearch=name)
        same = [one for one in page["data"] if one["name"] == name]
        if not same:
            raise RestError(f"No request for the name '{name}' waits.", 404)
        if len(same) > 1:
            raise RestError(
                f"{len(same)} different requests for the name '{name}' wait; look at: cloud-core provisioning pending "
                "--json, and decide by id over REST.", 409,
            )  # fmt: skip
        meant += same
    return meant


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
