"""Users of the tenant on the command line: talks REST to a running core."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from cloud_core.console.calls import call, common, confirm, connect, show, token_file, yes
from cloud_core.console.exits import EXIT_NOT_LOGGED_IN, POINTER
from cloud_core.console.output import tell_plan
from cloud_core.rest_client import RestClient, RestError
from cloud_core.secrets_file import write_private

ROLES = ("ADMINISTRATOR", "OPERATOR", "VIEWER")
COLUMNS = {"EMAIL": "email", "AUTHORITY": "authority", "ROLE": "role"}
PAGE_SIZE = 1_000

_dry_run = click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
_reveal = click.option("--reveal", is_flag=True, help="Show the generated password; it is told this once.")
_generate = click.option("--generate", is_flag=True, help="Have the core make a password; needs --reveal.")
_password = click.option(
    "--password", envvar="CLOUD_CORE_NEW_PASSWORD", help="At least 8 characters.  [default: asked for]"
)


@click.group(epilog=POINTER)
def user() -> None:
    """People who administer the tenant: administrators, operators and viewers."""


@user.command("list")
@click.option("--search", default="", help="Part of an email address.")
@click.option("--limit", default=100, show_default=True, help="So many at most.")
@common
def user_list(search: str, limit: int, url: str | None, as_json: bool) -> None:
    """List the users."""
    client = connect(url)
    page = call(lambda: client.get("/api/users", pageSize=limit, page=0, textSearch=search, sortProperty="email"))
    show(page["data"], COLUMNS, as_json=as_json)
    if page["hasNext"] and not as_json:
        click.echo(f"… {page['totalElements'] - len(page['data'])} more; raise --limit or use --search.")


@user.command("add")
@click.argument("email")
@click.option("--role", type=click.Choice(ROLES), default="OPERATOR", show_default=True, help="What the user may do.")
@_password
@_generate
@_reveal
@_dry_run
@common
def user_add(
    email: str, role: str, password: str | None, generate: bool, reveal: bool, dry_run: bool, url: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Add a user, who logs in with the email address and a password."""
    _check_generate(generate=generate, reveal=reveal, password=password)
    if dry_run:
        tell_plan(f"Would add the user {email} as {role}.", as_json=as_json)
        return
    client = connect(url)
    body = {"email": email, "authority": "TENANT_ADMIN", "role": role}
    if not generate:
        body["password"] = password or _asked_for()
    made = call(lambda: client.post("/api/user", body))
    _tell(made, f"Added the user {email} as {role}.", as_json=as_json)


@user.command("passwd")
@click.argument("email", required=False)
@_password
@_generate
@_reveal
@_dry_run
@common
def user_passwd(
    email: str | None, password: str | None, generate: bool, reveal: bool, dry_run: bool, url: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Change your own password, or give another user a new one; all logins of the user end."""
    _check_generate(generate=generate, reveal=reveal, password=password)
    if generate and email is None:
        raise click.UsageError("--generate is for another user; name one.")
    if dry_run:
        tell_plan(f"Would change the password of {email or 'yourself'}.", as_json=as_json)
        return
    client = connect(url)
    if email is None:
        _change_own(client, password)
        click.echo('{"changed": true}' if as_json else "Changed your password; you stay logged in here.")
        return
    found = call(lambda: _user_by_email(client, email))
    body = {} if generate else {"password": password or _asked_for()}
    answer = call(lambda: client.post(f"/api/user/{found['id']['id']}/password", body)) or {}
    _tell(found | answer, f"Changed the password of {email}.", as_json=as_json)


@user.command("delete")
@click.argument("email")
@_dry_run
@yes
@common
def user_delete(email: str, dry_run: bool, is_sure: bool, url: str | None, as_json: bool) -> None:
    """Delete a user, whose logins end at once."""
    client = connect(url)
    found = call(lambda: _user_by_email(client, email))
    if dry_run:
        tell_plan(f"Would delete the user {email}.", as_json=as_json)
        return
    confirm(f"Delete the user {email}? All logins of the user end.", is_sure=is_sure)
    call(lambda: client.delete(f"/api/user/{found['id']['id']}"))
    _tell(found, f"Deleted the user {email}.", as_json=as_json)


def _check_generate(*, generate: bool, reveal: bool, password: str | None) -> None:
    if generate and not reveal:
        raise click.UsageError("--generate needs --reveal: the password is told this once.")
    if generate and password:
        raise click.UsageError("Give --password or --generate, not both.")


def _asked_for() -> str:
    asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return asked


def _change_own(client: RestClient, password: str | None) -> None:
    if not token_file().exists():
        click.echo("cloud-core: your own password needs a login of your own; run: cloud-core login", err=True)
        sys.exit(EXIT_NOT_LOGGED_IN)
    current = click.prompt("Current password", hide_input=True)
    body = {"currentPassword": current, "newPassword": password or _asked_for()}
    pair = call(lambda: client.post("/api/auth/changePassword", body))
    write_private(token_file(), json.dumps({"url": client.url, "token": pair["token"]}).encode())


def _user_by_email(client: RestClient, email: str) -> dict[str, Any]:
    page = client.get("/api/users", pageSize=PAGE_SIZE, page=0, textSearch=email)
    for one in page["data"]:
        if one["email"] == email:
            found: dict[str, Any] = one
            return found
    raise RestError(f"There is no user '{email}'.", 404)


def _tell(user: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(user, indent=2))
        return
    click.echo(sentence)
    if user.get("password"):
        click.echo(f"password  {user['password']}")
