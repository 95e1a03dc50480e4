"""A device profile through all steps of the wizard, and what stands at its end."""

from __future__ import annotations

import re

from tests.browser.chromium import Window, expect
from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet


def current_step(window: Window) -> str:
    return window.page.locator("[aria-current=step]").inner_text()


def test_all_steps(open_as: Opens, fleet: Fleet) -> None:
    """Details, strategy, key, rules, review: the profile is as it was said, and its limited key is shown once."""
    window = open_as()
    page = window.page
    page.goto("/ui/profiles")
    page.get_by_role("link", name="New profile").click()
    window.check("wizard-first")
    page.get_by_label(re.compile("^Name")).fill("gas-meter")
    page.get_by_label("Description").fill("Gas meters of the second line")
    steps = [current_step(window)]
    page.get_by_role("button", name="Next").click()
    steps.append(current_step(window))
    page.get_by_label("Allow creating new devices").check()
    page.get_by_role("button", name="Next").click()
    steps.append(current_step(window))
    window.check("wizard-access")
    page.get_by_label("Provision key").fill("gas-meter-key")
    page.get_by_role("button", name="Next").click()
    steps.append(current_step(window))
    window.check("wizard-rules")
    page.get_by_label("An operator approves each device").check()
    page.get_by_label("Name of the key").fill("gas, first batch")
    page.get_by_label(re.compile("^Budget")).fill("25")
    page.get_by_role("button", name="Next").click()
    steps.append(current_step(window))
    window.check("wizard-review")
    assert len(set(steps)) == 5
    review = page.get_by_role("main")
    for text in ("gas-meter", "gas-meter-key", "an operator lets each device in", "gas, first batch: 25 devices"):
        expect(review).to_contain_text(text)

    page.get_by_role("button", name="Create the profile").click()
    expect(page.get_by_role("heading", level=1, name=re.compile("gas-meter"))).to_be_visible()
    expect(page.get_by_role("button", name="Copy the provision secret")).to_be_visible()
    window.check("wizard-created")
    found = fleet.rest.get("/api/deviceProfiles", pageSize=50, page=0)["data"]
    (made,) = [one for one in found if one["name"] == "gas-meter"]
    assert made["provisionDeviceKey"] == "gas-meter-key"
    assert made["profileData"]["provisionConfiguration"]["approval"] == "REQUIRED"
    (key,) = fleet.rest.get(f"/api/deviceProfile/{made['id']['id']}/keys")
    assert (key["name"], key["budget"]) == ("gas, first batch", 25)


def test_going_back_keeps_what_was_typed(open_as: Opens, fleet: Fleet) -> None:
    """A mistake is told at its step; nothing of what was typed is lost on the way back and forth."""
    window = open_as()
    window.expect_status(400)
    page = window.page
    page.goto("/ui/profiles/new")
    page.get_by_label(re.compile("^Name")).fill("water-meter")  # which there is already
    page.get_by_label("Description").fill("kept")
    page.get_by_role("button", name="Create now").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label(re.compile("^Name")).fill("wizard-back")
    expect(page.get_by_label("Description")).to_have_value("kept")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Back").click()
    expect(page.get_by_label(re.compile("^Name"))).to_have_value("wizard-back")
    expect(page.get_by_label("Description")).to_have_value("kept")


def test_certificates(open_as: Opens, fleet: Fleet) -> None:
    """A chain profile takes a CA of this core, and tries its name rule before it is made."""
    window = open_as()
    page = window.page
    page.goto("/ui/profiles/new")
    page.get_by_label(re.compile("^Name")).fill("plc-2")
    page.get_by_role("button", name="Next").click()
    page.get_by_label(re.compile("X.509", re.IGNORECASE)).check()
    page.get_by_role("button", name="Next").click()
    page.get_by_label("CA of this core").select_option("Plant CA")
    page.get_by_label("Try it with a common name").fill("PLC-0007")
    page.get_by_role("button", name="Try").click()
    expect(page.get_by_text("The device is called PLC-0007.")).to_be_visible()
    window.check("wizard-chain")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Create the profile").click()
    expect(page.get_by_role("heading", level=1, name=re.compile("plc-2"))).to_be_visible()
    window.check("connect-chain")
