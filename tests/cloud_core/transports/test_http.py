"""HTTP in memory: the fast front and klein give the same answers (wire-contract.md sections 3 and 6)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_core.transports.http import errors as http_errors
from cloud_core.transports.http.front import Front
from shared.credentials import AccessToken, MqttBasic
from shared.errors import leaf_classes
from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer
from tests.support.stores import StoreUnderTest

REQUEST = {"provisionDeviceKey": "sensor-key", "provisionDeviceSecret": "sensor-secret"}


@pytest.fixture(params=[True, False], ids=["front", "klein"])
def http(request: pytest.FixtureRequest, sqlite_store: StoreUnderTest) -> Any:
    profile = sqlite_store.add_profile()
    sqlite_store.add_device("dev", profile, AccessToken("tok"))
    sqlite_store.add_device("basic", profile, MqttBasic("", "user", ""))
    peer = HttpPeer(ApiUnderTest(sqlite_store), is_fast=request.param)
    yield peer
    peer.close()


def latest(http: HttpPeer) -> dict[str, Any]:
    device = http.api.store.read(lambda tx: tx.device_by_name(1, "dev"))
    return {key: value for key, (_, value) in http.api.store.read(lambda tx: tx.latest(device.id)).items()}


def test_every_refusal_has_a_status() -> None:
    """The table is total: a new refusal cannot be forgotten here."""
    assert set(http_errors.STATUS) == leaf_classes()


def test_provisioning_is_answered_200_with_the_credentials(http: HttpPeer) -> None:
    status, headers, body = http.post("/api/v1/provision", json.dumps({"deviceName": "n", **REQUEST}).encode())
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["status"] == "SUCCESS"


def test_a_refusal_is_200_too_with_reason_and_ref(http: HttpPeer) -> None:
    body = json.dumps({"deviceName": "dev", **REQUEST}).encode()
    status, _, answer = http.post("/api/v1/provision", body)
    refusal = json.loads(answer)
    assert (status, refusal["status"], refusal["reason"]) == (200, "FAILURE", "DEVICE_EXISTS")
    assert refusal["errorMsg"] == "Failed to provision device!" and refusal["ref"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"provisionDeviceKey":"k"}', b"\xff"])
def test_a_malformed_provision_request_is_400_with_a_body_that_says_so(http: HttpPeer, body: bytes) -> None:
    status, _, answer = http.post("/api/v1/provision", body)
    assert (status, json.loads(answer)["reason"]) == (400, "MALFORMED_REQUEST")


def test_telemetry_is_on_disk_before_its_empty_200(http: HttpPeer) -> None:
    """Also the unquoted form of the most copied command."""
    status, _, body = http.post("/api/v1/tok/telemetry", b"{temperature:25}")
    assert (status, body) == (200, b"")
    assert latest(http) == {"temperature": 25}


@pytest.mark.parametrize("body", [b"{}", b"[]"])
def test_nothing_to_store_is_fine(http: HttpPeer, body: bytes) -> None:
    """The SDK's connection test."""
    assert http.post("/api/v1/tok/telemetry", body)[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/nobody/telemetry", b"{}", 401),
        ("/api/v1/user/telemetry", b"{}", 401),  # an MQTT user name is no access token
        ("/api/v1/tok/telemetry", b"[1,2", 400),
        ("/api/v1/tok/attributes", b"[]", 400),
        ("/api/v1/tok/unknown", b"{}", 404),
        ("/api/v1/tok/telemetry", b"[" + b"0," * 40_000, 413),
    ],
)
def test_refusals_of_data(http: HttpPeer, path: str, body: bytes, status: int) -> None:
    assert http.post(path, body)[0] == status


def test_pipelined_requests_are_answered_in_order(http: HttpPeer) -> None:
    """A slow answer holds back the quick one behind it."""
    one = b'POST /api/v1/%b/telemetry HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n{"a":1}'
    http.send(one % b"tok" + one % b"nobody" + one % b"tok")
    assert [status for status, _, _ in http.responses()] == [200, 401, 200]


def test_a_request_may_arrive_byte_by_byte(http: HttpPeer) -> None:
    for byte in b'POST /api/v1/tok/telemetry HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n{"b":2}':
        http.send(bytes([byte]))
    assert [status for status, _, _ in http.responses()] == [200]
    assert latest(http) == {"b": 2}


def test_a_percent_encoded_token_is_decoded_once(http: HttpPeer) -> None:
    assert http.post("/api/v1/%74ok/telemetry", b"{}")[0] == 200


def test_the_front_hands_a_connection_over_for_good(sqlite_store: StoreUnderTest) -> None:
    """A device POST, then a GET, then a POST again: klein takes over at the GET and answers the rest."""
    sqlite_store.add_device("dev", sqlite_store.add_profile(), AccessToken("tok"))
    http = HttpPeer(ApiUnderTest(sqlite_store), is_fast=True)
    try:
        assert http.post("/api/v1/tok/telemetry", b"{}")[0] == 200
        assert isinstance(http.transport.protocol, Front)  # type: ignore[attr-defined]
        http.send(b"GET /api/auth/user HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [status for status, _, _ in http.responses()] == [401]
        assert not isinstance(http.transport.protocol, Front)  # type: ignore[attr-defined]
        assert http.post("/api/v1/tok/telemetry", b"{}")[0] == 200
    finally:
        http.close()


def test_a_connection_that_never_finishes_its_request_is_closed(sqlite_store: StoreUnderTest) -> None:
    """Headers must be complete within 20 s."""
    http = HttpPeer(ApiUnderTest(sqlite_store), is_fast=True)
    try:
        http.send(b"POST /api/v1/tok")
        for _ in range(22):
            http.clock.advance(1.0)
        assert http.transport.disconnected
    finally:
        http.close()
