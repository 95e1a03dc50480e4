"""The manifest of an import and its labels by the pages: shown once, to those who may."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from cloud_core.core.labels import labels
from cloud_core.core.people.logins import Operator
from cloud_core.model import UserRole
from cloud_core.transports.http.ui.manifest_pages import options_of
from cloud_core.transports.http.ui.visits import Form
from shared.errors import InvalidArgument
from tests.cloud_core.transports.test_manifest_rest import joined
from tests.cloud_core.transports.ui.test_import_pages import CUSTOMER_USER, ended, planned
from tests.support.labels import codes_of
from tests.support.rest import without_threads
from tests.support.stores import StoreUnderTest
from tests.support.ui import Browser, somebody

FILE = "name,type,label,access_token\nSN-1,sensor,one,token-1\nSN-2,sensor,,token-2\n"


@pytest.fixture
def browser(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    without_threads(monkeypatch)
    monkeypatch.setattr(labels, "deferToThread", lambda work, *args, **options: _Done(work(*args, **options)))
    sqlite_store.add_profile("sensor")
    browser = Browser(sqlite_store)
    yield browser
    browser.close()


class _Done:
    """As a Deferred that has come."""

    def __init__(self, result: object) -> None:
        self._result = result

    def __await__(self) -> Iterator[object]:
        return self._result
        yield


@pytest.fixture
def url(browser: Browser) -> str:
    """Of an import of two devices that is applied."""
    made = planned(browser, FILE)
    browser.submit(f"{made}/apply")
    ended(browser, made)
    return made


def downloaded(browser: Browser, path: str, fields: dict[str, str]) -> tuple[str, bytes]:
    """Head and body of a file that a form has asked for."""
    token = browser._form_token()
    body = "&".join(f"{name}={value}" for name, value in {"form_token": token, **fields}.items()).encode()
    browser.send(
        f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"{browser._cookie_header()}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    for _ in range(4):
        browser.settle()
    head, _, sent = browser.transport.value().partition(b"\r\n\r\n")
    browser.transport.clear()
    return head.decode().lower(), joined(sent) if b"chunked" in head.lower() else sent


def test_an_import_leads_to_its_manifest(browser: Browser, url: str) -> None:
    """Once it has devices; before, the page says that there are none."""
    assert f'href="{url}/manifest"' in browser.open(url).text
    shown = browser.open(f"{url}/manifest")
    assert shown.status == 200 and "all 2 devices" in shown.words and "Nobody has it yet" in shown.words
    assert "token-1" not in shown.text and "token-2" not in shown.text
    plan = planned(browser, "name\nSN-9\n")
    assert "manifest" not in browser.open(plan).text
    assert "This import has no devices yet" in browser.open(f"{plan}/manifest").words


def test_the_manifest_is_downloaded_once(browser: Browser, url: str) -> None:
    """Afterwards the page says who has it, and an administrator lets it be taken once more."""
    head, body = downloaded(browser, f"{url}/manifest", {"format": "csv"})
    assert "content-disposition: attachment" in head and "cache-control: no-store" in head and b"token-1" in body
    taken = browser.open(f"{url}/manifest")
    assert "administrator@test has it" in taken.words and "Download the manifest" not in taken.words
    again = browser.submit(f"{url}/manifest", {"format": "csv"})
    assert again.status == 400 and "was taken by administrator@test" in again.words
    assert "content-disposition" not in again.headers and "token-1" not in again.text
    assert browser.submit(f"{url}/manifest/release").location == f"{url}/manifest"
    head, body = downloaded(browser, f"{url}/manifest", {"format": "ndjson"})
    assert "application/x-ndjson" in head and body.count(b"\n") == 2


def test_a_form_of_somebody_else_takes_nothing(browser: Browser, url: str) -> None:
    """Neither without the token of the login nor from another site."""
    assert browser.submit(f"{url}/manifest", {"format": "csv"}, token="").status == 403
    refused = browser.submit(f"{url}/manifest", {"format": "csv"}, headers="Sec-Fetch-Site: cross-site\r\n")
    assert refused.status == 403
    assert "Nobody has it yet" in browser.open(f"{url}/manifest").words


def test_labels_are_made(browser: Browser, url: str) -> None:
    """Without credentials unless these are asked for, which takes the manifest."""
    head, body = downloaded(browser, f"{url}/manifest/labels", {"sheet": "a4-21", "code": "qr", "from": "2"})
    assert "content-type: application/pdf" in head and body.startswith(b"%PDF")
    assert "Nobody has it yet" in browser.open(f"{url}/manifest").words
    head, body = downloaded(browser, f"{url}/manifest/labels", {"secret": "yes"})
    assert "application/pdf" in head and any("token-1" in one for one in codes_of(body))
    assert "as labels with credentials" in browser.open(f"{url}/manifest").words


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"sheet": "a3"}, "Unknown sheet"), ({"sheet": "roll", "roll": "<script>"}, "Unknown sheet"),
        ({"from": "x"}, "The first row must be a whole number"), ({"start": "99"}, "position to start at"),
        ({"secret": "yes", "to": "1"}, "for the whole import"), ({"code": "aztec"}, "The code must be"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_are_said_beside_the_form(
    browser: Browser, url: str, fields: dict[str, str], said: str
) -> None:
    """With what was typed still there, and the manifest untouched."""
    shown = browser.submit(f"{url}/manifest/labels", fields)
    assert shown.status == 400 and said in shown.words and "<script>" not in shown.text.replace("<script type", "")
    assert "Nobody has it yet" in shown.words


@pytest.mark.parametrize("operator", [somebody(UserRole.VIEWER), CUSTOMER_USER])
def test_who_may_not_import_has_no_manifest(browser: Browser, url: str, operator: Operator) -> None:
    """Neither the page nor what its forms send to."""
    browser.log_in_as(operator)
    assert browser.open(f"{url}/manifest").status == 403
    for path in ("", "/release", "/labels"):
        assert browser.submit(f"{url}/manifest{path}", {"secret": "yes"}).status == 403


def test_an_operator_takes_it_and_releases_nothing(browser: Browser, url: str) -> None:
    """That is for administrators."""
    browser.log_in_as(somebody(UserRole.OPERATOR))
    assert "Download the manifest" in browser.open(f"{url}/manifest").words
    downloaded(browser, f"{url}/manifest", {})
    assert "an administrator can let it" in browser.open(f"{url}/manifest").words
    assert browser.submit(f"{url}/manifest/release").status == 403


def test_another_tenant_finds_nothing(browser: Browser, url: str) -> None:
    """As if there were no such import."""
    other = Operator("b@other", "TENANT_ADMIN", 77, uuid4(), uuid4(), session=uuid4())
    browser.log_in_as(other)
    assert browser.open(f"{url}/manifest").status == 404
    for path in ("", "/release", "/labels"):
        assert browser.submit(f"{url}/manifest{path}").status == 404


def test_rolls_are_named_by_their_size() -> None:
    """In millimetres, however people write that."""
    assert options_of(Form({"sheet": ["roll"], "roll": ["62 × 29"]})).sheet == "roll-62x29"
    assert options_of(Form({"sheet": ["roll"]})).sheet == "roll-50x25"
    with pytest.raises(InvalidArgument):
        options_of(Form({"to": ["-1"]}))
