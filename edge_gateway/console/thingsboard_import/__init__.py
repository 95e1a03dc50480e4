"""`edge-gateway import-thingsboard`: a configuration of thingsboard-gateway in our words."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from edge_gateway.config import ConfigError, load
from edge_gateway.console.options import (
    EXIT_CONFIG,
    EXIT_FAULT,
    EXIT_REFUSED,
    Place,
    as_json,
    environment,
    fail,
    in_place,
    known_kinds,
)
from edge_gateway.console.output import plural, printable, show_json
from edge_gateway.console.thingsboard_import import gateway, modbus, mqtt, opcua, request, rest, socket
from edge_gateway.console.thingsboard_import.files import read
from edge_gateway.console.thingsboard_import.findings import Fate, Note, Notes, Table, tables_of
from edge_gateway.console.toml_text import section, table
from edge_gateway.storage.files import write_private

Convert = Callable[[Mapping[str, Any], str, Notes], list[Table]]
CONNECTORS: dict[str, Convert] = {
    "mqtt": mqtt.convert, "modbus": modbus.convert, "opcua": opcua.convert, "rest": rest.convert,
    "request": request.convert, "socket": socket.convert,
}  # fmt: skip
MAIN_FILE = "tb_gateway.json"


@click.command("import-thingsboard")
@in_place
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace a configuration that is there.")
@as_json
def import_thingsboard(place: Place, folder: Path, force: bool, is_json: bool) -> None:
    """Convert the configuration folder of a thingsboard-gateway, and say what became of each part.

    The result goes to --config (0600, it holds the same secrets); a list of logins goes beside it. Connectors come
    from tb_gateway.json; where it names none, from the files mqtt.json, modbus.json, opcua.json, rest.json,
    request.json and socket.json.

    \b
    Example:
      $ edge-gateway import-thingsboard /etc/thingsboard-gateway/config --config gateway.toml
      tb_gateway.json
        ✔ thingsboard.security: [core]: address and login
        ~ storage.type: readings are always kept on disk here; nothing is lost at a restart
      mqtt.json
        ✔ mapping[0]: [[mqtt.map]]
        ✘ mapping[3].converter: a converter in Python has no equivalent; see `format`, or [[plugin]]
      gateway.toml is written: 3 connectors; 21 converted (✔), 6 approximated (~), 9 without equivalent (✘)

    Exit codes: 0 written, 1 written but something must be mended first, 2 there is nothing to convert,
    4 there is a configuration already.
    """
    if place.has_config and not force:
        fail(f"{place.config} is there already; --force replaces it, --config names another", EXIT_REFUSED)
    notes: list[Note] = []
    sections, tables = converted(folder, notes)
    if not sections and not tables:
        fail(f"there is neither {MAIN_FILE} nor a connector's file in {folder}", EXIT_CONFIG)
    _write(place, sections, tables)
    problems = _problems(place)
    counts = Counter(note.fate for note in notes)
    if is_json:
        rows = [{"fate": n.fate.value, "file": n.file, "key": n.key, "text": n.text} for n in notes]
        show_json({"config": str(place.config), "connectors": len(tables), "notes": rows, "problems": problems})
    else:
        _show(notes)
        click.echo(
            f"{place.config} is written: {plural(len(tables), 'connector')}; {counts[Fate.CONVERTED]} converted (✔), "
            f"{counts[Fate.APPROXIMATED]} approximated (~), {counts[Fate.MISSING]} without equivalent (✘)"
        )
        for problem in problems:
            click.echo(f"to mend: {problem}", err=True)
    sys.exit(EXIT_FAULT if problems else 0)


def converted(folder: Path, notes: list[Note]) -> tuple[gateway.Sections, list[Table]]:
    """What the folder says, in our words."""
    main = Notes(MAIN_FILE, notes)
    document = read(folder / MAIN_FILE, main) if (folder / MAIN_FILE).exists() else {}
    sections = gateway.convert(document, folder, main) if document else {}
    tables: list[Table] = []
    names: Counter[str] = Counter()
    for kind, name, file in _connectors(document, folder, main):
        for made in _tables(kind, folder / file, name, Notes(file, notes)):
            names[made.values["name"]] += 1
            if names[made.values["name"]] > 1:
                made.values["name"] += f" ({names[made.values['name']]})"
            tables.append(made)
    return sections, tables


def _tables(kind: str, path: Path, name: str, notes: Notes) -> list[Table]:
    document = read(path, notes)
    try:
        return CONNECTORS[kind](document, name, notes)
    except (ValueError, TypeError, AttributeError) as error:  # a text where a number belongs, and the like
        notes.missing(f"the file is built in a way that is not understood ({type(error).__name__}); left out")
        return []


def _connectors(document: Mapping[str, Any], folder: Path, notes: Notes) -> list[tuple[str, str, str]]:
    """(kind, name, file) of each that can be converted."""
    listed = tables_of(document.get("connectors"))
    found = []
    for place, one in enumerate(listed):
        where = notes.at("connectors", place)
        kind, file = str(one.get("type", "")), str(one.get("configuration", ""))
        if kind not in CONNECTORS:
            where.missing("this kind of connector is not converted; a [[plugin]] can speak its protocol")
        elif not file or Path(file).name != file:
            where.missing("its configuration is no file of this folder")
        else:
            found.append((kind, _name(str(one.get("name") or kind)), file))
    if listed:
        return found
    return [(kind, kind, f"{kind}.json") for kind in CONNECTORS if (folder / f"{kind}.json").exists()]


def _name(text: str) -> str:
    """One that `config` takes."""
    return (" ".join(printable(text).split()) or "connector")[:80]


def text_of(sections: gateway.Sections, tables: list[Table]) -> str:
    """The whole file."""
    parts = ["# Converted from a configuration of thingsboard-gateway. Validate it by `edge-gateway check`.\n"]
    parts += [section(name, values) for name, values in sections.items()]
    parts += [table(one.kind, one.values) for one in tables]
    return "\n".join(parts)


def _write(place: Place, sections: gateway.Sections, tables: list[Table]) -> None:
    try:
        for one in tables:
            for name, content in one.files.items():
                write_private(place.config.with_name(name), content.encode())
        write_private(place.config, text_of(sections, tables).encode())
    except OSError as error:
        fail(f"{place.config} cannot be written ({error.strerror}): choose another place by --config", EXIT_CONFIG)


def _problems(place: Place) -> list[str]:
    """What keeps the result from being used, such as a file that a key names and that is not there."""
    try:
        load(place.config, environment(), kinds=known_kinds())
    except ConfigError as error:
        return str(error).splitlines()
    return []


_SIGNS = {Fate.CONVERTED: "✔", Fate.APPROXIMATED: "~", Fate.MISSING: "✘"}


def _show(notes: list[Note]) -> None:
    file = ""
    for note in notes:
        if note.file != file:
            file = note.file
            click.echo(file)
        click.echo(f"  {_SIGNS[note.fate]} {printable(note.key)}: {note.text}")
