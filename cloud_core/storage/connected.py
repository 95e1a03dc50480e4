"""One DBAPI connection and how statements run on it; the base of what `SqlReadTx` and `SqlTx` are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Dialect, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from cloud_core.model import Page
from cloud_core.storage.statements import Statement, compile_statement
from cloud_core.storage.vault import Vault
from shared.errors import InvalidArgument

R = TypeVar("R")


class Connected:
    """Runs statements. Not thread-safe: one instance for each lane."""

    def __init__(self, connection: Any, dialect: Dialect, vault: Vault) -> None:
        # Any: a DBAPI connection (sqlite3 or psycopg); they share no common type.
        self.connection = connection
        self._cursor = connection.cursor()
        self._dialect = dialect
        self._vault = vault
        self._compiled: dict[int, Statement] = {}
        self.writes = 0  # of the current transaction; the writer checks that refusals come before them

    def _once(self, clause: Any) -> Statement:
        """A clause of module level as driver SQL, compiled when first used.

        For an upsert, whose class depends on the dialect, a function of that class that makes the clause.
        """
        statement = self._compiled.get(id(clause))
        if statement is None:
            upsert = postgresql.insert if self._dialect.name == "postgresql" else sqlite.insert
            made = clause(upsert) if callable(clause) else clause
            statement = self._compiled[id(clause)] = compile_statement(made, self._dialect)
        return statement

    def _write(self, statement: Statement, **params: Any) -> None:
        self.writes += 1
        self._execute(statement, params)

    def _rows(self, statement: Statement, **params: Any) -> list[Any]:
        self._execute(statement, params)
        rows: list[Any] = self._cursor.fetchall()
        return rows

    def _row(self, statement: Statement, **params: Any) -> Any:
        self._execute(statement, params)
        return self._cursor.fetchone()

    def _execute(self, statement: Statement, params: dict[str, Any]) -> None:
        """PostgreSQL's text cannot hold NUL, which anybody may send: its driver refuses such a value before the server
        sees it. It stands there as the replacement character, so that one peer's text fails nobody's transaction."""
        values = statement.values(params)
        try:
            self._cursor.execute(statement.sql, values)
        except Exception:
            if not any(isinstance(one, str) and "\0" in one for one in values):
                raise
            kept = tuple(one.replace("\0", "\ufffd") if isinstance(one, str) else one for one in values)
            self._cursor.execute(statement.sql, kept)

    def _query(self, clause: Any) -> list[Any]:
        """Rows of a statement that is built for this call (lists with search and sorting)."""
        return self._rows(compile_statement(clause, self._dialect))

    def _page(
        self, rows: Any, page: Page, columns: dict[str, Any], search: Sequence[Any], counted: Any = None
    ) -> tuple[list[Any], int]:
        """`counted`: a select with as many rows that costs less, for when nothing is searched."""
        if page.sort_property not in columns:
            raise InvalidArgument(f"Unknown sort property '{page.sort_property}'; use one of {sorted(columns)}")
        if page.text_search:
            rows = rows.where(or_(*(self._contains(column, page.text_search) for column in search)))
        every = rows if counted is None or page.text_search else counted
        total = self._query(select(func.count()).select_from(every.subquery()))[0][0]
        order = columns[page.sort_property]
        rows = rows.order_by(order.desc() if page.descending else order.asc(), rows.selected_columns[0])
        return self._query(rows.limit(page.size).offset(page.page * page.size)), total

    def _contains(self, column: Any, text: str) -> Any:
        """In whatever case. SQLite's LIKE sees to that itself, in half the time that its lower() takes besides."""
        if self._dialect.name == "sqlite":
            return column.contains(text, autoescape=True)
        return func.lower(column).contains(text.lower(), autoescape=True)

    def reading(self, query: Callable[..., R], args: tuple[Any, ...]) -> R:
        """Runs a look-up of several statements in one state of the database."""
        # SQLite's transactions see one state anyway; PostgreSQL's ordinary ones see what each statement finds.
        is_postgresql = self._dialect.name == "postgresql"
        self._cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if is_postgresql else "BEGIN")
        try:
            return query(self, *args)
        finally:
            self._cursor.execute("ROLLBACK")

    def close(self) -> None:
        self.connection.close()
