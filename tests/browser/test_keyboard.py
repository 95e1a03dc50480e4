"""Without a mouse: Tab reaches everything, in order, and one sees where one is."""

from __future__ import annotations

import re

from tests.browser.chromium import PHONE, Page, expect
from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet
from tests.support.server import PASSWORD, USERNAME

_FOCUS = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const labels = [...(one.labels || [])].map((text) => text.innerText).join(" ");
  const label = one.getAttribute("aria-label") || labels || one.innerText || one.name || "";
  const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return [label.trim(), seen];
}"""


def tab_to(page: Page, name: str, *, most: int = 60) -> None:
    """Presses Tab until something of this name has the focus; all on the way must show it."""
    passed = []
    for _ in range(most):
        page.keyboard.press("Tab")
        label, is_seen = page.evaluate(_FOCUS)
        assert is_seen, f"the focus is not visible on {label!r}"
        passed.append(label)
        if re.match(name, label):
            return
    raise AssertionError(f"{name!r} is not reached by Tab; reached are {passed}")


def test_from_login_to_a_new_device(open_window: Opens, fleet: Fleet) -> None:
    """Log in, go to the devices by the menu, make one, and read that it is made."""
    page = open_window().page
    page.goto("/ui/login")
    expect(page.get_by_label("User name")).to_be_focused()
    page.keyboard.type(USERNAME)
    tab_to(page, "Password", most=1)
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
    tab_to(page, "Skip", most=1)
    tab_to(page, "Devices$")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Devices")).to_be_visible()
    tab_to(page, "Skip", most=1)
    page.keyboard.press("Enter")
    tab_to(page, "New device", most=4)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="New device")).to_be_visible()
    tab_to(page, "Name")
    page.keyboard.type("KB-0001")
    tab_to(page, "Create device")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="KB-0001")).to_be_visible()
    expect(page.get_by_role("status").first).to_be_visible()


def test_question_before_something_ends(open_as: Opens, fleet: Fleet) -> None:
    """What is asked before credentials end takes the focus, and Escape is no."""
    page = open_as().page
    page.goto(f"/ui/devices/{fleet.id_of('WM-000003')}/credentials")
    page.get_by_role("button", name="Set access token").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate(
        "document.activeElement.closest('dialog') !== null || document.activeElement === document.body"
    )
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    fleet.send("WM-000003", "telemetry", {"volume": 1})  # the old token is still good


def test_menu_on_a_phone(open_as: Opens, fleet: Fleet) -> None:
    """The menu is closed at first, opens by keyboard, and leads on."""
    window = open_as(viewport=PHONE)
    page = window.page
    page.goto("/ui/devices")
    menu = page.get_by_role("navigation", name="Main")
    expect(menu).to_be_hidden()
    tab_to(page, "Menu", most=4)
    page.keyboard.press("Enter")
    expect(menu).to_be_visible()
    window.check("menu-phone")
    tab_to(page, "Gateways")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Gateways")).to_be_visible()
    expect(menu).to_be_hidden()


def test_menu_by_touch(open_as: Opens, fleet: Fleet) -> None:
    """A tap opens the menu; a second one closes it."""
    page = open_as(viewport=PHONE, has_touch=True, is_mobile=True).page
    page.goto("/ui/devices")
    page.get_by_text("Menu", exact=True).tap()
    expect(page.get_by_role("navigation", name="Main")).to_be_visible()
    page.get_by_text("Menu", exact=True).tap()
    expect(page.get_by_role("navigation", name="Main")).to_be_hidden()
