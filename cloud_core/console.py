"""Administration on the command line: talks REST to a running core."""

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


def _token_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "muster" / "login.json"


def _client(url: str | None) -> RestClient:
    saved: dict[str, str] = {}
    if _token_file().exists():
        saved = json.loads(_token_file().read_text(encoding="utf-8"))
    where = url or os.environ.get("CLOUD_CORE_URL") or saved.get("url") or "http://127.0.0.1:8080"
    token = os.environ.get("CLOUD_CORE_TOKEN") or (saved.get("token", "") if saved.get("url") == where else "")
    if not token:
        click.echo(f"cloud-core: not logged in; run: cloud-core login --url {where}", err=True)
        sys.exit(EXIT_NOT_LOGGED_IN)
    return RestClient(where, token)


def _common(command: Any) -> Any:  # Any: click decorators
    command = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")(command)
    return click.option("--url", help="Address of the core.  [default: where you logged in]")(command)


def _call(function: Any) -> Any:
    """Runs REST calls; a refusal is one sentence and an exit code by cause."""
    try:
        return function()
    except RestError as error:
        click.echo(f"cloud-core: {error}", err=True)
        code = {0: EXIT_NO_ANSWER, 401: EXIT_NOT_LOGGED_IN}.get(error.status, EXIT_REFUSED)
        sys.exit(code)


def _show(rows: list[dict[str, Any]], columns: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = [list(columns), *[[str(row.get(member, "") or "") for member in columns.values()] for row in rows]]
    widths = [max(len(line[place]) for line in table) for place in range(len(columns))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@click.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Address of the core.")
@click.option("--username", prompt=True)
@click.option("--password", prompt=True, hide_input=True, envvar="CLOUD_CORE_PASSWORD")
def login(url: str, username: str, password: str) -> None:
    """Log in to a core and keep the token (0600, in your configuration folder)."""
    from cloud_core.secrets_file import write_private

    token = _call(lambda: RestClient(url).login(username, password))
    _token_file().parent.mkdir(parents=True, exist_ok=True)
    write_private(_token_file(), json.dumps({"url": url, "token": token}).encode())
    click.echo(f"Logged in to {url} as {username}.")


@click.group()
def profile() -> None:
    """Device profiles: who may register, and how."""


@profile.command("list")
@_common
def profile_list(url: str | None, as_json: bool) -> None:
    """List the device profiles."""
    client = _client(url)
    page = _call(lambda: client.get("/api/deviceProfiles", pageSize=1000, page=0))
    rows = [_public(one, reveal=False) for one in page["data"]]
    _show(rows, {"NAME": "name", "STRATEGY": "provisionType", "KEY": "provisionDeviceKey"}, as_json=as_json)


@profile.command("show")
@click.argument("name")
@click.option("--reveal", is_flag=True, help="Show key and secret.")
@_common
def profile_show(name: str, reveal: bool, url: str | None, as_json: bool) -> None:
    """Show one device profile."""
    client = _client(url)
    found = _public(_call(lambda: _profile_by_name(client, name)), reveal=reveal)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    configuration = found["profileData"]["provisionConfiguration"]
    click.echo(f"name      {found['name']}\nstrategy  {found['provisionType']}")
    click.echo(f"key       {found['provisionDeviceKey']}\nsecret    {configuration.get('provisionDeviceSecret')}")


@profile.command("create")
@click.argument("name")
@click.option(
    "--strategy",
    type=click.Choice(["DISABLED", "ALLOW_CREATE_NEW_DEVICES", "CHECK_PRE_PROVISIONED_DEVICES"]),
    default="ALLOW_CREATE_NEW_DEVICES",
    show_default=True,
)
@click.option("--replay", is_flag=True, help="A lost answer may be asked for again until the first login.")
@click.option("--accept-credentials", is_flag=True, help="Pre-provisioned devices may bring their own credentials.")
@click.option("--dry-run", is_flag=True, help="Say what would be created; change nothing.")
@click.option("--reveal", is_flag=True, help="Show the generated key and secret.")
@_common
def profile_create(
    name: str, strategy: str, replay: bool, accept_credentials: bool, dry_run: bool, reveal: bool,
    url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Create a device profile; key and secret are generated."""
    configuration: dict[str, Any] = {"type": strategy, "acceptDeviceCredentials": accept_credentials}
    configuration["reprovisioning"] = "REPLAY_UNTIL_CONFIRMED" if replay else "REFUSE"
    body = {
        "name": name, "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": strategy,
        "profileData": {
            "configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"},
            "provisionConfiguration": configuration,
        },
    }  # fmt: skip
    if dry_run:
        click.echo(f"Would create the profile '{name}' with strategy {strategy}.")
        return
    client = _client(url)
    made = _public(_call(lambda: client.post("/api/deviceProfile", body)), reveal=reveal)
    if as_json:
        click.echo(json.dumps(made, indent=2))
        return
    secret = made["profileData"]["provisionConfiguration"].get("provisionDeviceSecret")
    click.echo(f"Created profile '{name}'.\nkey     {made['provisionDeviceKey']}\nsecret  {secret}")


@click.group()
def device() -> None:
    """Devices of the fleet."""


@device.command("list")
@click.option("--search", default="", help="Part of a name, label or type.")
@click.option("--limit", default=100, show_default=True)
@_common
def device_list(search: str, limit: int, url: str | None, as_json: bool) -> None:
    """List devices."""
    client = _client(url)
    page = _call(lambda: client.get("/api/tenant/devices", pageSize=limit, page=0, textSearch=search))
    _show(page["data"], {"NAME": "name", "TYPE": "type", "LABEL": "label"}, as_json=as_json)
    if page["hasNext"] and not as_json:
        click.echo(f"… {page['totalElements'] - len(page['data'])} more; raise --limit or use --search.")


@device.command("create")
@click.argument("name")
@click.option("--type", "kind", default="default", show_default=True, help="Device profile, made if missing.")
@click.option("--label", default="")
@click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
@_common
def device_create(name: str, kind: str, label: str, dry_run: bool, url: str | None, as_json: bool) -> None:
    """Create a device, for instance ahead of CHECK_PRE_PROVISIONED_DEVICES."""
    client = _client(url)
    query = {"plan": "true"} if dry_run else {}
    rows = _call(lambda: client.post("/api/devices", [{"name": name, "type": kind, "label": label}], **query))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(f"{'Plan: ' if dry_run else ''}{rows[0]['status']} {name}")
        if rows[0].get("error"):
            click.echo(f"cloud-core: {rows[0]['error']}", err=True)
    if rows[0]["status"] in ("ERROR", "CONFLICT"):
        sys.exit(EXIT_REFUSED)


@click.group()
def provisioning() -> None:
    """Provision attempts and why they were refused."""


@provisioning.command("list")
@_common
def provisioning_list(url: str | None, as_json: bool) -> None:
    """List the newest attempts."""
    client = _client(url)
    rows = _call(lambda: client.get("/api/provisioning/attempts"))
    columns = {"REF": "ref", "OUTCOME": "outcome", "DEVICE": "deviceName", "FROM": "source", "DETAIL": "detail"}
    _show(rows, columns, as_json=as_json)


@provisioning.command("explain")
@click.argument("ref")
@_common
def provisioning_explain(ref: str, url: str | None, as_json: bool) -> None:
    """Explain the refusal with this reference: stage, cause and fix."""
    client = _client(url)
    attempt = _call(lambda: client.get(f"/api/provisioning/attempts/{ref}"))
    if as_json:
        click.echo(json.dumps(attempt, indent=2))
        return
    for member in ("ref", "outcome", "stage", "detail", "fix", "deviceName", "transport", "source"):
        click.echo(f"{member:<12}{attempt.get(member) or ''}")


def _profile_by_name(client: RestClient, name: str) -> dict[str, Any]:
    page = client.get("/api/deviceProfiles", pageSize=1000, page=0, textSearch=name)
    for one in page["data"]:
        if one["name"] == name:
            found: dict[str, Any] = one
            return found
    raise RestError(f"There is no device profile '{name}'.", 404)


def _public(profile: dict[str, Any], *, reveal: bool) -> dict[str, Any]:
    """The profile with key and secret hidden unless they are asked for."""
    if reveal:
        return profile
    shown: dict[str, Any] = json.loads(json.dumps(profile))
    configuration = shown.get("profileData", {}).get("provisionConfiguration") or {}
    if configuration.get("provisionDeviceSecret"):
        configuration["provisionDeviceSecret"] = HIDDEN
    if shown.get("provisionDeviceKey"):
        shown["provisionDeviceKey"] = HIDDEN
    return shown
