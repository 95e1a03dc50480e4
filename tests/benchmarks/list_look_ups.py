"""What pages and searches of a large fleet cost the look-up thread: `python -m tests.benchmarks.list_look_ups`.

CPU time, without HTTP and without totals that were counted a moment ago: the best of some rounds for each page, and of
these the median, the 95th percentile and the dearest. On a database that `lists` has filled, or a new one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from cloud_core.model import DeviceFilter, Page
from cloud_core.storage import migrations, schema
from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.storage.reading import SqlReadTx
from cloud_core.storage.statements import Statements
from cloud_core.storage.store import make_engine
from cloud_core.storage.vault import Vault
from tests.benchmarks.lists import NOW_MS, OUTCOMES, PROFILES, SEARCHES, SORTED_BY, Known, fill, known_of
from tests.support.stores import KEY, TENANT

SIZE = 20


class LookUp(NamedTuple):
    what: str
    page: Page
    ask: Callable[[SqlReadTx, Page], Any]


def _pages(
    what: str, count: int, columns: tuple[str, ...], searches: tuple[str, ...], ask: Callable[[SqlReadTx, Page], Any]
) -> Iterator[LookUp]:
    """Each order both ways, each search; the first page, one half way, the last."""
    for column in columns:
        for is_descending in (False, True):
            for text in searches:
                for number in (0, count // SIZE // 2, count // SIZE - 1):
                    page = Page(SIZE, number, text_search=text, sort_property=column, descending=is_descending)
                    yield LookUp(what, page, ask)


def look_ups(count: int, known: Known) -> Iterator[LookUp]:
    yield from _pages("devices", count, SORTED_BY, SEARCHES, lambda tx, page: tx.devices(TENANT, page))
    for active, share in ((True, 3), (False, 1)):
        for what, texts in (("devices by active", ("",)), ("devices by active, search", SEARCHES[1:])):
            yield from _pages(what, count * share // 4, SORTED_BY, texts, _by_active(active))
    columns = ("notAfter", "subject")
    yield from _pages(
        "certificates", count, columns, ("", "12", "sn-77"), lambda tx, page: tx.certificates(TENANT, page)
    )
    ends_ms = NOW_MS + 30 * 86_400_000
    yield from _pages(
        "certificates that end", count // 2, columns, ("",),
        lambda tx, page: tx.certificates(TENANT, page, ends_before_ms=ends_ms),
    )  # fmt: skip
    texts = ("", "sn-", "12", "10.2.77", "profile type 7", "zzzz")
    yield from _attempts("attempts", count, texts, AttemptFilter())
    for outcome in OUTCOMES:
        yield from _attempts("attempts, narrowed", count // 10, ("", "12"), AttemptFilter(outcomes=(outcome,)))
    of_profile = AttemptFilter(profile=UUID(known.profiles[0]))
    yield from _attempts("attempts, narrowed", count // PROFILES, ("", "12"), of_profile)
    began_ms = known.attempts_began_ms
    of_time = AttemptFilter(start_ms=began_ms + count * 500, end_ms=began_ms + count * 600)
    yield from _attempts("attempts, narrowed", count // 10, ("", "12"), of_time)


def _by_active(is_active: bool) -> Callable[[SqlReadTx, Page], Any]:
    return lambda tx, page: tx.devices(TENANT, page, DeviceFilter(is_active=is_active))


def _attempts(what: str, count: int, searches: tuple[str, ...], wanted: AttemptFilter) -> Iterator[LookUp]:
    columns = ("createdTime", "outcome", "deviceName", "source")
    yield from _pages(
        what, count, columns, searches, lambda tx, page: tx.attempt_page(TENANT, page, wanted, with_unassigned=True)
    )


def measured(tx: SqlReadTx, asked: LookUp, rounds: int) -> float:
    """ms of CPU, the best of the rounds."""
    best_s = float("inf")
    for _ in range(rounds):
        tx._totals.clear()
        began_s = time.thread_time()
        tx.reading(asked.ask, (asked.page,))
        best_s = min(best_s, time.thread_time() - began_s)
    return best_s * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="groups whose names begin so")
    parser.add_argument("--keep", type=Path, help="folder to fill once and use again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = (arguments.keep or Path(folder)) / "data"
        url = f"sqlite:///{data / 'fleet.db'}"
        if not data.exists():
            data.mkdir(parents=True)
            fill(url, arguments.devices)
        report(url, arguments.devices, arguments.rounds, arguments.only)


def report(url: str, count: int, rounds: int, only: str) -> None:
    engine = make_engine(url)
    migrations.upgrade(engine)
    presence = schema.presence
    with engine.begin() as connection:  # a server that ran on it has found them all silent
        connection.execute(presence.update().values(is_active=presence.c.device_id % 4 != 0))
    raw = engine.raw_connection()
    connection = raw.driver_connection
    raw.detach()
    tx = SqlReadTx(connection, engine.dialect, Statements(engine.dialect), Vault(KEY))
    found: dict[str, list[tuple[float, Page]]] = {}
    for asked in look_ups(count, known_of(url)):
        if asked.what.startswith(only):
            found.setdefault(asked.what, []).append((measured(tx, asked, rounds), asked.page))
    print(f"{'CPU, ms':28}      p50      p95    worst     n")
    for what, pages in found.items():
        times = sorted(ms for ms, _ in pages)
        p95 = times[int(len(times) * 0.95)]
        print(f"{what:28} {statistics.median(times):8.1f} {p95:8.1f} {times[-1]:8.1f} {len(times):5}")
    dearest = sorted(((ms, what, page) for what, pages in found.items() for ms, page in pages), key=lambda one: -one[0])
    for ms, what, page in dearest[:12]:
        print(f"{ms:7.1f} ms {what}: {page}")
    tx.close()
    engine.dispose()


if __name__ == "__main__":
    main()
