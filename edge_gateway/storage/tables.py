"""The tables of the spool, and its fixed statements in SQLAlchemy Core: the source of `schema.py`.

The gateway executes the text in `schema.py` and does not import this module: SQLAlchemy costs it 10 MB and 0.1 s of
the start for forty fixed statements. After a change: `python -m edge_gateway.storage.tables`, which writes the text
anew; a test compares the two.

Every record carries its device's name, so that one that is read from a damaged file needs nothing else of it. Tables
are STRICT and have checks, which is what `PRAGMA quick_check` then verifies too. They are created in a fixed order:
salvage relies on each root page being where a fresh file has it.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnClause,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql import ClauseElement

from edge_gateway.model import Content, Lane

metadata = MetaData()
p = bindparam


def _number(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


record = Table(
    "record",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("device", Text, nullable=False),
    Column("content", Integer, CheckConstraint("content IN (0, 1)"), nullable=False),
    Column("lane", Integer, CheckConstraint("lane IN (0, 1)"), nullable=False),
    _number("ts_ms"),
    _number("boot"),
    _number("elapsed_ms"),
    Column("body", LargeBinary, nullable=False),
    sqlite_strict=True,
)

sub_device = Table(
    "sub_device",
    metadata,
    Column("name", Text, primary_key=True),
    Column("upstream_name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("connector", Text, nullable=False),
    _number("last_seen_ms"),
    _number("is_deleted"),
    sqlite_strict=True,
)

boot = Table(
    "boot",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("machine_start", Text, nullable=False),  # the kernel's boot_id; empty when unknown
    _number("known_ms"),
    sqlite_strict=True,
)

# "mark": above every number ever used; "is_open": 0 after an orderly end.
state = Table(
    "state",
    metadata,
    Column("name", Text, primary_key=True),
    _number("value"),
    sqlite_strict=True,
)

dropped = Table(
    "dropped",
    metadata,
    Column("reason", Text, primary_key=True),  # size | age | disk | damaged
    Column("device", Text, primary_key=True),  # empty: not known
    _number("readings"),
    sqlite_strict=True,
)

_DIALECT = sqlite.dialect()


def _sql(clause: ClauseElement) -> str:
    """The text of a clause whose parameters are all given at each execution, in the order of the text."""
    compiled: Any = clause.compile(dialect=_DIALECT)
    assert all(bound.required for bound in compiled.binds.values()), str(compiled)
    return str(compiled)


def _limited(clause: ClauseElement) -> str:
    """With a limit as the last parameter; SQLAlchemy's own `limit` would add a parameter for OFFSET."""
    return _sql(clause) + "\n LIMIT ?"


def _constant(value: int) -> ColumnClause[int]:
    """A number written into the text, so that it is no parameter."""
    return literal_column(str(int(value)), Integer)


def _insert(table: Table) -> Any:  # Any: as SQLAlchemy has it for inserts of a dialect
    return insert(table).values({column.name: p(column.name) for column in table.columns})


def _put(table: Table, *names: str) -> str:
    """Insert, or replace `names` of the row with the same key; parameters in the order of the columns."""
    put = _insert(table)
    return _sql(
        put.on_conflict_do_update(
            index_elements=list(table.primary_key.columns), set_={name: put.excluded[name] for name in names}
        )
    )


_r = record.c
_columns = (_r.number, _r.device, _r.content, _r.lane, _r.ts_ms, _r.boot, _r.elapsed_ms, _r.body)
_oldest = select(_r.number, _r.device, _r.boot, _r.elapsed_ms, func.length(_r.body)).where(_r.number >= p("start"))

# Parameters in the order of the text.
APPEND = _sql(_insert(record))
FORGET = _sql(delete(record).where(_r.number.between(p("first"), p("last"))))
HISTORY = _limited(
    select(*_columns)
    .where(_r.number > p("after"), or_(_r.number < p("first"), _r.lane == _constant(Lane.HISTORY)))
    .order_by(_r.number)
)
_between = select(*_columns).where(_r.number.between(p("first"), p("last")))
RECORDS = _limited(_between.order_by(_r.number))
RECORDS_DOWN = _limited(_between.order_by(_r.number.desc()))
OLDEST = _limited(_oldest.order_by(_r.number))
OLDEST_TELEMETRY = _limited(_oldest.where(_r.content == _constant(Content.TELEMETRY)).order_by(_r.number))
KEEP = _sql(_insert(record).on_conflict_do_nothing())
EXTENT = _sql(select(func.count(), func.min(_r.number), func.max(_r.number)))
BELOW = _sql(select(func.max(_r.number)).where(_r.number < p("first")))
ABOVE = _sql(select(func.min(_r.number)).where(_r.number > p("last")))
COUNT_BETWEEN = _sql(select(func.count()).select_from(record).where(_r.number.between(p("first"), p("last"))))
USED_BOOTS = _sql(select(_r.boot).distinct())
COUNTS = _sql(select(_r.device, _r.boot, func.count(), func.max(_r.elapsed_ms)).group_by(_r.device, _r.boot))
NEWEST = _sql(select(func.max(_r.number)))
OLDEST_INSTANT = _limited(select(_r.boot, _r.elapsed_ms).order_by(_r.number))
PUT_DEVICE = _put(sub_device, "upstream_name", "type", "connector", "last_seen_ms", "is_deleted")
DEVICES = _sql(select(*sub_device.columns))
PUT_BOOT = _put(boot, "known_ms")
ADD_BOOT = _sql(_insert(boot).on_conflict_do_nothing())
BOOTS = _sql(select(*boot.columns))
FORGET_BOOT = _sql(delete(boot).where(boot.c.number == p("number")))
PUT_STATE = _put(state, "value")
STATE = _sql(select(*state.columns))
_count = _insert(dropped)
COUNT_DROPPED = _sql(
    _count.on_conflict_do_update(
        index_elements=[dropped.c.reason, dropped.c.device],
        set_={"readings": dropped.c.readings + _count.excluded.readings},
    )
)
DROPPED = _sql(select(*dropped.columns))


_HEAD = '''"""The spool's tables and its fixed statements as SQLite executes them; `tables.py` writes this file."""

from __future__ import annotations

import sqlite3

VERSION = 1
PAGE_BYTES = 4096
'''
_FOOT = '''

def create(connection: sqlite3.Connection) -> None:
    """Makes the tables in an empty file."""
    connection.execute("BEGIN IMMEDIATE")
    for table in TABLES:
        connection.execute(table)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
'''


def text() -> str:
    """The whole of `schema.py`."""
    statements = [(name, value) for name, value in globals().items() if name.isupper() and isinstance(value, str)]
    tables = [str(CreateTable(table).compile(dialect=_DIALECT)) for table in (record, sub_device, boot, state, dropped)]
    lines = [_HEAD, "# In the order of their root pages."]
    lines += ["TABLES = (", *(f'    """{_lines(table)}""",' for table in tables), ")", ""]
    lines.append("# Parameters in the order of the text. Plain SQL on tuples is what the hot path executes.")
    lines += [f'{name} = """{_lines(value)}"""' for name, value in statements if not name.startswith("_")]
    return "\n".join(lines) + "\n" + _FOOT


def _lines(statement: str) -> str:
    """No literal has a space, so that lines may be broken at any."""
    return textwrap.fill(" ".join(statement.split()), 95, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    Path(__file__).with_name("schema.py").write_text(text())
