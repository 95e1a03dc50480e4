"""`edge-gateway check`: every problem of the configuration at once, and what is in effect."""

from __future__ import annotations

import sys
from typing import Any

import click

from edge_gateway.config import Config, ConfigError, ConfigProblem, load, shown
from edge_gateway.config.explaining import explain
from edge_gateway.console.options import EXIT_CONFIG, Place, as_json, environment, fail, in_place, known_kinds
from edge_gateway.console.output import plural, show_json, show_table


@click.command()
@in_place
@click.option("--explain", "is_explain", is_flag=True, help="Show every value in effect and where it comes from.")
@as_json
def check(place: Place, is_explain: bool, is_json: bool) -> None:
    """Validate the configuration: all problems at once, with line, column and what was meant.

    \b
    Example:
      $ edge-gateway check
      gateway.toml:12:3: [[modbus]] plant: unknown key 'timout'; did you mean 'timeout'?
      $ edge-gateway check
      gateway.toml ok: 4 sources, 7 maps; 1 hint
      gateway.toml:31:18: [[mqtt]] hall: map 1, telemetry 2: 'humidty' is used once, 'humidity' 3 times

    Exit codes: 0 it can be used, 2 it cannot.
    """
    if not place.has_config:
        fail(f"there is no configuration at {place.config}: make one with `edge-gateway setup`", EXIT_CONFIG)
    try:
        config = load(place.config, environment(), kinds=known_kinds())
    except ConfigError as error:
        _show_problems(error, place, is_json=is_json)
        sys.exit(EXIT_CONFIG)
    if is_json:
        show_json(_document(config, place, is_explain=is_explain))
        return
    click.echo(_summary(config, place))
    for hint in config.hints:
        click.echo(shown(hint, place.config.name))
    if is_explain:
        rows = [line._asdict() for line in explain(config)]
        show_table(rows, {"KEY": "path", "VALUE": "value", "FROM": "source"})


def _show_problems(error: ConfigError, place: Place, *, is_json: bool) -> None:
    if is_json:
        problems, hints = map(_plain, error.problems), map(_plain, error.hints)
        show_json({"ok": False, "file": str(place.config), "problems": list(problems), "hints": list(hints)})
        return
    click.echo(str(error), err=True)
    for hint in error.hints:
        click.echo(f"hint: {shown(hint, place.config.name)}", err=True)


def _document(config: Config, place: Place, *, is_explain: bool) -> dict[str, Any]:
    document = {
        "ok": True, "file": str(place.config), "sources": len(config.connectors), "maps": maps_in(config),
        "problems": [], "hints": [_plain(hint) for hint in config.hints],
    }  # fmt: skip
    if is_explain:
        document["explain"] = [line._asdict() for line in explain(config)]
    return document


def _plain(problem: ConfigProblem) -> dict[str, Any]:
    return {"line": problem.line, "column": problem.column, "path": list(problem.path), "text": problem.text}


def _summary(config: Config, place: Place) -> str:
    hints = f"; {plural(len(config.hints), 'hint')}" if config.hints else ""
    sources, maps = plural(len(config.connectors), "source"), plural(maps_in(config), "map")
    return f"{place.config.name} ok: {sources}, {maps}{hints}"


def maps_in(config: Config) -> int:
    """Tables below a connector's own that say which device something comes from: `map`, `device`, `observe`, …"""
    return sum(
        sum(1 for element in value if isinstance(element, dict) and element.keys() & {"device", "telemetry"})
        for table in config.connectors
        for value in table.raw.values()
        if isinstance(value, list)
    )
