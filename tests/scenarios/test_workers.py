"""Several processes on one machine: they share the ports, and the end of one costs nothing that was acknowledged."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
import requests

from cloud_core.demo.clients import Endpoints, coap_post, mqtt_provision
from tests.conftest import need
from tests.support.server import CoreProcess

WAIT_S = 20.0
COUNT = 2
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def core(tmp_path: Path, postgresql: Callable[[], str]) -> Iterator[CoreProcess]:
    need("nats-server", "nats-server")
    environment = {"CLOUD_CORE__DATABASE__URL": postgresql(), "CLOUD_CORE__CLUSTER__WORKERS": str(COUNT)}
    process = CoreProcess(tmp_path / "data", **environment).start()
    yield process
    process.stop()


def pids_of_workers(core: CoreProcess) -> list[int]:
    """The children of the supervisor that are cores, oldest first."""
    children = Path(f"/proc/{core.pid}/task/{core.pid}/children").read_text().split()
    return sorted(int(pid) for pid in children if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline_s, f"did not happen: {what}"
        time.sleep(0.05)


def connections_of(pid: int) -> int:
    """Sockets that a process has open."""
    folder = Path(f"/proc/{pid}/fd")
    return sum(os.readlink(one).startswith("socket:") for one in folder.iterdir() if one.is_symlink())


class Sender:
    """An MQTT device that sends on, over lost connections; remembers what was acknowledged."""

    def __init__(self, core: CoreProcess, token: str) -> None:
        self.acknowledged: set[int] = set()
        self._pending: dict[int, int] = {}
        self._is_over = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._client.username_pw_set(token)
        self._client.on_publish = lambda _c, _d, mid, *_: self.acknowledged.add(self._pending[mid])
        self._client.connect("127.0.0.1", core.mqtt_port)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        ts = 0
        while not self._is_over.wait(0.002):
            ts += 1
            message = self._client.publish("v1/devices/me/telemetry", json.dumps({"ts": ts, "values": {"n": ts}}), 1)
            self._pending[message.mid] = ts

    def end(self) -> None:
        self._is_over.set()
        self._thread.join(WAIT_S)
        self._client.disconnect()
        self._client.loop_stop()


def test_all_workers_serve_and_connections_are_dealt_out(core: CoreProcess) -> None:
    """One `ready` line for all; each process has its share of a hundred connections."""
    assert core.workers == COUNT
    workers = pids_of_workers(core)
    assert len(workers) == COUNT
    before = [connections_of(pid) for pid in workers]
    opened = [socket.create_connection(("127.0.0.1", core.http_port)) for _ in range(100)]
    wait_until(lambda: sum(map(connections_of, workers)) >= sum(before) + 100, "the workers accept")
    shares = [connections_of(pid) - was for pid, was in zip(workers, before, strict=True)]
    for one in opened:
        one.close()
    assert min(shares) >= 20, shares


def test_devices_provision_over_each_transport_and_any_worker_knows_them(core: CoreProcess) -> None:
    """Whichever process answers a device's next request, it is let in."""
    profile = core.make_profile("any")
    endpoints = Endpoints(core.http, core.mqtt_port, core.coap_port)
    tokens = []
    for number in range(8):
        tokens.append(mqtt_provision(endpoints, {"deviceName": f"m{number}", **profile})["credentialsValue"])
        body = {"deviceName": f"h{number}", **profile}
        answer = requests.post(f"{core.http}/api/v1/provision", json=body, timeout=WAIT_S).json()
        tokens.append(answer["credentialsValue"])
    for token in tokens:
        answers = [
            requests.post(f"{core.http}/api/v1/{token}/telemetry", json={"n": 1}, timeout=WAIT_S) for _ in range(4)
        ]
        assert [one.status_code for one in answers] == [200] * 4


def test_a_worker_that_dies_takes_nothing_acknowledged_with_it(core: CoreProcess) -> None:
    """SIGKILL under load: the others serve on, another takes its place, and all that devices were told is there."""
    profile = core.make_profile("load")
    tokens = {}
    for number in range(6):
        body = {"deviceName": f"d{number}", **profile}
        answer = requests.post(f"{core.http}/api/v1/provision", json=body, timeout=WAIT_S).json()
        tokens[f"d{number}"] = answer["credentialsValue"]
    senders = {name: Sender(core, token) for name, token in tokens.items()}
    wait_until(lambda: all(len(one.acknowledged) > 50 for one in senders.values()), "all devices send")
    victim = pids_of_workers(core)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in pids_of_workers(core) and len(pids_of_workers(core)) == COUNT, "another worker")
    marks = {name: len(one.acknowledged) for name, one in senders.items()}
    wait_until(lambda: all(len(one.acknowledged) > marks[name] + 50 for name, one in senders.items()), "all are back")
    for one in senders.values():
        one.end()
    for name, sender in senders.items():
        path = f"/api/plugins/telemetry/DEVICE/{core.device(name)['id']['id']}/values/timeseries"
        history = core.rest.get(path, keys="n", startTs=0, endTs=10**9, limit=10**6, useStrictDataTypes="true")
        stored = {point["ts"] for point in history.get("n", [])}
        assert sender.acknowledged <= stored, f"{len(sender.acknowledged - stored)} messages of {name} are lost"


def test_coap_requests_wait_for_the_worker_that_starts_anew(core: CoreProcess) -> None:
    """A datagram goes to the same socket before, during and after a restart, and is answered."""
    profile = core.make_profile("coap")
    body = {"deviceName": "c", **profile}
    token = requests.post(f"{core.http}/api/v1/provision", json=body, timeout=WAIT_S).json()["credentialsValue"]
    endpoints = Endpoints(core.http, core.mqtt_port, core.coap_port)
    os.kill(pids_of_workers(core)[1], signal.SIGKILL)
    answered: list[tuple[str, object]] = []

    def ask(number: int) -> None:
        path, sent = f"api/v1/{token}/telemetry", {"ts": number + 1, "values": {"n": number}}
        answered.append(asyncio.run(coap_post(endpoints, path, sent)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(WAIT_S)
    assert [code for code, _ in answered] == ["2.01"] * 16


def test_commands_on_this_machine_are_let_in_by_any_worker(core: CoreProcess) -> None:
    """`--data-dir` works as with one process."""
    command = [sys.executable, "-m", "cloud_core", "profile", "list", "--json", "--data-dir", str(core.data_dir)]
    for _ in range(4):
        assert subprocess.run(command, check=True, capture_output=True, timeout=WAIT_S).stdout


def test_workers_end_with_a_supervisor_that_is_killed(core: CoreProcess) -> None:
    """Nothing is left behind, the fabric's server included."""
    pids = [int(pid) for pid in Path(f"/proc/{core.pid}/task/{core.pid}/children").read_text().split()]
    assert len(pids) == COUNT + 1
    core.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), "all have ended")
    core.start()


def test_sigterm_drains_all_and_exits_with_0(core: CoreProcess) -> None:
    """As one process does; the fabric's configuration with its token is gone."""
    assert core.stop() == 0
    assert not (core.data_dir / "workers-fabric.conf").exists()
    core.start()


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, r"2 processes need PostgreSQL.*--database-url"),
        ({"CLOUD_CORE__CLUSTER__WORKERS": "0"}, r"use 1 to 64"),
    ],
)
def test_what_workers_need_is_said(tmp_path: Path, environment: dict[str, str], sentence: str) -> None:
    """One sentence with the fix, exit code 2."""
    command = [sys.executable, "-m", "cloud_core", "serve", "--data-dir", str(tmp_path / "data"), "--workers", "2"]
    if environment:
        command = command[:-2]
    said = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, env=os.environ | environment)
    assert said.returncode == 2
    assert re.search(sentence, said.stderr), said.stderr
