"""What happens is seen without loading the page again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.browser.chromium import Page, expect
from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet


@contextmanager
def without_loading_again(page: Page) -> Iterator[None]:
    """The document is the same before and after."""
    page.evaluate("() => { window.isTheSame = true; }")
    yield
    assert page.evaluate("() => window.isTheSame === true"), "the page was loaded again"


def test_device_in_the_list(open_as: Opens, fleet: Fleet) -> None:
    """A device that comes in over HTTP appears in the list."""
    page = open_as().page
    page.goto("/ui/devices")
    with without_loading_again(page):
        fleet.ask("LV-0001", "water-meter")
        expect(page.get_by_role("link", name="LV-0001")).to_be_visible()


def test_attempts_of_a_profile(open_as: Opens, fleet: Fleet) -> None:
    """The page to test a profile shows who comes in, and who is refused with the fix."""
    window = open_as()
    page = window.page
    page.goto(f"/ui/profiles/{fleet.ids['water-meter']}/test")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    with without_loading_again(page):
        fleet.ask("LV-0002", "water-meter")
        expect(page.get_by_role("listitem").filter(has_text="LV-0002")).to_contain_text("let in")
        fleet.ask("LV-0003", "water-meter", provisionDeviceSecret="wrong")
        expect(page.get_by_role("listitem").filter(has_text="LV-0003")).to_be_visible()
    window.check("attempts-live")


def test_telemetry(open_as: Opens, fleet: Fleet) -> None:
    """The chart and the latest values follow what the device sends."""
    page = open_as().page
    page.goto(f"/ui/devices/{fleet.id_of('WM-000004')}/telemetry")
    expect(page.get_by_role("img").or_(page.locator("svg")).first).to_be_visible()
    with without_loading_again(page):
        fleet.send("WM-000004", "telemetry", {"temperature": 63.25})
        expect(page.get_by_role("cell", name="63.25")).to_be_visible(timeout=20_000)


def test_name_that_is_code(open_as: Opens, fleet: Fleet) -> None:
    """A name that is markup is shown as it is, also where it comes in live."""
    page = open_as().page
    name = "<img src=x onerror=alert(1)>"
    page.goto(f"/ui/profiles/{fleet.ids['water-meter']}/test")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    with without_loading_again(page):
        fleet.ask(name, "water-meter")
        expect(page.get_by_role("listitem").filter(has_text=name)).to_be_visible()
    assert page.locator("main img").count() == 0
