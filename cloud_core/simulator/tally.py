"""What a run counts; parts of it from several processes add up. Everything is bounded."""

from __future__ import annotations

import msgspec

from cloud_core.simulator.histogram import Histogram
from cloud_core.simulator.plan import MAX_DURATION_S

MAX_NAMED = 100  # failed devices that are told by name
MAX_TEXTS = 50  # different errors that are told apart
OTHERS = "others"

POWERED, PROVISIONED, HOME, BACK, ACKNOWLEDGED = "powered", "provisioned", "reported", "back", "acknowledged"
"""Curves: switched on; got credentials; first report stored; the same after a storm; all reports stored."""


LATENCIES = ("request_s", "provisioned_s", "login_s", "report_s")
"""Request to answer; power-on to credentials, with all waits; login with its report; a report alone."""


class Failure(msgspec.Struct):
    """A device that will never get in, and why."""

    name: str
    reason: str


class Tally(msgspec.Struct):
    """Counters by name; curves are events per second since the start."""

    states: dict[str, int] = {}
    counts: dict[str, int] = {}
    attempts: dict[str, int] = {}
    refusals: dict[str, int] = {}
    expected_refusals: dict[str, int] = {}
    errors: dict[str, int] = {}
    faults: dict[str, int] = {}
    limits: dict[str, int] = {}
    failures: list[Failure] = []
    request_s: dict[str, Histogram] = {}
    provisioned_s: dict[str, Histogram] = {}
    login_s: dict[str, Histogram] = {}
    report_s: dict[str, Histogram] = {}
    curves: dict[str, list[int]] = {}
    at_s: dict[str, float] = {}
    elapsed_s: float = 0.0
    peak_bytes: int = 0
    open_lines: int = 0
    is_home: bool = False

    def count(self, name: str, by: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + by

    def error(self, text: str) -> None:
        """Counts an error by its text, as many different ones as are worth telling."""
        if text not in self.errors and len(self.errors) >= MAX_TEXTS:
            text = OTHERS
        self.errors[text] = self.errors.get(text, 0) + 1

    def fail(self, name: str, reason: str) -> None:
        self.count("failed")
        if len(self.failures) < MAX_NAMED:
            self.failures.append(Failure(name, reason))

    def mark(self, curve: str, now_s: float) -> None:
        """One more on a curve."""
        second = min(max(0, int(now_s)), int(MAX_DURATION_S))
        points = self.curves.setdefault(curve, [])
        if len(points) <= second:
            points.extend([0] * (second + 1 - len(points)))
        points[second] += 1
        self.at_s[curve] = max(now_s, self.at_s.get(curve, 0.0))

    def timed(self, histograms: dict[str, Histogram], transport: str, seconds: float) -> None:
        histogram = histograms.get(transport)
        if histogram is None:
            histogram = histograms[transport] = Histogram()
        histogram.add(seconds)

    def total(self, curve: str) -> int:
        return sum(self.curves.get(curve, ()))


def merged(parts: list[Tally]) -> Tally:
    """The tally of all processes together."""
    whole = Tally(is_home=bool(parts) and all(part.is_home for part in parts))
    for part in parts:
        for name in ("states", "counts", "attempts", "refusals", "expected_refusals", "faults", "limits", "errors"):
            _add(getattr(whole, name), getattr(part, name))
        for name in LATENCIES:
            for transport, histogram in getattr(part, name).items():
                getattr(whole, name).setdefault(transport, Histogram()).merge(histogram)
        for curve, points in part.curves.items():
            whole.curves[curve] = _sum(whole.curves.get(curve, []), points)
        for name, at_s in part.at_s.items():
            whole.at_s[name] = max(at_s, whole.at_s.get(name, 0.0))
        whole.failures.extend(part.failures[: MAX_NAMED - len(whole.failures)])
        whole.elapsed_s = max(whole.elapsed_s, part.elapsed_s)
        whole.peak_bytes += part.peak_bytes
        whole.open_lines += part.open_lines
    return whole


def _add(into: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        into[name] = into.get(name, 0) + count


def _sum(one: list[int], other: list[int]) -> list[int]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return [count + (shorter[i] if i < len(shorter) else 0) for i, count in enumerate(longer)]
