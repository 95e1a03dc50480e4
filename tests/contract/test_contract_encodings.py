"""Provision requests in protobuf, and from clients that never subscribe (P9, P11 and P23 of section 10)."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import aiocoap
import paho.mqtt.client as paho
import pytest

from tests.contract.drivers import CoapLoop, MqttDevice, encoded
from tests.support.server import CoreProcess

_numbers = itertools.count()


ACCESS_TOKEN, X509_CERTIFICATE, MQTT_BASIC = range(3)
SUCCESS, NOT_FOUND, FAILURE = 1, 2, 3


def text_field(number: int, text: bytes) -> bytes:
    """A length-delimited protobuf field of less than 128 bytes."""
    assert len(text) < 128
    return bytes((number << 3 | 2, len(text))) + text


def number_field(number: int, value: int) -> bytes:
    return bytes((number << 3, value))


def protobuf_request(
    name: str, profile: dict[str, str], kind: int = 0, brought: bytes = b"", gateway: int = 0
) -> bytes:
    """`ProvisionDeviceRequestMsg` (wire-contract.md section 1.2).

    1 deviceName, 2 credentialsType, 3 {1 key, 2 secret}, 4 {1 {1 token}, 2 {1 hash}, 3 {1 clientId, 2 userName,
    3 password}} of which `brought` is the inside, 5 gateway. Zero and empty ones are left out, as protobuf does.
    """
    key, secret = profile["provisionDeviceKey"].encode(), profile["provisionDeviceSecret"].encode()
    message = text_field(1, name.encode()) if name else b""
    message += number_field(2, kind) if kind else b""
    message += text_field(3, text_field(1, key) + text_field(2, secret))
    message += text_field(4, brought) if brought else b""
    return message + (number_field(5, gateway) if gateway else b"")


def fields(message: bytes) -> dict[int, Any]:
    """Field number -> value, for short messages of varints and texts."""
    found: dict[int, Any] = {}
    at = 0
    while at < len(message):
        number, kind = message[at] >> 3, message[at] & 7
        if kind == 0:
            found[number], at = message[at + 1], at + 2
        else:
            length = message[at + 1]
            found[number], at = message[at + 2 : at + 2 + length], at + 2 + length
    return found


class Answer:
    """`ProvisionDeviceResponseMsg`: 1 status, 2 credentialsType, 3 credentialsValue."""

    def __init__(self, message: bytes) -> None:
        found = fields(message)
        assert set(found) <= {1, 2, 3}
        self.status: int = found.get(1, 0)
        self.kind: int = found.get(2, 0)
        self.value: str = found.get(3, b"").decode()


Ask = Callable[[bytes], Answer]


@pytest.fixture(params=["mqtt3", "mqtt5", "coap", "coap-any"])
def ask(request: pytest.FixtureRequest, cores: dict[bool, CoreProcess], coap_loop: CoapLoop) -> Iterator[Ask]:
    """Sends a protobuf body as a provision request; gives its answer. MQTT on one connection, unsubscribed."""
    core, transport = cores[True], request.param
    if transport.startswith("coap"):
        place = "any/provision" if transport == "coap-any" else "provision"
        uri = f"coap://127.0.0.1:{core.coap_port}/api/v1/{place}"

        def post(body: bytes) -> Answer:
            response = coap_loop.request(aiocoap.POST, uri, body)
            answer = Answer(response.payload)
            assert response.code is (aiocoap.CREATED if answer.status == SUCCESS else aiocoap.BAD_REQUEST)
            return answer

        yield post
        return
    device = MqttDevice(core.mqtt_port, paho.MQTTv5 if transport == "mqtt5" else paho.MQTTv311, "provision")

    def publish(body: bytes) -> Answer:
        device.publish("/provision/request", body)
        topic, payload = device.answer()
        assert topic == "/provision/response"
        return Answer(payload)

    yield publish
    device.close()


@pytest.fixture
def fresh(cores: dict[bool, CoreProcess]) -> Callable[..., tuple[str, dict[str, str]]]:
    """A new name and a profile of its own with these options."""

    def make(strategy: str = "ALLOW_CREATE_NEW_DEVICES", **options: Any) -> tuple[str, dict[str, str]]:
        name = f"encoding-{next(_numbers)}"
        return name, cores[True].make_profile(f"profile-of-{name}", strategy, **options)

    return make


def credentials_of(core: CoreProcess, name: str) -> dict[str, Any]:
    found: dict[str, Any] = core.rest.get(f"/api/device/{core.device(name)['id']['id']}/credentials")
    return found


Fresh = Callable[..., tuple[str, dict[str, str]]]


def test_in_protobuf_a_disabled_profile_is_not_found(ask: Ask, fresh: Fresh) -> None:
    """Only the status, although key and secret are right (P9 of P1, P23)."""
    key = f"key-{next(_numbers)}"
    name, profile = fresh("DISABLED", key=key, provisionDeviceSecret="secret")
    assert profile == {"provisionDeviceKey": key, "provisionDeviceSecret": "secret"}
    for device_name in (name, ""):
        answer = ask(protobuf_request(device_name, profile))
        assert (answer.status, answer.kind, answer.value) == (NOT_FOUND, 0, "")


def test_in_protobuf_a_pre_provisioned_device_gets_its_own_credentials_once(
    ask: Ask, cores: dict[bool, CoreProcess], fresh: Fresh
) -> None:
    """Those of the request are ignored; the second request fails (P9 of P2, P23)."""
    core, (name, profile) = cores[True], fresh("CHECK_PRE_PROVISIONED_DEVICES")
    core.rest.post(f"/api/device?accessToken=pre-{name}", {"name": name, "type": f"profile-of-{name}"})
    request = protobuf_request(name, profile, brought=text_field(1, text_field(1, b"ignored")))
    answer = ask(request)
    assert (answer.status, answer.kind, answer.value) == (SUCCESS, ACCESS_TOKEN, f"pre-{name}")
    assert credentials_of(core, name)["credentialsId"] == f"pre-{name}"
    again = ask(request)
    assert (again.status, again.value) == (FAILURE, "")


@pytest.mark.parametrize("gateway", [0, 1])
def test_in_protobuf_a_new_device_gets_a_token(
    ask: Ask, cores: dict[bool, CoreProcess], fresh: Fresh, gateway: int
) -> None:
    """What is returned is stored; `gateway` sets the flag (P9 of P3 and P4, P23)."""
    core, (name, profile) = cores[True], fresh()
    answer = ask(protobuf_request(name, profile, gateway=gateway))
    stored = credentials_of(core, name)
    assert (answer.status, answer.kind) == (SUCCESS, ACCESS_TOKEN)
    assert (stored["credentialsType"], stored["credentialsId"]) == ("ACCESS_TOKEN", answer.value)
    assert bool((core.device(name)["additionalInfo"] or {}).get("gateway")) is bool(gateway)


def test_in_protobuf_a_device_brings_its_credentials(ask: Ask, cores: dict[bool, CoreProcess], fresh: Fresh) -> None:
    """A token, a certificate, or user name and password (P9 of P5, P6 and P7, P23)."""
    core, (prefix, profile) = cores[True], fresh()
    token, certificate = f"token-{prefix}", f"hash{prefix}"
    basic = {"clientId": f"c-{prefix}", "userName": f"u-{prefix}", "password": "p"}
    inside = b"".join(text_field(number, text.encode()) for number, text in enumerate(basic.values(), 1))
    for kind, name_of_kind, brought, identifier in (
        (ACCESS_TOKEN, "ACCESS_TOKEN", text_field(1, text_field(1, token.encode())), token),
        (X509_CERTIFICATE, "X509_CERTIFICATE", text_field(2, text_field(1, certificate.encode())), certificate),
        (MQTT_BASIC, "MQTT_BASIC", text_field(3, inside), f"c-{prefix}|u-{prefix}"),
    ):
        name = f"{prefix}-{kind}"
        answer = ask(protobuf_request(name, profile, kind, brought))
        stored = credentials_of(core, name)
        assert (answer.status, answer.kind, stored["credentialsType"]) == (SUCCESS, kind, name_of_kind)
        if kind == ACCESS_TOKEN:
            assert stored["credentialsId"] == answer.value == identifier
            continue
        assert stored["credentialsId"] == hashlib.sha3_256(identifier.encode()).hexdigest()
        if kind == X509_CERTIFICATE:
            assert stored["credentialsValue"] == answer.value == certificate
        else:
            assert json.loads(stored["credentialsValue"]) == json.loads(answer.value) == basic


def test_in_protobuf_an_unknown_key_answers_as_a_wrong_secret_does(ask: Ask, fresh: Fresh) -> None:
    """Nobody can tell which it was (P9 of P8, P23)."""
    name, profile = fresh()
    for member in profile:
        answer = ask(protobuf_request(name, profile | {member: "unknown"}))
        assert (answer.status, answer.kind, answer.value) == (NOT_FOUND, 0, "")


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5])
@pytest.mark.parametrize("strategy", ["ALLOW_CREATE_NEW_DEVICES", "CHECK_PRE_PROVISIONED_DEVICES"])
def test_the_answer_comes_without_a_subscription(
    cores: dict[bool, CoreProcess], fresh: Fresh, protocol: int, strategy: str
) -> None:
    """On the response topic, to a client that has subscribed to nothing (P11)."""
    core, (name, profile) = cores[True], fresh(strategy)
    if strategy == "CHECK_PRE_PROVISIONED_DEVICES":
        core.rest.post("/api/device", {"name": name, "type": f"profile-of-{name}"})
    device = MqttDevice(core.mqtt_port, protocol, "provision")
    try:
        device.publish("/provision/request", encoded({"deviceName": name, **profile}))
        topic, payload = device.answer()
    finally:
        device.close()
    answer = json.loads(payload)
    assert (topic, answer["status"], answer["credentialsType"]) == ("/provision/response", "SUCCESS", "ACCESS_TOKEN")
    assert answer["credentialsValue"] == credentials_of(core, name)["credentialsId"]
