"""The audit: what is recorded, that it is one transaction with the decision, and that the chain shows changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text

from cloud_core.core.people import audit, login_admin
from cloud_core.core.people.audit import Audit, Deed, Somebody, Subject
from cloud_core.core.people.login_admin import MAX_FAILED_LOGINS
from cloud_core.model import AuditFilter, Page
from shared.errors import InvalidArgument
from tests.support.rest import Rest, id_of, without_threads
from tests.support.stores import TENANT, StoreUnderTest, open_store

WHO = Somebody("a@x", TENANT)
NEWEST = Page(100, descending=True)


def add(store: StoreUnderTest, name: str, now_ms: int = 5) -> Any:
    return store.run(lambda tx: audit.record(tx, WHO, "MADE", "THING", uuid4(), name, "why", now_ms=now_ms))


def verdict(store: StoreUnderTest) -> Any:
    return store.survey(audit.verify, TENANT, None)


def entries(store: StoreUnderTest, **wanted: Any) -> list[Any]:
    return list(store.survey(audit.entries, TENANT, AuditFilter(**wanted), NEWEST)[0])


def tamper(store: StoreUnderTest, statement: str) -> None:
    engine = create_engine(store.url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_entries_form_a_chain_that_verifies(store: StoreUnderTest) -> None:
    """Each entry has the next number and a digest over the one before it, whatever its text holds."""
    made = [add(store, name) for name in ("one", "tw\0o", "ž" * 300)]
    assert [one.number for one in made] == [1, 2, 3]
    found = verdict(store)
    assert (found.fault, found.last_number, found.digest) == ("", 3, made[-1].digest)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit SET detail = 'nothing' WHERE number = 2", "entry 2 was changed"),
        ("UPDATE audit SET at_ms = 9 WHERE number = 3", "entry 3 was changed"),
        ("DELETE FROM audit WHERE number = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE number = 3", "entries 3 to 3 are missing"),
        ("UPDATE audit_head SET first_number = 1", "entry 2 was changed"),
    ],
)
def test_any_change_breaks_the_chain(sqlite_store: StoreUnderTest, statement: str, fault: str) -> None:
    """An entry altered, taken out, or cut off at either end is found."""
    for name in ("one", "two", "three"):
        add(sqlite_store, name)
    tamper(sqlite_store, statement)
    assert verdict(sqlite_store).fault.startswith(fault)


def test_retention_keeps_the_rest_verifiable(store: StoreUnderTest) -> None:
    """What is removed for its age or for its number leaves the digest from which the rest is verified."""
    for at_ms in range(1, 7):
        add(store, f"e{at_ms}", at_ms)
    assert store.run(audit.trim, 100, 3) == 2
    found = verdict(store)
    assert (found.fault, found.first_number, found.last_number) == ("", 3, 6)
    assert store.run(audit.trim, 1, 0) == 3
    assert verdict(store).fault == ""
    assert add(store, "next").number == 7
    assert [one.number for one in entries(store)] == [7, 6]
    assert store.run(audit.trim, 100, 10_000) == 2
    assert (verdict(store).fault, add(store, "last").number, verdict(store).fault) == ("", 8, "")


def test_long_chains_are_verified_part_by_part(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part goes on where the last one ended, also when retention has removed that place meanwhile."""
    monkeypatch.setattr(audit, "ENTRIES_AT_ONCE", 2)
    for at_ms in range(1, 6):
        add(sqlite_store, f"e{at_ms}", at_ms)
    part = verdict(sqlite_store)
    assert (part.is_complete, part.last_number) == (False, 2)
    sqlite_store.run(audit.trim, 100, 5)
    last = sqlite_store.survey(audit.verify, TENANT, part)
    assert (last.is_complete, last.fault, last.first_number, last.last_number) == (True, "", 5, 5)


def test_a_refused_decision_leaves_no_entry(sqlite_store: StoreUnderTest) -> None:
    """Decision and entry are one transaction: a refusal is not recorded, and a result is told after both."""
    told: list[Any] = []
    recorder = Audit(sqlite_store.store, on_recorded=told.append)

    def refuse(_tx: Any) -> None:
        raise InvalidArgument("no")

    deed = Deed("MADE", "THING", lambda result: Subject(None, str(result)))
    with pytest.raises(InvalidArgument):
        sqlite_store.wait(lambda done: recorder.submit(WHO, deed, refuse, (), done))
    assert (entries(sqlite_store), told) == ([], [])
    assert sqlite_store.wait(lambda done: recorder.submit(WHO, deed, lambda _tx: 5, (), done)) == 5
    assert [one.name for one in entries(sqlite_store)] == [one.name for one in told] == ["5"]


def test_operators_calls_are_recorded_without_secrets(
    sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of decision over REST stands in the audit with who, what and which; secrets nowhere."""
    without_threads(monkeypatch)
    rest = Rest(sqlite_store)
    profile = rest.made("/api/deviceProfile", {
        "name": "meters", "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": "ALLOW_CREATE_NEW_DEVICES",
        "profileData": {"provisionConfiguration": {"provisionDeviceSecret": "canary-secret"}},
    })  # fmt: skip
    device = rest.made("/api/device?accessToken=canary-token", {"name": "SN-1", "type": "meters"})
    customer = rest.made("/api/customer", {"title": "Ann"})
    path = f"/api/plugins/telemetry/DEVICE/{id_of(device)}"
    assert rest.call("POST", f"{path}/SHARED_SCOPE", {"mode": "canary-value"})[0] == 200
    assert rest.call("DELETE", f"{path}/SHARED_SCOPE?keys=mode")[0] == 200
    assert rest.call("POST", f"/api/customer/{id_of(customer)}/device/{id_of(device)}")[0] == 200
    credentials = {
        "deviceId": device["id"], "credentialsType": "MQTT_BASIC",
        "credentialsValue": '{"clientId": "c", "userName": "u", "password": "canary-password"}',
    }  # fmt: skip
    assert rest.call("POST", "/api/device/credentials", credentials)[0] == 200
    method = {"method": "weather", "url": "https://h.example/canary-path", "secret": "canary-hook"}
    assert rest.call("POST", "/api/serverMethods", method)[0] == 200
    command = {"method": "restart", "params": {"pin": "canary-pin"}, "persistent": True}
    assert rest.call("POST", f"/api/rpc/oneway/{id_of(device)}", command)[0] == 200
    relation = {"from": device["id"], "to": customer["id"], "type": "Contains", "typeGroup": "COMMON"}
    assert rest.call("POST", "/api/relation", relation)[0] == 200
    package = {"deviceProfileId": profile["id"], "type": "FIRMWARE", "title": "fw", "version": "1", "url": "http://x/y"}
    rest.made("/api/otaPackage", package)
    assert rest.call("DELETE", f"/api/device/{id_of(device)}")[0] == 200
    assert rest.call("POST", "/api/auth/login", {"username": "nobody", "password": "canary-login"})[0] == 401
    status, page = rest.call("GET", "/api/audit?pageSize=100&sortOrder=ASC")
    assert status == 200
    assert [(one["action"], one["entityType"]) for one in page["data"]] == [
        ("CREATED", "DEVICE_PROFILE"), ("CREATED", "DEVICE"), ("CREATED", "CUSTOMER"), ("UPDATED", "ATTRIBUTES"),
        ("DELETED", "ATTRIBUTES"), ("ASSIGNED", "DEVICE"), ("UPDATED", "CREDENTIALS"), ("UPDATED", "SERVER_METHOD"),
        ("CREATED", "RPC"), ("UPDATED", "RELATION"), ("CREATED", "OTA_PACKAGE"), ("DELETED", "DEVICE"),
        ("LOGIN_FAILED", "USER"),
    ]  # fmt: skip
    assert {one["actor"] for one in page["data"]} == {"admin@test", "nobody"}
    assert "canary" not in str(page)
    _, filtered = rest.call("GET", f"/api/audit?action=deleted&entityType=DEVICE&entityId={id_of(device)}")
    assert [one["entityName"] for one in filtered["data"]] == ["SN-1"]
    _, verified = rest.call("GET", "/api/audit/verify")
    assert (verified["intact"], verified["lastNumber"]) == (True, 13)


def test_nodes_that_share_a_database_extend_one_chain(postgresql: Callable[[], str]) -> None:
    """Two nodes that record at the same time wait for each other; no number is given twice."""
    url = postgresql()
    nodes = [open_store(url), open_store(url)]
    answers: list[list[Any]] = [[], []]
    for count in range(50):
        for node, mine in zip(nodes, answers, strict=True):
            args = (WHO, "MADE", "THING", None, f"e{count}")
            node.store.submit(audit.record, args, mine.append)
    for node, mine in zip(nodes, answers, strict=True):
        node.reactor.run_until(lambda mine=mine: len(mine) == 50)
    assert sorted(one.number for mine in answers for one in mine) == list(range(1, 101))
    assert verdict(nodes[0]).fault == ""
    for node in nodes:
        node.close()


def test_a_chain_verifies_while_another_node_removes_its_beginning(postgresql: Callable[[], str]) -> None:
    """A look-up of several statements sees one state of the database, whatever is committed between them."""
    url = postgresql()
    reading, other = open_store(url), open_store(url)
    for at_ms in range(1, 4):
        add(reading, f"e{at_ms}", at_ms)

    def verify(tx: Any) -> Any:
        head = tx.audit_head(TENANT)
        assert other.run(audit.trim, 1, 0) == 2
        return head, tx.audit_after(TENANT, head.first_number, head.number, 10)

    head, found = reading.survey(verify)
    assert ([one.number for one in found], head.number) == ([1, 2, 3], 3)
    assert (verdict(reading).fault, verdict(reading).first_number) == ("", 3)
    for node in (reading, other):
        node.close()


def test_strangers_cannot_fill_the_audit(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed logins from many places are recorded up to a rate; the next one recorded says how many were not."""
    without_threads(monkeypatch)
    monkeypatch.setattr(login_admin, "is_password_right", lambda _user, _password: False)
    rest = Rest(sqlite_store)
    login = ("POST", "/api/auth/login", {"username": "nobody", "password": "x"})
    for _ in range(MAX_FAILED_LOGINS + 5):
        assert rest.call(*login)[0] == 401
    assert len(entries(sqlite_store)) == MAX_FAILED_LOGINS
    rest.api.now_s += 11
    assert rest.call(*login)[0] == 401
    assert entries(sqlite_store)[0].detail.endswith("; 5 more before it were left out")
