"""The report of a run for people: Markdown (which is also what the terminal shows) or HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from cloud_core.simulator import tally as curves
from cloud_core.simulator.charts import curve_text, curves_svg, milliseconds, octaves_text
from cloud_core.simulator.histogram import Histogram
from cloud_core.simulator.plan import digest
from cloud_core.simulator.tally import LATENCIES
from cloud_core.simulator.verdict import LATENCY_TITLES, Run

Row = Sequence[object]
_SHOWN = (curves.POWERED, curves.PROVISIONED, curves.HOME, curves.BACK)


class Section:
    """A heading with a table, or lines of text as they are."""

    def __init__(self, title: str, head: Row = (), rows: Iterable[Row] = (), text: Sequence[str] = ()) -> None:
        self.title = title
        self.head = [str(cell) for cell in head]
        self.rows = [[_cell(cell) for cell in row] for row in rows]
        self.text = list(text)

    @property
    def is_empty(self) -> bool:
        return not self.rows and not self.text


def sections(run: Run) -> list[Section]:
    """All there is to tell, those without content left out."""
    tally = run.tally
    found = [
        Section("Plan", ("what", "value"), _plan_rows(run)),
        Section("Devices", ("state", "devices"), tally.states.items()),
        Section("Provisioned over time", text=curve_text(tally.curves.get(curves.PROVISIONED, ()))),
        *_storm_section(run),
        *(_latencies(LATENCY_TITLES[name], getattr(tally, name)) for name in LATENCIES),
        Section("Latency of provisioning, request to answer", text=_all_requests(run)),
        Section("Provision requests sent", ("transport", "requests"), sorted(tally.attempts.items())),
        Section("Counted", ("what", "times"), sorted(tally.counts.items())),
        Section("Refusals", ("reason", "times"), tally.refusals.items()),
        Section("Refusals of devices with a wrong secret", ("reason", "times"), tally.expected_refusals.items()),
        Section("Faults that took place", ("fault", "times"), tally.faults.items()),
        Section("Errors that devices got over, or not", ("error", "times"), tally.errors.items()),
        Section("Limits of this machine that were met", ("limit", "times"), tally.limits.items()),
        Section("Permanent failures", ("device", "reason"), [(one.name, one.reason) for one in run.failures]),
    ]
    return [one for one in found if not one.is_empty]


def markdown(run: Run) -> str:
    parts = [f"# Simulated fleet: {run.plan.profile}", "", run.sentence(), ""]
    for section in sections(run):
        parts += [f"## {section.title}", ""]
        if section.text:
            parts += ["```", *section.text, "```", ""]
        if section.rows:
            parts += [_line(section.head), _line(["---"] * len(section.head)), *map(_line, section.rows), ""]
    return "\n".join(parts)


def page(run: Run) -> str:
    """One HTML file without anything from elsewhere."""
    svg = curves_svg({name: run.tally.curves[name] for name in _SHOWN if name in run.tally.curves})
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Simulated fleet: {run.plan.profile}</title>',
        f"{_STYLE}<h1>Simulated fleet: {run.plan.profile}</h1><p>{html.escape(run.sentence())}</p>{svg}",
    ]
    for section in sections(run):
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<pre>{html.escape(chr(10).join(section.text))}</pre>")
        if section.rows:
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in section.head)
            rows = "".join(
                "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in section.rows
            )
            parts.append(f"<table><tr>{head}</tr>{rows}</table>")
    return "\n".join(parts) + "\n</html>\n"


def terminal(run: Run) -> str:
    """Plain text for the end of a run."""
    lines = [run.sentence(), ""]
    for section in sections(run):
        lines.append(section.title)
        lines += [f"  {line}" for line in section.text]
        lines += [f"  {line}" for line in _table(section)]
        lines.append("")
    return "\n".join(lines).rstrip()


def _table(section: Section) -> list[str]:
    """Columns in line, numbers to the right; two columns explain themselves."""
    rows = section.rows if len(section.head) == 2 else [section.head, *section.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in filter(None, rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines


def _plan_rows(run: Run) -> list[Row]:
    plan = run.plan
    mix = ", ".join(f"{name} {weight:g}" for name, weight in plan.mix.items())
    faults = ", ".join(f"{name} {share:.2%}" for name, share in plan.faults.items())
    rows: list[Row] = [
        ("digest", digest(plan)), ("seed", plan.seed), ("devices", plan.devices), ("profile", plan.profile.value),
        ("target", run.target), ("ramp", f"{plan.ramp_s:g} s"), ("mix", mix), ("faults", faults or "none"),
        ("processes", run.processes), ("started", run.started_at), ("took", f"{run.tally.elapsed_s:.1f} s"),
        ("memory of the simulator", f"{run.tally.peak_bytes / 2**20:,.0f} MiB"),
    ]  # fmt: skip
    return rows


def _storm_section(run: Run) -> list[Section]:
    back_s = run.back_s()
    if back_s is None:
        return []
    points = run.tally.curves[curves.BACK][int(run.tally.at_s["storm"]) :]
    return [Section(f"Back after the storm: everybody within {back_s:.1f} s", text=curve_text(points))]


def _latencies(title: str, histograms: dict[str, Histogram]) -> Section:
    rows = []
    for transport, histogram in sorted(histograms.items()):
        found = histogram.summary()
        marks = [milliseconds(found[name]) for name in ("p50Ms", "p90Ms", "p99Ms", "maxMs")]
        rows.append((transport, int(found["count"]), *marks))
    return Section(f"Latency: {title}", ("transport", "count", "p50", "p90", "p99", "max"), rows)


def _all_requests(run: Run) -> list[str]:
    whole = Histogram()
    for histogram in run.tally.request_s.values():
        whole.merge(histogram)
    return octaves_text(whole.by_octave())


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


_STYLE = (
    "<style>body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1f2328}"
    "table{border-collapse:collapse}td,th{padding:.2em .9em;border-bottom:1px solid #d0d7de;text-align:left}"
    "td+td{text-align:right;font-variant-numeric:tabular-nums}pre{background:#f6f8fa;padding:1em;overflow:auto}"
    "svg{width:100%;height:auto}</style>"
)
