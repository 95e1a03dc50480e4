"""`edge-gateway factory-reset`: the gateway forgets who it is and what it knows."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from edge_gateway.console.agents import is_at_work
from edge_gateway.console.history import FOLDER as HISTORY
from edge_gateway.console.options import (
    EXIT_REFUSED,
    Place,
    as_json,
    configuration_or_defaults,
    fail,
    in_place,
)
from edge_gateway.console.output import plural, show_json
from edge_gateway.service import spool_path
from edge_gateway.storage.credentials import CERTIFICATE, CREDENTIALS, IDENTITY, PRIVATE_KEY
from edge_gateway.storage.errors import SpoolUnavailable
from edge_gateway.storage.export import SpoolReader


@click.command("factory-reset")
@in_place
@click.option("--yes", is_flag=True, help="Do it; without this the command only says what it would remove.")
@as_json
def factory_reset(place: Place, yes: bool, is_json: bool) -> None:
    """Remove credentials, identity, spool and history. The configuration file stays. The agent must be stopped.

    At its next start the gateway provisions itself anew. The core keeps the old device until it is deleted there.

    \b
    Example:
      $ edge-gateway factory-reset --yes
      removed gateway-data/credentials.json (login at the core)
      removed gateway-data/spool.db (1,204 records that the core does not have)
    """
    spool = spool_path(configuration_or_defaults(place), place.data_dir)
    if is_at_work(spool):
        fail("the agent runs: stop it first, such as by `systemctl stop edge-gateway`", EXIT_REFUSED)
    found = _belongings(place.data_dir, spool)
    for path, _ in found if yes else []:
        _remove(path)
    if is_json:
        show_json({"removed": yes, "files": [{"path": str(path), "what": what} for path, what in found]})
    else:
        for path, what in found:
            click.echo(f"{'removed' if yes else 'would remove'} {path} ({what})")
        if not found:
            click.echo(f"There is nothing to remove in {place.data_dir}.")
    if found and not yes:
        fail("nothing was removed; repeat it with --yes", EXIT_REFUSED)


def _belongings(data_dir: Path, spool: Path) -> list[tuple[Path, str]]:
    """What is there, with what it is."""
    candidates = [
        (data_dir / CREDENTIALS, "login at the core"),
        (data_dir / "proposed", "login that was asked for"),
        (data_dir / PRIVATE_KEY, "private key"),
        (data_dir / CERTIFICATE, "certificate"),
        (data_dir / IDENTITY, "serial of this gateway"),
        (data_dir / "local-token", "token of the commands for the running agent"),
        (data_dir / "local-pin", "PIN of the local page"),
        (data_dir / "local-address", "address of the local page"),
        (data_dir / HISTORY, "history of the configuration"),
        (spool, _waiting(spool)),
    ]
    for suffix in ("-wal", "-shm", ".lock"):
        candidates.append((spool.with_name(spool.name + suffix), "part of the spool"))
    candidates += [
        (path, "damaged spool that was kept") for path in sorted(spool.parent.glob(f"{spool.name}.damaged-*"))
    ]
    return [(path, what) for path, what in candidates if path.exists()]


def _waiting(spool: Path) -> str:
    try:
        with SpoolReader(spool) as reader:
            records = reader.overview().records
    except SpoolUnavailable:
        return "spool that cannot be read"
    return f"{plural(records, 'record')} that the core does not have" if records else "empty spool"


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        fail(f"{path} cannot be removed ({error.strerror}): run this as the user that runs the agent", EXIT_REFUSED)
