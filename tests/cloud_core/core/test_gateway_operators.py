"""Operators delete and rename sub-devices while their gateway is connected (wire-contract.md section 5)."""

from __future__ import annotations

import pytest

from cloud_core.core import inventory
from cloud_core.core.downlinks import Ending
from cloud_core.core.gateways import Dropped
from cloud_core.model import Scope
from tests.support.gateways import GatewaysUnderTest
from tests.support.stores import TENANT, StoreUnderTest


@pytest.fixture
def one(sqlite_store: StoreUnderTest) -> GatewaysUnderTest:
    return GatewaysUnderTest(sqlite_store)


def rename(one: GatewaysUnderTest, old: str, new: str) -> None:
    device = one.device(old)
    assert device is not None
    members = {**device.document, "id": str(device.uuid), "name": new}
    saved = one.store.run(inventory.write_device, TENANT, members, None, 5)
    one.api.device_changed(saved.device.id, Ending.DEVICE_CHANGED)
    one.api.gateways.renamed(TENANT, saved.gateway_id, saved.former_name, saved.device.name)


def delete(one: GatewaysUnderTest, name: str) -> None:
    device = one.device(name)
    assert device is not None
    deleted = one.store.run(inventory.delete_device, TENANT, device.uuid, one.api.now_ms())
    one.api.device_changed(deleted.device_id, Ending.DEVICE_DELETED)
    one.api.gateways.deleted(TENANT, deleted.gateway_id, deleted.name)


def test_a_deleted_device_is_not_revived_by_data_alone(one: GatewaysUnderTest) -> None:
    """Data are dropped with a notice and no refusal; a connect brings it back with one relation (G5)."""
    gateway = one.add_gateway()
    session, link = one.open(gateway)
    one.ask(session.post_telemetry, {"A": [(1, {"t": 1})]})
    first = one.number("A")
    delete(one, "A")
    assert link.ends == ["A"]
    device_id, notice = one.notices[-1]
    assert (device_id, notice.method, notice.params) == (gateway.device_id, "gateway_device_deleted", "A")
    assert one.ask(session.post_telemetry, {"A": [(2, {"t": 2})], "B": [(1, {"t": 1})]}) is None
    assert one.device("A") is None
    assert link.drops == [("A", Dropped.OTHER)]
    assert one.latest("B") == {"t": 1}
    assert one.ask(session.connect, "A", "thermostat") is None
    assert one.number("A") > first
    relations = one.store.read(lambda tx: tx.relations(TENANT))
    revived = one.device("A")
    assert revived is not None
    assert len([relation for relation in relations if relation.to_uuid == revived.uuid]) == 1
    assert one.ask(session.post_telemetry, {"A": [(3, {"t": 3})]}) is None
    assert one.latest("A") == {"t": 3}


def test_a_tombstone_ends(one: GatewaysUnderTest) -> None:
    """After a day, data create the device again; it is forgotten by maintenance."""
    session, _ = one.open(one.add_gateway())
    one.ask(session.connect, "A", "")
    delete(one, "A")
    one.under_test.now_s += 86_400
    assert one.ask(session.post_telemetry, {"A": [(1, {"t": 1})]}) is None
    assert one.latest("A") == {"t": 1}
    delete(one, "A")
    one.under_test.now_s += 86_401
    one.api.gateways.maintain()
    one.settle()
    assert one.store.read(lambda tx: tx.tombstone(TENANT, "A")) is None


def test_a_device_that_was_never_behind_a_gateway_leaves_no_tombstone(one: GatewaysUnderTest) -> None:
    """Its name is free for everybody."""
    number = one.store.add_device("A", one.profile_id)
    uuid = one.store.read(lambda tx: tx.device_by_id(number)).uuid
    deleted = one.store.run(inventory.delete_device, TENANT, uuid, one.api.now_ms())
    assert deleted.gateway_id == 0
    assert one.store.read(lambda tx: tx.tombstone(TENANT, "A")) is None


def test_a_renamed_device_keeps_its_data_flowing(one: GatewaysUnderTest) -> None:
    """Under the old name, in this session and the next, until the gateway uses the new one."""
    gateway = one.add_gateway()
    session, _ = one.open(gateway)
    one.ask(session.connect, "A", "")
    number = one.number("A")
    rename(one, "A", "B")
    device_id, notice = one.notices[-1]
    assert (device_id, notice.method, notice.params) == (gateway.device_id, "gateway_device_renamed", {"A": "B"})
    assert (notice.is_persistent, notice.is_oneway, notice.retries) == (True, True, 3)
    assert notice.expires_ms == one.api.now_ms() + 86_400_000
    one.ask(session.post_telemetry, {"A": [(1, {"t": 1})]})
    session.close()
    session, link = one.open(gateway)
    one.ask(session.post_telemetry, {"A": [(2, {"t": 2})]})
    assert (one.number("B"), one.latest("B"), one.device("A")) == (number, {"t": 2}, None)
    one.ask(one.api.attributes.put, number, Scope.SHARED, {"k": 1})
    assert [name for name, _ in link.changes] == ["A"]
    one.ask(session.post_telemetry, {"B": [(3, {"t": 3})]})
    assert one.latest("B") == {"t": 3}
    assert (session.is_connected("A"), session.is_connected("B")) == (False, True)
    one.ask(session.post_telemetry, {"A": [(4, {"t": 4})]})
    assert one.number("A") != number


def test_the_old_name_of_a_renamed_device_means_a_new_device_if_there_is_one(one: GatewaysUnderTest) -> None:
    """A device that bears the name goes before one that bore it."""
    gateway = one.add_gateway()
    session, _ = one.open(gateway)
    one.ask(session.connect, "A", "")
    rename(one, "A", "B")
    session.close()
    number = one.store.add_device("A", one.profile_id)
    session, _ = one.open(gateway)
    one.ask(session.post_telemetry, {"A": [(1, {"t": 1})]})
    assert one.store.read(lambda tx: tx.latest(number)) == {"t": (1, 1)}
    assert one.latest("B") == {}


def test_a_profile_of_a_name_is_found_and_not_made_twice(one: GatewaysUnderTest) -> None:
    """Two types of one message share it."""
    session, _ = one.open(one.add_gateway())
    for name in "AB":
        one.ask(session.connect, name, "meter")
    profile = one.store.read(lambda tx: tx.profile_by_name(TENANT, "meter"))
    assert one.store.read(lambda tx: tx.profile_users(profile.id)) == 2
