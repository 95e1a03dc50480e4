"""Coming in, being kept out, and being sent back in where a login has ended."""

from __future__ import annotations

import re

from tests.browser.chromium import expect
from tests.browser.conftest import Opens
from tests.browser.fleet import PEOPLE_PASSWORD, VIEWER, Fleet
from tests.support.server import PASSWORD, USERNAME, CoreProcess


def test_right_login(open_window: Opens) -> None:
    """Whoever logs in sees the overview, and is out again after logging out."""
    window = open_window()
    page = window.page
    page.goto("/")
    expect(page).to_have_title(re.compile("Log in"))
    expect(page.get_by_label("User name")).to_be_focused()
    window.log_in(USERNAME, PASSWORD)
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
    expect(page.get_by_role("navigation", name="Main").get_by_role("link", name="Overview")).to_have_attribute(
        "aria-current", "page"
    )
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Muster")).to_be_visible()
    page.go_back()
    page.reload()
    expect(page.get_by_label("User name")).to_be_visible()


def test_wrong_login(open_window: Opens) -> None:
    """A wrong password is told beside the form, which keeps the name and forgets the password."""
    window = open_window()
    window.expect_status(401)
    page = window.page
    page.goto("/ui/login")
    page.get_by_label("User name").fill(USERNAME)
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("This user name and password do not go together.")
    expect(page.get_by_label("User name")).to_have_value(USERNAME)
    expect(page.get_by_label("Password")).to_have_value("")
    window.check("login-wrong")


def test_ended_login(open_as: Opens, fleet: Fleet) -> None:
    """A page of somebody whose login has ended leads to the login, and from there to that page."""
    window = open_as()
    page = window.page
    page.goto("/ui/account")
    window.context.clear_cookies()
    page.goto("/ui/devices?q=WM-000002")
    page.get_by_label("User name").fill(VIEWER)
    page.get_by_label("Password").fill(PEOPLE_PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(r"/ui/devices\?q=WM-000002$"))
    expect(page.get_by_role("link", name="WM-000002")).to_be_visible()


def test_live_page_whose_login_ends(open_as: Opens, core: CoreProcess, fleet: Fleet) -> None:
    """A live part that finds the login ended brings the login instead of going on silently."""
    window = open_as()
    page = window.page
    window.expect_status(401)
    window.open_live("/ui/devices")
    window.context.clear_cookies()
    fleet.ask("WM-100001", "water-meter")
    expect(page.get_by_label("User name")).to_be_visible()


def test_page_that_does_not_exist(open_as: Opens) -> None:
    """An address that leads nowhere is told within the frame."""
    window = open_as()
    window.expect_status(404)
    window.page.goto("/ui/no-such-page")
    expect(window.page.get_by_role("heading", level=1)).to_have_text("Not possible")
    expect(window.page.get_by_role("navigation", name="Main")).to_be_visible()
    window.check("no-such-page")


def test_theme_is_kept(open_as: Opens) -> None:
    """Dark stays dark on the next page, whatever the system has."""
    page = open_as().page
    page.goto("/ui/account")
    page.get_by_role("button", name="Dark").click()
    page.goto("/ui/devices")
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Light").click()
    expect(page).to_have_url(re.compile("/ui/devices$"))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
