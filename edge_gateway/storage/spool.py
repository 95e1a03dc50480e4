"""The spool's door for the reactor's thread: `Spool` and `SubDeviceStore` of interface.py.

It bounds what waits for the disk and hands everything to the thread that owns the file (writer.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_gateway.model import Record, Refusal, SubDevice
from edge_gateway.settings import Store
from edge_gateway.storage.file import size_of
from edge_gateway.storage.interface import Boot, SpoolLevels
from edge_gateway.storage.opening import Lock, lock, open_file, reopen, repaired
from edge_gateway.storage.units import Append, Forget, Read, Remember, RememberBoot
from edge_gateway.storage.writer import Dropped, Reactor, Writer

MAX_QUEUED_UNITS = 20_000
MAX_QUEUED_BYTES = 16 * 1024**2
QUEUE_RETRY_AFTER_S = 1.0
MACHINE_START = Path("/proc/sys/kernel/random/boot_id")


def seconds_since_start() -> float:
    """Since the start of the machine, with the time it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SqlSpool:
    """Records and sub-devices in one SQLite file.

    `monotonic` gives seconds since the start of the machine and is the clock of the records' `elapsed_ms`.
    `machine_start` is a file whose content changes with every start of the machine.
    """

    def __init__(
        self,
        *,
        path: Path,
        settings: Store,
        reactor: Reactor,
        monotonic: Callable[[], float] = seconds_since_start,
        machine_start: Path = MACHINE_START,
    ) -> None:
        self._path = path
        self._settings = settings
        self._reactor = reactor
        self._monotonic = monotonic
        self._machine_start = machine_start
        self._dropped_callbacks: list[Dropped] = []
        self._is_open = False
        self._lock: Lock
        self._writer: Writer
        self._next_number = 1
        self._backlog: dict[str, int] = {}
        self._boots: dict[int, Boot] = {}
        self._present: Boot
        self._devices: list[SubDevice] = []

    def open(self) -> None:
        """Blocks: a file that was not closed in order is checked, a damaged one is replaced, and all is counted.

        Raises: SpoolUnavailable when the folder cannot be written, or another process has the spool.
        """
        self._lock = lock(self._path)
        try:
            file = open_file(self._path)
            self._present = file.begin_opening(self._read_machine_start())
        except BaseException:
            self._lock.release()
            raise
        self._next_number = file.first_number
        self._backlog = dict(file.backlog)
        self._boots = dict(file.boots)
        self._devices = file.devices()
        self._writer = Writer(
            file=file, reopen=reopen, repair=repaired, settings=self._settings, present=self._present,
            reactor=self._reactor, monotonic=self._monotonic, on_dropped=self._tell_dropped,
        )  # fmt: skip
        self._writer.start()
        self._is_open = True

    def _read_machine_start(self) -> str:
        try:
            return self._machine_start.read_text("ascii", errors="replace").strip()
        except OSError:
            return ""  # then every opening counts as a start of its own

    @property
    def next_number(self) -> int:
        return self._next_number

    @property
    def backlog(self) -> dict[str, int]:
        return self._backlog

    @property
    def boots(self) -> dict[int, Boot]:
        return self._boots

    @property
    def present_boot(self) -> Boot:
        """The start of the machine that we are in."""
        return self._present

    def append(self, records: Sequence[Record], done: Callable[[Refusal | None], None]) -> None:
        """As in `Spool`. The refusal for a full queue does not wait for those before it."""
        writer = self._writer
        if not self._is_open:
            self._refuse(done, "The gateway is stopping; try again later.")
        elif writer.queued_units >= MAX_QUEUED_UNITS or writer.queued_bytes >= MAX_QUEUED_BYTES:
            self._refuse(done, "The disk does not keep up with the readings: send fewer, or use a faster disk.")
        elif not records:
            writer.put(Append((), 0, done))
        else:
            size_bytes = sum(map(size_of, records))
            self._next_number = max(self._next_number, records[-1].number + 1)
            writer.put(Append(records, size_bytes, done), size_bytes)

    def _refuse(self, done: Callable[[Refusal | None], None], reason: str) -> None:
        self._reactor.callFromThread(done, Refusal(reason=reason, retry_after_s=QUEUE_RETRY_AFTER_S))

    def forget(self, numbers: Sequence[int]) -> None:
        self._writer.put(Forget(numbers))

    def read_history(
        self, after: int, limit_records: int, limit_bytes: int, done: Callable[[list[Record]], None]
    ) -> None:
        """As in `Spool`; `limit_bytes` counts bodies, and one record comes whatever its size."""
        self._writer.put(Read(after, limit_records, limit_bytes, done))

    def remember_boot(self, boot: Boot) -> None:
        self._boots[boot.number] = boot
        if boot.number == self._present.number:
            self._present = boot
        self._writer.put(RememberBoot(boot))

    def levels(self) -> SpoolLevels:
        return self._writer.levels

    def on_dropped(self, callback: Dropped) -> None:
        self._dropped_callbacks.append(callback)

    def _tell_dropped(self, numbers: list[int], devices: dict[str, int]) -> None:
        for callback in self._dropped_callbacks:
            callback(numbers, devices)

    def sub_devices(self) -> list[SubDevice]:
        return self._devices

    def remember(self, devices: Sequence[SubDevice]) -> None:
        self._writer.put(Remember(devices))

    def close(self) -> None:
        """The answers that were still due are delivered by the reactor after this returns."""
        if not self._is_open:
            return
        self._is_open = False
        self._writer.stop()
        self._lock.release()
