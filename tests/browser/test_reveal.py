"""Secrets are nowhere in a page until somebody asks for them."""

from __future__ import annotations

from tests.browser.chromium import Page, expect
from tests.browser.conftest import Opens
from tests.browser.fleet import Fleet


def is_in(page: Page, secret: str) -> bool:
    """Anywhere in the document: texts, attributes, scripts, values of fields."""
    values = page.evaluate("[...document.querySelectorAll('input, textarea')].map((one) => one.value).join('\\n')")
    return secret in page.content() or secret in values


def test_credentials(open_as: Opens, fleet: Fleet) -> None:
    """An access token comes into the page by Reveal, and goes by Hide."""
    window = open_as()
    page, token = window.page, fleet.tokens["WM-000002"]
    page.goto(f"/ui/devices/{fleet.id_of('WM-000002')}")
    assert not is_in(page, token)
    page.get_by_role("navigation", name="Device").get_by_role("link", name="Credentials").click()
    page.get_by_role("button", name="Reveal").wait_for()
    assert not is_in(page, token)
    page.get_by_role("button", name="Reveal").click()
    expect(page.get_by_text(token, exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Copy the access token")).to_be_visible()
    window.check("credentials-revealed")
    page.get_by_role("link", name="Hide").click()
    page.get_by_role("button", name="Reveal").wait_for()
    assert not is_in(page, token)


def test_another_theme_while_a_secret_is_shown(open_as: Opens, fleet: Fleet) -> None:
    """The page is shown in the dark, and the secret has to be asked for once more."""
    page = open_as().page
    page.goto(f"/ui/devices/{fleet.id_of('WM-000002')}/credentials")
    page.get_by_role("button", name="Reveal").click()
    page.get_by_role("link", name="Hide").wait_for()
    page.get_by_role("button", name="Dark").click()
    expect(page.get_by_role("button", name="Reveal")).to_be_visible()
    assert not is_in(page, fleet.tokens["WM-000002"])


def test_provision_secret(open_as: Opens, fleet: Fleet) -> None:
    """A profile's secret comes into the page by Reveal alone, and the page is not kept by the browser."""
    window = open_as()
    page, secret = window.page, fleet.keys["water-meter"]["provisionDeviceSecret"]
    for path in ("", "/edit", "/connect", "/test", "/keys"):
        page.goto(f"/ui/profiles/{fleet.ids['water-meter']}{path}")
        assert not is_in(page, secret), path
    page.goto(f"/ui/profiles/{fleet.ids['water-meter']}")
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="Reveal").click()
    assert navigation.value is not None and navigation.value.header_value("cache-control") == "no-store"
    expect(page.get_by_text(secret, exact=True)).to_be_visible()
    window.check("profile-revealed")


def test_copying(open_as: Opens, fleet: Fleet) -> None:
    """A copy button puts the text on the clipboard and says so."""
    window = open_as()
    window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = window.page
    page.goto(f"/ui/devices/{fleet.ids['device']}")
    button = page.get_by_role("button", name="Copy the id")
    button.click()
    expect(page.get_by_role("status").filter(has_text="Copied")).to_be_attached()
    assert page.evaluate("navigator.clipboard.readText()") == fleet.ids["device"]
