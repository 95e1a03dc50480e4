"""What commands print: tables that fit the terminal, members one a line, times, JSON."""

from __future__ import annotations

import json
import shutil
import sys
import time
import unicodedata
from datetime import UTC, datetime
from typing import Any

import click

HIDDEN = "••••••"
NARROWEST = 6  # a column is not cut shorter
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def show(rows: list[dict[str, Any]], columns: dict[str, str], *, as_json: bool) -> None:
    """Rows as JSON, or as a table of `columns` {heading: member}."""
    if as_json:
        show_json(rows)
        return
    table = [list(columns), *[[text_of(row.get(member)) for member in columns.values()] for row in rows]]
    for line in fitted(table, terminal_columns()):
        click.echo(line)


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def tell_plan(sentence: str, *, as_json: bool) -> None:
    """What a dry run says."""
    if as_json:
        show_json({"dryRun": True, "plan": sentence})
    else:
        click.echo(sentence)


def show_members(members: dict[str, Any]) -> None:
    """One a line, those without a value left out."""
    width = max(map(len, members), default=0) + 2
    for name, value in members.items():
        if value is not None and value != "":
            click.echo(f"{name:<{width}}{text_of(value)}")


def terminal_columns() -> int:
    """0 where the output goes to a file or another program, which gets everything."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def fitted(table: list[list[str]], columns: int) -> list[str]:
    """Lines of the table; with `columns` the widest of its columns are cut until it fits."""
    widths = [max(map(width_of, column)) for column in zip(*table, strict=True)]
    while columns and sum(widths) + 2 * (len(widths) - 1) > columns:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    lines = []
    for row in table:
        cells = [cut(cell, width) for cell, width in zip(row, widths, strict=True)]
        padded = (cell + " " * (width - width_of(cell)) for cell, width in zip(cells, widths, strict=True))
        lines.append("  ".join(padded).rstrip())
    return lines


def cut(text: str, width: int) -> str:
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return text + "…"


def width_of(text: str) -> int:
    """In columns of a terminal: East Asian characters take two, marks that combine none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def text_of(value: Any) -> str:
    """For people; what would steer the terminal is shown as what it is."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def at(time_ms: int | None) -> str:
    """`2026-11-24 11:44:46`, UTC; empty for never."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if time_ms else ""


def ago(time_ms: int | None, now_ms: int | None = None) -> str:
    """`3 min ago`; empty for never."""
    if not time_ms:
        return ""
    passed_s = max(0, ((now_ms or int(time.time() * 1000)) - time_ms) // 1000)
    for unit_s, name in _UNITS:
        if passed_s >= unit_s:
            return f"{passed_s // unit_s} {name} ago"
    return f"{passed_s} s ago"


def size(count_bytes: int) -> str:
    amount = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
