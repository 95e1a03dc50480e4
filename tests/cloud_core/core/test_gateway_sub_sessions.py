"""What sub-devices hear, and what their gateway sends for them, on a real store (wire-contract.md section 5)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from cloud_core.core.downlinks import Ending, Interest
from cloud_core.model import Scope
from shared.messages import AttributesChange, AttributesRequest, ClaimRequest, JsonValue, RpcCommand
from tests.support.gateways import GatewaysUnderTest
from tests.support.stores import TENANT, StoreUnderTest


@pytest.fixture
def one(sqlite_store: StoreUnderTest) -> GatewaysUnderTest:
    return GatewaysUnderTest(sqlite_store)


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
