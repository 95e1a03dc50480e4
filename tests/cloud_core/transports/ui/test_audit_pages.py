"""The audit as pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cloud_core.core.people import audit
from cloud_core.model import UserRole
from tests.support.rest import without_threads
from tests.support.stores import StoreUnderTest
from tests.support.ui import somebody
from tests.support.ui_ops import HOSTILE, Plant

AUDIT = "/ui/audit"
DAY_MS = 86_400_000


@pytest.fixture
def plant(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    without_threads(monkeypatch)
    plant = Plant(sqlite_store)
    yield plant
    plant.browser.close()


def record(plant: Plant, name: str, **members: Any) -> None:
    said = {"action": "CREATED", "entity_type": "DEVICE_PROFILE", "detail": "", "now_ms": DAY_MS} | members
    plant.store.run(
        lambda tx: audit.record(
            tx, somebody(), said["action"], said["entity_type"], plant.uuids["sensor"], name, said["detail"],
            now_ms=said["now_ms"],
        )
    )  # fmt: skip


def test_the_audit_is_for_who_may_read_it(plant: Plant) -> None:
    """Administrators; it is not in the navigation of others."""
    assert plant.browser.open(AUDIT).status == 200
    for browser in (plant.as_role(UserRole.OPERATOR), plant.as_role(UserRole.VIEWER), plant.as_customer_user()):
        assert browser.open(AUDIT).status == 403 and browser.submit(f"{AUDIT}/verify").status == 403
        assert 'href="/ui/audit"' not in browser.open("/ui/account").text


def test_entries_are_filtered(plant: Plant) -> None:
    """By who, what, of which kind, when and text; those that exist lead to their page."""
    record(plant, "first", detail="one")
    record(plant, "second", action="DELETED", now_ms=3 * DAY_MS, entity_type="DEVICE", detail="two " * 100)
    shown = plant.browser.open(AUDIT)
    assert shown.words.index("second") < shown.words.index("first")
    assert f'href="/ui/profiles/{plant.uuids["sensor"]}"' in shown.text and "/ui/devices/" not in shown.text
    for query in (
        "action=created", "entityType=device_profile", "q=one", "until=1970-01-02", "from=1970-01-02&until=1970-01-03"
    ):  # fmt: skip
        found = plant.browser.open(f"{AUDIT}?{query}").words
        assert "first" in found and "second" not in found, query
    assert "No entry matches" in plant.browser.open(f"{AUDIT}?actor=nobody").words
    assert "second" in plant.browser.open(f"{AUDIT}?entityId={plant.uuids['sensor']}").words
    assert plant.browser.open(f"{AUDIT}?sort=name&order=ASC").status == 200


@pytest.mark.parametrize("query", ["from=yesterday", "until=1970-13-01", "entityId=x"])
def test_filters_that_cannot_be_read_are_told(plant: Plant, query: str) -> None:
    """All entries are shown."""
    record(plant, "first")
    shown = plant.browser.open(f"{AUDIT}?{query}")
    assert shown.status == 400 and "All entries are shown" in shown.words and "first" in shown.words


def test_names_are_text(plant: Plant) -> None:
    """Whatever an operator has written."""
    record(plant, HOSTILE, detail=HOSTILE * 20)
    assert "<script>alert" not in plant.browser.open(f"{AUDIT}?actor=%22%3E%3Cscript%3Ealert").text
    assert "<script>alert" not in plant.browser.open(AUDIT).text


def test_the_chain_is_verified_in_words(plant: Plant) -> None:
    """An empty one, one that holds, and one that somebody has changed."""
    assert "It has no entries yet" in plant.browser.submit(f"{AUDIT}/verify").words
    for number in range(3):
        record(plant, f"n{number}")
    holds = plant.browser.submit(f"{AUDIT}/verify")
    assert "The chain holds. Entries 1 to 3" in holds.words

    def change(tx: Any) -> None:
        tx.connection.cursor().execute("UPDATE audit SET name = 'other' WHERE number = 2")
        tx.writes += 1

    plant.store.run(change)
    broken = plant.browser.submit(f"{AUDIT}/verify")
    assert "The chain is broken: entry 2 was changed" in broken.words and "Compare with a backup" in broken.words
