"""What every load client shares: options, latency histogram, the measured window and its result line.

Time is `time.perf_counter()` in seconds everywhere; only results are in milliseconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .bodies import BASE_TS_MS

BUCKETS_PER_SECOND = 100_000
"""Latency resolution: 10 µs."""
BUCKET_COUNT = 10 * BUCKETS_PER_SECOND
"""Anything slower than 10 s falls into the last bucket; `max_ms` stays exact."""
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Histogram:
    """Latencies in buckets of 10 µs, allocated once."""

    __slots__ = ("_buckets", "count", "longest_s")

    def __init__(self) -> None:
        self._buckets = [0] * BUCKET_COUNT
        self.count = 0
        self.longest_s = 0.0

    def record(self, latency_s: float, count: int = 1) -> None:
        """Count `count` messages that all took `latency_s`."""
        bucket = int(latency_s * BUCKETS_PER_SECOND)
        self._buckets[bucket if bucket < BUCKET_COUNT else -1] += count
        self.count += count
        if latency_s > self.longest_s:
            self.longest_s = latency_s

    def percentile_ms(self, share: float) -> float:
        """Upper edge of the bucket below which `share` (0..1) of the messages lie; 0.0 when empty."""
        wanted, seen = share * self.count, 0
        for bucket, count in enumerate(self._buckets):
            seen += count
            if count and seen >= wanted:
                return min((bucket + 1) * 1000.0 / BUCKETS_PER_SECOND, self.longest_s * 1000.0)
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how hard one client loads the server.

    Either `seconds` (after `warmup` seconds that are not counted) or `count` exchanges.
    `rate` is exchanges per second; None means as fast as the answers come.
    """

    host: str
    port: int
    seconds: float
    warmup: float
    count: int | None
    rate: float | None
    watch_pid: int | None
    answer_timeout: float


class Meter:
    """The measured window: latencies, errors and the CPU time spent in it."""

    __slots__ = (
        "_began",
        "_count",
        "_cpu_began",
        "_cpu_ended",
        "_ended",
        "_window",
        "errors",
        "first_error",
        "histogram",
        "measuring",
        "plan",
    )

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.histogram = Histogram()  # of the warm-up, until `begin`
        self._window = Histogram()  # allocated now, so that opening the window costs nothing
        self.errors = 0
        self.first_error: str | None = None
        self.measuring = False
        self._began = self._ended = 0.0
        self._count = 0
        self._cpu_began = self._cpu_ended = (0.0, 0.0, 0.0)

    def begin(self, now: float) -> None:
        """The warm-up is over: what was recorded before does not count."""
        self.histogram = self._window
        self.measuring = True
        self._cpu_began = cpu_seconds(self.plan.watch_pid)
        self._began = now

    def end(self, now: float) -> None:
        """The window closes: later answers still show in the latencies, but not in the rate."""
        if self.measuring:
            self.measuring = False
            self._ended = now
            self._count = self.histogram.count
            self._cpu_ended = cpu_seconds(self.plan.watch_pid)

    def record(self, latency_s: float, count: int = 1) -> None:
        """Count answers; `begin` forgets those of the warm-up."""
        self.histogram.record(latency_s, count)

    def fail(self, reason: str, count: int = 1) -> None:
        """Count errors at any time, and keep the first reason for the report."""
        self.errors += count
        if self.first_error is None:
            self.first_error = reason[:300]

    def result(self, *, sent: int, acknowledged: int, extra: Mapping[str, object] | None = None) -> dict[str, object]:
        """The result as one flat JSON object; `sent` and `acknowledged` cover warm-up, window and drain."""
        seconds = max(self._ended - self._began, 1e-9)
        server, client, machine = (
            after - before for before, after in zip(self._cpu_began, self._cpu_ended, strict=True)
        )
        return {
            "rate": round(self._count / seconds, 1),
            "p50_ms": round(self.histogram.percentile_ms(0.50), 3),
            "p99_ms": round(self.histogram.percentile_ms(0.99), 3),
            "max_ms": round(self.histogram.longest_s * 1000.0, 3),
            "count": self._count,
            "errors": self.errors,
            "first_error": self.first_error,
            "sent": sent,
            "acknowledged": acknowledged,
            "missing": sent - acknowledged,
            "seconds": round(seconds, 3),
            "server_cpu": round(server / seconds, 3),
            "client_cpu": round(client / seconds, 3),
            "other_cpu": round(max(machine - server - client, 0.0) / seconds, 3),
            **(extra or {}),
        }


def cpu_seconds(pid: int | None) -> tuple[float, float, float]:
    """CPU seconds used so far by process `pid` with its descendants, by this process, and by the whole
    machine.
    """
    server = sum(_process_ticks(member) for member in process_tree(pid)) if pid else 0
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    busy = sum(int(fields[i]) for i in (0, 1, 2, 5, 6))  # user nice system irq softirq
    return server / TICKS_PER_SECOND, time.process_time(), busy / TICKS_PER_SECOND


def process_tree(pid: int) -> list[int]:
    """`pid` and all its living descendants."""
    members = [pid]
    for member in members:
        try:
            for task in Path(f"/proc/{member}/task").iterdir():
                members.extend(int(child) for child in (task / "children").read_text().split())
        except FileNotFoundError:
            continue
    return members


def _process_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    return int(fields[11]) + int(fields[12])  # utime, stime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options every load client understands."""
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the measured window")
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds before the window opens")
    parser.add_argument("--count", type=int, help="a fixed number of exchanges instead of seconds")
    parser.add_argument("--rate", type=float, help="exchanges per second; latency then counts from the due time")
    parser.add_argument("--watch-pid", type=int, help="process whose CPU time is reported")
    parser.add_argument("--cpu", type=int, help="pin this client to one core")
    parser.add_argument("--answer-timeout", type=float, default=10.0, help="an answer later than this is an error")
    parser.add_argument("--tokens", type=Path, help="file with one access token per line")


def plan_from(options: argparse.Namespace) -> Plan:
    """The plan in `options`; also prepares this process: core, file limit, no garbage collector pauses."""
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    raise_file_limit()
    gc.disable()
    return Plan(
        host=options.host,
        port=options.port,
        seconds=options.seconds,
        warmup=0.0 if options.count else options.warmup,
        count=options.count,
        rate=options.rate,
        watch_pid=options.watch_pid,
        answer_timeout=options.answer_timeout,
    )


def tokens_from(path: Path | None) -> list[str]:
    """The access tokens in `path`, or one placeholder for servers that ask for none."""
    return path.read_text().split() if path else ["benchmark"]


def raise_file_limit() -> int:
    """Raise the soft limit of open files as far as allowed; returns the new limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def print_result(result: Mapping[str, object]) -> None:
    """The one line of JSON a load client owes its caller."""
    print(json.dumps(result), flush=True)


def add_provision_arguments(parser: argparse.ArgumentParser) -> None:
    """What a provision request needs."""
    parser.add_argument("--prefix", default="load", help="provision: device names are PREFIX-0000000000, …")
    parser.add_argument("--key", default="benchmark-key", help="provision: provisionDeviceKey")
    parser.add_argument("--secret", default="benchmark-secret", help="provision: provisionDeviceSecret")


def add_telemetry_arguments(parser: argparse.ArgumentParser) -> None:
    """What a telemetry message needs."""
    parser.add_argument("--ts-base", type=int, default=BASE_TS_MS, help="telemetry: first time stamp, ms")
    parser.add_argument("--server-time", action="store_true", help="telemetry: bodies without a time stamp")
