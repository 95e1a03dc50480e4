"""`cloud-core device import`: a file of devices to a running core, with the plan first where that is wanted."""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from cloud_core.console.calls import call, common, connect, dry_run, fail, show
from cloud_core.console.exits import EXIT_FILE, EXIT_REFUSED
from cloud_core.console.manifests import check_new, save_labels, save_manifest
from cloud_core.console.output import tell_plan
from cloud_core.rest_client import RestClient

POLLED_EVERY_S = 0.2
SHOWN_ROWS = 20
_TYPES = {".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson", ".json": "application/json"}
_WITH_DEVICE = ("CREATED", "UPDATED", "UNCHANGED")
_AT_WORK = ("APPLYING", "UNDOING")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--plan", is_flag=True, help="Say what each row would do; change nothing.")
@click.option("--dry-run", is_flag=True, help="The same as --plan.")
@click.option(
    "--mode",
    type=click.Choice(["atomic", "partial"]),
    default="atomic",
    show_default=True,
    help="All rows or none; or the good ones.",
)
@click.option("--map", "mapped", multiple=True, metavar="'IN FILE=COLUMN'", help="What a column of the file means.")
@click.option("--delimiter", default="", help="Of a CSV file; 'tab' for a tab.  [default: found out]")
@click.option("--encoding", default="", help="utf-8, utf-16, latin-1 or windows-1252.  [default: found out]")
@click.option("--no-update", is_flag=True, help="Leave attributes of devices alone that are there already.")
@click.option(
    "--errors", type=click.Path(dir_okay=False, path_type=Path), help="Write the bad rows there, in the format of FILE."
)
@click.option("--key", default="", help="Idempotency key: the same file under it is imported once.")
@click.option(
    "--manifest",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the credentials of its devices there; they are shown once.",
)
@click.option(
    "--labels", type=click.Path(dir_okay=False, path_type=Path), help="Write labels of its devices there, as PDF."
)
@common
def device_import(
    file: Path, plan: bool, dry_run: bool, mode: str, mapped: tuple[str, ...], delimiter: str, encoding: str,
    no_update: bool, errors: Path | None, key: str, manifest: Path | None, labels: Path | None, url: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Create and update devices from a CSV, NDJSON or JSON file.

    Columns are name, type, label, description, customer, gateway, access_token, x509, mqtt_client_id, mqtt_username,
    mqtt_password, and server:KEY, shared:KEY, timeseries:KEY. What a row says nothing of stays as it is.
    """
    if errors is not None and errors.exists() and errors.samefile(file):
        raise click.UsageError("--errors needs another file than the one that is imported.")
    if (plan or dry_run) and (manifest is not None or labels is not None):
        raise click.UsageError("A plan has no devices yet: --manifest and --labels go with the import itself.")
    if manifest is not None:
        check_new(manifest)
    client = connect(url)
    is_plan = plan or dry_run
    query: dict[str, Any] = {
        "plan": "true" if is_plan else "false", "mode": mode, "map": list(mapped), "delimiter": delimiter,
        "encoding": encoding, "update": "false" if no_update else "true", "fileName": file.name,
    }  # fmt: skip
    used_once = str(uuid.uuid4())  # a plan leaves the key for the import
    batch = call(lambda: _upload(client, file, query, used_once if is_plan or not key else key))
    batch = _wait(client, batch, is_shown=not as_json)
    if errors is not None and batch["errors"]:
        _write_errors(client, batch, errors)
    if not as_json:
        _tell(client, batch, errors)
    written = _write_files(client, batch, manifest, labels, is_shown=not as_json)
    if as_json:
        click.echo(json.dumps(batch | written, indent=2))
    if batch["errors"] or batch["state"] in ("REFUSED", "STOPPED"):
        sys.exit(EXIT_REFUSED)


@click.command("import-undo")
@click.argument("batch_id")
@dry_run
@common
def device_import_undo(batch_id: str, dry_run: bool, url: str | None, as_json: bool) -> None:
    """Delete what an import has created, where nobody has changed or used it since."""
    client, path = connect(url), f"/api/imports/{quote(batch_id, safe='')}"
    if dry_run:
        batch = call(lambda: client.get(path))
        made = batch["counts"].get("CREATED", 0)
        tell_plan(f"Would undo the import {batch_id}, which has created {made} devices.", as_json=as_json)
        return
    batch = _wait(client, call(lambda: client.post(f"{path}/undo")), is_shown=not as_json)
    if as_json:
        click.echo(json.dumps(batch, indent=2))
    else:
        _tell(client, batch, None)


def _write_errors(client: RestClient, batch: dict[str, Any], file: Path) -> None:
    """For its owner alone: bad rows hold the credentials that were sent."""
    from cloud_core.secrets_file import private_file

    path = f"/api/imports/{batch['id']}/{batch['errorsFile']}"
    is_special = file.exists() and not file.is_file()  # a pipe, or a terminal
    try:
        with file.open("wb") if is_special else private_file(file) as out:
            call(lambda: client.download("GET", path, out.write))
    except OSError as error:
        fail(f"Cannot use {file}: {error.strerror}.", EXIT_FILE)


def _write_files(
    client: RestClient, batch: dict[str, Any], manifest: Path | None, labels: Path | None, *, is_shown: bool
) -> dict[str, Any]:
    """What has been written, by option; nothing for an import that has no device."""
    written: dict[str, Any] = {}
    if batch["state"] not in ("APPLIED", "STOPPED") or not any(batch["counts"].get(one) for one in _WITH_DEVICE):
        return written
    if manifest is not None:
        written["manifest"] = save_manifest(client, batch["id"], manifest, is_shown=is_shown)
    if labels is not None:
        written["labels"] = save_labels(client, batch["id"], labels, {}, is_shown=is_shown)
    return written


def _upload(client: RestClient, file: Path, query: dict[str, Any], key: str) -> dict[str, Any]:
    with file.open("rb") as content:
        made: dict[str, Any] = client.upload(
            "/api/imports", content, _TYPES.get(file.suffix.lower(), "text/csv"), {"Idempotency-Key": key}, **query
        )
    return made


def _wait(client: RestClient, batch: dict[str, Any], *, is_shown: bool) -> dict[str, Any]:
    """The batch when it has ended; shows a bar where somebody looks."""
    if batch["state"] not in _AT_WORK:
        return batch
    with click.progressbar(
        length=max(batch["rows"], 1), label=batch["state"].capitalize(), file=sys.stderr,
        hidden=not (is_shown and sys.stderr.isatty()),
    ) as bar:  # fmt: skip
        while batch["state"] in _AT_WORK:
            time.sleep(POLLED_EVERY_S)
            path = f"/api/imports/{batch['id']}"
            batch = call(lambda path=path: client.get(path))
            bar.update(batch["done"] - bar.pos)
    return batch


def _tell(client: RestClient, batch: dict[str, Any], errors: Path | None) -> None:
    counts = ", ".join(f"{count} {status}" for status, count in sorted(batch["counts"].items()))
    click.echo(f"{batch['state']}: {counts or 'no rows'}  (import {batch['id']})")
    if batch["errors"]:
        bad: list[dict[str, Any]] = []
        for status in ("CONFLICT", "ERROR"):
            path = f"/api/imports/{batch['id']}/rows"
            query = {"status": status, "pageSize": SHOWN_ROWS}
            bad += call(lambda path=path, query=query: client.get(path, **query))["data"]
        bad = sorted(bad, key=lambda row: int(row["row"]))[:SHOWN_ROWS]
        show(bad, {"ROW": "row", "NAME": "name", "STATUS": "status", "WHY": "error"}, as_json=False)
        if batch["errors"] > len(bad):
            click.echo(f"… {batch['errors'] - len(bad)} more; write them to a file with --errors FILE.")
        if errors is not None:
            click.echo(f"The bad rows are in {errors}; correct them there and import that file.")
    if batch["problem"]:
        click.echo(f"cloud-core: {batch['problem']}", err=True)
