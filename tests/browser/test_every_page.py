"""Each page in light, dark and on a phone: nothing for axe to find, nothing too wide, and not too heavy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import DESKTOP, PHONE, Chromium, Window, artefacts
from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet
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
