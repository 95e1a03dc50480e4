"""What devices say and hear: bodies, HTTP heads, CoAP messages, the file of credentials."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from cloud_core.simulator import coap
from cloud_core.simulator.bodies import NO_ANSWER, Granted, Refused, Secrets, read_answer, reply, report
from cloud_core.simulator.http import read_head
from cloud_core.simulator.keeping import Keeping, KeepingError, load, prepare
from cloud_core.simulator.plan import NO_FAULT, DevicePlan, Fault, Kind, Transport
from cloud_core.simulator.target import TargetRefused, address_of, is_private
from shared.credentials import AccessToken, MqttBasic, X509Certificate
from shared.errors import ProvisionStatus, RateLimited
from shared.messages import ProvisionResponse
from shared.payloads import parse_provision_request, parse_telemetry, refusal_response, render_provision_response


def device(kind: Kind = Kind.TOKEN, faults: Fault = NO_FAULT) -> DevicePlan:
    return DevicePlan(6, "sim-1-0000007", Transport.MQTT, kind, faults, 0.0)


@pytest.mark.parametrize(
    "credentials", [AccessToken("t"), MqttBasic("c", "u", "p"), MqttBasic("c"), X509Certificate("MIIB")]
)
def test_credentials_are_read_as_the_core_writes_them(credentials: AccessToken | MqttBasic | X509Certificate) -> None:
    """Every kind, out of the core's own rendering."""
    response = ProvisionResponse(status=ProvisionStatus.SUCCESS, credentials=credentials, certificate_chain="PEM")
    answer = read_answer(render_provision_response(response))
    assert isinstance(answer, Granted) and answer.credentials == credentials


def test_a_refusal_tells_why_and_how_long_to_wait() -> None:
    """`reason` and `retryAfter`, out of the core's own rendering."""
    body = render_provision_response(refusal_response(RateLimited(retry_after_s=4.2)))
    assert read_answer(body) == Refused("RATE_LIMITED", 5.0)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"status":"SUCCESS"}', b'{"status":"SUCCESS","credentialsType":"X","credentialsValue":"t"}']
)
def test_what_is_no_answer_is_asked_for_again(body: bytes) -> None:
    """Nothing is taken for credentials that is none."""
    assert read_answer(body) == Refused(NO_ANSWER)


@pytest.mark.parametrize("kind", [Kind.TOKEN, Kind.OWN_TOKEN, Kind.BASIC])
def test_a_device_asks_with_the_same_request_each_time(kind: Kind) -> None:
    """So that the core can give its answer again; the request is one that the core understands."""
    secrets = Secrets("key", "secret")
    assert secrets.request(device(kind)) == Secrets("key", "secret").request(device(kind))
    request = parse_provision_request(secrets.request(device(kind)))
    assert (request.device_name, request.provision_secret) == ("sim-1-0000007", "secret")
    assert request.brings_credentials is (kind is not Kind.TOKEN)


def test_a_wrong_secret_is_wrong_and_nothing_else() -> None:
    """It tells nothing of the right one, and credentials of a device are nobody's guess without it."""
    request = parse_provision_request(Secrets("key", "secret").request(device(faults=Fault.WRONG_SECRET)))
    assert request.provision_key == "key" and "secret" not in request.provision_secret
    one, other = (Secrets("key", text).own_credentials(device(Kind.OWN_TOKEN)) for text in ("secret", "other"))
    assert one != other


def test_reports_and_replies_are_well_formed() -> None:
    """As the core reads them."""
    assert parse_telemetry(report(3, 16), received_ms=1)[0][1] == {"temperature": 16.3, "uptime": 90, "n": 3}
    assert json.loads(reply('"')) == {"done": True, "method": '"'}


def test_an_http_head_is_read() -> None:
    """Status and headers, whatever their case."""
    head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\ncontent-length: 12"
    assert read_head(head) == (429, {"retry-after": "7", "content-length": "12"})
    with pytest.raises(ValueError, match="SSH"):
        read_head(b"SSH-2.0 x y")


@pytest.mark.parametrize("length", [1, 12, 13, 268, 269, 1_000])
def test_a_coap_request_is_read_back(length: int) -> None:
    """Options of every length, the payload behind them."""
    data = coap.encode_request(coap.POST, 0x1234, 0xA1B2C3D4, ["api", "v" * length], b"body", observe=True)
    message = coap.read_message(data)
    assert message is not None
    assert (message.kind, message.code, message.message_id, message.token) == (coap.CON, coap.POST, 0x1234, 0xA1B2C3D4)
    assert message.options[coap.URI_PATH] == b"v" * length
    assert (message.options[coap.OBSERVE], message.payload) == (b"", b"body")


@pytest.mark.parametrize(
    "data", [b"", b"\x40", b"\xff" * 9, b"\x44\x45\0\1abcd\xf0", b"\x44\x45\0\1ab", b"\x44\x45\0\1abcd\xd0"]
)
def test_what_is_no_coap_is_left_alone(data: bytes) -> None:
    """Truncated, reserved, of another version."""
    assert coap.read_message(data) is None


def test_credentials_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    """Mode 0600; what several processes have written comes back, the last of a name."""
    path = tmp_path / "fleet"
    prepare(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    one, other = Keeping(path), Keeping(path)
    one.keep("a", AccessToken("old"), "")
    other.keep("b", MqttBasic("c", "u", "p"), "")
    one.keep("a", AccessToken("new"), "")
    other.keep("c", X509Certificate("MIIB"), "PEM")
    one.close()
    other.close()
    prepare(path)
    assert load(path) == {
        "a": (AccessToken("new"), ""), "b": (MqttBasic("c", "u", "p"), ""), "c": (X509Certificate("MIIB"), "PEM"),
    }  # fmt: skip


def test_a_cut_line_costs_one_device(tmp_path: Path) -> None:
    """After a power cut the rest of the file is good."""
    path = tmp_path / "fleet"
    prepare(path)
    keeping = Keeping(path)
    keeping.keep("a", AccessToken("t"), "")
    keeping.close()
    with path.open("ab") as file:
        file.write(b'{"name":"b","ty')
    assert load(path) == {"a": (AccessToken("t"), "")}


@pytest.mark.parametrize(
    "content", ["hello\n", '{"format":"other"}\n', '{"format":"muster-simulator-1"}\n{"name":1}\n']
)
def test_a_foreign_file_is_not_taken_for_credentials(tmp_path: Path, content: str) -> None:
    """The refusal says so, and tells nothing of what is in it."""
    path = tmp_path / "fleet"
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(KeepingError, match=r"name another"):
        load(path)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    path = tmp_path / "fleet"
    prepare(path)
    path.chmod(0o644)
    with pytest.raises(KeepingError, match="chmod 600"):
        load(path)


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("10.1.2.3", True), ("172.31.0.1", True), ("192.168.1.1", True), ("::1", True),
     ("fd00::1", True), ("::ffff:10.0.0.1", True), ("8.8.8.8", False), ("172.32.0.1", False),
     ("2001:4860::1", False), ("0.0.0.0", False), ("::ffff:8.8.8.8", False)],
)  # fmt: skip
def test_private_networks_are_known(address: str, expected: bool) -> None:
    """Everybody else's are not loaded without a word more."""
    assert is_private(address) is expected


def test_a_foreign_host_is_loaded_only_when_somebody_says_so() -> None:
    """The refusal names the host and the option."""
    with pytest.raises(TargetRefused, match=r"8\.8\.8\.8.*--yes-load-that-host"):
        address_of("8.8.8.8", is_allowed=False)
    assert address_of("8.8.8.8", is_allowed=True) == "8.8.8.8"
    assert address_of("127.0.0.1", is_allowed=False) == "127.0.0.1"
