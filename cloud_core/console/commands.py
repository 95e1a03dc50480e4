"""Administration on the command line: talks REST to a running core. Other topics have files of their own beside it."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from cloud_core.console.attempts import provisioning as provisioning  # others find them here
from cloud_core.console.ca import certificate_of_ca
from cloud_core.console.calls import ca_file, call, common, connect, profile_named, show, token_file, trusted_ca
from cloud_core.console.credentials import credentials
from cloud_core.console.devices import device_delete, device_replace, device_reset, device_show
from cloud_core.console.exits import EXIT_REFUSED, POINTER
from cloud_core.console.imports import device_import, device_import_undo
from cloud_core.console.manifests import device_labels, device_manifest, device_manifest_release
from cloud_core.console.output import show_json
from cloud_core.console.profiles import BY_CHAIN, STRATEGIES, profile_delete, profile_update, public
from cloud_core.rest_client import RestClient


@click.command()
@trusted_ca
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Address of the core.")
@click.option("--username", prompt=True, help="Who logs in; asks where it is not given.")
@click.option(
    "--password", prompt=True, hide_input=True, envvar="CLOUD_CORE_PASSWORD",
    help="Better left out: asks, or takes CLOUD_CORE_PASSWORD of the environment.",
)  # fmt: skip
def login(url: str, username: str, password: str) -> None:
    """Log in to a core and keep the token (0600, in your configuration folder)."""
    from cloud_core.secrets_file import write_private

    token = call(lambda: RestClient(url, ca_file=ca_file()).login(username, password))
    token_file().parent.mkdir(parents=True, exist_ok=True)
    write_private(token_file(), json.dumps({"url": url, "token": token}).encode())
    click.echo(f"Logged in to {url} as {username}.")


@click.group(epilog=POINTER)
def profile() -> None:
    """Device profiles: who may register, and how."""


@profile.command("list")
@click.option("--search", default="", help="Part of a name.")
@click.option("--limit", default=1_000, show_default=True, help="So many at most.")
@common
def profile_list(search: str, limit: int, url: str | None, as_json: bool) -> None:
    """List the device profiles."""
    client = connect(url)
    page = call(lambda: client.get("/api/deviceProfiles", pageSize=limit, page=0, textSearch=search))
    rows = [public(one, reveal=False) for one in page["data"]]
    show(rows, {"NAME": "name", "STRATEGY": "provisionType", "KEY": "provisionDeviceKey"}, as_json=as_json)
    if page["hasNext"] and not as_json:
        click.echo(f"… {page['totalElements'] - len(rows)} more; raise --limit or use --search.")


@profile.command("show")
@click.argument("name")
@click.option("--reveal", is_flag=True, help="Show key and secret.")
@common
def profile_show(name: str, reveal: bool, url: str | None, as_json: bool) -> None:
    """Show one device profile."""
    client = connect(url)
    found = public(call(lambda: profile_named(client, name)), reveal=reveal)
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
    type=click.Choice(STRATEGIES),
    default="ALLOW_CREATE_NEW_DEVICES",
    show_default=True,
    help="How devices come in.",
)
@click.option("--replay", is_flag=True, help="A lost answer may be asked for again until the first login.")
@click.option("--accept-credentials", is_flag=True, help="Pre-provisioned devices may bring their own credentials.")
@click.option("--ca", "ca_name", default="", help=f"{BY_CHAIN}: CA that admits, by its name here or a PEM file.")
@click.option("--name-pattern", default="(.*)", show_default=True, help=f"{BY_CHAIN}: group 1 of the CN is the name.")
@click.option("--create-devices/--no-create-devices", default=False, help=f"{BY_CHAIN}: make devices not known yet.")
@click.option(
    "--certificate-authority", default="", help="CA that signs for devices.  [default: the only one there is]"
)
@click.option("--certificate-days", type=int, help="How long such a certificate is valid.  [default: 365]")
@click.option("--dry-run", is_flag=True, help="Say what would be created; change nothing.")
@click.option("--reveal", is_flag=True, help="Show the generated key and secret.")
@common
def profile_create(
    name: str, strategy: str, replay: bool, accept_credentials: bool, ca_name: str, name_pattern: str,
    create_devices: bool, certificate_authority: str, certificate_days: int | None, dry_run: bool, reveal: bool,
    url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Create a device profile; key and secret are generated.

    With X509_CERTIFICATE_CHAIN devices come in by a certificate of a CA instead. Devices of any other profile may send
    a signing request (credentialsType X509_CSR, or EST), which a CA of the core signs.
    """
    if (strategy == BY_CHAIN) is not bool(ca_name):
        raise click.UsageError(f"--ca goes with --strategy {BY_CHAIN}, and with no other.")
    configuration: dict[str, Any] = {"type": strategy, "acceptDeviceCredentials": accept_credentials}
    configuration["reprovisioning"] = "REPLAY_UNTIL_CONFIRMED" if replay else "REFUSE"
    if certificate_authority:
        configuration["certificateAuthority"] = certificate_authority
    if certificate_days is not None:
        configuration["certificateLifetimeDays"] = certificate_days
    body = {
        "name": name, "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": strategy,
        "profileData": {
            "configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"},
            "provisionConfiguration": configuration,
        },
    }  # fmt: skip
    client = connect(url)
    if dry_run:
        _tell_plan(client, name, strategy, as_json=as_json)
        return
    if strategy == BY_CHAIN:
        configuration["provisionDeviceSecret"] = call(lambda: certificate_of_ca(client, ca_name))
        configuration["certificateRegExPattern"] = name_pattern
        configuration["allowCreateNewDevicesByX509Certificate"] = create_devices
    made = public(call(lambda: client.post("/api/deviceProfile", body)), reveal=reveal)
    if as_json:
        click.echo(json.dumps(made, indent=2))
        return
    if strategy == BY_CHAIN:
        click.echo(f"Created profile '{name}', which admits by certificates of the CA '{ca_name}'.")
        return
    secret = made["profileData"]["provisionConfiguration"].get("provisionDeviceSecret")
    click.echo(f"Created profile '{name}'.\nkey     {made['provisionDeviceKey']}\nsecret  {secret}")


@click.group(epilog=POINTER)
def device() -> None:
    """Devices of the fleet."""


@device.command("list")
@click.option("--search", default="", help="Part of a name, label or type.")
@click.option("--limit", default=100, show_default=True, help="So many at most.")
@common
def device_list(search: str, limit: int, url: str | None, as_json: bool) -> None:
    """List devices."""
    client = connect(url)
    page = call(lambda: client.get("/api/tenant/devices", pageSize=limit, page=0, textSearch=search))
    show(page["data"], {"NAME": "name", "TYPE": "type", "LABEL": "label"}, as_json=as_json)
    if page["hasNext"] and not as_json:
        click.echo(f"… {page['totalElements'] - len(page['data'])} more; raise --limit or use --search.")


@device.command("create")
@click.argument("name")
@click.option("--type", "kind", default="default", show_default=True, help="Device profile, made if missing.")
@click.option("--label", default="", help="What people call it.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
@common
def device_create(name: str, kind: str, label: str, dry_run: bool, url: str | None, as_json: bool) -> None:
    """Create a device, for instance ahead of CHECK_PRE_PROVISIONED_DEVICES."""
    client = connect(url)
    query = {"plan": "true"} if dry_run else {}
    rows = call(lambda: client.post("/api/devices", [{"name": name, "type": kind, "label": label}], **query))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo(f"{'Plan: ' if dry_run else ''}{rows[0]['status']} {name}")
        if rows[0].get("error"):
            click.echo(f"cloud-core: {rows[0]['error']}", err=True)
    if rows[0]["status"] in ("ERROR", "CONFLICT"):
        sys.exit(EXIT_REFUSED)


def _tell_plan(client: RestClient, name: str, strategy: str, *, as_json: bool) -> None:
    """What `profile create` would do; refused as the core would refuse it."""
    query = {"pageSize": 1000, "page": 0, "textSearch": name}
    if any(one["name"] == name for one in call(lambda: client.get("/api/deviceProfiles", **query))["data"]):
        click.echo(f"cloud-core: There is a device profile '{name}' already; choose another name.", err=True)
        sys.exit(EXIT_REFUSED)
    if as_json:
        show_json({"dryRun": True, "name": name, "provisionType": strategy})
    else:
        click.echo(f"Would create the profile '{name}' with strategy {strategy}.")


for command in (profile_update, profile_delete):
    profile.add_command(command)
for command in (
    device_show, device_delete, credentials, device_reset, device_replace, device_import, device_import_undo,
    device_manifest, device_manifest_release, device_labels,
):  # fmt: skip
    device.add_command(command)
