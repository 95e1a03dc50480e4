"""`edge-gateway config`: versions of the configuration that were in effect."""

from __future__ import annotations

import difflib
import sys
from datetime import UTC, datetime

import click

from edge_gateway.config import ConfigError, load
from edge_gateway.console.history import KEPT, History, Version, digest_of
from edge_gateway.console.masking import CannotMask, masked
from edge_gateway.console.options import (
    EXIT_CONFIG,
    EXIT_FAULT,
    Place,
    as_json,
    environment,
    fail,
    in_place,
    known_kinds,
)
from edge_gateway.console.output import show_json, show_table
from edge_gateway.storage.files import write_private


@click.group()
def config() -> None:
    """History of the configuration: what was in effect, what changed, and back.

    The agent keeps a version whenever it starts, reloads or applies a configuration.
    """


@config.command()
@in_place
@as_json
def history(place: Place, is_json: bool) -> None:
    """List the versions that were in effect, newest first (the last 20 are kept).

    \b
    Example:
      $ edge-gateway config history
      VERSION  IN EFFECT SINCE      DIGEST    FILE
      1        2026-03-02 10:12:44  5f0c2a91  the same
      2        2026-02-27 16:40:03  11d08be2
    """
    now = digest_of(place.config.read_bytes()) if place.has_config else ""
    rows = [
        {
            "version": version.number,
            "since": _when(version, is_json=is_json),
            "digest": version.digest,
            "isFile": version.digest == now,
            "file": "the same" if version.digest == now else "",
        }
        for version in History(place.data_dir).versions()
    ]
    if is_json:
        show_json([{name: value for name, value in row.items() if name != "file"} for row in rows])
    elif rows:
        show_table(rows, {"VERSION": "version", "IN EFFECT SINCE": "since", "DIGEST": "digest", "FILE": "file"})
    else:
        click.echo(f"There are no versions in {place.data_dir} yet; the agent keeps the first when it starts.")


def _when(version: Version, *, is_json: bool) -> str:
    return version.when.isoformat() if is_json else version.when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


@config.command()
@in_place
@click.argument("version", type=click.IntRange(1, KEPT), default=1)
@click.option("--to", "other", type=click.IntRange(1, KEPT), help="Another version.  [default: the file]")
@as_json
def diff(place: Place, version: int, other: int | None, is_json: bool) -> None:
    """Show what differs between a version (1 is the newest) and the file. Secrets are masked.

    \b
    Example:
      $ edge-gateway config diff
      --- version 1 (2026-03-02 10:12:44)
      +++ gateway.toml
      @@ -14,1 +14,1 @@
      -every = "5 s"
      +every = "1 s"

    Exit codes: 0 no difference, 1 there is one.
    """
    one = _version(place, version)
    if other is None:
        if not place.has_config:
            fail(f"there is no configuration at {place.config}; name it by --config", EXIT_CONFIG)
        new, new_name = place.config.read_text("utf-8", errors="replace"), place.config.name
    else:
        two = _version(place, other)
        new, new_name = two.text(), _title(two)
    try:
        before, after = masked(one.text()).splitlines(), masked(new).splitlines()
    except CannotMask as error:
        fail(f"the difference cannot be shown: {error}", EXIT_CONFIG)
    lines = list(difflib.unified_diff(before, after, _title(one), new_name, lineterm="", n=2))
    is_secret_alone = not lines and one.text() != new
    if is_json:
        show_json({"from": _title(one), "to": new_name, "lines": lines, "onlySecrets": is_secret_alone})
    else:
        click.echo("\n".join(lines) if lines else "Only secrets differ." if is_secret_alone else "No difference.")
    sys.exit(EXIT_FAULT if lines or is_secret_alone else 0)


@config.command()
@in_place
@click.argument("version", type=click.IntRange(1, KEPT), default=2)
def rollback(place: Place, version: int) -> None:
    """Put a version back as the configuration file (by default 2, the one before the last).

    The file as it is now goes into the history first. The running agent takes the file with `edge-gateway apply`, or
    on SIGHUP.

    \b
    Example:
      $ edge-gateway config rollback
      gateway.toml is version 2 (2026-02-27 16:40:03) again; make it the running one with `edge-gateway apply`
    """
    chosen = _version(place, version)
    content, title = chosen.path.read_bytes(), _title(chosen)
    try:
        load(place.config, environment(), kinds=known_kinds(), text=chosen.text())
    except ConfigError as error:
        fail(f"this version has problems today; {place.config.name} is as it was:\n{error}", EXIT_CONFIG)
    if place.has_config:
        History(place.data_dir).remember(place.config, now=datetime.now(UTC))
    try:
        write_private(place.config, content)
    except OSError as error:
        fail(f"{place.config} cannot be written ({error.strerror}): run this as its owner", EXIT_CONFIG)
    click.echo(f"{place.config.name} is {title} again; make it the running one with `edge-gateway apply`")


def _version(place: Place, number: int) -> Version:
    versions = History(place.data_dir).versions()
    if number > len(versions):
        there = f"there are {len(versions)}" if versions else "there are none yet"
        fail(f"there is no version {number} in {place.data_dir}; {there}", EXIT_CONFIG)
    return versions[number - 1]


def _title(version: Version) -> str:
    return f"version {version.number} ({version.when.astimezone():%Y-%m-%d %H:%M:%S})"
