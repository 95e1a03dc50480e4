"""What ends when, revoking, and CAs, by the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from cloud_core.core.people.logins import Operator
from cloud_core.model import DEFAULT_TENANT, KnownCertificate, UserRole
from cloud_core.transports.http.ui.certificate_pages import ending_of, standing
from shared import certificates
from tests.support.authorities import csr
from tests.support.rest import Rest, without_threads
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Browser, somebody

DAY_MS = 86_400_000
HOSTILE = "<script>alert(1)</script>"
CUSTOMER_USER = Operator("u@x", "CUSTOMER_USER", TENANT, DEFAULT_TENANT, uuid4(), 1, None)


@pytest.fixture
def rest(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    without_threads(monkeypatch)
    peer = Rest(sqlite_store)
    yield peer
    peer.close()


@pytest.fixture
def browser(rest: Rest, sqlite_store: StoreUnderTest) -> Iterator[Browser]:
    browser = Browser(sqlite_store)
    yield browser
    browser.close()


def issued(rest: Rest, name: str = "SN-1", days: int = 20) -> dict[str, Any]:
    """A device that logs in with a certificate of the CA `plant`."""
    made: dict[str, Any] = rest.made("/api/ca/plant/issue", {"name": name, "csr": csr(), "days": days})
    credentials = {"credentialsType": "X509_CERTIFICATE", "credentialsValue": made["certificate"]}
    rest.made("/api/device-with-credentials", {"device": {"name": name}, "credentials": credentials})
    return made


def test_what_ends_first_comes_first(rest: Rest, browser: Browser) -> None:
    """Devices' certificates and the CA's own, each with how it stands."""
    assert "No device has shown a certificate yet" in browser.open("/ui/certificates").words
    rest.made("/api/ca", {"name": "plant"})
    issued(rest, "SN-late", 300)
    issued(rest, "SN-soon", 5)
    words = browser.open("/ui/certificates").words
    assert re.search(r"CA plant CN=plant .* valid", words)
    assert words.index("SN-soon") < words.index("SN-late") and words.count("ends soon") == 1
    month = browser.open("/ui/certificates?within=30").words
    assert "SN-soon" in month and "SN-late" not in month and "CN=plant" not in month
    assert "SN-late" in browser.open("/ui/certificates?q=SN-late").words
    assert "No certificate of a device is like this" in browser.open("/ui/certificates?q=nobody").words
    assert browser.open("/ui/certificates?within=nonsense").status == 200


def test_a_certificate_is_revoked_for_a_reason(rest: Rest, browser: Browser) -> None:
    """It is out of those in use then, and says since when and why; there is no second time."""
    rest.made("/api/ca", {"name": "plant"})
    url = f"/ui/certificates/{issued(rest)['fingerprint']}"
    assert f'href="{url}"' in browser.open("/ui/certificates").text
    page = browser.open(url)
    assert "data-confirm=" in page.text and "CN=plant" in page.words and 'value="keyCompromise"' in page.text
    wrong = browser.submit(f"{url}/revoke", {"reason": "boredom"})
    assert wrong.status == 400 and "Reason must be one of" in wrong.words
    assert browser.submit(f"{url}/revoke", {"reason": "keyCompromise"}).location == url
    revoked = browser.open(url)
    assert "somebody else may have its key" in revoked.words and "/revoke" not in revoked.text
    assert url not in browser.open("/ui/certificates").text
    assert url in browser.open("/ui/certificates?within=all").text


def test_a_certificate_of_nobody_is_not_found(browser: Browser) -> None:
    """Whatever stands in the address."""
    for name in ("00" * 32, "zz", "00", "%3Cscript%3E"):
        shown = browser.open(f"/ui/certificates/{name}")
        assert shown.status == 404 and "<script>" not in shown.text.replace("<script type", ""), name


def test_a_ca_is_made_and_its_certificate_downloaded(browser: Browser) -> None:
    """Its certificate and its revocation list are for everybody."""
    assert "There is no CA" in browser.open("/ui/certificates/authorities").words
    made = browser.submit("/ui/certificates/authorities", {"name": "plant", "keyType": "P-384", "years": "3"})
    assert made.location == "/ui/certificates/authorities"
    shown = browser.open(made.location)
    assert re.search(r"plant CN=plant P-384 .* valid", shown.words) and "The CA plant is made." in shown.words
    found = re.search(r'href="(/api/ca/[^"]+/certificates)" download="plant.pem"', shown.text)
    assert found is not None
    assert certificates.load_all(browser.get(found[1])[2].decode())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "name"),
        ({"name": HOSTILE}, "no / or markup"),
        ({"name": "x", "years": "soon"}, "Years must be a whole number"),
        ({"name": "x", "years": "9" * 40}, "Years must be a whole number"),
        ({"name": "x", "years": "0"}, "Years must be 1 to"),
        ({"name": "x", "keyType": "RSA"}, "P-256"),
    ],
)
def test_a_wrong_ca_is_told_in_the_form(browser: Browser, fields: dict[str, str], said: str) -> None:
    """With what was typed."""
    shown = browser.submit("/ui/certificates/authorities", fields)
    assert shown.status == 400 and said in shown.words and HOSTILE not in shown.text
    assert not fields["name"] or f'value="{fields["name"].replace("<", "&lt;").replace(">", "&gt;")}"' in shown.text


@pytest.mark.parametrize("role", [UserRole.OPERATOR, UserRole.VIEWER])
def test_others_look_and_change_nothing(rest: Rest, browser: Browser, role: UserRole) -> None:
    """Operators and viewers see no button, and their forms are refused."""
    rest.made("/api/ca", {"name": "plant"})
    url = f"/ui/certificates/{issued(rest)['fingerprint']}"
    browser.log_in_as(somebody(role))
    page = browser.open(url)
    assert page.status == 200 and "/revoke" not in page.text
    assert "Make a CA" not in browser.open("/ui/certificates/authorities").words
    assert browser.submit(f"{url}/revoke", {"reason": "unspecified"}).status == 403
    assert browser.submit("/ui/certificates/authorities", {"name": "x"}).status == 403


def test_customers_users_see_none(rest: Rest, browser: Browser) -> None:
    """Certificates are the tenant's."""
    rest.made("/api/ca", {"name": "plant"})
    url = f"/ui/certificates/{issued(rest)['fingerprint']}"
    browser.log_in_as(CUSTOMER_USER)
    assert {browser.open(one).status for one in ("/ui/certificates", "/ui/certificates/authorities", url)} == {403}


def test_another_tenants_certificate_is_not_found(rest: Rest, browser: Browser) -> None:
    """Nor revoked."""
    rest.made("/api/ca", {"name": "plant"})
    url = f"/ui/certificates/{issued(rest)['fingerprint']}"
    browser.log_in_as(Operator("b@x", "TENANT_ADMIN", 77, uuid4(), uuid4()))
    assert browser.open(url).status == 404
    assert browser.submit(f"{url}/revoke", {"reason": "unspecified"}).status == 404


def known(**members: Any) -> KnownCertificate:
    given: dict[str, Any] = {
        "id": 1, "tenant_id": 1, "device_id": 1, "authority_id": None, "fingerprint": b"", "serial": "1", "subject": "",
        "issuer": "", "not_before_ms": 0, "not_after_ms": 100 * DAY_MS, "created_ms": 0,
    }  # fmt: skip
    return KnownCertificate(**(given | members))


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({}, "valid"),
        ({"not_after_ms": 20 * DAY_MS}, "ends soon"),
        ({"not_after_ms": 9 * DAY_MS}, "over"),
        ({"revoked_ms": 1, "until_ms": 1}, "revoked"),
        ({"until_ms": 11 * DAY_MS}, "replaced, still accepted"),
        ({"until_ms": 9 * DAY_MS}, "replaced"),
    ],
)
def test_how_a_certificate_stands(members: dict[str, Any], text: str) -> None:
    """Revoked before replaced before ended; on the tenth day, warned of for thirty."""
    assert ending_of(known(**members), 10 * DAY_MS, 30).text == text


def test_an_end_is_warned_of_in_time() -> None:
    """From so many days before it."""
    assert standing(40 * DAY_MS, 10 * DAY_MS, 30).kind == "good"
    assert standing(40 * DAY_MS - 1, 10 * DAY_MS, 30).kind == "warn"
