"""A list of devices with mistakes in it: plan, apply what is good, report, undo."""

from __future__ import annotations

import re

from cloud_core.rest_client import RestError
from tests.browser.chromium import PHONE, Page, Window, expect
from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet

LIST = (
    "name;type;label;access_token\n"
    "IM-0001;water-meter;good;\n"
    "IM-0002;water-meter;good, too;\n"
    ";water-meter;has no name;\n"
    "IM-0003;water-meter;asks for a token that is taken;{taken}\n"
)


def is_there(fleet: Fleet, name: str) -> bool:
    try:
        fleet.core.device(name)
    except RestError as error:
        assert error.status == 404
        return False
    return True


def load(window: Window, content: str) -> Page:
    page = window.page
    page.goto("/ui/devices")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Imports").click()
    page.get_by_role("link", name="Import devices").click()
    file = {"name": "tuesday.csv", "mimeType": "text/csv", "buffer": content.encode()}
    page.get_by_label(re.compile("^File")).set_input_files(file)  # type: ignore[arg-type]
    page.get_by_role("button", name="Show the plan").click()
    return page


def row(page: Page, text: str) -> str:
    found: str = page.get_by_role("row").filter(has_text=text).first.inner_text()
    return found


def test_list_with_mistakes(open_as: Opens, fleet: Fleet) -> None:
    """Nothing changes before one says so; the bad rows are named, left out and given back; undo takes the rest back."""
    window = open_as()
    page = load(window, LIST.format(taken=fleet.tokens["WM-000001"]))
    expect(page.get_by_text("2 rows cannot be applied")).to_be_visible()
    window.check("import-plan")
    assert not is_there(fleet, "IM-0001")
    assert "IM-0001" in row(page, "IM-0001")
    assert len(row(page, "without a name")) > 30 and len(row(page, "IM-0003")) > 30, "a row tells what to do"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the bad rows").click()
    given_back = download.value.path().read_text()
    assert "IM-0003" in given_back and "IM-0001" not in given_back

    page.get_by_role("button", name="Apply the 2 good rows").click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("Apply")).click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    window.check("import-report")
    assert is_there(fleet, "IM-0001") and not is_there(fleet, "IM-0003")
    page.get_by_role("link", name="IM-0002").click()
    expect(page.get_by_role("heading", level=1, name="IM-0002")).to_be_visible()
    page.go_back()

    page.get_by_role("button", name="Undo").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert is_there(fleet, "IM-0001")
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("dialog").get_by_role("button", name="Undo").click()
    expect(page.get_by_text("undone").first).to_be_visible()
    assert not is_there(fleet, "IM-0001") and not is_there(fleet, "IM-0002")


def test_file_that_is_no_list(open_as: Opens) -> None:
    """A file that cannot be read is refused beside the form, with what to do."""
    window = open_as(viewport=PHONE)
    window.expect_status(400)
    window.page.goto("/ui/imports/new")
    file = {"name": "photo.csv", "mimeType": "text/csv", "buffer": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))}
    window.page.get_by_label(re.compile("^File")).set_input_files(file)  # type: ignore[arg-type]
    window.page.get_by_role("button", name="Show the plan").click()
    expect(window.page.get_by_role("alert")).to_be_visible()
    expect(window.page.get_by_role("button", name="Show the plan")).to_be_enabled()
    window.check("import-refused")
