"""What the core of the gateway may ask of the disk.

All callbacks come in the loop's thread, in the order of the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_gateway.model import Record, Refusal, SubDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What the spool knows about the clock of one start of the machine.

    `number` counts starts; `known_ms` is the wall time (Unix ms) at which its monotonic clock stood at 0, or 0 when
    the time was never known during that start. `last_ms` is the greatest `elapsed_ms` of its records, 0 when unknown:
    it lets a start that never knew the time be placed just before the next one."""

    number: int
    known_ms: int
    last_ms: int = 0


@dataclass(slots=True, kw_only=True)
class SpoolLevels:
    """How full the spool is. `dropped` counts readings given up, by reason ("size", "age", "disk", "damaged")."""

    records: int
    used_bytes: int
    max_bytes: int
    free_disk_bytes: int
    oldest_ms: int  # acceptance time of the oldest record; 0 when empty or unknown
    dropped: dict[str, int]


class Spool(Protocol):
    """Records between acceptance and the core's acknowledgement. Durable means: fsynced."""

    @property
    def next_number(self) -> int:
        """The first number that no record, past or present, has."""

    @property
    def backlog(self) -> dict[str, int]:
        """Records that were there when the spool was opened, by device."""

    @property
    def boots(self) -> dict[int, Boot]:
        """Those that records refer to, and the current one."""

    def append(self, records: Sequence[Record], done: Callable[[Refusal | None], None]) -> None:
        """Stores all or nothing; `done(None)` after the fsync. The numbers are the caller's and must grow.

        Refusal: the policy `refuse` applies, or the disk does not take it; `retry_after_s` is set.
        """

    def forget(self, numbers: Sequence[int]) -> None:
        """The core has them. Written with the next commit; a crash before it means that they are sent again."""

    def read_history(
        self, after: int, limit_records: int, limit_bytes: int, done: Callable[[list[Record]], None]
    ) -> None:
        """The next records with numbers above `after` that are not handed on in memory: those in lane HISTORY, and
        those of both lanes that were there when the spool was opened; in the order of their numbers. Empty at the
        end."""

    def remember_boot(self, boot: Boot) -> None:
        """The time has become known, or was corrected."""

    def levels(self) -> SpoolLevels:
        """Cheap; as of the last commit."""

    def on_dropped(self, callback: Callable[[list[int], dict[str, int]], None]) -> None:
        """Calls back with the numbers and the devices' counts whenever the policy gives records up, so that nobody
        sends or counts on them."""

    def close(self) -> None:
        """Commits what was appended and stops the thread. Blocks."""


class SubDeviceStore(Protocol):
    """The devices behind the gateway, remembered in the spool's database."""

    def sub_devices(self) -> list[SubDevice]:
        """All of them, as of the opening."""

    def remember(self, devices: Sequence[SubDevice]) -> None:
        """Inserts or replaces by name, with the next commit. In order with `append`: a record never becomes durable
        before the device that was remembered ahead of it."""
