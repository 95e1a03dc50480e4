"""Unmodified third-party clients against a real core over real sockets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import paho.mqtt.client as paho
import pytest
import requests

from tests.conftest import need
from tests.support.server import CoreProcess

WAIT_S = 20.0
pytestmark = pytest.mark.filterwarnings("default")


def request_for(profile: dict[str, str], name: str, **members: Any) -> dict[str, Any]:
    return {"deviceName": name, **profile, **members}


def http_token(core: CoreProcess, profile: dict[str, str], name: str) -> str:
    answer = requests.post(f"{core.http}/api/v1/provision", json=request_for(profile, name), timeout=WAIT_S).json()
    token: str = answer["credentialsValue"]
    return token


def run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, input=text, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("protocol", [paho.MQTTv31, paho.MQTTv311, paho.MQTTv5])
def test_paho_provisions_logs_in_and_sends(core: CoreProcess, profile: dict[str, str], protocol: int) -> None:
    """All three protocol versions, the whole dialogue."""
    name = f"paho-{protocol}"
    answers: list[dict[str, Any]] = []
    arrived = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=protocol, client_id="x")  # type: ignore[arg-type]
    client.username_pw_set("provision")
    client.on_connect = lambda *_: client.subscribe("/provision/response", 1)
    client.on_subscribe = lambda *_: client.publish("/provision/request", json.dumps(request_for(profile, name)), 1)

    def on_message(_client: Any, _data: Any, message: Any) -> None:
        answers.append(json.loads(message.payload))
        arrived.set()

    client.on_message = on_message
    client.connect("127.0.0.1", core.mqtt_port)
    client.loop_start()
    assert arrived.wait(WAIT_S)
    client.disconnect()
    client.loop_stop()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=protocol, client_id="x")  # type: ignore[arg-type]
    client.username_pw_set(answers[0]["credentialsValue"])
    client.connect("127.0.0.1", core.mqtt_port)
    client.loop_start()
    for qos in (0, 1, 2):
        message = client.publish("v1/devices/me/telemetry", json.dumps({f"q{qos}": qos}), qos)
        message.wait_for_publish(WAIT_S)
    client.disconnect()
    client.loop_stop()
    assert core.latest(name) == {"q0": 0, "q1": 1, "q2": 2}


def test_the_sdks_provisioning_helper_works(core: CoreProcess, profile: dict[str, str]) -> None:
    """tb-mqtt-client's `provision()` sends nulls for unset members; they count as absent."""
    from tb_device_mqtt import TBDeviceMqttClient

    answer = TBDeviceMqttClient.provision(
        "127.0.0.1",
        profile["provisionDeviceKey"],
        profile["provisionDeviceSecret"],
        device_name="sdk",
        port=core.mqtt_port,
    )
    assert len(answer["credentialsValue"] if isinstance(answer, dict) else answer) == 20


def test_the_specifications_mqtt_program_works(core: CoreProcess, profile: dict[str, str]) -> None:
    """Anonymous connect; then a second client that publishes without running its loop and ends at once."""
    answers: list[dict[str, Any]] = []

    def on_connect(client: Any, *_: Any) -> None:
        client.subscribe("/provision/response")
        client.publish("/provision/request", json.dumps(request_for(profile, "SN-001234")))

    def on_message(client: Any, _data: Any, message: Any) -> None:
        answers.append(json.loads(message.payload))
        client.disconnect()

    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_connect = on_connect
    client.on_message = on_message
    client.connect("127.0.0.1", core.mqtt_port)
    client.loop_forever()
    second = paho.Client(paho.CallbackAPIVersion.VERSION2)
    second.username_pw_set(answers[0]["credentialsValue"])
    second.connect("127.0.0.1", core.mqtt_port)
    second.publish("v1/devices/me/telemetry", json.dumps({"temperature": 25}))
    del second  # the program ends: the socket closes without DISCONNECT
    for _ in range(100):
        if core.latest("SN-001234") == {"temperature": 25}:
            return
        threading.Event().wait(0.05)
    assert core.latest("SN-001234") == {"temperature": 25}


def test_the_specifications_http_program_works(core: CoreProcess, profile: dict[str, str]) -> None:
    """Provision, then telemetry by the token, with `requests`."""
    token = http_token(core, profile, "SN-005678")
    answer = requests.post(f"{core.http}/api/v1/{token}/telemetry", json={"temperature": 25}, timeout=WAIT_S)
    assert (answer.status_code, answer.content) == (200, b"")
    assert core.latest("SN-005678") == {"temperature": 25}


def test_curl_with_the_most_copied_command(core: CoreProcess, profile: dict[str, str]) -> None:
    """`--data "{temperature:25}"`: an unquoted key."""
    curl = need("curl", "curl")
    token = http_token(core, profile, "curl")
    url = f"{core.http}/api/v1/{token}/telemetry"
    run(
        curl,
        "-sS",
        "--fail",
        "-X",
        "POST",
        url,
        "--header",
        "Content-Type:application/json",
        "--data",
        "{temperature:25}",
    )
    assert core.latest("curl") == {"temperature": 25}


def test_mosquitto_pub_with_the_most_copied_command(core: CoreProcess, profile: dict[str, str]) -> None:
    """QoS 1, token as user name, unquoted key."""
    publish = need("mosquitto_pub", "mosquitto-clients")
    token = http_token(core, profile, "mosquitto")
    run(
        publish, "-q", "1", "-h", "127.0.0.1", "-p", str(core.mqtt_port),
        "-t", "v1/devices/me/telemetry", "-u", token, "-m", "{temperature:25}",
    )  # fmt: skip
    assert core.latest("mosquitto") == {"temperature": 25}


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_rr_provisions(core: CoreProcess, profile: dict[str, str], version: str) -> None:
    """Request and response by one stock command."""
    request_response = need("mosquitto_rr", "mosquitto-clients")
    output = run(
        request_response, "-V", version, "-h", "127.0.0.1", "-p", str(core.mqtt_port), "-u", "provision",
        "-t", "/provision/request", "-e", "/provision/response", "-W", "10",
        "-m", json.dumps(request_for(profile, f"rr-{version}")),
    )  # fmt: skip
    assert json.loads(output)["status"] == "SUCCESS"


def test_coap_client_of_libcoap(core: CoreProcess, profile: dict[str, str]) -> None:
    """Provisioning and telemetry with the stock command."""
    coap_client = need("coap-client-notls", "libcoap3-bin")
    base = f"coap://127.0.0.1:{core.coap_port}/api/v1"
    output = run(
        coap_client, "-m", "post", "-t", "application/json", "-e", json.dumps(request_for(profile, "libcoap")),
        f"{base}/provision",
    )  # fmt: skip
    token = json.loads(output)["credentialsValue"]
    run(coap_client, "-m", "post", "-t", "application/json", "-e", "{temperature:25}", f"{base}/{token}/telemetry")
    assert core.latest("libcoap") == {"temperature": 25}


def test_aiocoap_client(core: CoreProcess, profile: dict[str, str]) -> None:
    """CON and NON, a refusal as 4.00 with the JSON body, an unknown token as 4.01."""
    import aiocoap

    async def post(context: Any, path: str, body: Any, kind: Any) -> Any:
        uri = f"coap://127.0.0.1:{core.coap_port}/api/v1/{path}"
        message = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=json.dumps(body).encode(), mtype=kind)
        return await asyncio.wait_for(context.request(message).response, WAIT_S)

    async def dialogue() -> None:
        context = await aiocoap.Context.create_client_context()
        try:
            for kind in (aiocoap.CON, aiocoap.NON):
                answer = await post(context, "provision", request_for(profile, f"aiocoap-{kind}"), kind)
                assert answer.code is aiocoap.CREATED
                token = json.loads(answer.payload)["credentialsValue"]
                assert (await post(context, f"{token}/telemetry", {"t": 1}, kind)).code is aiocoap.CREATED
                refused = await post(context, "provision", request_for(profile, f"aiocoap-{kind}"), kind)
                assert refused.code is aiocoap.BAD_REQUEST
                assert json.loads(refused.payload)["reason"] == "DEVICE_EXISTS"
                unknown = await post(context, "nobody/telemetry", {"t": 1}, kind)
                assert unknown.code is aiocoap.UNAUTHORIZED
        finally:
            await context.shutdown()

    with ThreadPoolExecutor(1) as pool:  # the test's own thread has a running loop
        pool.submit(asyncio.run, dialogue()).result(WAIT_S)


def test_mosquitto_rr_calls_the_server_and_asks_for_attributes(core: CoreProcess, profile: dict[str, str]) -> None:
    """It subscribes to the topic of the one answer that it waits for."""
    ask = need("mosquitto_rr", "mosquitto-clients")
    token = http_token(core, profile, "mosquitto-rr")
    common = (ask, "-h", "127.0.0.1", "-p", str(core.mqtt_port), "-u", token, "-q", "1", "-W", "10")
    rpc = ("-t", "v1/devices/me/rpc/request/1", "-e", "v1/devices/me/rpc/response/1", "-m", "{method:getSessionLimits}")
    assert json.loads(run(*common, *rpc))["maxInflightMessages"] == 100
    attributes = "v1/devices/me/attributes"
    asked = ("-t", f"{attributes}/request/7", "-e", f"{attributes}/response/7", "-m", "{sharedKeys:absent}")
    assert json.loads(run(*common, *asked)) == {}
