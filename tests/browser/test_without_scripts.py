"""Scripts are comfort: login, lists and forms work without."""

from __future__ import annotations

import re

from tests.browser.chromium import expect
from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet
from tests.support.server import PASSWORD, USERNAME


def test_login_list_and_form(open_window: Opens, fleet: Fleet) -> None:
    """Log in, search, sort, make a device, change it, reveal its token, log out."""
    window = open_window(has_scripts=False)
    page = window.page
    window.log_in(USERNAME, PASSWORD)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Devices").click()
    page.get_by_label("Search").fill("WM-00000")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("rowheader")).to_have_count(9)
    page.get_by_role("columnheader", name="Name").get_by_role("link").click()
    expect(page.get_by_role("rowheader").first).to_have_text("WM-000001")
    page.get_by_role("link", name="New device").click()
    page.get_by_label(re.compile("^Name")).fill("NS-0001")
    page.get_by_role("button", name="Create device").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("NS-0001")
    page.get_by_label("Label").fill("made without scripts")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").first).to_be_visible()
    expect(page.get_by_label("Label")).to_have_value("made without scripts")
    page.get_by_role("link", name="Credentials").click()
    page.get_by_role("button", name="Reveal").click()
    expect(page.get_by_role("link", name="Hide")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("User name")).to_be_visible()


def test_import(open_as: Opens, fleet: Fleet) -> None:
    """A file is planned and applied."""
    page = open_as(has_scripts=False).page
    page.goto("/ui/imports/new")
    content = b"name,type\nNS-0101,water-meter\n"
    file = {"name": "one.csv", "mimeType": "text/csv", "buffer": content}
    page.get_by_label(re.compile("^File")).set_input_files(file)  # type: ignore[arg-type]
    page.get_by_role("button", name="Show the plan").click()
    page.get_by_role("button", name="Apply 1 row").click()
    progress, end = (
        page.get_by_role("link", name="See how far it is"),
        page.get_by_role("link", name="Go to the devices"),
    )
    expect(progress.or_(end)).to_be_visible()
    while progress.count():
        progress.click()
    expect(end).to_be_visible()
    assert fleet.id_of("NS-0101")
