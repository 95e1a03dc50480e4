"""Several processes of one core: commands between nodes, workers beside one process, a node that dies.

All of them share the machine with PostgreSQL, the fabric and the load, so nothing is pinned, and each process's share
of a core is printed beside the figure: a second worker can only use what the others leave.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import requests

from tests.support.nats_servers import NatsServer
from tests.support.postgresql import PrivatePostgresql, postgresql_programs
from tests.support.senders import Sender

from . import fleet, report
from .figures import ROUND_MS, Figure
from .fleet import Fleet
from .harness import Bench, Target, row
from .load.bodies import BASE_TS_MS
from .load.edge_calls import Operator
from .load.measure import cpu_seconds, process_tree
from .postgresql_figures import URL
from .report import Result, Row
from .servers import ADMIN, Core, ServerFailed

KEY = "6b" * 32
NODES = 3
WORKERS = 2
COMMAND_TARGET_MS = 10.0
WORKERS_TARGET = 1.4
FREE_CORE = 0.8  # of a core that nobody used beside one worker: less, and a second one has nowhere to run
BACK_TARGET_S = 10.0
CONFIRMED_S = 30.0
FAILING_DEVICES = 20
MOST_KILLED = 3  # rounds: each starts a cluster
NATS = ("/usr/sbin/nats-server", "/usr/local/bin/nats-server", "/usr/bin/nats-server")

Load = Callable[[Core, Fleet, int], Result]


# -- servers --------------------------------------------------------------------------------------


@contextmanager
def database(bench: Bench) -> Iterator[PrivatePostgresql]:
    """A server of its own. Raises: ServerFailed."""
    programs = postgresql_programs()
    if programs is None:
        raise ServerFailed("PostgreSQL's server programs are not installed")
    bench.options.work_dir.chmod(0o755)  # the server runs as a user of its own
    server = PrivatePostgresql(programs, parent=bench.options.work_dir)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def nats(bench: Bench) -> Iterator[NatsServer]:
    """Raises: ServerFailed."""
    program = next((one for one in NATS if Path(one).exists()), None)
    if program is None:
        raise ServerFailed("nats-server is not installed (Debian package nats-server)")
    server = NatsServer(program, bench.options.work_dir).start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def cluster(bench: Bench, name: str, *, devices: int) -> Iterator[tuple[list[Core], Fleet, dict[str, int]]]:
    """NODES nodes on one database and one fabric, that know each other; also the numbers of all processes, by name."""
    with ExitStack() as stack:
        server, fabric = stack.enter_context(database(bench)), stack.enter_context(nats(bench))
        environment = {
            URL: server.new_database(), "CLOUD_CORE__DATABASE__KEY": KEY, "CLOUD_CORE__CLUSTER__FABRIC": fabric.url,
        }  # fmt: skip
        nodes = []
        for number in range(NODES):
            nodes.append(bench.start_core(bench.options.work_dir / f"{name}{number}", environment))
            stack.callback(nodes[-1].stop)
        _wait(lambda: all(_number(one, "muster_fabric_nodes") == NODES for one in nodes), "the nodes know each other")
        made = fleet.prepare(nodes[0].http, devices=devices, tokens_file=bench.options.work_dir / f"{name}.tokens")
        processes = {f"node {number}": one.pid for number, one in enumerate(nodes, 1)}
        yield nodes, made, {**processes, "postgresql": server.pid, "nats": fabric.pid}


def _number(core: Core, metric: str) -> float:
    """Of `/metrics`; 0.0 where it is not shown."""
    text = requests.get(f"http://{core.http.host}:{core.http.port}/metrics", timeout=10).text
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{metric} ")), 0.0)


def _wait(is_so: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + CONFIRMED_S
    while not is_so():
        if time.monotonic() > deadline_s:
            raise ServerFailed(f"did not happen: {what}")
        time.sleep(0.02)


# -- processor ------------------------------------------------------------------------------------


def observed(processes: Mapping[str, int], run: Callable[[], Result]) -> Result:
    """With `cpu_each`: the share of a core of each process with its children, warm-up and end included."""
    before, machine_before_s, began_s = _cpu(processes), cpu_seconds(None)[2], time.perf_counter()
    result = run()
    took_s = time.perf_counter() - began_s
    after = _cpu(processes)
    each = {name: round((after[name] - before[name]) / took_s, 2) for name in processes}
    return {**result, "cpu_each": each, "machine_cpu": round((cpu_seconds(None)[2] - machine_before_s) / took_s, 2)}


def _cpu(processes: Mapping[str, int]) -> dict[str, float]:
    return {name: cpu_seconds(pid)[0] for name, pid in processes.items()}


def processes_of(core: Core) -> dict[str, int]:
    """The workers one by one, and what else its supervisor runs; the core itself where it is one process."""
    children = process_tree(core.pid)[1:]
    if not children:
        return {"core": core.pid}
    named = {}
    for pid in children:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        named["nats" if b"worker" not in words else f"worker {len(named)}"] = pid
    return named


def _told(name: str, results: Mapping[str, list[Result]]) -> None:
    """Prints who used how much of a core."""
    for contestant, rounds in results.items():
        each: dict[str, list[float]] = {}
        for one in rounds:
            for process, share in dict(one["cpu_each"]).items():  # type: ignore[call-overload]
                each.setdefault(process, []).append(share)
        shares = ", ".join(f"{process} {statistics.median(values):.2f}" for process, values in each.items())
        machine = report.median(rounds, "machine_cpu")
        print(
            f"  {name}, {contestant}: {report.median(rounds, 'rate'):,.0f}/s; of a core: {shares},"
            f" client {report.median(rounds, 'client_cpu'):.2f}, all together {machine:.2f} of {os.cpu_count()}",
            flush=True,
        )


def in_turn(bench: Bench, contestants: Mapping[str, Callable[[int], Result]]) -> dict[str, list[Result]]:
    """As `Bench.alternate`, every other round backwards: a machine that grows busier or calmer favours nobody."""
    results: dict[str, list[Result]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(bench.options.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            results[name].append(contestants[name](number))
    return results


def unpinned(bench: Bench) -> Bench:
    return Bench(replace(bench.options, pinned=False))


# -- commands between nodes -----------------------------------------------------------------------


def commands(name: str, operators: int) -> Callable[[Bench], list[Row]]:
    """Two-way commands from REST of the first node to 100 devices at the second, and at the first, in turn."""

    def measure(pinned: Bench) -> list[Row]:
        bench = unpinned(pinned)
        with cluster(bench, name, devices=100) as (nodes, devices, processes):
            asked = nodes[0]
            who = ("--http-port", asked.http.port, "--username", ADMIN[0], "--password", ADMIN[1])

            def call(at: Core) -> Callable[[int], Result]:
                load = (*who, "--tokens", devices.tokens_file, "--operators", operators)
                return lambda _: observed(
                    processes, lambda: bench.load("mqtt_devices commands", *load, to=at.mqtt, watch=asked)
                )

            results = bench.alternate({"at another node": call(nodes[1]), "at the asked node": call(asked)})
            memory = asked.memory_bytes()
        _told(name, results)
        elsewhere, here = results["at another node"], results["at the asked node"]
        p50 = report.median(elsewhere, "p50_ms")
        is_alone = operators == 1
        errors, first_error = report.errors_in([*elsewhere, *here])
        return [
            Row(
                name=name, value=p50, unit="ms p50", target=f"p50 ≤ {COMMAND_TARGET_MS:g} ms" if is_alone else "-",
                reached=p50 <= COMMAND_TARGET_MS and not errors if is_alone else None, p50_ms=p50,
                p99_ms=report.median(elsewhere, "p99_ms"), server_cpu=report.median(elsewhere, "server_cpu"),
                client_cpu=report.median(elsewhere, "client_cpu"), memory_bytes=memory,
                baselines={"at the asked node": report.median(here, "p50_ms")}, errors=errors, first_error=first_error,
                rounds=elsewhere, baseline_rounds={"at the asked node": here},
            )
        ]  # fmt: skip

    return measure


# -- two workers beside one -----------------------------------------------------------------------


def publish(bench: Bench) -> Load:
    """As `figures.ingest` with 10 in flight."""

    def load(core: Core, devices: Fleet, number: int) -> Result:
        pace = ("--connections", 100, "--in-flight", 10, "--ts-base", BASE_TS_MS + number * ROUND_MS)
        return bench.load("mqtt_load publish", *pace, "--tokens", devices.tokens_file, to=core.mqtt, watch=core)

    return load


def provision(bench: Bench) -> Load:
    """As `figures.provision` over HTTP, at full load."""

    def load(core: Core, _: Fleet, number: int) -> Result:
        who = ("--prefix", f"full{number}", "--key", fleet.KEY, "--secret", fleet.SECRET, "--connections", 100)
        return bench.load("http_load provision", *who, to=core.http, watch=core)

    return load


def connect(bench: Bench) -> Load:
    """As `figures.connect`: tokens that are known, so that the database is not asked."""

    def load(core: Core, devices: Fleet, _: int) -> Result:
        return bench.load(
            "mqtt_load connect", "--connections", 100, "--tokens", devices.tokens_file, to=core.mqtt, watch=core
        )

    return load


def workers(name: str, make: Callable[[Bench], Load], devices: int) -> Callable[[Bench], list[Row]]:
    """Two workers and one process, each on a database of its own of the same server, in turn."""

    def measure(pinned: Bench) -> list[Row]:
        bench = unpinned(pinned)
        load = make(bench)
        with database(bench) as server, ExitStack() as stack:
            cores = {}
            for title, count in (("two workers", WORKERS), ("one worker", 1)):
                environment = {URL: server.new_database(), "CLOUD_CORE__CLUSTER__WORKERS": str(count)}
                made = bench.core(f"{name}{count}", devices=devices, environment=environment)
                cores[title] = stack.enter_context(made)

            def run(title: str) -> Callable[[int], Result]:
                core, made = cores[title]
                processes = {**processes_of(core), "postgresql": server.pid}
                return lambda number: observed(processes, lambda: load(core, made, number))

            contestants = {title: run(title) for title in cores}
            for contestant in contestants.values():
                contestant(-1)  # caches and connections to the database are warm afterwards
            results = in_turn(bench, contestants)
            memory = cores["two workers"][0].memory_bytes()
        _told(name, results)
        return [_compared(name, results.pop("two workers"), results["one worker"], memory)]

    return measure


def _compared(name: str, two: list[Result], one: list[Result], memory: int) -> Row:
    """The aim counts where a core was free beside one worker; else the ratio says how little sharing costs."""
    free = (os.cpu_count() or 1) - report.median(one, "machine_cpu")
    aim = Target(rate=WORKERS_TARGET * report.median(one, "rate"))
    made = row(name, two, aim, memory_bytes=memory, baselines={"one worker": one})
    text = f"≥ {WORKERS_TARGET:g}x where a core is free ({free:.2f} was)"
    return replace(made, target=text, reached=made.reached if free >= FREE_CORE else None)


# -- a node that dies -----------------------------------------------------------------------------


def killed(pinned: Bench) -> list[Row]:
    """SIGKILL of the node that all devices are at: until each has answered a command that another node is asked for."""
    bench, name = unpinned(pinned), "cluster_killed"
    rounds: list[Result] = []
    for number in range(min(bench.options.rounds, MOST_KILLED)):
        with cluster(bench, f"{name}{number}_", devices=FAILING_DEVICES) as (nodes, devices, _):
            rounds.append(_survived(nodes, devices.tokens_file.read_text().split()))
    slowest = max(report.number(one, "max_s") for one in rounds)
    errors, first_error = report.errors_in(rounds)
    return [
        Row(
            name=name, value=slowest, unit="s for the last", target=f"≤ {BACK_TARGET_S:g} s",
            reached=slowest <= BACK_TARGET_S and not errors, errors=errors, first_error=first_error,
            p50_ms=1_000 * report.median(rounds, "p50_s"), rounds=rounds,
        )
    ]  # fmt: skip


def _survived(nodes: list[Core], tokens: list[str]) -> Result:
    """Seconds from the kill to each device's answer; devices connect again at once, half of them at each other node."""
    asked, other, victim = nodes
    ports = [(victim.mqtt.port, *((one.mqtt.port, two.mqtt.port))) for one, two in ((asked, other), (other, asked))]
    senders = [Sender(ports[number % 2], token, every_s=1.0) for number, token in enumerate(tokens)]
    try:
        _wait(lambda: _number(victim, "muster_mqtt_connections") >= len(tokens), "all devices are connected")
        with ThreadPoolExecutor(len(tokens)) as pool:
            calling = list(pool.map(lambda number: _Calling(asked, f"bench-{number:06d}"), range(len(tokens))))
            for one in calling:
                _wait(one.is_answered, "each device answers before")
            killed_s = time.perf_counter()
            victim.process.kill()
            took = list(pool.map(lambda one: one.until_answered() - killed_s, calling))
    finally:
        for sender in senders:
            sender.end()
    late = sum(one > CONFIRMED_S for one in took)
    return {
        "max_s": round(max(took), 3), "p50_s": round(statistics.median(took), 3), "each_s": [round(t, 3) for t in took],
        "errors": late, "first_error": "a device is not reached" if late else None,
    }  # fmt: skip


class _Calling:
    """An operator with a device of its own."""

    def __init__(self, core: Core, device: str) -> None:
        self._operator = Operator(core.http.host, core.http.port, *ADMIN)
        self._path = f"/api/rpc/twoway/{self._operator.device(device)}"

    def is_answered(self) -> bool:
        try:
            return bool(self._operator.ask("POST", self._path, b'{"method":"m","params":{"n":1},"timeout":3000}'))
        except OSError:
            return False

    def until_answered(self) -> float:
        """When it was."""
        until_s = time.perf_counter() + CONFIRMED_S
        while not self.is_answered() and time.perf_counter() < until_s:
            time.sleep(0.02)
        return time.perf_counter()


# -- one process beside the one of another version ------------------------------------------------


def beside_base(name: str, make: Callable[[Bench], Load], devices: int) -> Callable[[Bench], list[Row]]:
    """The embedded default as it is and as `--base-command` runs it, both on SQLite, in turn; pinned as elsewhere."""

    def measure(bench: Bench) -> list[Row]:
        if bench.options.base_command is None:
            print(f"{name}: needs --base-command, the server of another version", flush=True)
            return []
        load = make(bench)
        base = Bench(replace(bench.options, command=bench.options.base_command))
        with (
            bench.core(f"{name}_now", devices=devices) as now,
            base.core(f"{name}_base", devices=devices) as before,
        ):

            def run(core: Core, made: Fleet) -> Callable[[int], Result]:
                return lambda number: load(core, made, number)

            contestants = {"now": run(*now), "base": run(*before)}
            for contestant in contestants.values():
                contestant(-1)
            results = in_turn(bench, contestants)
            memory = now[0].memory_bytes()
        for contestant, rounds in results.items():
            each_us = [1e6 * report.number(one, "server_cpu") / max(report.number(one, "rate"), 1e-9) for one in rounds]
            rates = ", ".join(f"{report.number(one, 'rate'):,.0f}" for one in rounds)
            print(f"  {name}, {contestant}: {statistics.median(each_us):.2f} µs of a core each; {rates} /s", flush=True)
        return [row(name, results.pop("now"), Target(), memory_bytes=memory, baselines=results)]

    return measure


CLUSTER_FIGURES = (
    Figure("cluster_rpc", commands("cluster_rpc", 1)),
    Figure("cluster_rpc_16", commands("cluster_rpc_16", 16)),
    Figure("cluster_workers_ingest", workers("cluster_workers_ingest", publish, 100)),
    Figure("cluster_workers_http", workers("cluster_workers_http", provision, 0)),
    Figure("cluster_workers_connect", workers("cluster_workers_connect", connect, 1_000)),
    Figure("cluster_killed", killed),
    Figure("cluster_base_ingest", beside_base("cluster_base_ingest", publish, 100), is_long=True),
    Figure("cluster_base_connect", beside_base("cluster_base_connect", connect, 1_000), is_long=True),
    Figure("cluster_base_http", beside_base("cluster_base_http", provision, 0), is_long=True),
)
