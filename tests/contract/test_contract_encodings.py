"""Provision requests in protobuf, and from clients that never subscribe (P9, P11 and P23 of section 10)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import aiocoap
import paho.mqtt.client as paho
import pytest

from tests.contract.drivers import CoapLoop, MqttDevice, encoded
from tests.support.server import CoreProcess

_numbers = itertools.count()


def text_field(number: int, text: bytes) -> bytes:
    """A length-delimited protobuf field of less than 128 bytes."""
    return bytes((number << 3 | 2, len(text))) + text


def protobuf_request(name: str, profile: dict[str, str]) -> bytes:
    """`ProvisionDeviceRequestMsg`: 1 deviceName, 3 {1 key, 2 secret} (wire-contract.md section 1.2)."""
    key, secret = profile["provisionDeviceKey"].encode(), profile["provisionDeviceSecret"].encode()
    return text_field(1, name.encode()) + text_field(3, text_field(1, key) + text_field(2, secret))


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


@pytest.fixture
def fresh(cores: dict[bool, CoreProcess]) -> Callable[..., tuple[str, dict[str, str]]]:
    """A new name and a profile of its own with these options."""

    def make(strategy: str = "ALLOW_CREATE_NEW_DEVICES", **options: Any) -> tuple[str, dict[str, str]]:
        name = f"encoding-{next(_numbers)}"
        return name, cores[True].make_profile(f"profile-of-{name}", strategy, **options)

    return make


def token_of(core: CoreProcess, name: str) -> str:
    path = f"/api/device/{core.device(name)['id']['id']}/credentials"
    token: str = core.rest.get(path)["credentialsId"]
    return token


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5])
def test_a_protobuf_request_over_mqtt_is_answered_in_protobuf(
    cores: dict[bool, CoreProcess], fresh: Callable[..., tuple[str, dict[str, str]]], protocol: int
) -> None:
    """Success carries the token; a wrong secret only the status (P9)."""
    core, (name, profile) = cores[True], fresh()
    device = MqttDevice(core.mqtt_port, protocol, "provision")
    try:
        device.publish("/provision/request", protobuf_request(name, profile | {"provisionDeviceSecret": "wrong"}))
        refused = fields(device.answer()[1])
        device.publish("/provision/request", protobuf_request(name, profile))
        answer = fields(device.answer()[1])
    finally:
        device.close()
    assert refused.get(1, 0) != answer.get(1, 0) and 3 not in refused
    assert answer[3].decode() == token_of(core, name)


def test_a_protobuf_request_over_coap_is_answered_in_protobuf(
    cores: dict[bool, CoreProcess], fresh: Callable[..., tuple[str, dict[str, str]]], coap_loop: CoapLoop
) -> None:
    """2.01 and the token (P23)."""
    core, (name, profile) = cores[True], fresh()
    uri = f"coap://127.0.0.1:{core.coap_port}/api/v1/provision"
    answer = coap_loop.request(aiocoap.POST, uri, protobuf_request(name, profile))
    assert answer.code is aiocoap.CREATED
    assert fields(answer.payload)[3].decode() == token_of(core, name)


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5])
@pytest.mark.parametrize("strategy", ["ALLOW_CREATE_NEW_DEVICES", "CHECK_PRE_PROVISIONED_DEVICES"])
def test_the_answer_comes_without_a_subscription(
    cores: dict[bool, CoreProcess], fresh: Callable[..., tuple[str, dict[str, str]]], protocol: int, strategy: str
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
    assert topic == "/provision/response" and token_of(core, name).encode() in payload
