"""Sub-devices, aliases, tombstones and relations, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from cloud_core.model import Relation, SubDevice
from tests.support.stores import TENANT, StoreUnderTest


def uuid_of(store: StoreUnderTest, device_id: int) -> UUID:
    uuid: UUID = store.read(lambda tx: tx.device_by_id(device_id)).uuid
    return uuid


def created(from_uuid: UUID, to_uuid: UUID, **members: Any) -> Relation:
    settings = {"from_type": "DEVICE", "to_type": "DEVICE", "type": "Created"} | members
    return Relation(tenant_id=TENANT, from_uuid=from_uuid, to_uuid=to_uuid, **settings)


def test_a_sub_device_is_behind_the_gateway_it_connected_through_last(store: StoreUnderTest) -> None:
    """What is put replaces what was known, marks included."""
    device_id = store.add_device("d", store.add_profile())
    first = SubDevice(
        device_id=device_id, gateway_id=7, connected_ms=1, is_created_by_gateway=True, is_type_guessed=True
    )
    second = SubDevice(device_id=device_id, gateway_id=8, connected_ms=2, is_created_by_gateway=True)
    assert store.read(lambda tx: tx.sub_device(device_id)) is None
    for one in (first, second):
        store.run(lambda tx, one=one: tx.put_sub_device(one))
        assert store.read(lambda tx: tx.sub_device(device_id)) == one


def test_a_former_name_leads_to_its_device_for_its_gateway_alone(store: StoreUnderTest) -> None:
    """Aliases are replaced, deleted by name or by device, and end with the device."""
    profile_id = store.add_profile()
    gateway_id, first, second = (store.add_device(name, profile_id) for name in ("g", "a", "b"))
    store.run(lambda tx: tx.put_alias(gateway_id, "old", first))
    store.run(lambda tx: tx.put_alias(gateway_id, "old", second))
    store.run(lambda tx: tx.put_alias(gateway_id, "older", second))
    store.run(lambda tx: tx.put_alias(gateway_id, "other", first))
    assert store.read(lambda tx: tx.alias(gateway_id, "old")) == second
    assert store.read(lambda tx: tx.alias(second, "old")) is None
    store.run(lambda tx: tx.delete_alias(gateway_id, "old"))
    assert store.read(lambda tx: tx.alias(gateway_id, "old")) is None
    store.run(lambda tx: tx.delete_aliases_of(gateway_id, second))
    assert store.read(lambda tx: tx.alias(gateway_id, "older")) is None
    assert store.read(lambda tx: tx.alias(gateway_id, "other")) == first
    store.run(lambda tx: tx.delete_device(first))
    assert store.read(lambda tx: tx.alias(gateway_id, "other")) is None


def test_tombstones_are_kept_by_name_until_they_are_trimmed(store: StoreUnderTest) -> None:
    """The newest deletion of a name counts."""
    for name, deleted_ms in (("a", 1), ("a", 5), ("b", 3)):
        store.run(lambda tx, name=name, at=deleted_ms: tx.put_tombstone(TENANT, name, deleted_ms=at))
    assert store.read(lambda tx: [tx.tombstone(TENANT, name) for name in "abc"]) == [5, 3, None]
    store.run(lambda tx: tx.trim_tombstones(5))
    assert store.read(lambda tx: [tx.tombstone(TENANT, name) for name in "ab"]) == [5, None]
    store.run(lambda tx: tx.delete_tombstone(TENANT, "a"))
    assert store.read(lambda tx: tx.tombstone(TENANT, "a")) is None


def test_relations_are_found_from_either_end(store: StoreUnderTest) -> None:
    """By end and by type; a repeated one replaces its additional info."""
    a, b, c = uuid4(), uuid4(), uuid4()
    for one in (created(a, b), created(a, c), created(b, c, type="Contains"), created(a, b, additional_info={"x": 1})):
        store.run(lambda tx, one=one: tx.put_relation(one))
    assert store.read(lambda tx: len(tx.relations(TENANT))) == 3
    assert store.read(lambda tx: tx.relations(TENANT, from_uuid=a, to_uuid=b))[0].additional_info == {"x": 1}
    assert {one.to_uuid for one in store.read(lambda tx: tx.relations(TENANT, from_uuid=a))} == {b, c}
    found = store.read(lambda tx: tx.relations(TENANT, to_uuid=c, type_="Contains"))
    assert found == [created(b, c, type="Contains")]
    assert store.read(lambda tx: tx.relations(TENANT + 1)) == []


def test_a_relation_is_deleted_by_ends_type_and_group(store: StoreUnderTest) -> None:
    """Whether there was one is told."""
    a, b = uuid4(), uuid4()
    one = created(a, b)
    store.run(lambda tx: tx.put_relation(one))
    assert store.run(lambda tx: tx.delete_relation(replace(one, type="Contains"))) is False
    assert store.run(lambda tx: tx.delete_relation(one)) is True
    assert store.run(lambda tx: tx.delete_relation(one)) is False


def test_a_deleted_device_leaves_no_relation_and_no_sub_device(store: StoreUnderTest) -> None:
    """From it and to it; those of others stay."""
    profile_id = store.add_profile()
    gateway_id, device_id = store.add_device("g", profile_id), store.add_device("d", profile_id)
    gateway, device, other = uuid_of(store, gateway_id), uuid_of(store, device_id), uuid4()
    for one in (created(gateway, device), created(device, other), created(gateway, other)):
        store.run(lambda tx, one=one: tx.put_relation(one))
    store.run(lambda tx: tx.put_sub_device(SubDevice(device_id=device_id, gateway_id=gateway_id, connected_ms=1)))
    store.run(lambda tx: tx.delete_device(device_id))
    assert store.read(lambda tx: tx.relations(TENANT)) == [created(gateway, other)]
    assert store.read(lambda tx: tx.sub_device(device_id)) is None
