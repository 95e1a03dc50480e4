"""Commands that ask the running gateway: `status`, `devices`, `tap`, `apply`.

Exit codes: 0 done; 1 refused; 2 the configuration has problems, or wrong use; 3 no gateway runs; 4 rolled back.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from edge_gateway.console import status_text
from edge_gateway.console.local_client import DoorRefused, LocalClient, NotRunning
from edge_gateway.console.options import Place, in_place

EXIT_REFUSED = 1
EXIT_CONFIG = 2
EXIT_NOT_RUNNING = 3
EXIT_ROLLED_BACK = 4
PAGE = 1_000

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def asks_the_gateway(command: Callable[..., None]) -> Callable[..., None]:
    """Gives `command` the client as `gateway`, and says for people what went wrong."""

    @in_place
    @functools.wraps(command)
    def run(*, place: Place, **options: Any) -> None:
        with LocalClient(place.data_dir) as gateway, said():
            command(gateway=gateway, **options)

    return run


@contextmanager
def said() -> Iterator[None]:
    """Errors of the door in one sentence, with their exit code."""
    try:
        yield
    except NotRunning as error:
        click.echo(f"{error}", err=True)
        raise SystemExit(EXIT_NOT_RUNNING) from None
    except DoorRefused as error:
        click.echo(f"{error}", err=True)
        problems = error.answer.get("problems", [])
        for problem in problems:
            click.echo(f"  {_problem(problem)}", err=True)
        raise SystemExit(EXIT_CONFIG if problems else EXIT_REFUSED) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that nothing fails at the exit
        raise SystemExit(0) from None


def _problem(problem: dict[str, Any]) -> str:
    return f"line {problem['line']}:{problem['column']}: {problem['text']}" if problem["line"] else problem["text"]


def _json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


@click.command()
@json_option
@click.option("--watch", is_flag=True, help="Show it again every second until Ctrl-C.")
@asks_the_gateway
def status(gateway: LocalClient, as_json: bool, watch: bool) -> None:
    """Shows how the running gateway is: link, queue, connectors, and what it turned away last."""
    while True:
        values = gateway.get("/api/status")
        newest = gateway.get("/api/samples")["samples"]
        if watch and not as_json:
            click.clear()
        if as_json:
            _json({**values, "samples": newest, "localPage": gateway.url})
        else:
            _show_status(values, newest, gateway)
        if not watch:
            return
        time.sleep(1.0)


def _show_status(values: dict[str, Any], newest: list[dict[str, Any]], gateway: LocalClient) -> None:
    click.echo(status_text.summary(values))
    for line in status_text.remarks(values):
        click.secho(f"  {line}", fg="yellow")
    if values["connectors"]:
        click.echo()
        heading, *lines = status_text.table(status_text.connectors(values))
        click.echo(heading)
        for line, one in zip(lines, values["connectors"].values(), strict=True):
            click.secho(line, fg=status_text.COLOURS.get(one["health"]))
    else:
        click.echo("  no connectors: add a table such as [[mqtt]] to the configuration, then `edge-gateway apply`")
    if newest:
        click.echo("\nturned away last:")
        for line in status_text.samples(newest):
            click.echo(f"  {line}")
    click.echo(f"\nlocal page: {gateway.url}   PIN {gateway.pin}")


@click.command()
@json_option
@click.option("--search", default="", help="Part of a name or a type.")
@click.option("--connector", default="", help="Only those behind this connector.")
@asks_the_gateway
def devices(gateway: LocalClient, as_json: bool, search: str, connector: str) -> None:
    """Lists the devices behind the running gateway."""
    found: list[dict[str, Any]] = []
    for page in range(1_000):
        part = gateway.get("/api/devices", page=page, pageSize=PAGE, search=search, connector=connector)
        found += part["devices"]
        if len(found) >= part["total"] or not part["devices"]:
            break
    if as_json:
        _json(found)
        return
    if not found:
        click.echo("no devices" + (" of that kind" if search or connector else " have spoken yet"))
        return
    rows = [["DEVICE", "TYPE", "CONNECTOR", "LAST SEEN", "STATE"]]
    for one in found:
        name = (
            one["name"] if one["upstreamName"] == one["name"] else f"{one['name']} (at the core {one['upstreamName']})"
        )
        seen = _ago(one["lastSeenMs"])
        rows.append(
            [status_text.printable(text) for text in (name, one["type"], one["connector"], seen, one["stateText"])]
        )
    for line in status_text.table(rows):
        click.echo(line)
    click.echo(f"{len(found):,} devices")


def _ago(at_ms: int) -> str:
    return f"{status_text.clock(max(0.0, time.time() - at_ms / 1000))} ago" if at_ms else "never"


@click.command()
@click.argument("device", default="")
@click.option("--connector", default="", help="Only readings of this connector.")
@click.option("--count", type=click.IntRange(1), help="End after so many readings.")
@json_option
@asks_the_gateway
def tap(gateway: LocalClient, device: str, connector: str, count: int | None, as_json: bool) -> None:
    """Shows readings as they come in, until Ctrl-C. DEVICE is a name or a pattern such as 'meter-*'."""
    shown = 0
    for kind, values in gateway.events("/api/tap", device=device, connector=connector):
        if kind == "dropped":
            click.echo(f"({values} readings were not shown: they come faster than this view)", err=True)
            continue
        for line in [json.dumps(values, ensure_ascii=False)] if as_json else status_text.reading(values):
            click.echo(line)
        shown += 1
        if shown == count:
            return
    raise NotRunning("the gateway has ended the live view: it was stopped, or started again")


@click.command()
@click.option(
    "--watch",
    "watch_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0, 3_600),
    metavar="SECONDS",
    help="How long the connectors are watched before the configuration counts as good.",
)
@click.option("--dry-run", is_flag=True, help="Show the difference and change nothing.")
@json_option
@asks_the_gateway
def apply(gateway: LocalClient, watch_s: float, dry_run: bool, as_json: bool) -> None:
    """Makes the running gateway use its changed configuration file.

    Connectors that did not change go on. When a connector that was healthy fails afterwards, the gateway goes back to
    the last good configuration by itself.

    Exit codes: 0 in effect, 1 refused, 2 the configuration has problems, 3 no gateway runs, 4 rolled back.
    """
    begun = gateway.post("/api/apply", {"watchS": watch_s, "dryRun": dry_run})
    if dry_run:
        if as_json:
            _json(begun)
        else:
            click.echo(f"would apply: {_difference(begun['difference'])}")
            _show_hints(begun)
        return
    if not as_json:
        _show_hints(begun)
        click.echo(f"applied: {_difference(begun['difference'])}; watching {watch_s:.0f} s … ", nl=False)
    try:
        trial = _verdict(gateway, begun)
    except KeyboardInterrupt:
        click.echo("\nthe gateway goes on watching by itself; `edge-gateway status` tells the end", err=True)
        raise
    if as_json:
        _json(trial)
    else:
        _show_verdict(trial)
    if trial["state"] != "good":
        raise SystemExit(EXIT_ROLLED_BACK)


def _verdict(gateway: LocalClient, trial: dict[str, Any]) -> dict[str, Any]:
    number = trial["number"]
    while trial["state"] in ("applying", "watching"):
        time.sleep(0.2 if trial["state"] == "applying" or trial["remainingS"] < 2 else 1.0)
        trial = gateway.get("/api/apply")
        if trial["number"] != number:
            raise NotRunning("the gateway was started again meanwhile; `edge-gateway status` says how it is")
    return trial


def _difference(difference: dict[str, list[str]]) -> str:
    """`+plant ~hall -old (push, meters unchanged)`."""
    marks = (("added", "+"), ("changed", "~"), ("removed", "-"))
    parts = [mark + name for key, mark in marks for name in difference[key]]
    parts += [f"[{section}]" for section in difference["sections"]]
    unchanged = ", ".join(difference["unchanged"])
    return " ".join(parts or ["no change"]) + (f" ({unchanged} unchanged)" if unchanged else "")


def _show_hints(answer: dict[str, Any]) -> None:
    for hint in answer.get("hints", []):
        click.echo(f"hint: {_problem(hint)}", err=True)


def _show_verdict(trial: dict[str, Any]) -> None:
    if trial["state"] == "good":
        unwell = trial["notHealthy"]
        click.echo("all sources healthy" if not unwell else "kept")
        for name, reason in unwell.items():
            click.secho(f"  {name} is not healthy yet: {reason}", fg="yellow")
        for section in trial["restartNeeded"]:
            click.secho(f"  [{section}] takes effect at the next start of the gateway", fg="yellow")
        return
    click.secho(trial["state"], fg="red")
    click.echo(f"  {trial['reason']}")
    if trial["state"] == "rolled back":
        click.echo(
            "  the last good configuration runs again; the file still says the new one: mend it before a restart"
        )


COMMANDS: tuple[click.Command, ...] = (status, devices, tap, apply)
