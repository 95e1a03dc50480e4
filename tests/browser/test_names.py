"""Names that devices give themselves, which may hold anything."""

from __future__ import annotations

from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet
from tests.support.server import PASSWORD, USERNAME


def test_a_name_that_turns_the_direction_turns_nothing_else(open_as: Opens, fleet: Fleet) -> None:
    """What stands behind it reads as it was written: where from, when, with what result."""
    fleet.ask("WM-\u202e30000", "water-meter")
    page = open_as(USERNAME, PASSWORD).page
    page.goto(f"/ui/profiles/{fleet.ids['water-meter']}/connect")
    entry = page.locator("ul.attempts li").filter(has_text="30000").first
    name, behind = entry.locator("strong").bounding_box(), entry.locator("span.quiet").first.bounding_box()
    assert name is not None and behind is not None
    assert name["x"] + name["width"] <= behind["x"] + 1
