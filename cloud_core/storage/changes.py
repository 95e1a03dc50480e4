"""Changes that nodes tell each other, and leases: what one of them does for all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, bindparam, column, delete, func, insert, or_, select, table

from cloud_core.model import Change, ChangeKind
from cloud_core.storage.connected import Connected
from cloud_core.storage.schema import change, lease

p = bindparam
_c, _l = change.c, lease.c
_ROWS = select(_c.number, _c.node, _c.kind, _c.device_id, _c.body)
_AFTER = _ROWS.where(_c.number > p("after")).order_by(_c.number).limit(p("limit"))
_FIRST = select(func.min(_c.number))
_NEWEST = select(func.max(_c.number))
_INSERT = insert(change).values({one.name: p(one.name) for one in change.columns})
_TRIM = delete(change).where(_c.at_ms < p("before_ms"))
# The numbers are taken first, so that all rows of a batch go in one statement. SQLite's table of sequences is as much
# its own as PostgreSQL's sequence: no number comes twice, be the rows removed meanwhile.
_TAKE_NUMBERS: Select[Any] = select(func.nextval("change_number_seq")).select_from(func.generate_series(1, p("count")))
_LAST_NUMBER: Select[Any] = (
    select(column("seq")).select_from(table("sqlite_sequence")).where(column("name") == p("name"))
)
_LEASE = select(_l.node, _l.until_ms).where(_l.name == p("name")).with_for_update()
_RELEASE = delete(lease).where(_l.name == p("name"), _l.node == p("node"))
_RELEASE_ALL = delete(lease).where(_l.node == p("node"))
_ONCE = (ChangeKind.PROFILE, ChangeKind.LOGINS)  # they name nothing: one of a transaction says as much as many
# What can matter to nobody where the device is as new as the transaction: it has neither sessions nor logins.
_OF_KNOWN_DEVICES = (ChangeKind.CREDENTIALS, ChangeKind.LOGIN, ChangeKind.DEVICE, ChangeKind.SHARED)


def _take(upsert: Any) -> Any:  # Any: the insert of either dialect
    put = upsert(lease).values(name=p("name"), node=p("node"), until_ms=p("until_ms"))
    is_free = or_(_l.node == put.excluded.node, _l.until_ms <= p("now_ms"))
    return put.on_conflict_do_update(
        index_elements=[_l.name], set_={"node": put.excluded.node, "until_ms": put.excluded.until_ms}, where=is_free
    )


class ReadsChanges(Connected):
    """`ReadChanges` of the interface."""

    def changes(self, after: int, limit: int) -> list[Change]:
        return [_change(row) for row in self._rows(self._once(_AFTER), after=after, limit=limit)]

    def changes_within(self, spans: Sequence[tuple[int, int]], limit: int) -> list[Change]:
        inside = or_(*(_c.number.between(first, last) for first, last in spans))
        return [_change(row) for row in self._query(_ROWS.where(inside).order_by(_c.number).limit(limit))]

    def first_change(self) -> int | None:
        number: int | None = self._row(self._once(_FIRST))[0]
        return number

    def newest_change(self) -> int:
        return self._row(self._once(_NEWEST))[0] or 0


class RecordsChanges(Connected):
    """What the writing parts call beside their own statements. Where there is but one node nothing is kept."""

    node: str | None = None  # who writes; None: nobody else reads

    def _begin_changes(self) -> None:
        self._changes: list[tuple[ChangeKind, int | None, Any]] = []
        self._new_devices: set[int] = set()  # of this transaction

    def record_change(self, kind: ChangeKind, device_id: int | None = None, body: Any = None) -> None:
        if self.node is None or (device_id in self._new_devices and kind in _OF_KNOWN_DEVICES):
            return
        if kind in _ONCE and any(one[0] is kind for one in self._changes):
            return
        self._changes.append((kind, device_id, body))


class WritesChanges(ReadsChanges, RecordsChanges):
    """`WriteChanges` of the interface."""

    def _write_changes(self) -> list[Change]:
        """Before COMMIT, so that little time passes between a number and its row: rows that others see in another
        order than they were numbered are few."""
        node = self.node or ""
        numbers = self._take_numbers(len(self._changes))
        made = [
            Change(number, node, int(kind), device_id, body)
            for number, (kind, device_id, body) in zip(numbers, self._changes, strict=True)
        ]
        at_ms, statement = int(time.time() * 1000), self._once(_INSERT)
        rows = [
            {
                "number": one.number, "at_ms": at_ms, "node": node, "kind": one.kind, "device_id": one.device_id,
                "body": None if one.body is None else msgspec.msgpack.encode(one.body),
            }
            for one in made
        ]  # fmt: skip
        self._cursor.executemany(statement.sql, [statement.values(row) for row in rows])
        return made

    def _take_numbers(self, count: int) -> Sequence[int]:
        if self._dialect.name == "postgresql":
            return [row[0] for row in self._rows(self._once(_TAKE_NUMBERS), count=count)]
        row = self._row(self._once(_LAST_NUMBER), name=change.name)
        last = 0 if row is None else row[0]
        return range(last + 1, last + count + 1)

    def trim_changes(self, before_ms: int) -> None:
        self._write(self._once(_TRIM), before_ms=before_ms)

    # -- leases -----------------------------------------------------------------------------------

    def take_lease(self, name: str, *, now_ms: int, for_ms: int) -> bool:
        if self.node is None:
            return True
        params = {"name": name, "node": self.node, "until_ms": now_ms + for_ms, "now_ms": now_ms}
        self._execute(self._once(_take), params)
        is_taken = bool(self._cursor.rowcount == 1)
        self.writes += is_taken  # where it is not, a refusal may follow: nothing was written
        return is_taken

    def keep_lease(self, name: str, *, now_ms: int, for_ms: int) -> bool:
        if self.node is None:
            return True
        row = self._row(self._once(_LEASE), name=name)
        return row is not None and row[0] == self.node and self.take_lease(name, now_ms=now_ms, for_ms=for_ms)

    def lock_name(self, name: str) -> None:
        if self.node is not None:  # a lease without length: what is left of it is the lock of its row
            self._execute(self._once(_take), {"name": name, "node": self.node, "until_ms": 0, "now_ms": 0})

    def release_lease(self, name: str) -> None:
        if self.node is not None:
            self._write(self._once(_RELEASE), name=name, node=self.node)

    def release_leases(self) -> None:
        if self.node is not None:
            self._write(self._once(_RELEASE_ALL), node=self.node)


def _change(row: Any) -> Change:
    body = None if row[4] is None else msgspec.msgpack.decode(bytes(row[4]))
    return Change(row[0], row[1], row[2], row[3], body)
