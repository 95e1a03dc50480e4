"""`device credentials`: see what a device logs in with, and give it something else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from cloud_core.console.calls import HIDDEN, call, common, connect, device_named, dry_run, fail, id_of
from cloud_core.console.exits import EXIT_FILE, POINTER
from cloud_core.console.output import at, show_json, show_members
from cloud_core.rest_client import RestClient

MAX_FILE_BYTES = 65_536


class ShowsByDefault(click.Group):
    """`device credentials NAME` is `device credentials show NAME`."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {"-h", "--help"}
        if args and args[0].startswith("-") and args[0] not in known:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group("credentials", cls=ShowsByDefault, epilog=POINTER)
def credentials() -> None:
    """What a device logs in with.

    \b
      cloud-core device credentials SN-1                      kind and id, secrets hidden
      cloud-core device credentials SN-1 --reveal             with its secrets
      cloud-core device credentials set SN-1 --new-token      another token; its connections end
    """


@credentials.command("show")
@click.argument("name")
@click.option("--reveal", is_flag=True, help="Show its secrets.")
@common
def credentials_show(name: str, reveal: bool, url: str | None, as_json: bool) -> None:
    """Show what the device logs in with; secrets are hidden."""
    client = connect(url)
    found = call(lambda: _of_device(client, device_named(client, name)))
    _tell(found, reveal=reveal, as_json=as_json)


@credentials.command("set")
@click.argument("name")
@click.option("--new-token", is_flag=True, help="A random access token.")
@click.option("--token", help="This access token; - reads it from standard input, which no list of processes shows.")
@click.option("--mqtt-username", default="", help="MQTT: user name.")
@click.option("--mqtt-client-id", default="", help="MQTT: client id.")
@click.option("--mqtt-password", help="MQTT: password; - reads it from standard input.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM file of the device's certificate.")
@click.option("--reveal", is_flag=True, help="Show the new secrets.")
@dry_run
@common
def credentials_set(
    name: str, new_token: bool, token: str | None, mqtt_username: str, mqtt_client_id: str, mqtt_password: str | None,
    certificate: Path | None, reveal: bool, dry_run: bool, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Give the device other credentials. The old ones end, and so do its connections."""
    is_mqtt = bool(mqtt_username or mqtt_client_id or mqtt_password)
    if sum((new_token, token is not None, is_mqtt, certificate is not None)) != 1:
        raise click.UsageError("Say which credentials: --new-token, --token, --mqtt-… or --certificate, one kind.")
    client = connect(url)
    before = call(lambda: _of_device(client, device_named(client, name)))
    after = before | {"credentialsId": None, "credentialsValue": None}
    if new_token or token is not None:
        after |= {"credentialsType": "ACCESS_TOKEN", "credentialsId": _made() if new_token else _typed(token)}
    elif is_mqtt:
        members = {"clientId": mqtt_client_id, "userName": mqtt_username, "password": _typed(mqtt_password)}
        after |= {"credentialsType": "MQTT_BASIC", "credentialsValue": json.dumps(members)}
    else:
        assert certificate is not None, "one of the four was given"
        after |= {"credentialsType": "X509_CERTIFICATE", "credentialsValue": _read(certificate)}
    if dry_run:
        plan = {"dryRun": True, "name": name, "from": before["credentialsType"], "to": after["credentialsType"]}
        if as_json:
            show_json(plan)
        else:
            click.echo(f"Would give '{name}' {plan['to']} in place of {plan['from']}; its connections would end.")
        return
    made = call(lambda: client.post("/api/device/credentials", after))
    if not as_json:
        click.echo(f"'{name}' has other credentials; connections with the old ones end.")
    _tell(made, reveal=reveal, as_json=as_json)


def _of_device(client: RestClient, device: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/api/device/{id_of(device)}/credentials")
    return found


def _tell(found: dict[str, Any], *, reveal: bool, as_json: bool) -> None:
    shown = found if reveal else public(found)
    if as_json:
        show_json(shown)
        return
    members: dict[str, Any] = {"type": shown["credentialsType"]}
    if shown["credentialsType"] == "ACCESS_TOKEN":
        members["token"] = shown["credentialsId"]
    elif shown["credentialsType"] == "MQTT_BASIC":
        value = json.loads(shown["credentialsValue"])
        members |= {"client id": value["clientId"], "user name": value["userName"], "password": value["password"]}
    else:
        members["fingerprint"] = shown["credentialsId"]
    show_members(members | {"since": at(shown["createdTime"])})


def public(credentials: dict[str, Any]) -> dict[str, Any]:
    """Without what opens a door: the token, or the password. A certificate is no secret."""
    if credentials["credentialsType"] == "ACCESS_TOKEN":
        return credentials | {"credentialsId": HIDDEN}
    if credentials["credentialsType"] == "MQTT_BASIC":
        value = json.loads(credentials["credentialsValue"])
        hidden = value | {"password": HIDDEN if value.get("password") else None}
        return credentials | {"credentialsValue": json.dumps(hidden, ensure_ascii=False)}
    return credentials


def _made() -> str:
    from cloud_core.core.tokens import new_secret

    return new_secret()


def _typed(given: str | None) -> str:
    if given != "-":
        return given or ""
    line = sys.stdin.readline(MAX_FILE_BYTES)
    return line.rstrip("\r\n")


def _read(file: Path) -> str:
    try:
        with file.open(encoding="ascii", errors="replace") as opened:
            return opened.read(MAX_FILE_BYTES)
    except OSError as error:
        fail(f"Cannot use {file}: {error.strerror}.", EXIT_FILE)
