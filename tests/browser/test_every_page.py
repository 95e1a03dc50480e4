"""Each page in light, dark and on a phone: nothing for axe to find, nothing too wide, and not too heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import DESKTOP, PHONE, Chromium, Window, artefacts, expect
from tests.browser.conftest import Opens
from tests.browser.fleet import PEOPLE_PASSWORD, SYSTEM_USERNAME, Fleet
from tests.browser.places import RULES, address, name_of
from tests.support.server import PASSWORD, USERNAME

MAX_BYTES = 100 * 1024


def look_at(window: Window, path: str, name: str) -> None:
    """Opens it for the first time, and then in the dark and on a phone."""
    page = window.page
    page.set_viewport_size(DESKTOP)
    page.emulate_media(color_scheme="light")
    window.count_bytes()
    opened = page.goto(path)
    assert opened is not None and opened.status == 200, path
    if urlsplit(page.url).path != path:  # the way back from a form's answer
        assert "login" not in page.url
        return
    weight = window.transferred_bytes
    window.check(f"{name}-light")
    page.emulate_media(color_scheme="dark")
    window.check(f"{name}-dark", "color-contrast", "link-in-text-block")  # colours are all that differs
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="light")
    window.check(f"{name}-phone")
    with (artefacts() / "weights.txt").open("a") as weights:
        weights.write(f"{weight / 1024:7.1f} KiB  {path}\n")
    assert 1000 < weight <= MAX_BYTES


@pytest.fixture(scope="module")
def tab(chromium: Chromium, fleet: Fleet) -> Iterator[Window]:
    """An administrator's, for all pages: each costs a page and not a window."""
    window: Window = chromium.call(lambda: chromium.keep(chromium.open_as(fleet.core.http, USERNAME, PASSWORD)))
    yield window
    chromium.call(window.close)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_page(tab: Window, fleet: Fleet, rule: str) -> None:
    """An administrator sees every page as it should be."""
    tab.problems.clear()
    look_at(tab, address(rule, fleet), name_of(rule))


def test_login_page(open_window: Opens) -> None:
    """Somebody who is not logged in sees the login as it should be."""
    look_at(open_window(), "/ui/login", "login")


def test_pages_of_system_administrators(open_as: Opens) -> None:
    """Whoever makes tenants sees the pages for that, and no others."""
    window = open_as(SYSTEM_USERNAME, PEOPLE_PASSWORD)
    page = window.page
    page.goto("/ui/")
    expect(page.get_by_role("heading", level=1, name="Tenants")).to_be_visible()
    page.get_by_label(re.compile("^(Title|Name)")).fill("North branch")
    page.get_by_role("button", name=re.compile("^(Add|Make)")).click()
    if urlsplit(page.url).path == "/ui/tenants":
        page.get_by_role("link", name="North branch").click()
    expect(page.get_by_role("heading", level=1, name="North branch")).to_be_visible()
    look_at(window, urlsplit(page.url).path, "tenants-uuid")
    look_at(window, "/ui/tenants", "tenants")
    look_at(window, "/ui/users", "users-of-the-system")
