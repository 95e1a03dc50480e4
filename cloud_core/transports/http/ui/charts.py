"""Charts as SVG markup: values in, text out; the style sheet has the colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from markupsafe import Markup

Point = tuple[int, float]
"""Time in ms since the epoch, value."""

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 26
STEPS = 4  # on either axis
GAP_STEPS = 3.0  # so many usual distances without a value are a gap
_LEAST_SHARE, _LEAST_SPAN = 1e-12, 1e-290  # what differs by less is drawn as the same
_SPANS_MS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def line_chart(points: Sequence[Point], start_ms: int, end_ms: int, label: str, *, step_ms: int = 0) -> Markup:
    """A line over time, broken where values are missing; `step_ms`: of the intervals that the points stand for.

    The times below are distances from `end_ms`, so that nobody's time zone matters.
    """
    known = [(ts, value) for ts, value in points if start_ms <= ts <= end_ms and math.isfinite(value)]
    low, high = scale([value for _, value in known])
    drawn = _Frame(start_ms, max(end_ms, start_ms + 1), low, high)
    body = Markup("").join([*_value_axis(drawn), *_time_axis(drawn)])
    lines = Markup("").join(_stroke(drawn, part) for part in parts_of(known, step_ms))
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        WIDTH, HEIGHT, label, body, lines
    )


def scale(values: Sequence[float]) -> tuple[float, float]:
    """The ends of the axis: round numbers that hold all values, and never the same."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    size = max(abs(low), abs(high))
    if not high - low > max(size * _LEAST_SHARE, _LEAST_SPAN):
        margin = size / 10 if size > _LEAST_SPAN else 1.0
        low, high = low - margin, high + margin
    step = _round_step((high / STEPS) - (low / STEPS))
    if not (math.isfinite(step) and step > 0):
        return low, high
    first, last = math.floor(low / step) * step, math.ceil(high / step) * step
    return (first, last) if math.isfinite(first) and math.isfinite(last) and first < last else (low, high)


def parts_of(points: Sequence[Point], step_ms: int = 0) -> list[list[Point]]:
    """Runs of values without a gap: no more than some usual distances between one and the next."""
    if not points:
        return []
    distances = [after - before for (before, _), (after, _) in pairwise(points)]
    allowed_ms = GAP_STEPS * max(step_ms, median(distances) if distances else 0)
    parts = [[points[0]]]
    for distance, point in zip(distances, points[1:], strict=True):
        if distance > allowed_ms:
            parts.append([])
        parts[-1].append(point)
    return parts


def short(value: float) -> str:
    """A number as an axis has room for it."""
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-3:
        return f"{value:.2g}"
    for unit, sign in _UNITS:
        if size >= unit:
            return f"{value / unit:.4g}{sign}"
    return f"{value:.4g}"


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, not below `step`."""
    if not math.isfinite(step) or step <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(step))
    return next((times * power for times in (1, 2, 5) if times * power >= step * 0.999), 10 * power)


class _Frame:
    """Where a value stands in the picture."""

    def __init__(self, start_ms: int, end_ms: int, low: float, high: float) -> None:
        self.start_ms, self.end_ms, self.low, self.high = start_ms, end_ms, low, high

    def x(self, ts: float) -> float:
        return LEFT + (ts - self.start_ms) / (self.end_ms - self.start_ms) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)  # halves: the span may be beyond floats
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _value_axis(frame: _Frame) -> list[Markup]:
    marks = []
    for number in range(STEPS + 1):
        value = frame.low * (1 - number / STEPS) + frame.high * (number / STEPS)
        y = round(frame.y(value), 1)
        marks.append(
            Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y)
            + Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT - 6, y + 4, short(value))
        )
    return marks


def _time_axis(frame: _Frame) -> list[Markup]:
    span_ms = frame.end_ms - frame.start_ms
    marks = []
    for number in range(STEPS + 1):
        ts = frame.start_ms + span_ms * number / STEPS
        anchor = "start" if number == 0 else "end" if number == STEPS else "middle"
        text = "now" if number == STEPS else f"−{_span(span_ms * (STEPS - number) / STEPS)}"
        marks.append(
            Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
                round(frame.x(ts), 1), HEIGHT - 8, anchor, text
            )
        )
    return marks


def _span(ms: float) -> str:
    for unit, sign in _SPANS_MS:
        if ms >= unit:
            return f"{ms / unit:.3g} {sign}"
    return f"{ms:.0f} ms"


def _stroke(frame: _Frame, part: list[Point]) -> Markup:
    places = [f"{frame.x(ts):.1f},{frame.y(value):.1f}" for ts, value in part]
    if len(places) == 1:
        x, _, y = places[0].partition(",")
        return Markup('<circle class="dot" cx="{}" cy="{}" r="2.5"/>').format(x, y)
    return Markup('<polyline class="line" points="{}"/>').format(" ".join(places))
