"""The gateway topics of one MQTT connection: acknowledgements, refusals, rates, and what the gateway is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cloud_core.core.gateways import Dropped
from cloud_core.core.provisioning import Policy
from cloud_core.model import Scope
from cloud_core.transports.mqtt.errors import REASONS
from cloud_core.transports.mqtt.gateway import GatewayAdapter
from shared.errors import PlatformError, RateLimited, Unavailable
from shared.messages import JsonValue, RpcCommand
from shared.mqtt.packets import Publish
from tests.support.gateways import GatewaysUnderTest
from tests.support.stores import StoreUnderTest


class Port:
    """The MQTT adapter's side, written down. `reasons` are those of acknowledgements, in the order they leave."""

    def __init__(self, *, is_v5: bool) -> None:
        self.is_v5 = is_v5
        self.sent: list[tuple[str, dict[str, Any], int]] = []
        self.qos: dict[str, int] = {}
        self.reasons: list[int] = []
        self.outcomes: list[object] = []
        self.pauses: list[float] = []
        self.acknowledgers: list[Callable[[bool], None]] = []

    def publish(
        self, topic: str, payload: bytes, qos: int, on_acknowledged: Callable[[bool], None] | None = None
    ) -> bool:
        self.sent.append((topic, json.loads(payload), qos))
        if on_acknowledged is not None:
            self.acknowledgers.append(on_acknowledged)
        return True

    def slot(self, packet: Publish) -> Callable[[object], None]:
        answers = 0

        def done(outcome: object) -> None:
            nonlocal answers
            answers += 1
            assert answers == 1, "a slot is answered once"
            self.outcomes.append(outcome)
            self.reasons.append(REASONS[type(outcome)] if isinstance(outcome, PlatformError) else 0)

        return done

    def subscribed_qos(self, topic: str) -> int:
        return self.qos.get(topic, 1)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


class Ration:
    """`api.rates` with so many sub-device messages and data points."""

    is_on = True

    def __init__(self, messages: int = 10**9, points: int = 10**9) -> None:
        self.messages = messages
        self.points = points

    def sub_device_message(self, _gateway: Any, count: int = 1) -> RateLimited | None:
        if count > self.messages:
            return RateLimited(retry_after_s=7.0)
        self.messages -= count
        return None

    def sub_device_telemetry(self, _gateway: Any, messages: int, data_points: int) -> RateLimited | None:
        if data_points > self.points:
            return RateLimited(retry_after_s=7.0)
        self.points -= data_points
        return None


class Gateway:
    """One connection in memory."""

    def __init__(self, store: StoreUnderTest, *, is_v5: bool = True, **options: Any) -> None:
        self.under_test = GatewaysUnderTest(store, **options)
        self.store = store
        self.identity = self.under_test.add_gateway()
        self.port = Port(is_v5=is_v5)
        self.adapter = GatewayAdapter(self.under_test.api, self.identity, self.port)

    def ration(self, **limits: int) -> Ration:
        ration = Ration(**limits)
        self.under_test.api.rates = ration  # type: ignore[assignment]
        return ration

    def say(self, topic: str, body: Any) -> int:
        """The reason of the acknowledgement."""
        before = len(self.port.reasons)
        self.tell(topic, body)
        self.store.reactor.run_until(lambda: len(self.port.reasons) > before)
        return self.port.reasons[-1]

    def tell(self, topic: str, body: Any) -> None:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.adapter.publish(Publish(f"v1/gateway/{topic}", payload, 1, 1))

    def number(self, name: str) -> int:
        return self.under_test.number(name)


@pytest.fixture(params=[True, False], ids=["v5", "v3"])
def gateway(request: pytest.FixtureRequest, sqlite_store: StoreUnderTest) -> Gateway:
    return Gateway(sqlite_store, is_v5=request.param)


@pytest.fixture
def v5(sqlite_store: StoreUnderTest) -> Gateway:
    return Gateway(sqlite_store)


@pytest.fixture
def v3(sqlite_store: StoreUnderTest) -> Gateway:
    return Gateway(sqlite_store, is_v5=False)


# -- what a gateway says --------------------------------------------------------------------------


def test_connect_data_and_disconnect_are_acknowledged_once_each(gateway: Gateway) -> None:
    """After they are on disk, and without any message in answer (G2, G1)."""
    assert gateway.say("connect", {"device": "A", "type": "meter"}) == 0
    assert gateway.say("telemetry", {"A": [{"ts": 5, "values": {"t": 1}}], "B": {"h": 2}}) == 0
    assert gateway.say("attributes", {"A": {"serial": "x"}}) == 0
    assert gateway.say("disconnect", {"device": "A"}) == 0
    assert gateway.say("disconnect", {"device": "nobody"}) == 0
    assert gateway.port.outcomes == [None] * 5
    assert gateway.port.sent == []
    device = gateway.under_test.device("A")
    assert device is not None
    assert device.type == "meter"
    assert gateway.store.read(lambda tx: tx.latest(device.id)) == {"t": (5, 1)}
    assert gateway.store.read(lambda tx: tx.attribute(device.id, Scope.CLIENT, "serial")) == "x"
    assert gateway.under_test.latest("B") == {"h": 2}


def test_metadata_reach_the_gateways_metrics_and_not_the_device(v5: Gateway) -> None:
    """Once a minute they are telemetry of the gateway (G4)."""
    now_ms = v5.under_test.api.now_ms()
    metadata = {"connector": "modbus", "receivedTs": now_ms - 20, "publishedTs": now_ms - 5}
    assert v5.say("telemetry", {"A": [{"ts": 5, "values": {"t": 1}, "metadata": metadata}]}) == 0
    v5.under_test.api.gateways.report()
    v5.under_test.settle()
    assert v5.under_test.latest("A") == {"t": 1}
    metrics = v5.under_test.latest("gw")["gatewayMetrics"]
    assert isinstance(metrics, JsonValue)
    assert json.loads(metrics.text)["modbus"]["avgGwLatency"] == 15


def test_a_wrong_message_is_acknowledged_with_its_reason(gateway: Gateway) -> None:
    """Nothing of it is stored; it is counted."""
    assert gateway.say("telemetry", b"no json {") == 0x99
    assert gateway.say("connect", {"type": "meter"}) == 0x99
    assert gateway.say("attributes/request", {"device": "A"}) == 0x99
    assert gateway.say("rpc", {"device": "A", "id": 1}) == 0x99
    assert gateway.say("nonsense", {}) == 0x90
    assert sum(gateway.under_test.api.gateways.dropped.values()) == 4


def test_one_bad_device_is_told_apart(v5: Gateway) -> None:
    """The good ones are stored, the bad one has a notice, the message its reason (v5)."""
    assert v5.say("telemetry", {"A": [7], "B": [{"t": 1}], "C": 5}) == 0x99
    assert v5.port.sent == [("v1/gateway/disconnect", {"device": "A", "reason": 129}, 0)]
    assert v5.under_test.latest("B") == {"t": 1}
    assert v5.under_test.device("A") is None
    assert v5.say("telemetry", {"A": [7]}) == 0x99


def test_v3_gets_no_notices(v3: Gateway) -> None:
    """There is no topic for them in that version."""
    v3.say("telemetry", {"A": [7], "B": [{"t": 1}]})
    assert v3.port.sent == []


@pytest.mark.parametrize("is_v5", [True, False])
def test_the_tenants_limit_looks_like_a_rate_to_v5_and_like_success_to_v3(
    sqlite_store: StoreUnderTest, is_v5: bool
) -> None:
    """What fits is stored, the surplus device is not created, the message is acknowledged (G3)."""
    gateway = Gateway(sqlite_store, is_v5=is_v5, policy=Policy(max_devices_per_tenant=2))
    reason = 0x97 if is_v5 else 0
    assert gateway.say("telemetry", {"A": [{"t": 1}], "B": [{"t": 1}]}) == reason
    assert gateway.under_test.latest("A") == {"t": 1}
    assert gateway.under_test.device("B") is None
    assert gateway.say("connect", {"device": "B"}) == reason


def test_a_name_that_no_device_may_have_is_malformed(v5: Gateway) -> None:
    """Its reason makes no client wait, as that of a limit would."""
    assert v5.say("connect", {"device": "<b>"}) == 0x99
    assert v5.say("connect", {"device": "A", "type": "<b>"}) == 0x99


def test_data_of_a_deleted_device_are_acknowledged_with_a_notice(v5: Gateway) -> None:
    """A refusal would make the gateway send the whole message again and again."""
    v5.say("connect", {"device": "A"})
    number = v5.number("A")
    v5.store.run(lambda tx: tx.put_tombstone(1, "A", deleted_ms=v5.under_test.api.now_ms()))
    v5.say("disconnect", {"device": "A"})
    v5.store.run(lambda tx: tx.delete_device(number))
    assert v5.say("telemetry", {"A": [{"t": 1}], "B": [{"t": 1}]}) == 0
    assert v5.say("attributes/request", {"id": 1, "device": "A", "client": True, "key": "k"}) == 0
    assert v5.port.sent == [("v1/gateway/disconnect", {"device": "A", "reason": 128}, 0)] * 2


def test_what_the_store_cannot_take_is_not_acknowledged_as_taken(gateway: Gateway) -> None:
    """The adapter decides by the outcome how a version is told."""
    gateway.store.store._max_pending = 0
    gateway.tell("telemetry", {"A": [{"t": 1}]})
    assert isinstance(gateway.port.outcomes[-1], Unavailable)
    gateway.store.store._max_pending = 50_000


# -- attributes and commands ----------------------------------------------------------------------


def test_attributes_are_answered_behind_the_acknowledgement(gateway: Gateway) -> None:
    """In the form asked for, with the QoS subscribed (G6)."""
    gateway.say("attributes", {"A": {"a": 1, "b": "x"}})
    gateway.port.qos["v1/gateway/attributes/response"] = 0
    gateway.say("attributes/request", {"id": 1, "device": "A", "client": True, "key": "a"})
    gateway.say("attributes/request", {"id": 2, "device": "A", "client": True, "keys": ["a", "none"]})
    gateway.say("attributes/request", {"id": 3, "device": "A", "client": ["b"], "shared": ["s"]})
    assert gateway.port.sent == [
        ("v1/gateway/attributes/response", {"id": 1, "device": "A", "value": 1}, 0),
        ("v1/gateway/attributes/response", {"id": 2, "device": "A", "values": {"a": 1}}, 0),
        ("v1/gateway/attributes/response", {"id": 3, "device": "A", "client": {"b": "x"}, "shared": {}}, 0),
    ]


def test_shared_attributes_reach_the_gateway_unasked(gateway: Gateway) -> None:
    """Written and deleted ones, for every connected device, subscribed or not (M7)."""
    gateway.say("connect", {"device": "A"})
    attributes, number = gateway.under_test.api.attributes, gateway.number("A")
    gateway.under_test.ask(attributes.put, number, Scope.SHARED, {"k": 1})
    gateway.under_test.ask(attributes.delete, number, Scope.SHARED, ["k", "none"])
    assert gateway.port.sent == [
        ("v1/gateway/attributes", {"device": "A", "data": {"k": 1}}, 1),
        ("v1/gateway/attributes", {"device": "A", "data": {"deleted": ["k"]}}, 1),
    ]


class Fate:
    """What became of a command."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def delivered(self) -> None:
        self.said.append("delivered")

    def failed(self) -> None:
        self.said.append("failed")


def test_a_command_goes_through_the_gateway_and_its_reply_comes_back(gateway: Gateway) -> None:
    """Delivered when the gateway acknowledges it, failed when the connection ends before (R4)."""
    gateway.say("connect", {"device": "A"})
    number = gateway.number("A")
    downlink = gateway.under_test.api.downlinks.for_commands(number)
    assert downlink is not None
    fates = [Fate(), Fate()]
    for fate in fates:
        downlink.command(RpcCommand(number=7, method="toggle", params={"on": True}), fate)
    data = {"id": 7, "method": "toggle", "params": {"on": True}}
    assert gateway.port.sent == [("v1/gateway/rpc", {"device": "A", "data": data}, 1)] * 2
    for acknowledged, is_there in zip(gateway.port.acknowledgers, (True, False), strict=True):
        acknowledged(is_there)
    assert [fate.said for fate in fates] == [["delivered"], ["failed"]]
    assert gateway.say("rpc", {"device": "A", "id": 7, "data": {"success": True}}) == 0
    assert gateway.under_test.replies == [(number, 7, {"success": True})]


def test_a_claim_offers_each_device(gateway: Gateway) -> None:
    """With and without a secret; a wrong entry harms no other (M9)."""
    body = {"A": {"secretKey": "s", "durationMs": 60_000}, "B": {}, "C": {"durationMs": []}}
    assert gateway.say("claim", body) == 0x99
    offers = {number: offer.secret for number, offer in gateway.under_test.offers[0][1]}
    assert offers == {gateway.number("A"): "s", gateway.number("B"): ""}


# -- rates ----------------------------------------------------------------------------------------


def test_connecting_costs_two_messages(v5: Gateway) -> None:
    """With three, the second device is created and then limited; a connected one costs nothing (G7)."""
    v5.ration(messages=3)
    assert v5.say("connect", {"device": "A"}) == 0
    assert v5.say("connect", {"device": "A"}) == 0
    assert v5.say("connect", {"device": "B"}) == 0x97
    assert v5.say("connect", {"device": "C"}) == 0x97
    assert v5.under_test.device("B") is not None
    assert v5.under_test.device("C") is None
    reasons = [(body["device"], body["reason"]) for _, body, _ in v5.port.sent]
    assert reasons == [("B", 150), ("C", 150)]
    assert v5.port.pauses == []


def test_v5_is_refused_above_its_rates(v5: Gateway) -> None:
    """0x97, a notice for each device of the message, and the connection stays (G7)."""
    v5.ration(points=2)
    assert v5.say("telemetry", {"A": [{"t": 1, "h": 2}]}) == 0
    assert v5.say("telemetry", {"A": [{"t": 5}], "B": [{"t": 5}]}) == 0x97
    assert [body for _, body, _ in v5.port.sent] == [{"device": name, "reason": 150} for name in "AB"]
    assert v5.under_test.latest("A") == {"t": 1, "h": 2}
    v5.ration(messages=0)
    for topic, body in (
        ("attributes", {"A": {"a": 1}}),
        ("claim", {"A": {}}),
        ("rpc", {"device": "A", "id": 1, "data": 1}),
        ("attributes/request", {"id": 1, "device": "A", "client": True, "key": "a"}),
    ):
        assert v5.say(topic, body) == 0x97


def test_v3_is_refused_without_being_told(v3: Gateway) -> None:
    """The MQTT adapter is, at once, so that it brings the message again; nothing counts as dropped yet (G7)."""
    ration = v3.ration(points=1)
    v3.say("telemetry", {"A": [{"ts": 1, "values": {"t": 1}}]})
    v3.tell("telemetry", {"A": [{"ts": 2, "values": {"t": 2}}]})
    refusal = v3.port.outcomes[-1]
    assert isinstance(refusal, RateLimited)
    assert refusal.retry_after_s == 7.0
    assert not v3.under_test.api.gateways.dropped
    ration.points = 1
    v3.say("telemetry", {"A": [{"ts": 2, "values": {"t": 2}}]})
    number = v3.number("A")
    assert v3.store.read(lambda tx: tx.latest(number)) == {"t": (2, 2)}


def test_a_v3_gateway_waits_for_the_second_message_of_a_connect(v3: Gateway) -> None:
    """The device is connected and acknowledged; what comes next is read later (G7)."""
    v3.ration(messages=1)
    assert v3.say("connect", {"device": "A"}) == 0
    assert v3.port.pauses == [7.0]
    assert v3.under_test.device("A") is not None


def test_what_is_dropped_for_good_is_counted(v3: Gateway) -> None:
    """QoS 0 does not come again."""
    v3.ration(points=0)
    v3.adapter.publish(Publish("v1/gateway/telemetry", b'{"A":[{"t":1}],"B":[{"t":1}]}', 0, 0))
    assert v3.under_test.api.gateways.dropped == {Dropped.RATE_LIMITED: 2}


def test_closing_ends_the_sub_sessions(gateway: Gateway) -> None:
    """With the connection."""
    gateway.say("connect", {"device": "A"})
    gateway.adapter.close()
    assert not gateway.under_test.api.downlinks.is_open(gateway.number("A"))


def test_a_ping_is_passed_on(sqlite_store: StoreUnderTest) -> None:
    """The session knows what it means (G8)."""
    gateway = Gateway(sqlite_store)
    asked: list[bool] = []
    gateway.adapter._session.pinged = lambda: asked.append(True)  # type: ignore[method-assign]
    gateway.adapter.pinged()
    assert asked == [True]
