"""How long pages of a large fleet take over REST: `python -m tests.benchmarks.lists [--devices 100000]`."""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests

from cloud_core.storage.interface import NewDevice
from tests.support.server import CoreProcess
from tests.support.stores import KEY, TENANT, open_store

PROFILES = 20
SORTED_BY = ("createdTime", "name", "label", "type", "deviceProfileName")
SEARCHES = ("", "sn-", "12", "sn-12", "sensor 77", "type 1", "zzzz")
ROUNDS = 1


def fill(url: str, count: int) -> None:
    """Names and labels as fleets have them, nothing in order."""
    store, chance = open_store(url), random.Random(1)
    profiles = [store.add_profile(f"type {number}") for number in range(PROFILES)]

    def insert(tx: Any, first: int, last: int) -> None:
        for number in range(first, last):
            tx.insert_device(
                NewDevice(
                    uuid=uuid4(), tenant_id=TENANT, profile_id=chance.choice(profiles),
                    name=f"SN-{chance.randrange(10**9):09d}-{number:06d}",
                    label=f"Sensor {chance.randrange(5000)} hall {number % 50}",
                    created_ms=1_700_000_000_000 + number // 10, document={"additionalInfo": {"gateway": False}},
                )
            )  # fmt: skip

    for first in range(0, count, 5_000):
        store.run(insert, first, min(first + 5_000, count))
    store.close()


def queries(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, parameters) of every combination, shallow, half way and at the end."""
    for path in ("/api/tenant/devices", "/api/tenant/deviceInfos"):
        for text in SEARCHES:
            for column in SORTED_BY:
                for order in ("ASC", "DESC"):
                    for size in (20, 100):
                        for page in (0, count // size // 2, count // size - 1):
                            yield path, {
                                "pageSize": size, "page": page, "sortProperty": column, "sortOrder": order,
                                "textSearch": text,
                            }  # fmt: skip


def measured(http: str, token: str, count: int) -> list[tuple[float, str, dict[str, Any]]]:
    """(ms, path, parameters) of each call."""
    session, found = requests.Session(), []
    session.headers["X-Authorization"] = f"Bearer {token}"
    for _ in range(ROUNDS):
        for path, parameters in queries(count):
            started = time.perf_counter()
            answer = session.get(http + path, params=parameters, timeout=60)
            found.append(((time.perf_counter() - started) * 1000, path, parameters))
            assert answer.status_code == 200, answer.text
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--url", help="of an empty database; a file of SQLite without it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        url = arguments.url or f"sqlite:///{data / 'fleet.db'}"
        fill(url, arguments.devices)
        core = CoreProcess(data, CLOUD_CORE__DATABASE__URL=url, CLOUD_CORE__DATABASE__KEY=KEY.hex())
        core.start()
        try:
            calls = measured(core.http, core.jwt, arguments.devices)
        finally:
            core.stop()
    for text in SEARCHES:
        times = sorted(ms for ms, _, parameters in calls if parameters["textSearch"] == text)
        print(f"{text or 'no search':12} {_line(times)}")
    print(f"{'all':12} {_line(sorted(ms for ms, _, _ in calls))}")
    for ms, path, parameters in sorted(calls, key=lambda one: -one[0])[:10]:
        print(f"{ms:7.1f} ms {path} {parameters}")


def _line(times: list[float]) -> str:
    p95 = times[int(len(times) * 0.95)]
    return f"median {statistics.median(times):6.1f} ms   p95 {p95:6.1f} ms   worst {times[-1]:6.1f} ms   n {len(times)}"


if __name__ == "__main__":
    main()
