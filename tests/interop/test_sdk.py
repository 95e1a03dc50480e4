"""ThingsBoard's own Python SDK (tb-mqtt-client), unmodified: a device's whole life, and a gateway's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.operators import IMAGE, Later, assign_firmware, claim, make_customer
from tests.support.server import CoreProcess

pytestmark = pytest.mark.filterwarnings("default")
WAIT_S = 20.0


def until(condition: Callable[[], Any]) -> Any:
    """The first true value; for what the SDK's threads do in their own time."""
    for _ in range(int(WAIT_S / 0.05)):
        value = condition()
        if value:
            return value
        threading.Event().wait(0.05)
    raise AssertionError("waited in vain")


def provisioned(core: CoreProcess, profile: dict[str, str], name: str, *, gateway: bool = False) -> str:
    from tb_device_mqtt import TBDeviceMqttClient

    answer = TBDeviceMqttClient.provision(
        "127.0.0.1", profile["provisionDeviceKey"], profile["provisionDeviceSecret"],
        device_name=name, port=core.mqtt_port, gateway=gateway or None,
    )  # fmt: skip
    token: str = answer["credentialsValue"] if isinstance(answer, dict) else answer
    return token


@contextmanager
def device_client(core: CoreProcess, token: str, **options: Any) -> Iterator[Any]:
    from tb_device_mqtt import TBDeviceMqttClient

    client = TBDeviceMqttClient("127.0.0.1", core.mqtt_port, username=token, **options)
    client.connect()
    until(lambda: client.is_connected() and client.rate_limits_received)
    yield client
    client.disconnect()
    client.stop()


@contextmanager
def gateway_client(core: CoreProcess, token: str) -> Iterator[Any]:
    from tb_gateway_mqtt import TBGatewayMqttClient

    client = TBGatewayMqttClient("127.0.0.1", core.mqtt_port, username=token)
    client.connect()
    until(lambda: client.is_connected() and client.rate_limits_received)
    until(lambda: not client.get_subscriptions_in_progress())
    yield client
    client.disconnect()
    client.stop()


def path_of(core: CoreProcess, name: str) -> str:
    return f"/api/plugins/telemetry/DEVICE/{core.device(name)['id']['id']}"


def attributes(core: CoreProcess, name: str, scope: str) -> dict[str, Any]:
    return {one["key"]: one["value"] for one in core.rest.get(f"{path_of(core, name)}/values/attributes/{scope}")}


# --- device --------------------------------------------------------------------------------------


def test_a_device_sends_telemetry_and_attributes(core: CoreProcess, profile: dict[str, str]) -> None:
    """Provisioned by the SDK; each message acknowledged."""
    with device_client(core, provisioned(core, profile, "sdk-data")) as client:
        assert client.send_telemetry({"temperature": 41.9}).get() == 0
        assert client.send_telemetry([{"ts": 1_527_863_043_000, "values": {"old": 1}}]).get() == 0
        assert client.send_attributes({"firmware": "v1", "nested": {"a": [1]}}).get() == 0
    assert core.latest("sdk-data") == {"temperature": 41.9, "old": 1}
    assert attributes(core, "sdk-data", "CLIENT_SCOPE") == {"firmware": "v1", "nested": {"a": [1]}}


def test_a_device_requests_and_receives_attributes(core: CoreProcess, profile: dict[str, str]) -> None:
    """The answer to a request, changes and deletions by subscription."""
    token = provisioned(core, profile, "sdk-attributes")
    core.rest.post(f"{path_of(core, 'sdk-attributes')}/SHARED_SCOPE", {"limit": 5})
    answers: queue.Queue[Any] = queue.Queue()
    changes: queue.Queue[Any] = queue.Queue()
    with device_client(core, token) as client:
        client.send_attributes({"mine": True}).get()
        client.request_attributes(["mine"], ["limit"], callback=lambda content, error: answers.put((content, error)))
        assert answers.get(timeout=WAIT_S) == ({"client": {"mine": True}, "shared": {"limit": 5}}, None)
        client.subscribe_to_attribute("limit", lambda content, _error: changes.put(content))
        core.rest.post(f"{path_of(core, 'sdk-attributes')}/SHARED_SCOPE", {"limit": 6})
        assert changes.get(timeout=WAIT_S) == {"limit": 6}
        client.subscribe_to_all_attributes(lambda content, _error: changes.put(content))
        core.rest.delete(f"{path_of(core, 'sdk-attributes')}/SHARED_SCOPE", keys="limit")
        assert changes.get(timeout=WAIT_S) == {"deleted": ["limit"]}


def test_a_device_answers_and_makes_calls(core: CoreProcess, profile: dict[str, str]) -> None:
    """A two-way command from REST; a call to a method nobody has bound gets its error at once."""
    answers: queue.Queue[Any] = queue.Queue()
    with device_client(core, provisioned(core, profile, "sdk-rpc")) as client:
        client.set_server_side_rpc_request_handler(
            lambda number, content: client.send_rpc_reply(number, {"echo": content["params"]})
        )
        later = Later(core, "sdk-rpc", "twoway", params={"a": [1]})
        assert later.answer().json() == {"echo": {"a": [1]}}
        client.send_rpc_call("getCurrentTime", {}, lambda _id, content, _error: answers.put(content))
        assert "error" not in str(answers.get(timeout=WAIT_S))
        client.send_rpc_call("noSuchMethod", {}, lambda _id, content, _error: answers.put(content))
        assert "error" in answers.get(timeout=WAIT_S)


def test_a_device_is_claimed(core: CoreProcess, profile: dict[str, str]) -> None:
    """The SDK's `claim`, then the customer's."""
    user = make_customer(core, "sdk-claim")
    with device_client(core, provisioned(core, profile, "sdk-claim")) as client:
        assert client.claim("s3cret", 60_000).get() == 0
    assert claim(core, user, "sdk-claim", "s3cret")[0] == 200


@pytest.mark.parametrize("chunk_bytes", [0, 1_024])
def test_a_device_updates_its_firmware(
    core: CoreProcess, profile: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    """Whole or in chunks, checksum verified by the SDK, states reported as telemetry."""
    monkeypatch.chdir(tmp_path)  # the SDK stores the image under its title in the working directory
    name = f"sdk-firmware-{chunk_bytes}"
    token = provisioned(core, profile, name)
    title = assign_firmware(core, name)
    with device_client(core, token, chunk_size=chunk_bytes) as client:
        client.get_firmware_update()
        until(lambda: core.latest(name).get("fw_state") == "UPDATED")
    assert (tmp_path / title).read_bytes() == IMAGE
    latest = core.latest(name)
    assert (latest["current_fw_title"], str(latest["current_fw_version"])) == (title, "1.1")


# --- gateway -------------------------------------------------------------------------------------


def test_a_gateway_registers_and_speaks_for_sub_devices(core: CoreProcess, profile: dict[str, str]) -> None:
    """Connect with a type, telemetry, attributes; one relation from the gateway (G1, G2, G5)."""
    token = provisioned(core, profile, "sdk-gateway", gateway=True)
    with gateway_client(core, token) as client:
        assert client.gw_connect_device("sub-1", "thermostat").get() == 0
        assert client.gw_send_telemetry("sub-1", {"ts": 1_527_863_043_000, "values": {"t": 1}}).get() == 0
        assert client.gw_send_telemetry("sub-2", [{"t": 2}, {"h": 3}]).get() == 0
        assert client.gw_send_attributes("sub-1", {"serial": "x"}).get() == 0
        assert client.gw_disconnect_device("sub-1").get() == 0
    assert core.device("sub-1")["type"] == "thermostat"
    assert core.latest("sub-1") == {"t": 1} and core.latest("sub-2") == {"t": 2, "h": 3}
    assert attributes(core, "sub-1", "CLIENT_SCOPE") == {"serial": "x"}
    gateway = core.device("sdk-gateway")["id"]
    relations = core.rest.get("/api/relations", fromId=gateway["id"], fromType="DEVICE")
    assert sorted(one["type"] for one in relations) == ["Created", "Created"]


def test_a_gateway_asks_and_hears_for_sub_devices(core: CoreProcess, profile: dict[str, str]) -> None:
    """Attribute requests, pushes, commands and claims (G6, R4, M7, M9)."""
    answers: queue.Queue[Any] = queue.Queue()
    changes: queue.Queue[Any] = queue.Queue()
    user = make_customer(core, "sdk-sub-claim")
    with gateway_client(core, provisioned(core, profile, "sdk-gateway-2", gateway=True)) as client:
        client.gw_connect_device("sub-3").get()
        core.rest.post(f"{path_of(core, 'sub-3')}/SHARED_SCOPE", {"a": 1, "b": 2})
        client.gw_request_shared_attributes("sub-3", ["a"], lambda content, _error: answers.put(content))
        assert answers.get(timeout=WAIT_S) == {"id": 1, "device": "sub-3", "value": 1}
        client.gw_request_shared_attributes("sub-3", ["a", "b"], lambda content, _error: answers.put(content))
        assert answers.get(timeout=WAIT_S) == {"id": 2, "device": "sub-3", "values": {"a": 1, "b": 2}}
        client.gw_subscribe_to_all_device_attributes("sub-3", changes.put)
        core.rest.post(f"{path_of(core, 'sub-3')}/SHARED_SCOPE", {"a": 9})
        assert changes.get(timeout=WAIT_S) == {"device": "sub-3", "data": {"a": 9}}

        def obey(gateway: Any, content: Any) -> None:
            gateway.gw_send_rpc_reply(content["device"], content["data"]["id"], {"success": content["data"]["method"]})

        client.gw_set_server_side_rpc_request_handler(obey)
        assert Later(core, "sub-3", "twoway").answer().json() == {"success": "setGpio"}
        assert client.gw_claim("sub-3", "s3cret", 60_000).get() == 0
    assert claim(core, user, "sub-3", "s3cret")[0] == 200


# --- HTTP ----------------------------------------------------------------------------------------


def test_the_http_device_works(core: CoreProcess, profile: dict[str, str], tmp_path: Path) -> None:
    """`TBHTTPDevice`: provision, connection test, data, attributes, long polls."""
    from tb_device_http import TBHTTPDevice

    device = TBHTTPDevice.provision(
        core.http, "sdk-http", profile["provisionDeviceKey"], profile["provisionDeviceSecret"]
    )
    assert device.connect() is True
    device.send_telemetry({"t": 5}, queued=False)
    device.send_attributes({"kind": "http"})
    core.rest.post(f"{path_of(core, 'sdk-http')}/SHARED_SCOPE", {"limit": 5, "other": 6})
    assert device.request_attributes(client_keys=["kind"], shared_keys=["limit", "other"]) == {
        "client": {"kind": "http"}, "shared": {"limit": 5, "other": 6},
    }  # fmt: skip
    assert "error" in device.send_rpc("noSuchMethod")
    assert core.latest("sdk-http") == {"t": 5}
    changes: queue.Queue[Any] = queue.Queue()
    device.subscribe("attributes", changes.put)
    for number in range(100):  # between two polls a change is not kept
        core.rest.post(f"{path_of(core, 'sdk-http')}/SHARED_SCOPE", {"limit": number})
        try:
            assert set(changes.get(timeout=0.2)) == {"limit"}
            break
        except queue.Empty:
            continue
    else:
        raise AssertionError("no change arrived by long poll")
    device.unsubscribe("attributes")
    core.rest.post(f"{path_of(core, 'sdk-http')}/SHARED_SCOPE", {"limit": -1})
    requests.post(f"{core.http}/api/v1/{device.token}/telemetry", json={}, timeout=WAIT_S)
