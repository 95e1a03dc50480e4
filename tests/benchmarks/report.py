"""Results of figures, as a table for people and as JSON for everything else."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

Result = dict[str, object]
"""One line of a load client."""
NOISY_CPU = 0.15
"""Share of a core that other programs may take before a figure is marked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `value` is what `target` speaks of, in `unit`."""

    name: str
    value: float
    unit: str
    target: str
    reached: bool | None  # None: no target
    p50_ms: float | None = None
    p99_ms: float | None = None
    server_cpu: float | None = None
    client_cpu: float | None = None
    other_cpu: float | None = None
    memory_bytes: int | None = None
    baselines: dict[str, float] = field(default_factory=dict)  # name -> value in the same unit
    errors: int = 0
    first_error: str | None = None
    rounds: list[Result] = field(default_factory=list)
    baseline_rounds: dict[str, list[Result]] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Everything, with the ratios to the baselines."""
        return {
            **asdict(self),
            "ratios": {name: round(self.value / base, 3) for name, base in self.baselines.items()},
        }


def median(results: Iterable[Result], member: str) -> float:
    """Median of one number over the rounds."""
    return statistics.median(number(result, member) for result in results)


def number(result: Result, member: str) -> float:
    """A numeric member of a result line; 0.0 when it is absent."""
    value = result.get(member, 0.0)
    return float(value) if isinstance(value, (int, float)) else 0.0


def errors_in(results: Iterable[Result]) -> tuple[int, str | None]:
    """All errors of the rounds and the first reason given."""
    count, reason = 0, None
    for result in results:
        count += int(number(result, "errors"))
        reason = reason or (str(result["first_error"]) if result.get("first_error") else None)
    return count, reason


def machine(work_dir: Path, fsync: Result) -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": _file_system(work_dir),
        "fsync_p50_ms": fsync.get("p50_ms"),
        "fsync_p99_ms": fsync.get("p99_ms"),
        "load_average_before": os.getloadavg()[0],
    }


HEADER = (
    "figure",
    "value",
    "p50 ms",
    "p99 ms",
    "server cpu",
    "client cpu",
    "PSS MiB",
    "baselines",
    "target",
    "reached",
)


def table(rows: Sequence[Row]) -> str:
    """The rows in columns, then the remarks."""
    lines = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*text, *_remarks(rows)])


def _cells(row: Row) -> tuple[str, ...]:
    ratios = [f"{name} {_amount(base)} ({row.value / base:.2f}x)" for name, base in row.baselines.items() if base]
    return (
        row.name,
        f"{_amount(row.value)} {row.unit}",
        _optional(row.p50_ms, "{:.2f}"),
        _optional(row.p99_ms, "{:.2f}"),
        _optional(row.server_cpu, "{:.0%}"),
        _optional(row.client_cpu, "{:.0%}"),
        _optional(row.memory_bytes and row.memory_bytes / 2**20, "{:.0f}"),
        ", ".join(ratios) or "-",
        row.target,
        "-" if row.reached is None else ("yes" if row.reached else "NO"),
    )


def _remarks(rows: Sequence[Row]) -> list[str]:
    remarks = []
    for row in rows:
        if row.errors:
            remarks.append(f"BROKEN {row.name}: {row.errors} errors; first: {row.first_error}")
        if row.other_cpu is not None and row.other_cpu > NOISY_CPU:
            remarks.append(f"noisy {row.name}: other programs used {row.other_cpu:.0%} of a core meanwhile")
        if row.client_cpu is not None and row.client_cpu > 0.95:
            remarks.append(f"bound {row.name}: the load client was busy all the time; the server may be faster")
    return ["", *remarks] if remarks else []


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """Type of the file system that holds `path`: the longest mount point above it."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, type_name, *_ = line.split()
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, type_name
    return kind
