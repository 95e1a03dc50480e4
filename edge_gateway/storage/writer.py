"""The thread that owns the spool's file: group commit.

A batch is what arrived while the last one was committed, and within `commit_ms` after its first unit. All of it goes
into one transaction, and its answers go to the reactor in one hop. When the disk does not take a batch, what was to be
appended is refused; forgotten numbers and remembered devices are kept for the next batch.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from edge_gateway.model import Refusal
from edge_gateway.settings import Store
from edge_gateway.storage.errors import is_damage, is_trouble_with_disk
from edge_gateway.storage.file import RECORD_OVERHEAD_BYTES, Oldest, SpoolFile
from edge_gateway.storage.interface import Boot, SpoolLevels
from edge_gateway.storage.limits import (
    MOST_DROPPED_PER_COMMIT,
    RETRY_AFTER_S,
    Limits,
    acceptance_ms,
    needed_bytes,
)
from edge_gateway.storage.schema import PAGE_BYTES
from edge_gateway.storage.units import Append, Batch, Read, Unit

MAX_UNITS_PER_COMMIT = 500
MAX_BYTES_PER_COMMIT = 4 * 1024**2
MAX_COMMIT_MS = 20
TEND_EVERY_S = 1.0
GIVE_BACK_ABOVE_PAGES = 4_096  # free pages of the file: 16 MiB
GIVE_BACK_PAGES = 512
FORGOTTEN_ON_FULL_DISK = 50  # in one transaction

log = Logger()

Dropped = Callable[[list[int], dict[str, int]], None]
Answer = tuple[Callable[..., Any], tuple[Any, ...]]


class Reactor(Protocol):
    """The part of Twisted's reactor that a thread may use."""

    def callFromThread(self, f: Callable[..., Any], *args: Any) -> None: ...


class Writer:
    """`put` is called in the reactor's thread and never blocks; everything else runs in the writer's own thread."""

    def __init__(
        self,
        *,
        file: SpoolFile,
        reopen: Callable[[SpoolFile], SpoolFile],
        repair: Callable[[SpoolFile], SpoolFile],
        settings: Store,
        present: Boot,
        reactor: Reactor,
        monotonic: Callable[[], float],
        on_dropped: Dropped,
    ) -> None:
        self._file = file
        self._reopen = reopen
        self._repair = repair
        self._limits = Limits(settings)
        file.bound_log(self._limits.log_bytes)
        self._present = present.number
        self._reactor = reactor
        self._monotonic = monotonic
        self._on_dropped = on_dropped
        self._gather_s = min(max(settings.commit_ms, 0), MAX_COMMIT_MS) / 1000
        self._queue: deque[Unit] = deque()
        self._wake = threading.Event()
        self._enough = threading.Event()
        self._is_stopping = False
        # Each pair has one writer per field, so that no lock is needed: the reactor's thread puts, the other takes.
        self._put_units = self._taken_units = 0
        self._put_bytes = self._taken_bytes = 0
        self._put_reads = self._taken_reads = 0
        self._carried = Batch()
        self._late_reads: list[Read] = []
        self._tended_s = float("-inf")
        self._is_in_trouble = self._is_short = False
        self.levels = SpoolLevels(
            records=0, used_bytes=0, max_bytes=self._limits.max_bytes, free_disk_bytes=0, oldest_ms=0, dropped={}
        )
        self._measure()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    # --- the reactor's side

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Runs what is queued, closes the file and ends the thread."""
        self._is_stopping = True
        self._enough.set()
        self._wake.set()
        self._thread.join()

    def put(self, unit: Unit, size_bytes: int = 0) -> None:
        self._put_units += 1
        self._put_bytes += size_bytes
        if isinstance(unit, Read):
            self._put_reads += 1
        self._queue.append(unit)
        if self._is_enough():
            self._enough.set()
        if not self._wake.is_set():
            self._wake.set()

    @property
    def queued_units(self) -> int:
        return self._put_units - self._taken_units

    @property
    def queued_bytes(self) -> int:
        return self._put_bytes - self._taken_bytes

    def _is_enough(self) -> bool:
        return (
            self.queued_units >= MAX_UNITS_PER_COMMIT
            or self.queued_bytes >= MAX_BYTES_PER_COMMIT
            or self._put_reads != self._taken_reads
            or self._is_stopping
        )

    # --- the thread

    def _run(self) -> None:
        while True:
            self._wake.wait(TEND_EVERY_S)
            self._wake.clear()  # before looking into the queue, so that no wake-up is lost
            while self._queue:
                self._gather()
                self._turn()
            self._guarded(self._tend)
            if self._is_stopping and not self._queue:
                break
        self._guarded(self._close)

    def _gather(self) -> None:
        self._enough.clear()
        if not self._is_enough() and self._gather_s:
            self._enough.wait(self._gather_s)

    def _turn(self) -> None:
        batch, read = self._take()
        answers = [] if batch.is_empty() else self._process(batch)
        if read is not None:
            answers += self._read(read)
        self._measure()
        if answers:
            self._reactor.callFromThread(self._deliver, answers)
        self._guarded(self._checkpoint)
        if self._monotonic() - self._tended_s >= TEND_EVERY_S:
            self._guarded(self._tend)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Work that nobody waits for: it is done again later."""
        try:
            step()
        except Exception as error:
            self._recover(error)

    def _take(self) -> tuple[Batch, Read | None]:
        """Up to a read, which must see what was appended before it, and no more."""
        batch = Batch()
        units = size_bytes = 0
        read: Read | None = None
        while self._queue and units < MAX_UNITS_PER_COMMIT and size_bytes < MAX_BYTES_PER_COMMIT:
            unit = self._queue.popleft()
            units += 1
            if isinstance(unit, Read):
                read = unit
                self._taken_reads += 1
                break
            if isinstance(unit, Append):
                size_bytes += unit.size_bytes
            batch.add(unit)
        self._taken_units += units
        self._taken_bytes += size_bytes
        return batch, read

    @staticmethod
    def _deliver(answers: list[Answer]) -> None:
        for answer, args in answers:
            try:
                answer(*args)
            except Exception:
                log.failure("A callback of the spool failed")

    # --- a batch

    def _process(self, batch: Batch) -> list[Answer]:
        batch = batch.after(self._carried)
        self._carried = Batch()
        if self._is_in_trouble and not self._has_carried_log_over():
            return self._put_off(batch)
        try:
            return self._commit(batch)
        except Exception as error:
            self._recover(error)
            if is_damage(error) or is_trouble_with_disk(error):
                return self._without_growth(batch)
            return [answer for one in batch.singly() if not one.is_empty() for answer in self._alone(one)]

    def _commit(self, batch: Batch) -> list[Answer]:
        file = self._file
        file.begin()
        if batch.devices:
            file.put_devices(batch.devices.values())
        for boot in batch.boots.values():
            file.put_boot(boot)
        stored = file.newest
        file.forget([number for number in batch.forgets if number <= stored])
        expired = self._expired()
        devices = Counter(file.drop(expired, "age")) if expired else Counter[str]()
        numbers = [number for number, *_ in expired]
        admitted, refusal, given_up = self._admit(batch.appends)
        if given_up:
            devices.update(device for _, device, *_ in given_up)
            numbers += [number for number, *_ in given_up]
        records = [record for append in admitted for record in append.records]
        if records:
            file.append(records)
        file.forget([number for number in batch.forgets if number > stored])
        file.commit()
        if self._is_in_trouble and records:
            self._is_in_trouble = False
            log.info("The spool's disk takes data again")
        answers: list[Answer] = [(self._on_dropped, (numbers, dict(devices)))] if numbers else []
        answers += [(append.done, (None,)) for append in admitted]
        return answers + [(append.done, (refusal,)) for append in batch.appends[len(admitted) :]]

    def _admit(self, appends: list[Append]) -> tuple[list[Append], Refusal | None, list[Oldest]]:
        """How many of the appends, from the first on, there is room for, after dropping what the policy drops."""
        file = self._file
        total, free = file.pages()
        free_disk = file.free_disk_bytes()
        limit = self._limits.allowance(total, free_disk, self._monotonic())
        need = needed_bytes(sum(append.size_bytes for append in appends))
        room = limit.bytes - (total - free) * PAGE_BYTES
        given_up: list[Oldest] = []
        if need > room and self._limits.drops:
            slack = min(max(limit.bytes // 200, 4 * PAGE_BYTES), 1024**2)
            given_up, freed = self._give_up(need + slack, limit.bytes, limit.reason)
            total, free = file.pages()
            room = max(limit.bytes - (total - free) * PAGE_BYTES, freed if freed > need else 0)
        size_bytes = 0
        for admitted, append in enumerate(appends):
            size_bytes += append.size_bytes
            if needed_bytes(size_bytes) > room:
                return appends[:admitted], self._limits.refusal(limit, free_disk), given_up
        return appends, None, given_up

    def _give_up(self, need: int, limit: int, reason: str) -> tuple[list[Oldest], int]:
        """Drops the oldest telemetry, and attributes when there is no other; also how many bytes that were, about."""
        file = self._file
        given_up: list[Oldest] = []
        freed = 0
        while len(given_up) < MOST_DROPPED_PER_COMMIT:
            total, free = file.pages()
            missing = (total - free) * PAGE_BYTES + need - limit
            if missing <= 0:
                break
            found = file.oldest_telemetry(MOST_DROPPED_PER_COMMIT) or file.oldest(MOST_DROPPED_PER_COMMIT)
            some: list[Oldest] = []
            size = 0
            for one in found:
                if size > missing + PAGE_BYTES:
                    break
                some.append(one)
                size += len(one[1]) + one[4] + RECORD_OVERHEAD_BYTES
            if not some:
                break
            file.drop(some, reason)
            given_up += some
            freed += size
        return given_up, freed

    def _expired(self) -> list[Oldest]:
        now_ms = acceptance_ms(self._file.boots, self._present, int(self._monotonic() * 1000)) or None
        boots = self._file.boots
        if now_ms is None or not self._limits.expired(self._file.oldest_telemetry(1), boots, now_ms):
            return []
        return self._limits.expired(self._file.oldest_telemetry(MOST_DROPPED_PER_COMMIT), boots, now_ms)

    # --- when it fails

    def _without_growth(self, batch: Batch) -> list[Answer]:
        """The disk takes no more, or the file was repaired: once more into the pages that the file has, with what the
        policy drops; then at least what takes no room."""
        self._limits.stop_growth(self._monotonic())
        if not self._has_carried_log_over():
            return self._put_off(batch)
        for part in (batch, batch.without_appends()):
            try:
                answers = self._commit(part)
            except Exception as error:
                self._recover(error)
                continue
            return answers if part is batch else answers + self._refused(batch)
        answers = self._put_off(batch)
        self._carried.forgets = self._forget_in_parts(batch.forgets)
        return answers

    def _has_carried_log_over(self) -> bool:
        """Room goes to the file first, so that the log can start again; otherwise the log would eat it up."""
        try:
            self._file.checkpoint(is_due=True)
        except Exception as error:
            self._recover(error)
            return False
        return True

    def _put_off(self, batch: Batch) -> list[Answer]:
        """Refuses what was to be appended; the rest waits for better times."""
        self._carried = batch.without_appends()
        return self._refused(batch)

    def _forget_in_parts(self, numbers: list[int]) -> list[int]:
        """With the log started again after each part: whole pages go through it, and it cannot grow. What is left."""
        numbers = sorted(set(numbers))
        for at in range(0, len(numbers), FORGOTTEN_ON_FULL_DISK):
            try:
                self._commit(Batch(forgets=numbers[at : at + FORGOTTEN_ON_FULL_DISK]))
                self._file.checkpoint(is_due=True)
            except Exception as error:
                self._recover(error)
                return numbers[at:]
        return []

    @staticmethod
    def _refused(batch: Batch) -> list[Answer]:
        text = "The disk does not take the gateway's spool. Make room, or look into the system's log for a broken disk."
        refusal = Refusal(reason=text, retry_after_s=RETRY_AFTER_S)
        return [(append.done, (refusal,)) for append in batch.appends]

    def _alone(self, one: Batch) -> list[Answer]:
        """A unit by itself, to find the one that no database takes."""
        try:
            return self._commit(one)
        except Exception as error:
            self._recover(error)
            if is_damage(error) or is_trouble_with_disk(error):
                return self._without_growth(one)
            log.error("The spool cannot store {what}: {error}", what=_name(one), error=error)
            refusal = Refusal(reason=f"The reading cannot be stored: {error}")
            return [(append.done, (refusal,)) for append in one.appends]

    def _recover(self, error: Exception) -> None:
        """Brings the file back into a state for the next transaction."""
        if is_trouble_with_disk(error):
            if not self._is_in_trouble:
                log.error("The disk does not take the spool: {error}", error=error)
            self._is_in_trouble = True
        elif not is_damage(error):
            log.debug("A transaction of the spool failed: {error}", error=error)
        try:
            if is_damage(error):
                self._file = self._repair(self._file)
                return
            self._file.rollback()
        except Exception as lost:
            self._try_to_reopen(lost)
        else:
            if isinstance(error, sqlite3.ProgrammingError):
                self._try_to_reopen(error)

    def _try_to_reopen(self, lost: Exception) -> None:
        try:
            self._file = self._reopen(self._file)
        except Exception as error:  # the next batch tries again
            log.error("The spool cannot be opened again: {error} (after: {lost})", error=error, lost=lost)

    def _read(self, read: Read) -> list[Answer]:
        try:
            return [(read.done, (self._file.read_history(read.after, read.limit_records, read.limit_bytes),))]
        except Exception as error:
            self._recover(error)
            self._late_reads.append(read)  # never answered by a guess: an empty list means the end
            return []

    # --- from time to time

    def _tend(self) -> None:
        """Retries, ageing, and giving pages back."""
        self._tended_s = self._monotonic()
        answers: list[Answer] = []
        if not self._carried.is_empty() or self._expired() or self._is_too_large():
            answers += self._process(Batch())
        reads, self._late_reads = self._late_reads, []
        for read in reads:
            answers += self._read(read)
        self._measure()
        if answers:
            self._reactor.callFromThread(self._deliver, answers)
        _, free = self._file.pages()
        is_short = self._limits.is_disk_short(self._file.free_disk_bytes(), self._tended_s)
        if not self._queue and free > (GIVE_BACK_PAGES if is_short else GIVE_BACK_ABOVE_PAGES):
            self._file.give_back(GIVE_BACK_PAGES * (8 if free > 4 * GIVE_BACK_ABOVE_PAGES else 1))

    def _is_too_large(self) -> bool:
        """The settings were lowered."""
        return self._limits.drops and self.levels.used_bytes > self._limits.max_bytes and self.levels.records > 0

    def _checkpoint(self) -> None:
        """A disk that has just become short still takes what the file has to grow by; later it may not, and then the
        log, which forgetting needs, could not start again."""
        was_short = self._is_short
        self._is_short = self._limits.is_disk_short(self.levels.free_disk_bytes, self._monotonic())
        self._file.checkpoint(is_due=self._is_short and not was_short)

    def _measure(self) -> None:
        file = self._file
        try:
            total, free = file.pages()
            oldest = file.oldest_instant()
            self.levels = SpoolLevels(
                records=file.records,
                used_bytes=(total - free) * PAGE_BYTES,
                max_bytes=self._limits.max_bytes,
                free_disk_bytes=file.free_disk_bytes(),
                oldest_ms=acceptance_ms(file.boots, *oldest) if oldest else 0,
                dropped=dict(file.dropped),
            )
        except (sqlite3.Error, OSError) as error:
            log.debug("The spool cannot be measured: {error}", error=error)

    def _close(self) -> None:
        if not self._carried.is_empty():
            self._guarded(self._tend)
        self._file.close()


def _name(batch: Batch) -> str:
    if batch.appends:
        return "a reading"
    return f"the device {next(iter(batch.devices))!r}" if batch.devices else "what it was told"
