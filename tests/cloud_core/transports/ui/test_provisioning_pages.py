"""Attempts with their explanation, and requests that wait for approval."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from cloud_core.model import Page, PendingFilter, RequestStatus, UserRole
from tests.support.rest import without_threads
from tests.support.stores import TENANT, StoreUnderTest
from tests.support.ui_ops import HOSTILE, Plant

LIST = "/ui/provisioning"
PENDING = f"{LIST}/pending"


@pytest.fixture
def plant(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    without_threads(monkeypatch)
    plant = Plant(sqlite_store)
    yield plant
    plant.browser.close()


def statuses(plant: Plant) -> dict[str, str]:
    rows, _ = plant.store.read(lambda tx: tx.pending_requests(TENANT, PendingFilter(status=None), Page(100)))
    return {one.name: one.status.value for one in rows}


def test_an_empty_list_says_what_to_do(plant: Plant) -> None:
    """The first device, or another filter."""
    assert "No device has asked" in plant.browser.open(LIST).words
    assert "No attempt matches" in plant.browser.open(f"{LIST}?q=x").words


def test_attempts_are_listed_and_filtered(plant: Plant) -> None:
    """By outcome, device, profile, text and time; each leads to its explanation."""
    plant.ask("good")
    refused = plant.ask("bad", provision_secret="wrong")
    shown = plant.browser.open(LIST)
    assert "Granted" in shown.words and "Wrong key or secret" in shown.words and refused.ref in shown.text
    for query in ("outcome=REFUSED", "deviceName=bad", "q=bad", "outcome=INVALID_PROVISION_CREDENTIALS&since=1h"):
        found = plant.browser.open(f"{LIST}?{query}").words
        assert "Wrong key or secret wrong secret" in found and "good" not in found, query
    assert "good" in plant.browser.open(f"{LIST}?deviceProfileId={plant.uuids['sensor']}").words
    assert "No attempt matches" in plant.browser.open(f"{LIST}?deviceProfileId={plant.uuids['lock']}").words
    plant.later(3_700)
    assert "No attempt matches" in plant.browser.open(f"{LIST}?since=1h").words


@pytest.mark.parametrize("query", ["outcome=NOTHING", "deviceProfileId=x", "startTs=abc"])
def test_filters_that_cannot_be_read_are_told(plant: Plant, query: str) -> None:
    """The list is shown all the same."""
    plant.ask("d")
    shown = plant.browser.open(f"{LIST}?{query}")
    assert shown.status == 400 and "All attempts are shown" in shown.words and "Granted" in shown.words


def test_older_attempts_follow_without_shifting(plant: Plant) -> None:
    """The way to older ones is a place in the log; new ones do not move it."""
    for number in range(30):
        plant.ask(f"d{number:02}")
    first = plant.browser.open(LIST)
    assert "d29" in first.words and "d04" not in first.words and 'data-live="attempt"' in first.text
    (older,) = [one for one in _links(first.text) if "before=" in one]
    plant.ask("new")
    shown = plant.browser.open(older)
    assert "d04" in shown.words and "d05" not in shown.words and "data-live=" not in shown.text
    assert plant.browser.open(f"{LIST}?before=x").status == 200


def test_the_live_list_is_rendered_once_for_all_who_filter_alike(plant: Plant) -> None:
    """The page itself is always of now; a live part is two seconds old at most."""
    plant.ask("one")
    live = f"{LIST}/live?deviceName=one"
    assert f'data-live-src="{live}"' in plant.browser.open(f"{LIST}?deviceName=one").text
    before = plant.browser.open(live)
    plant.ask("one")
    assert plant.browser.open(live).text == before.text
    assert plant.browser.open(f"{LIST}?deviceName=one").text.count("<tr>") == 3
    plant.later(2)
    assert plant.browser.open(live).text.count("<tr>") == 3
    assert plant.browser.open(f"{LIST}/live?outcome=NO").status == 400
    assert plant.as_customer_user().open(live).status == 403


def _links(text: str) -> list[str]:
    return [part.split('"')[0].replace("&amp;", "&") for part in text.split('href="')[1:]]


def test_a_refusal_is_explained(plant: Plant) -> None:
    """Which check decided, the cause, the fix, and what was asked, without the secret."""
    refused = plant.ask("dev-1", provision_secret="guessed-secret")
    shown = plant.browser.open(f"{LIST}/{refused.ref.lower()}")
    assert shown.status == 200 and "wrong secret for the key" in shown.words and "Compare key and secret" in shown.words
    assert "guessed-secret" not in shown.text and "dev-1" in shown.words
    plant.ask("dev-2")
    links = _links(plant.browser.open(f"{LIST}?deviceName=dev-2").text)
    (ref,) = {one.rsplit("/", 1)[1] for one in links if one.startswith(f"{LIST}/")} - {"storm", "pending", "live"}
    assert 'href="/ui/devices/' in plant.browser.open(f"{LIST}/{ref}").text
    assert f'href="/ui/profiles/{plant.uuids["sensor"]}"' in plant.browser.open(f"{LIST}/{ref}").text


def test_an_unknown_reference_is_told(plant: Plant) -> None:
    """With what may have happened to it."""
    shown = plant.browser.open(f"{LIST}/NOTHING")
    assert shown.status == 404 and "mistyped, or expired" in shown.words


def test_names_from_devices_are_text(plant: Plant) -> None:
    """Wherever they are shown; scripts among them do not run."""
    refused = plant.ask(HOSTILE, provision_secret="x")
    plant.ask(f"l {'y' * 200}", "lock", source=HOSTILE)
    for path in (LIST, f"{LIST}/{refused.ref}", f"{LIST}/storm", PENDING, f"{PENDING}?q=%3Cscript%3E", "/ui/"):
        shown = plant.browser.open(path)
        assert shown.status == 200 and "<script>alert" not in shown.text, path


def test_who_may_decide(plant: Plant) -> None:
    """Operators and administrators; viewers see attempts alone, customers' users nothing."""
    plant.ask("l", "lock")
    for role, status in ((UserRole.ADMINISTRATOR, 200), (UserRole.OPERATOR, 200), (UserRole.VIEWER, 403)):
        assert plant.as_role(role).open(PENDING).status == status
        assert plant.browser.open(LIST).status == 200
    viewer = plant.as_role(UserRole.VIEWER)
    assert "pending" not in viewer.open(LIST).text
    assert viewer.submit(f"{PENDING}/decide-all", {"sure": "yes", "accept": "all"}).status == 403
    customer = plant.as_customer_user()
    assert [customer.open(path).status for path in (LIST, PENDING, f"{LIST}/x")] == [403] * 3
    assert statuses(plant) == {"l": "PENDING"}


def test_one_request_is_accepted(plant: Plant) -> None:
    """The device's next request succeeds; the badge is gone."""
    plant.ask("l-1", "lock")
    plant.ask("l-2", "lock")
    uuid = _uuid(plant, "l-1")
    done = plant.browser.submit(f"{PENDING}/decide", {"accept": uuid})
    assert done.location == PENDING and statuses(plant) == {"l-1": "ACCEPTED", "l-2": "PENDING"}
    shown = plant.browser.open(PENDING)
    assert "1 request is accepted" in shown.words and "Provisioning 1 waiting" in shown.words
    assert plant.ask("l-1", "lock").status.value == "SUCCESS"


def test_ticked_requests_are_rejected_with_a_reason(plant: Plant) -> None:
    """The reason stands in the audit."""
    plant.ask("l-1", "lock")
    plant.browser.submit(f"{PENDING}/decide", {"one": _uuid(plant, "l-1"), "reject": "chosen", "why": "not ours"})
    assert statuses(plant) == {"l-1": "REJECTED"}
    assert "not ours; profile 'lock'" in plant.browser.open("/ui/audit").words
    assert "l-1" in plant.browser.open(f"{PENDING}?status=REJECTED").words
    assert "No request waits" in plant.browser.open(PENDING).words


def test_all_that_match_are_decided_at_once(plant: Plant) -> None:
    """By the filters of the list, on all of its pages, once it is said that all are meant."""
    for number in range(30):
        plant.ask(f"a-{number}", "lock", source="192.0.2.1")
    plant.ask("b", "lock", source="192.0.2.2")
    fields = {"source": "192.0.2.1", "accept": "all"}
    unsure = plant.browser.submit(f"{PENDING}/decide-all", fields)
    assert unsure.status == 400 and "Tick that all" in unsure.words and 'value="192.0.2.1"' in unsure.text
    done = plant.browser.submit(f"{PENDING}/decide-all", fields | {"sure": "yes"})
    assert done.location == f"{PENDING}?source=192.0.2.1"
    found = statuses(plant)
    assert found.pop("b") == "PENDING" and set(found.values()) == {"ACCEPTED"} and len(found) == 30
    assert "30 requests are accepted" in plant.browser.open(PENDING).words


def test_forms_that_say_nothing_are_shown_again(plant: Plant) -> None:
    """With what was typed."""
    plant.ask("l", "lock")
    nothing = plant.browser.submit(f"{PENDING}/decide", {"accept": "chosen", "why": "because"})
    assert nothing.status == 400 and "Tick the requests" in nothing.words and 'value="because"' in nothing.text
    long = plant.browser.submit(f"{PENDING}/decide", {"accept": _uuid(plant, "l"), "why": "x" * 300})
    assert long.status == 400 and "255 characters" in long.words
    gone = plant.browser.submit(f"{PENDING}/decide", {"accept": "not-an-id"})
    assert gone.status == 303
    assert "0 requests are accepted. Some were not there" in plant.browser.open(PENDING).words
    assert plant.browser.open(f"{PENDING}?status=NO").status == 400
    assert plant.browser.open(f"{PENDING}?profileId=x").status == 400
    assert statuses(plant) == {"l": "PENDING"}


def _uuid(plant: Plant, name: str) -> str:
    wanted = PendingFilter(status=RequestStatus.PENDING)
    rows, _ = plant.store.read(lambda tx: tx.pending_requests(TENANT, wanted, Page(100)))
    return next(str(one.uuid) for one in rows if one.name == name)


def test_the_fix_of_a_request_that_waits_names_every_door(plant: Plant) -> None:
    """Page, REST call and command: whoever reads it over one of them has it at hand."""
    plant.ask("l", "lock")
    found = re.search(r'class="mono" href="(/ui/provisioning/[^"]+)"', plant.browser.open("/ui/provisioning").text)
    assert found is not None
    words = plant.browser.open(found[1]).words
    for door in ("/ui/provisioning/pending", "/api/provisioning/pending/accept", "cloud-core provisioning pending"):
        assert door in words
