"""A page and a total found in one pass, beside what sorting all gives."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, select

from cloud_core.model import Page
from cloud_core.storage import one_pass
from cloud_core.storage.connected import FEW_OF_TABLE, Connected
from cloud_core.storage.schema import device
from cloud_core.storage.statements import compile_statement
from cloud_core.storage.store import make_engine
from cloud_core.storage.vault import Vault
from tests.support.stores import KEY

ROWS = FEW_OF_TABLE + 5_000
_line = Table("line", MetaData(), Column("id", Integer, primary_key=True), Column("kind", Text), Column("name", Text))
_COLUMNS = {"createdTime": _line.c.id, "kind": _line.c.kind, "name": _line.c.name}


class Asked(Connected):
    """Knows what was asked."""

    def _many(self, *_: object) -> tuple[list[int], int]:
        raise AssertionError("the pass has not found the page")


@pytest.fixture(scope="module")
def lines() -> tuple[Asked, list[tuple[int, str, str]]]:
    chance = random.Random(7)
    rows = [
        (number, chance.choice(("a", "b", "b", "b", "b", "c")), f"n{chance.randrange(10**6):06d}")
        for number in range(3, ROWS + 3)
    ]
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE line (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL)")
    connection.executemany("INSERT INTO line VALUES (?, ?, ?)", rows)
    return Asked(connection, make_engine("sqlite://").dialect, Vault(KEY)), rows


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize("column", ["createdTime", "kind", "name"])
@pytest.mark.parametrize("text", ["", "1"])
def test_page(lines: tuple[Asked, list[tuple[int, str, str]]], column: str, is_descending: bool, text: str) -> None:
    """First, middle and last pages, and one behind the last, are those of the whole order; so is the total."""
    asked, rows = lines
    place = list(_COLUMNS).index(column)
    matching = [row for row in rows if text in row[2]]
    whole = sorted(matching, key=lambda row: row[place], reverse=is_descending)
    size = 20
    last = (len(whole) - 1) // size
    for number in (0, 1, last // 3, last // 2, last, last + 5):
        page = Page(size=size, page=number, text_search=text, sort_property=column, descending=is_descending)
        found, total = asked._page(select(_line.c.id), page, _COLUMNS, [_line.c.name], few=0, is_scanned=True)
        asked._totals.clear()
        assert [row[0] for row in found] == [row[0] for row in whole[number * size :][:size]]
        assert total == len(whole)


def test_span_that_misses() -> None:
    """Ends that lie outside of all rows that were looked at are left open."""
    ordered = [(f"k{one:04d}", one) for one in range(1_000)]
    first = one_pass.span_of(ordered, 100.0, first=0, size=20, is_total_known=True)
    middle = one_pass.span_of(ordered, 100.0, first=50_000, size=20, is_total_known=True)
    last = one_pass.span_of(ordered, 100.0, first=99_980, size=20, is_total_known=True)
    assert first.low is None and first.high is not None and first.high[1] < 20
    assert middle.low is not None and middle.high is not None and 400 < middle.low[1] < 500 < middle.high[1] < 600
    assert last.high is None and last.low is not None and last.low[1] > 980


def test_hints_reach_sqlite(tmp_path: Path) -> None:
    """The index that a list names stands in the statement."""
    dialect = make_engine(f"sqlite:///{tmp_path / 'some.db'}").dialect
    hinted = select(device.c.id).with_hint(device, "INDEXED BY device_by_label", "sqlite")
    assert "device INDEXED BY device_by_label" in compile_statement(hinted, dialect).sql
