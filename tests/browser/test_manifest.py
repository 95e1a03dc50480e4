"""What a factory takes home of an import, in a browser."""

from __future__ import annotations

import io
from pathlib import Path

from tests.browser.chromium import expect
from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet
from tests.support.server import PASSWORD, USERNAME

ROWS = "name,type\nMF-1,water-meter\nMF-2,water-meter\n"


def test_the_manifest_is_downloaded_from_the_report(open_as: Opens, fleet: Fleet) -> None:
    """With a question before; afterwards the page says who has it, and labels are still made."""
    batch = fleet.rest.upload("/api/imports", io.BytesIO(ROWS.encode()), "text/csv", {}, fileName="line 3.csv")
    window = open_as(USERNAME, PASSWORD)
    page = window.page
    page.goto(f"/ui/imports/{batch['id']}")
    page.get_by_role("link", name="Manifest and labels").click()
    page.get_by_role("button", name="Download the manifest").click()
    with page.expect_download() as manifest:
        page.get_by_role("dialog").get_by_role("button", name="Download").click()
    assert "MF-2" in Path(manifest.value.path()).read_text()
    expect(page.locator("#taken")).to_contain_text("has it")
    with page.expect_download() as labels:
        page.get_by_role("button", name="Make labels", exact=True).click()
    assert Path(labels.value.path()).read_bytes().startswith(b"%PDF")
    page.reload()
    expect(page.get_by_role("button", name="Download the manifest")).to_have_count(0)
    window.check("imports-uuid-manifest-taken")
