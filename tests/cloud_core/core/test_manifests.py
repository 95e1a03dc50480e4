"""The manifest of an import, which is shown once; on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from cloud_core.core.bulk import manifest, manifests
from cloud_core.core.bulk.manifest import CSV, HELD_MS, LABELS, LAST_ROW, MANIFEST, NDJSON
from cloud_core.core.bulk.manifests import ManifestsApi
from cloud_core.core.people.audit import Audit
from cloud_core.model import AuditFilter, Page
from cloud_core.storage.interface.batches import Batch
from shared import certificates
from shared.errors import InvalidArgument, NotFound, Unavailable
from tests.support.imports import ImportsUnderTest
from tests.support.pki import Pki
from tests.support.rest import ADMINISTRATOR
from tests.support.stores import TENANT, StoreUnderTest

NOW_MS = 1_790_000_000_000
ONE, OTHER = b"1" * 16, b"2" * 16


@pytest.fixture
def under_test(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> ImportsUnderTest:
    one = ImportsUnderTest(store, monkeypatch)
    one.store.add_profile("sensor")
    return one


@pytest.fixture
def batch(under_test: ImportsUnderTest) -> Batch:
    return under_test.imported("name,access_token\na,token-a\nb,token-b\n")


def claimed(store: StoreUnderTest, batch: Batch, ticket: bytes, now_ms: int = NOW_MS, who: str = "ann") -> Any:
    return store.run(manifest.claim, TENANT, batch.uuid, who, MANIFEST, ticket, now_ms)


def read(store: StoreUnderTest, batch: Batch, **asked: Any) -> list[tuple[int, str]]:
    given = {"after": 0, "up_to": LAST_ROW, "limit": 10, "with_credentials": True} | asked
    rows = store.survey(lambda tx: tx.batch_devices(batch.id, **given))
    return [(row.number, row.device.name) for row in rows]


# -- the one-time rule ----------------------------------------------------------------------------


def test_a_manifest_that_was_taken_is_refused_and_says_who_has_it(store: StoreUnderTest, batch: Batch) -> None:
    """By whom, when, and how it is released; which lets it be taken once more."""
    claimed(store, batch, ONE)
    store.run(manifest.take, batch.id, ONE, NOW_MS)
    with pytest.raises(InvalidArgument) as refused:
        claimed(store, batch, OTHER, NOW_MS + 10 * HELD_MS, who="bob")
    assert "taken by ann at 2026-09-21 14:13:20 UTC" in str(refused.value)
    assert f"POST /api/imports/{batch.uuid}/manifest/release" in str(refused.value)
    assert store.run(manifest.release, TENANT, batch.uuid).released.claim is None
    claimed(store, batch, OTHER, who="bob")
    store.run(manifest.take, batch.id, OTHER, NOW_MS)
    state = store.read(manifest.state_of, TENANT, batch.uuid)
    assert (state.is_taken, state.devices, state.claim.holder, state.claim.taken_ms) == (True, 2, "bob", NOW_MS)


def test_of_two_downloads_at_once_one_has_the_manifest(store: StoreUnderTest, batch: Batch) -> None:
    """The second is told who receives it, and may come back when that download has broken."""
    claimed(store, batch, ONE)
    with pytest.raises(Unavailable, match="ann is receiving"):
        claimed(store, batch, OTHER, NOW_MS + HELD_MS - 1)
    assert store.run(manifest.give_back, batch.id, ONE).holder == "ann"
    claimed(store, batch, OTHER)
    with pytest.raises(InvalidArgument, match="overtaken"):
        store.run(manifest.take, batch.id, ONE, NOW_MS)
    assert store.run(manifest.give_back, batch.id, ONE) is None
    store.run(manifest.take, batch.id, OTHER, NOW_MS)


def test_a_download_without_a_sign_of_life_is_overtaken(store: StoreUnderTest, batch: Batch) -> None:
    """Each sign of life counts from its own time; the one that stood still can neither go on nor be complete."""
    claimed(store, batch, ONE)
    store.run(manifest.hold, batch.id, ONE, NOW_MS + 1_000)
    with pytest.raises(Unavailable):
        claimed(store, batch, OTHER, NOW_MS + HELD_MS)
    claimed(store, batch, OTHER, NOW_MS + 1_000 + HELD_MS)
    for act in (manifest.hold, manifest.take):
        with pytest.raises(InvalidArgument, match="overtaken"):
            store.run(act, batch.id, ONE, NOW_MS + 1_001 + HELD_MS)


def test_what_was_taken_is_not_taken_again_by_its_own_ticket(store: StoreUnderTest, batch: Batch) -> None:
    claimed(store, batch, ONE)
    store.run(manifest.take, batch.id, ONE, NOW_MS)
    for act in (manifest.hold, manifest.take):
        with pytest.raises(InvalidArgument):
            store.run(act, batch.id, ONE, NOW_MS)


def test_a_release_leaves_a_download_under_way_alone(store: StoreUnderTest, batch: Batch) -> None:
    claimed(store, batch, ONE)
    state = store.run(manifest.release, TENANT, batch.uuid)
    assert (state.is_taken, state.claim.holder) == (False, "ann")
    store.run(manifest.take, batch.id, ONE, NOW_MS)


def test_an_import_without_devices_has_no_manifest(under_test: ImportsUnderTest) -> None:
    """One that is only planned, was undone, is unknown, or of another tenant."""
    store = under_test.store
    plan = under_test.sent("name\nz\n", is_plan=True)
    with pytest.raises(InvalidArgument, match="PLANNED"):
        claimed(store, plan, ONE)
    with pytest.raises(InvalidArgument, match="UNDONE"):
        claimed(store, under_test.undone(under_test.imported("name\ny\n")), ONE)
    with pytest.raises(InvalidArgument, match="no devices"):
        claimed(store, under_test.imported("name\n<x>\n", is_atomic=False), ONE)
    for tenant, uuid in ((TENANT, uuid4()), (TENANT + 1, plan.uuid)):
        for act in (manifest.state_of, manifest.ready, manifest.release):
            with pytest.raises(NotFound):
                store.run(act, tenant, uuid)


def test_the_claim_goes_with_its_import(under_test: ImportsUnderTest, batch: Batch) -> None:
    claimed(under_test.store, batch, ONE)
    under_test.store.run(lambda tx: tx.discard_batch(batch.id))
    under_test.imports.worker.wake()
    under_test.until(lambda: under_test.stored(batch) is None and not under_test.store.read(_under_way))
    assert under_test.store.read(lambda tx: tx.manifest_claim(batch.id)) is None


def _under_way(tx: Any) -> Any:
    return tx.batches_under_way()


# -- what stands in it ----------------------------------------------------------------------------


def test_the_devices_are_read_in_the_order_of_the_file(under_test: ImportsUnderTest) -> None:
    """Made, updated and unchanged ones, in pieces and between rows; neither refused ones nor deleted ones."""
    store = under_test.store
    profile = store.add_profile("meter")
    for name in ("same", "other"):
        store.add_device(name, profile)
    batch = under_test.imported(
        "name,type\nnew,meter\nsame,meter\n<x>,meter\nother,sensor\ngone,meter\n", is_atomic=False
    )
    gone = under_test.device("gone")
    store.run(lambda tx: tx.delete_device(gone.id))
    assert read(store, batch) == [(2, "new"), (3, "same"), (5, "other")]
    assert read(store, batch, limit=1, after=2) == [(3, "same")]
    assert read(store, batch, up_to=4, with_credentials=False) == [(2, "new"), (3, "same")]


def lines(under_test: ImportsUnderTest, batch: Batch, kind: str) -> str:
    rows = under_test.store.survey(
        lambda tx: tx.batch_devices(batch.id, after=0, up_to=LAST_ROW, limit=99, with_credentials=True)
    )
    return (manifest.head(kind) + manifest.lines_of(rows, kind)).decode()


def test_every_kind_of_credentials_stands_in_the_manifest(under_test: ImportsUnderTest) -> None:
    """Under the names that an import gives its columns; a certificate by fingerprint and common name."""
    der = Pki().self_signed("Device 7").der
    text = certificates.certificate_text(der)
    batch = under_test.imported(
        "name;access_token;mqtt_client_id;mqtt_username;mqtt_password;x509\n"
        f'"a;""ß";t-1;;;;\nb;;c;u;p;\nc;;;;;{text}\nd;;;;;00:11\n'
    )
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(lines(under_test, batch, CSV)))}
    assert list(next(iter(rows.values()))) == list(manifest.COLUMNS)
    first = rows['a;"ß']
    assert (first["credentials_type"], first["access_token"]) == ("ACCESS_TOKEN", "t-1")
    assert first["id"] == str(under_test.device('a;"ß').uuid)
    mqtt = [rows["b"][f"mqtt_{part}"] for part in ("client_id", "username", "password")]
    assert (rows["b"]["credentials_type"], mqtt) == ("MQTT_BASIC", ["c", "u", "p"])
    fingerprint = certificates.fingerprint(der).hex()
    assert (rows["c"]["fingerprint"], rows["c"]["common_name"]) == (fingerprint, "Device 7")
    assert (rows["d"]["credentials_type"], rows["d"]["fingerprint"]) == ("X509_CERTIFICATE", "00:11")
    found = [json.loads(line) for line in lines(under_test, batch, NDJSON).splitlines()]
    assert found == [{key: value for key, value in row.items() if value} for row in rows.values()]


# -- as it is sent --------------------------------------------------------------------------------


class SentOnce:
    """A download, taken piece by piece."""

    def __init__(self, under_test: ImportsUnderTest, batch: Batch, kind: str = NDJSON) -> None:
        self._under_test = under_test
        self.now_ms = NOW_MS
        self.api = ManifestsApi(
            store=under_test.store.store, audit=Audit(under_test.store.store), now_ms=lambda: self.now_ms
        )
        self.download = under_test.ran(self.api.open(ADMINISTRATOR, batch.uuid, kind))
        self._pieces = self.download.pieces()

    def pieces(self) -> Iterator[bytes]:
        """All but the last."""
        while piece := self._under_test.ran(self._next()):
            yield piece

    async def _next(self) -> bytes:
        async for piece in self._pieces:
            return piece
        return b""

    def take(self) -> bytes:
        self._under_test.ran(self.download.take())
        last: bytes = self.download.last
        return last


def test_the_last_piece_leaves_behind_the_record(
    under_test: ImportsUnderTest, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is complete before it counts as taken; together the pieces are the manifest."""
    monkeypatch.setattr(manifests, "ROWS_AT_ONCE", 1)
    sent = SentOnce(under_test, batch, CSV)
    pieces = list(sent.pieces())
    assert not under_test.store.read(manifest.state_of, TENANT, batch.uuid).is_taken
    assert b"token-b" not in b"".join(pieces)
    whole = b"".join(pieces) + sent.take()
    assert whole.decode() == lines(under_test, batch, CSV)
    assert under_test.store.read(manifest.state_of, TENANT, batch.uuid).is_taken


def test_no_more_than_a_few_rows_are_read_ahead_of_whoever_reads(
    under_test: ImportsUnderTest, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand rows take no more memory than the pieces that are on their way."""
    monkeypatch.setattr(manifests, "ROWS_AT_ONCE", 1)
    asked: list[int] = []
    real = manifests._lines

    def counted(tx: Any, batch_id: int, after: int, kind: str) -> Any:
        asked.append(after)
        return real(tx, batch_id, after, kind)

    monkeypatch.setattr(manifests, "_lines", counted)
    big = under_test.imported("name\n" + "".join(f"d{number}\n" for number in range(20)))
    pieces = SentOnce(under_test, big).pieces()
    for count in range(1, 6):
        next(pieces)
        assert len(asked) == count + 1
    assert len(list(pieces)) == 14


def test_a_long_download_keeps_its_ticket(
    under_test: ImportsUnderTest, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it goes on; one that was overtaken meanwhile ends where it is."""
    monkeypatch.setattr(manifests, "ROWS_AT_ONCE", 1)
    big = under_test.imported("name\nd1\nd2\nd3\nd4\n")
    sent = SentOnce(under_test, big)
    pieces = sent.pieces()
    next(pieces)
    sent.now_ms += HELD_MS - 1
    next(pieces)
    with pytest.raises(Unavailable):
        claimed(under_test.store, big, OTHER, sent.now_ms + HELD_MS - 1)
    claimed(under_test.store, big, OTHER, sent.now_ms + HELD_MS)
    sent.now_ms += HELD_MS
    with pytest.raises(InvalidArgument, match="overtaken"):
        next(pieces)


def test_labels_with_secrets_and_the_manifest_are_shown_once_together(
    under_test: ImportsUnderTest, batch: Batch
) -> None:
    under_test.store.run(manifest.claim, TENANT, batch.uuid, "ann", LABELS, ONE, NOW_MS)
    under_test.store.run(manifest.take, batch.id, ONE, NOW_MS)
    with pytest.raises(InvalidArgument, match="taken as labels with secrets by ann"):
        SentOnce(under_test, batch)


# -- on record ------------------------------------------------------------------------------------


def recorded(store: StoreUnderTest, batch: Batch) -> list[tuple[str, str, str, str]]:
    """Who did what with the manifest, oldest first."""
    wanted = AuditFilter(entity_type="IMPORT", entity_uuid=batch.uuid)
    found, _ = store.read(lambda tx: tx.audit_entries(TENANT, wanted, Page(20)))
    return [(one.action, one.actor, one.name, one.detail) for one in found if one.action.startswith("MANIFEST")]


def test_the_audit_says_who_took_and_who_released_a_manifest(under_test: ImportsUnderTest, batch: Batch) -> None:
    """Once each; a release of what nobody has decides nothing. No secret stands in it."""
    sent = SentOnce(under_test, batch)
    list(sent.pieces())
    sent.take()
    for _ in range(2):
        assert under_test.ran(sent.api.release(ADMINISTRATOR, batch.uuid)).claim is None
    name = str(batch.options.get("file", ""))
    who = ADMINISTRATOR.username
    assert recorded(under_test.store, batch) == [
        ("MANIFEST_TAKEN", who, name, "the credentials of 2 devices, as manifest"),
        ("MANIFEST_RELEASED", who, name, f"{who} had taken it, as manifest"),
    ]


def test_the_audit_says_that_a_lost_download_was_given_back(under_test: ImportsUnderTest, batch: Batch) -> None:
    """Where its taking stands on record; a download that broke before leaves no trace."""
    early = SentOnce(under_test, batch)
    early.download.give_back()
    late = SentOnce(under_test, batch)
    list(late.pieces())
    late.take()
    late.download.give_back()
    under_test.until(lambda: not under_test.store.read(manifest.state_of, TENANT, batch.uuid).is_taken)
    actions = [one[0] for one in recorded(under_test.store, batch)]
    assert actions == ["MANIFEST_TAKEN", "MANIFEST_GIVEN_BACK"]
