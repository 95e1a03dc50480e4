"""Requests by minute as bars: values in, SVG out; the style sheet has the colours."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log10

from markupsafe import Markup

from cloud_core.core.traffic import Tally

WIDTH, HEIGHT = 640, 150
LEFT, RIGHT, TOP, BOTTOM = 68, 4, 10, 22  # LEFT has room for 50000 in the letters of a phone
_KINDS = (("good", "granted"), ("wait", "waiting"), ("bad", "refusals"))


def rate_chart(minutes: Sequence[Tally], label: str) -> Markup:
    """One bar for each minute: granted at the bottom, then those that wait, refused on top."""
    most = ceiling(max((one.requests for one in minutes), default=0))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(minutes))
    height = HEIGHT - TOP - BOTTOM
    parts = [_axis(most, height)]
    for number, tally in enumerate(minutes):
        base = TOP + height
        for kind, member in _KINDS:
            size = round(getattr(tally, member) / most * height, 1)
            if size > 0:
                base = round(base - size, 1)
                parts.append(
                    Markup('<rect class="bar-{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                        kind, round(LEFT + number * step, 1), base, round(step - 1.5, 1), size
                    )
                )
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )


def _axis(most: int, height: int) -> Markup:
    line = Markup('<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>')
    text = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
    low = TOP + height
    return Markup("").join(
        [
            line.format(LEFT, WIDTH - RIGHT, low),
            line.format(LEFT, WIDTH - RIGHT, TOP),
            text.format(LEFT - 6, low, "end", "0"),
            text.format(LEFT - 6, TOP + 5, "end", most),
            text.format(LEFT, HEIGHT - 5, "start", "60 min ago"),
            text.format((LEFT + WIDTH) // 2, HEIGHT - 5, "middle", "30 min ago"),
            text.format(WIDTH - RIGHT, HEIGHT - 5, "end", "now"),
        ]
    )


def ceiling(most: int) -> int:
    """The next of 5, 10, 20, 50, 100, …"""
    if most <= 5:
        return 5
    scale = 10 ** int(log10(most))
    return int(next(one * scale for one in (1, 2, 5, 10) if one * scale >= most) if most > scale else ceil(scale))


def share(part: float, whole: float) -> Markup:
    """A bar as long as the share of the whole, to go with the number in words."""
    width = round(100 * min(part, whole) / whole, 1) if whole else 0
    return Markup(
        '<svg class="share" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rest" width="100" height="6"/><rect class="part" width="{}" height="6"/></svg>'
    ).format(width)
