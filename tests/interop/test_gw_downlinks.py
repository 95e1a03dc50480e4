"""A whole gateway between a real core and a sub-device: commands, attributes, renames and deletions reach it."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
import requests

from tests.support.gateway_process import GatewayProcess
from tests.support.server import CoreProcess

CONFIG = """
[core]
url = "mqtt://127.0.0.1:{core}"
provision = {{ key = "{provisionDeviceKey}", secret = "{provisionDeviceSecret}", name = "gw-downlinks" }}
backoff_min = 0.2
backoff_max = 0.5

[local]
port = 0

[[mqtt]]
name = "hall"
listen = "127.0.0.1:{south}"
anonymous = true
  [[mqtt.map]]
  topic = "in/{{device}}"
  device = "{{device}}"
  type = "pump"
  telemetry = ["$.* -> {{key}}"]
  shared = {{ publish = "set/{{device}}/{{key}}" }}
  rpc.setSpeed = {{ publish = "cmd/{{device}}", body = "$.params", reply = "ack/{{device}}", timeout = "5 s" }}
"""


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def until(holds: Callable[[], Any], within_s: float = 15.0) -> Any:
    """What it returned when it held."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


class Pump:
    """A sub-device that answers commands."""

    def __init__(self, port: int, name: str) -> None:
        self.name = name
        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name)
        subscribed: queue.Queue[int] = queue.Queue()
        self.client.on_subscribe = lambda c, d, mid, codes, p: subscribed.put(mid)
        self.client.on_message = lambda c, d, message: self._received(message)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        for topic in (f"set/{name}/+", f"cmd/{name}"):
            self.client.subscribe(topic, 1)
            subscribed.get(timeout=10)

    def _received(self, message: Any) -> None:
        body = json.loads(message.payload)
        self.heard.put((message.topic, body))
        if message.topic.startswith("cmd/"):
            self.client.publish(f"ack/{self.name}", json.dumps({"done": body}), 1)

    def say(self, **values: Any) -> None:
        self.client.publish(f"in/{self.name}", json.dumps(values), 1).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Plant:
    """Core, gateway and what an operator does."""

    def __init__(self, core: CoreProcess, gateway: GatewayProcess, south: int) -> None:
        self.core = core
        self.gateway = gateway
        self.south = south

    def id_of(self, name: str) -> str:
        identifier: str = self.core.device(name)["id"]["id"]
        return identifier

    def call(self, name: str, method: str, params: Any) -> requests.Response:
        return requests.post(
            f"{self.core.http}/api/rpc/twoway/{self.id_of(name)}", json={"method": method, "params": params},
            headers={"X-Authorization": f"Bearer {self.core.jwt}"}, timeout=30,
        )  # fmt: skip

    def has(self, name: str, **values: Any) -> bool:
        try:
            return values.items() <= self.core.latest(name).items()
        except Exception:  # not registered yet
            return False


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    folder = tmp_path_factory.mktemp("downlinks")
    core, south = CoreProcess(folder / "core").start(), free_port()
    profile = core.make_profile("of-the-gateway")
    gateway = GatewayProcess(folder / "gateway", CONFIG.format(core=core.mqtt_port, south=south, **profile))
    try:
        yield Plant(core, gateway.start(), south)
    finally:
        gateway.stop()
        core.stop()


@pytest.fixture
def pump(plant: Plant, request: pytest.FixtureRequest) -> Iterator[Pump]:
    """A registered sub-device of its own for each test."""
    made = Pump(plant.south, f"pump-{abs(hash(request.node.name)) % 100_000}")
    made.say(speed=1)
    until(lambda: plant.has(made.name, speed=1))
    yield made
    made.close()


def test_a_sub_device_is_registered_with_its_type_and_its_relation(plant: Plant, pump: Pump) -> None:
    """Before its first data; the gateway itself came by key and secret and is marked as one."""
    assert plant.core.device(pump.name)["type"] == "pump"
    assert plant.core.device("gw-downlinks")["additionalInfo"]["gateway"] is True


def test_a_command_reaches_the_device_and_its_reply_the_caller(plant: Plant, pump: Pump) -> None:
    """Within the time that people notice."""
    began = time.monotonic()
    answer = plant.call(pump.name, "setSpeed", {"rpm": 900})
    assert (answer.status_code, answer.json()) == (200, {"done": {"rpm": 900}})
    assert time.monotonic() - began < 2
    assert pump.heard.get(timeout=5) == (f"cmd/{pump.name}", {"rpm": 900})


def test_a_method_that_nobody_maps_is_answered_at_once(plant: Plant, pump: Pump) -> None:
    """With the names of those that are."""
    answer = plant.call(pump.name, "explode", {}).json()
    assert answer["success"] is False and "setSpeed" in answer["error"]


def test_changes_of_shared_attributes_are_written(plant: Plant, pump: Pump) -> None:
    """Each key on its topic."""
    path = f"/api/plugins/telemetry/DEVICE/{plant.id_of(pump.name)}/SHARED_SCOPE"
    plant.core.rest.post(path, {"limit": 7})
    assert pump.heard.get(timeout=10) == (f"set/{pump.name}/limit", 7)


def test_a_rename_at_the_core_is_followed(plant: Plant, pump: Pump) -> None:
    """Data go on under the new name, and commands to it arrive."""
    device = plant.core.device(pump.name)
    plant.core.rest.post("/api/device", device | {"name": f"{pump.name}-renamed"})
    until(lambda: any(one["upstreamName"] == f"{pump.name}-renamed" for one in plant.gateway.ask("devices")))
    pump.say(speed=2)
    until(lambda: plant.has(f"{pump.name}-renamed", speed=2))
    assert plant.call(f"{pump.name}-renamed", "setSpeed", 5).json() == {"done": 5}
    assert not plant.has(pump.name, speed=2)


def test_a_deletion_at_the_core_holds_until_the_device_speaks(plant: Plant, pump: Pump) -> None:
    """Then it is registered anew, with its type."""
    first = plant.id_of(pump.name)
    plant.core.rest.delete(f"/api/device/{first}")
    until(lambda: all(one["state"] != "online" for one in plant.gateway.ask("devices") if one["name"] == pump.name))
    pump.say(speed=3)
    until(lambda: plant.has(pump.name, speed=3))
    assert plant.id_of(pump.name) != first and plant.core.device(pump.name)["type"] == "pump"


def test_the_gateway_answers_for_itself(plant: Plant, pump: Pump) -> None:
    """What ThingsBoard's gateway answers, too."""
    assert plant.call("gw-downlinks", "gateway_ping", {}).json() == {"success": True, "resp": "pong"}
    assert pump.name in plant.call("gw-downlinks", "gateway_devices", {}).json()["resp"]
    refused = plant.call("gw-downlinks", "sendCommand", {"command": "id"}).json()
    assert refused["success"] is False


def test_a_quiet_device_is_reachable_soon_after_the_core_is_back(plant: Plant, pump: Pump) -> None:
    """Without having said a word since."""
    plant.core.kill()
    plant.core.start()
    answer = until(lambda: (one := plant.call(pump.name, "setSpeed", 1)).status_code == 200 and one, within_s=10)
    assert answer.json() == {"done": 1}


def test_a_restart_on_order_keeps_everything(plant: Plant, pump: Pump) -> None:
    """`gateway_restart`: the same devices are reachable afterwards."""
    assert plant.call("gw-downlinks", "gateway_restart", {}).json() == {"success": True}
    time.sleep(1)
    until(lambda: plant.call("gw-downlinks", "gateway_ping", {}).status_code == 200, within_s=20)
    pump.close()
    again = Pump(plant.south, pump.name)
    assert until(lambda: (one := plant.call(pump.name, "setSpeed", 4)).status_code == 200 and one).json() == {"done": 4}
    again.close()
