"""Runs load clients against servers: one core for the server, the other for the load, rounds in turn.

Figures (figures.py) say what to measure; this file says how: fresh data for each figure, contestants
alternating within a round so that a slow minute of the machine hits all of them, medians over the rounds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import fleet, report
from .fleet import Fleet
from .report import Result, Row
from .servers import MOSQUITTO, ROOT, Core, Edge, Endpoint, Mosquitto, Server

GRACE_S = 60.0
"""How long a load client may take beyond its planned time (start, drain, report)."""
COUNTED_LOAD_S = 600.0
"""How long a load of a fixed number of messages may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run of the suite is carried out."""

    rounds: int
    seconds: float
    warmup: float
    work_dir: Path
    command: str | None = None
    base_command: str | None = None  # of another version, for figures that compare
    environment: Mapping[str, str] = field(default_factory=dict)
    pinned: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a figure should reach; None where it makes no demand."""

    rate: float | None = None
    p99_ms: float | None = None

    def text(self) -> str:
        """For the table."""
        parts = [f"≥ {self.rate:,.0f}/s"] if self.rate else []
        parts += [f"p99 ≤ {self.p99_ms:g} ms"] if self.p99_ms else []
        return ", ".join(parts) or "-"

    def reached(self, rate: float, p99_ms: float) -> bool | None:
        """None when nothing is demanded."""
        if self.rate is None and self.p99_ms is None:
            return None
        return (self.rate is None or rate >= self.rate) and (self.p99_ms is None or p99_ms <= self.p99_ms)


class Bench:
    """One run of the suite: its options, the cores it uses and its scratch directory."""

    def __init__(self, options: Options) -> None:
        self.options = options
        cores = sorted(os.sched_getaffinity(0))
        self.server_cpu = cores[0] if options.pinned and len(cores) > 1 else None
        self.load_cpu = cores[-1] if options.pinned and len(cores) > 1 else None

    @contextmanager
    def core(
        self,
        name: str,
        *,
        devices: int = 0,
        gateways: int = 0,
        keep: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[tuple[Core, Fleet]]:
        """A core with an empty database and `devices` devices or `gateways`; its data is removed unless `keep`."""
        data_dir = self.options.work_dir / name
        try:
            with self.start_core(data_dir, environment) as core:
                tokens_file = self.options.work_dir / f"{name}.tokens"
                yield core, fleet.prepare(core.http, devices=devices, gateways=gateways, tokens_file=tokens_file)
        finally:
            if not keep:
                shutil.rmtree(data_dir, ignore_errors=True)

    def start_core(self, data_dir: Path, environment: Mapping[str, str] | None = None) -> Core:
        """A core on what `data_dir` holds; `environment` is beside what the suite's options say."""
        return Core(
            data_dir,
            cpu=self.server_cpu,
            command=self.options.command,
            environment={**self.options.environment, **(environment or {})},
        )

    def start_edge(self, folder: Path, configuration: str) -> Edge:
        """A gateway with this configuration, and what `folder` holds."""
        return Edge(folder, configuration, cpu=self.server_cpu)

    @contextmanager
    def mosquitto(self, *, tls: tuple[Path, Path, Path] | None = None) -> Iterator[Mosquitto | None]:
        """The reference broker, or None where it is not installed; `tls` as of `Mosquitto`."""
        if MOSQUITTO is None:
            yield None
            return
        with Mosquitto(self.options.work_dir / "mosquitto", cpu=self.server_cpu, tls=tls) as broker:
            yield broker

    def load(self, client: str, *arguments: object, to: Endpoint, watch: Server | None = None) -> Result:
        """Run a load client to its end and return its result line."""
        client_process = self.start_load(client, *arguments, to=to, watch=watch)
        return finished(client_process, self.options, grace_s=COUNTED_LOAD_S if "--count" in arguments else GRACE_S)

    def start_load(
        self, client: str, *arguments: object, to: Endpoint, watch: Server | None = None
    ) -> subprocess.Popen[str]:
        """Start a load client: `client` is `MODULE WHAT`; later `arguments` win over the suite's own."""
        options = self.options
        words: list[object] = [*client.split(), "--host", to.host, "--port", to.port]
        words += ["--seconds", options.seconds, "--warmup", options.warmup]
        words += ["--cpu", self.load_cpu] if self.load_cpu is not None else []
        words += ["--watch-pid", watch.pid] if watch else []
        return started([*words, *arguments])

    def disk_limit(self, what: str) -> Result:
        """What the disk under the scratch directory allows: `rows` or `fsync`."""
        seconds = min(self.options.seconds / 2, 1.0)
        words: list[object] = ["disk_limit", what, "--directory", self.options.work_dir, "--seconds", seconds]
        words += ["--cpu", self.server_cpu] if self.server_cpu is not None else []
        return finished(started(words), self.options)

    def alternate(self, contestants: Mapping[str, Callable[[int], Result]]) -> dict[str, list[Result]]:
        """All contestants in turn, round after round; each is called with the number of the round."""
        results: dict[str, list[Result]] = {name: [] for name in contestants}
        for round_number in range(self.options.rounds):
            for name, run in contestants.items():
                results[name].append(run(round_number))
        return results


def started(words: list[object]) -> subprocess.Popen[str]:
    """A load client as a process: the first word names its module."""
    module = f"{__package__}.load.{words[0]}"
    command = [sys.executable, "-m", module, *(str(word) for word in words[1:])]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finished(client: subprocess.Popen[str], options: Options, *, grace_s: float = GRACE_S) -> Result:
    """The last line of a load client as a result; a client that dies counts as one error."""
    try:
        output, complaint = client.communicate(timeout=options.seconds + options.warmup + grace_s)
    except subprocess.TimeoutExpired:
        client.kill()
        output, complaint = client.communicate()
        complaint = f"the load client did not end\n{complaint}"
    lines = output.splitlines()
    try:
        result = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {
            "rate": 0.0,
            "errors": 1,
            "first_error": complaint.strip()[-500:] or "the load client printed nothing",
        }
    return dict(result)


def row(
    name: str,
    results: list[Result],
    target: Target,
    *,
    unit: str = "/s",
    memory_bytes: int | None = None,
    baselines: Mapping[str, list[Result]] | None = None,
) -> Row:
    """The medians of `results` beside those of the baselines; errors of our own rounds count."""
    rate, p99_ms = report.median(results, "rate"), report.median(results, "p99_ms")
    errors, first_error = report.errors_in(results)
    others = {other: rounds for other, rounds in (baselines or {}).items() if rounds}
    return Row(
        name=name,
        value=rate,
        unit=unit,
        target=target.text(),
        reached=target.reached(rate, p99_ms),
        p50_ms=report.median(results, "p50_ms"),
        p99_ms=p99_ms,
        server_cpu=report.median(results, "server_cpu"),
        client_cpu=report.median(results, "client_cpu"),
        other_cpu=report.median(results, "other_cpu"),
        memory_bytes=memory_bytes,
        baselines={other: report.median(rounds, "rate") for other, rounds in others.items()},
        errors=errors,
        first_error=first_error,
        rounds=results,
        baseline_rounds=others,
    )
