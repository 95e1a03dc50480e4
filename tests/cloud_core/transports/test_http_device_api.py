"""The device API over HTTP, through the front and through klein alike (wire-contract.md section 3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cloud_core.model import PROVISION_STATE, ProvisionStrategy, Scope
from cloud_core.transports.http.front import Front
from shared.credentials import AccessToken
from shared.errors import ClaimRefused, DeviceTimeout, Unavailable
from shared.messages import ClaimRequest, RpcRequest
from tests.support import recording
from tests.support.api import ApiUnderTest
from tests.support.http import HttpPeer
from tests.support.stores import StoreUnderTest


@pytest.fixture(params=[True, False], ids=["front", "klein"])
def http(request: pytest.FixtureRequest, sqlite_store: StoreUnderTest) -> Iterator[HttpPeer]:
    sqlite_store.add_device("dev", sqlite_store.add_profile(), AccessToken("tok"))
    peer = HttpPeer(ApiUnderTest(sqlite_store), is_fast=request.param)
    yield peer
    peer.close()


def device_id(http: HttpPeer, name: str = "dev") -> int:
    return int(http.api.store.read(lambda tx: tx.device_by_name(1, name)).id)


def put(http: HttpPeer, scope: Scope, **values: Any) -> None:
    one = device_id(http)
    http.api.outcome(lambda done: http.api.api.attributes.put(one, scope, values, done))


def stored(http: HttpPeer, scope: Scope) -> dict[str, Any]:
    one = device_id(http)
    return {entry.key: entry.value for entry in http.api.store.read(lambda tx: tx.attributes(one, scope, None))}


# -- attributes -----------------------------------------------------------------------------------


def test_telemetry_and_attributes_are_visible_and_read_back(http: HttpPeer) -> None:
    """A GET returns only the keys that are asked for and exist, under `client` and `shared` (H1)."""
    assert http.post("/api/v1/tok/telemetry", b'{"t":21.5}')[0] == 200
    assert http.post("/api/v1/tok/attributes", b'{"fw":"v1","n":3}')[0] == 200
    put(http, Scope.SHARED, target=5, other=True)
    status, headers, body = http.get("/api/v1/tok/attributes?clientKeys=fw,missing&sharedKeys=target")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {"client": {"fw": "v1"}, "shared": {"target": 5}}
    assert stored(http, Scope.CLIENT) == {"fw": "v1", "n": 3}
    one = device_id(http)
    assert {key: value for key, (_, value) in http.api.store.read(lambda tx: tx.latest(one)).items()} == {"t": 21.5}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"client": {"a b": 1}, "shared": {"s": 2}}),
        ("?clientKeys=", {"client": {"a b": 1}, "shared": {"s": 2}}),
        ("?sharedKeys=s", {"shared": {"s": 2}}),
        ("?client_keys=a%20b", {"client": {"a b": 1}}),
        ("?shared_keys=s&client_keys=a+b", {"client": {"a b": 1}, "shared": {"s": 2}}),
        ("?clientKeys=x&clientKeys=a%20b", {"client": {"a b": 1}}),
        ("?sharedKeys=nothing", {}),
        ("?unknown=1&sharedKeys=s", {"shared": {"s": 2}}),
    ],
)
def test_which_attributes_a_query_asks_for(http: HttpPeer, query: str, expected: dict[str, Any]) -> None:
    """Neither list, or empty ones, ask for everything; the names that the SDK sends count too."""
    put(http, Scope.CLIENT, **{"a b": 1})
    put(http, Scope.SHARED, s=2)
    put(http, Scope.SERVER, secret=3)
    status, _, body = http.get(f"/api/v1/tok/attributes{query}")
    assert (status, json.loads(body)) == (200, expected)


def test_a_query_with_very_many_parameters_is_refused(http: HttpPeer) -> None:
    """The limit is said."""
    status, _, body = http.get("/api/v1/tok/attributes?" + "&".join(["a=1"] * 1_001))
    assert status == 400
    assert b"1000 parameters" in body


# -- claims, replies, calls -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"secretKey":"s","durationMs":60000}', ClaimRequest(secret="s", duration_ms=60_000)),
        (b"{}", ClaimRequest()),
        (b"", ClaimRequest()),
    ],
)
def test_a_device_offers_itself_with_or_without_a_secret(http: HttpPeer, body: bytes, expected: ClaimRequest) -> None:
    """A claim is answered with an empty 200, whatever of its body is left out (M9)."""
    claims: Any = recording.RecordingClaims()
    http.api.api.claims = claims
    status, _, answer = http.post("/api/v1/tok/claim", body)
    assert (status, answer, claims.offers) == (200, b"", [expected])


def test_a_refused_claim_says_why(http: HttpPeer) -> None:
    """400 and the error object."""
    claims: Any = recording.RecordingClaims()
    claims.outcome = ClaimRefused("The device has an owner.")
    http.api.api.claims = claims
    status, _, body = http.post("/api/v1/tok/claim", b"{}")
    assert (status, json.loads(body)["message"]) == (400, "The device has an owner.")


@pytest.mark.parametrize(("body", "value"), [(b'{"ok":true}', {"ok": True}), (b"done", "done"), (b"", None), (b"5", 5)])
def test_the_whole_body_is_the_reply_to_a_command(http: HttpPeer, body: bytes, value: Any) -> None:
    """Any JSON, and text that is none."""
    rpc: Any = recording.RecordingRpc()
    http.api.api.rpc = rpc
    status, _, answer = http.post("/api/v1/tok/rpc/17", body)
    assert (status, answer, rpc.replies) == (200, b"", [(device_id(http), 17, value)])


@pytest.mark.parametrize("number", ["x", "1.5", "2147483648", "99999999999", "%20"])
def test_an_rpc_id_that_is_no_integer_is_400(http: HttpPeer, number: str) -> None:
    """Nothing reaches the core, and the body says what an id is."""
    rpc: Any = recording.RecordingRpc()
    http.api.api.rpc = rpc
    status, _, body = http.post(f"/api/v1/tok/rpc/{number}", b"{}")
    assert (status, rpc.replies) == (400, [])
    assert "32-bit integer" in json.loads(body)["message"]


def test_a_call_of_the_server_is_answered_with_its_json(http: HttpPeer) -> None:
    """The answer is the body."""
    methods: Any = recording.RecordingServerMethods()
    methods.outcome = {"maxPayloadSize": 65536}
    http.api.api.server_methods = methods
    status, headers, body = http.post("/api/v1/tok/rpc", b'{"method":"getSessionLimits","params":{}}')
    assert (status, headers["content-type"], json.loads(body)) == (200, "application/json", {"maxPayloadSize": 65536})
    assert methods.calls == [RpcRequest(method="getSessionLimits", params={})]


def test_a_call_that_is_not_answered_in_time_is_an_empty_408(http: HttpPeer) -> None:
    """The SDK retries exactly this status."""
    methods: Any = recording.RecordingServerMethods()
    methods.outcome = DeviceTimeout()
    http.api.api.server_methods = methods
    status, _, body = http.post("/api/v1/tok/rpc", b'{"method":"m"}')
    assert (status, body) == (408, b"")


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [("telemetry", b"[1,"), ("attributes", b"[]"), ("claim", b"[]"), ("rpc", b"{}"), ("rpc", b"nonsense{")],
)
def test_a_parse_error_yields_its_message(http: HttpPeer, path: str, body: bytes) -> None:
    """400 with the message in the error object, where ThingsBoard has 500 and plain text (H2)."""
    status, headers, answer = http.post(f"/api/v1/tok/{path}", body)
    error = json.loads(answer)
    assert (status, headers["content-type"], error["status"]) == (400, "application/json", 400)
    assert error["message"]


def test_another_failure_has_its_own_status_and_when_to_come_back(http: HttpPeer) -> None:
    """503 and Retry-After, where ThingsBoard has an empty 500 (H2)."""
    claims: Any = recording.RecordingClaims()
    claims.outcome = Unavailable(retry_after_s=1.2)
    http.api.api.claims = claims
    status, headers, _ = http.post("/api/v1/tok/claim", b"")
    assert (status, headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "telemetry"), ("POST", "attributes"), ("POST", "claim"), ("POST", "rpc"), ("POST", "rpc/1"),
        ("GET", "attributes"), ("GET", "rpc"), ("GET", "attributes/updates"), ("GET", "firmware?title=t&version=v"),
        ("GET", "software?title=t&version=v"),
    ],
)  # fmt: skip
def test_an_unknown_token_is_an_empty_401_everywhere(http: HttpPeer, method: str, path: str) -> None:
    """Not 404, and nothing that tells more."""
    status, headers, body = http.get(f"/api/v1/nobody/{path}", "Content-Length: 0\r\n" * (method == "POST"), method)
    assert (status, body, "content-type" in headers) == (401, b"", False)


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path", ["provision", "tok/telemetry", "tok/attributes", "tok/rpc", "tok/rpc/1", "tok/attributes/updates",
             "tok/firmware"],
)  # fmt: skip
def test_other_methods_are_405(http: HttpPeer, method: str, path: str) -> None:
    """HEAD too; what would be allowed is said."""
    status, headers, _ = http.get(f"/api/v1/{path}", "Content-Length: 0\r\n", method)
    assert status == 405
    assert set(headers["allow"].split(", ")) <= {"GET", "POST"}


@pytest.mark.parametrize("path", ["telemetry", "attributes", "claim", "rpc", "rpc/3"])
def test_a_body_above_the_limit_is_413(http: HttpPeer, path: str) -> None:
    """65,536 bytes are taken, one more is not."""
    status, _, body = http.post(f"/api/v1/tok/{path}", b" " * 65_537)
    assert (status, json.loads(body)["status"]) == (413, 413)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "telemetry", b'{"a":1}'), ("POST", "attributes", b'{"a":1}'), ("POST", "claim", b""),
        ("POST", "rpc", b'{"method":"m"}'), ("POST", "rpc/1", b"1"), ("GET", "attributes", b""), ("GET", "rpc", b""),
        ("GET", "attributes/updates", b""), ("GET", "firmware?title=t&version=v", b""),
    ],
)  # fmt: skip
def test_a_spent_ration_is_429_with_the_time_to_wait(http: HttpPeer, method: str, path: str, body: bytes) -> None:
    """On every request of a device; nothing of it is done."""
    rates: Any = recording.EmptyRates()
    http.api.api.rates = rates
    http.send(f"{method} /api/v1/tok/{path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    (answer,) = http.responses()
    assert (answer[0], answer[1]["retry-after"]) == (429, "7")
    assert stored(http, Scope.CLIENT) == {}


def test_each_request_shows_that_the_device_is_there(http: HttpPeer) -> None:
    """Presence hears of good requests and of malformed ones, not of those that nobody signed."""
    presence: Any = recording.RecordingPresence()
    http.api.api.presence = presence
    http.post("/api/v1/tok/telemetry", b"{}")
    http.post("/api/v1/tok/attributes", b"[")
    http.get("/api/v1/tok/attributes")
    http.post("/api/v1/nobody/telemetry", b"{}")
    assert presence.devices == [device_id(http)] * 3


# -- connections ----------------------------------------------------------------------------------


def test_the_front_serves_a_device_that_does_everything(sqlite_store: StoreUnderTest) -> None:
    """Reading attributes, replying, calling and claiming do not cost it the connection's short cut."""
    sqlite_store.add_device("dev", sqlite_store.add_profile(), AccessToken("tok"))
    http = HttpPeer(ApiUnderTest(sqlite_store), is_fast=True)
    parts: Any = http.api.api
    parts.rpc, parts.claims, parts.server_methods = (
        recording.RecordingRpc(), recording.RecordingClaims(), recording.RecordingServerMethods(),
    )  # fmt: skip
    try:
        for path in ("telemetry", "attributes", "claim", "rpc/1"):
            assert http.post(f"/api/v1/tok/{path}", b"{}")[0] == 200
        assert http.post("/api/v1/tok/rpc", b'{"method":"m"}')[0] == 200
        assert http.get("/api/v1/tok/attributes")[0] == 200
        assert isinstance(http.transport.protocol, Front)
    finally:
        http.close()


@pytest.mark.parametrize("request_line", ["GET /api/v1/tok/attributes", "POST /api/v1/tok/telemetry"])
def test_a_request_without_a_body_may_close_its_connection(http: HttpPeer, request_line: str) -> None:
    """The answer says so, and nothing behind it is served."""
    head = f"{request_line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
    http.send(head + b"POST /api/v1/tok/telemetry HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}')
    (answer,) = http.responses()
    assert (answer[1]["connection"], http.transport.disconnecting) == ("close", True)
    one = device_id(http)
    assert http.api.store.read(lambda tx: tx.latest(one)) == {}


# -- provisioning ---------------------------------------------------------------------------------


def _provision(http: HttpPeer, profile: str, **members: Any) -> dict[str, Any]:
    request = {"provisionDeviceKey": f"{profile}-key", "provisionDeviceSecret": f"{profile}-secret", **members}
    status, _, body = http.post("/api/v1/provision", json.dumps(request).encode())
    assert status == 200
    answer: dict[str, Any] = json.loads(body)
    return answer


def test_a_pre_provisioned_device_gets_its_own_credentials_once(http: HttpPeer) -> None:
    """SUCCESS marks it provisioned; again, or with any other state of an operator's, it is FAILURE (P20)."""
    store = http.api.store
    profile = store.add_profile("check", strategy=ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES)
    store.add_device("pre", profile, AccessToken("own-token"))
    answer = _provision(http, "check", deviceName="pre")
    assert (answer["status"], answer["credentialsValue"]) == ("SUCCESS", "own-token")
    one = device_id(http, "pre")
    (state,) = store.read(lambda tx: tx.attributes(one, Scope.SERVER, [PROVISION_STATE]))
    assert state.value == "provisioned"
    assert _provision(http, "check", deviceName="pre")["status"] == "FAILURE"
    store.run(lambda tx: tx.put_attributes(one, Scope.SERVER, {PROVISION_STATE: "paused"}, now_ms=2))
    assert _provision(http, "check", deviceName="pre")["status"] == "FAILURE"


def test_a_new_device_can_use_what_it_was_given(http: HttpPeer) -> None:
    """Its credentials open the device API; `gateway` is remembered; DISABLED knows nobody (P21)."""
    answer = _provision(http, "sensor", deviceName="new", gateway=True)
    assert answer["status"] == "SUCCESS"
    assert http.post(f"/api/v1/{answer['credentialsValue']}/telemetry", b'{"a":1}')[0] == 200
    assert http.api.store.read(lambda tx: tx.device_by_name(1, "new")).is_gateway
    http.api.store.add_profile("off", strategy=ProvisionStrategy.DISABLED)
    assert _provision(http, "off", deviceName="x")["status"] == "NOT_FOUND"
