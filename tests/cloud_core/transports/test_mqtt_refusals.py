"""What MQTT clients hear when something is refused (wire-contract.md sections 2.3 and 2.4)."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_core.model import Scope
from cloud_core.transports.mqtt.errors import REASONS
from shared.credentials import AccessToken, MqttBasic
from shared.mqtt.codes import REASONS as LEGAL
from shared.mqtt.codes import PacketKind
from shared.mqtt.packets import Connack, Connect, Disconnect, Puback, Publish, Unsubscribe
from tests.support.api import ApiUnderTest
from tests.support.mqtt import MqttPeer, MqttServer, server_with_device
from tests.support.stores import StoreUnderTest

TELEMETRY = "v1/devices/me/telemetry"


@pytest.fixture
def server(sqlite_store: StoreUnderTest) -> MqttServer:
    return server_with_device(sqlite_store)


def test_every_reason_may_stand_in_a_puback() -> None:
    """A strict 5.0 client closes on any other."""
    assert set(REASONS.values()) <= LEGAL[PacketKind.PUBACK]


@pytest.mark.parametrize(
    ("members", "v3_code", "v5_code"),
    [
        ({"client_id": "c", "user_name": "tok"}, 0, 0),
        ({"client_id": "c", "user_name": "wrong"}, 5, 0x86),
        ({"client_id": "unknown"}, 2, 0x85),
        ({"client_id": ""}, 5, 0x87),
    ],
)
@pytest.mark.parametrize("version", [4, 5])
def test_a_login_is_answered_with_the_code_of_its_version(
    sqlite_store: StoreUnderTest, members: dict[str, Any], v3_code: int, v5_code: int, version: int
) -> None:
    """Right token, wrong token, unknown client id, nothing at all, where anonymous provisioning is off (C1)."""
    server_with_device(sqlite_store)
    server = MqttServer(ApiUnderTest(sqlite_store, is_anonymous_provisioning_allowed=False))
    peer = server.connect(version=version, **members)
    code = v5_code if version == 5 else v3_code
    assert [one.reason_code for one in peer.received()] == [code]
    assert peer.is_closed is bool(code)


def test_basic_credentials_and_tokens_are_told_apart(sqlite_store: StoreUnderTest) -> None:
    """By client id, by both, by all three, and a token of the same name as a user (C3)."""
    profile = sqlite_store.add_profile()
    for name, credentials in (
        ("first", AccessToken("T1")),
        ("second", MqttBasic("client", "", "")),
        ("third", MqttBasic("client", "U1", "")),
        ("fourth", MqttBasic("client", "U2", "right")),
        ("fifth", AccessToken("U2")),
    ):
        sqlite_store.add_device(name, profile, credentials)
    server = MqttServer(ApiUnderTest(sqlite_store))

    def device(**members: Any) -> str:
        peer = server.connect(**members)
        return peer.protocol._adapter.device.device_name

    assert device(client_id="any", user_name="T1") == "first"
    assert device(client_id="client") == "second"
    assert device(client_id="client", user_name="U1") == "third"
    assert device(client_id="client", user_name="U2", password=b"right") == "fourth"
    assert device(client_id="random", user_name="U2", password=b"random") == "fifth"
    peer = server.connect(client_id="client", user_name="U2", password=b"wrong")
    peer.send(Publish(TELEMETRY, b'{"a":1}', 1, 1))
    assert peer.received() == [Connack(5)]
    assert peer.is_closed


@pytest.mark.parametrize("version", [4, 5])
def test_a_refusal_is_repeated_where_that_is_asked_for(sqlite_store: StoreUnderTest, version: int) -> None:
    """ThingsBoard's DISCONNECT behind the CONNACK, on 5.0 only and off by default (C5)."""
    server = server_with_device(sqlite_store, repeats_refusal=True)
    peer = server.connect(user_name="wrong", version=version)
    answer = peer.transport.value()
    assert answer.endswith(b"\xe0\x01\x86") is (version == 5)
    assert peer.is_closed
    usual = MqttServer(server.api).connect(user_name="wrong", version=5)
    assert [type(one) for one in usual.received()] == [Connack]


@pytest.mark.parametrize(("transport_type", "is_welcome"), [("DEFAULT", True), ("MQTT", True), ("COAP", False)])
@pytest.mark.parametrize("version", [4, 5])
def test_a_device_of_another_transport_is_refused(
    sqlite_store: StoreUnderTest, transport_type: str, is_welcome: bool, version: int
) -> None:
    """3 and 0x88, as for a server that is not available."""
    server = server_with_device(sqlite_store, document={"transportType": transport_type})
    codes = [one.reason_code for one in server.connect(user_name="tok", version=version).received()]
    assert codes == [0 if is_welcome else (0x88 if version == 5 else 3)]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("topic", "body", "reason"),
    [
        (TELEMETRY, b'{"a":1}', 0),
        ("unknown/topic", b'{"a":1}', 0x90),
        (TELEMETRY, b"not json", 0x99),
        ("v1/devices/me/attributes", b"[1]", 0x99),
        ("v1/devices/me/attributes/request/1", b"x", 0x99),
        ("v1/gateway/telemetry", b"{}", 0x87),
        ("v1/gateway/unknown", b"{}", 0x87),
        ("/provision/request", b"{}", 0x87),
    ],
)
def test_a_message_that_is_refused_costs_itself_only(
    server: MqttServer, topic: str, body: bytes, reason: int, version: int
) -> None:
    """5.0 hears the reason, 3.1.1 a plain PUBACK; the connection survives all of them (M1)."""
    peer = server.log_in(version)
    assert peer.publish(topic, body) == [Puback(1, reason if version == 5 else 0)]
    assert peer.publish(topic, body, qos=0) == []
    assert peer.publish(TELEMETRY, b'{"still":"here"}', 2) == [Puback(2)]
    assert not peer.is_closed


def test_what_was_dropped_is_counted(server: MqttServer) -> None:
    """Malformed, unknown, not allowed."""
    peer = server.log_in()
    for topic in (TELEMETRY, "unknown", "unknown", "v1/gateway/rpc"):
        peer.publish(topic, b"x", qos=0)
    counters = server.service.counters
    assert (counters.malformed, counters.unknown_topic, counters.not_authorized) == (1, 2, 1)


@pytest.mark.parametrize("version", [4, 5])
def test_filters_are_granted_refused_and_given_back(server: MqttServer, version: int) -> None:
    """Known filters at most QoS 1, others 0x8F (3.1.1: 0x80); UNSUBSCRIBE says what there was (M2)."""
    peer = server.log_in(version)
    refused = 0x8F if version == 5 else 0x80
    assert peer.subscribe("v1/devices/me/attributes", "v2/r/req/+", "my/own", "#", qos=2) == [1, 1, refused, refused]
    peer.send(Unsubscribe(4, ["v2/r/req/+", "my/own", "v2/a"]))
    assert peer.received()[0].codes == ([0, 0x11, 0x11] if version == 5 else [])


def test_a_device_may_not_hear_gateways(server: MqttServer) -> None:
    """The role decides, as for publishing."""
    assert server.log_in(5).subscribe("v1/gateway/rpc", "/provision/response") == [0x8F, 0x8F]


def test_subscriptions_are_bounded(server: MqttServer) -> None:
    """A hundred; then 0x97, but a known one may be renewed."""
    peer = server.log_in(5)
    assert peer.subscribe(*(f"v2/a/{number}/#" for number in range(100))) == [1] * 100
    assert peer.subscribe("v2/a", "v2/a/0/#") == [0x97, 1]


@pytest.mark.parametrize(("version", "qos", "is_closed"), [(4, 0, True), (4, 1, True), (5, 0, True), (5, 1, False)])
def test_a_profile_may_close_on_a_bad_message(
    sqlite_store: StoreUnderTest, version: int, qos: int, is_closed: bool
) -> None:
    """`sendAckOnValidationException: false` in a profile of type MQTT; where 5.0 can be told, it is not closed (M4)."""
    configuration = {"type": "MQTT", "sendAckOnValidationException": False}
    document = {"transportType": "MQTT", "profileData": {"transportConfiguration": configuration}}
    server = server_with_device(sqlite_store, document=document)
    peer = server.log_in(version)
    peer.send(
        Publish(TELEMETRY, b"bad", qos, 1 if qos else 0), Publish("v1/devices/me/attributes", b'{"late":1}', 0, 0)
    )
    answers = peer.received()
    assert peer.is_closed is is_closed
    if version == 4:
        assert answers == []
    else:
        assert answers == ([Puback(1, 0x99)] if qos else [Disconnect(0x99)])
    found = server.api.store.read(lambda tx: tx.attributes(server_device(tx), Scope.CLIENT))
    assert [one.key for one in found] == ([] if is_closed else ["late"]), "what follows a fatal message is not taken"


def server_device(tx: Any) -> int:
    return int(tx.device_by_name(1, "dev").id)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("setting", [None, True])
def test_by_default_a_bad_message_is_acknowledged(
    sqlite_store: StoreUnderTest, setting: bool | None, version: int
) -> None:
    """Without the setting too, so that one bad message makes no storm of reconnections (M4)."""
    configuration = {"type": "MQTT"} if setting is None else {"type": "MQTT", "sendAckOnValidationException": setting}
    server = server_with_device(sqlite_store, document={"profileData": {"transportConfiguration": configuration}})
    peer = server.log_in(version)
    assert [one.packet_id for one in peer.publish(TELEMETRY, b"bad")] == [1]
    assert not peer.is_closed


def test_an_error_of_ours_ends_the_connection_with_a_reason(server: MqttServer) -> None:
    """5.0: 0x83; nothing is acknowledged, so the client sends it again."""
    peer = server.log_in(5)
    server.api.api.attributes = None  # type: ignore[assignment]
    assert peer.publish("v1/devices/me/attributes", b'{"a":1}') == [Disconnect(0x83)]
    assert peer.is_closed


def test_up_to_a_hundred_packets_wait_for_the_login(server: MqttServer) -> None:
    """In order, and nothing is lost; one more closes the connection (C7)."""
    messages = [Publish(TELEMETRY, b'{"n":1}', 1, number) for number in range(1, 101)]
    peer = MqttPeer(server)
    peer.send(Connect("c", user_name="tok"), *messages)
    assert peer.received() == [Connack(0), *(Puback(number) for number in range(1, 101))]
    crowd = MqttPeer(server)
    crowd.send(Connect("c", user_name="tok"), *messages, messages[0])
    assert crowd.received() == []
    assert crowd.is_closed
