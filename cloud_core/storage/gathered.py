"""Rows that a batch's decisions insert one by one, gathered and written as arrays, one statement for each table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Table
from sqlalchemy.types import TypeEngine

from cloud_core.storage import arrays
from cloud_core.storage.pipelined import PipelinedCursor


class ArrayStatement:
    """One statement for many rows, whose columns are parameters."""

    def __init__(
        self, table: Table, names: Sequence[str], sql: str, *, types: Mapping[str, TypeEngine[Any]] | None = None
    ) -> None:
        """`sql` takes the columns `names` as the row source `{rows}`, called `r`. `types`: of others."""
        known = {column.name: column.type for column in table.c} | dict(types or {})
        packers = [arrays.packing(known[name]) for name in names]
        self._packers = [pack for pack, _ in packers]
        source = ", ".join(f"%s::{kind}" for _, kind in packers)
        self.sql = sql.format(rows=f"unnest({source}) AS r({', '.join(names)})")

    def parameters(self, rows: Sequence[Sequence[Any]]) -> list[bytes]:
        """Of one execution."""
        return [pack(column) for pack, column in zip(self._packers, zip(*rows, strict=True), strict=True)]


def insertion(table: Table, names: Sequence[str], conflict: str = "") -> ArrayStatement:
    """Rows in the order they are given."""
    listed = ", ".join(names)
    return ArrayStatement(
        table, names, f"INSERT INTO {table.name} ({listed}) SELECT {listed} FROM {{rows}} {conflict}".rstrip()
    )


class Gathered:
    """The rows of one table that wait. `key`: the places that make a row unique; later ones replace earlier ones."""

    def __init__(self, statement: ArrayStatement, *, key: Sequence[int] | None, order: Sequence[int] | None) -> None:
        self._statement = statement
        self._key = itemgetter(*key) if key is not None else None
        self._order = itemgetter(*order) if order is not None else None
        self._rows: dict[Any, tuple[Any, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, row: tuple[Any, ...]) -> None:
        self._rows[len(self._rows) if self._key is None else self._key(row)] = row

    def clear(self) -> None:
        self._rows.clear()

    def send(self, cursor: PipelinedCursor) -> None:
        """Sorted, so that nodes which write the same rows lock them in one order."""
        if not self._rows:
            return
        rows = list(self._rows.values())
        if self._order is not None:
            rows.sort(key=self._order)
        self._rows.clear()
        cursor.send(self._statement.sql, self._statement.parameters(rows), prepare=True)
