"""Presence in the store: the same on both databases."""

from __future__ import annotations

from typing import Any

from cloud_core.model import DevicePresence, Scope
from tests.support.stores import StoreUnderTest


def put(store: StoreUnderTest, *rows: DevicePresence) -> None:
    store.run(lambda tx: tx.put_presence(rows))


def shown(store: StoreUnderTest, device_id: int, keys: list[str] | None = None) -> dict[str, Any]:
    return {one.key: one.value for one in store.read(lambda tx: tx.attributes(device_id, Scope.SERVER, keys))}


def test_members_that_are_zero_keep_what_is_stored(store: StoreUnderTest) -> None:
    """Many rows in one statement, new ones and known ones side by side."""
    profile_id = store.add_profile()
    one, two = (store.add_device(name, profile_id) for name in ("one", "two"))
    put(store, DevicePresence(device_id=two, is_active=True, last_connect_ms=5, last_activity_ms=6))
    put(
        store,
        DevicePresence(device_id=two, is_active=False, inactivity_alarm_ms=9),
        DevicePresence(device_id=one, is_active=True, last_disconnect_ms=7),
    )
    assert store.read(lambda tx: tx.presence(two)) == DevicePresence(
        device_id=two, is_active=False, last_connect_ms=5, last_activity_ms=6, inactivity_alarm_ms=9
    )
    assert store.read(lambda tx: tx.active_devices()) == [
        DevicePresence(device_id=one, is_active=True, last_disconnect_ms=7)
    ]


def test_presence_reads_as_server_attributes_in_their_order(store: StoreUnderTest) -> None:
    """Among the stored ones, by key, and only in server scope; nothing that is stored under such a name shows."""
    device_id = store.add_device("d", store.add_profile())
    store.run(lambda tx: tx.put_attributes(device_id, Scope.SERVER, {"z": 1, "a": 2, "active": "x"}, now_ms=1))
    assert shown(store, device_id) == {"a": 2, "z": 1}
    put(store, DevicePresence(device_id=device_id, is_active=True, last_connect_ms=5, last_activity_ms=6))
    entries = store.read(lambda tx: tx.attributes(device_id, Scope.SERVER))
    assert [(one.key, one.value, one.updated_ms) for one in entries] == [
        ("a", 2, 1), ("active", True, 6), ("lastActivityTime", 6, 6), ("lastConnectTime", 5, 5), ("z", 1, 1),
    ]  # fmt: skip
    assert shown(store, device_id, ["active", "lastDisconnectTime", "z"]) == {"active": True, "z": 1}
    assert store.read(lambda tx: tx.attributes(device_id, Scope.CLIENT)) == []


def test_one_presence_attribute_is_read_alone(store: StoreUnderTest) -> None:
    """`attribute` and `attributes` agree."""
    device_id = store.add_device("d", store.add_profile())
    read = [store.read(lambda tx: tx.attribute(device_id, Scope.SERVER, "active"))]
    put(store, DevicePresence(device_id=device_id, is_active=False, inactivity_alarm_ms=4))
    for key in ("active", "inactivityAlarmTime", "lastConnectTime"):
        read.append(store.read(lambda tx, one=key: tx.attribute(device_id, Scope.SERVER, one)))
    assert read == [None, False, 4, None]


def test_a_device_that_is_gone_has_no_presence_and_gets_none(store: StoreUnderTest) -> None:
    """Deletion takes the row along, and a late write does not bring it back."""
    device_id = store.add_device("d", store.add_profile())
    row = DevicePresence(device_id=device_id, is_active=True, last_activity_ms=6)
    put(store, row)
    store.run(lambda tx: tx.delete_device(device_id))
    assert store.read(lambda tx: tx.presence(device_id)) is None
    put(store, row)
    assert store.read(lambda tx: tx.presence(device_id)) is None


def test_inactivity_timeouts_are_found_in_server_scope(store: StoreUnderTest) -> None:
    """What is no positive number is none."""
    profile_id = store.add_profile()
    written: list[tuple[str, Scope, Any]] = [
        ("good", Scope.SERVER, 5_000),
        ("text", Scope.SERVER, "x"),
        ("zero", Scope.SERVER, 0),
        ("client", Scope.CLIENT, 7),
    ]
    for name, scope, value in written:
        device_id = store.add_device(name, profile_id)
        store.run(lambda tx, i=device_id, s=scope, v=value: tx.put_attributes(i, s, {"inactivityTimeout": v}, now_ms=1))
    good = store.run(lambda tx: tx.device_by_name(1, "good")).id
    assert store.read(lambda tx: tx.inactivity_timeouts()) == {good: 5_000}
