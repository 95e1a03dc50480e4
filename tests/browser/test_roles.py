"""People see what they may do, and nothing else."""

from __future__ import annotations

import pytest

from tests.browser.chromium import expect
from tests.browser.conftest import Opens
from tests.browser.fleet import CUSTOMER_USER, OPERATOR, PEOPLE_PASSWORD, VIEWER, Fleet
from tests.browser.places import RULES, address

OWN = "main form[method=post]:not([action^='/ui/account'])"
CHANGING = ("New", "Edit", "Delete", "Accept", "Reject", "Reveal", "Import", "Add", "Save", "Make", "Revoke", "Undo")


def test_viewer_changes_nothing(open_as: Opens, fleet: Fleet) -> None:
    """On no page that is open to a viewer there is a form that sends, or a link to one."""
    window = open_as(VIEWER, PEOPLE_PASSWORD)
    window.expect_status(403)
    page, seen = window.page, 0
    for rule in RULES:
        shown = page.goto(address(rule, fleet), wait_until="domcontentloaded")
        assert shown is not None and shown.status in (200, 403), rule
        if shown.status == 403:
            continue
        seen += 1
        assert page.locator(OWN).count() == 0, f"{rule} lets a viewer send a form"
        links = page.get_by_role("main").get_by_role("link").all_inner_texts()
        tempting = [one for one in links if one.split(" ")[0] in CHANGING]
        assert not tempting, f"{rule} leads a viewer to {tempting}"
    assert seen >= 10


def test_operator_has_buttons(open_as: Opens, fleet: Fleet) -> None:
    """The same pages offer an operator what a viewer does not see."""
    page = open_as(OPERATOR, PEOPLE_PASSWORD).page
    page.goto("/ui/devices")
    expect(page.get_by_role("link", name="New device")).to_be_visible()
    page.goto(f"/ui/devices/{fleet.ids['device']}")
    expect(page.get_by_role("button", name="Save")).to_be_visible()
    expect(page.get_by_role("navigation", name="Main").get_by_role("link", name="Users")).to_have_count(0)


@pytest.mark.parametrize("theirs, not_theirs", [("WM-000001", "WM-000009")])
def test_customer_sees_their_own(open_as: Opens, fleet: Fleet, theirs: str, not_theirs: str) -> None:
    """A customer's user lists the customer's devices alone, and others do not exist for them."""
    window = open_as(CUSTOMER_USER, PEOPLE_PASSWORD)
    window.expect_status(404)
    window.expect_status(403)
    page = window.page
    page.goto("/ui/")
    expect(page.get_by_role("heading", level=1, name="Devices")).to_be_visible()
    expect(page.get_by_role("link", name=theirs)).to_be_visible()
    assert page.get_by_role("table").get_by_role("rowheader").count() == 3
    window.check("devices-of-a-customer")
    answered = page.goto(f"/ui/devices/{fleet.id_of(not_theirs)}")
    assert answered is not None and answered.status in (403, 404)
    expect(page.get_by_text(not_theirs)).to_have_count(0)
