"""Making a device profile in steps: what was typed stays, each step is checked, the last one creates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest

from cloud_core.model import Approval, DeviceProfile, KeyRules, ProvisionStrategy, Reprovisioning
from cloud_core.transports.http.ui.profile_forms import start_values
from tests.support.pki import Pki
from tests.support.rest import without_threads
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui import Browser, Shown

NEW = "/ui/profiles/new"
CHAIN = "X509_CERTIFICATE_CHAIN"
EVIL = '"><script>alert(1)</script>'


@pytest.fixture
def browser(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    without_threads(monkeypatch)
    browser = Browser(sqlite_store)
    yield browser
    browser.close()


def held(shown: Shown) -> dict[str, str]:
    """All that the page's form would send, hidden fields and visible ones."""
    form = shown.text[shown.text.index('class="card wizard"') :]
    found: dict[str, str] = {}
    for tag in re.findall(r"<input [^>]*>", form):
        attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if attributes.get("type") in ("checkbox", "radio") and " checked" not in tag:
            continue
        found[attributes["name"]] = unescape(attributes.get("value", ""))
    found |= {name: unescape(text) for name, text in re.findall(r'<textarea [^>]*name="(\w+)"[^>]*>([^<]*)<', form)}
    for name, body in re.findall(r'<select [^>]*name="(\w+)"[^>]*>(.*?)</select>', form, re.S):
        chosen = re.search(r'value="([^"]*)" selected', body)
        found[name] = unescape(chosen[1]) if chosen else ""
    found.pop("form_token", None)
    return found


def step(shown: Shown) -> str:
    found = re.search(r'name="step" value="(\w+)"', shown.text)
    assert found is not None, shown.words
    return found[1]


def go(browser: Browser, shown: Shown, to: str = "next", **typed: str) -> Shown:
    """Presses a button of the page that is shown, after typing."""
    return browser.submit(NEW, held(shown) | typed | {"go": to})


def made(browser: Browser, name: str = "meter") -> DeviceProfile:
    found: DeviceProfile | None = browser.api.store.read(lambda tx: tx.profile_by_name(TENANT, name))
    assert found is not None
    return found


def test_a_name_is_enough(browser: Browser) -> None:
    """The first page alone makes a profile that lets devices in, and leads to how they connect."""
    done = go(browser, browser.open(NEW), "create", name="meter")
    assert done.location == f"/ui/profiles/{made(browser).uuid}/connect"
    provision = made(browser).provision
    assert provision.strategy is ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES
    assert provision.reprovisioning is Reprovisioning.REPLAY_UNTIL_CONFIRMED
    assert (
        len(provision.key) == len(provision.secret) == 20 and provision.secret not in browser.open(done.location).text
    )


def test_all_steps_end_in_what_was_typed(browser: Browser) -> None:
    """Nothing typed is lost on the way, and the review tells it without the secret."""
    shown = go(browser, browser.open(NEW), name="meter", description="water")
    assert step(shown) == "strategy"
    shown = go(browser, shown, strategy="CHECK_PRE_PROVISIONED_DEVICES")
    assert step(shown) == "access"
    shown = go(browser, shown, key="my-key", secret="my-secret")
    assert step(shown) == "rules"
    shown = go(browser, shown, reprovisioning="REFUSE", window="99", approval="yes", accepts="yes", seeds="yes")
    assert step(shown) == "review" and "my-key" in shown.words and "as you typed it" in shown.words
    assert go(browser, shown, "create").status == 303
    profile, provision = made(browser), made(browser).provision
    assert profile.document["description"] == "water"
    assert (provision.key, provision.secret, provision.replay_window_s) == ("my-key", "my-secret", 99)
    assert provision.accept_device_credentials and provision.seed_error_messages
    assert (provision.approval, provision.reprovisioning) == (Approval.REQUIRED, Reprovisioning.REFUSE)


def test_going_back_keeps_everything(browser: Browser) -> None:
    """From the review to the first step and forward again; boxes that were unticked stay so."""
    shown = go(browser, browser.open(NEW), name="meter")
    shown = go(browser, go(browser, shown), key="my-key")
    shown = go(browser, shown, window="nonsense", to="access")  # what is wrong may be mended later
    assert step(shown) == "access" and held(shown)["key"] == "my-key" and held(shown)["window"] == "nonsense"
    for back in ("strategy", "details"):
        shown = go(browser, shown, back)
        assert step(shown) == back and shown.status == 200
    assert held(shown)["name"] == "meter" and held(shown)["key"] == "my-key" and held(shown)["approval"] == ""
    for expected in ("strategy", "access", "rules"):
        shown = go(browser, shown)
        assert step(shown) == expected
    assert step(go(browser, shown)) == "rules"
    assert step(go(browser, shown, window="60")) == "review"


@pytest.mark.parametrize(
    ("at", "typed", "problem"),
    [
        ("details", {"name": ""}, "name should be specified"),
        ("details", {"name": "<b>"}, "malformed"),
        ("details", {"name": "taken"}, "already exists"),
        ("strategy", {"strategy": "ANYBODY"}, "Choose one of the strategies"),
        ("rules", {"window": "-1"}, "The time in seconds must be"),
        ("rules", {"window": "9" * 12}, "The time in seconds must be"),
        ("rules", {"budget": "many"}, "must be a number of devices"),
        ("rules", {"budget": "9" * 15 + "9"}, "must be a number of devices"),
        ("rules", {"until": "31.12.2030"}, "must be a date"),
        ("rules", {"until": "9999-12-31"}, "must be a date"),
        ("rules", {"name_pattern": "("}, "The rule for names cannot be used"),
        ("rules", {"key_name": "<b>"}, "Name is malformed"),
        ("rules", {"key_name": "x" * 256}, "255"),
        ("rules", {"reprovisioning": "SOMETIMES"}, "SOMETIMES"),
        ("access", {"strategy": CHAIN}, "The CA certificate must be"),
        ("access", {"strategy": CHAIN, "pem": "nonsense"}, "The CA certificate cannot be read"),
        ("access", {"strategy": CHAIN, "pem": "x" * 50_000}, "The CA certificate cannot be read"),
    ],
)  # fmt: skip
def test_each_step_is_checked(browser: Browser, at: str, typed: dict[str, str], problem: str) -> None:
    """Pressing Next or Create shows the step of the problem again, with what was typed."""
    browser.api.store.add_profile("taken")
    fields = start_values() | {"name": "meter", "description": EVIL} | typed
    shown = browser.submit(NEW, fields | {"step": at, "go": "next"})
    assert shown.status == 400 and problem in shown.words and step(shown) == at
    assert held(shown)["description"] == EVIL and "<script>" not in shown.text.replace('<script type="module"', "")
    created = browser.submit(NEW, fields | {"step": "review", "go": "create"})
    assert created.status == 400 and step(created) == at and problem in created.words
    assert browser.api.store.read(lambda tx: tx.profile_by_name(TENANT, "meter")) is None


def test_a_key_that_is_taken_is_told_at_its_step(browser: Browser) -> None:
    """Only the database knows; the page of the key comes back."""
    browser.api.store.add_profile("taken")
    shown = browser.submit(
        NEW, start_values() | {"name": "meter", "key": "taken-key", "step": "review", "go": "create"}
    )
    assert shown.status == 400 and step(shown) == "access" and "already exists" in shown.words


def test_a_form_that_says_little_is_the_first_step(browser: Browser) -> None:
    """Unknown steps, wishes and fields do no harm."""
    assert step(browser.submit(NEW, {})) == "details"
    shown = browser.submit(NEW, {"name": "meter", "step": "connect", "go": "__class__", "nonsense": "1"})
    assert step(shown) == "strategy"


def test_a_budget_makes_a_key_that_is_shown_once(browser: Browser) -> None:
    """With its limits, in the commands right away; afterwards the page has the profile's own key again."""
    fields = start_values() | {
        "name": "meter", "budget": "500", "until": "2030-12-31", "name_pattern": "SN-.*", "step": "rules",
    }  # fmt: skip
    review = browser.submit(NEW, fields)
    assert "first-batch: 500 devices" in review.words
    shown = go(browser, review, "create")
    profile = made(browser)
    (key,) = browser.api.store.read(lambda tx: tx.provision_keys(profile.id))
    assert key.name == "first-batch"
    assert key.rules == KeyRules(budget=500, valid_until_ms=1_924_992_000_000, name_pattern="SN-.*")
    assert shown.status == 200 and key.key in shown.text and key.secret in shown.text and "this once" in shown.words
    assert profile.provision.secret not in shown.text
    again = browser.open(f"/ui/profiles/{profile.uuid}/connect").text
    assert key.key not in again and key.secret not in again


def test_a_profile_for_certificates(browser: Browser) -> None:
    """The CA is pasted, the name rule tried, and the review tells the CA's name."""
    root = Pki().root("Factory")
    fields = start_values() | {"name": "meter", "strategy": CHAIN, "pem": root.pem, "step": "access"}
    tried = browser.submit(NEW, fields | {"pattern": r"(.*)\.plant", "try_name": "SN-1.plant", "go": "try"})
    assert "The device is called SN-1" in tried.words and held(tried)["pem"].strip() == root.pem.strip()
    refused = browser.submit(NEW, fields | {"pattern": r"(.*)\.plant", "try_name": EVIL, "go": "try"})
    assert "Not let in" in refused.words and "does not match the rule" in refused.words and EVIL not in refused.text
    assert "cannot be used" in browser.submit(NEW, fields | {"pattern": "(", "try_name": "x", "go": "try"}).words
    assert "type a common name" in browser.submit(NEW, fields | {"go": "try"}).words
    shown = go(browser, tried)
    assert step(shown) == "rules" and "nothing more to decide" in shown.words
    review = go(browser, shown)
    assert "CN=Factory" in review.words
    done = go(browser, review, "create", creates="")
    assert done.status == 303
    provision = made(browser).provision
    assert provision.certificate_pattern == r"(.*)\.plant" and not provision.allow_create_by_certificate


def test_a_ca_of_the_core_is_chosen_by_its_name(browser: Browser) -> None:
    """Its certificate is taken, without its key."""
    body = b'{"name": "plant", "curve": "P-256", "years": 5}'
    token = browser.cookies["muster_token"]
    status, _, answer = browser.post("/api/ca", body, f"X-Authorization: Bearer {token}\r\n")
    assert status == 200, answer
    fields = start_values() | {"name": "meter", "strategy": CHAIN, "step": "strategy"}
    shown = browser.submit(NEW, fields)
    assert "CA of this core" in shown.words and "plant" in shown.words
    review = go(browser, go(browser, shown, ca="plant"))
    assert "plant" in review.words
    assert go(browser, review, "create").status == 303
    assert made(browser).provision.secret.count("BEGIN CERTIFICATE") == 1
