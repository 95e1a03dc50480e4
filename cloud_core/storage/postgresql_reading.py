"""`ReadTx` on PostgreSQL: what a batch of look-ups or decisions asks one by one is looked up for all of it at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from sqlalchemy import Dialect

from cloud_core.storage import tenants
from cloud_core.storage.arrays import bigints, byteas, texts
from cloud_core.storage.pipelined import PipelinedCursor
from cloud_core.storage.reading import SqlReadTx
from cloud_core.storage.statements import Statement, Statements
from cloud_core.storage.vault import Vault

Unit = tuple[Callable[..., Any] | None, tuple[Any, ...], Any]
_LAST = re.compile(r"= %s(::\w+)?\s*$")
FEW = 3  # so few decisions are not worth a look ahead
TRIES, SKIPPED = 20, 1_000  # rehearsals that bring nothing, decisions that are not rehearsed then
KINDS_KNOWN = 1_000


class LooksAhead(BaseException):
    """Ends a rehearsal: what the decision asks next has to be asked for real. Nothing catches it but the rehearsal."""


class Ahead:
    """One kind of look-up of a single row that can be made for many at once.

    `many` takes an array of the last parameter in the place of one; `told` is where a row of it says which.
    """

    def __init__(self, statement: Statement, told: int | None, extra: str = "") -> None:
        self.one = statement
        sql = statement.sql
        if told is None:  # the row does not say it: another column does
            sql = sql.replace("SELECT ", f"SELECT {extra} AS told, ", 1)
        self.many, found = _LAST.subn("= ANY(%s)", sql)
        assert found == 1, "the statement ends with the one parameter that differs"
        self.told = 0 if told is None else told
        self.is_extra = told is None
        self.wanted: dict[tuple[Any, ...], set[Any]] = {}  # the other parameters -> the last ones


class PostgresqlReadTx(SqlReadTx):
    """Look-ups, several in one transaction and their answers looked up together."""

    def __init__(
        self, connection: psycopg.Connection[Any], dialect: Dialect, statements: Statements, vault: Vault, *rest: Any
    ) -> None:
        super().__init__(connection, dialect, statements, vault, *rest)  # the rest is for what a transaction adds
        self.cursor = self._cursor = PipelinedCursor(connection)
        self.cursor.before = self._before
        self._looked_up: dict[tuple[int, tuple[Any, ...]], Any] = {}  # (statement, its parameters) -> row
        self._is_ahead = False
        self._has_asked = False  # in this rehearsal, for something that is kept
        self._worth: dict[Any, int] = {}  # of rehearsing a kind of decision, by its code
        self._ahead = {id(one.one): one for one in self._made_ahead()}
        self._kept_rows = {id(one) for one in (statements.profile_by_key, self._once(tenants._MAX_DEVICES))}

    def _made_ahead(self) -> list[Ahead]:
        return [
            Ahead(self._s.device_by_name, 6),
            Ahead(self._s.credentials_owner, None, "credentials.id_hash"),
            Ahead(self._s.login, None, "credentials.id_hash"),
            Ahead(self._s.credentials, 0),
        ]

    def foresee(self, batch: Sequence[Unit]) -> None:
        """Runs the batch's decisions up to where they would have to wait, then looks up for all of them at once."""
        units = [unit for unit in batch if unit[0] is not None and self._is_worth_it(_code(unit[0]))]
        if len(units) < FEW:
            return
        self._is_ahead = True
        try:
            for work, args, _ in units:
                assert work is not None
                self._rehearse(work, args)
        finally:
            self._is_ahead = False
        for one in self._ahead.values():
            for others, lasts in one.wanted.items():
                self._ask_together(one, others, lasts)
            one.wanted.clear()

    def _is_worth_it(self, kind: Any) -> bool:
        """Not after many in a row that brought nothing; from time to time it is tried again."""
        worth = self._worth.get(kind, TRIES)
        if worth <= 0:
            self._worth[kind] = worth = worth - 1 if worth > -SKIPPED else TRIES
        return worth > 0

    def _rehearse(self, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._has_asked = False
        try:
            work(self, *args)
        except LooksAhead:
            pass
        except psycopg.Error:
            raise
        except Exception:  # whatever is wrong with it, it says so when its turn comes
            pass
        kind = _code(work)
        if self._has_asked:
            self._worth.pop(kind, None)
        elif len(self._worth) < KINDS_KNOWN:
            self._worth[kind] = self._worth.get(kind, TRIES) - 1

    def _ask_together(self, one: Ahead, others: tuple[Any, ...], lasts: set[Any]) -> None:
        for last in lasts:
            self._looked_up[id(one.one), (*others, last)] = None
        asked = list(lasts)
        self.cursor.send(one.many, (*others, _packed(asked)))
        for row in self.cursor.fetchall():
            key = (id(one.one), (*others, row[one.told]))
            self._looked_up[key] = row[1:] if one.is_extra else row

    def _row(self, statement: Statement, **params: Any) -> Any:
        number = id(statement)
        ahead = self._ahead.get(number)
        if ahead is None and number not in self._kept_rows:
            return super()._row(statement, **params)
        values = statement.values(params)
        key = (number, values)
        if key in self._looked_up:
            self._has_asked = True
            return self._looked_up[key]
        if self._is_ahead:
            self._has_asked = True
            if ahead is not None:
                ahead.wanted.setdefault(values[:-1], set()).add(values[-1])
                raise LooksAhead
            self.cursor.send(statement.sql, values)
            row = self._looked_up[key] = self.cursor.fetchone()
            return row
        row = self._looked_up[key] = super()._row(statement, **params)
        return row

    def _before(self) -> None:
        """Ahead of each statement."""
        if self._is_ahead:
            raise LooksAhead

    def begin_reading(self) -> None:
        """One state of the database for all look-ups of a batch, which were all asked before it."""
        self._looked_up.clear()
        self.cursor.send("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def end_reading(self) -> None:
        """Raises: psycopg.OperationalError for a lost connection."""
        self._looked_up.clear()
        self.cursor.end()

    def close(self) -> None:
        self.cursor.close()


def _packed(values: list[Any]) -> bytes:
    """Parameters of one type."""
    if isinstance(values[0], int):
        return bigints(values)
    return byteas(values) if isinstance(values[0], bytes) else texts(values)


def _code(work: Callable[..., Any]) -> Any:
    """What tells one kind of decision from another, also where each is a closure of its own."""
    inner = getattr(work, "func", work)  # of a partial
    return getattr(inner, "__code__", inner)
