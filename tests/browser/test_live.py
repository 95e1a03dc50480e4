"""What happens is seen without loading the page again."""

from __future__ import annotations

import re

from tests.browser.chromium import expect
from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet

COUNTED_MS = 20_000  # numbers of the overview may be some seconds old


def test_device_in_the_list(open_as: Opens, fleet: Fleet) -> None:
    """A device that comes in over HTTP appears in the list."""
    window = open_as()
    page = window.page
    window.open_live("/ui/devices")
    with window.without_loading_again():
        fleet.ask("LV-0001", "water-meter")
        expect(page.get_by_role("link", name="LV-0001")).to_be_visible()


def test_attempts_of_a_profile(open_as: Opens, fleet: Fleet) -> None:
    """Beside the commands one sees who comes in, and who is refused."""
    window = open_as()
    page = window.page
    window.open_live(f"/ui/profiles/{fleet.ids['water-meter']}/connect")
    with window.without_loading_again():
        fleet.ask("LV-0002", "water-meter")
        expect(page.get_by_role("listitem").filter(has_text="LV-0002")).to_contain_text("let in")
        fleet.ask("LV-0003", "water-meter", provisionDeviceSecret="wrong")
        expect(page.get_by_role("listitem").filter(has_text="LV-0003")).to_be_visible()
    window.check("attempts-live")


def test_telemetry(open_as: Opens, fleet: Fleet) -> None:
    """The chart and the latest values follow what the device sends."""
    window = open_as()
    page = window.page
    page.goto(f"/ui/devices/{fleet.id_of('WM-000004')}/telemetry")
    expect(page.get_by_role("img").or_(page.locator("svg")).first).to_be_visible()
    with window.without_loading_again():
        fleet.send("WM-000004", "telemetry", {"temperature": 63.25})
        expect(page.get_by_role("cell", name="63.25")).to_be_visible(timeout=20_000)


def test_name_that_is_code(open_as: Opens, fleet: Fleet) -> None:
    """A name that is markup is shown as it is, also where it comes in live."""
    window = open_as()
    page = window.page
    name = "<img src=x onerror=alert(1)>"
    window.open_live(f"/ui/profiles/{fleet.ids['water-meter']}/connect")
    with window.without_loading_again():
        fleet.ask(name, "water-meter")
        expect(page.get_by_role("listitem").filter(has_text=name)).to_be_visible()
    assert page.locator("main img").count() == 0


def test_overview(open_as: Opens, fleet: Fleet) -> None:
    """A request that waits for approval is counted on the overview, and so is one that is granted."""
    window = open_as()
    page = window.page
    waiting = page.get_by_role("region", name="Waiting for approval")
    granted = page.get_by_role("listitem").filter(has_text=re.compile(r"^granted \d+$"))
    window.open_live("/ui/")
    before, granted_before = first_number(waiting.inner_text()), first_number(granted.inner_text())
    with window.without_loading_again():
        fleet.ask("HM-300001", "heat-meter")
        fleet.ask("LV-0004", "water-meter")
        expect(granted).to_have_text(f"granted {granted_before + 1}")
        expect(waiting).to_contain_text(re.compile(rf"\b{before + 1} requests?"), timeout=COUNTED_MS)


def first_number(text: str) -> int:
    found = re.search(r"\d+", text)
    return int(found[0]) if found else 0
