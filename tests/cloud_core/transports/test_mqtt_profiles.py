"""What a device profile changes on the wire (wire-contract.md section 2.11)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_core.model import Scope
from shared.messages import JsonValue
from shared.mqtt.packets import Puback
from tests.support.mqtt import MqttServer, server_with_device
from tests.support.stores import StoreUnderTest

BODY = b'{"s":"text","b":true,"d":3.0,"l":4,"j":{"a": [1, 2]}}'
VALUES = {"s": "text", "b": True, "d": 3.0, "l": 4, "j": JsonValue('{"a":[1,2]}')}


def profile(**configuration: Any) -> dict[str, Any]:
    return {"transportType": "MQTT", "profileData": {"transportConfiguration": {"type": "MQTT", **configuration}}}


def stored(server: MqttServer) -> dict[str, Any]:
    server.settle()
    return dict(server.api.store.read(lambda tx: tx.latest(tx.device_by_name(1, "dev").id)))


@pytest.mark.parametrize("topic", ["v1/devices/me/telemetry", "v2/t", "v2/t/j"])
@pytest.mark.parametrize("ts", [None, 1_600_000_000_000])
def test_telemetry_keeps_types_and_times(sqlite_store: StoreUnderTest, topic: str, ts: int | None) -> None:
    """Five keys of five types, at the given time or that of receipt (M3)."""
    server = server_with_device(sqlite_store)
    body = BODY if ts is None else b'{"ts":%d,"values":%s}' % (ts, BODY)
    assert server.log_in().publish(topic, body) == [Puback(1)]
    at_ms = ts or int(server.api.now_s * 1000)
    assert stored(server) == {key: (at_ms, value) for key, value in VALUES.items()}


@pytest.mark.parametrize(
    ("telemetry_filter", "taken", "not_taken"),
    [
        ("my/telemetry", ["my/telemetry", "v2/t", "v2/t/j"], ["v1/devices/me/telemetry", "my/other"]),
        ("my/+/up", ["my/1/up", "my/2/up", "v2/t"], ["v1/devices/me/telemetry", "my/up"]),
        ("v1/devices/me/+", ["v1/devices/me/telemetry", "v1/devices/me/anything"], ["v1/devices/you/telemetry"]),
        ("data/#", ["data", "data/a/b"], ["v1/devices/me/telemetry"]),
    ],
)
def test_a_profile_names_its_own_telemetry_topics(
    sqlite_store: StoreUnderTest, telemetry_filter: str, taken: list[str], not_taken: list[str]
) -> None:
    """Instead of the v1 name and beside the short ones (M3)."""
    server = server_with_device(sqlite_store, document=profile(deviceTelemetryTopic=telemetry_filter))
    peer = server.log_in(5)
    for _ in range(2):  # looked up, then known
        assert [peer.publish(topic, b'{"a":1}')[0].reason_code for topic in taken] == [0] * len(taken)
        assert [peer.publish(topic, b'{"b":1}')[0].reason_code for topic in not_taken] == [0x90] * len(not_taken)
    assert set(stored(server)) == {"a"}


def test_a_profile_names_its_own_attributes_topics(sqlite_store: StoreUnderTest) -> None:
    """And keeps the requests, whatever its filters select (M6)."""
    document = profile(deviceAttributesTopic="attr/+", deviceTelemetryTopic="v1/devices/me/#")
    server = server_with_device(sqlite_store, document=document)
    peer = server.log_in(5)
    assert peer.publish("attr/up", b'{"x":1}') == [Puback(1)]
    assert peer.publish("v2/a", b'{"y":2}', 2) == [Puback(2)]
    assert peer.publish("v1/devices/me/attributes", b'{"t":3}', 3) == [Puback(3)]
    answer = peer.publish("v1/devices/me/attributes/request/1", b"{}", 4)[-1]
    assert json.loads(answer.payload) == {"client": {"x": 1, "y": 2}}
    assert set(stored(server)) == {"t"}


@pytest.mark.parametrize("topic_filter", ["my/attributes", "v1/devices/me/attributes"])
def test_a_profile_names_its_own_subscription(sqlite_store: StoreUnderTest, topic_filter: str) -> None:
    """Granted beside the standard one; what comes is on the v1 topic (M7)."""
    server = server_with_device(sqlite_store, document=profile(deviceAttributesSubscribeTopic="my/attributes"))
    peer = server.log_in(5)
    assert peer.subscribe(topic_filter, "my/else") == [1, 0x8F]
    put, delete = server.api.api.attributes.put, server.api.api.attributes.delete
    server.api.outcome(lambda done: put(server.device_id(), Scope.SHARED, {"a": 1}, done))
    server.api.outcome(lambda done: delete(server.device_id(), Scope.SHARED, ["a"], done))
    messages = [(one.topic, one.payload) for one in peer.received()]
    assert messages == [("v1/devices/me/attributes", b'{"a":1}'), ("v1/devices/me/attributes", b'{"deleted":["a"]}')]
