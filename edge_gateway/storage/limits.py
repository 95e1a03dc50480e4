"""What may be stored, what has to go, and why: pure, the caller does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_gateway.model import Refusal
from edge_gateway.settings import Store
from edge_gateway.storage.file import WAL_KEPT_BYTES, Oldest
from edge_gateway.storage.interface import Boot
from edge_gateway.storage.schema import PAGE_BYTES

RETRY_AFTER_S = 5.0
NO_GROWTH_S = 10.0  # after the disk took no more
MARGIN_PAGES = 4  # inner pages and those that are filled in part
MARGIN_SHARE = 1.15
MOST_DROPPED_PER_COMMIT = 5_000


def in_units(size_bytes: int) -> str:
    """ "1.5 GiB": as the settings have it."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Up to how many bytes of used pages records may be stored now, and what binds: "size" or "disk"."""

    bytes: int
    reason: str


class Limits:
    """`max_size`, `keep_free` and `max_age` of the settings.

    `max_size` bounds file and log together: the part that the log may take is taken off first. A file whose pages are
    free does not shrink at once, so a short disk means that it must not grow: new records take free pages or those of
    records that are dropped.
    """

    def __init__(self, settings: Store) -> None:
        self._settings = settings
        self._no_growth_until_s = float("-inf")

    @property
    def log_bytes(self) -> int:
        """For the write-ahead log."""
        return min(WAL_KEPT_BYTES, self._settings.max_size // 8)

    @property
    def max_bytes(self) -> int:
        """For records."""
        return self._settings.max_size - self.log_bytes

    @property
    def drops(self) -> bool:
        return self._settings.when_full == "drop-oldest"

    def stop_growth(self, now_s: float) -> None:
        """The disk refused to take more."""
        self._no_growth_until_s = now_s + NO_GROWTH_S

    def is_disk_short(self, free_disk_bytes: int, now_s: float) -> bool:
        return free_disk_bytes < self._settings.keep_free or now_s < self._no_growth_until_s

    def allowance(self, total_pages: int, free_disk_bytes: int, now_s: float) -> Allowance:
        """`total_pages` are those of the file, in use or free."""
        limit = Allowance(bytes=self.max_bytes, reason="size")
        if self.is_disk_short(free_disk_bytes, now_s) and total_pages * PAGE_BYTES < limit.bytes:
            return Allowance(bytes=total_pages * PAGE_BYTES, reason="disk")
        return limit

    def refusal(self, allowance: Allowance, free_disk_bytes: int) -> Refusal:
        settings = self._settings
        if allowance.reason == "disk":
            text = (
                f"The disk is full: {in_units(free_disk_bytes)} are free and {in_units(settings.keep_free)} are kept "
                f"free ([store] keep_free). Make room on the disk."
            )
        else:
            text = (
                f"The spool is full: {in_units(settings.max_size)} wait for the core ([store] max_size). "
                f"Bring the connection to the core back, or raise max_size."
            )
        return Refusal(reason=text, retry_after_s=RETRY_AFTER_S)

    def expired(self, oldest: Iterable[Oldest], boots: Mapping[int, Boot], now_ms: int | None) -> list[Oldest]:
        """Those that are surely older than `max_age`. Without a known time nobody is."""
        if now_ms is None or self._settings.max_age <= 0:
            return []
        before_ms = now_ms - int(self._settings.max_age * 1000)
        found: list[Oldest] = []
        for one in oldest:
            latest_ms = latest_acceptance_ms(boots, one[2], one[3])
            if latest_ms is None or latest_ms >= before_ms:
                break
            found.append(one)
        return found


def needed_bytes(size_bytes: int) -> int:
    """Pages that records of this size may take, in bytes."""
    return int(size_bytes * MARGIN_SHARE) + MARGIN_PAGES * PAGE_BYTES if size_bytes else 0


def acceptance_ms(boots: Mapping[int, Boot], boot: int, elapsed_ms: int) -> int:
    """Unix ms; 0 when the time was not known during that start of the machine."""
    known = boots.get(boot)
    return known.known_ms + elapsed_ms if known is not None and known.known_ms else 0


def latest_acceptance_ms(boots: Mapping[int, Boot], boot: int, elapsed_ms: int) -> int | None:
    """Not later than this was a record accepted: when its own start has no time, a later start's beginning says it."""
    exact = acceptance_ms(boots, boot, elapsed_ms)
    if exact:
        return exact
    return min((other.known_ms for other in boots.values() if other.number > boot and other.known_ms), default=None)
