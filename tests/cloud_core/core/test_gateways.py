"""Gateways on a real store: sub-devices found and created, data, news, operators (wire-contract.md section 5)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from cloud_core.core import inventory
from cloud_core.core.api import Options
from cloud_core.core.downlinks import Ending, Interest
from cloud_core.core.gateways import Dropped, GatewayOptions
from cloud_core.core.provisioning import Policy
from cloud_core.model import PROVISION_STATE, Relation, Scope
from shared.errors import InvalidDeviceName, NotAuthorized, QuotaExceeded
from shared.messages import AttributesChange, AttributesRequest, ClaimRequest, JsonValue, RpcCommand
from tests.support.gateways import GatewaysUnderTest
from tests.support.stores import TENANT, StoreUnderTest


@pytest.fixture
def one(sqlite_store: StoreUnderTest) -> GatewaysUnderTest:
    return GatewaysUnderTest(sqlite_store)


def with_options(store: StoreUnderTest, **gateway: Any) -> GatewaysUnderTest:
    return GatewaysUnderTest(store, options=Options(gateway=GatewayOptions(**gateway)))


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


# -- sub-sessions ---------------------------------------------------------------------------------


class Delivered:
    def __init__(self) -> None:
        self.is_delivered = False

    def delivered(self) -> None:
        self.is_delivered = True

    def failed(self) -> None:
        raise AssertionError("the link delivers")


def test_a_connected_device_hears_attributes_and_commands(one: GatewaysUnderTest) -> None:
    """Without any subscription, through its gateway, under the name the gateway uses."""
    session, link = one.open(one.add_gateway())
    one.ask(session.connect, "A", "")
    number = one.number("A")
    one.ask(one.api.attributes.put, number, Scope.SHARED, {"k": 1})
    assert link.changes == [("A", AttributesChange(values={"k": 1}))]
    downlink = one.api.downlinks.for_commands(number)
    assert downlink is not None
    command, delivery = RpcCommand(number=7, method="toggle"), Delivered()
    downlink.command(command, delivery)
    assert link.commands == [("A", command)]
    assert delivery.is_delivered


def test_a_disconnected_device_hears_nothing(one: GatewaysUnderTest) -> None:
    """An unknown name is fine; what is sent later connects it again."""
    session, _ = one.open(one.add_gateway())
    one.ask(session.connect, "A", "")
    number = one.number("A")
    assert one.ask(session.disconnect, "A") is None
    assert one.ask(session.disconnect, "nobody") is None
    assert not one.api.downlinks.is_open(number)
    assert one.disconnected == [number]
    one.ask(session.post_telemetry, {"A": [(1, {"t": 1})]})
    assert session.is_connected("A")


def test_a_disconnect_counts_although_the_connect_is_on_its_way(one: GatewaysUnderTest) -> None:
    """Order holds; and so does a connect behind the disconnect."""
    session, _ = one.open(one.add_gateway())
    answers: list[Any] = []
    session.connect("A", "", answers.append)
    session.disconnect("A", answers.append)
    session.connect("B", "", answers.append)
    session.disconnect("B", answers.append)
    session.connect("B", "", answers.append)
    one.store.reactor.run_until(lambda: len(answers) == 5)
    assert (session.is_connected("A"), session.is_connected("B")) == (False, True)


def test_closing_ends_all_sub_sessions(one: GatewaysUnderTest) -> None:
    """Also those whose connect is on its way."""
    session, link = one.open(one.add_gateway())
    one.ask(session.post_telemetry, {name: [(1, {"t": 1})] for name in "AB"})
    answers: list[Any] = []
    session.connect("C", "", answers.append)
    session.close()
    one.store.reactor.run_until(lambda: answers)
    numbers = [one.number(name) for name in "ABC"]
    assert not any(one.api.downlinks.is_open(number) for number in numbers)
    assert one.disconnected == numbers[:2]
    assert link.ends == []


class DirectDownlink:
    """A device's own connection."""

    def attributes_changed(self, change: AttributesChange) -> None: ...
    def command(self, command: RpcCommand, delivery: Any) -> None: ...
    def ended(self, why: Ending) -> None: ...


def test_a_device_that_connects_by_itself_leaves_its_gateway(one: GatewaysUnderTest) -> None:
    """The gateway is told; data through it bring the device back without ending the direct session."""
    session, link = one.open(one.add_gateway())
    one.ask(session.connect, "A", "")
    number, direct = one.number("A"), DirectDownlink()
    one.api.downlinks.open(number, direct, Interest.COMMANDS)
    assert link.ends == ["A"]
    assert one.api.downlinks.of(number) == [direct]
    assert one.disconnected == []
    one.ask(session.post_telemetry, {"A": [(1, {"t": 1})]})
    assert len(one.api.downlinks.of(number)) == 2


def test_changes_of_a_device_do_not_end_its_sub_session(one: GatewaysUnderTest) -> None:
    """It logged in with no credentials and copies nothing."""
    session, link = one.open(one.add_gateway())
    one.ask(session.connect, "A", "")
    number = one.number("A")
    one.api.device_changed(number, Ending.CREDENTIALS_CHANGED)
    assert session.is_connected("A")
    assert one.api.downlinks.for_commands(number) is not None
    assert link.ends == []


def test_ten_thousand_sub_devices_cost_little(one: GatewaysUnderTest) -> None:
    """At most a kibibyte each, connected in batches."""
    session, _ = one.open(one.add_gateway())
    answers: list[Any] = []
    one.connected.clear()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(10_000):
        session.connect(f"Device {number:06d}", "meter", answers.append)
    one.store.reactor.run_until(lambda: len(answers) == 10_000)
    answers.clear()
    each = (tracemalloc.get_traced_memory()[0] - before) / 10_000
    tracemalloc.stop()
    assert each < 1024
    assert len(session.device_ids) == 10_000


# -- on behalf of devices -------------------------------------------------------------------------


def test_attributes_are_stored_and_read_back(store: StoreUnderTest) -> None:
    """Client scope is the gateway's to write; a request sees what was written just before."""
    one = GatewaysUnderTest(store)
    session, _ = one.open(one.add_gateway())
    answers: list[Any] = []
    session.post_attributes({"A": {"a": 1}, "B": {"b": True}}, answers.append)
    session.request_attributes("A", AttributesRequest(client_keys=("a", "x")), answers.append)
    store.reactor.run_until(lambda: len(answers) == 2)
    assert answers[0] is None
    assert answers[1].client == {"a": 1}
    assert one.ask(session.post_attributes, {"A": {"a": 2}}) is None
    assert one.ask(session.request_attributes, "A", AttributesRequest()).client == {"a": 2}
    assert one.ask(session.request_attributes, "new", AttributesRequest()).client == {}


def test_attributes_of_a_device_deleted_meanwhile_harm_no_other(one: GatewaysUnderTest) -> None:
    """The session does not know yet that the device is gone."""
    session, _ = one.open(one.add_gateway())
    one.ask(session.post_attributes, {"A": {"a": 1}, "B": {"a": 1}})
    number = one.number("A")
    one.store.run(lambda tx: tx.delete_device(number))
    assert one.ask(session.post_attributes, {"A": {"a": 2}, "B": {"a": 2}}) is None
    assert one.ask(session.request_attributes, "B", AttributesRequest()).client == {"a": 2}


def test_replies_and_claims_are_passed_on_by_number(one: GatewaysUnderTest) -> None:
    """Devices that are not connected are connected first."""
    session, _ = one.open(one.add_gateway())
    one.ask(session.connect, "A", "")
    assert one.ask(session.reply, "A", 7, {"success": True}) is None
    assert one.ask(session.reply, "B", 8, None) is None
    assert one.replies == [(one.number("A"), 7, {"success": True}), (one.number("B"), 8, None)]
    offers = {"A": ClaimRequest(secret="s"), "C": ClaimRequest()}
    assert one.ask(session.claim, offers) is None
    assert one.offers == [(TENANT, [(one.number("A"), offers["A"]), (one.number("C"), offers["C"])])]


def test_latencies_become_telemetry_of_the_gateway(one: GatewaysUnderTest) -> None:
    """Minimum, average and maximum by connector, once a minute; nothing when there were none (G4)."""
    gateway = one.add_gateway()
    session, _ = one.open(gateway)
    session.measured([("modbus", 10, 3), ("modbus", 20, 6), ("opcua", 1, 1)])
    one.api.gateways.report()
    one.settle()
    span = (
        '{"modbus":{"avgGwLatency":15,"minGwLatency":10,"maxGwLatency":20,'
        '"avgTransportLatency":4,"minTransportLatency":3,"maxTransportLatency":6},'
        '"opcua":{"avgGwLatency":1,"minGwLatency":1,"maxGwLatency":1,'
        '"avgTransportLatency":1,"minTransportLatency":1,"maxTransportLatency":1}}'
    )
    expected = {"gatewayMetrics": (one.api.now_ms(), JsonValue(span))}
    assert one.store.read(lambda tx: tx.latest(gateway.device_id)) == expected
    one.under_test.now_s += 60
    one.api.gateways.report()
    one.settle()
    assert one.store.read(lambda tx: tx.latest(gateway.device_id)) == expected


def test_a_ping_is_activity_of_all_sub_devices_where_the_gateway_says_so(one: GatewaysUnderTest) -> None:
    """And nothing when it does not, or when there are none (G8)."""
    session, _ = one.open(one.add_gateway("g1", overwriteActivityTime=True))
    session.pinged()
    one.settle()
    assert one.seen == []
    one.ask(session.post_telemetry, {"A": [(1, {"t": 1})], "B": [(1, {"t": 1})]})
    one.seen.clear()
    session.pinged()
    one.settle()
    assert one.seen == [one.number("A"), one.number("B")]
    other, _ = one.open(one.add_gateway("g2"))
    one.ask(other.connect, "C", "")
    one.seen.clear()
    other.pinged()
    one.settle()
    assert one.seen == []


def test_pings_without_end_are_asked_about_once_a_second(one: GatewaysUnderTest) -> None:
    """Two bytes of a gateway cost no look-up each, and no walk through its devices."""
    session, _ = one.open(one.add_gateway("g1", overwriteActivityTime=True))
    one.ask(session.post_telemetry, {"A": [(1, {"t": 1})]})
    one.seen.clear()
    for _ in range(100):
        session.pinged()
    one.settle()
    assert one.seen == [one.number("A")]
    one.under_test.now_s += 1.0
    session.pinged()
    one.settle()
    assert one.seen == [one.number("A")] * 2


def test_a_gateway_that_never_pings_because_it_talks_keeps_its_devices_active(one: GatewaysUnderTest) -> None:
    """Once a minute its activity is theirs; a silent one passes nothing on (G9)."""
    session, _ = one.open(one.add_gateway("g1", overwriteActivityTime=True))
    one.ask(session.post_telemetry, {"A": [(1, {"t": 1})], "B": [(1, {"t": 1})]})
    one.ask(session.post_telemetry, {"A": [(2, {"t": 1})]})
    one.seen.clear()
    one.api.gateways.report()
    one.settle()
    assert one.seen == [one.number("A"), one.number("B")]
    one.seen.clear()
    one.api.gateways.report()
    one.settle()
    assert one.seen == []


# -- operators ------------------------------------------------------------------------------------


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
