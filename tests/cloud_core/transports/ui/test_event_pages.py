"""Live events of open pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud_core.model import UserRole
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Browser, somebody


@pytest.fixture
def browser(sqlite_store: StoreUnderTest) -> Iterator[Browser]:
    browser = Browser(sqlite_store)
    yield browser
    browser.close()


def listen(browser: Browser, query: str = "") -> str:
    """What has come so far."""
    browser.send(f"GET /ui/events{query} HTTP/1.1\r\nHost: h\r\n{browser._cookie_header()}\r\n".encode())
    return heard(browser)


def heard(browser: Browser) -> str:
    browser.settle()
    data: bytes = browser.transport.value()
    browser.transport.clear()
    return data.decode()


def test_a_page_hears_what_happens(browser: Browser) -> None:
    """By its cookie, without a script that holds a token; it ends with the login."""
    head = listen(browser, "?kinds=gateway")
    assert "200 OK" in head and "text/event-stream" in head
    browser.api.api.events.publish(TENANT, "gateway", {"deviceName": "GW-1"})
    browser.api.api.events.publish(TENANT, "attempt", {"deviceName": "SN-1"})
    said = heard(browser)
    assert "event: gateway" in said and "SN-1" not in said
    other = browser.another_window()
    assert other.submit("/ui/logout").status == 303
    browser.api.api.events.publish(TENANT, "gateway", {"deviceName": "GW-2"})
    assert "GW-2" not in heard(browser)


def test_nobody_hears_what_they_may_not_list(browser: Browser) -> None:
    """The audit is for administrators; without a login there is nothing to hear."""
    browser.log_in_as(somebody(UserRole.VIEWER))
    assert "403" in listen(browser, "?kinds=audit").splitlines()[0]
    browser = browser.another_window()
    browser.cookies = {}
    assert "401" in listen(browser).splitlines()[0]
