"""`device show|delete|reset-provisioning|replace`: one device, from its state to the unit in its place."""

from __future__ import annotations

from typing import Any

import click

from cloud_core.console.calls import call, common, confirm, connect, device_named, dry_run, id_of, yes
from cloud_core.console.gateways import link_of
from cloud_core.console.output import ago, at, show_json, show_members, text_of
from cloud_core.rest_client import RestClient, RestError

SCOPES = ("CLIENT_SCOPE", "SHARED_SCOPE", "SERVER_SCOPE")
_LINK = ("gateway", "active", "connected", "lastConnectTime", "lastDisconnectTime", "lastActivityTime", "behind")


@click.command("show")
@click.argument("name")
@click.option("--data", "has_data", is_flag=True, help="With attributes and the latest value of each time series.")
@common
def device_show(name: str, has_data: bool, url: str | None, as_json: bool) -> None:
    """Show one device: what it is, its link, how its provisioning stands, and its last attempt."""
    client = connect(url)
    shown = call(lambda: _whole(client, name, has_data))
    if as_json:
        show_json(shown)
        return
    attempt = shown["lastAttempt"] or {}
    behind = shown["behind"] or {}
    last = f"{attempt['outcome']} at {at(attempt['at'])}, {attempt['detail']}".rstrip(", ") if attempt else ""
    show_members({
        "name": shown["name"], "profile": shown["type"], "label": shown["label"], "id": shown["id"]["id"],
        "kind": "gateway" if shown["gateway"] else "device", "behind": behind.get("name"), "link": link_of(shown),
        "last activity": " ".join(filter(None, (at(shown["lastActivityTime"]), _in_brackets(shown)))),
        "credentials": shown["credentialsType"], "provisionState": shown["provisionState"], "last attempt": last,
        "created": at(shown["createdTime"]),
    })  # fmt: skip
    for scope, values in (shown.get("attributes") or {}).items():
        click.echo(f"\n{scope.removesuffix('_SCOPE').lower()} attributes")
        show_members({f"  {text_of(key)}": value for key, value in values.items()})
    if shown.get("latest"):
        click.echo("\nlatest values")
        show_members({f"  {text_of(key)}": f"{text_of(one['value'])}  ({at(one['ts'])})"
                      for key, one in shown["latest"].items()})  # fmt: skip


def _in_brackets(shown: dict[str, Any]) -> str:
    passed = ago(shown["lastActivityTime"])
    return f"({passed})" if passed else ""


def _whole(client: RestClient, name: str, has_data: bool) -> dict[str, Any]:
    """Raises: RestError."""
    found = device_named(client, name)
    uuid = id_of(found)
    node = client.get(f"/api/gateway/{uuid}")
    attempts = client.get(
        "/api/provisioning/attempts", pageSize=1, page=0, sortProperty="at", sortOrder="DESC", deviceName=name
    )["data"]
    data = f"/api/plugins/telemetry/DEVICE/{uuid}"
    state = client.get(f"{data}/values/attributes/SERVER_SCOPE", keys="provisionState")
    shown = found | {key: node[key] for key in _LINK} | {
        "credentialsType": client.get(f"/api/device/{uuid}/credentials")["credentialsType"],
        "provisionState": state[0]["value"] if state else None, "lastAttempt": attempts[0] if attempts else None,
    }  # fmt: skip
    if has_data:
        scopes = {scope: client.get(f"{data}/values/attributes/{scope}") for scope in SCOPES}
        shown["attributes"] = {
            scope: {one["key"]: one["value"] for one in values} for scope, values in scopes.items() if values
        }
        latest = client.get(f"{data}/values/timeseries", useStrictDataTypes="true")
        shown["latest"] = {key: points[0] for key, points in latest.items()}
    return shown


@click.command("delete")
@click.argument("name")
@dry_run
@yes
@common
def device_delete(name: str, dry_run: bool, is_sure: bool, url: str | None, as_json: bool) -> None:
    """Delete a device with its credentials, attributes, history and relations.

    There is no way back. Asks first. A unit that is broken is better replaced: see `device replace`.
    """
    client = connect(url)
    found = call(lambda: device_named(client, name))
    if not dry_run:
        confirm(f"Delete the device '{name}' with all its data?", is_sure=is_sure)
        call(lambda: client.delete(f"/api/device/{id_of(found)}"))
    if as_json:
        show_json({"dryRun": dry_run, "name": name, "id": found["id"]["id"]})
    else:
        click.echo(f"{'Would delete' if dry_run else 'Deleted'} the device '{name}'.")


@click.command("reset-provisioning")
@click.argument("name")
@click.option(
    "--new-credentials", is_flag=True, help="Give it a new access token, too: whoever has the old one is out."
)
@dry_run
@common
def device_reset(name: str, new_credentials: bool, dry_run: bool, url: str | None, as_json: bool) -> None:
    """Let a device provision once more, for instance after its memory was wiped.

    How far that goes is for the strategy of its profile to say; the answer names what still stands in the way.
    """
    client = connect(url)
    found = call(lambda: device_named(client, name))
    path = f"/api/device/{id_of(found)}/resetProvisioning"
    query = {"plan": "true"} if dry_run else {}
    done = call(lambda: client.post(path, {"newCredentials": new_credentials}, **query))
    if as_json:
        show_json(done | {"dryRun": dry_run})
        return
    if done["mayProvision"]:
        click.echo(f"'{name}' {'could provision' if dry_run else 'may provision'} once more.")
    if new_credentials:
        click.echo(f"{'It would get' if dry_run else 'It has'} a new access token; connections with the old one end.")
    if done["note"]:
        click.echo(f"It cannot provision now: {done['note']}")


@click.command("replace")
@click.argument("old")
@click.argument("new")
@dry_run
@yes
@common
def device_replace(old: str, new: str, dry_run: bool, is_sure: bool, url: str | None, as_json: bool) -> None:
    """Put the unit NEW in the place of the broken OLD.

    NEW has provisioned already, or was made by hand. From then on it is OLD: it has that name, id, attributes, history
    and relations, and keeps its own credentials; what it has sent so far goes along. OLD's credentials end, and there
    is no device NEW any more. Asks first.

    \b
    Example:
      cloud-core device replace pump-3 SN-2045 --dry-run
    """
    client = connect(url)
    device = call(lambda: device_named(client, old))
    unit = call(lambda: _unit(client, new))
    path, body = f"/api/device/{id_of(device)}/replace", {"by": unit["id"]}
    plan = call(lambda: client.post(path, body, plan="true"))
    if not dry_run:
        question = f"Let '{new}' be '{old}' from now on, and end the credentials of the old unit?"
        confirm(question, is_sure=is_sure)
        plan = call(lambda: client.post(path, body))
    if as_json:
        show_json(plan | {"dryRun": dry_run})
        return
    said = "Would let the unit" if dry_run else "The unit"
    click.echo(f"{said} '{new}' {'be' if dry_run else 'is'} '{old}' now; the old unit's credentials end.")
    if plan["rowsTakenOver"] or plan["clientAttributes"]:
        names = ", ".join(map(text_of, plan["clientAttributes"])) or "none"
        click.echo(f"Of its own it brings: data of {plan['rowsTakenOver']} times, client attributes {names}.")


def _unit(client: RestClient, name: str) -> dict[str, Any]:
    try:
        return device_named(client, name)
    except RestError as error:
        if error.status != 404:
            raise
        message = f"There is no device '{name}': let the new unit provision first, or make it with device create."
        raise RestError(message, 404) from error
