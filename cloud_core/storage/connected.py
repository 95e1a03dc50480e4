"""One DBAPI connection and how statements run on it; the base of what `SqlReadTx` and `SqlTx` are made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Dialect, Table, func, literal_column, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from cloud_core.model import Page
from cloud_core.storage import one_pass
from cloud_core.storage.searches import SEPARATOR, Searched
from cloud_core.storage.statements import Statement, compile_statement
from cloud_core.storage.vault import Vault
from shared.errors import InvalidArgument

R = TypeVar("R")

FEW_MATCHES = 2_000
FEW_OF_TABLE = 15_000  # where each pass reads the whole table: that costs as much as sorting these
MET_AGAIN = 4_000  # rows that are remembered as those that match
TOTAL_GOOD_FOR_S = 10.0
DEAR_TOTAL_S = 0.005  # a count that takes less is never kept
MAX_TOTALS = 1_000
DEEP = 10_000

# Which index SQLite is to use, where it would take the one that is in the order of the page and read the whole fleet
# for it: (table, hint, dialect).
Plan = tuple[Table, str, str]


def by_index(table: Table, index: str) -> Plan:
    return table, f"INDEXED BY {index}", "sqlite"


def one_of(column: Any, numbers: Sequence[int]) -> ColumnElement[bool]:
    """Numbers of rows, which the text of a statement may hold as they are."""
    found: ColumnElement[bool] = column.in_([literal_column(str(int(one))) for one in numbers])
    return found


class Connected:
    """Runs statements. Not thread-safe: one instance for each lane."""

    def __init__(self, connection: Any, dialect: Dialect, vault: Vault) -> None:
        # Any: a DBAPI connection (sqlite3 or psycopg); they share no common type.
        self.connection = connection
        self._cursor = connection.cursor()
        self._dialect = dialect
        self._vault = vault
        self._compiled: dict[int, Statement] = {}
        self._totals: dict[Any, tuple[float, Any]] = {}  # key of a count -> until when it is good, and what it was
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
        self,
        rows: Any,
        page: Page,
        columns: dict[str, Any],
        search: Sequence[Any] | Searched,
        *,
        plan: Plan | None = None,
        whole: Any = None,
        few: int = FEW_MATCHES,
        is_scanned: bool = False,
        is_growing: bool = False,
    ) -> tuple[list[Any], int]:
        """A page and the number of all that match. The first column of `rows` is their number.

        Numbers are found first, in an index or by sorting nothing but the key; only the page's own rows are read whole,
        by `whole` where that needs more tables. So many matches are `few` that they are sorted here, after one pass.
        `is_scanned`: no index is in the order of the page, each question reads the whole table, or `plan`'s index in
        its stead; keys are texts and numbers, never missing.
        `is_growing`: besides, rows only come, with higher numbers, and go; what a search looks at does not change.
        """
        if page.sort_property not in columns:
            raise InvalidArgument(f"Unknown sort property '{page.sort_property}'; use one of {sorted(columns)}")
        wanted = rows
        if page.text_search:
            wanted = rows.where(self._has_text(search, page.text_search))
        by_number = wanted
        if plan is not None:
            by_number, wanted = wanted.with_hint(plan[0], "NOT INDEXED", "sqlite"), wanted.with_hint(*plan)
        key, number = columns[page.sort_property], rows.selected_columns[0]
        found = self._scanned(wanted, by_number, key, number, page, is_growing=is_growing) if is_scanned else None
        if found is None:
            found = self._few(wanted, key, number, page, few)
        if found is None:
            found = self._many(wanted, key, number, page)
        numbers, total = found
        of_page = (rows if whole is None else whole).where(one_of(number, numbers))
        found_rows = {row[0]: row for row in self._query(of_page)} if numbers else {}
        return [found_rows[one] for one in numbers if one in found_rows], total

    def _few(self, wanted: Any, key: Any, number: Any, page: Page, few: int) -> tuple[list[int], int] | None:
        """One pass for numbers and total, where few match; None for many. The order of texts is SQLite's alone."""
        if self._dialect.name != "sqlite" or not few:
            return None
        some = self._query(wanted.with_only_columns(key, number).order_by(None).limit(few + 1))
        if len(some) > few:
            return None
        _sort_keys(some, is_descending=page.descending)
        first = page.page * page.size
        return [one[1] for one in some[first : first + page.size]], len(some)

    def _scanned(
        self, wanted: Any, by_number: Any, key: Any, number: Any, page: Page, *, is_growing: bool
    ) -> tuple[list[int], int] | None:
        """Numbers and total in one pass, see `one_pass`; None where another way is quicker, or this one found wrong.

        `by_number`: what is wanted, where rows are asked for by their numbers.
        """
        if self._dialect.name != "sqlite":
            return None
        place = self._count_key(wanted)
        known = self._known(place)
        ends = select(select(func.min(number)).scalar_subquery(), select(func.max(number)).scalar_subquery())
        lowest, highest = self._query(ends)[0]
        if lowest is None or highest - lowest < FEW_OF_TABLE or (key is number and known is not None):
            return None
        asked = one_pass.spread(lowest, highest)
        sample = by_number.with_only_columns(key, number).where(one_pass.among(number, asked)).order_by(None)
        some = self._query(sample)
        if len(some) < one_pass.ENOUGH:
            return self._met(wanted, by_number, key, number, page, place, highest) if is_growing else None
        _sort_present(some, is_descending=page.descending)
        first = page.page * page.size
        if len(some) == len(asked):
            known = highest - lowest + 1
        each = (highest - lowest + 1) / len(asked) if known is None else known / len(some)
        span = one_pass.span_of(some, each, first, page.size, is_total_known=known is not None)
        began_s = time.monotonic()
        statement = one_pass.pass_over(wanted, key, number, span, is_descending=page.descending)
        total, before, pairs = self._query(statement)[0]
        self._keep(place, total, began_s)
        inside = msgspec.json.decode(pairs)
        if before > first or before + len(inside) < min(total, first + page.size):
            return None
        _sort_present(inside, is_descending=page.descending)
        return [one[1] for one in inside[first - before :][: page.size]], total

    def _met(
        self, wanted: Any, by_number: Any, key: Any, number: Any, page: Page, place: Any, highest: int
    ) -> tuple[list[int], int] | None:
        """Where few rows match, of a table whose rows do not change: those that were met a moment ago are met again,
        and only what has been written since is looked through. None for many."""
        began_s = time.monotonic()
        numbers, last = self._known((place, "met")) or ((), 0)
        unseen = by_number.where(number > last) if last else wanted
        newer = self._query(unseen.with_only_columns(number).order_by(None).limit(MET_AGAIN + 1 - len(numbers)))
        numbers = (*numbers, *(row[0] for row in newer))
        if len(numbers) > MET_AGAIN:
            return None
        self._keep((place, "met"), (numbers, highest), began_s)
        pairs = self._query(select(key, number).where(one_pass.among(number, numbers)))
        _sort_present(pairs, is_descending=page.descending)
        return [one[1] for one in pairs[page.page * page.size :][: page.size]], len(pairs)

    def _many(self, wanted: Any, key: Any, number: Any, page: Page) -> tuple[list[int], int]:
        total, first, size = self._count(wanted), page.page * page.size, page.size
        is_far = first >= DEEP and first > total // 2  # then it is nearer from the end
        if is_far:
            size = max(0, min(size, total - first))
            first = max(0, total - first - size)
        order = [key.desc() if page.descending != is_far else key.asc()]
        if key is not number:
            order.append(number.desc() if is_far else number.asc())
        found = self._query(wanted.with_only_columns(number).order_by(*order).limit(size).offset(first)) if size else []
        numbers = [row[0] for row in found]
        return numbers[::-1] if is_far else numbers, total

    def _count(self, wanted: Any) -> int:
        clause = wanted.with_only_columns(func.count()).order_by(None)
        total: int = self._kept(self._count_key(wanted), lambda: self._query(clause)[0][0])
        return total

    def _count_key(self, wanted: Any) -> Any:
        statement = compile_statement(wanted.with_only_columns(func.count()).order_by(None), self._dialect)
        return statement.sql, statement.values({})

    def _kept(self, key: Any, count: Callable[[], Any]) -> Any:  # Any: what is counted
        """A count, or for a while the last one where counting took long."""
        counted = self._known(key)
        if counted is None:
            began_s = time.monotonic()
            counted = count()
            self._keep(key, counted, began_s)
        return counted

    def _known(self, key: Any) -> Any:  # Any: what was counted; None where that is too long ago
        until_s, counted = self._totals.get(key, (0.0, None))
        if time.monotonic() < until_s:
            return counted
        self._totals.pop(key, None)
        return None

    def _keep(self, key: Any, counted: Any, began_s: float) -> None:
        if time.monotonic() - began_s > DEAR_TOTAL_S:
            if len(self._totals) >= MAX_TOTALS:
                self._totals.clear()
            self._totals[key] = (began_s + TOTAL_GOOD_FOR_S, counted)

    def _has_text(self, search: Sequence[Any] | Searched, text: str) -> ColumnElement[bool]:
        """In any of the columns."""
        if not isinstance(search, Searched):
            return or_(*(self._contains(column, text) for column in search))
        if self._dialect.name != "sqlite" or SEPARATOR in text:
            return or_(*(self._contains(column, text) for column in search.columns))
        found: ColumnElement[bool] = self._contains(search.text, text)
        return found

    def _contains(self, column: Any, text: str) -> Any:
        """In whatever case. SQLite's LIKE sees to that itself, in half the time that its lower() takes besides."""
        if self._dialect.name == "sqlite":
            return column.contains(text, autoescape=True)
        return func.lower(column).contains(text.lower(), autoescape=True)

    def reading(self, query: Callable[..., R], args: tuple[Any, ...]) -> R:
        """Runs a look-up of several statements in one state of the database."""
        self.begin_reading()
        try:
            return query(self, *args)
        finally:
            self.end_reading()

    def begin_reading(self) -> None:
        self._cursor.execute("BEGIN")

    def end_reading(self) -> None:
        self._cursor.execute("ROLLBACK")

    def foresee(self, batch: Sequence[Any]) -> None:
        """What the units of a batch will ask may be looked up ahead; worth nothing without a network between."""

    def close(self) -> None:
        self.connection.close()


def _sort_keys(pairs: list[Any], *, is_descending: bool) -> None:
    """Pairs of key and number in place; equal keys stay by number. Missing keys come before all others."""
    if any(one[0] is None for one in pairs):
        pairs.sort(key=itemgetter(1))
        pairs.sort(key=_missing_first, reverse=is_descending)
    else:
        _sort_present(pairs, is_descending=is_descending)


def _sort_present(pairs: list[Any], *, is_descending: bool) -> None:
    """Where no key is missing."""
    pairs.sort(key=itemgetter(1))
    pairs.sort(key=itemgetter(0), reverse=is_descending)


def _missing_first(pair: Any) -> tuple[bool, Any]:
    return pair[0] is not None, pair[0]
