"""Live events: what is told, to whom, and what becomes of listeners that are slow or come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import jwt
import pytest
from twisted.internet.task import Clock

from cloud_core.core import events as events_module
from cloud_core.core.events import FLUSH_S, GAP, MAX_BEATS, Events
from cloud_core.core.people.logins import TOKEN_S, Operator
from cloud_core.model import Identity, Peer, Role, Transport, UserRole
from cloud_core.transports.http.rest.event_routes import KINDS
from shared.errors import MalformedRequest, RateLimited, Unavailable
from tests.cloud_core.core.test_enrolment import Enrolling
from tests.cloud_core.core.test_provision_keys import OWN, Plant
from tests.support.authorities import csr
from tests.support.chains import Factory
from tests.support.rest import ADMINISTRATOR, Rest
from tests.support.stores import TENANT, StoreUnderTest

OTHER = replace(ADMINISTRATOR, tenant_id=TENANT + 1, tenant_uuid=UUID(int=8), user_uuid=UUID(int=9))


def listen(events: Events, last_id: str = "", who: Operator = ADMINISTRATOR) -> Any:
    return events.listen(who, last_id, lambda: None, lambda: None)


def kinds(events: Events, listener: Any) -> list[str]:
    return [one.kind for one in events.take(listener)]


def test_a_listener_hears_its_own_tenant_and_the_first_one_what_is_nobodys() -> None:
    """As the lists show them: nothing of another tenant, and unknown keys to the installation's first tenant alone."""
    events = Events()
    mine, others = listen(events), listen(events, who=OTHER)
    for tenant_id, kind in ((TENANT, "a"), (TENANT + 1, "b"), (None, "c")):
        events.publish(tenant_id, kind, {})
    assert (kinds(events, mine), kinds(events, others)) == (["a", "c"], ["b"])
    seen = f"{events.epoch}-0"
    assert (kinds(events, listen(events, seen)), kinds(events, listen(events, seen, OTHER))) == (["a", "c"], ["b"])
    woken: list[bool] = []
    gone = events.listen(ADMINISTRATOR, "", lambda: woken.append(True), lambda: None)
    events.leave(gone)
    events.publish(TENANT, "d", {})
    assert not woken


def test_who_comes_back_goes_on_behind_the_last_event_it_saw() -> None:
    """Nothing between is missed or told twice, as long as it is in the buffer."""
    events = Events()
    first = listen(events)
    for kind in ("a", "b", "c"):
        events.publish(TENANT, kind, {})
    seen = events.take(first)[0]
    assert kinds(events, listen(events, events.id_of(seen))) == ["b", "c"]
    assert kinds(events, listen(events)) == []


def test_the_newest_of_a_kind_can_be_asked_for() -> None:
    """Of one's own tenant, with what they are about, newest first, no more than wanted."""
    events = Events()
    for number in range(4):
        events.publish(TENANT, "gateway", {"deviceId": "a" if number else "b", "number": number})
    events.publish(TENANT, "other", {"deviceId": "a"})
    events.publish(TENANT + 1, "gateway", {"deviceId": "a", "number": 9})
    found = events.recent(ADMINISTRATOR, "gateway", 2, deviceId="a")
    assert [one.data["number"] for one in found] == [3, 2] and all(one.at_ms for one in found)
    assert [one.data["number"] for one in events.recent(OTHER, "gateway", 9)] == [9]


@pytest.mark.parametrize("last_id", ["OTHER-1", "nonsense", "-5", "²-²"])
def test_an_id_of_another_run_gives_a_gap(last_id: str) -> None:
    """What cannot be known to be complete is marked so."""
    events = Events()
    events.publish(TENANT, "a", {})
    assert kinds(events, listen(events, last_id)) == [GAP]


def test_who_comes_back_too_late_gets_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that have left the buffer are announced as missing."""
    monkeypatch.setattr(events_module, "KEPT", 2)
    events = Events()
    events.publish(TENANT, "a", {})
    seen = f"{events.epoch}-1"
    for kind in ("b", "c"):
        events.publish(TENANT, kind, {})
    assert kinds(events, listen(events, seen)) == ["b", "c"]
    events.publish(TENANT, "d", {})
    assert kinds(events, listen(events, seen)) == [GAP]


def test_who_is_far_behind_gets_a_gap_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears that it has missed something, others are not touched."""
    monkeypatch.setattr(events_module, "MAX_AT_ONCE", 2)
    events = Events()
    slow, quick = listen(events), listen(events)
    heard = []
    for kind in ("a", "b", "c", "d"):
        events.publish(TENANT, kind, {})
        heard += kinds(events, quick)
    assert (kinds(events, slow), heard) == ([GAP], ["a", "b", "c", "d"])
    events.publish(TENANT, "e", {})
    assert kinds(events, slow) == ["e"]


def test_a_burst_wakes_everybody_once() -> None:
    """However much happens, listeners are woken some times a second; a silent core wakes nobody."""
    clock, woken = Clock(), []
    events = Events(clock.callLater)
    events.publish(TENANT, "unheard", {})
    assert not clock.getDelayedCalls()
    listener = events.listen(ADMINISTRATOR, "", lambda: woken.append(True), lambda: None)
    for _ in range(100):
        events.publish(TENANT, "a", {})
    assert not woken
    clock.advance(FLUSH_S)
    assert woken == [True] and len(kinds(events, listener)) == 100
    clock.advance(10)
    assert woken == [True]


def test_listeners_are_bounded_and_end_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a limit of listeners, and each has to come again with a token that is still good."""
    monkeypatch.setattr(events_module, "MAX_LISTENERS", 1)
    events, ended = Events(), []
    events.listen(ADMINISTRATOR, "", lambda: None, lambda: ended.append(True))
    with pytest.raises(Unavailable):
        listen(events, who=OTHER)
    for _ in range(MAX_BEATS):
        events.beat()
    assert not ended
    events.beat()
    assert ended


def test_nobody_takes_the_place_of_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One login has a few connections at once; others still find room, and it does when it leaves one."""
    monkeypatch.setattr(events_module, "MAX_OF_ONE", 2)
    events = Events()
    first, _ = listen(events), listen(events)
    with pytest.raises(Unavailable, match="2 connections"):
        listen(events)
    listen(events, who=OTHER)
    events.leave(first)
    listen(events)


class Watcher:
    """`GET /api/events` on a connection of its own."""

    def __init__(self, plant: Plant, query: str = "", headers: str = "", by: str | None = None) -> None:
        self.peer = plant.rest.another_caller()
        head = f"GET /api/events{query} HTTP/1.1\r\nHost: h\r\n{self.peer.headers(by)}{headers}\r\n"
        self.peer.send(head.encode())
        self.peer.settle()

    def text(self) -> str:
        data: bytes = self.peer.transport.value()
        self.peer.transport.clear()
        return data.decode()


def test_attempts_devices_approvals_and_the_audit_are_told_over_http(sqlite_store: StoreUnderTest) -> None:
    """Server-sent events with ids; a client that lost its connection goes on with Last-Event-ID; no secrets."""
    plant = Plant(sqlite_store)
    watcher = Watcher(plant)
    head = watcher.text()
    assert "200 OK" in head and "text/event-stream" in head
    assert plant.ask("SN-1", OWN) == "SUCCESS"
    assert plant.ask("SN-1", OWN) == "DEVICE_EXISTS"
    plant.rest.made("/api/customer", {"title": "Ann"})
    text = watcher.text()
    told = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert told == ["attempt", "deviceCreated", "attempt", "audit"]
    assert plant.answer.ref in text and OWN["provision_secret"] not in text
    first = next(line for line in text.splitlines() if line.startswith("id: "))
    again = Watcher(plant, "?kinds=audit", f"Last-Event-ID: {first.removeprefix('id: ')}\r\n").text()
    assert ("event: audit" in again, "event: attempt" in again) == (True, False)
    plant.api.api.events.beat()
    assert ":\n\n" in watcher.text()
    plant.api.api.events.stop()
    assert watcher.text().endswith("0\r\n\r\n")
    assert "400" in Watcher(plant, "?kinds=weather").text()


def test_a_stream_ends_with_the_login_that_opened_it(sqlite_store: StoreUnderTest) -> None:
    """What happens after a logout, or the end of a user, is not told any more."""
    plant = Plant(sqlite_store)
    login = replace(ADMINISTRATOR, session=UUID(int=5))
    watcher, other = Watcher(plant, by=Rest.token_of(login)), Watcher(plant)
    assert plant.rest.call("POST", "/api/auth/logout", by=Rest.token_of(login))[0] == 200
    plant.ask("SN-1", OWN)
    text = watcher.text()
    assert text.endswith("0\r\n\r\n") and "event: attempt" not in text
    assert "event: attempt" in other.text()


def test_a_stream_ends_with_its_token(sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An expired token hears nothing more; the client comes again with a new one and its Last-Event-ID."""
    plant = Plant(sqlite_store)
    watcher = Watcher(plant)
    plant.ask("SN-1", OWN)
    assert "event: attempt" in watcher.text()
    now_s = time.time() + TOKEN_S + 1

    def expired(*_args: Any, **_options: Any) -> None:  # the library reads a clock of its own
        raise jwt.ExpiredSignatureError

    monkeypatch.setattr(time, "time", lambda: now_s)
    monkeypatch.setattr(jwt, "decode", expired)
    plant.api.api.events.beat()
    assert watcher.text().endswith("0\r\n\r\n")


@pytest.mark.parametrize(
    ("role", "refused"),
    [(UserRole.VIEWER, {"approval", "audit"}), (UserRole.OPERATOR, {"audit"}), (UserRole.ADMINISTRATOR, set())],
)
def test_a_role_hears_what_it_may_list(sqlite_store: StoreUnderTest, role: UserRole, refused: set[str]) -> None:
    """Kinds whose lists are closed to a role are not told to it, whether it asks for them or for everything."""
    plant = Plant(sqlite_store, approval="REQUIRED")
    by = Rest.token_of(replace(ADMINISTRATOR, role=role, user_uuid=UUID(int=77)))
    for kind in KINDS:
        assert ("403" in Watcher(plant, f"?kinds={kind}", by=by).text()) == (kind in refused)
    watcher = Watcher(plant, by=by)
    watcher.text()
    plant.ask("SN-1", OWN)
    plant.rest.made("/api/customer", {"title": "Ann"})
    text = watcher.text()
    assert {kind for kind in ("attempt", "approval", "audit") if f"event: {kind}" not in text} == refused


def test_approvals_are_told_when_they_wait_and_when_they_are_decided(sqlite_store: StoreUnderTest) -> None:
    """An inbox on a screen is up to date without asking."""
    plant = Plant(sqlite_store, approval="REQUIRED")
    listener = listen(plant.api.api.events)
    plant.ask("SN-1", OWN)
    plant.rest.call("POST", "/api/provisioning/pending/accept", {"all": True})
    told = [(one.kind, one.data.get("status")) for one in plant.api.api.events.take(listener) if one.kind == "approval"]
    assert told == [("approval", "PENDING"), ("approval", "ACCEPTED")]


def test_sessions_of_gateways_are_told(sqlite_store: StoreUnderTest) -> None:
    """A gateway that comes and goes is seen at once."""
    plant = Plant(sqlite_store)
    listener = listen(plant.api.api.events)
    session = plant.api.api.gateways.open(Identity(Role.GATEWAY, TENANT, 5, None, "GW-1"), None)  # type: ignore[arg-type]
    session.close()
    session.close()
    assert [(one.kind, one.data["connected"]) for one in plant.api.api.events.take(listener)] == [
        ("gateway", True),
        ("gateway", False),
    ]


def told_as_logged(events: Events, store: StoreUnderTest, run: Callable[[], None]) -> list[str]:
    """The outcomes that are told while `run` does its work, which are those of the log, line by line."""
    listener = listen(events)
    run()
    told = [one.data for one in events.take(listener) if one.kind == "attempt"]
    lines = store.run(lambda tx: tx.attempts())[::-1]
    assert [(one["ref"] or "", one["outcome"], one["stage"], one["deviceName"]) for one in told] == [
        (one.ref, one.outcome, one.stage, one.device_name) for one in lines
    ]
    return [one["outcome"] for one in told]


def test_devices_that_come_by_certificate_are_told(sqlite_store: StoreUnderTest) -> None:
    """Admitted, refused by a rule, refused by their chain: as the log has them, and a new device as one."""
    factory = Factory(sqlite_store)
    created = listen(factory.api.events)

    def come() -> None:
        factory.show(factory.line.leaf("sensor-1"))
        factory.show(factory.line.leaf("sensor-1"))
        factory.show(factory.pki.root("Elsewhere").leaf("sensor-2"))

    outcomes = told_as_logged(factory.api.events, sqlite_store, come)
    assert outcomes == ["SUCCESS", "DEVICE_EXISTS", "UNTRUSTED_CERTIFICATE"]
    names = [one.data["deviceName"] for one in factory.api.events.take(created) if one.kind == "deviceCreated"]
    assert names == ["sensor-1"]


def test_renewals_and_malformed_requests_are_told(
    sqlite_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in the log is told; a renewal that is answered again stands there once."""
    est = Enrolling(sqlite_store, monkeypatch)
    door = est.api.api

    def come() -> None:
        first, again = est.first(), csr("SN-1")
        est.renewed(first, again)
        est.renewed(first, again)
        est.renew(first, "nonsense")
        peer = Peer(Transport.HTTP, "192.0.2.1")
        est.api.outcome(lambda done: door.refuse_provision(MalformedRequest("no JSON"), peer, done))
        est.api.outcome(lambda done: door.refuse_provision(RateLimited("slow"), peer, lambda _: done(None)))

    listener = listen(door.events)
    come()
    told = [one.data["outcome"] for one in door.events.take(listener) if one.kind == "attempt"]
    assert told == ["SUCCESS", "SUCCESS", "INVALID_CREDENTIALS", "MALFORMED_REQUEST"]
