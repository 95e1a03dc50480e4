"""Presence: who counts as active, from what is heard and for how long, on a real store."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.core import presence as module
from cloud_core.core.api import Options
from cloud_core.model import INACTIVITY_TIMEOUT, PRESENCE_KEYS, Scope
from shared.errors import InvalidArgument, Unavailable
from tests.support.api import ApiUnderTest
from tests.support.stores import StoreUnderTest

START_MS = 1_700_000_000_000


class Fleet:
    """Devices on an `ApiUnderTest` whose clock the test moves."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.store = store
        self.under = ApiUnderTest(store, options=Options(inactivity_s=600.0))
        self.presence = self.under.api.presence
        self.profile_id = store.add_profile()

    def add(self, name: str) -> int:
        return self.store.add_device(name, self.profile_id)

    def after(self, seconds: float) -> None:
        self.under.now_s += seconds

    def flush(self) -> None:
        self.presence.flush()
        self.store.run(lambda tx: None)

    def check(self) -> None:
        self.presence.check()
        self.flush()

    def shown(self, device_id: int) -> dict[str, Any]:
        """Times in seconds since the start."""
        entries = self.store.read(lambda tx: tx.attributes(device_id, Scope.SERVER, sorted(PRESENCE_KEYS)))
        return {
            entry.key: entry.value if isinstance(entry.value, bool) else (entry.value - START_MS) / 1000
            for entry in entries
        }

    def put(self, device_id: int, scope: Scope = Scope.SERVER, **values: Any) -> Any:
        return self.under.outcome(lambda done: self.under.api.attributes.put(device_id, scope, values, done))

    def delete(self, device_id: int, *keys: str, scope: Scope = Scope.SERVER) -> Any:
        return self.under.outcome(lambda done: self.under.api.attributes.delete(device_id, scope, keys, done))


@pytest.fixture
def fleet(sqlite_store: StoreUnderTest) -> Fleet:
    return Fleet(sqlite_store)


def test_a_device_that_was_never_heard_of_shows_nothing(fleet: Fleet) -> None:
    """No presence attribute is there before it has a value."""
    assert fleet.shown(fleet.add("d")) == {}


def test_a_session_and_its_end_are_shown_as_server_attributes(fleet: Fleet) -> None:
    """Connecting counts as activity; disconnecting leaves the device active until its time is over."""
    device_id = fleet.add("d")
    fleet.presence.connected(device_id)
    fleet.flush()
    assert fleet.shown(device_id) == {"active": True, "lastActivityTime": 0, "lastConnectTime": 0}
    fleet.after(10)
    fleet.presence.disconnected(device_id)
    fleet.flush()
    assert fleet.shown(device_id) == {
        "active": True, "lastActivityTime": 0, "lastConnectTime": 0, "lastDisconnectTime": 10,
    }  # fmt: skip


def test_a_silent_device_becomes_inactive_at_the_next_check_and_wakes_with_its_next_word(fleet: Fleet) -> None:
    """The alarm says when; a session that stays open and says nothing does not keep a device active."""
    device_id = fleet.add("d")
    fleet.presence.connected(device_id)
    fleet.flush()
    fleet.after(599)
    fleet.check()
    assert fleet.shown(device_id)["active"] is True
    fleet.after(1)
    fleet.check()
    shown = fleet.shown(device_id)
    assert (shown["active"], shown["inactivityAlarmTime"]) == (False, 600)
    fleet.after(5)
    fleet.presence.seen(device_id)
    fleet.flush()
    shown = fleet.shown(device_id)
    assert (shown["active"], shown["lastActivityTime"], shown["inactivityAlarmTime"]) == (True, 605, 600)


def test_whoever_spoke_since_the_last_flush_is_not_silent(fleet: Fleet) -> None:
    """The check sees what is not written yet."""
    device_id = fleet.add("d")
    fleet.presence.seen(device_id)
    fleet.flush()
    fleet.after(600)
    fleet.presence.seen(device_id)
    fleet.check()
    assert fleet.shown(device_id)["active"] is True


def test_a_time_of_activity_is_exact_to_the_interval_of_the_flush(fleet: Fleet) -> None:
    """Never later than now, and never earlier than it was."""
    device_id = fleet.add("d")
    fleet.presence.seen(device_id)
    fleet.flush()  # the next is due at 3
    fleet.after(2)
    fleet.presence.seen(device_id)
    fleet.after(1)
    fleet.flush()
    assert fleet.shown(device_id)["lastActivityTime"] == 3


def test_a_device_may_have_an_inactivity_timeout_of_its_own(fleet: Fleet) -> None:
    """The server attribute counts from when it is written until it is deleted, shorter or longer than the default."""
    hasty, patient, plain = fleet.add("hasty"), fleet.add("patient"), fleet.add("plain")
    fleet.put(hasty, **{INACTIVITY_TIMEOUT: 5_000})
    fleet.put(patient, **{INACTIVITY_TIMEOUT: 3_600_000})
    fleet.presence.all_seen([patient, hasty, plain])
    fleet.flush()
    fleet.after(60)
    fleet.check()
    assert [fleet.shown(one)["active"] for one in (hasty, patient, plain)] == [False, True, True]
    fleet.after(600)
    fleet.check()
    assert [fleet.shown(one)["active"] for one in (hasty, patient, plain)] == [False, True, False]
    fleet.delete(patient, INACTIVITY_TIMEOUT)
    fleet.check()
    assert fleet.shown(patient)["active"] is False


@pytest.mark.parametrize("value", [0, -1, True, "soon", 2.0**70])
def test_a_timeout_that_is_no_time_counts_as_none(fleet: Fleet, value: Any) -> None:
    """It is kept as the operator wrote it, and the default applies."""
    device_id = fleet.add("d")
    fleet.put(device_id, **{INACTIVITY_TIMEOUT: value})
    fleet.presence.seen(device_id)
    fleet.flush()
    fleet.after(599)
    fleet.check()
    assert fleet.shown(device_id)["active"] is True


def test_a_sub_devices_last_activity_is_the_later_of_its_own_and_its_gateways(fleet: Fleet) -> None:
    """The gateway counts for all whose activity it overwrites (G9)."""
    own_later, gateway_later = fleet.add("a"), fleet.add("b")
    fleet.presence.all_seen([own_later, gateway_later])
    fleet.flush()
    fleet.after(3)
    fleet.presence.seen(own_later)
    fleet.flush()
    fleet.after(3)
    fleet.presence.all_seen([gateway_later])
    fleet.flush()
    assert [fleet.shown(one)["lastActivityTime"] for one in (own_later, gateway_later)] == [3, 6]


def test_a_restart_goes_on_with_who_was_active(fleet: Fleet) -> None:
    """Activity and timeouts of before the restart count after it."""
    early, late, own = fleet.add("early"), fleet.add("late"), fleet.add("own")
    fleet.put(own, **{INACTIVITY_TIMEOUT: 5_000_000})
    fleet.presence.all_seen([early, own])
    fleet.flush()
    fleet.after(500)
    fleet.presence.seen(late)
    fleet.flush()
    again = Fleet.__new__(Fleet)
    again.store, again.under = fleet.store, ApiUnderTest(fleet.store)
    again.presence = again.under.api.presence
    again.under.now_s = fleet.under.now_s + 200
    again.presence.start()
    fleet.store.read(lambda tx: None)
    again.check()
    assert [fleet.shown(one)["active"] for one in (early, late, own)] == [False, True, True]


def test_a_stop_disconnects_whoever_is_connected_and_writes_everything(fleet: Fleet, monkeypatch: Any) -> None:
    """The last flush has no bound."""
    monkeypatch.setattr(module, "MAX_ROWS_PER_FLUSH", 1)
    ids = [fleet.add(f"d{number}") for number in range(3)]
    for one in ids:
        fleet.presence.connected(one)
    fleet.after(1)
    fleet.presence.stop()
    fleet.store.run(lambda tx: None)
    assert [fleet.shown(one)["lastDisconnectTime"] for one in ids] == [1, 1, 1]


def test_one_flush_writes_a_bounded_number_and_the_next_the_rest(fleet: Fleet, monkeypatch: Any) -> None:
    """Changes go before mere activity, and nobody waits for ever."""
    monkeypatch.setattr(module, "MAX_ROWS_PER_FLUSH", 2)
    ids = [fleet.add(f"d{number}") for number in range(4)]
    fleet.presence.all_seen(ids)
    fleet.flush()
    assert [bool(fleet.shown(one)) for one in ids] == [True, True, False, False]
    fleet.after(1)
    fleet.presence.all_seen(ids)
    fleet.flush()
    assert [fleet.shown(one)["lastActivityTime"] for one in ids] == [0, 0, 0, 0]
    fleet.flush()
    fleet.flush()
    assert [fleet.shown(one)["lastActivityTime"] for one in ids] == [1, 1, 1, 1]


def test_nothing_is_written_when_nothing_has_changed(fleet: Fleet, monkeypatch: Any) -> None:
    """A fleet at rest costs no commit."""
    device_id = fleet.add("d")
    fleet.presence.seen(device_id)
    fleet.flush()
    submitted: list[Any] = []
    monkeypatch.setattr(fleet.store.store, "submit", lambda *args: submitted.append(args))
    fleet.presence.flush()
    assert submitted == []


def test_what_could_not_be_written_is_written_later(fleet: Fleet, monkeypatch: Any) -> None:
    """A busy store loses no connect, no disconnect and no silence."""
    device_id, other = fleet.add("d"), fleet.add("other")
    fleet.presence.seen(other)
    fleet.flush()
    fleet.presence.connected(device_id)
    fleet.after(1)
    fleet.presence.seen(other)
    with monkeypatch.context() as patch:
        patch.setattr(fleet.store.store, "submit", lambda work, args, done: done(Unavailable()))
        fleet.presence.flush()
    fleet.presence.disconnected(device_id)
    fleet.flush()
    shown = fleet.shown(device_id)
    assert (shown["active"], shown["lastConnectTime"], shown["lastDisconnectTime"]) == (True, 0, 1)
    assert fleet.shown(other)["lastActivityTime"] == 1


def test_a_deleted_device_leaves_no_presence_even_when_a_flush_comes_late(fleet: Fleet) -> None:
    """What was gathered before the deletion does not bring a row back."""
    device_id = fleet.add("d")
    fleet.presence.connected(device_id)
    fleet.flush()
    fleet.presence.seen(device_id)
    fleet.store.run(lambda tx: tx.delete_device(device_id))
    fleet.flush()
    assert fleet.store.read(lambda tx: tx.presence(device_id)) is None
    fleet.presence.forget(device_id)
    fleet.presence.stop()
    assert fleet.store.run(lambda tx: tx.active_devices()) == []


def test_the_inactive_are_forgotten_from_memory(fleet: Fleet) -> None:
    """Memory is bounded by those who are active or connected."""
    ids = [fleet.add(f"d{number}") for number in range(3)]
    for one in ids:
        fleet.presence.connected(one)
        fleet.presence.disconnected(one)
    fleet.flush()
    fleet.after(600)
    fleet.check()
    held = [value for value in vars(fleet.presence).values() if isinstance(value, dict | set)]
    assert held and not any(held)


@pytest.mark.parametrize("key", ["active", "lastActivityTime", "inactivityAlarmTime"])
def test_operators_cannot_write_or_delete_presence(fleet: Fleet, key: str) -> None:
    """The refusal names the key; the same name in another scope is an ordinary attribute."""
    device_id = fleet.add("d")
    for refusal in (fleet.put(device_id, other=1, **{key: False}), fleet.delete(device_id, key)):
        assert isinstance(refusal, InvalidArgument) and key in str(refusal)
    assert fleet.put(device_id, Scope.SHARED, **{key: False}) is None
    assert fleet.store.read(lambda tx: tx.attribute(device_id, Scope.SHARED, key)) is False
