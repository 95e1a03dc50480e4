"""`profile update` and `profile delete`."""

from __future__ import annotations

import json
from typing import Any

import click

from cloud_core.console.ca import certificate_of_ca
from cloud_core.console.calls import (
    HIDDEN,
    call,
    common,
    confirm,
    connect,
    dry_run,
    id_of,
    profile_named,
    yes,
)
from cloud_core.console.output import show_json, text_of
from cloud_core.rest_client import RestClient

BY_CHAIN = "X509_CERTIFICATE_CHAIN"
STRATEGIES = ["DISABLED", "ALLOW_CREATE_NEW_DEVICES", "CHECK_PRE_PROVISIONED_DEVICES", BY_CHAIN]


def public(profile: dict[str, Any], *, reveal: bool) -> dict[str, Any]:
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


@click.command("update")
@click.argument("name")
@click.option("--name", "new_name", help="Another name.")
@click.option("--description", help="What the profile is for.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="How devices come in.")
@click.option("--replay/--no-replay", default=None, help="Whether a lost answer may be asked for again.")
@click.option(
    "--accept-credentials/--no-accept-credentials", default=None,
    help="Whether pre-provisioned devices may bring their own credentials.",
)  # fmt: skip
@click.option("--ca", "ca_name", help=f"{BY_CHAIN}: CA that admits, by its name here or a PEM file.")
@click.option("--name-pattern", help=f"{BY_CHAIN}: group 1 of the CN is the name.")
@click.option("--create-devices/--no-create-devices", default=None, help=f"{BY_CHAIN}: make devices not known yet.")
@click.option("--certificate-authority", help="CA that signs for devices.")
@click.option("--certificate-days", type=int, help="How long such a certificate is valid.")
@dry_run
@common
def profile_update(
    name: str, new_name: str | None, description: str | None, strategy: str | None, ca_name: str | None, dry_run: bool,
    url: str | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Change a device profile; what is not given stays as it is.

    \b
    Examples:
      cloud-core profile update meters --strategy DISABLED        close the door
      cloud-core profile update meters --replay --dry-run         say what would change
    """
    client = connect(url)
    before = call(lambda: profile_named(client, name))
    after = json.loads(json.dumps(before))
    after["name"] = new_name or name
    if description is not None:
        after["description"] = description
    call(lambda: _configure(client, after, strategy, ca_name, options))
    changes = _changes(before, after)
    if not changes:
        raise click.UsageError(f"Nothing would change in '{name}'; say what, such as --strategy. See --help.")
    if not dry_run:
        after = call(lambda: client.post("/api/deviceProfile", after))
    if as_json:
        show_json({"dryRun": dry_run, "changes": changes, "profile": public(after, reveal=False)})
        return
    click.echo(f"{'Would change' if dry_run else 'Changed'} the profile '{name}':")
    for what, (old, new) in changes.items():
        click.echo(f"  {what}: {text_of(old) or '-'} → {text_of(new) or '-'}")


def _configure(
    client: RestClient, profile: dict[str, Any], strategy: str | None, ca_name: str | None, options: dict[str, Any]
) -> None:
    """Raises: RestError, click.UsageError."""
    configuration = profile["profileData"]["provisionConfiguration"]
    former = profile["provisionType"]
    wanted = strategy or former
    chain_options = {
        "certificateRegExPattern": options["name_pattern"],
        "allowCreateNewDevicesByX509Certificate": options["create_devices"],
    }
    if wanted != BY_CHAIN and (ca_name or any(value is not None for value in chain_options.values())):
        raise click.UsageError(f"--ca, --name-pattern and --create-devices go with --strategy {BY_CHAIN} alone.")
    if wanted == BY_CHAIN and former != BY_CHAIN and not ca_name:
        raise click.UsageError(f"--strategy {BY_CHAIN} needs --ca: the CA that admits.")
    if (wanted == BY_CHAIN) is not (former == BY_CHAIN):  # key and secret mean something else: they are made anew
        profile["provisionDeviceKey"] = configuration["provisionDeviceSecret"] = None
        chain_options = {"certificateRegExPattern": "(.*)"} | {k: v for k, v in chain_options.items() if v is not None}
    profile["provisionType"] = configuration["type"] = wanted
    if ca_name:
        configuration["provisionDeviceSecret"] = certificate_of_ca(client, ca_name)
        profile["provisionDeviceKey"] = None  # the core finds it in the certificate
    given = {
        "acceptDeviceCredentials": options["accept_credentials"],
        "certificateAuthority": options["certificate_authority"],
        "certificateLifetimeDays": options["certificate_days"],
        **chain_options,
    }
    if options["replay"] is not None:
        given["reprovisioning"] = "REPLAY_UNTIL_CONFIRMED" if options["replay"] else "REFUSE"
    if wanted != BY_CHAIN:
        given = {key: value for key, value in given.items() if key not in chain_options}
    configuration.update({key: value for key, value in given.items() if value is not None})


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{member: (old, new)}, secrets hidden."""
    old, new = _flat(before), _flat(after)
    differing = {key: (old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}
    secrets = {
        key: (HIDDEN if one else None, "another" if other else "made anew")
        for key, (one, other) in differing.items()
        if key in ("provisionDeviceKey", "provisionDeviceSecret")
    }
    return differing | secrets


def _flat(profile: dict[str, Any]) -> dict[str, Any]:
    shown = {key: profile.get(key) for key in ("name", "description", "provisionDeviceKey")}
    configuration = dict(profile["profileData"]["provisionConfiguration"])
    shown["strategy"] = configuration.pop("type", None)
    return shown | configuration


@click.command("delete")
@click.argument("name")
@dry_run
@yes
@common
def profile_delete(name: str, dry_run: bool, is_sure: bool, url: str | None, as_json: bool) -> None:
    """Delete a device profile that no device has any more.

    Devices that hold its provision key cannot register any more. Asks first.
    """
    client = connect(url)
    profile = call(lambda: profile_named(client, name))
    users = call(lambda: client.get("/api/tenant/devices", pageSize=1, page=0, type=name))["totalElements"]
    if not dry_run:
        confirm(f"Delete the profile '{name}'?", is_sure=is_sure)
        call(lambda: client.delete(f"/api/deviceProfile/{id_of(profile)}"))
    if as_json:
        show_json({"dryRun": dry_run, "name": name, "id": profile["id"]["id"], "devices": users})
    elif dry_run and (users or profile.get("default")):
        why = f"{users} devices have it" if users else "it is the default profile"
        click.echo(f"Would be refused: {why}.")
    else:
        click.echo(f"{'Would delete' if dry_run else 'Deleted'} the profile '{name}'.")
