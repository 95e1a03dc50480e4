"""Durations, sizes and report strategies in words."""

from __future__ import annotations

import pytest

from edge_gateway.mapping.amounts import format_duration, format_size, parse_duration, parse_size
from edge_gateway.mapping.reports import parse_report
from edge_gateway.model import ReportOn, ReportRule


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5 s", 5), ("800 ms", 0.8), ("1 min", 60), ("1 h", 3600), ("30 d", 2_592_000), ("1h30min", 5400), (7, 7),
     (0.5, 0.5), ("10", 10), ("1.5 h", 5400)],
)  # fmt: skip
def test_durations(text: str | float, seconds: float) -> None:
    """A duration is a number with its unit, or of seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["5 parsecs", "", "s", "-5 s", "5 s x", True, -1, float("nan"), "1 1 s", "1e9 s"])
def test_what_is_no_duration_says_the_units(text: str | float) -> None:
    """The text of the error is the manual."""
    with pytest.raises(ValueError, match="ms, s, min, h or d"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("2 GiB", 2 << 30), ("64 KiB", 65536), ("1 MB", 10**6), (9, 9), ("5", 5)])
def test_sizes(text: str | int, size: int) -> None:
    """KiB are 1024, kB 1000."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["2 gigs", "", "-1 B", 1.5, True, -1])
def test_what_is_no_size_says_the_units(text: str | int) -> None:
    """The text of the error is the manual."""
    with pytest.raises(ValueError, match="KiB, MiB, GiB"):
        parse_size(text)


@pytest.mark.parametrize("seconds", [0.8, 5, 90, 3600, 2_592_000, 0.0005])
def test_a_formatted_duration_reads_back(seconds: float) -> None:
    """What is shown can be written into the file."""
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize("size", [1500, 65536, 2 << 30])
def test_a_formatted_size_reads_back(size: int) -> None:
    """What is shown can be written into the file."""
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("received", ReportRule()),
        ("change", ReportRule(on=ReportOn.CHANGE)),
        ("change 0.5", ReportRule(on=ReportOn.CHANGE, dead_band=0.5)),
        ("change 2%", ReportRule(on=ReportOn.CHANGE, dead_band=2, is_percent=True)),
        ("1 min", ReportRule(on=ReportOn.PERIOD, period_s=60)),
        ("change 0.5 | 1 min", ReportRule(on=ReportOn.CHANGE_OR_PERIOD, dead_band=0.5, period_s=60)),
        ("change|10 s", ReportRule(on=ReportOn.CHANGE_OR_PERIOD, period_s=10)),
    ],
)
def test_report_strategies(text: str, rule: ReportRule) -> None:
    """Each of the six forms."""
    assert parse_report(text) == rule


@pytest.mark.parametrize(
    "text", ["", "chnge", "change x", "change -1", "change |", "0.5", "0 s", "received | 1 min", "1 min | change",
             "change 1 | 1 min | 2 min", "change 1.2.3"]
)  # fmt: skip
def test_what_is_no_strategy_says_the_grammar(text: str) -> None:
    """The text of the error is the manual."""
    with pytest.raises(ValueError, match='is no report strategy; write "received"'):
        parse_report(text)
