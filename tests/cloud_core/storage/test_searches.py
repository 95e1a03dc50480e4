"""Whatever is searched for, a page of certificates or of the log has what a plain comparison finds."""

from __future__ import annotations

import random
import string
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from cloud_core.model import Attempt, Page, Peer, Transport
from cloud_core.storage import connected, one_pass, searches
from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.storage.store import make_engine
from tests.support.pki import Pki
from tests.support.stores import TENANT, StoreUnderTest

# Few letters, so that they are met; what LIKE takes for something else; letters that are not ASCII; what stands between
# the texts of the index.
LETTERS = "aAbB1.-_%/é"
SEARCHES = [*LETTERS, "ab", "A1", "a.b", "%_", "//", "1-", "éa", searches.SEPARATOR, f"a{searches.SEPARATOR}b", "zz"]
ROWS = 60


@pytest.fixture(params=["sorted here", "in one pass"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How SQLite finds a page."""
    name: str = request.param
    if name == "in one pass":
        for module, setting, value in ((connected, "FEW_OF_TABLE", 0), (one_pass, "ENOUGH", 1)):
            monkeypatch.setattr(module, setting, value)
    return name


def lowered(value: str) -> str:
    """Only ASCII is lowered: so much all databases do."""
    return value.translate(str.maketrans(string.ascii_uppercase, string.ascii_lowercase))


def matches(searched: str, *values: str) -> bool:
    return any(lowered(searched) in lowered(value) for value in values)


def some_text(chance: random.Random) -> str:
    return "".join(chance.choices(LETTERS, k=chance.randrange(5)))


def test_attempts(store: StoreUnderTest, way: str) -> None:
    """In each order; a text never begins in one column and ends in another."""
    chance = random.Random(5)
    lines = [
        Attempt(
            ref=f"R{number:02d}{some_text(chance)}", at_ms=number, peer=Peer(Transport.HTTP, some_text(chance)),
            outcome="SUCCESS", stage="stored", tenant_id=TENANT, device_name=some_text(chance),
            detail=some_text(chance),
        )
        for number in range(ROWS)
    ]  # fmt: skip
    store.run(lambda tx: [tx.log_attempt(one) for one in lines])
    for searched in SEARCHES:
        expected = [
            one.ref for one in lines if matches(searched, one.ref, one.peer.address, one.device_name, one.detail)
        ]
        for column in ("createdTime", "source"):
            asked = Page(sort_property=column, text_search=searched, size=ROWS)
            found, total = store.survey(
                lambda tx, asked=asked: tx.attempt_page(TENANT, asked, AttemptFilter(), with_unassigned=True)
            )
            assert (sorted(one.ref for one in found), total) == (expected, len(expected)), searched


def test_certificates(store: StoreUnderTest, way: str) -> None:
    """By serial number, subject and the device's name of now: also after it was renamed or has gone."""
    chance, root, profile = random.Random(6), Pki().root("Factory"), store.add_profile()
    devices = [store.add_device(f"{number}{some_text(chance)}", profile) for number in range(12)]
    leaves = [root.leaf(f"c{number}-{chance.choice('abAB')}").der for number in range(16)]

    def record(tx: Any) -> None:
        for number, der in enumerate(leaves):
            owner = devices[number] if number < len(devices) else None
            tx.record_certificate(der, tenant_id=TENANT, device_id=owner, now_ms=1)

    def change(tx: Any) -> None:
        tx.update_device(replace(tx.device_by_id(devices[0]), name="renamed"))
        tx.delete_device(devices[1])

    def check() -> None:
        whole, _ = store.survey(lambda tx: tx.certificates(TENANT, Page(sort_property="subject", size=100)))
        assert len(whole) == len(leaves)
        for searched in (*SEARCHES, "renamed", "c1", whole[0].serial[3:9], whole[0].device_name or "none"):
            expected = [one for one in whole if matches(searched, one.serial, one.subject, one.device_name)]
            asked = Page(sort_property="subject", text_search=searched, size=100)
            found, total = store.survey(lambda tx, asked=asked: tx.certificates(TENANT, asked))
            assert (found, total) == (expected, len(expected)), searched

    store.run(record)
    check()
    store.run(change)
    check()
    store.run(lambda tx: tx.record_certificate(leaves[2], tenant_id=TENANT, device_id=devices[3], now_ms=2))
    check()


def test_sqlite_reads_the_index_alone(sqlite_store: StoreUnderTest) -> None:
    """The text that is searched is that of the index, to the letter."""
    engine = make_engine(sqlite_store.url)
    with engine.connect() as connection:
        for one in (searches.ATTEMPTS, searches.CERTIFICATES):
            asked = f"SELECT count(*) FROM {one.table.name} INDEXED BY {one.name} WHERE {one.text} LIKE '%x%'"
            steps = connection.execute(text(f"EXPLAIN {asked}")).all()
            assert not [step for step in steps if step.opcode == "Concat"]
            plan = connection.execute(text(f"EXPLAIN QUERY PLAN {asked}")).all()
            assert [step.detail for step in plan] == [f"SCAN {one.table.name} USING INDEX {one.name}"]
    engine.dispose()
