"""`provisioning list` and `provisioning explain`: attempts, and why they were refused."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from cloud_core.console.calls import call, common, connect, id_of, profile_named
from cloud_core.console.exits import POINTER
from cloud_core.console.output import at, show, show_json, show_members

_SPAN = re.compile(r"(\d{1,6})(s|min|m|h|d|w)")
_UNITS_MS = {"s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


class PointInTime(click.ParamType[int]):
    """`30min`, `2h`, `7d` before now, or a date and time; ms since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        span = _SPAN.fullmatch(value.strip())
        if span:
            return int(time.time() * 1000) - int(span[1]) * _UNITS_MS[span[2]]
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            self.fail(f"'{value}' is no time; write 30min, 2h, 7d, 2026-11-24 or 2026-11-24T08:30", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@click.group(epilog=POINTER)
def provisioning() -> None:
    """Provision attempts and why they were refused."""


@provisioning.command("list")
@click.option("--outcome", multiple=True, help="SUCCESS, REFUSED (all refusals), or one such as DEVICE_EXISTS.")
@click.option("--device", default="", help="Of the device of this name.")
@click.option("--profile", "profile_name", default="", help="Of the device profile of this name.")
@click.option("--since", type=PointInTime(), help="30min, 2h, 7d, or a date and time (UTC).")
@click.option("--until", type=PointInTime(), help="Likewise.")
@click.option("--search", default="", help="Part of a reference, device name, source or detail.")
@click.option("--limit", default=100, show_default=True, help="So many, the newest first.")
@click.option("--page", default=0, show_default=True, help="Which page of so many; the first is 0.")
@common
def provisioning_list(
    outcome: tuple[str, ...], device: str, profile_name: str, since: int | None, until: int | None, search: str,
    limit: int, page: int, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """List attempts, the newest first.

    \b
    Example: what went wrong on the line this shift
      cloud-core provisioning list --outcome REFUSED --since 8h --profile meters
    """
    client = connect(url)
    query: dict[str, Any] = {
        "pageSize": limit, "page": page, "sortProperty": "at", "sortOrder": "DESC", "textSearch": search,
        "outcome": ",".join(outcome), "deviceName": device,
    }  # fmt: skip
    if since is not None:
        query["startTs"] = since
    if until is not None:
        query["endTs"] = until
    if profile_name:
        query["deviceProfileId"] = id_of(call(lambda: profile_named(client, profile_name)))
    found = call(lambda: client.get("/api/provisioning/attempts", **query))
    rows = found["data"]
    if as_json:
        show_json(rows)
        return
    columns = {
        "AT": "time", "REF": "ref", "OUTCOME": "outcome", "DEVICE": "deviceName", "FROM": "source", "DETAIL": "detail",
    }  # fmt: skip
    show([one | {"time": at(one["at"])} for one in rows], columns, as_json=False)
    if found["hasNext"]:
        left = found["totalElements"] - page * limit - len(rows)
        click.echo(f"… {left} more; use --page {page + 1}, or narrow with --outcome, --device, --since.")


@provisioning.command("explain")
@click.argument("ref")
@common
def provisioning_explain(ref: str, url: str | None, as_json: bool) -> None:
    """Explain the refusal with this reference: stage, cause and fix."""
    client = connect(url)
    attempt = call(lambda: client.get(f"/api/provisioning/attempts/{quote(ref, safe='')}"))
    if as_json:
        show_json(attempt)
        return
    members = ("ref", "outcome", "stage", "detail", "fix", "deviceName", "transport", "source")
    show_members({member: attempt.get(member) for member in members} | {"at": at(attempt.get("at"))})
