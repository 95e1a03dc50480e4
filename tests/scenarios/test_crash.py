"""What was acknowledged survives SIGKILL; what races leaves one device."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import requests

from cloud_core.demo.clients import Endpoints, coap_post, mqtt_provision
from tests.support.server import CoreProcess

WAIT_S = 20.0
pytestmark = pytest.mark.filterwarnings("default")


class Storm:
    """Clients that provision and send until the core dies; remembers what was acknowledged."""

    def __init__(self, core: CoreProcess, profile: dict[str, str]) -> None:
        self._core = core
        self._profile = profile
        self.tokens: dict[str, str] = {}
        self.sent: dict[str, set[int]] = {}
        self.is_over = threading.Event()

    def http_client(self, number: int) -> None:
        session = requests.Session()
        turn = 0
        while not self.is_over.is_set():
            name = f"http-{number}-{turn}"
            turn += 1
            try:
                body = {"deviceName": name, **self._profile}
                answer = session.post(f"{self._core.device_http}/api/v1/provision", json=body, timeout=WAIT_S).json()
                self.tokens[name] = answer["credentialsValue"]
                for ts in range(1, 4):
                    url = f"{self._core.device_http}/api/v1/{self.tokens[name]}/telemetry"
                    if session.post(url, json={"ts": ts, "values": {"n": ts}}, timeout=WAIT_S).status_code == 200:
                        self.sent.setdefault(name, set()).add(ts)
            except (requests.RequestException, ValueError, KeyError):
                return  # the core is gone: what was not answered is not counted

    def mqtt_client(self, number: int, token: str) -> None:
        name = f"mqtt-{number}"
        acknowledged = self.sent.setdefault(name, set())
        pending: dict[int, int] = {}
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.username_pw_set(token)
        client.on_publish = lambda _c, _d, mid, *_: acknowledged.add(pending[mid])
        client.connect("127.0.0.1", self._core.mqtt_port)
        client.loop_start()
        for ts in range(1, 100_000):
            if self.is_over.is_set():
                break
            message = client.publish("v1/devices/me/telemetry", json.dumps({"ts": ts, "values": {"n": ts}}), 1)
            pending[message.mid] = ts
            if ts % 20 == 0:
                threading.Event().wait(0.002)
        client.loop_stop()


def test_everything_acknowledged_survives_a_kill(core: CoreProcess) -> None:
    """SIGKILL in the middle of a provisioning and telemetry storm, restart, every fact is there."""
    profile = core.make_profile("storm", reprovisioning="REPLAY_UNTIL_CONFIRMED")
    storm = Storm(core, profile)
    tokens = []
    for number in range(3):
        body = {"deviceName": f"mqtt-{number}", **profile}
        tokens.append(
            requests.post(f"{core.device_http}/api/v1/provision", json=body, timeout=WAIT_S).json()["credentialsValue"]
        )
    workers = [threading.Thread(target=storm.http_client, args=(number,)) for number in range(3)]
    workers += [threading.Thread(target=storm.mqtt_client, args=(n, token)) for n, token in enumerate(tokens)]
    for worker in workers:
        worker.start()
    threading.Event().wait(2.0)
    core.kill()
    storm.is_over.set()
    for worker in workers:
        worker.join(WAIT_S)
    core.start()
    assert len(storm.tokens) > 10 and all(storm.sent[f"mqtt-{number}"] for number in range(3))
    for name, token in storm.tokens.items():
        answer = requests.post(f"{core.device_http}/api/v1/{token}/telemetry", json={}, timeout=WAIT_S)
        assert answer.status_code == 200, f"the acknowledged credentials of {name} are lost"
        attributes = core.rest.get(_attributes_path(core, name))
        assert {"provisioned"} == {one["value"] for one in attributes if one["key"] == "provisionState"}
    for name, acknowledged in storm.sent.items():
        path = f"/api/plugins/telemetry/DEVICE/{core.device(name)['id']['id']}/values/timeseries"
        history = core.rest.get(path, keys="n", startTs=0, endTs=10**9, limit=10**6, useStrictDataTypes="true")
        stored = {point["ts"] for point in history.get("n", [])}
        assert acknowledged <= stored, f"{len(acknowledged - stored)} acknowledged messages of {name} are lost"


def test_a_lost_answer_is_replayed_after_a_kill(core: CoreProcess) -> None:
    """Byte for byte the same answer, across SIGKILL and restart."""
    profile = core.make_profile("replay", reprovisioning="REPLAY_UNTIL_CONFIRMED")
    body = {"deviceName": "d", **profile}
    first = requests.post(f"{core.device_http}/api/v1/provision", json=body, timeout=WAIT_S).content
    core.kill()
    core.start()
    assert requests.post(f"{core.device_http}/api/v1/provision", json=body, timeout=WAIT_S).content == first


@pytest.mark.parametrize("round_number", range(5))
def test_sixteen_clients_on_three_transports_make_one_device(core: CoreProcess, round_number: int) -> None:
    """Exactly one SUCCESS; everyone else is told that the name exists."""
    profile = core.make_profile(f"race-{round_number}")
    endpoints = Endpoints(core.device_http, core.mqtt_port, core.coap_port)
    for turn in range(4):
        body = {"deviceName": f"race-{round_number}-{turn}", **profile}

        def over_http(body: dict[str, str] = body) -> Any:
            return requests.post(f"{core.device_http}/api/v1/provision", json=body, timeout=WAIT_S).json()

        def over_mqtt(body: dict[str, str] = body) -> Any:
            return mqtt_provision(endpoints, body)

        def over_coap(body: dict[str, str] = body) -> Any:
            return asyncio.run(coap_post(endpoints, "api/v1/provision", body))[1]

        clients = [over_http] * 6 + [over_mqtt] * 5 + [over_coap] * 5
        random.Random(turn).shuffle(clients)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda client: client(), clients))
        outcomes = sorted(answer.get("reason", answer["status"]) for answer in answers)
        assert outcomes == ["DEVICE_EXISTS"] * 15 + ["SUCCESS"]


def test_sigterm_drains_and_exits_zero(tmp_path: Path) -> None:
    """What a client sent just before is acknowledged or stays with the client; the exit code is 0."""
    core = CoreProcess(tmp_path / "data").start()
    profile = core.make_profile("drain")
    body = {"deviceName": "d", **profile}
    requests.post(f"{core.device_http}/api/v1/provision", json=body, timeout=WAIT_S)
    assert core.stop() == 0


def test_a_taken_port_is_one_clear_sentence(core: CoreProcess, tmp_path: Path) -> None:
    """Exit code 3 and the option that helps; nothing else listens afterwards."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "cloud_core", "serve", "--data-dir", str(tmp_path / "other")]
    ports = ["--http-port", "0", "--mqtt-port", str(core.mqtt_port), "--coap-port", "0"]
    done = subprocess.run([*command, *ports], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 3
    assert f"The mqtt port {core.mqtt_port}" in done.stderr and "--mqtt-port" in done.stderr


def _attributes_path(core: CoreProcess, name: str) -> str:
    return f"/api/plugins/telemetry/DEVICE/{core.device(name)['id']['id']}/values/attributes/SERVER_SCOPE"
