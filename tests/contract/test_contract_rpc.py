"""Commands to devices and calls of devices (R rows of section 10), with the core as it comes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.contract.drivers import Driver
from tests.contract.gateways import peer, until
from tests.contract.operators import Later, command
from tests.support.server import CoreProcess

MQTT_ONLY = pytest.mark.parametrize("transport", ["mqtt3", "mqtt5"])
WAYS = ("oneway", "twoway")
PREFIXES = {"/api/rpc": 504, "/api/plugins/rpc": 409}
FLAVOURS = [("v1/devices/me/rpc/request/", "v1/devices/me/rpc/response/"), ("v2/r/req/", "v2/r/res/"),
            ("v2/r/req/j/", "v2/r/res/j/")]  # fmt: skip


def post(core: CoreProcess, path: str, body: dict[str, Any]) -> requests.Response:
    return requests.post(f"{core.http}{path}", json=body, headers={"X-Authorization": f"Bearer {core.jwt}"}, timeout=30)


def test_a_device_that_was_never_there_or_has_left_is_offline(
    driver: Driver, core: CoreProcess, token: str, name: str
) -> None:
    """504 at once, 409 under the older prefix; the message says how to have the command wait (R1)."""
    device_id = core.device(name)["id"]["id"]

    def assert_offline() -> None:
        for (prefix, status), way in product(PREFIXES.items(), WAYS):
            answer = post(core, f"{prefix}/{way}/{device_id}", {"method": "setGpio"})
            assert (answer.status_code, answer.json()["status"]) == (status, status)
            assert "persistent" in answer.json()["message"]

    assert_offline()
    with driver.device(token) as device:
        device.listen("rpc")
        later = Later(core, name, "oneway")
        device.heard()
        assert later.answer().status_code == 200
    until(lambda: command(core, name, "oneway").status_code == 504)  # the core may read the end a little later
    assert_offline()


@pytest.mark.parametrize("transport", ["http-front", "http-klein"])
def test_an_unknown_device_is_404_with_a_text(core: CoreProcess) -> None:
    """ThingsBoard's, word for word (R1)."""
    for prefix, way in product(PREFIXES, WAYS):
        answer = post(core, f"{prefix}/{way}/{uuid4()}", {"method": "setGpio"})
        assert (answer.status_code, answer.text) == (404, "Device with requested id wasn't found!")


@MQTT_ONLY
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize(("request_topic", "_reply_topic"), FLAVOURS)
def test_a_one_way_command_is_exactly_method_and_params(
    core: CoreProcess, token: str, name: str, transport: str, qos: int, request_topic: str, _reply_topic: str
) -> None:
    """On the topic and with the QoS of the subscription; REST is 200 with an empty body (R2)."""
    with peer(core, token, transport) as device:
        device.subscribe(f"{request_topic}+", qos)
        later = Later(core, name, "oneway", params={"pin": "23", "value": 1})
        message = device.heard()
        answer = later.answer()
    assert message.payload == b'{"method":"setGpio","params":{"pin":"23","value":1}}'
    number = message.topic.removeprefix(request_topic)
    assert number.isdecimal() and message.qos == qos
    assert (answer.status_code, answer.content) == (200, b"")


@MQTT_ONLY
def test_a_one_way_command_of_qos_1_is_answered_when_it_is_acknowledged(
    core: CoreProcess, token: str, name: str, transport: str
) -> None:
    """And not before (R2)."""
    with peer(core, token, transport, acknowledges=False) as device:
        device.subscribe("v1/devices/me/rpc/request/+")
        later = Later(core, name, "oneway")
        message = device.heard()
        later.join(0.2)
        assert later.is_alive()
        device.acknowledge(message)
        assert later.answer().status_code == 200


def test_commands_and_replies_over_any_transport(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """Exactly method and params, null where REST was given none (R2, O4); the reply text is the REST body, empty for
    empty (R3, O4)."""
    with driver.device(token) as device:
        device.listen("rpc")
        for params in ({"pin": "23", "value": 1}, "text", None):
            later = Later(core, name, "oneway", params=params)
            heard = device.heard()
            number = heard.pop("id")
            assert str(number).isdecimal() and heard == {"method": "setGpio", "params": params}
            answer = later.answer()
            assert (answer.status_code, answer.content) == (200, b"")
        for text in ('{"value1":"A","value2":[1.5,null]}', "42", '"text"', "1E+400", ""):
            later = Later(core, name, "twoway")
            device.reply(device.heard()["id"], text.encode())
            answer = later.answer()
            assert (answer.status_code, answer.text) == (200, text)


@MQTT_ONLY
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize(("request_topic", "reply_topic"), FLAVOURS)
def test_a_reply_comes_by_the_topic_of_its_command(
    core: CoreProcess, token: str, name: str, transport: str, qos: int, request_topic: str, reply_topic: str
) -> None:
    """Whatever the QoS of the command was (R3)."""
    with peer(core, token, transport) as device:
        device.subscribe(f"{request_topic}+", qos)
        later = Later(core, name, "twoway")
        message = device.heard()
        assert message.qos == qos
        assert device.publish(reply_topic + message.topic.removeprefix(request_topic), {"value1": "A"}) == 0
        assert later.answer().text == '{"value1":"A"}'


def test_ten_commands_wait_until_the_device_is_back(driver: Driver, core: CoreProcess, token: str, name: str) -> None:
    """REST tells their ids at once; they arrive in order, one-way and two-way ones (R5), and what the device answers
    is kept with them (R8)."""
    with driver.device(token) as device:
        device.post("attributes", {"was": "here"})
    answers = [command(core, name, WAYS[n % 2], persistent=True, params=n) for n in range(10)]
    assert {(answer.status_code, *answer.json()) for answer in answers} == {(200, "rpcId")}
    paths = [f"/api/rpc/persistent/{answer.json()['rpcId']}" for answer in answers]
    waiting = [core.rest.get(path) for path in paths]
    assert [(one["status"], one["response"]) for one in waiting] == [("QUEUED", None)] * 10
    with driver.device(token) as device:
        device.listen("rpc")
        for number in range(10):
            heard = device.heard()
            assert (heard["method"], heard["params"]) == ("setGpio", number)
            if number % 2:
                device.reply(heard["id"], {"n": number})
        for number, path in enumerate(paths):
            until(lambda path=path: core.rest.get(path)["status"] == "SUCCESSFUL")
            assert core.rest.get(path)["response"] == ({"n": number} if number % 2 else None)


class Hook(BaseHTTPRequestHandler):
    """Answers as a rule chain would: with what it was asked."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"echo": asked["params"], "of": asked["deviceName"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests print nothing."""


@pytest.fixture(scope="module")
def hook() -> Iterator[str]:
    """Its URL."""
    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_call_of_the_device_is_answered_by_what_an_operator_has_bound(
    driver: Driver, core: CoreProcess, token: str, name: str, hook: str
) -> None:
    """Params and name reach the webhook, its JSON the device (R8)."""
    core.rest.post("/api/serverMethods", {"method": f"ask-{name}", "url": hook})
    with driver.device(token) as device:
        assert device.call(f"ask-{name}", {"a": [1]}) == {"echo": {"a": [1]}, "of": name}
