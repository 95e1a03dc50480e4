"""Sub-devices found, created and refused on a real store (wire-contract.md section 5)."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.core.api import Options
from cloud_core.core.gateways import Dropped, GatewayOptions
from cloud_core.core.provisioning import Policy
from cloud_core.model import PROVISION_STATE, Relation, Scope
from shared.errors import InvalidDeviceName, NotAuthorized, QuotaExceeded
from shared.messages import AttributesRequest, JsonValue
from tests.support.gateways import GatewaysUnderTest
from tests.support.stores import TENANT, StoreUnderTest


@pytest.fixture
def one(sqlite_store: StoreUnderTest) -> GatewaysUnderTest:
    return GatewaysUnderTest(sqlite_store)


def with_options(store: StoreUnderTest, **gateway: Any) -> GatewaysUnderTest:
    return GatewaysUnderTest(store, options=Options(gateway=GatewayOptions(**gateway)))


# -- registration ---------------------------------------------------------------------------------


def test_a_connect_creates_the_device_with_all_that_belongs_to_it(store: StoreUnderTest) -> None:
    """Profile by type, one `Created` relation, a token of its own, its gateway noted, no provisionState (G2, G5)."""
    one = GatewaysUnderTest(store)
    gateway = one.add_gateway()
    session, _ = one.open(gateway)
    assert one.ask(session.connect, "Device A", "thermostat") is None
    device = one.device("Device A")
    assert device is not None
    assert device.type == "thermostat"
    assert device.document == {"additionalInfo": {"lastConnectedGateway": str(gateway.device_uuid)}}
    relations = store.read(lambda tx: tx.relations(TENANT))
    assert gateway.device_uuid is not None
    assert relations == [
        Relation(
            tenant_id=TENANT, from_type="DEVICE", from_uuid=gateway.device_uuid, to_type="DEVICE",
            to_uuid=device.uuid, type="Created", type_group="COMMON",
        )
    ]  # fmt: skip
    assert len(store.read(lambda tx: tx.credentials(device.id)).credentials.token) == 20
    assert store.read(lambda tx: tx.attribute(device.id, Scope.SERVER, PROVISION_STATE)) is None
    assert store.read(lambda tx: tx.sub_device(device.id)).is_created_by_gateway
    assert session.is_connected("Device A")
    assert one.connected == [device.id]


def test_a_created_device_has_the_gateways_customer(one: GatewaysUnderTest) -> None:
    """Whoever owns the gateway owns what it brings."""
    columns, values = "uuid, tenant_id, title, document, created_ms, version", "(zeroblob(16), 1, 'c', '{}', 1, 1)"
    one.store.run(lambda tx: tx.connection.execute(f"INSERT INTO customer ({columns}) VALUES {values}") and None)
    session, _ = one.open(one.add_gateway(customer_id=1))
    one.ask(session.connect, "A", "")
    device = one.device("A")
    assert device is not None
    assert device.customer_id == 1


def test_a_repeated_connect_changes_nothing(one: GatewaysUnderTest) -> None:
    """Idempotent within the session and in the next one; the relation stays one (G5)."""
    gateway = one.add_gateway()
    session, _ = one.open(gateway)
    for type_ in ("thermostat", "other"):
        assert one.ask(session.connect, "A", type_) is None
    session.close()
    again, _ = one.open(gateway)
    assert one.ask(again.connect, "A", "other") is None
    device = one.device("A")
    assert device is not None
    assert (device.type, device.version) == ("thermostat", 1)
    assert len(one.store.read(lambda tx: tx.relations(TENANT))) == 1


def test_an_existing_device_is_used_as_it_is(one: GatewaysUnderTest) -> None:
    """Its type stays; the gateway is noted beside what its additional info holds."""
    gateway = one.add_gateway()
    number = one.store.add_device("A", one.profile_id)
    session, _ = one.open(gateway)
    assert one.ask(session.connect, "A", "thermostat") is None
    device = one.device("A")
    assert device is not None
    assert (device.id, device.type) == (number, "gateways")
    assert device.document["additionalInfo"]["lastConnectedGateway"] == str(gateway.device_uuid)
    assert not one.store.read(lambda tx: tx.sub_device(number)).is_created_by_gateway
    assert one.store.read(lambda tx: tx.relations(TENANT)) == []


def test_the_type_default_is_the_default_profile_unless_one_is_called_so(one: GatewaysUnderTest) -> None:
    """A tenant that renamed its default profile gets no second one."""
    number = one.store.add_profile("standard")
    one.store.run(lambda tx: tx.set_default_profile(TENANT, number))
    session, _ = one.open(one.add_gateway())
    one.ask(session.connect, "A", "")
    one.ask(session.connect, "B", "default")
    one.store.add_profile("default")
    one.ask(session.connect, "C", "")
    assert [one.store.read(lambda tx, n=n: tx.device_by_name(TENANT, n)).type for n in "ABC"] == [
        "standard", "standard", "default",
    ]  # fmt: skip


def test_a_tenant_without_any_default_gets_a_profile_called_so(one: GatewaysUnderTest) -> None:
    """Data are not lost for want of a profile."""
    session, _ = one.open(one.add_gateway())
    assert one.ask(session.post_telemetry, {"A": [(1, {"t": 1})]}) is None
    device = one.device("A")
    assert device is not None
    assert device.type == "default"


def test_data_connect_their_device_and_are_stored(store: StoreUnderTest) -> None:
    """Two new devices in one message exist afterwards with their values and timestamps (G1)."""
    one = GatewaysUnderTest(store)
    session, _ = one.open(one.add_gateway())
    values = {"s": "x", "b": True, "d": 3.0, "l": 4, "j": JsonValue('{"a":1}')}
    assert one.ask(session.post_telemetry, {"A": [(10, values)], "B": [(20, values)]}) is None
    for name, ts in (("A", 10), ("B", 20)):
        number = one.number(name)
        assert store.read(lambda tx, n=number: tx.latest(n)) == {key: (ts, value) for key, value in values.items()}
    assert one.ask(session.post_telemetry, {"A": [(30, {"l": 5})], "C": [(1, {"t": 1})]}) is None
    assert one.latest("A")["l"] == 5
    assert one.latest("C") == {"t": 1}


def test_what_is_sent_takes_effect_in_order(one: GatewaysUnderTest) -> None:
    """Connect, data and attributes in flight at once: one device, of the type that was announced."""
    session, _ = one.open(one.add_gateway())
    answers: list[Any] = []
    session.connect("A", "thermostat", answers.append)
    for ts in range(1, 20):
        session.post_telemetry({"A": [(ts, {"n": ts})]}, answers.append)
    session.post_attributes({"A": {"a": 1}}, answers.append)
    session.request_attributes("A", AttributesRequest(), answers.append)
    one.store.reactor.run_until(lambda: len(answers) == 22)
    device = one.device("A")
    assert device is not None
    assert device.type == "thermostat"
    assert answers[:21] == [None] * 21
    assert answers[21].client == {"a": 1}
    assert one.latest("A") == {"n": 19}
    assert one.connected == [device.id]


def test_data_in_flight_do_not_keep_a_device_from_being_connected(one: GatewaysUnderTest) -> None:
    """A gateway that always has something on its way is answered by appending, not by ever new decisions."""
    session, _ = one.open(one.add_gateway())
    answers: list[Any] = []
    session.post_telemetry({"A": [(1, {"n": 1})]}, answers.append)
    session.post_telemetry({"A": [(2, {"n": 2})]}, answers.append)
    one.store.reactor.run_until(lambda: answers)
    assert session.is_connected("A")


def test_two_gateways_that_race_for_a_name_end_with_one_device(one: GatewaysUnderTest) -> None:
    """It is behind the later one; the other is told."""
    first, second = one.add_gateway("g1"), one.add_gateway("g2")
    (left, left_link), (right, right_link) = one.open(first), one.open(second)
    answers: list[Any] = []
    left.connect("A", "t", answers.append)
    right.connect("A", "t", answers.append)
    one.store.reactor.run_until(lambda: len(answers) == 2)
    assert answers == [None, None]
    assert (left_link.ends, right_link.ends) == (["A"], [])
    assert (left.is_connected("A"), right.is_connected("A")) == (False, True)
    number = one.number("A")
    assert one.store.read(lambda tx: tx.sub_device(number)).gateway_id == second.device_id
    assert len(one.api.downlinks.of(number)) == 1


def test_a_connect_shortly_after_its_data_gives_the_type(one: GatewaysUnderTest) -> None:
    """Within seconds and by the same gateway, in the same session or the next; later it does not."""
    gateway = one.add_gateway()
    session, _ = one.open(gateway)
    one.ask(session.post_telemetry, {name: [(1, {"t": 1})] for name in "ABC"})
    one.ask(session.connect, "A", "thermostat")
    session.close()
    session, _ = one.open(gateway)
    one.ask(session.connect, "B", "thermostat")
    one.under_test.now_s += 31
    one.ask(session.connect, "C", "thermostat")
    types = [one.store.read(lambda tx, n=n: tx.device_by_name(TENANT, n)).type for n in "ABC"]
    assert types == ["thermostat", "thermostat", "default"]
    one.ask(session.connect, "A", "other")
    device = one.device("A")
    assert device is not None
    assert device.type == "thermostat"


def test_another_gateway_does_not_correct_a_type(one: GatewaysUnderTest) -> None:
    """Only the gateway whose data created the device was guessing."""
    (left, _), (right, _) = one.open(one.add_gateway("g1")), one.open(one.add_gateway("g2"))
    one.ask(left.post_telemetry, {"A": [(1, {"t": 1})]})
    one.ask(right.connect, "A", "thermostat")
    device = one.device("A")
    assert device is not None
    assert device.type == "default"


# -- refusals -------------------------------------------------------------------------------------


def test_devices_beyond_the_tenants_limit_are_refused_alone(sqlite_store: StoreUnderTest) -> None:
    """Those that fit are created and stored, the surplus is not (G3)."""
    one = GatewaysUnderTest(sqlite_store, policy=Policy(max_devices_per_tenant=3))
    session, link = one.open(one.add_gateway())
    outcome = one.ask(session.post_telemetry, {name: [(1, {"t": 1})] for name in "ABC"})
    assert isinstance(outcome, QuotaExceeded)
    assert [one.device(name) is not None for name in "ABC"] == [True, True, False]
    assert one.latest("B") == {"t": 1}
    assert link.drops == [("C", Dropped.OTHER)]
    assert isinstance(one.ask(session.connect, "C", ""), QuotaExceeded)
    assert one.ask(session.connect, "A", "") is None


def test_a_session_has_a_limit_of_sub_devices(sqlite_store: StoreUnderTest) -> None:
    """Those on their way count; disconnecting makes room."""
    one = with_options(sqlite_store, max_sub_devices=2)
    session, _ = one.open(one.add_gateway())
    answers: list[Any] = []
    for name in "ABC":
        session.connect(name, "", answers.append)
    one.store.reactor.run_until(lambda: len(answers) == 3)
    assert [type(answer) for answer in answers] == [type(None), type(None), QuotaExceeded]
    assert one.device("C") is None
    one.ask(session.disconnect, "A")
    assert one.ask(session.connect, "C", "") is None


@pytest.mark.parametrize("name", ["", "  ", "x" * 256, "<b>", "a\0b"])
def test_names_that_no_device_may_have_are_refused_alone(one: GatewaysUnderTest, name: str) -> None:
    """The rules are those of all devices; others in the message are served."""
    session, link = one.open(one.add_gateway())
    outcome = one.ask(session.post_telemetry, {name: [(1, {"t": 1})], "A": [(1, {"t": 1})]})
    assert isinstance(outcome, InvalidDeviceName)
    assert one.latest("A") == {"t": 1}
    assert link.drops == [(name, Dropped.OTHER)]


def test_foreign_devices_are_refused_where_the_installation_says_so(sqlite_store: StoreUnderTest) -> None:
    """Those that others created, and those behind another gateway; its own it may use again."""
    one = with_options(sqlite_store, adopts_foreign_devices=False)
    one.store.add_device("foreign", one.profile_id)
    first, second = one.add_gateway("g1"), one.add_gateway("g2")
    left, _ = one.open(first)
    assert one.ask(left.connect, "A", "") is None
    assert isinstance(one.ask(left.connect, "foreign", ""), NotAuthorized)
    right, link = one.open(second)
    assert isinstance(one.ask(right.post_telemetry, {"A": [(1, {"t": 1})], "B": [(1, {"t": 1})]}), NotAuthorized)
    assert link.drops == [("A", Dropped.OTHER)]
    assert (one.latest("A"), one.latest("B")) == ({}, {"t": 1})
    left.close()
    again, _ = one.open(first)
    assert one.ask(again.connect, "A", "") is None


def test_a_gateway_that_was_deleted_creates_nothing(one: GatewaysUnderTest) -> None:
    """Its connection may outlive it by a moment."""
    gateway = one.add_gateway()
    session, _ = one.open(gateway)
    one.store.run(lambda tx: tx.delete_device(gateway.device_id))
    assert one.ask(session.connect, "A", "") is not None
    assert one.device("A") is None


def test_a_gateway_may_speak_for_itself_by_name(one: GatewaysUnderTest) -> None:
    """Its data are stored, and its own session is not taken over."""
    gateway = one.add_gateway()
    session, _ = one.open(gateway)
    assert one.ask(session.post_telemetry, {"gw": [(1, {"t": 1})]}) is None
    assert one.latest("gw") == {"t": 1}
    assert one.api.downlinks.of(gateway.device_id) == []
    session.close()
    assert one.disconnected == []
