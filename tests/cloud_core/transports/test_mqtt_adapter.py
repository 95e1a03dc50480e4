"""MQTT as devices see it: login, provisioning sessions, data, refusals (wire-contract.md section 2)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_core.core.downlinks import Ending
from cloud_core.transports.mqtt import errors as mqtt_errors
from shared.credentials import AccessToken, MqttBasic
from shared.errors import leaf_classes
from shared.mqtt.packets import Connack, Disconnect, Puback, Publish, Pubrec, Pubrel, Unsubscribe
from tests.support.api import ApiUnderTest
from tests.support.mqtt import MqttPeer, MqttServer
from tests.support.stores import StoreUnderTest

REQUEST = {"provisionDeviceKey": "sensor-key", "provisionDeviceSecret": "sensor-secret"}


@pytest.fixture
def server(sqlite_store: StoreUnderTest) -> MqttServer:
    profile = sqlite_store.add_profile()
    sqlite_store.add_device("dev", profile, AccessToken("tok"))
    sqlite_store.add_device("basic", profile, MqttBasic("cid", "user", "pass"))
    return MqttServer(ApiUnderTest(sqlite_store))


def provision_body(**members: Any) -> bytes:
    return json.dumps(REQUEST | members).encode()


def logged_in(server: MqttServer, version: int = 4) -> MqttPeer:
    peer = server.connect(user_name="tok", version=version)
    assert [type(one) for one in peer.received()] == [Connack]
    return peer


def latest(server: MqttServer, device: str = "dev") -> dict[str, Any]:
    store = server.api.store
    server.settle()
    found = store.read(lambda tx: tx.device_by_name(1, device))
    return {key: value for key, (_, value) in store.read(lambda tx: tx.latest(found.id)).items()}


def test_every_refusal_has_a_reason_code() -> None:
    """The table is total: a new refusal cannot be forgotten here."""
    assert set(mqtt_errors.REASONS) == leaf_classes()


@pytest.mark.parametrize(
    ("members", "v3_code", "v5_code"),
    [
        ({"user_name": "bad"}, 5, 0x86),
        ({"user_name": "bad", "password": b"x"}, 5, 0x86),
        ({"client_id": "cid", "user_name": "user", "password": b"no"}, 5, 0x86),
    ],
)
@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_wrong_login_is_refused_and_closed(
    server: MqttServer, members: dict[str, Any], v3_code: int, v5_code: int, version: int
) -> None:
    """CONNACK with the code of section 2.4, then the end."""
    peer = server.connect(version=version, **members)
    assert [one.reason_code for one in peer.received()] == [v5_code if version == 5 else v3_code]
    assert peer.is_closed


@pytest.mark.parametrize(("client_id", "v3_code", "v5_code"), [("random", 2, 0x85), ("", 5, 0x87)])
@pytest.mark.parametrize("version", [4, 5])
def test_without_anonymous_provisioning_the_codes_are_thingsboards(
    sqlite_store: StoreUnderTest, client_id: str, v3_code: int, v5_code: int, version: int
) -> None:
    """`anonymous_provisioning = false`."""
    server = MqttServer(ApiUnderTest(sqlite_store, is_anonymous_provisioning_allowed=False))
    peer = server.connect(client_id=client_id, version=version)
    assert [one.reason_code for one in peer.received()] == [v5_code if version == 5 else v3_code]


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize(
    "members", [{"user_name": "provision"}, {"client_id": "provision"}, {"client_id": "seed"}, {"client_id": ""}]
)
def test_every_kind_of_provision_session_gets_its_answer(
    server: MqttServer, members: dict[str, Any], version: int
) -> None:
    """By user name, by client id, and with nothing at all; the answer needs no subscription."""
    peer = server.connect(version=version, **members)
    peer.received()
    acknowledgement, answer = peer.publish("/provision/request", provision_body(deviceName="new"))
    assert isinstance(acknowledgement, Puback)
    assert (answer.topic, answer.qos) == ("/provision/response", 1)
    body = json.loads(answer.payload)
    assert body["status"] == "SUCCESS"
    assert logged_in_with(server, body["credentialsValue"])


def logged_in_with(server: MqttServer, token: str) -> bool:
    return [one.reason_code for one in server.connect(user_name=token).received()] == [0]


def test_packets_sent_before_connack_are_processed_after_it(server: MqttServer) -> None:
    """A client that connects, publishes and disconnects in one go loses nothing."""
    from shared.mqtt.packets import Connect

    peer = MqttPeer(server)
    message = Publish("v1/devices/me/telemetry", b'{"a":1}', 0, 0)
    peer.send(Connect("c", user_name="tok"), message, Disconnect())
    assert latest(server) == {"a": 1}


def test_a_peer_that_is_gone_before_its_login_was_looked_up_loses_nothing(server: MqttServer) -> None:
    """CONNECT and PUBLISH arrive, the socket closes, then the look-up answers."""
    from shared.mqtt.codec import encode
    from shared.mqtt.packets import Connect

    live = logged_in(server)
    peer = MqttPeer(server)
    message = Publish("v1/devices/me/telemetry", b'{"a":1}', 1, 1)
    peer.protocol.dataReceived(encode(Connect("c", user_name="tok"), 4) + encode(message, 4))
    peer.protocol.connectionLost()
    assert latest(server) == {"a": 1}
    assert not live.is_closed, "a dead session must not take over a living one"


@pytest.mark.parametrize(
    ("topic", "answered_on"),
    [
        ("/provision/request", "/provision/response"),
        ("provision/request", "provision/response"),
        ("/provision", "/provision/response"),
    ],
)
def test_the_answer_comes_on_the_form_of_topic_that_was_used(server: MqttServer, topic: str, answered_on: str) -> None:
    """With and without leading slash, and the form of old documentation (section 2.5)."""
    peer = server.connect(user_name="provision")
    peer.received()
    assert peer.publish(topic, provision_body())[-1].topic == answered_on


def test_the_answer_follows_the_subscription(server: MqttServer) -> None:
    """QoS as granted; a client that subscribed to one form only gets that one."""
    peer = server.connect(user_name="provision")
    peer.received()
    assert peer.subscribe("provision/response", qos=0) == [0]
    answer = peer.publish("/provision/request", provision_body())[-1]
    assert (answer.topic, answer.qos) == ("provision/response", 0)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"nonsense", b'{"provisionDeviceKey":"k"}', b"\xff\xfe"])
def test_a_malformed_request_is_answered_and_the_session_lives(server: MqttServer, body: bytes, version: int) -> None:
    """FAILURE with errorMsg, reason and ref; the next request succeeds."""
    peer = server.connect(user_name="provision", version=version)
    peer.received()
    answer = json.loads(peer.publish("/provision/request", body)[-1].payload)
    assert (answer["status"], answer["reason"]) == ("FAILURE", "MALFORMED_REQUEST")
    assert answer["errorMsg"] and answer["ref"]
    assert json.loads(peer.publish("/provision/request", provision_body(), 2)[-1].payload)["status"] == "SUCCESS"


def test_a_provision_session_may_do_nothing_else(server: MqttServer) -> None:
    """Foreign filters are refused, a foreign topic ends the session (P12, P13)."""
    peer = server.connect(user_name="provision", version=5)
    peer.received()
    assert peer.subscribe("/provision/response", "v1/devices/me/attributes") == [1, 0x8F]
    acknowledgement, goodbye = peer.publish("v1/devices/me/telemetry", b"{}")
    assert (acknowledgement.reason_code, goodbye.reason_code) == (0x90, 0x90)
    assert peer.is_closed


def test_a_device_may_not_provision(server: MqttServer) -> None:
    """The role decides, not the topic."""
    peer = logged_in(server, 5)
    assert [one.reason_code for one in peer.publish("/provision/request", provision_body())] == [0x87]


@pytest.mark.parametrize("topic", ["v1/devices/me/telemetry", "v2/t", "v2/t/j"])
@pytest.mark.parametrize("body", [b'{"t":1}', b"{t:1}", b'[{"t":1}]', b'{"ts":5,"values":{"t":1}}'])
def test_telemetry_is_stored_before_it_is_acknowledged(server: MqttServer, topic: str, body: bytes) -> None:
    """On every topic, in every shape, lenient ones included."""
    peer = logged_in(server)
    assert peer.publish(topic, body) == [Puback(1)]
    assert latest(server) == {"t": 1}


def test_attributes_are_stored_in_client_scope(server: MqttServer) -> None:
    from cloud_core.model import Scope

    peer = logged_in(server)
    assert peer.publish("v1/devices/me/attributes", b'{"fw":"1.0.1","n":4}') == [Puback(1)]
    found = server.api.store.read(lambda tx: tx.attributes(tx.device_by_name(1, "dev").id, Scope.CLIENT))
    assert [(one.key, one.value) for one in found] == [("fw", "1.0.1"), ("n", 4)]


def test_acknowledgements_keep_the_order_of_the_messages(server: MqttServer) -> None:
    """Telemetry waits for the disk; what comes after it waits too [MQTT-4.6.0-2]."""
    peer = logged_in(server, 5)
    peer.send(
        Publish("v1/devices/me/telemetry", b'{"a":1}', 1, 1),
        Publish("unknown", b"", 1, 2),
        Publish("v1/devices/me/telemetry", b"broken", 1, 3),
        Publish("v1/devices/me/attributes", b'{"a":1}', 1, 4),
        Publish("v1/devices/me/telemetry", b'{"b":2}', 1, 5),
    )
    acknowledged = [(one.packet_id, one.reason_code) for one in peer.received()]
    assert acknowledged == [(1, 0), (2, 0x90), (3, 0x99), (4, 0), (5, 0)]
    assert latest(server) == {"a": 1, "b": 2}


@pytest.mark.parametrize("version", [4, 5])
def test_a_bad_message_is_acknowledged_and_dropped(server: MqttServer, version: int) -> None:
    """One malformed payload costs the message, not the connection."""
    peer = logged_in(server, version)
    answer = peer.publish("v1/devices/me/telemetry", b"[1,2")[0]
    assert answer.reason_code == (0x99 if version == 5 else 0)
    assert not peer.is_closed


def test_quality_of_service_two_is_a_real_handshake(server: MqttServer) -> None:
    """PUBREC after the disk; a duplicate before PUBREL is not stored twice."""
    peer = logged_in(server)
    assert [type(one) for one in peer.publish("v1/devices/me/telemetry", b'{"q":2}', 7, 2)] == [Pubrec]
    peer.send(Pubrel(7))
    assert [one.packet_id for one in peer.received()] == [7]
    assert latest(server) == {"q": 2}


def test_a_newer_session_takes_over(server: MqttServer) -> None:
    """One session per device; a 5.0 client hears why (C4)."""
    first, second = logged_in(server, 5), logged_in(server, 5)
    assert [one.reason_code for one in first.received()] == [0x8E]
    assert first.is_closed and not second.is_closed
    first.protocol.connectionLost()
    assert len(server.service.sessions) == 1


def test_changed_credentials_end_the_session(server: MqttServer) -> None:
    """0x98 on 5.0 (section 1.7)."""
    peer = logged_in(server, 5)
    identity = server.api.log_in(username="tok")
    server.api.api.device_changed(identity.device_id, Ending.CREDENTIALS_CHANGED)
    assert [one.reason_code for one in peer.received()] == [0x98]
    assert peer.is_closed


def test_a_silent_socket_is_closed_after_ten_seconds(server: MqttServer) -> None:
    """CONNECT must be complete by then."""
    peer = MqttPeer(server)
    server.tick(9)
    assert not peer.is_closed
    server.tick(3)
    assert peer.is_closed


def test_keep_alive_is_enforced_at_one_and_a_half(server: MqttServer) -> None:
    """[MQTT-3.1.2-24]; any packet counts."""
    peer = server.connect(user_name="tok", keep_alive_s=10)
    server.tick(14)
    peer.publish("v1/devices/me/telemetry", b"{}")
    server.tick(14)
    assert not peer.is_closed
    server.tick(3)
    assert peer.is_closed


def test_a_provision_session_ends_after_a_minute(server: MqttServer) -> None:
    peer = server.connect(user_name="provision", keep_alive_s=30)
    for _ in range(6):
        server.tick(10)
        peer.send(Unsubscribe(3, ["x"]))
    server.tick(2)
    assert peer.is_closed


def test_unsubscribe_says_what_was_there(server: MqttServer) -> None:
    """Known 0, never subscribed 0x11 (M2)."""
    peer = logged_in(server, 5)
    peer.subscribe("v1/devices/me/attributes")
    peer.send(Unsubscribe(4, ["v1/devices/me/attributes", "v1/devices/me/rpc/request/+"]))
    assert peer.received()[0].codes == [0, 0x11]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x30\x00", b"\xff" * 10, b"\x10\xff\xff\xff\xff\x7f"])
def test_what_is_not_mqtt_is_closed(server: MqttServer, data: bytes) -> None:
    peer = MqttPeer(server)
    peer.protocol.dataReceived(data)
    assert peer.is_closed
