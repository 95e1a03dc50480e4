"""Which messages of devices are traced, over MQTT and CoAP, and with which outcomes and parents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.credentials import AccessToken
from shared.errors import Unavailable
from shared.messages import RpcCommand
from shared.mqtt.codes import Property
from shared.mqtt.packets import Connect, Publish
from tests.support.api import ApiUnderTest
from tests.support.coap import PROVISION, CoapServer
from tests.support.mqtt import MqttPeer, MqttServer
from tests.support.stores import StoreUnderTest
from tests.support.traces import RecordedTraces

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = PARENT.replace("0af7", "1af7")
ME, GATEWAY = "v1/devices/me", "v1/gateway"


@pytest.fixture
def server(sqlite_store: StoreUnderTest) -> MqttServer:
    profile = sqlite_store.add_profile()
    sqlite_store.add_device("dev", profile, AccessToken("tok"))
    server = MqttServer(ApiUnderTest(sqlite_store))
    server.add_gateway("gw", "gw-tok", profile)
    server.api.api.traces = RecordedTraces()
    return server


def traces_of(server: Any) -> RecordedTraces:
    found = server.api.api.traces
    assert isinstance(found, RecordedTraces)
    return found


def log_in(server: MqttServer, token: str = "tok") -> MqttPeer:
    peer = server.log_in(version=5, token=token)
    traces_of(server).take()
    return peer


def within(traceparent: str, topic: str, payload: bytes, packet_id: int = 1) -> Publish:
    """A message that names its span, among other properties."""
    pairs = [("a", "b"), ("traceparent", traceparent)]
    return Publish(topic, payload, 1, packet_id, properties={Property.USER_PROPERTY: pairs})


def test_a_login_is_traced_with_its_outcome_and_parent(server: MqttServer) -> None:
    """CONNECT names the parent as any message does."""
    properties: Any = {Property.USER_PROPERTY: [("traceparent", PARENT)]}
    server.connect(user_name="tok", version=5, properties=properties)
    server.connect(user_name="wrong", password=b"x", version=4)
    server.settle()
    assert traces_of(server).take() == [("login", "SUCCESS", PARENT), ("login", "NOT_AUTHENTICATED", "")]


def test_who_may_provision_without_a_name_is_not_told_as_refused(server: MqttServer) -> None:
    """Its CONNECT is accepted."""
    server.connect()
    server.settle()
    assert traces_of(server).take() == [("login", "SUCCESS", "")]


def test_telemetry_of_one_read_is_one_span(server: MqttServer) -> None:
    """It is one unit of storage; the first parent that is named counts."""
    peer = log_in(server)
    peer.send(
        Publish(f"{ME}/telemetry", b'{"a":1}', 1, 1), within(PARENT, f"{ME}/telemetry", b'{"b":2}', 2),
        within(OTHER, f"{ME}/telemetry", b'{"c":3}', 3),
    )  # fmt: skip
    assert traces_of(server).take() == [("telemetry", "SUCCESS", PARENT)]
    peer.send(Publish(f"{ME}/telemetry", b'{"a":1}', 1, 4))
    assert traces_of(server).take() == [("telemetry", "SUCCESS", "")]


def test_attributes_and_calls_are_traced_to_their_answers(server: MqttServer) -> None:
    """Posted, asked for, a call of the device; a message that cannot be read has its reason."""
    peer = log_in(server)
    peer.subscribe(f"{ME}/attributes/response/+", f"{ME}/rpc/response/+")
    peer.send(within(PARENT, f"{ME}/attributes", b'{"a":1}'))
    peer.send(Publish(f"{ME}/attributes/request/1", b"{}", 1, 2))
    peer.send(Publish(f"{ME}/rpc/request/1", b'{"method":"getCurrentTime","params":{}}', 1, 3))
    peer.send(Publish(f"{ME}/attributes", b"[1", 1, 4))
    assert traces_of(server).take() == [
        ("attributes", "SUCCESS", PARENT), ("attributes request", "SUCCESS", ""), ("rpc call", "SUCCESS", ""),
        ("attributes", "MALFORMED_REQUEST", ""),
    ]  # fmt: skip
    assert [type(one).__name__ for one in peer.received()].count("Puback") == 4


class Telling:
    """A `Delivery` that remembers."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def delivered(self) -> None:
        self.heard.append("delivered")

    def failed(self) -> None:
        self.heard.append("failed")


def test_commands_are_traced_to_their_delivery_and_replies_by_themselves(server: MqttServer) -> None:
    """A device that does not listen for commands has not got one."""
    peer, heard = log_in(server), Telling()
    downlink = server.api.api.downlinks.of(server.device_id())[0]
    downlink.command(RpcCommand(number=1, method="m"), heard)
    assert (heard.heard, traces_of(server).take()) == (["failed"], [("rpc command", "DEVICE_TIMEOUT", "")])
    peer.subscribe(f"{ME}/rpc/request/+", qos=0)
    downlink.command(RpcCommand(number=2, method="m"), heard)
    peer.send(within(PARENT, f"{ME}/rpc/response/2", b"{}"))
    assert heard.heard[-1] == "delivered"
    assert traces_of(server).take() == [("rpc command", "SUCCESS", ""), ("rpc reply", "SUCCESS", PARENT)]


def test_messages_of_gateways_are_traced(server: MqttServer) -> None:
    """By the same words as those of devices."""
    peer = log_in(server, "gw-tok")
    peer.send(within(PARENT, f"{GATEWAY}/telemetry", b'{"d":[{"ts":1,"values":{"a":1}}]}'))
    peer.send(Publish(f"{GATEWAY}/attributes", b"nonsense", 1, 2))
    server.settle()
    assert traces_of(server).take() == [("telemetry", "SUCCESS", PARENT), ("attributes", "MALFORMED_REQUEST", "")]


def test_a_provision_attempt_over_mqtt_names_its_parent(server: MqttServer) -> None:
    """One that is malformed, too; the log of attempts keeps nothing of it."""
    peer = server.connect(user_name="provision", version=5)
    body = json.dumps({"provisionDeviceKey": "sensor-key", "provisionDeviceSecret": "sensor-secret"}).encode()
    peer.send(within(PARENT, "/provision/request", body), within(OTHER, "/provision/request", b"nonsense", 2))
    server.settle()
    assert sorted((one.traceparent, one.address) for one in traces_of(server).peers) == sorted(
        (parent, peer.protocol.peer.address) for parent in (PARENT, OTHER)
    )
    assert traces_of(server).take() == []


def test_nothing_secret_is_told(server: MqttServer) -> None:
    """Neither a token nor what a message says."""
    peer = log_in(server)
    traces = traces_of(server)
    peer.send(Connect("c", user_name="tok", version=5))
    peer.send(Publish(f"{ME}/attributes", b'{"secret":"hush"}', 1, 1))
    assert "tok" not in repr(traces.spans) and "hush" not in repr(traces.spans)


# -- CoAP -------------------------------------------------------------------------------------------


@pytest.fixture
def coap() -> CoapServer:
    server = CoapServer()
    server.api.traces = RecordedTraces()
    return server


def test_requests_over_coap_are_traced_with_logins_of_new_tokens_alone(coap: CoapServer) -> None:
    """A token that is remembered does not log in again."""
    coap.api.client = {"a": 1}
    coap.post("api/v1/tok/telemetry", b'{"a":1}', mid=1)
    coap.post("api/v1/new/attributes", b'{"a":1}', mid=2)
    coap.get("api/v1/tok/attributes", mid=3)
    coap.post("api/v1/tok/rpc", b'{"method":"m","params":{}}', mid=4)
    coap.post("api/v1/tok/rpc/7", b"{}", mid=5)
    assert coap.api.traces.take() == [
        ("telemetry", "SUCCESS", ""), ("attributes", "SUCCESS", ""), ("login", "SUCCESS", ""),
        ("attributes request", "SUCCESS", ""), ("rpc call", "SUCCESS", ""), ("rpc reply", "SUCCESS", ""),
    ]  # fmt: skip


def test_refusals_over_coap_are_traced_with_their_reasons(coap: CoapServer) -> None:
    """Of the peer, of its message, and ours."""
    coap.post("api/v1/wrong/telemetry", b'{"a":1}', mid=6)
    coap.post("api/v1/tok/telemetry", b"[1", mid=7)
    coap.api.stored = Unavailable()
    coap.post("api/v1/tok/telemetry", b'{"a":1}', mid=8)
    assert coap.api.traces.take() == [
        ("telemetry", "NOT_AUTHENTICATED", ""), ("login", "NOT_AUTHENTICATED", ""),
        ("telemetry", "MALFORMED_REQUEST", ""), ("telemetry", "UNAVAILABLE", ""),
    ]  # fmt: skip
    assert coap.post("api/v1/provision", PROVISION, mid=9).code.is_successful()
    assert coap.api.traces.take() == []  # the core tells of attempts
