"""A page and a total found in one pass, beside what sorting all gives."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, select

from cloud_core.model import Attempt, Page, Peer, Transport
from cloud_core.storage import connected, one_pass
from cloud_core.storage.connected import FEW_OF_TABLE, Connected
from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.storage.schema import device
from cloud_core.storage.statements import compile_statement
from cloud_core.storage.store import make_engine
from cloud_core.storage.vault import Vault
from tests.support.stores import KEY, TENANT, open_store

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


def test_few_that_were_met_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that was made a moment ago finds what has been logged since, and not what has gone."""
    for module, setting, value in ((connected, "FEW_OF_TABLE", 0), (connected, "DEAR_TOTAL_S", -1.0)):
        monkeypatch.setattr(module, setting, value)
    store = open_store(f"sqlite:///{tmp_path / 'log.db'}")

    def log(tx: Any, *numbers: int) -> None:
        for one in numbers:
            peer = Peer(Transport.MQTT, "10.0.0.1")
            tx.log_attempt(
                Attempt(
                    ref=f"R-{one}", at_ms=one, peer=peer, outcome="SUCCESS", stage="stored", tenant_id=TENANT,
                    device_name="even" if one % 2 == 0 else "odd",
                )
            )  # fmt: skip

    def found() -> tuple[list[str], int]:
        page = Page(sort_property="deviceName", text_search="even", size=3)
        rows, total = store.survey(lambda tx: tx.attempt_page(TENANT, page, AttemptFilter(), with_unassigned=True))
        return [one.ref for one in rows], total

    store.run(log, 1, 2, 3, 4)
    assert found() == (["R-2", "R-4"], 2)
    store.run(log, 5, 6, 8)
    assert found() == (["R-2", "R-4", "R-6"], 4)
    store.run(lambda tx: tx.trim_attempts(keep=2, before_ms=0))
    assert found() == (["R-6", "R-8"], 2)
    store.close()


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
