"""Logging in and out of the pages, and what keeps other sites out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud_core.core import inventory
from cloud_core.core.people.logins import Operator, hash_password
from cloud_core.model import UserRole
from cloud_core.transports.proxies import TrustedProxies
from tests.support.rest import without_threads
from tests.support.stores import StoreUnderTest
from tests.support.ui import Browser, somebody

PASSWORD = "correct-horse-9"


@pytest.fixture
def browser(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    without_threads(monkeypatch)
    browser = Browser(sqlite_store)
    sqlite_store.run(inventory.first_start, "admin@localhost", hash_password(PASSWORD), 1)
    browser.cookies = {}
    yield browser
    browser.close()


def test_a_page_without_a_login_leads_there_and_back(browser: Browser) -> None:
    """Who is not logged in is sent to the login, which remembers where they wanted to go."""
    shown = browser.open("/ui/account?a=1")
    assert (shown.status, shown.location) == (303, "/ui/login?next=/ui/account%3Fa%3D1")
    form = browser.open(shown.location)
    assert 'value="/ui/account?a=1"' in form.text
    done = browser.submit("/ui/login", {"username": "admin@localhost", "password": PASSWORD, "next": "/ui/account?a=1"})
    assert (done.status, done.location) == (303, "/ui/account?a=1")
    assert "admin@localhost" in browser.open("/ui/account").words


def test_a_wrong_password_is_told_in_the_form(browser: Browser) -> None:
    """The name stays filled in, the password does not, and nobody is logged in."""
    shown = browser.submit("/ui/login", {"username": "admin@localhost", "password": "wrong-horse"})
    assert shown.status == 401 and "do not go together" in shown.words
    assert "admin@localhost" in shown.text and "wrong-horse" not in shown.text
    assert browser.cookies == {}


@pytest.mark.parametrize("next_url", ["https://evil.example/", "//evil.example", "/ui//evil", "/ui/\\evil", "/api/x"])
def test_a_login_leads_nowhere_else(browser: Browser, next_url: str) -> None:
    """An address outside the pages is not followed."""
    done = browser.submit("/ui/login", {"username": "admin@localhost", "password": PASSWORD, "next": next_url})
    assert done.location == "/ui/"


def test_cookies_are_for_the_pages_alone(browser: Browser) -> None:
    """The token is out of scripts' reach, is sent to the pages only and by links of other sites only to look."""
    done = browser.submit("/ui/login", {"username": "admin@localhost", "password": PASSWORD})
    cookie = done.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and "path=/ui" in cookie and "secure" not in cookie
    browser.cookies = {}
    secure = browser.submit(
        "/ui/login", {"username": "admin@localhost", "password": PASSWORD}, headers="X-Forwarded-Proto: https\r\n"
    )
    assert "secure" in secure.headers["set-cookie"].lower()


@pytest.mark.parametrize(("trusted", "is_secure"), [("192.168.1.1", True), ("10.0.0.0/8", False)])
def test_only_a_trusted_proxy_says_that_the_browser_speaks_tls(browser: Browser, trusted: str, is_secure: bool) -> None:
    """Where some are named; the browser of the test is at 192.168.1.1."""
    browser.server.service._site.proxies = TrustedProxies([trusted])
    done = browser.submit(
        "/ui/login", {"username": "admin@localhost", "password": PASSWORD}, headers="X-Forwarded-Proto: https\r\n"
    )
    assert ("secure" in done.headers["set-cookie"].lower()) is is_secure


def test_a_form_of_another_login_is_refused(browser: Browser) -> None:
    """A form without its login's token changes nothing."""
    browser.log_in_as(somebody())
    shown = browser.submit("/ui/logout", token="0" * 32)
    assert shown.status == 403 and "another login" in shown.words
    assert browser.open("/ui/account").status == 200


@pytest.mark.parametrize(
    "headers", ["Sec-Fetch-Site: cross-site\r\n", "Origin: https://evil.example\r\n", "Origin: null\r\n"]
)
@pytest.mark.parametrize("path", ["/ui/logout", "/ui/login", "/ui/theme"])
def test_a_form_from_another_site_is_refused(browser: Browser, path: str, headers: str) -> None:
    """The browser says where a form comes from, and it must be here."""
    browser.log_in_as(somebody())
    assert browser.submit(path, headers=headers).status == 403
    assert browser.open("/ui/account").status == 200


def test_a_logout_ends_the_login_everywhere(browser: Browser) -> None:
    """A copy of the cookies is worth nothing afterwards."""
    browser.log_in_as(somebody())
    kept = dict(browser.cookies)
    assert browser.submit("/ui/logout").location == "/ui/login"
    assert browser.cookies == {}
    browser.cookies = kept
    assert browser.open("/ui/account").status == 303


def test_a_login_goes_on_when_its_token_is_over(browser: Browser) -> None:
    """The refresh token brings a new one without a word."""
    browser.submit("/ui/login", {"username": "admin@localhost", "password": PASSWORD})
    browser.cookies["muster_token"] = "over"
    assert browser.open("/ui/account").status == 200
    assert browser.cookies["muster_token"] != "over"


def test_the_password_is_changed_by_whoever_knows_it(browser: Browser) -> None:
    """A mistake is told in the form; afterwards only the new one opens."""
    browser.submit("/ui/login", {"username": "admin@localhost", "password": PASSWORD})
    new = {"new_password": "new-horse-10", "repeated_password": "new-horse-10"}
    wrong = browser.submit("/ui/account/password", new | {"current_password": "x"})
    assert wrong.status == 400 and "Current password" in wrong.words
    right = new | {"current_password": PASSWORD}
    differ = browser.submit("/ui/account/password", right | {"repeated_password": "other"})
    assert differ.status == 400 and "differ" in differ.words
    done = browser.submit("/ui/account/password", right)
    assert done.location == "/ui/account"
    assert "is changed" in browser.open("/ui/account").words
    assert "is changed" not in browser.open("/ui/account").words


def test_every_page_forbids_foreign_scripts(browser: Browser) -> None:
    """Pages, refusals and files alike carry the policy."""
    for path in ("/ui/login", "/ui/account", "/ui/nothing", "/ui/static/x/ui.css", "/ui/static/x/y"):
        policy = browser.open(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_a_theme_is_kept(browser: Browser) -> None:
    """Light and dark are a cookie of the browser, without a login."""
    assert browser.submit("/ui/theme", {"theme": "dark", "back": "/ui/login"}).location == "/ui/login"
    assert 'data-theme="dark"' in browser.open("/ui/login").text
    browser.submit("/ui/theme", {"theme": '"><script>'})
    assert 'data-theme="auto"' in browser.open("/ui/login").text


def test_who_may_little_sees_little(browser: Browser) -> None:
    """A customer's user is led to what is open to them; the overview is not."""
    browser.log_in_as(Operator("u@x", "CUSTOMER_USER", 1, somebody().tenant_uuid, somebody().user_uuid, 1, None))
    assert browser.open("/ui/").location == "/ui/devices"
    browser.log_in_as(somebody(UserRole.VIEWER))
    assert browser.open("/ui/").status == 200


def test_an_unknown_page_is_told_as_a_page(browser: Browser) -> None:
    """404 within the frame for whoever is logged in."""
    browser.log_in_as(somebody())
    shown = browser.open("/ui/nothing")
    assert shown.status == 404 and "no such page" in shown.words and "Log out" in shown.words


def test_the_root_leads_to_the_pages(browser: Browser) -> None:
    """The address that the core prints opens the overview; REST and device calls are beside it."""
    assert browser.open("/").location == "/ui/"
    assert browser.open("/api/auth/user").status == 401


def test_what_was_done_is_told_on_the_page_that_people_see(browser: Browser) -> None:
    """Not to the part of a page that another window fetches meanwhile, nor to a file."""
    browser.log_in_as(somebody())
    browser.submit("/ui/customers", {"title": "Acme"})
    for path in ("/ui/overview/live", "/ui/devices/export", "/ui/imports/example.csv"):
        browser.ask(path, browser._cookie_header())
        browser.settle()
        assert b"muster_notice" not in browser.transport.value(), path
        browser.transport.clear()
    assert "Acme is added" not in browser.open("/ui/devices", "X-Live: 1\r\n").words
    assert "Acme is added" in browser.open("/ui/customers").words
    assert "Acme is added" not in browser.open("/ui/customers").words


def test_a_form_behind_the_end_of_a_login_says_so(browser: Browser) -> None:
    """On the page where people log in again, and not behind that."""
    browser.cookies = {"muster_token": "over", "muster_refresh": "over"}
    sent = browser.submit("/ui/customers", {"title": "Acme"})
    assert sent.location == "/ui/login"
    assert "Your login has ended" in browser.open("/ui/login").words
    assert "muster_notice" not in browser.cookies
