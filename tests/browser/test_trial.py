"""The core tries a profile by itself: what a device would be told, and a real device at the end."""

from __future__ import annotations

import requests

from tests.browser.chromium import expect
from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet


def test_one_now(open_as: Opens, fleet: Fleet) -> None:
    """It is let in, its token opens the door, its telemetry shows, and it can be deleted."""
    window = open_as()
    page = window.page
    page.goto(f"/ui/profiles/{fleet.ids['water-meter']}/test")
    page.get_by_label("Name of the device").fill("TR-0001")
    page.get_by_role("button", name="Test now").click()
    result = page.locator("#result")
    expect(result.get_by_role("heading")).to_contain_text("let in")
    result.get_by_role("button", name="Reveal").click()
    token = result.locator("#credentials code").inner_text()
    sent = requests.post(f"{fleet.core.http}/api/v1/{token}/telemetry", json={"volume": 4.5}, timeout=10)
    assert sent.status_code == 200
    result.get_by_role("button", name="Send a test telemetry value").click()
    expect(result).not_to_contain_text("none yet")
    window.check("trial")
    result.get_by_role("button", name="Delete this device").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete this device").click()
    expect(page.get_by_role("status").filter(has_text="TR-0001 is deleted")).to_be_visible()


def test_refused(open_as: Opens, fleet: Fleet) -> None:
    """A device that was not listed before is refused with cause, fix and a reference that leads to the attempt."""
    page = open_as().page
    page.goto(f"/ui/profiles/{fleet.ids['listed-sensor']}/test")
    page.get_by_label("Name of the device").fill("LS-000404")
    page.get_by_role("button", name="Test now").click()
    result = page.locator("#result")
    expect(result.get_by_role("heading")).to_contain_text("refused")
    for term in ("Reason", "Cause", "Fix", "Reference"):
        expect(result.get_by_role("term").filter(has_text=term)).to_be_visible()
