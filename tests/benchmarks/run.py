"""`python -m tests.benchmarks.run [--short] [--only NAME,…] [--json FILE]`: measure and print the table.

Exits 0 whatever the figures are; 1 when something broke: a server did not run, an answer was wrong or
missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from . import report
from .cluster_figures import CLUSTER_FIGURES
from .coaps_figures import COAPS_FIGURES
from .figures import FIGURES as CORE_FIGURES
from .figures import Figure
from .gateway_figures import GATEWAY_FIGURES
from .harness import Bench, Options
from .page_figures import PAGE_FIGURES
from .postgresql_figures import POSTGRESQL_FIGURES
from .report import Row
from .servers import ServerFailed
from .tls_figures import TLS_FIGURES

FIGURES = (
    *CORE_FIGURES, *TLS_FIGURES, *COAPS_FIGURES, *GATEWAY_FIGURES, *PAGE_FIGURES, *POSTGRESQL_FIGURES,
    *CLUSTER_FIGURES,
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the figures asked for; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    figures = _selected(parser, options)
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.work_dir) as directory:
        bench = Bench(_suite_options(options, Path(directory)))
        machine = report.machine(Path(directory), bench.disk_limit("fsync"))
        print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
        rows, broken = _measure(bench, figures)
    print(f"\n{report.table(rows)}")
    for complaint in broken:
        print(f"BROKEN {complaint}")
    if options.json:
        content = {"machine": machine, "figures": [row.as_json() for row in rows], "broken": broken}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 1 if broken or any(row.errors for row in rows) else 0


def _measure(bench: Bench, figures: list[Figure]) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    broken: list[str] = []
    for figure in figures:
        began = time.monotonic()
        try:
            measured = figure.measure(bench)
        except (ServerFailed, OSError) as error:
            broken.append(f"{figure.name}: {error}")
            measured = []
        rows += measured
        values = ", ".join(f"{row.value:,.2f} {row.unit}" for row in measured) or "broken"
        print(f"{figure.name}: {values} ({time.monotonic() - began:.0f} s)", flush=True)
    return rows, broken


def _selected(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Figure]:
    names = [name for name in (options.only or "").split(",") if name]
    unknown = set(names) - {figure.name for figure in FIGURES}
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}; there are {', '.join(f.name for f in FIGURES)}")
    if names:
        return [figure for figure in FIGURES if figure.name in names]
    return [figure for figure in FIGURES if not (options.short and figure.is_long)]


def _suite_options(options: argparse.Namespace, work_dir: Path) -> Options:
    rounds, seconds, warmup = (3, 1.3, 0.4) if options.short else (5, 5.0, 1.0)
    return Options(
        rounds=options.rounds or rounds,
        seconds=options.seconds or seconds,
        warmup=warmup,
        work_dir=work_dir,
        command=options.server_command,
        base_command=options.base_command,
        environment=dict(pair.split("=", 1) for pair in options.env),
        pinned=not options.no_pin,
    )


def _environment_pair(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run", description="Measure the cloud core.")
    parser.add_argument("--short", action="store_true", help="3 rounds of 1.3 s, without the long figures")
    parser.add_argument("--only", metavar="NAME,…", help="only these figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured, round by round")
    parser.add_argument("--rounds", type=int, help="rounds per figure (default 5)")
    parser.add_argument("--seconds", type=float, help="measured seconds per round (default 5)")
    parser.add_argument("--work-dir", type=Path, help="where databases are made; it decides which disk is measured")
    parser.add_argument("--server-command", help="instead of `python -m cloud_core serve`")
    parser.add_argument("--base-command", help="the server of another version, for cluster_base_…")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        type=_environment_pair,
        metavar="NAME=VALUE",
        help="for the server",
    )
    parser.add_argument("--no-pin", action="store_true", help="do not give server and load a core each")
    return parser


if __name__ == "__main__":
    sys.exit(main())
