"""The live view: a few lines drawn over each other on a terminal, one plain line every few seconds elsewhere."""

from __future__ import annotations

import os
import time
from typing import TextIO

from cloud_core.simulator import tally as curves
from cloud_core.simulator.charts import bar, milliseconds
from cloud_core.simulator.histogram import Histogram
from cloud_core.simulator.plan import Plan
from cloud_core.simulator.tally import Tally

PLAIN_EVERY_S = 5.0
_BAR_COLUMNS = 40


class Screen:
    """`is_live`: the stream is a terminal. What cannot be written at once is left out, so that nobody waits for it."""

    def __init__(self, plan: Plan, stream: TextIO, *, is_live: bool, columns: int = 100) -> None:
        self._plan = plan
        self._stream = stream
        self._is_live = is_live
        self._columns = columns
        self._drawn = 0
        self._last_s = 0.0

    def show(self, tally: Tally) -> None:
        if self._is_live:
            lines = [line[: self._columns - 1] for line in live_lines(self._plan, tally)]
            up = f"\x1b[{self._drawn}F" if self._drawn else ""
            self._drawn = len(lines)
            self._write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        elif time.monotonic() - self._last_s >= PLAIN_EVERY_S:
            self._last_s = time.monotonic()
            self._write(plain_line(self._plan, tally) + "\n")

    def _write(self, text: str) -> None:
        """A terminal that has been stopped takes nothing; then this picture is lost and the next one is drawn."""
        try:
            descriptor = self._stream.fileno()
        except OSError:  # no file at all
            self._stream.write(text)
            return
        was_blocking = os.get_blocking(descriptor)
        os.set_blocking(descriptor, False)
        try:
            os.write(descriptor, text.encode())
        except OSError:  # stopped, or gone
            self._drawn = 0
        finally:
            os.set_blocking(descriptor, was_blocking)


def live_lines(plan: Plan, tally: Tally) -> list[str]:
    provisioned = tally.total(curves.PROVISIONED)
    home = tally.total(curves.HOME)
    states = "  ".join(f"{state} {count:,}" for state, count in tally.states.items())
    requests = Histogram()
    for histogram in tally.request_s.values():
        requests.merge(histogram)
    found = requests.summary()
    troubles = sum(tally.errors.values())
    return [
        f"{plan.profile}  seed {plan.seed}  {tally.elapsed_s:6.1f} s   {tally.open_lines:,} sockets open",
        f"provisioned {provisioned:>9,} / {plan.devices:,}  {bar(provisioned / plan.devices, _BAR_COLUMNS)}",
        f"reported    {home:>9,} / {plan.devices:,}  {bar(home / plan.devices, _BAR_COLUMNS)}",
        f"per second  {_rate(tally, curves.PROVISIONED):>9,} provisioned, {_rate(tally, curves.ACKNOWLEDGED):,} reports"
        f"   request p50 {milliseconds(found['p50Ms'])}, p99 {milliseconds(found['p99Ms'])}",
        f"retries {tally.counts.get('retries', 0):,}   refusals {sum(tally.refusals.values()):,}"
        f"   as planned {sum(tally.expected_refusals.values()):,}   errors {troubles:,}"
        f"   commands {tally.counts.get('commands answered', 0):,}   failed {tally.counts.get('failed', 0):,}",
        f"states: {states}",
    ]


def plain_line(plan: Plan, tally: Tally) -> str:
    return (
        f"{tally.elapsed_s:.0f} s: {tally.total(curves.PROVISIONED):,} of {plan.devices:,} provisioned,"
        f" {tally.counts.get('reports acknowledged', 0):,} reports, {tally.counts.get('retries', 0):,} retries,"
        f" {sum(tally.refusals.values()):,} refusals, {tally.counts.get('failed', 0):,} failed"
    )


def _rate(tally: Tally, curve: str) -> int:
    """Of the last whole second."""
    points, second = tally.curves.get(curve, []), int(tally.elapsed_s) - 1
    return points[second] if 0 <= second < len(points) else 0
