"""Charts: values in, markup out."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from cloud_core.transports.http.ui.charts import HEIGHT, WIDTH, line_chart, parts_of, scale, short


def places(svg: str) -> list[list[tuple[float, float]]]:
    """The points of each line."""
    return [
        [(float(x), float(y)) for x, y in (one.split(",") for one in points.split())]
        for points in re.findall(r'points="([^"]+)"', svg)
    ]


def test_a_line_goes_through_its_values() -> None:
    """From left to right in time, higher values higher up, all within the picture."""
    svg = line_chart([(0, 1.0), (500, 3.0), (1000, 2.0)], 0, 1000, "k")
    ((first, second, third),) = places(svg)
    assert first[0] < second[0] < third[0] <= WIDTH
    assert 0 <= second[1] < third[1] < first[1] <= HEIGHT


def test_a_gap_breaks_the_line() -> None:
    """Three usual distances without a value; a value that stands alone is a dot."""
    points = [(0, 1.0), (10, 1.0), (20, 1.0), (100, 2.0), (110, 2.0), (900, 3.0)]
    assert [len(part) for part in parts_of(points)] == [3, 2, 1]
    assert [len(part) for part in parts_of(points, step_ms=300)] == [6]
    svg = line_chart(points, 0, 1000, "k")
    assert len(places(svg)) == 2 and svg.count("<circle") == 1


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([], (0, 1)), ([5, 5], (4.5, 5.5)), ([0], (-1, 1)), ([1, 9], (0, 10)), ([-3, 96], (-50, 100)),
        ([21.1, 22.9], (21, 23)),
    ],
)  # fmt: skip
def test_the_axis_has_round_ends(values: list[float], ends: tuple[float, float]) -> None:
    """They hold all values and differ."""
    low, high = scale(values)
    assert low <= min(values, default=0) and max(values, default=1) <= high and low < high
    assert (low, high) == pytest.approx(ends)


@pytest.mark.parametrize("values", [[1e308, -1e308], [5e-324, 0.0], [1e-300], [1e308], [2**60, 2**60 + 1]])
def test_extreme_values_make_a_picture(values: list[float]) -> None:
    """Nothing of it is infinite."""
    svg = line_chart([(n * 10, float(value)) for n, value in enumerate(values)], 0, 100, "k")
    ElementTree.fromstring(svg)
    assert "nan" not in svg and "inf" not in svg


def test_what_is_no_number_is_left_out() -> None:
    """Infinity, not-a-number and what lies outside the range."""
    points = [(0, 1.0), (10, math.inf), (20, math.nan), (30, 2.0), (999, 7.0)]
    ((one, two),) = places(line_chart(points, 0, 100, "k"))
    assert one != two
    assert "<polyline" not in line_chart([], 0, 0, "k")


def test_a_label_is_text() -> None:
    """Keys are named by devices."""
    svg = line_chart([(0, 1.0)], 0, 10, '"><script>x</script>')
    assert "<script" not in svg and 'role="img"' in svg


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (21.5, "21.5"), (1500, "1.5k"), (-2_000_000, "-2M"), (3e9, "3G"), (1e15, "1e+15"), (0.00001, "1e-05")],
)
def test_numbers_fit_their_axis(value: float, text: str) -> None:
    """Short, however large."""
    assert short(value) == text
