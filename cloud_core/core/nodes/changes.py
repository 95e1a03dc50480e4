"""What other nodes have changed takes effect here: told at once, and read from the database in any case.

The rows stand in the transaction of the change itself, so none is lost. Numbers become visible in another order than
they were given: those that are missing between others are looked for again, and each is applied once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from twisted.logger import Logger

from cloud_core.core.line_ration import LineRation
from cloud_core.fabric.interface import Body, Fabric
from cloud_core.model import Change
from cloud_core.storage.interface import Done, ReadTx, Store, Tx
from shared.errors import PlatformError

log = Logger()
KIND = "changes"
POLL_S = 2.0
KEPT_MS = 3_600_000  # rows, by the clock of whoever wrote them
BLIND_MS = (
    KEPT_MS - 600_000
)  # so long without a look at them, and some may be gone; clocks of nodes may differ a little
GAP_MS = 600_000  # so long a number that is missing is looked for: then its transaction was rolled back
MAX_GAPS = 50_000
GAP_SPANS = 200  # numbers in a row that are looked for at once
OPEN_MS = 90_000  # the database ends a transaction before that
MAX_EARLY = 200_000  # while the database cannot be looked at
LOOK_BACK = 1_000  # numbers, at the start
MAX_ROWS = 1_000  # of one look, so that the reactor turns between
ROWS_TOLD = 1_000  # in one message
BYTES_TOLD = 200_000

Row = tuple[int, int, int | None, Body]  # number, kind, device, body: as it is told


@dataclass(frozen=True, slots=True)
class Look:
    """What the table shows: rows behind the last one, and those that were missing."""

    rows: list[Change]
    late: list[Change]


class Changes:
    """Tells what has been committed here, hears what others tell, and looks for what was not heard.

    `apply` does what a change of another node means here; `own` hears of those that this node has made; `forget(ms)`
    gives up all that is remembered of the database, of which nothing is sure since then.
    """

    def __init__(
        self, *, store: Store, fabric: Fabric, now_ms: Callable[[], int], apply: Callable[[Change], None],
        own: Callable[[Change], None], forget: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._fabric = fabric
        self._now_ms = now_ms
        self._apply = apply
        self._own = own
        self._forget = forget
        self._last = 0  # the highest number that a look has shown
        self._early: set[int] = set()  # above it: told, or made here
        self._gaps: dict[int, int] = {}  # below it and never seen -> since when, ms
        self._turn = 0  # which of the gaps are looked for, where there are many
        self._overflowed_ms: int | None = None  # there were more than can be remembered
        self._looked_ms = now_ms()
        self._is_looking = self._is_due = False
        self._failures = LineRation(1)
        self.applied = 0
        if store.node is not None:
            store.on_changes(self._committed)
            fabric.hear(KIND, self._heard)
            fabric.on_back(self.poll)

    def start(self, done: Done[None]) -> None:
        """What stands there already concerns nobody here: nothing is remembered yet. `done` before anything is."""

        def found(outcome: Look | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                done(outcome)
                return
            numbers = {one.number for one in outcome.rows}
            self._looked_ms = self._now_ms()
            if numbers:
                first, self._last = max(0, max(numbers) - LOOK_BACK), max(numbers)
                missing = set(range(first + 1, self._last)) - numbers - self._early
                self._gaps = dict.fromkeys(sorted(missing), self._looked_ms)
                self._early = {one for one in self._early if one > self._last}
            done(None)

        self._store.read(_newest, (), found)

    # -- told and heard ---------------------------------------------------------------------------

    def _committed(self, changes: list[Change]) -> None:
        """By this node: done here by whoever has made them."""
        for change in changes:
            self._is_new(change.number)
            self._own(change)
        if self._fabric.others:
            for part in _parts(changes):
                self._fabric.tell_all(KIND, part)

    def _heard(self, sender: str, body: Body) -> None:
        try:
            rows = msgspec.convert(body, type=list[Row])
        except msgspec.ValidationError as error:  # of another program: the table says the same
            log.warn("Changes that {node} tells cannot be read: {error}", node=sender, error=str(error))
            return
        for number, kind, device_id, told in rows:
            self._take(Change(number, sender, kind, device_id, told))

    def _take(self, change: Change) -> None:
        if not self._is_new(change.number):
            return
        self.applied += 1
        try:
            self._apply(change)
        except Exception:  # the others have to be applied all the same
            log.failure("A change could not be applied: {number}", number=change.number)

    def _is_new(self, number: int) -> bool:
        """Whether this number is seen for the first time; it is not from now on."""
        if number > self._last:
            is_new = number not in self._early
            if len(self._early) >= MAX_EARLY:
                self._early.clear()  # what is applied once more when it is looked at does no harm
            self._early.add(number)
            return is_new
        return self._gaps.pop(number, None) is not None

    # -- looking ----------------------------------------------------------------------------------

    def poll(self) -> None:
        """Looks for what was not told; called every POLL_S."""
        if self._is_looking:
            self._is_due = True
            return
        self._is_looking, self._is_due = True, False
        began_ms = self._now_ms()
        self._store.read(_look, (self._last, self._wanted()), lambda outcome: self._looked(outcome, began_ms))

    def _wanted(self) -> list[tuple[int, int]]:
        """First and last of the missing numbers, as far as one look goes."""
        spans: list[tuple[int, int]] = []
        for number in sorted(self._gaps):
            if spans and number == spans[-1][1] + 1:
                spans[-1] = (spans[-1][0], number)
            else:
                spans.append((number, number))
        if len(spans) <= GAP_SPANS:
            return spans
        self._turn = (self._turn + GAP_SPANS) % len(spans)
        return spans[self._turn : self._turn + GAP_SPANS]

    def _looked(self, outcome: Look | PlatformError, began_ms: int) -> None:
        self._is_looking = False
        if isinstance(outcome, PlatformError):
            is_due, _ = self._failures.take(began_ms / 1000)
            if is_due:
                log.error("What other nodes have changed could not be read: {error}", error=str(outcome))
            return
        if began_ms - self._looked_ms > BLIND_MS:
            self._forget(self._looked_ms)
        elif self._overflowed_ms is not None and began_ms - self._overflowed_ms > OPEN_MS:
            since_ms, self._overflowed_ms = self._overflowed_ms, None
            self._forget(since_ms)
        self._looked_ms = began_ms
        for change in outcome.late:
            self._take(change)
        for change in outcome.rows:
            self._pass(change, began_ms)
        for number in [one for one, since_ms in self._gaps.items() if began_ms - since_ms > GAP_MS]:
            del self._gaps[number]
        if self._is_due or MAX_ROWS in (len(outcome.rows), len(outcome.late)):
            self.poll()

    def _pass(self, change: Change, now_ms: int) -> None:
        """The next number that is visible."""
        number = change.number
        far = MAX_GAPS if self._last else LOOK_BACK  # the table was empty: there may have been many long ago
        for missing in range(max(self._last + 1, number - far), number):
            if missing in self._early:
                self._early.discard(missing)
            elif len(self._gaps) < MAX_GAPS:
                self._gaps[missing] = now_ms
            elif self._overflowed_ms is None:
                self._overflowed_ms = now_ms
        self._take(change)
        self._early.discard(number)
        self._last = max(self._last, number)

    # -- tidying up -------------------------------------------------------------------------------

    def maintain(self) -> None:
        """Removes rows that everybody has seen; by one node, once a minute."""
        if self._store.node is not None:
            self._store.submit(_trim, (self._now_ms() - KEPT_MS,), _trimmed)


def _parts(changes: Sequence[Change]) -> Iterator[list[Row]]:
    """What fits into a message each."""
    part: list[Row] = []
    size = 0
    for one in changes:
        row_bytes = len(msgspec.msgpack.encode(one.body))
        if part and (len(part) >= ROWS_TOLD or size + row_bytes > BYTES_TOLD):
            yield part
            part, size = [], 0
        part.append((one.number, one.kind, one.device_id, one.body))
        size += row_bytes
    if part:
        yield part


def _newest(tx: ReadTx) -> Look:
    return Look(tx.changes(max(0, tx.newest_change() - LOOK_BACK), LOOK_BACK), [])


def _look(tx: ReadTx, after: int, missing: Sequence[tuple[int, int]]) -> Look:
    return Look(tx.changes(after, MAX_ROWS), tx.changes_within(missing, MAX_ROWS) if missing else [])


def _trim(tx: Tx, before_ms: int) -> None:
    tx.trim_changes(before_ms)


def _trimmed(outcome: object) -> None:
    if isinstance(outcome, PlatformError):
        log.warn("Old changes could not be removed, which is tried again: {error}", error=str(outcome))
