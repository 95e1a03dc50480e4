"""Users, API keys, customers and tenants by the pages: what is shown once, who may, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from uuid import uuid4

import pytest

from cloud_core.core.people.logins import Operator, hash_password
from cloud_core.core.people.tenants import first_system_administrator
from cloud_core.model import DEFAULT_TENANT, SYSTEM_TENANT, UserRole
from cloud_core.transports.http.ui import customer_pages, device_pages
from cloud_core.transports.http.ui.fields import end_of_day_ms, number_of, said
from cloud_core.transports.http.ui.visits import Form
from shared.errors import InvalidArgument
from tests.support.rest import without_threads
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Browser, Shown, somebody

PASSWORD = "correct-horse-9"
HOSTILE = "<script>alert(1)</script>"
CUSTOMER_USER = Operator("u@x", "CUSTOMER_USER", TENANT, DEFAULT_TENANT, uuid4(), 1, None)


@pytest.fixture
def browser(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    without_threads(monkeypatch)
    browser = Browser(sqlite_store)
    yield browser
    browser.close()


@pytest.fixture
def system(browser: Browser) -> Browser:
    """Logged in as the system administrator."""
    store = browser.api.store
    store.run(first_system_administrator, "sys@x", hash_password(PASSWORD), 1)
    user = store.read(lambda tx: tx.user_by_name("sys@x"))
    browser.log_in_as(Operator("sys@x", "SYS_ADMIN", user.tenant_id, SYSTEM_TENANT, user.uuid, session=uuid4()))
    return browser


def shown_once(shown: Shown) -> str:
    found = re.search(r'id="shown-once".*?<code>([^<]+)</code>', shown.text)
    assert shown.status == 200 and found is not None, shown.words
    assert shown.headers["cache-control"] == "no-store"
    return found[1]


def url_of(browser: Browser, path: str, text: str) -> str:
    """Where a list's entry leads."""
    found = re.search(rf'href="([^"]+)">{re.escape(text)}<', browser.open(path).text)
    assert found is not None, text
    return found[1]


def logs_in(browser: Browser, username: str, password: str) -> bool:
    kept, browser.cookies = browser.cookies, {}
    status = browser.submit("/ui/login", {"username": username, "password": password}, token="").status
    browser.cookies = kept
    return status == 303


# -- users ----------------------------------------------------------------------------------------


def test_a_user_is_added_and_its_password_shown_once(browser: Browser) -> None:
    """The one that is made here opens the pages; one that is given is not shown at all."""
    password = shown_once(browser.submit("/ui/users/new", {"email": "olga@x", "role": "OPERATOR"}))
    assert logs_in(browser, "olga@x", password)
    assert password not in browser.open(url_of(browser, "/ui/users", "olga@x")).text
    given = browser.submit("/ui/users/new", {"email": "vik@x", "role": "VIEWER", "new_password": PASSWORD})
    assert given.location == "/ui/users" and logs_in(browser, "vik@x", PASSWORD)
    words = browser.open("/ui/users").words
    assert "olga@x Operator" in words and "vik@x Viewer" in words and "vik@x is added." in words
    assert "vik@x" not in browser.open("/ui/users?q=olga").words
    assert "No user is called like this" in browser.open("/ui/users?q=nobody").words


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"email": ""}, "should be specified"),
        ({"email": HOSTILE}, "Invalid email address format"),
        ({"email": "a@x", "new_password": "short"}, "8 to 200 characters"),
        ({"email": "a@x", "role": "KING"}, "must be one of ADMINISTRATOR, OPERATOR, VIEWER"),
        ({"email": "a@x" + "x" * 300}, "Invalid email address format"),
    ],
)
def test_a_wrong_user_is_told_in_the_form(browser: Browser, fields: dict[str, str], told: str) -> None:
    """With what was typed, but for the password."""
    shown = browser.submit("/ui/users/new", fields)
    assert shown.status == 400 and told in shown.words and HOSTILE not in shown.text
    assert "short" not in shown.text and fields["email"][:3].replace("<", "&lt;") in shown.text


def test_a_user_is_changed_and_deleted(browser: Browser) -> None:
    """Role, name and password; the last administrator stays."""
    shown_once(browser.submit("/ui/users/new", {"email": "olga@x", "role": "ADMINISTRATOR"}))
    url = url_of(browser, "/ui/users", "olga@x")
    last = browser.submit(url, {"email": "olga@x", "role": "VIEWER"})
    assert last.status == 400 and "last administrator" in last.words
    assert browser.submit(url, {"email": "olga2@x", "role": "ADMINISTRATOR"}).location == url
    assert "olga2@x is changed." in browser.open(url).words
    weak = browser.submit(f"{url}/password", {"new_password": "short"})
    assert weak.status == 400 and "8 to 200" in weak.words
    assert browser.submit(f"{url}/password", {"new_password": PASSWORD}).location == url
    assert logs_in(browser, "olga2@x", PASSWORD)
    made = shown_once(browser.submit(f"{url}/password"))
    assert logs_in(browser, "olga2@x", made) and not logs_in(browser, "olga2@x", PASSWORD)
    kept = browser.submit(f"{url}/delete")
    assert kept.status == 400 and "last administrator" in kept.words
    shown_once(browser.submit("/ui/users/new", {"email": "other@x", "role": "ADMINISTRATOR"}))
    assert browser.submit(f"{url}/delete").location == "/ui/users"
    assert browser.open(url).status == 404


def test_nobody_deletes_themselves(browser: Browser) -> None:
    """The page says who can instead, and how to change one's own password."""
    shown_once(browser.submit("/ui/users/new", {"email": "me@x", "role": "ADMINISTRATOR"}))
    url = url_of(browser, "/ui/users", "me@x")
    user = browser.api.store.read(lambda tx: tx.user_by_name("me@x"))
    browser.log_in_as(Operator("me@x", "TENANT_ADMIN", TENANT, DEFAULT_TENANT, user.uuid, session=uuid4()))
    page = browser.open(url)
    assert "This is you" in page.words and "/delete" not in page.text
    refused = browser.submit(f"{url}/delete")
    assert refused.status == 400 and "cannot delete yourself" in refused.words


# -- API keys -------------------------------------------------------------------------------------


def test_an_api_key_is_shown_once_and_ended(browser: Browser) -> None:
    """It opens REST until it is ended."""
    assert "no key yet" in browser.open("/ui/api-keys").words
    key = shown_once(browser.submit("/ui/api-keys", {"name": "MES", "role": "OPERATOR", "ends": "2999-12-31"}))
    listed = browser.open("/ui/api-keys")
    assert key not in listed.text and key[:11] in listed.text and "2999-12-31" in listed.text
    header = f"X-Authorization: ApiKey {key}\r\n"
    assert browser.get("/api/tenant/devices?pageSize=1&page=0", header)[0] == 200
    found = re.search(r'action="(/ui/api-keys/[^"]+/end)"', listed.text)
    assert found is not None
    assert browser.submit(found[1]).location == "/ui/api-keys"
    assert browser.get("/api/tenant/devices?pageSize=1&page=0", header)[0] == 401
    assert browser.submit(found[1]).status == 404


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": ""}, "should be specified"),
        ({"name": HOSTILE, "role": "VIEWER"}, "leave out markup"),
        ({"name": "x", "role": "KING"}, "must be one of"),
        ({"name": "x", "role": "VIEWER", "ends": "2001-01-01"}, "must lie in the future"),
        ({"name": "x", "role": "VIEWER", "ends": "tomorrow"}, "must be a day such as 2030-12-31"),
    ],
)
def test_a_wrong_key_is_told_in_the_form(browser: Browser, fields: dict[str, str], told: str) -> None:
    """And none is made."""
    shown = browser.submit("/ui/api-keys", fields)
    assert shown.status == 400 and told in shown.words and HOSTILE not in shown.text
    assert "no key yet" in shown.words


# -- customers ------------------------------------------------------------------------------------


def test_a_customer_is_added_changed_given_a_user_and_deleted(browser: Browser) -> None:
    """Its user sees the customer's devices alone, and goes with it."""
    assert "no customer yet" in browser.open("/ui/customers").words
    url = browser.submit("/ui/customers", {"title": "Acme & Söhne"}).location
    assert url_of(browser, "/ui/customers", "Acme &amp; Söhne") == url
    assert browser.submit(url, {"title": "Acme"}).location == url
    again = browser.submit("/ui/customers", {"title": "Acme"})
    assert again.status == 400 and "already exists" in again.words and 'value="Acme"' in again.text
    hostile = browser.submit(url, {"title": HOSTILE})
    assert hostile.status == 400 and HOSTILE not in hostile.text and "&lt;script" in hostile.text
    form = browser.open(f"/ui/users/new?customer={url.rsplit('/', 1)[-1]}")
    assert "A user of the customer Acme" in form.words and 'name="role"' not in form.text
    password = shown_once(
        browser.submit("/ui/users/new", {"email": "c@x", "customer": url.rsplit("/", 1)[-1], "role": "ADMINISTRATOR"})
    )
    assert logs_in(browser, "c@x", password) and "c@x" in browser.open(url).words
    user = browser.open(url_of(browser, "/ui/users", "c@x"))
    assert "Customer's user" in user.words and 'name="role"' not in user.text
    assert browser.submit(f"{url}/delete").location == "/ui/customers"
    assert browser.open(url).status == 404 and not logs_in(browser, "c@x", password)


def test_operators_and_viewers_see_customers_and_change_none(browser: Browser) -> None:
    """No button, and no users of theirs."""
    url = browser.submit("/ui/customers", {"title": "Acme"}).location
    for role in (UserRole.OPERATOR, UserRole.VIEWER):
        browser.log_in_as(somebody(role))
        page = browser.open(url)
        assert page.status == 200 and "/delete" not in page.text and "Add a user" not in page.words
        assert browser.submit(url, {"title": "x"}).status == 403
        assert browser.submit("/ui/customers", {"title": "x"}).status == 403
        assert browser.submit(f"{url}/delete").status == 403
    browser.log_in_as(CUSTOMER_USER)
    assert [browser.open(one).status for one in ("/ui/customers", url)] == [403, 403]


# -- tenants --------------------------------------------------------------------------------------


def test_a_system_administrator_begins_at_the_tenants(system: Browser) -> None:
    """And sees nothing of what they have."""
    assert system.open("/ui/").location == "/ui/tenants"
    words = system.open("/ui/tenants").words
    assert "Users" in words and "Devices" not in words and "API keys" not in words
    for path in ("/ui/imports", "/ui/certificates", "/ui/customers", "/ui/api-keys"):
        assert system.open(path).status == 403, path


def test_a_tenant_is_added_with_its_administrator_and_deleted(system: Browser) -> None:
    """The title is typed before it goes."""
    url = system.submit("/ui/tenants", {"title": "Plant B", "maxDevices": "500"}).location
    assert url_of(system, "/ui/tenants", "Plant B") == url and "500" in system.open("/ui/tenants").words
    assert "Nobody can log in to this tenant yet" in system.open(url).words
    password = shown_once(system.submit(f"{url}/administrators", {"email": "b@x"}))
    assert logs_in(system, "b@x", password) and "b@x Administrator" in system.open(url).words
    twice = system.submit(f"{url}/administrators", {"email": "b@x"})
    assert twice.status == 400 and "already present" in twice.words
    assert system.submit(url, {"title": "Plant C", "maxDevices": ""}).location == url
    assert "Plant C" in system.open("/ui/tenants").words
    wrong = system.submit(f"{url}/delete", {"typed": "Plant B"})
    assert wrong.status == 400 and "is not the tenant's" in wrong.words and 'value="Plant B"' in wrong.text
    assert system.submit(f"{url}/delete", {"typed": "Plant C"}).location == "/ui/tenants"
    assert system.open(url).status == 404 and not logs_in(system, "b@x", password)


def test_a_tenant_goes_with_its_devices_only_where_that_is_ticked(system: Browser) -> None:
    """The refusal names the tick."""
    url = system.submit("/ui/tenants", {"title": "Plant B"}).location
    password = shown_once(system.submit(f"{url}/administrators", {"email": "b@x"}))
    kept, system.cookies = system.cookies, {}
    system.submit("/ui/login", {"username": "b@x", "password": password}, token="")
    plan = system.upload("/ui/imports/new", "name\nSN-1\n", fields={"update": "yes"}).location
    system.submit(f"{plan}/apply")
    while "data-live-every" in system.open(plan).text:
        system.settle()
    system.cookies = kept
    refused = system.submit(f"{url}/delete", {"typed": "Plant B"})
    assert refused.status == 400 and "tick 'Delete its devices too'" in refused.words
    assert system.submit(f"{url}/delete", {"typed": "Plant B", "devices": "yes"}).location == "/ui/tenants"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"title": ""}, "should be specified"),
        ({"title": HOSTILE}, "leave out markup"),
        ({"title": "x", "maxDevices": "many"}, "The limit of devices must be a whole number"),
        ({"title": "x", "maxDevices": "9999999999"}, "MaxDevices must be 0"),
    ],
)
def test_a_wrong_tenant_is_told_in_the_form(system: Browser, fields: dict[str, str], told: str) -> None:
    """With what was typed."""
    shown = system.submit("/ui/tenants", fields)
    assert shown.status == 400 and told in shown.words and HOSTILE not in shown.text


def test_the_first_tenant_stays(system: Browser) -> None:
    """No button; and a form of one's own is refused."""
    url = f"/ui/tenants/{DEFAULT_TENANT}"
    page = system.open(url)
    title = re.search(r"<h1>([^<]+)</h1>", page.text)
    assert page.status == 200 and "/delete" not in page.text and title is not None
    refused = system.submit(f"{url}/delete", {"typed": title[1]})
    assert refused.status == 400 and "first tenant cannot be deleted" in refused.words


# -- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", [somebody(UserRole.OPERATOR), somebody(UserRole.VIEWER), CUSTOMER_USER])
def test_people_are_for_administrators(browser: Browser, operator: Operator) -> None:
    """Users, keys and tenants are neither shown nor changed by others, nor in their navigation."""
    shown_once(browser.submit("/ui/users/new", {"email": "olga@x", "role": "OPERATOR"}))
    url = url_of(browser, "/ui/users", "olga@x")
    browser.log_in_as(operator)
    for path in ("/ui/users", "/ui/users/new", url, "/ui/api-keys", "/ui/tenants", f"/ui/tenants/{DEFAULT_TENANT}"):
        assert browser.open(path).status == 403, path
        assert path not in browser.open("/ui/account").text
    for path in ("/ui/users/new", url, f"{url}/password", f"{url}/delete", "/ui/api-keys", "/ui/tenants"):
        assert browser.submit(path, {"email": "e@x", "name": "x", "title": "x"}).status == 403, path


def test_tenants_are_not_for_the_administrators_of_one(browser: Browser) -> None:
    """Not even their own."""
    url = f"/ui/tenants/{DEFAULT_TENANT}"
    assert [browser.open(one).status for one in ("/ui/tenants", url)] == [403, 403]
    for path in ("/ui/tenants", url, f"{url}/administrators", f"{url}/delete"):
        assert browser.submit(path, {"title": "x", "email": "e@x", "typed": "default"}).status == 403, path


def test_users_of_another_tenant_are_not_found(browser: Browser) -> None:
    """By whatever path."""
    shown_once(browser.submit("/ui/users/new", {"email": "olga@x", "role": "OPERATOR"}))
    url = url_of(browser, "/ui/users", "olga@x")
    browser.log_in_as(Operator("b@x", "TENANT_ADMIN", 77, uuid4(), uuid4()))
    assert browser.open(url).status == 404
    for path in (url, f"{url}/password", f"{url}/delete"):
        assert browser.submit(path, {"email": "e@x"}).status == 404, path


def test_ids_that_are_none_are_not_found(browser: Browser) -> None:
    """Rather than an internal error."""
    for path in ("/ui/users/x", "/ui/customers/x", "/ui/imports/x", f"/ui/users/new?customer={HOSTILE}"):
        assert browser.open(path).status == 404, path


# -- values out of forms --------------------------------------------------------------------------


def test_numbers_and_days_out_of_forms() -> None:
    """Empty fields have a default; a day counts to its end, in UTC."""
    form = Form({"n": [" 12 "], "bad": ["-1"], "huge": ["9" * 30], "arabic": ["\u0663"], "day": ["2030-12-31"]})
    assert (number_of(form, "n", "N", 5), number_of(form, "none", "N", 5)) == (12, 5)
    for name in ("bad", "huge", "arabic", "day"):
        with pytest.raises(InvalidArgument, match="N must be a whole number"):
            number_of(form, name, "N", 5)
    ends = end_of_day_ms(form, "day", "D")
    assert ends is not None
    assert datetime.fromtimestamp(ends / 1000, UTC).isoformat() == "2030-12-31T23:59:59.999000+00:00"
    assert end_of_day_ms(form, "none", "D") is None
    for text in ("9999-12-31", "2030-13-01", "x"):
        with pytest.raises(InvalidArgument, match="D must be a day"):
            end_of_day_ms(Form({"day": [text]}), "day", "D")


def test_refusals_are_put_into_words_for_people() -> None:
    """Without the prefix that ThingsBoard's clients expect, and with what to do."""
    assert said(InvalidArgument("Validation error: name is malformed")).startswith("Name is malformed: leave out")
    assert said(InvalidArgument("")) != ""


def test_of_two_who_rename_a_customer_the_second_is_told(browser: Browser) -> None:
    """Neither overwrites what they have not seen."""
    browser.submit("/ui/customers", {"title": "Acme"})
    url = url_of(browser, "/ui/customers", "Acme")
    found = re.search(r'name="version" value="(\d+)"', browser.open(url).text)
    assert found is not None
    assert browser.submit(url, {"title": "Acme East", "version": found[1]}).location == url
    refused = browser.submit(url, {"title": "Acme West", "version": found[1]})
    assert refused.status == 400 and "already changed by someone else" in refused.words
    assert 'value="Acme West"' in refused.text and "Acme East" in browser.open(url).words


def test_all_devices_of_a_customer_are_reached(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, also behind a form that was refused."""
    monkeypatch.setattr(customer_pages, "SHOWN", 2)
    browser.submit("/ui/customers", {"title": "Acme"})
    url = url_of(browser, "/ui/customers", "Acme")
    for name in ("d-1", "d-2", "d-3"):
        made = browser.submit("/ui/devices/new", {"name": name, "profile": "default"}).location
        assert browser.submit(f"{made}/customer", {"customer": url.rsplit("/", 1)[1]}).status == 303
    browser.open(url)  # which tells what was done
    first, refused = browser.open(url), browser.submit(url, {"title": ""})
    for shown in (first, refused):
        assert "d-2" in shown.words and "d-3" not in shown.words and "1 to 2 of 3" in shown.words
        following = re.search(r'href="([^"]+)" rel="next"', shown.text)
        assert following is not None
        assert "d-3" in browser.open(unescape(following[1])).words
    assert "ends before this page" in browser.open(f"{url}?page=9").words


def test_a_device_goes_to_a_customer_that_the_list_does_not_hold(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the whole title; part of one is none."""
    monkeypatch.setattr(device_pages, "MAX_CUSTOMERS", 1)
    for title in ("Acme", "Acme West"):
        browser.submit("/ui/customers", {"title": title})
    device = browser.submit("/ui/devices/new", {"name": "d", "profile": "default"}).location
    assert "Or the title of another customer" in browser.open(device).words
    monkeypatch.setattr(device_pages, "MAX_CUSTOMERS", 5)
    assert "Or the title of another customer" not in browser.open(device).words
    refused = browser.submit(f"{device}/customer", {"customer_title": "West"})
    assert refused.status == 400 and "There is no customer 'West'" in refused.words
    assert browser.submit(f"{device}/customer", {"customer_title": "Acme West"}).location == device
    assert "belongs to Acme West now" in browser.open(device).words


@pytest.mark.parametrize("path", ["users", "customers", "profiles", "api-keys", "certificates", "devices", "imports"])
def test_an_order_that_cannot_be_had_counts_as_not_given(browser: Browser, path: str) -> None:
    """A link that was typed or has grown old shows the list all the same."""
    shown = browser.open(f"/ui/{path}?sort=evil&order=DESC")
    assert shown.status == 200 and "Unknown sort" not in shown.words
