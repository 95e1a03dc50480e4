"""What a device, a message and a connection cost, and how that grows with the fleet.

`python -m tests.benchmarks.capacity [--devices 1000,10000,100000,1000000] [--url URL]`: one database that is filled
further from size to size. Devices are written into the tables by the store's own statements (names, credentials,
presence and two latest values each), not by a million dialogues; what is measured then is a real server over real
sockets. The first size is the baseline of the others: a ratio of 1 says that the cost does not grow.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests
from sqlalchemy import create_engine, text

from cloud_core.model import DevicePresence
from cloud_core.storage.interface import NewDevice
from shared.credentials import AccessToken
from tests.support.stores import KEY, TENANT, StoreUnderTest, open_store

from . import fleet, report
from .fleet import Fleet
from .harness import Bench, Options
from .load.measure import BASE_TS_MS
from .servers import ADMIN, Core, Endpoint

FILL_AT_ONCE = 2_000
SAMPLE = 2_000  # devices that connect and speak, spread over the whole fleet
CONNECTIONS = 2_000  # held idle
PAGE_CALLS = 40
SIZES = "1000,10000,100000,1000000"


def fill(url: str, first: int, last: int) -> None:
    """Devices number `first` to `last`, as they are after they have provisioned themselves and spoken once."""
    opened = open_store(url)
    profile = _profile_of(opened)
    now_ms = int(time.time() * 1000)

    def make(tx: Any, numbers: range) -> list[int]:
        made = []
        for number in numbers:
            device = NewDevice(
                uuid=uuid4(), tenant_id=TENANT, profile_id=profile, name=f"capacity-{number:08d}",
                label=f"hall {number % 500}", created_ms=now_ms,
            )  # fmt: skip
            made.append(tx.insert_device(device))
            tx.put_credentials(
                made[-1], AccessToken(token_of(number)), now_ms=now_ms, issued_ms=now_ms, is_new_device=True
            )
            tx.mark_confirmed(made[-1], now_ms=now_ms)
            tx.append_samples(made[-1], [(now_ms, {"temperature": number % 40, "firmware": "1.0.3"})])
        tx.put_presence([DevicePresence(device_id=one, is_active=True, last_activity_ms=now_ms) for one in made])
        return made

    for start in range(first, last, FILL_AT_ONCE):
        opened.run(make, range(start, min(start + FILL_AT_ONCE, last)))
    opened.close()


def token_of(number: int) -> str:
    return f"captoken{number:012d}"


def _profile_of(opened: StoreUnderTest) -> int:
    return int(opened.read(lambda tx: tx.profile_by_name(TENANT, fleet.PROFILE)).id)


class Measured:
    """One size of one database."""

    def __init__(self, bench: Bench, core: Core, size: int, tokens_file: Path) -> None:
        self._bench = bench
        self._core = core
        self._size = size
        numbers = random.Random(size).sample(range(size), min(SAMPLE, size))
        tokens_file.write_text("\n".join(map(token_of, numbers)) + "\n")
        self._devices = Fleet(tokens_file, len(numbers))

    def all(self) -> dict[str, float]:
        """Figures by name; a client that reports an error fails the run."""
        return {
            "start_s": self._core.ready_after_s,
            "memory_at_start_mib": self._core.memory_bytes() / 2**20,
            "connect": self._load("mqtt_load connect", self._core.mqtt, "--connections", 100),
            "connection_kib": self._connection_kib(),
            "messages": self._load(
                "mqtt_load publish", self._core.mqtt, "--connections", 100, "--in-flight", 10, "--ts-base", self._ts()
            ),
            "provision_http": self._load(
                "http_load provision", self._core.http, "--connections", 100, "--prefix", f"new{self._size}",
                "--key", fleet.KEY, "--secret", fleet.SECRET,
            ),
            **self._pages(),
        }  # fmt: skip

    def _ts(self) -> int:
        return BASE_TS_MS + self._size * 1_000

    def _load(self, client: str, to: Endpoint, *arguments: object) -> float:
        tokens = ("--tokens", self._devices.tokens_file) if "provision" not in client else ()
        rounds = [
            self._bench.load(client, *arguments, *_own_prefix(arguments, number), *tokens, to=to, watch=self._core)
            for number in range(self._bench.options.rounds)
        ]
        errors, reason = report.errors_in(rounds)
        if errors:
            raise SystemExit(f"{client} with {self._size} devices: {errors} errors, the first: {reason}")
        return report.median(rounds, "rate")

    def _connection_kib(self) -> float:
        before = self._core.memory_bytes()
        count = min(CONNECTIONS, self._devices.device_count)
        load = ("--connections", count, "--tokens", self._devices.tokens_file)
        client = self._bench.start_load("idle", *load, to=self._core.mqtt, watch=self._core)
        assert client.stdout is not None
        client.stdout.readline()  # all open
        time.sleep(1.0)
        each = (self._core.memory_bytes() - before) / count / 1024
        client.communicate(timeout=60)
        return each

    def _pages(self) -> dict[str, float]:
        """The median of a page of devices and of a search, in ms."""
        session = requests.Session()
        url = f"http://{self._core.http.host}:{self._core.http.port}"
        login = session.post(f"{url}/api/auth/login", json=dict(zip(("username", "password"), ADMIN, strict=True)))
        session.headers["X-Authorization"] = f"Bearer {login.json()['token']}"
        said = {}
        for name, query in (("page_ms", ""), ("search_ms", "&textSearch=capacity-0000")):
            times = []
            for number in range(PAGE_CALLS):
                began_s = time.perf_counter()
                page = f"/api/tenant/devices?pageSize=20&page={number % 5}&sortProperty=name&sortOrder=ASC{query}"
                assert session.get(url + page).status_code == 200
                times.append((time.perf_counter() - began_s) * 1000)
            said[name] = statistics.median(times)
        return said


def _own_prefix(arguments: tuple[object, ...], number: int) -> tuple[object, ...]:
    """Each round makes devices of its own."""
    if "--prefix" not in arguments:
        return ()
    return "--prefix", f"{arguments[arguments.index('--prefix') + 1]}-{number}"


def bytes_of(url: str) -> int:
    """What the database takes on disk."""
    engine = create_engine(url)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            size = connection.execute(text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"))
        else:
            size = connection.execute(text("SELECT pg_database_size(current_database())"))
        found: int = size.scalar_one()
    engine.dispose()
    return found


@contextmanager
def scratch(work_dir: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="muster-capacity-", dir=work_dir) as folder:
        yield Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default=SIZES, help=f"sizes, ascending (default {SIZES})")
    parser.add_argument("--url", help="of an empty database; a file of SQLite without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--work-dir", type=Path)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the server")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    sizes = [int(one) for one in arguments.devices.split(",")]
    with scratch(arguments.work_dir) as folder:
        options = Options(rounds=arguments.rounds, seconds=arguments.seconds, warmup=0.5, work_dir=folder)
        found = measure(Bench(options), folder, sizes, arguments.url, dict(one.split("=", 1) for one in arguments.env))
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def measure(
    bench: Bench, folder: Path, sizes: list[int], url: str | None, environment: dict[str, str]
) -> dict[int, dict[str, float]]:
    """Figures by size."""
    data_dir = folder / "data"
    data_dir.mkdir()
    url = url or f"sqlite:///{data_dir / 'muster.db'}"
    environment |= {"CLOUD_CORE__DATABASE__URL": url, "CLOUD_CORE__DATABASE__KEY": KEY.hex()}
    with bench.start_core(data_dir, environment) as core:
        fleet.prepare(core.http, devices=0, tokens_file=folder / "none")
    filled = 0
    found: dict[int, dict[str, float]] = {}
    for size in sizes:
        before_bytes, began_s = bytes_of(url), time.monotonic()
        fill(url, filled, size)
        fill_s, added = time.monotonic() - began_s, size - filled
        filled = size
        device_bytes = (bytes_of(url) - before_bytes) / added
        with bench.start_core(data_dir, environment) as core:
            found[size] = Measured(bench, core, size, folder / "tokens").all()
        found[size] |= {"device_bytes": device_bytes, "filled_per_s": added / fill_s}
        print(size, {name: round(value, 2) for name, value in found[size].items()}, flush=True)
    return found


def show(found: dict[int, dict[str, float]]) -> None:
    """One column a size, and the last as a ratio to the first."""
    sizes = list(found)
    print(f"{'':22}" + "".join(f"{size:>14,}" for size in sizes) + f"{'last / first':>14}")
    for name in found[sizes[0]]:
        values = [found[size][name] for size in sizes]
        ratio = values[-1] / values[0] if values[0] else float("nan")
        print(f"{name:22}" + "".join(f"{value:>14,.2f}" for value in values) + f"{ratio:>14.2f}")


if __name__ == "__main__":
    main()
