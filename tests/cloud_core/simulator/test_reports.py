"""What a run comes to, and how that is shown."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from typing import Any

import pytest

from cloud_core.simulator import report
from cloud_core.simulator import tally as curves
from cloud_core.simulator.charts import bar, curve_text, curves_svg, steps
from cloud_core.simulator.plan import KINDS, MIX, Kind, Plan, Profile, Transport, parse_weights
from cloud_core.simulator.screen import Screen, live_lines
from cloud_core.simulator.states import State
from cloud_core.simulator.tally import Tally
from cloud_core.simulator.verdict import Run


def run(tally: Tally, *, is_interrupted: bool = False, **changes: Any) -> Run:
    mix, kinds = parse_weights(MIX, Transport), parse_weights(KINDS, Kind)
    plan = Plan(devices=10, mix=mix, kinds=kinds, **changes)
    return Run(plan, tally, "127.0.0.1", 1, is_interrupted, "2026-01-01T00:00:00+00:00")


def good() -> Tally:
    tally = Tally(states={State.ONLINE: 8, State.REFUSED: 2}, is_home=True, elapsed_s=3.0)
    for number in range(8):
        tally.mark(curves.POWERED, 0.0)
        tally.mark(curves.PROVISIONED, number / 4)
        tally.timed(tally.request_s, "mqtt", 0.010 + number / 1_000)
    tally.expected_refusals["INVALID_PROVISION_CREDENTIALS"] = 6
    return tally


def bad() -> Tally:
    tally = good()
    tally.states = {State.ONLINE: 7, State.REFUSED: 2, State.FAILED: 1}
    tally.fail("sim-1-0000003", "QUOTA_EXCEEDED (ref <AB|CD>)")
    return tally


def test_refusals_as_planned_are_no_failures() -> None:
    """All honest devices are in: good, and the wrong ones are told apart."""
    found = run(good())
    assert found.is_good and found.all_provisioned_s == 1.75
    assert found.sentence() == (
        "8 of 8 devices are provisioned, the last after 1.8 s; 2 with a wrong secret were refused, as they must be;"
        " no permanent failure."
    )


def test_one_device_that_never_gets_in_makes_a_run_bad_and_is_named() -> None:
    """In every form of the report."""
    found = run(bad())
    assert not found.is_good
    for text in (report.markdown(found), report.page(found), report.terminal(found), json.dumps(found.summary())):
        assert "sim-1-0000003" in text and "QUOTA_EXCEEDED" in text


def test_a_device_left_outside_makes_a_run_bad_unless_somebody_ended_it() -> None:
    """Time that is up is a failure; Ctrl-C is not."""
    tally = good()
    tally.states, tally.is_home = {State.ONLINE: 7, State.POWERED: 1, State.REFUSED: 2}, False
    assert not run(tally).is_good and run(tally).unfinished == 1 and run(tally).all_provisioned_s is None
    assert run(tally, is_interrupted=True).is_good
    assert "ended early" in run(tally, is_interrupted=True).sentence()
    tally.states = {State.PROVISIONED: 10}
    assert not run(tally).is_good


def test_a_storm_is_timed_from_its_beginning() -> None:
    """Until the last one is back."""
    tally = good()
    tally.at_s["storm"] = 2.0
    tally.mark(curves.BACK, 5.5)
    found = run(tally, profile=Profile.RECONNECT_STORM)
    assert found.back_s() == 3.5
    assert "everybody within 3.5 s" in report.markdown(found)


def test_a_page_is_whole_and_quotes_what_came_from_outside() -> None:
    """Every element that is opened is closed; reasons of the core are text."""
    text = report.page(run(bad()))

    class Checker(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in ("meta", "path", "rect"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert tag in ("path", "rect") or self.open.pop() == tag

    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert "&lt;AB|CD&gt;" in text and "<svg" in text
    assert "src=" not in text and "href=" not in text and "url(" not in text


def test_markdown_keeps_a_table_together() -> None:
    """A bar in a cell ends no column."""
    assert "| sim-1-0000003 | QUOTA_EXCEEDED (ref <AB\\|CD>) |" in report.markdown(run(bad()))


def test_a_curve_is_cumulative_and_of_bounded_length() -> None:
    """The last step has them all, at the last second."""
    assert steps([1, 2, 3, 4, 5], 3) == [(2, 3), (4, 10), (5, 15)]
    assert steps([], 3) == []
    lines = curve_text([1] * 900)
    assert len(lines) <= 16 and lines[-1].split()[:3] == ["900", "s", "900"]
    assert len(curves_svg({"one": [1] * 86_400})) < 20_000


@pytest.mark.parametrize(("share", "text"), [(0, ""), (1, "████"), (0.5, "██"), (2, "████"), (1 / 32, "▏")])
def test_a_bar_shows_a_share(share: float, text: str) -> None:
    """In eighths of a column, never longer than its place."""
    assert bar(share, 4) == text


def test_the_live_view_draws_over_itself() -> None:
    """On a terminal the second picture goes up first; elsewhere a plain line comes every few seconds."""
    found = run(good())
    live, plain = io.StringIO(), io.StringIO()
    screen = Screen(found.plan, live, is_live=True, columns=60)
    screen.show(found.tally)
    first = live.getvalue()
    screen.show(found.tally)
    count = len(live_lines(found.plan, found.tally))
    assert live.getvalue().removeprefix(first).startswith(f"\x1b[{count}F")
    assert all(len(line.removeprefix("\x1b[2K")) < 60 for line in first.splitlines())
    screen = Screen(found.plan, plain, is_live=False)
    screen.show(found.tally)
    screen.show(found.tally)
    assert plain.getvalue() == "3 s: 8 of 10 provisioned, 0 reports, 0 retries, 0 refusals, 0 failed\n"
