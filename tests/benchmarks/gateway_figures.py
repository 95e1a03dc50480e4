"""The figures of the edge gateway: `gw_…`. README.md says what they mean.

Most run between both sides of one load process, a stub core that acknowledges at once among them, so that one clock
sees each reading leave and arrive; figures that need a core's answers use a real one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import report, rival_gateway
from .figures import Figure
from .harness import COUNTED_LOAD_S, Bench, finished
from .load.edge_calls import Operator
from .report import Result, Row
from .rival_gateway import RivalGateway
from .servers import ADMIN, Core, Edge, Endpoint, Server, ServerFailed, free_port

COLD_START_TARGET_S = 1.0
LATENCY_TARGETS_MS = (20.0, 60.0)  # p50, p95
BURST = 20_000
BURST_TARGET = 10_000.0
CALL_TARGET_MS = 30.0
IDLE_MEMORY_TARGET = 50 * 2**20
IDLE_CPU_TARGET = 0.005
IDLE_SECONDS = 20.0
DEVICES = 10_000
BACKLOG_TARGET = 10_000.0
BACKLOG_LIVE_TARGET_MS = 200.0
STORED_WITHIN_S = 20.0

MAPPED = """
[[mqtt]]
name = "field"
listen = "127.0.0.1:{south}"
anonymous = true
[[mqtt.map]]
topic = "in/{{device}}"
device = "{{device}}"
ts = "$.ts"
telemetry = ["$.temperature -> temperature", "$.on -> on", "$.n -> n"]
"""
WITHOUT_TIME = MAPPED.replace('ts = "$.ts"\n', "")
PRESET = """
[[mqtt]]
name = "field"
listen = "127.0.0.1:{south}"
anonymous = true
preset = "thingsboard"
"""
NORTH = """
[core]
url = "mqtt://127.0.0.1:{north}"
token = "{token}"
[local]
port = 0
[statistics]
every = 0
[log]
level = "warn"
"""


class Between:
    """A gateway between the two sides of a load process; `result` ends the load.

    `make(folder, north, south)` starts it; `south` is the port to which the sources connect: its own, or a broker's.
    """

    def __init__(
        self,
        bench: Bench,
        name: str,
        what: str,
        *load: object,
        spool: Path | None = None,
        make: Callable[[Path, int, int], Server] | None = None,
        broker: int | None = None,
    ) -> None:
        self._bench = bench
        self._folder = bench.options.work_dir / name
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        if spool is not None:
            shutil.copytree(spool, self._folder / "data")
        south, north = broker or free_port(), free_port()
        to = Endpoint("127.0.0.1", south)
        self._load = bench.start_load(f"edge_load {what}", "--core-port", north, *load, to=to)
        _line(self._load)
        self.started_at = time.perf_counter()
        try:
            self.edge = (make or _listening(bench))(self._folder, north, south)
        except ServerFailed:
            self._load.kill()
            raise
        self.ready_s = time.perf_counter() - self.started_at
        self.idle_bytes = self.edge.resident_bytes()

    def __enter__(self) -> Between:
        return self

    def __exit__(self, *error: object) -> None:
        self._load.kill()
        self._load.wait()
        self.edge.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def result(self, *, grace_s: float = COUNTED_LOAD_S) -> Result:
        """Of the whole load, with what the gateway used for it."""
        cpu_s = self.edge.cpu_seconds()
        result = finished(self._load, self._bench.options, grace_s=grace_s)  # the end of its input tells it to begin
        return result | {
            "gateway_cpu_s": round(self.edge.cpu_seconds() - cpu_s, 3),
            "resident_bytes": self.edge.resident_bytes(),
        }

    def held(self) -> Result:
        """As `result`, with the connections still open and memory as it is then."""
        assert self._load.stdin is not None
        self._load.stdin.write("\n")
        self._load.stdin.flush()
        line = _line(self._load)
        resident_bytes = self.edge.resident_bytes()
        finished(self._load, self._bench.options)
        return dict(json.loads(line)) | {"resident_bytes": resident_bytes}


def _listening(bench: Bench) -> Callable[[Path, int, int], Server]:
    """Ours, to which devices connect."""

    def make(folder: Path, north: int, south: int) -> Server:
        return bench.start_edge(folder, NORTH.format(north=north, token="T") + MAPPED.format(south=south))

    return make


def _behind_broker(bench: Bench) -> dict[str, Callable[[Path, int, int], Server]]:
    """Ours as a client of a broker, and the rival where it is installed."""

    def ours(folder: Path, north: int, south: int) -> Server:
        table = MAPPED.format(south=south).replace('listen = "', 'connect = "mqtt://').replace("anonymous = true\n", "")
        return bench.start_edge(folder, NORTH.format(north=north, token="T") + table)

    def rival(folder: Path, north: int, south: int) -> Server:
        return RivalGateway(folder / "rival", north=north, broker=south, cpu=bench.server_cpu)

    return {"ours": ours, **({"thingsboard-gateway": rival} if rival_gateway.IS_INSTALLED else {})}


def _line(load: subprocess.Popen[str]) -> str:
    """The next line of a load client. Raises: ServerFailed."""
    if load.stdout is None:
        raise ServerFailed("the load client has no output")
    line = load.stdout.readline()
    if not line:
        raise ServerFailed(f"the load client ended: {load.stderr.read()[-500:] if load.stderr else ''}")
    return line


@contextmanager
def _before_core(bench: Bench, name: str, tables: str) -> Iterator[tuple[Core, Edge, Endpoint]]:
    """A gateway at a real core; also where its field port is."""
    with bench.core(name, gateways=1) as (core, gateways):
        token = gateways.tokens_file.read_text().split()[0]
        folder, south = bench.options.work_dir / f"{name}-edge", free_port()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        text = NORTH.format(north=core.mqtt.port, token=token) + tables.format(south=south)
        with bench.start_edge(folder, text) as edge:
            yield core, edge, Endpoint("127.0.0.1", south)
        shutil.rmtree(folder, ignore_errors=True)


def _row(
    name: str, rounds: list[Result], value: float, unit: str, target: str, is_reached: bool, **more: object
) -> Row:
    errors, first_error = report.errors_in(rounds)
    return Row(
        name=name, value=value, unit=unit, target=target, reached=is_reached and not errors, errors=errors,
        first_error=first_error, rounds=rounds, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def cold_start(bench: Bench) -> list[Row]:
    """From `exec` to the first reading of a sub-device at the core."""
    rounds: list[Result] = []
    for _ in range(max(bench.options.rounds, 3)):
        with Between(bench, "gw_cold_start", "cold_start") as between:
            result = between.result()
            seconds = report.number(result, "arrived_at") - between.started_at
            rounds.append(result | {"seconds": round(seconds, 3), "ready_s": round(between.ready_s, 3)})
    seconds = report.median(rounds, "seconds")
    target = f"≤ {COLD_START_TARGET_S:g} s"
    return [_row("gw_cold_start", rounds, seconds, "s", target, seconds <= COLD_START_TARGET_S)]


def latency(bench: Bench) -> list[Row]:
    """1,000 readings a second of 100 devices, QoS 1 on both sides."""
    with Between(bench, "gw_latency", "latency", "--rate", 1_000, *_longer(bench)) as between:
        rounds = [between.result()]
    for _ in range(bench.options.rounds - 1):
        with Between(bench, "gw_latency", "latency", "--rate", 1_000, *_longer(bench)) as between:
            rounds.append(between.result())
    p50, p95 = report.median(rounds, "p50_ms"), report.median(rounds, "p95_ms")
    most50, most95 = LATENCY_TARGETS_MS
    return [
        _row(
            "gw_latency", rounds, p95, "ms p95", f"p50 ≤ {most50:g} ms, p95 ≤ {most95:g} ms",
            p50 <= most50 and p95 <= most95, p50_ms=p50, p99_ms=report.median(rounds, "p99_ms"),
            server_cpu=_cpu(rounds), client_cpu=report.median(rounds, "client_cpu"),
        )
    ]  # fmt: skip


def beside_rival(bench: Bench) -> list[Row]:
    """Latency and burst through mosquitto, ours and ThingsBoard's own gateway in turn."""
    with bench.mosquitto() as broker:
        if broker is None:
            print("gw_rival: mosquitto is not installed, so there is nothing to compare", flush=True)
            return []
        contestants = _behind_broker(bench)
        if len(contestants) == 1:
            print("gw_rival: thingsboard-gateway is not installed, so ours is alone", flush=True)
        slow: dict[str, list[Result]] = {name: [] for name in contestants}
        fast: dict[str, list[Result]] = {name: [] for name in contestants}
        for _ in range(bench.options.rounds):
            for name, make in contestants.items():
                load = ("--probe", "--rate", 1_000, *_longer(bench))
                with Between(bench, "gw_rival", "latency", *load, make=make, broker=broker.mqtt.port) as between:
                    slow[name].append(between.result())
                load = ("--probe", "--count", BURST, "--answer-timeout", 60)
                with Between(bench, "gw_rival", "burst", *load, make=make, broker=broker.mqtt.port) as between:
                    fast[name].append(between.result())
    rows = []
    for what, results, member, unit in (
        ("latency", slow, "p95_ms", "ms p95"),
        ("burst end to end", fast, "end_to_end_rate", "/s"),
    ):
        ours = results.pop("ours")
        rows.append(
            _row(
                f"gw_rival {what}", ours, report.median(ours, member), unit, "-", True, server_cpu=_cpu(ours),
                p50_ms=report.median(ours, "p50_ms"), p99_ms=report.median(ours, "p99_ms"),
                memory_bytes=int(report.median(ours, "resident_bytes")),
                baselines={name: report.median(rounds, member) for name, rounds in results.items()},
                baseline_rounds=results,
            )
        )  # fmt: skip
    return rows


def _longer(bench: Bench) -> tuple[object, ...]:
    return ("--seconds", max(bench.options.seconds, 3.0))


def _cpu(rounds: list[Result]) -> float:
    return report.median([one | {"cpu": _share(one)} for one in rounds], "cpu")


def _share(result: Result) -> float:
    return report.number(result, "gateway_cpu_s") / max(report.number(result, "seconds"), 1e-9)


def burst(bench: Bench) -> list[Row]:
    """20,000 readings of 100 devices at once: acknowledged southwards, and arrived at the core."""
    rounds: list[Result] = []
    limits: list[Result] = []
    for _ in range(bench.options.rounds):
        with Between(bench, "gw_burst", "burst", "--count", BURST) as between:
            rounds.append(between.result())
        limits.append(bench.disk_limit("rows"))
    south, whole = report.median(rounds, "rate"), report.median(rounds, "end_to_end_rate")
    memory = int(report.median(rounds, "resident_bytes"))
    return [
        _row(
            "gw_burst", rounds, south, "/s", f"≥ {BURST_TARGET:,.0f}/s", south >= BURST_TARGET, memory_bytes=memory,
            baselines={"sqlite": report.median(limits, "rate")}, server_cpu=_cpu(rounds),
            client_cpu=report.median(rounds, "client_cpu"),
        ),
        _row("gw_burst end to end", rounds, whole, "/s", "-", True, memory_bytes=memory),
    ]  # fmt: skip


def calls(bench: Bench) -> list[Row]:
    """Two-way commands from REST to a sub-device that answers at once."""
    with _before_core(bench, "gw_rpc", PRESET) as (core, edge, south):
        who = ("--http-port", core.http.port, "--username", ADMIN[0], "--password", ADMIN[1])
        rounds = [bench.load("edge_calls twoway", *who, to=south, watch=edge) for _ in range(bench.options.rounds)]
    p50 = report.median(rounds, "p50_ms")
    return [
        _row(
            "gw_rpc", rounds, p50, "ms p50", f"p50 ≤ {CALL_TARGET_MS:g} ms", p50 <= CALL_TARGET_MS, p50_ms=p50,
            p99_ms=report.median(rounds, "p99_ms"), server_cpu=report.median(rounds, "server_cpu"),
        )
    ]  # fmt: skip


def no_ts(bench: Bench) -> list[Row]:
    """One device, 100 readings a second for 5 s, none with a time of its own: how many the core does not have."""
    rounds: list[Result] = []
    with _before_core(bench, "gw_no_ts", WITHOUT_TIME) as (core, _, south):
        result = bench.load("edge_load no_ts", "--rate", 100, "--seconds", 5, "--warmup", 0, to=south)
        operator = Operator(core.http.host, core.http.port, *ADMIN)
        sent = int(report.number(result, "sent"))
        stored = _stored(operator, "meter-0000", sent)
        rounds.append(result | {"stored": stored})
    lost = sent - stored
    return [_row("gw_no_ts", rounds, float(lost), "lost of 500", "0", lost == 0 and sent == 500)]


def _stored(operator: Operator, device: str, expected: int) -> int:
    """How many values the core has, as soon as it has all of them or after a while."""
    identifier = operator.device(device)
    path = f"/api/plugins/telemetry/DEVICE/{identifier}/values/timeseries"
    deadline = time.monotonic() + STORED_WITHIN_S
    while True:
        answer = operator.ask("GET", f"{path}?keys=n&startTs=0&endTs=4102444800000&limit=100000")
        count = len(answer.get("n", []))
        if count >= expected or time.monotonic() > deadline:
            return count
        time.sleep(0.05)


def idle(bench: Bench) -> list[Row]:
    """Memory and CPU with one MQTT connector, a connected core and nothing to do."""
    with _before_core(bench, "gw_idle", MAPPED) as (_, edge, _south):
        time.sleep(3.0)
        began, cpu_s = time.perf_counter(), edge.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        share = (edge.cpu_seconds() - cpu_s) / (time.perf_counter() - began)
        resident = edge.resident_bytes()
        proportional = edge.memory_bytes()
    rounds: list[Result] = [{"resident_bytes": resident, "pss_bytes": proportional, "cpu": round(share, 5)}]
    return [
        _row(
            "gw_idle memory", rounds, resident / 2**20, "MiB RSS", f"≤ {IDLE_MEMORY_TARGET // 2**20} MiB",
            resident <= IDLE_MEMORY_TARGET, memory_bytes=proportional,
        ),
        _row("gw_idle cpu", rounds, share * 100, "% of a core", f"≤ {IDLE_CPU_TARGET:.1%}", share <= IDLE_CPU_TARGET),
    ]  # fmt: skip


def devices(bench: Bench) -> list[Row]:
    """10,000 sub-devices in one agent: how soon all are announced after a reconnect, and memory."""
    load = ("--connections", DEVICES, "--hold", "--answer-timeout", 60)
    with Between(bench, "gw_devices", "devices", *load) as between:
        before = between.idle_bytes
        rounds = [between.held()]
    resident = report.number(rounds[0], "resident_bytes")
    return [
        _row(
            "gw_devices announced", rounds, report.number(rounds[0], "announce_s"), "s", "-", True,
            memory_bytes=int(resident),
        ),
        _row("gw_devices memory", rounds, (resident - before) / DEVICES, "B each", "-", True),
    ]  # fmt: skip


def backlog(count: int) -> Callable[[Bench], list[Row]]:
    """A backlog drains while other devices stay live."""

    def measure(bench: Bench) -> list[Row]:
        folder = bench.options.work_dir / "gw_backlog-spool"
        folder.mkdir(parents=True)
        fill = [sys.executable, "-m", f"{__package__}.load.edge_backlog", "--path", str(folder / "spool.db")]
        subprocess.run([*fill, "--count", str(count)], check=True, stdout=subprocess.DEVNULL, timeout=COUNTED_LOAD_S)
        rounds: list[Result] = []
        for _ in range(1 if count > 200_000 else bench.options.rounds):
            load = ("--count", count, "--rate", 100, "--connections", 10)
            with Between(bench, "gw_backlog", "backlog", *load, spool=folder) as between:
                rounds.append(between.result())
        shutil.rmtree(folder)
        rate, p95 = report.median(rounds, "rate"), report.median(rounds, "p95_ms")
        name, memory = f"gw_backlog {count:,}", int(report.median(rounds, "resident_bytes"))
        live = f"p95 ≤ {BACKLOG_LIVE_TARGET_MS:g} ms"
        return [
            _row(
                name, rounds, rate, "/s", f"≥ {BACKLOG_TARGET:,.0f}/s", rate >= BACKLOG_TARGET,
                memory_bytes=memory, server_cpu=_cpu(rounds), client_cpu=report.median(rounds, "client_cpu"),
            ),
            _row(
                f"{name} live", rounds, p95, "ms p95", live, p95 <= BACKLOG_LIVE_TARGET_MS,
                p50_ms=report.median(rounds, "p50_ms"), p99_ms=report.median(rounds, "p99_ms"),
            ),
        ]  # fmt: skip

    return measure


GATEWAY_FIGURES = (
    Figure("gw_cold_start", cold_start),
    Figure("gw_latency", latency),
    Figure("gw_burst", burst),
    Figure("gw_rival", beside_rival, is_long=True),
    Figure("gw_rpc", calls),
    Figure("gw_no_ts", no_ts),
    Figure("gw_idle", idle),
    Figure("gw_devices", devices),
    Figure("gw_backlog", backlog(100_000)),
    Figure("gw_backlog_long", backlog(1_000_000), is_long=True),
)
