"""`cloud-core backup`: a consistent copy of the database while the core runs, and whether a copy is good."""

from __future__ import annotations

import os
import shlex
import sqlite3
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click

from cloud_core.config import Config
from cloud_core.console.calls import dry_run, fail
from cloud_core.console.exits import EXIT_FILE, EXIT_START, EXIT_USAGE, EXIT_WRONG
from cloud_core.console.options import configuration, server_options
from cloud_core.console.output import show_json, size


@click.command()
@server_options
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write; must not be there yet.")
@click.option("--with-key", is_flag=True, help="Copy the master key, too, to FILE.key (0600). Keep it elsewhere.")
@click.option("--verify", type=click.Path(path_type=Path, dir_okay=False), help="Look at a backup instead.")
@dry_run
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def backup(out: Path | None, with_key: bool, verify: Path | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Copy the database into one file, consistent, while the core runs; or look at such a file.

    Without the master key a backup is worth nothing: credentials are sealed with it. And who has both has everything,
    so keep them in different places.

    \b
      cloud-core backup --out 2026-11-24.db                  the database
      cloud-core backup --out first.db --with-key            and first.db.key
      cloud-core backup --verify 2026-11-24.db               is it whole, and does the key fit?

    \b
    To restore, with the core stopped:
      1. cloud-core backup --verify FILE
      2. remove muster.db, muster.db-wal and muster.db-shm from the data directory
      3. cp FILE DIR/muster.db; chmod 600 DIR/muster.db
      4. where the key is lost, too: cp FILE.key DIR/master.key; chmod 600 DIR/master.key
      5. cloud-core doctor --data-dir DIR, then cloud-core serve

    With PostgreSQL it says the pg_dump command to use instead.
    """
    if (out is None) is (verify is None):
        raise click.UsageError("Say --out FILE to make a backup, or --verify FILE to look at one.")
    config = configuration(options)
    if verify is not None:
        _verify(verify, config, as_json=as_json)
        return
    assert out is not None, "one of both was given"
    source = _source(config, out)
    for file in (out, _key_file(out)) if with_key else (out,):
        if file.exists():
            fail(f"{file} exists already; move it away, or choose another name.", EXIT_FILE)
    if not out.absolute().parent.is_dir():
        fail(f"There is no folder {out.absolute().parent}; make it first.", EXIT_FILE)
    key = _key_of(config) if with_key else ""
    if dry_run:
        _tell({"dryRun": True, "from": str(source), "out": str(out), "bytes": source.stat().st_size}, as_json=as_json)
        return
    _copy(source, out)
    if with_key:
        _write_new(_key_file(out), key.encode() + b"\n")
    found = look(out, config)
    row = {
        "dryRun": False, "from": str(source), "out": str(out), "bytes": out.stat().st_size,
        "key": str(_key_file(out)) if with_key else None, **found.row(),
    }  # fmt: skip
    _tell(row, as_json=as_json)
    if found.faults:
        fail(f"The copy is not sound: {found.faults[0]}. Look at the database: cloud-core doctor", EXIT_WRONG)


class Look(NamedTuple):
    """What a backup is like. `is_key_right` None: there was no key, or nothing to try it on."""

    faults: list[str]
    step: str | None
    is_key_right: bool | None
    counts: dict[str, int]

    def row(self) -> dict[str, Any]:
        return {"ok": not self.faults and self.is_key_right is not False, "step": self.step,
                "keyFits": self.is_key_right, "faults": self.faults, **self.counts}  # fmt: skip


def look(file: Path, config: Config) -> Look:
    """Reads the whole file. Tried with FILE.key where it is there, else with the configured key."""
    from cloud_core.diagnosis import master_key
    from cloud_core.storage.inspection import faults, inspect
    from cloud_core.storage.store import sqlite_url
    from cloud_core.storage.vault import Vault

    vault = master_key(config).vault
    if _key_file(file).exists():
        try:
            vault = Vault(bytes.fromhex(_key_file(file).read_text(encoding="ascii").strip()))
        except (OSError, ValueError):
            return Look([f"{_key_file(file)} holds no master key"], None, False, {})
    found = faults(file)
    if found:
        return Look(found, None, None, {})
    inspected = inspect(sqlite_url(file), vault)
    return Look([], inspected.step, inspected.is_key_right, inspected.counts)


def _verify(file: Path, config: Config, *, as_json: bool) -> None:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        found = look(file, config)
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        fail(f"Cannot read {file}: {str(getattr(error, 'orig', None) or error).splitlines()[0]}.", EXIT_FILE)
    row = found.row()
    if as_json:
        show_json({"file": str(file), **row})
    elif found.faults:
        click.echo(f"{file} is damaged; use another backup.")
        for fault in found.faults:
            click.echo(f"  {fault}")
    elif found.step is None:
        click.echo(f"{file} holds no database of this program.")
    else:
        counts = ", ".join(f"{count} {noun}" for noun, count in found.counts.items())
        click.echo(f"{file} is sound: step {found.step}, {counts}.")
        click.echo(_of_key(found.is_key_right))
    if not row["ok"] or found.step is None:
        sys.exit(EXIT_WRONG)


def _of_key(is_right: bool | None) -> str:
    if is_right is None:
        return "The master key was not tried: there is none here, or nothing that is sealed."
    return "The master key fits." if is_right else "The master key does not fit: find the one that belongs to it."


def _source(config: Config, out: Path) -> Path:
    """The database's file. Ends the command with what to do for another database."""
    from cloud_core.service import database_url
    from cloud_core.storage.inspection import sqlite_path

    url = database_url(config)
    path = sqlite_path(url)
    if path is None:
        fail(f"The database is PostgreSQL's; nothing was written. Use its own tool:\n{pg_dump(url, out)}", EXIT_USAGE)
    if not path.exists():
        fail(f"There is no database {path}; name the core's --data-dir or --config.", EXIT_START)
    return path


def pg_dump(url: str, out: Path) -> str:
    """The command, without the password: that goes by ~/.pgpass or PGPASSWORD."""
    from cloud_core.storage import addresses

    parsed = addresses.parsed(url)
    host = parsed.host or parsed.query.get("host") or ""
    parts = ["pg_dump", "--format=custom", f"--file={out}"]
    for option, value in (
        ("host", host),
        ("port", parsed.port or parsed.query.get("port")),
        ("username", parsed.username),
    ):
        if value:
            parts.append(f"--{option}={value}")
    return shlex.join([*parts, f"--dbname={parsed.database or ''}"])


def _copy(source: Path, out: Path) -> None:
    """Whole under its name, or not there at all."""
    from cloud_core.storage.inspection import copy

    unfinished = out.with_name(out.name + ".unfinished")
    try:
        _write_new(unfinished, b"")  # 0600 before anything is in it
        try:
            copy(source, unfinished)
            with unfinished.open("rb") as written:
                os.fsync(written.fileno())
            _put_in_place(unfinished, out)
        finally:
            unfinished.unlink(missing_ok=True)
    except sqlite3.Error as error:
        fail(f"Cannot copy {source}: {error}.", EXIT_FILE)
    except OSError as error:
        fail(f"Cannot use {error.filename}: {error.strerror}.", EXIT_FILE)


def _put_in_place(unfinished: Path, out: Path) -> None:
    """Unlike a rename a link overwrites nothing; but FAT and some disks of the network have none. Raises: OSError."""
    try:
        os.link(unfinished, out)
    except FileExistsError:
        raise
    except OSError:
        if out.exists():
            raise
        unfinished.rename(out)


def _key_file(out: Path) -> Path:
    return out.with_name(out.name + ".key")


def _key_of(config: Config) -> str:
    from cloud_core.diagnosis import master_key

    found = master_key(config)
    if found.vault is None:
        fail(f"--with-key: {found.finding.text}; {found.finding.fix}.", EXIT_FILE)
    file = Path(config.database.key_file) if config.database.key_file else Path(config.data_dir) / "master.key"
    return config.database.key or file.read_text(encoding="ascii").strip()


def _write_new(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(descriptor)


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(row)
    elif row["dryRun"]:
        click.echo(f"Would copy {row['from']} ({size(row['bytes'])}) to {row['out']}.")
    else:
        click.echo(f"Wrote {row['out']} ({size(row['bytes'])}), step {row['step']}, and looked through it.")
        if row["key"]:
            click.echo(f"The master key is in {row['key']}; keep it in another place than the backup.")
        else:
            click.echo("It needs the master key, which is not in it: keep master.key safe, in another place.")
