"""Device profiles in the web UI: list, settings, secret on request, editing, default, deleting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from cloud_core.core.people.logins import Operator
from cloud_core.model import Approval, DeviceProfile, Reprovisioning, UserRole
from tests.support.pki import Pki
from tests.support.rest import without_threads
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Browser, somebody

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def browser(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    without_threads(monkeypatch)
    sqlite_store.add_profile("sensor")
    browser = Browser(sqlite_store)
    yield browser
    browser.close()


def profile(browser: Browser, name: str = "sensor") -> DeviceProfile:
    found: DeviceProfile | None = browser.api.store.read(lambda tx: tx.profile_by_name(TENANT, name))
    assert found is not None
    return found


def url(browser: Browser, rest: str = "", name: str = "sensor") -> str:
    return f"/ui/profiles/{profile(browser, name).uuid}{rest}"


def fields_of(html: str) -> dict[str, str]:
    """What a browser would send of the page's own form, untouched."""
    form = html[html.index('class="edit"') :]
    found = dict(re.findall(r'<input id="f-[\w-]+" name="(\w+)" type="(?:text|password)" value="([^"]*)"', form))
    found |= dict(re.findall(r'<input type="hidden" name="(version)" value="([^"]*)"', form))
    found |= dict.fromkeys(re.findall(r'name="(\w+)" type="checkbox" value="yes" checked', form), "yes")
    found |= dict(re.findall(r'name="(strategy)" type="radio" value="(\w+)" checked', form))
    found |= dict(re.findall(r'<textarea id="f-\w+" name="(\w+)"[^>]*>([^<]*)</textarea>', form))
    for select in re.findall(r'<select id="f-\w+" name="(\w+)".*?</select>', form, re.S):
        part = form[form.index(f'name="{select}"') :]
        chosen = re.search(r'<option value="([^"]*)" selected', part[: part.index("</select>")])
        found[select] = chosen[1] if chosen else ""
    return {name: unescape(value) for name, value in found.items()}


def test_the_list_tells_strategy_default_and_keys(browser: Browser) -> None:
    """Each profile with its strategy in words, and what to do next."""
    store = browser.api.store
    store.add_profile("gate", strategy="DISABLED", key="", secret="")
    gate = profile(browser, "gate")
    store.run(lambda tx: tx.set_default_profile(TENANT, gate.id))
    browser.submit("/ui/profiles/new", {"name": "more", "go": "create", "budget": "5"})
    shown = browser.open("/ui/profiles")
    assert shown.status == 200
    assert "gate default disabled 0" in shown.words and "sensor creates new devices 0" in shown.words
    assert "more creates new devices 1" in shown.words and "Choose a strategy" in shown.words


def test_the_list_is_searched_sorted_and_paged(browser: Browser) -> None:
    """In the database; an empty result leads back to all."""
    for number in range(30):
        browser.api.store.add_profile(f"kind-{number:02}")
    assert "1 to 25 of 31" in browser.open("/ui/profiles").words
    second = browser.open("/ui/profiles?page=2&sort=name&order=DESC")
    assert "kind-04" in second.words and "kind-20" not in second.words
    assert "kind-07" in browser.open("/ui/profiles?q=-07").words
    assert "Show all" in browser.open("/ui/profiles?q=nothing").words
    assert "1 to 25 of 31" in browser.open("/ui/profiles?sort=secret").words  # as if it were not given


def test_a_profile_hides_its_secret_until_it_is_asked_for(browser: Browser) -> None:
    """The key is shown, since it is none; the secret comes with a form of the page alone, and is not kept."""
    shown = browser.open(url(browser))
    assert "sensor-key" in shown.text and "sensor-secret" not in shown.text and "Reveal" in shown.text
    assert browser.open(url(browser, "/reveal")).location == url(browser)
    assert browser.submit(url(browser, "/reveal"), token="0" * 32).status == 403
    revealed = browser.submit(url(browser, "/reveal"))
    assert "sensor-secret" in revealed.text and revealed.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("role", [UserRole.OPERATOR, UserRole.VIEWER])
def test_who_may_not_administer_sees_and_changes_nothing(browser: Browser, role: UserRole) -> None:
    """No buttons, no secret, and the forms refuse."""
    browser.log_in_as(somebody(role))
    shown = browser.open(url(browser))
    assert shown.status == 200 and not re.search(r"Reveal|Delete|Make default|/edit|/keys", shown.text)
    assert "New profile" not in browser.open("/ui/profiles").text
    assert browser.open("/ui/profiles/new").status == browser.open(url(browser, "/edit")).status == 403
    for rest in ("/reveal", "/default", "/delete", "/edit"):
        assert browser.submit(url(browser, rest)).status == 403
    assert browser.submit("/ui/profiles/new", {"name": "x", "go": "create"}).status == 403


def test_a_customers_user_sees_no_profiles(browser: Browser) -> None:
    """They are the tenant's."""
    browser.log_in_as(Operator("u@x", "CUSTOMER_USER", 1, somebody().tenant_uuid, somebody().user_uuid, 1, None))
    for rest in ("", "/connect", "/test", "/edit"):
        assert browser.open(url(browser, rest)).status == 403
    assert browser.open("/ui/profiles").status == 403


def test_another_tenants_profile_is_not_there(browser: Browser) -> None:
    """404, as for an id that nobody has."""
    address = url(browser)
    browser.log_in_as(replace(somebody(), tenant_id=2))
    for rest in ("", "/edit", "/connect", "/test"):
        assert browser.open(address + rest).status == 404
    assert browser.open("/ui/profiles/nonsense").status == 404


def test_an_untouched_form_changes_nothing(browser: Browser) -> None:
    """What no field is for stays as it is, the secret too."""
    document: dict[str, Any] = {
        "description": "old", "image": "tb-image;/a.png", "transportType": "MQTT",
        "profileData": {
            "transportConfiguration": {"type": "MQTT", "deviceTelemetryTopic": "a/+", "maxSessionsPerDevice": 3},
            "provisionConfiguration": {"unknownToUs": 1},
        },
    }  # fmt: skip
    browser.api.store.add_profile(
        "full", document, reprovisioning=Reprovisioning.REPLAY_UNTIL_CONFIRMED, replay_window_s=77,
        approval=Approval.REQUIRED, accept_device_credentials=True, seed_error_messages=True, authority="plant",
        certificate_days=12,
    )  # fmt: skip
    before = profile(browser, "full")
    form = browser.open(url(browser, "/edit", "full"))
    assert "full-secret" not in form.text and '<details class="card" open>' in form.text
    done = browser.submit(url(browser, "/edit", "full"), fields_of(form.text))
    assert done.status == 303, done.words
    after = profile(browser, "full")
    assert after.provision == before.provision
    kept = after.document["profileData"]
    assert after.document["image"] == "tb-image;/a.png" and kept["provisionConfiguration"]["unknownToUs"] == 1
    configuration = kept["transportConfiguration"]
    assert configuration["deviceTelemetryTopic"] == "a/+" and configuration["maxSessionsPerDevice"] == 3


def test_a_profile_is_edited(browser: Browser) -> None:
    """Name, secret, rules; a new secret replaces the old one."""
    fields = fields_of(browser.open(url(browser, "/edit")).text)
    fields |= {"name": "meter", "secret": "fresh-secret", "window": "60", "approval": "yes", "description": "of hall 3"}
    done = browser.submit(url(browser, "/edit"), fields)
    assert done.location == url(browser, "", "meter")
    shown = browser.open(done.location)
    assert "The profile meter is saved" in shown.words and "of hall 3" in shown.words
    provision = profile(browser, "meter").provision
    assert (provision.secret, provision.replay_window_s, provision.approval) == ("fresh-secret", 60, Approval.REQUIRED)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": ""}, "name should be specified"),
        ({"name": EVIL}, "Name is malformed"),
        ({"name": "x" * 256}, "255"),
        ({"window": "soon"}, "The time in seconds must be 0 to"),
        ({"strategy": "NONSENSE"}, "NONSENSE"),
        ({"strategy": "X509_CERTIFICATE_CHAIN"}, "The CA certificate must be"),
        ({"strategy": "X509_CERTIFICATE_CHAIN", "pem": "-----BEGIN PRIVATE KEY-----"}, "holds a private key"),
        ({"strategy": "X509_CERTIFICATE_CHAIN", "pattern": "("}, "The name rule cannot be used"),
        ({"reprovisioning": "SOMETIMES"}, "SOMETIMES"),
        ({"transport": "PIGEON"}, "The transport must be one of"),
        ({"certificate_days": "0"}, "The days of a certificate must be"),
        ({"version": "99"}, "Somebody else has changed this profile"),
        ({"version": "9" * 5_000}, "Somebody else has changed this profile"),
        ({"version": ""}, "Somebody else has changed this profile"),
    ],
)  # fmt: skip
def test_a_wrong_form_is_shown_again(browser: Browser, changes: dict[str, str], problem: str) -> None:
    """With what was typed and the problem in words; nothing is changed, and no secret is in the page."""
    before = profile(browser)
    fields = fields_of(browser.open(url(browser, "/edit")).text) | {"description": f"typed {EVIL}"} | changes
    shown = browser.submit(url(browser, "/edit"), fields)
    assert shown.status == 400 and problem in shown.words
    assert EVIL not in shown.text and "typed &lt;script&gt;" in shown.text and "sensor-secret" not in shown.text
    assert profile(browser) == before


def test_the_strategy_can_become_certificates_and_back(browser: Browser) -> None:
    """Key and secret mean something else then, and are made anew on the way back."""
    root = Pki().root("Factory")
    fields = fields_of(browser.open(url(browser, "/edit")).text)
    fields |= {"strategy": "X509_CERTIFICATE_CHAIN", "pem": root.pem, "pattern": "(.*)", "approval": "yes"}
    assert browser.submit(url(browser, "/edit"), fields).status == 303
    shown = browser.open(url(browser))
    assert "CN=Factory" in shown.words and "Reveal" not in shown.text and "SHA-256" in shown.text
    fields = fields_of(browser.open(url(browser, "/edit")).text)
    assert "BEGIN CERTIFICATE" in fields["pem"]
    assert browser.submit(url(browser, "/edit"), fields | {"strategy": "ALLOW_CREATE_NEW_DEVICES"}).status == 303
    provision = profile(browser).provision
    assert len(provision.secret) == len(provision.key) == 20 and provision.key != "sensor-key"


def test_a_profile_becomes_the_default_and_is_not_deleted_then(browser: Browser) -> None:
    """A refusal is told on the profile's page."""
    assert browser.submit(url(browser, "/default")).location == url(browser)
    assert "sensor is the default profile now" in browser.open(url(browser)).words
    shown = browser.submit(url(browser, "/delete"))
    assert shown.status == 400 and "Default Device Profile" in shown.words


def test_a_profile_with_devices_stays(browser: Browser) -> None:
    """What to do first is said; without devices it goes."""
    browser.api.store.add_device("d", profile(browser).id)
    browser.api.store.add_profile("empty")
    shown = browser.submit(url(browser, "/delete"))
    assert shown.status == 400 and "Move or delete its devices first" in shown.words
    assert browser.submit(url(browser, "/delete", "empty")).location == "/ui/profiles"
    assert "The profile empty is deleted" in browser.open("/ui/profiles").words


def test_names_from_devices_stay_text(browser: Browser) -> None:
    """Whatever a name holds, nothing in it becomes a part of the page."""
    name = "a\"><img src=x>&amp;'"
    browser.api.store.add_profile(name, {"description": EVIL})
    for path in ("/ui/profiles", *(url(browser, rest, name) for rest in ("", "/edit", "/connect", "/test"))):
        shown = browser.open(path)
        assert shown.status == 200 and "<img src=x" not in shown.text and EVIL not in shown.text
