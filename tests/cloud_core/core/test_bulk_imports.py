"""Imports of devices: planned, applied, resumed, undone; on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from twisted.internet.defer import Deferred

from cloud_core.core.bulk import applying, imports, worker
from cloud_core.model import DEFAULT_TENANT, Scope
from cloud_core.storage.interface.batches import BatchState
from shared.credentials import AccessToken, MqttBasic, X509Certificate
from shared.errors import InvalidArgument, NotFound, Unavailable
from tests.support.imports import ImportsUnderTest
from tests.support.rest import ADMINISTRATOR
from tests.support.stores import TENANT, StoreUnderTest

PARTIAL = imports.ImportOptions(is_atomic=False)


@pytest.fixture
def under_test(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> ImportsUnderTest:
    one = ImportsUnderTest(store, monkeypatch)
    one.store.add_profile("sensor")
    return one


def add_customer(store: StoreUnderTest, title: str) -> int:
    members: dict[str, Any] = {"tenant_id": TENANT, "title": title, "document": {}, "created_ms": 5}
    return int(store.run(lambda tx: tx.insert_customer(uuid=uuid4(), **members)))


def attributes(under_test: ImportsUnderTest, name: str, scope: Scope) -> dict[str, Any]:
    number = under_test.device(name).id
    return {entry.key: entry.value for entry in under_test.store.read(lambda tx: tx.attributes(number, scope))}


# -- planning -------------------------------------------------------------------------------------


def test_a_plan_says_what_each_row_would_do_and_changes_nothing(under_test: ImportsUnderTest) -> None:
    """Create, update, unchanged, conflict and error, each with a code and the fix."""
    profile = under_test.store.add_profile("meter")
    for name in ("same", "other"):
        under_test.store.add_device(name, profile)
    batch = under_test.sent(
        "name,type,label,access_token,customer\nnew,meter,,,\nsame,meter,,,\nother,sensor,,,\nnew,meter,,,\n"
        ",meter,,,\nthief,meter,,token-same,\nlost,meter,,,nobody\nsame2,,,t1,\nsame3,,,t1,\n",
        is_plan=True,
    )
    rows = under_test.rows(batch)
    assert [(row.number, row.status, row.code) for row in rows] == [
        (2, "CREATE", ""), (3, "UNCHANGED", ""), (4, "UPDATE", ""), (5, "CONFLICT", "DUPLICATE_NAME"),
        (6, "ERROR", "NAME_MISSING"), (7, "CONFLICT", "CREDENTIALS_IN_USE"), (8, "ERROR", "UNKNOWN_CUSTOMER"),
        (9, "CREATE", ""), (10, "CONFLICT", "DUPLICATE_CREDENTIALS"),
    ]  # fmt: skip
    assert "row 2" in rows[3].detail
    assert (batch.state, batch.row_count, batch.bad_count) == (BatchState.PLANNED, 9, 5)
    assert under_test.device_count() == 2


def test_a_plan_is_applied_when_that_is_asked_for(under_test: ImportsUnderTest) -> None:
    batch = under_test.sent("name\na\nb\n", is_plan=True)
    under_test.ran(under_test.imports.apply(ADMINISTRATOR, batch.uuid, is_atomic=None))
    assert under_test.done(batch).counts["CREATED"] == 2
    with pytest.raises(InvalidArgument, match="APPLIED"):
        under_test.ran(under_test.imports.apply(ADMINISTRATOR, batch.uuid, is_atomic=None))


def test_a_file_that_cannot_be_read_to_its_end_leaves_nothing(
    under_test: ImportsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither devices nor a batch, and its idempotency key is free again."""
    monkeypatch.setattr(imports, "PLANNED_AT_ONCE", 1)
    lines = '{"name": "a"}\n{"name": "b"}\n{"nmae": "c"}\n'
    with pytest.raises(InvalidArgument, match="did you mean 'name'"):
        under_test.sent(lines, kind="ndjson", idempotency_key="k")
    assert under_test.imported('{"name": "c"}\n', kind="ndjson", idempotency_key="k").counts["CREATED"] == 1
    under_test.until(lambda: not under_test.store.read(lambda tx: tx.batches_under_way()))
    assert under_test.device_count() == 1


# -- applying -------------------------------------------------------------------------------------


def test_every_column_reaches_the_device(under_test: ImportsUnderTest) -> None:
    """Profile, label, description, gateway flag, customer, credentials, attributes and time series."""
    owner = add_customer(under_test.store, "ACME")
    batch = under_test.imported(
        "name,type,label,description,gateway,customer,access_token,server:n,shared:s,timeseries:t,server:j\n"
        'a,new type,L,D,true,ACME,tok-a,42,on,1.5,"{""k"": 1}"\n'
    )
    assert batch.state is BatchState.APPLIED
    device = under_test.device("a")
    assert (device.type, device.label, device.is_gateway, device.customer_id) == ("new type", "L", True, owner)
    assert device.document["additionalInfo"] == {"description": "D", "gateway": True}
    assert under_test.credentials("a").credentials == AccessToken("tok-a")
    assert attributes(under_test, "a", Scope.SHARED) == {"s": "on"}
    assert attributes(under_test, "a", Scope.SERVER)["n"] == 42
    assert attributes(under_test, "a", Scope.SERVER)["j"].text == '{"k":1}'
    latest = under_test.store.read(lambda tx: tx.latest(device.id))
    assert latest["t"][1] == 1.5


def test_credentials_of_every_kind_are_taken_and_open_the_door(under_test: ImportsUnderTest) -> None:
    under_test.imported(
        "name,access_token,mqtt_client_id,mqtt_username,mqtt_password,x509\na,,c,u,p,\nb,,,,,MIIabc\nc,,,,,\n"
    )
    assert under_test.credentials("a").credentials == MqttBasic("c", "u", "p")
    assert under_test.credentials("b").credentials == X509Certificate("MIIabc")
    token = under_test.credentials("c").credentials.token
    assert len(token) == 20
    assert under_test.api.log_in(username=token).device_name == "c"


def test_columns_that_are_empty_or_absent_leave_what_is_there(under_test: ImportsUnderTest) -> None:
    """Label, type, description, owner and credentials; an empty TYPE leaves the profile."""
    add_customer(under_test.store, "ACME")
    under_test.imported("name,type,label,description,gateway,customer,access_token\na,sensor,L,D,true,ACME,tok-a\n")
    before = under_test.device("a")
    batch = under_test.imported("name,type,label,server:x\na,,,1\n")
    after = under_test.device("a")
    assert batch.counts["UPDATED"] == 1
    kept = ("type", "label", "is_gateway", "customer_id", "document")
    assert [getattr(after, one) for one in kept] == [getattr(before, one) for one in kept]
    assert under_test.credentials("a").credentials == AccessToken("tok-a")


def test_attributes_of_devices_that_are_there_are_written_only_where_updates_are_wanted(
    under_test: ImportsUnderTest,
) -> None:
    """`update` decides about attributes alone (D3)."""
    under_test.imported("name,server:x\na,1\n")
    batch = under_test.imported("name,label,server:x\na,L,2\nb,L,2\n", updates=False)
    assert (batch.counts["UPDATED"], batch.counts["CREATED"]) == (1, 1)
    assert (under_test.device("a").label, attributes(under_test, "a", Scope.SERVER)["x"]) == ("L", 1)
    assert attributes(under_test, "b", Scope.SERVER)["x"] == 2
    under_test.imported("name,server:x\na,2\n")
    assert attributes(under_test, "a", Scope.SERVER)["x"] == 2


def test_the_same_file_again_changes_nothing(under_test: ImportsUnderTest) -> None:
    file = "name,type,label,access_token,server:x\na,sensor,L,t-a,1.0\nb,sensor,,,1\n"
    under_test.imported(file)
    before = under_test.device("a"), under_test.credentials("a")
    assert under_test.imported(file).counts["UNCHANGED"] == 2
    assert (under_test.device("a"), under_test.credentials("a")) == before


def test_new_credentials_end_the_sessions_of_the_device(under_test: ImportsUnderTest) -> None:
    """The old ones open nothing any more."""
    under_test.imported("name,access_token\na,old\n")
    assert under_test.api.log_in(username="old").device_name == "a"
    under_test.imported("name,access_token\na,new\n")
    assert under_test.api.log_in(username="new").device_name == "a"
    assert not hasattr(under_test.api.log_in(username="old"), "device_name")


def test_an_atomic_import_with_a_bad_row_is_refused_whole(under_test: ImportsUnderTest) -> None:
    """It can still be applied in the mode partial, which takes the good rows."""
    batch = under_test.sent("name\na\n<b>\nc\n")
    assert (batch.state, under_test.device_count()) == (BatchState.REFUSED, 0)
    assert "1 of 3 rows" in batch.problem
    under_test.ran(under_test.imports.apply(ADMINISTRATOR, batch.uuid, is_atomic=False))
    assert under_test.done(batch).counts == {"CREATE": 0, "CREATED": 2, "ERROR": 1}
    assert under_test.device_count() == 2


def test_a_row_never_does_what_the_plan_did_not_say(under_test: ImportsUnderTest) -> None:
    """A name that was taken, or a device that was deleted since, is a conflict; a partial import goes on."""
    profile = under_test.store.add_profile("meter")
    gone = under_test.store.add_device("gone", profile)
    batch = under_test.sent("name,type\ntaken,sensor\ngone,sensor\nfree,sensor\n", is_plan=True, is_atomic=False)
    under_test.store.add_device("taken", profile)
    under_test.store.run(lambda tx: tx.delete_device(gone))
    under_test.ran(under_test.imports.apply(ADMINISTRATOR, batch.uuid, is_atomic=None))
    under_test.done(batch)
    assert [(row.status, row.code) for row in under_test.rows(batch)] == [
        ("CONFLICT", "CHANGED_SINCE_PLAN"), ("CONFLICT", "CHANGED_SINCE_PLAN"), ("CREATED", ""),
    ]  # fmt: skip


def test_an_atomic_import_stops_before_a_piece_that_somebody_else_has_spoilt(
    under_test: ImportsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how far it came; what it did can be undone."""
    monkeypatch.setattr(applying, "APPLIED_AT_ONCE", 1)
    batch = under_test.sent("name\na\nb\nc\n", is_plan=True)
    under_test.store.add_device("b", under_test.store.add_profile("meter"))
    under_test.ran(under_test.imports.apply(ADMINISTRATOR, batch.uuid, is_atomic=True))
    stopped = under_test.done(batch)
    assert (stopped.state, under_test.statuses(batch)) == (BatchState.STOPPED, ["CREATED", "CONFLICT", "CREATE"])
    assert "Row 3" in stopped.problem
    assert (under_test.undone(batch).state, under_test.device("a")) == (BatchState.UNDONE, None)


def limit_devices(store: StoreUnderTest, most: int) -> None:
    def limit(tx: Any) -> None:
        tx.update_tenant(replace(tx.tenant(DEFAULT_TENANT), max_devices=most))

    store.run(limit)


def test_an_atomic_import_that_the_tenant_has_no_room_for_is_refused(under_test: ImportsUnderTest) -> None:
    """The plan says so already; with more room the same batch is applied."""
    limit_devices(under_test.store, 2)
    batch = under_test.sent("name\na\nb\nc\n", is_plan=True)
    assert "room for 2 more devices" in under_test.stored(batch).problem
    under_test.ran(under_test.imports.apply(ADMINISTRATOR, batch.uuid, is_atomic=True))
    refused = under_test.done(batch)
    assert (refused.state, under_test.device_count()) == (BatchState.REFUSED, 0)
    assert "room for 2 more devices" in refused.problem
    limit_devices(under_test.store, 3)
    under_test.ran(under_test.imports.apply(ADMINISTRATOR, batch.uuid, is_atomic=True))
    assert (under_test.done(batch).state, under_test.device_count()) == (BatchState.APPLIED, 3)


def test_a_partial_import_fills_what_room_the_tenant_has(under_test: ImportsUnderTest) -> None:
    """Rows above the limit are errors that say it; updates need no room."""
    under_test.imported("name\nold\n")
    limit_devices(under_test.store, 2)
    batch = under_test.imported("name,label\na,\nb,\nold,L\n", is_atomic=False)
    rows = under_test.rows(batch)
    assert [(row.status, row.code) for row in rows] == [
        ("CREATED", ""), ("ERROR", "QUOTA_EXCEEDED"), ("UPDATED", ""),
    ]  # fmt: skip
    assert "2 devices" in rows[1].detail
    assert under_test.device_count() == 2


def test_an_atomic_import_stops_where_the_tenant_has_filled_up_meanwhile(
    under_test: ImportsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "APPLIED_AT_ONCE", 1)
    batch = under_test.sent("name\na\nb\n", is_plan=True)
    under_test.ran(under_test.imports.apply(ADMINISTRATOR, batch.uuid, is_atomic=True))
    limit_devices(under_test.store, 1)
    stopped = under_test.done(batch)
    assert (stopped.state, under_test.device_count()) == (BatchState.STOPPED, 1)
    assert "Row 3" in stopped.problem


def test_an_atomic_import_stops_at_an_update_that_is_refused(
    under_test: ImportsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not end as applied; the rows behind it are left alone."""
    under_test.imported("name,label\na,1\nb,1\nc,1\n")
    real = applying.inventory.write_device

    def write_device(tx: Any, tenant_id: int, members: dict[str, Any], *rest: Any) -> Any:
        if members["name"] == "b":
            raise InvalidArgument("Can't assign firmware with different deviceProfile!")
        return real(tx, tenant_id, members, *rest)

    monkeypatch.setattr(applying.inventory, "write_device", write_device)
    batch = under_test.imported("name,label\na,2\nb,2\nc,2\n")
    assert (batch.state, under_test.statuses(batch)) == (BatchState.STOPPED, ["UPDATED", "ERROR", "UPDATE"])
    assert "Row 3: Can't assign firmware" in batch.problem
    assert [under_test.device(one).label for one in "abc"] == ["2", "1", "1"]
    assert batch.counts == {"UPDATE": 1, "UPDATED": 1, "ERROR": 1}


def test_an_import_that_fails_does_not_keep_the_others_waiting(
    under_test: ImportsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again later, and who waits for it hears of it."""
    spoilt = under_test.sent("name\na\n", is_plan=True)
    good = under_test.sent("name\nb\n", is_plan=True)
    real = applying.apply_piece

    def apply_piece(tx: Any, batch_id: int, now_ms: int, row_count: int) -> Any:
        if batch_id == spoilt.id:
            raise Unavailable("something is wrong with it")
        return real(tx, batch_id, now_ms, row_count)

    monkeypatch.setitem(worker._WORK, BatchState.APPLYING, apply_piece)
    for one in (spoilt, good):
        under_test.store.run(applying.start_batch, TENANT, one.uuid, True, 5)
    with pytest.raises(Unavailable, match="something is wrong"):
        under_test.ran(under_test.imports.worker.ended(spoilt))
    under_test.until(lambda: under_test.stored(good).state is BatchState.APPLIED)
    monkeypatch.undo()
    assert under_test.done(spoilt).counts["CREATED"] == 1


# -- idempotency and restarts ---------------------------------------------------------------------


def test_the_same_key_and_file_bring_the_first_batch_back(under_test: ImportsUnderTest) -> None:
    """Another file under that key is refused."""
    first = under_test.imported("name\na\n", idempotency_key="k")
    assert under_test.sent("name\na\n", idempotency_key="k").uuid == first.uuid
    with pytest.raises(InvalidArgument, match="another file"):
        under_test.sent("name\nb\n", idempotency_key="k")
    assert under_test.sent("name\na\n", idempotency_key="k2").uuid != first.uuid


@pytest.mark.parametrize("pieces_before", [1, 2, 5])
def test_an_import_that_was_interrupted_is_gone_on_with(
    under_test: ImportsUnderTest, monkeypatch: pytest.MonkeyPatch, pieces_before: int
) -> None:
    """No row is applied twice, none is left out, wherever the core ended."""
    monkeypatch.setattr(applying, "APPLIED_AT_ONCE", 10)
    batch = under_test.sent("name,server:n\n" + "".join(f"d{n},{n}\n" for n in range(95)))
    under_test.until(
        lambda: under_test.stored(batch).counts.get("CREATED", 0) >= 10 * pieces_before
    )  # fmt: skip
    under_test.restart()
    ended = under_test.done(batch)
    assert (ended.state, ended.counts["CREATED"], under_test.device_count()) == (BatchState.APPLIED, 95, 95)
    assert set(under_test.statuses(batch)) == {"CREATED"}


def test_who_waits_for_an_import_hears_that_the_core_is_stopping(under_test: ImportsUnderTest) -> None:
    batch = under_test.sent("name\na\n", is_plan=True)
    waiting = under_test.imports.worker.ended(batch)
    waiting.send(None)
    under_test.imports.stop()
    with pytest.raises(Unavailable):
        waiting.send(None)


def test_who_waits_for_an_import_that_is_discarded_hears_of_it(under_test: ImportsUnderTest) -> None:
    """Its tenant was deleted, for instance; nobody waits for ever."""
    batch = under_test.sent("name\na\n", is_plan=True)
    under_test.store.run(applying.start_batch, TENANT, batch.uuid, True, 5)
    waiting = Deferred.fromCoroutine(under_test.imports.worker.ended(batch))
    under_test.store.run(lambda tx: tx.discard_batches_of(TENANT))
    failures: list[Any] = []
    waiting.addErrback(failures.append)
    for _ in range(5):
        under_test.store.run(lambda tx: None)
        under_test.imports.worker.wake()
    assert [failure.check(NotFound) for failure in failures] == [NotFound]


def test_a_mistake_while_telling_of_an_import_ends_no_other(
    under_test: ImportsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits is answered, and it is gone on with later."""
    real, told = under_test.imports.worker._tell, []

    def tell(piece: Any) -> None:
        told.append(piece)
        if len(told) == 1:
            raise RuntimeError("a mistake")
        real(piece)

    monkeypatch.setattr(under_test.imports.worker, "_tell", tell)
    with pytest.raises(Unavailable):
        under_test.ran(under_test.imports.receive_and_wait(ADMINISTRATOR, io.BytesIO(b"name\na\n"), PARTIAL))
    assert under_test.imported("name\nb\n").counts["CREATED"] == 1
    assert under_test.device_count() == 2


def test_what_nobody_sends_any_more_is_forgotten(under_test: ImportsUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a core that was killed while it received; so are imports that ended long ago, with their rows."""
    ended = under_test.imported("name\na\nb\n")
    options = imports.ImportOptions(idempotency_key="k")
    half = under_test.imports._new_batch(ADMINISTRATOR, b"d" * 32, options)
    half, _ = under_test.store.run(applying.open_batch, half)
    monkeypatch.setattr(applying, "DISCARDED_AT_ONCE", 1)
    with pytest.raises(InvalidArgument):
        under_test.sent("name\nb\n", idempotency_key="k")
    under_test.api.now_s += 91 * 86_400
    under_test.imports.maintain()
    under_test.until(
        lambda: under_test.store.run(lambda tx: (tx.lock_batch(ended.id), tx.lock_batch(half.id))) == (None, None)
    )
    assert under_test.rows(ended) == []
    assert under_test.device_count() == 2


def test_an_upload_whose_sender_is_gone_is_given_up_at_once(
    under_test: ImportsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key is free for the next try."""
    monkeypatch.setattr(imports, "PLANNED_AT_ONCE", 1)
    lines = "name\n" + "".join(f"d{n}\n" for n in range(50))
    options = imports.ImportOptions(idempotency_key="k")
    sending = Deferred.fromCoroutine(under_test.imports.receive(ADMINISTRATOR, io.BytesIO(lines.encode()), options))
    under_test.until(lambda: under_test.store.read(lambda tx: bool(tx.batch_rows(1, after=0, limit=1))))
    sending.addErrback(lambda failure: None)
    sending.cancel()
    for _ in range(3):
        under_test.store.run(lambda tx: None)
    assert under_test.imported(lines, idempotency_key="k").counts["CREATED"] == 50


# -- undoing --------------------------------------------------------------------------------------


def test_an_undo_deletes_what_the_import_created_and_says_what_it_left(under_test: ImportsUnderTest) -> None:
    """Devices that were changed, logged in or got attributes since are left, and so are updates."""
    under_test.imported("name,label\nold,before\n")
    batch = under_test.imported(
        "name,label,access_token\nold,after,\nfresh,,\nused,,t-used\nchanged,,\ntagged,,t-tagged\nshown,,\n"
    )
    under_test.api.log_in(username="t-used")
    under_test.imported("name,label\nchanged,now\n")
    number, shown = under_test.device("tagged").id, under_test.device("shown").id
    under_test.store.run(lambda tx: tx.append_samples(shown, [(1_800_000_000_000, {"t": 1})]))
    under_test.store.run(
        lambda tx: tx.put_attributes(number, Scope.SERVER, {"x": 1}, now_ms=under_test.api.api.now_ms() + 1)
    )
    undone = under_test.undone(batch)
    assert undone.state is BatchState.UNDONE
    assert under_test.statuses(batch) == ["UPDATED", "UNDONE", "KEPT", "KEPT", "KEPT", "KEPT"]
    assert under_test.device("fresh") is None
    assert under_test.device("old").label == "after"
    assert "4 devices were left" in undone.problem
    assert "1 devices that were updated" in undone.problem
    with pytest.raises(InvalidArgument, match="UNDONE"):
        under_test.undone(batch)


def test_an_undo_that_was_interrupted_is_gone_on_with(
    under_test: ImportsUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "UNDONE_AT_ONCE", 3)
    batch = under_test.imported("name\n" + "".join(f"d{n}\n" for n in range(20)))
    under_test.ran(under_test.imports.undo(ADMINISTRATOR, batch.uuid))
    under_test.restart()
    assert under_test.done(batch).counts == {"CREATE": 0, "CREATED": 0, "UNDONE": 20}
    assert under_test.device_count() == 0


# -- what remains visible -------------------------------------------------------------------------


def test_the_error_file_holds_the_bad_rows_and_their_reasons(under_test: ImportsUnderTest) -> None:
    """It can be corrected and loaded as it is; credentials of rows that are done with are not kept."""
    batch = under_test.imported('name,access_token,server:x\na,t-a,1\n<b>,t-b,"x,y"\na,t-c,3\n', is_atomic=False)
    pieces = under_test.ran(under_test.imports.error_file(ADMINISTRATOR, batch.uuid, "errors.csv"))

    async def content() -> bytes:
        return b"".join([piece async for piece in pieces])

    text = under_test.ran(content()).decode()
    assert text == (
        "\ufeffname,access_token,server:x,error\r\n"
        "<b>,t-b,\"x,y\",name is malformed; correct the column 'name'\r\n"
        "a,t-c,3,The name 'a' is in row 2 already; remove one of the two\r\n"
    )
    assert under_test.rows(batch)[0].cells == {}
    again = under_test.imported(text.replace("<b>", "b").replace("\na,", "\nc,"))
    assert again.counts["CREATED"] == 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_an_error_file_opens_in_the_spreadsheet_that_the_file_came_from(
    under_test: ImportsUnderTest, delimiter: str, encoding: str
) -> None:
    """With the file's delimiter and a mark of its encoding; formulas are texts there, and come back as they were."""
    lines = ["name,label,server:x", "a,Größe,", "a,=1+1,'=2", "<b>,-5,x"]
    batch = under_test.imported("\r\n".join(lines).replace(",", delimiter).encode(encoding), is_atomic=False)
    pieces = under_test.ran(under_test.imports.error_file(ADMINISTRATOR, batch.uuid, "errors.csv"))

    async def content() -> bytes:
        return b"".join([piece async for piece in pieces])

    file = under_test.ran(content())
    assert file.startswith(f"\ufeffname{delimiter}label{delimiter}server:x{delimiter}error\r\n".encode())
    assert f"a{delimiter}'=1+1{delimiter}''=2{delimiter}".encode() in file
    again = under_test.imported(file.replace(b"\na", b"\nc").replace(b"<b>", b"b"))
    assert again.state is BatchState.APPLIED
    assert (under_test.device("c").label, under_test.device("b").label) == ("=1+1", "-5")
    assert attributes(under_test, "c", Scope.SERVER)["x"] == "'=2"


def test_an_import_of_another_tenant_is_not_there(under_test: ImportsUnderTest) -> None:
    under_test.sent("name\na\n", is_plan=True)
    with pytest.raises(NotFound):
        under_test.ran(under_test.imports.find(ADMINISTRATOR, uuid4()))
