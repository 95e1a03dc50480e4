"""Secrets of device profiles on the command line: rotation with overlap, and further provision keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from cloud_core.console.calls import HIDDEN, call, common, confirm, connect, profile_named, show, yes
from cloud_core.console.output import tell_plan
from cloud_core.rest_client import RestClient, RestError

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Span(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions alone
    """`90`, `15m`, `12h` or `30d`, in seconds."""

    name = "span"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        number, unit = (value[:-1], value[-1:]) if value[-1:] in _UNITS_S else (value, "s")
        if not number.isdecimal():
            self.fail(f"'{value}' is no span of time; write 90, 15m, 12h or 30d.", param, ctx)
        return int(number) * _UNITS_S[unit]


@click.command("rotate-secret")
@click.argument("name")
@click.option("--overlap", type=Span(), default="30d", show_default=True, help="So long the old secret stays valid.")
@click.option("--reveal", is_flag=True, help="Show the new secret.")
@click.option("--dry-run", is_flag=True, help="Show who uses the secrets now; change nothing.")
@common
def rotate_secret(name: str, overlap: int, reveal: bool, dry_run: bool, url: str | None, as_json: bool) -> None:
    """Give a profile a new provision secret; the old one stays valid for a while.

    With --dry-run: how many attempts showed the current and the former secret, and when last.
    """
    client = connect(url)
    path = f"/api/deviceProfile/{_id(call(lambda: profile_named(client, name)))}"
    if dry_run:
        adoption = call(lambda: client.get(f"{path}/adoption"))
        if as_json:
            click.echo(json.dumps({"dryRun": True, **adoption}, indent=2))
            return
        for which in ("current", "former"):
            use = adoption[which]
            click.echo(f"{which:<8}  {use['attempts']} attempts, last {_time(use['lastTime']) or 'never'}")
        click.echo(f"Would give '{name}' a new secret; the current one would stay valid for {overlap} s.")
        return
    made = call(lambda: client.post(f"{path}/rotateSecret", {"overlapSeconds": overlap}))
    secret = made["profileData"]["provisionConfiguration"]["provisionDeviceSecret"] if reveal else HIDDEN
    until = made["formerSecretValidUntil"]
    if as_json:
        click.echo(
            json.dumps({"name": name, "provisionDeviceSecret": secret, "formerSecretValidUntil": until}, indent=2)
        )
        return
    click.echo(f"New secret of '{name}'  {secret}")
    click.echo(f"The old one is valid until {_time(until)}." if until else "The old one is not valid any more.")


@click.group("keys")
@click.argument("name")
@click.pass_context
def keys(context: click.Context, name: str) -> None:
    """Further provision keys of the profile NAME, each with a budget and rules of its own."""
    context.obj = name


@keys.command("list")
@common
@click.pass_obj
def keys_list(profile: str, url: str | None, as_json: bool) -> None:
    """List the keys."""
    client = connect(url)
    rows = call(lambda: client.get(_path(client, profile)))
    if not as_json:
        rows = [
            {**one, "validUntil": _time(one["validUntil"]), "enabled": "yes" if one["enabled"] else "no",
             "used": f"{one['used']} of {one['budget']}" if one["budget"] else str(one["used"])}
            for one in rows
        ]  # fmt: skip
    columns = {
        "NAME": "name", "KEY": "keyHint", "ENABLED": "enabled", "USED": "used", "UNTIL": "validUntil",
        "NAMES": "namePattern", "BATCH": "batch",
    }  # fmt: skip
    show(rows, columns, as_json=as_json)


@keys.command("add")
@click.argument("key_name")
@click.option("--max", "budget", type=click.IntRange(0), default=0, help="How many devices it lets in.  [default: any]")
@click.option("--from-time", type=click.DateTime(), help="Valid from then (UTC).")
@click.option("--until", type=click.DateTime(), help="Valid until then (UTC).")
@click.option("--from", "networks", multiple=True, help="Network whence devices may ask, as 10.0.0.0/8; repeatable.")
@click.option("--name-pattern", default="", help="Regular expression that device names must match.")
@click.option("--gateways/--no-gateways", default=False, help="Whether gateways may use it.")
@click.option("--batch", default="", help="A word for what it is for.")
@click.option("--dry-run", is_flag=True, help="Say what would be made; change nothing.")
@common
@click.pass_obj
def keys_add(
    profile: str, key_name: str, budget: int, from_time: datetime | None, until: datetime | None,
    networks: tuple[str, ...], name_pattern: str, gateways: bool, batch: str, dry_run: bool, url: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Make a key; it and its secret are shown now, and never again."""
    client = connect(url)
    path = _path(client, profile)
    if dry_run:
        tell_plan(f"Would make the provision key '{key_name}' of profile '{profile}'.", as_json=as_json)
        return
    body = {
        "name": key_name, "budget": budget, "validFrom": _ms(from_time), "validUntil": _ms(until),
        "networks": list(networks), "namePattern": name_pattern, "gateways": gateways, "batch": batch,
    }  # fmt: skip
    made = call(lambda: client.post(path, body))
    if as_json:
        click.echo(json.dumps(made, indent=2))
        return
    click.echo(f"Made the provision key '{key_name}'.")
    click.echo(f"key     {made['provisionDeviceKey']}\nsecret  {made['provisionDeviceSecret']}")


@keys.command("disable")
@click.argument("key_name")
@click.option("--undo", is_flag=True, help="Enable it again.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
@common
@click.pass_obj
def keys_disable(profile: str, key_name: str, undo: bool, dry_run: bool, url: str | None, as_json: bool) -> None:
    """Let nobody in by this key any more."""
    client = connect(url)
    path = _path(client, profile)
    key = call(lambda: _key(client, path, key_name))
    if dry_run:
        tell_plan(f"Would {'enable' if undo else 'disable'} the provision key '{key_name}'.", as_json=as_json)
        return
    changed = call(lambda: client.post(f"{path}/{_id(key)}", {"enabled": undo}))
    click.echo(json.dumps(changed, indent=2) if as_json else f"'{key_name}' is {'enabled' if undo else 'disabled'}.")


@keys.command("delete")
@click.argument("key_name")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted; change nothing.")
@yes
@common
@click.pass_obj
def keys_delete(profile: str, key_name: str, dry_run: bool, is_sure: bool, url: str | None, as_json: bool) -> None:
    """Delete a key; devices that it let in stay."""
    client = connect(url)
    path = _path(client, profile)
    key = call(lambda: _key(client, path, key_name))
    if dry_run:
        tell_plan(f"Would delete the provision key '{key_name}'.", as_json=as_json)
        return
    confirm(f"Delete the provision key '{key_name}'?", is_sure=is_sure)
    call(lambda: client.delete(f"{path}/{_id(key)}"))
    said = f"Deleted the provision key '{key_name}'."
    click.echo(json.dumps({"deleted": True, "name": key_name}) if as_json else said)


def _path(client: RestClient, profile: str) -> str:
    return f"/api/deviceProfile/{_id(call(lambda: profile_named(client, profile)))}/keys"


def _key(client: RestClient, path: str, name: str) -> dict[str, Any]:
    for one in client.get(path):
        if one["name"] == name:
            found: dict[str, Any] = one
            return found
    raise RestError(f"The profile has no provision key '{name}'.", 404)


def _id(entity: dict[str, Any]) -> str:
    return str(entity["id"]["id"])


def _ms(at: datetime | None) -> int:
    return int(at.replace(tzinfo=UTC).timestamp() * 1000) if at is not None else 0


def _time(at_ms: int | None) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if at_ms else ""
