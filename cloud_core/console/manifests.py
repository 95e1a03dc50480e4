"""`cloud-core device manifest` and `device labels`: what a factory takes home of an import, in files of mode 0600."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import click

from cloud_core.console.calls import call, common, connect, device_named, dry_run, fail
from cloud_core.console.exits import EXIT_FILE
from cloud_core.console.output import at, show_json, tell_plan
from cloud_core.rest_client import RestClient, RestError
from cloud_core.secrets_file import private_file

_NDJSON = (".ndjson", ".jsonl")
_output = click.option(
    "-o", "--output", "file", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file to write."
)


@click.command("manifest")
@click.argument("batch_id")
@_output
@click.option(
    "--format", "kind", type=click.Choice(["csv", "ndjson"]), help="[default: by the ending of the file, csv]"
)
@common
def device_manifest(batch_id: str, file: Path, kind: str | None, url: str | None, as_json: bool) -> None:
    """Write the credentials of an import's devices to a file.

    They are shown once: when the file is complete, nobody gets them again. A download that breaks has taken nothing.
    """
    check_new(file)
    written = save_manifest(connect(url), batch_id, file, kind=kind, is_shown=not as_json)
    if as_json:
        show_json(written)


@click.command("manifest-release")
@click.argument("batch_id")
@dry_run
@common
def device_manifest_release(batch_id: str, dry_run: bool, url: str | None, as_json: bool) -> None:
    """Let the manifest of an import be taken once more, where the file is lost."""
    client, path = connect(url), f"{_path(batch_id)}/manifest"
    if dry_run:
        state = call(lambda: client.get(path))
        taken = (
            f"was taken by {state['takenBy']} at {at(state['takenTime'])} UTC" if state["taken"] else "was not taken"
        )
        would = "Would release the manifest" if state["taken"] else "Nothing to release: the manifest"
        tell_plan(f"{would} of import {batch_id}{', which' if state['taken'] else ''} {taken}.", as_json=as_json)
        return
    state = call(lambda: client.post(f"{path}/release"))
    if as_json:
        show_json(state)
    else:
        click.echo(f"The manifest of import {batch_id} can be taken: cloud-core device manifest {batch_id} -o FILE")


@click.command("labels")
@click.argument("batch_id", required=False)
@click.option(
    "--device", "devices", multiple=True, metavar="NAME", help="This device, in place of an import's; again for more."
)
@_output
@click.option(
    "--sheet", default="a4-24", show_default=True, help="a4-24, a4-21, letter-30, or roll-50x25: one a page, in mm."
)
@click.option("--code", type=click.Choice(["qr", "datamatrix"]), default="qr", show_default=True, help="Kind of code.")
@click.option(
    "--content", type=click.Choice(["name", "provisioning"]), default="name", show_default=True,
    help="What the code says: the name, or the name and the provision key of its profile.",
)  # fmt: skip
@click.option("--start", default=1, show_default=True, help="Position on the first sheet, for one used in part.")
@click.option("--from", "first", default=1, show_default=True, help="First row of the file.")
@click.option("--to", "last", default=0, help="Last row of the file.  [default: its last]")
@click.option("--short-id", is_flag=True, help="Print the end of the id, too.")
@click.option("--secret", is_flag=True, help="Put the credentials into the codes. This takes the manifest: shown once.")
@common
def device_labels(
    batch_id: str | None, devices: tuple[str, ...], file: Path, sheet: str, code: str, content: str, start: int,
    first: int, last: int, short_id: bool, secret: bool, url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write labels of an import's devices, or of those that are named, to a file, as PDF.

    Each has a code, the name, the label and the profile.
    """
    if (batch_id is None) is not bool(devices):
        raise click.UsageError("Say BATCH_ID for the labels of an import, or --device NAME.")
    if devices and (secret or first != 1 or last):
        raise click.UsageError("--from, --to and --secret go with the labels of an import.")
    if secret:
        check_new(file)
    query: dict[str, Any] = {
        "sheet": sheet, "code": code, "content": content, "start": start, "shortId": "true" if short_id else "false",
    }  # fmt: skip
    client, is_shown = connect(url), not as_json
    if batch_id is not None:
        query |= {"from": first, "to": last}
        written = save_labels(client, batch_id, file, query, has_secrets=secret, is_shown=is_shown)
    else:
        ids = call(lambda: [device_named(client, name)["id"]["id"] for name in devices])
        size_bytes = _save(client, "POST", "/api/devices/labels.pdf", file, query, body={"deviceIds": ids})
        written = _told(file, size_bytes, ".", is_shown=is_shown)
    if as_json:
        show_json(written)


def check_new(file: Path) -> None:
    """Before secrets are asked for that are shown once. Ends the command where the file is there, or cannot be."""
    if file.exists():
        fail(f"{file} exists already; move it away, or choose another name.", EXIT_FILE)
    if not file.absolute().parent.is_dir():
        fail(f"There is no folder {file.absolute().parent}; make it first.", EXIT_FILE)


def save_manifest(
    client: RestClient, batch_id: str, file: Path, *, kind: str | None = None, is_shown: bool
) -> dict[str, Any]:
    """What was written. A bar shows how far it is where somebody looks."""
    chosen = kind or ("ndjson" if file.suffix.lower() in _NDJSON else "csv")
    path = f"{_path(batch_id)}/manifest"
    devices: int = call(lambda: client.get(path))["devices"]
    with click.progressbar(
        length=max(devices, 1), label="Manifest", file=sys.stderr, hidden=not (is_shown and sys.stderr.isatty())
    ) as bar:
        _save(
            client, "POST", path, file, {"format": chosen}, once=batch_id,
            seen=lambda piece: bar.update(piece.count(b"\n")),
        )  # fmt: skip
    if is_shown:
        click.echo(f"The credentials of {devices} devices are in {file}; they are not shown again.")
    return {"file": str(file), "format": chosen, "devices": devices}


def save_labels(
    client: RestClient, batch_id: str, file: Path, query: dict[str, Any], *, has_secrets: bool = False, is_shown: bool
) -> dict[str, Any]:
    """What was written."""
    if is_shown and sys.stderr.isatty():
        click.echo("Drawing the labels …", err=True)
    path = f"{_path(batch_id)}/labels.pdf"
    size_bytes = _save(
        client, "POST" if has_secrets else "GET", path, file, query, once=batch_id if has_secrets else ""
    )
    return _told(
        file, size_bytes, "; their credentials are not shown again." if has_secrets else ".", is_shown=is_shown
    )


def _told(file: Path, size_bytes: int, end: str, *, is_shown: bool) -> dict[str, Any]:
    if is_shown:
        click.echo(f"The labels are in {file}{end}")
    return {"file": str(file), "bytes": size_bytes}


def _save(
    client: RestClient, method: str, path: str, file: Path, query: dict[str, Any], *, body: Any = None, once: str = "",
    seen: Callable[[bytes], None] = lambda piece: None,
) -> int:  # fmt: skip
    """The size. The file is made before anything is asked for: what is shown once must have a place.

    `once`: the import whose secrets are shown once. What was on the way when this end fails may count as taken.
    """
    size_bytes = 0
    hint = f" If the core counts the manifest as taken by now: cloud-core device manifest-release {once}"
    try:
        with private_file(file) as content:

            def write(piece: bytes) -> None:
                nonlocal size_bytes
                content.write(piece)
                size_bytes += len(piece)
                seen(piece)

            client.download(method, path, write, body, **query)
    except OSError as error:
        fail(f"Cannot write {file}: {error.strerror}.{hint if once and size_bytes else ''}", EXIT_FILE)
    except RestError as error:
        refused = RestError(f"{error}{hint}", error.status) if once and size_bytes else error
        call(lambda: _refuse(refused))
    return size_bytes


def _refuse(error: RestError) -> NoReturn:
    raise error


def _path(batch_id: str) -> str:
    return f"/api/imports/{quote(batch_id, safe='')}"
