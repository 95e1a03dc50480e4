"""The same loads on PostgreSQL and on SQLite, two cores in turn: how much of the one the other reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.postgresql import PrivatePostgresql, postgresql_programs

from . import fleet
from .figures import ROUND_MS, Figure
from .fleet import Fleet
from .harness import Bench, Target, row
from .load.bodies import BASE_TS_MS
from .report import Result, Row
from .servers import Core, ServerFailed

URL = "CLOUD_CORE__DATABASE__URL"
# Four times the 368/s of a FastAPI application with SQLAlchemy on the same database, one commit a device.
HTTP_TARGET = Target(rate=1_472)


@contextmanager
def both(bench: Bench, name: str, *, devices: int = 0) -> Iterator[dict[str, tuple[Core, Fleet]]]:
    """A core on a new PostgreSQL cluster, which may use any CPU, and one on SQLite."""
    programs = postgresql_programs()
    if programs is None:
        raise ServerFailed("PostgreSQL's server programs are not installed")
    bench.options.work_dir.chmod(0o755)  # the server runs as a user of its own
    server = PrivatePostgresql(programs, parent=bench.options.work_dir)
    try:
        on_postgresql = {URL: server.new_database()}
        with (
            bench.core(f"{name}_pg", devices=devices, environment=on_postgresql) as first,
            bench.core(f"{name}_sqlite", devices=devices) as second,
        ):
            yield {"core": first, "on sqlite": second}
    finally:
        server.stop()


def _measured(
    bench: Bench, name: str, cores: dict[str, tuple[Core, Fleet]], target: Target, load: Callable[..., Result]
) -> Row:
    def run(which: str) -> Callable[[int], Result]:
        return lambda number: load(*cores[which], number)

    results = bench.alternate({which: run(which) for which in cores})
    memory = cores["core"][0].memory_bytes()
    return row(name, results.pop("core"), target, memory_bytes=memory, baselines=results)


def ingest(name: str, window: int, target: Target) -> Callable[[Bench], list[Row]]:
    """As `figures.ingest`."""

    def measure(bench: Bench) -> list[Row]:
        with both(bench, name, devices=100) as cores:

            def publish(core: Core, devices: Fleet, number: int) -> Result:
                load = ("--connections", 100, "--in-flight", window, "--ts-base", BASE_TS_MS + number * ROUND_MS)
                return bench.load("mqtt_load publish", *load, "--tokens", devices.tokens_file, to=core.mqtt, watch=core)

            return [_measured(bench, name, cores, target, publish)]

    return measure


def provision(name: str, client: str, target: Target) -> Callable[[Bench], list[Row]]:
    """As `figures.provision`, at full load."""

    def measure(bench: Bench) -> list[Row]:
        with both(bench, name) as cores:

            def requests(core: Core, _: Fleet, number: int) -> Result:
                who = ("--prefix", f"full{number}", "--key", fleet.KEY, "--secret", fleet.SECRET)
                to = core.mqtt if client == "mqtt_load" else core.http
                return bench.load(f"{client} provision", *who, "--connections", 100, to=to, watch=core)

            return [_measured(bench, name, cores, target, requests)]

    return measure


def connect(bench: Bench) -> list[Row]:
    """As `figures.connect`: with 10,000 tokens, so that most of them are looked up."""
    with both(bench, "pg_connect", devices=10_000) as cores:

        def connections(core: Core, devices: Fleet, number: int) -> Result:
            load = ("--connections", 100, "--tokens", devices.tokens_file)
            return bench.load("mqtt_load connect", *load, to=core.mqtt, watch=core)

        return [_measured(bench, "pg_connect", cores, Target(), connections)]


POSTGRESQL_FIGURES = (
    Figure("pg_ingest_10", ingest("pg_ingest_10", 10, Target(rate=45_000))),
    Figure("pg_ingest_1", ingest("pg_ingest_1", 1, Target(rate=12_500))),
    Figure("pg_provision_mqtt", provision("pg_provision_mqtt", "mqtt_load", Target(rate=2_250))),
    Figure("pg_provision_http", provision("pg_provision_http", "http_load", HTTP_TARGET)),
    Figure("pg_connect", connect),
)
