"""Curves and histograms as text and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

_BLOCKS = " ▏▎▍▌▋▊▉█"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 860, 300, 70, 40, 16, 16
COLOURS = ("#1f6feb", "#1a7f37", "#bf3989", "#9a6700")


def bar(share: float, width: int) -> str:
    """A bar of block characters, `width` columns at 1."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return _BLOCKS[8] * (eighths // 8) + (_BLOCKS[eighths % 8] if eighths % 8 else "")


def steps(points: Sequence[int], count: int) -> list[tuple[int, int]]:
    """(second until which, how many by then) at `count` or fewer equal steps of a curve of events per second."""
    if not points:
        return []
    width = -(-len(points) // count)
    sums = list(accumulate(points))
    return [(min(at, len(points)), sums[min(at, len(points)) - 1]) for at in range(width, len(points) + width, width)]


def curve_text(points: Sequence[int], *, lines: int = 16, width: int = 50) -> list[str]:
    """A line for each step: the time, how many by then, a bar."""
    found = steps(points, lines)
    most = max((total for _, total in found), default=0) or 1
    return [f"{at:>6} s  {total:>9,}  {bar(total / most, width)}".rstrip() for at, total in found]


def octaves_text(octaves: Sequence[tuple[float, int]], *, width: int = 40) -> list[str]:
    """A line for each doubling of the latency."""
    most = max((count for _, count in octaves), default=0) or 1
    return [f"≤ {milliseconds(upper):>8}  {count:>9,}  {bar(count / most, width)}".rstrip() for upper, count in octaves]


def milliseconds(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def curves_svg(curves: dict[str, Sequence[int]]) -> str:
    """Cumulative curves over the seconds, one line each, by their names."""
    seconds = max((len(points) for points in curves.values()), default=0) or 1
    most = max((sum(points) for points in curves.values()), default=0) or 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' aria-label="Devices over time" font-family="sans-serif" font-size="12">'
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = _x(share), _y(share)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share * most:,.0f}</text>')
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{share * seconds:.0f} s</text>'
        )
    for points, colour in zip(curves.values(), COLOURS, strict=False):
        parts.append(f'<path d="{_path(points, seconds, most)}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for index, (name, colour) in enumerate(zip(curves, COLOURS, strict=False)):
        x = LEFT + 150 * index
        parts.append(f'<rect x="{x}" y="{HEIGHT - 12}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="{HEIGHT - 3}">{name}</text>')
    return "".join(parts) + "</svg>"


def _path(points: Sequence[int], seconds: int, most: int) -> str:
    """At most 400 points of the curve, from zero."""
    found = [(0, 0), *steps(points, 400)]
    corners = [f"{_x(at / seconds):.1f} {_y(total / most):.1f}" for at, total in found]
    return "M" + "L".join(corners)


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
