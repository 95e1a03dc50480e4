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
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import paho.mqtt.client as paho
import pytest
import requests

from cloud_core.demo.clients import Endpoints, coap_post, mqtt_provision
from tests.conftest import need
from tests.support.metrics import Sample, parsed
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


def scraped(core: CoreProcess) -> dict[Sample, float]:
    """On a connection of its own: whichever worker accepts it."""
    answer = requests.get(f"{core.http}/metrics", headers={"Connection": "close"}, timeout=WAIT_S)
    assert answer.status_code == 200
    return parsed(answer.text)


def by_worker(found: dict[Sample, float], name: str) -> dict[str, float]:
    return {dict(labels)["worker"]: value for (one, labels), value in found.items() if one == name}


def test_each_scrape_shows_all_workers(core: CoreProcess) -> None:
    """Whichever worker is reached: the processes that run, and together all that was provisioned; none counts twice."""
    profile = core.make_profile("scraped")
    for number in range(12):
        body = {"deviceName": f"s{number}", **profile}
        requests.post(f"{core.http}/api/v1/provision", json=body, timeout=WAIT_S).raise_for_status()
    starts = set()
    for _ in range(12):
        found = scraped(core)
        assert (found["muster_workers_seen", ()], found["muster_workers", ()]) == (COUNT, COUNT)
        started = by_worker(found, "muster_process_start_time_seconds")
        assert list(started) == ["0", "1"]
        starts.add(tuple(started.values()))
        granted = [
            value
            for (name, labels), value in found.items()
            if name == "muster_provision_attempts_total" and ("outcome", "SUCCESS") in labels
        ]
        assert sum(granted) == 12
    assert len(starts) == 1


def test_a_worker_that_hangs_is_missing_in_a_scrape_and_holds_none_up(core: CoreProcess) -> None:
    """SIGSTOP: what the other shows comes within a second, and says that one of two is there."""
    hung, living = pids_of_workers(core)
    before = connections_of(living)
    os.kill(hung, signal.SIGSTOP)
    try:
        with connection_at(core, living, before) as connection:
            began_s = time.monotonic()
            connection.request("GET", "/metrics")
            found = parsed(connection.getresponse().read().decode())
            assert time.monotonic() - began_s < 1.0
        assert (found["muster_workers_seen", ()], found["muster_workers", ()]) == (1, COUNT)
        assert len(by_worker(found, "muster_ready")) == 1
    finally:
        os.kill(hung, signal.SIGCONT)
    wait_until(lambda: scraped(core)["muster_workers_seen", ()] == COUNT, "both are shown again")


@contextmanager
def connection_at(core: CoreProcess, pid: int, before: int) -> Iterator[HTTPConnection]:
    """One that this worker has accepted: `before` sockets were open there."""
    opened = [HTTPConnection("127.0.0.1", core.http_port, timeout=WAIT_S)]
    opened[0].connect()
    while not _comes(lambda: connections_of(pid) > before, 0.5):
        opened.append(HTTPConnection("127.0.0.1", core.http_port, timeout=WAIT_S))
        opened[-1].connect()
    try:
        yield opened[-1]
    finally:
        for one in opened:
            one.close()


def _comes(is_so: Callable[[], bool], within_s: float) -> bool:
    until_s = time.monotonic() + within_s
    while not is_so() and time.monotonic() < until_s:
        time.sleep(0.01)
    return is_so()


def test_health_is_that_of_whoever_would_serve_the_next_request(core: CoreProcess) -> None:
    """Ready at each of them, and while one is started anew: nobody is sent to a process that is not there."""
    url = f"{core.http}/health/ready"

    def are_ready() -> bool:
        """Whichever worker is asked: one that has just begun to listen says that it is starting."""
        return [requests.get(url, timeout=WAIT_S).json() for _ in range(8)] == [{"status": "ready"}] * 8

    wait_until(are_ready, "both are ready")
    victim = pids_of_workers(core)[1]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in pids_of_workers(core), "it is gone")
    time.sleep(0.2)  # a process that ends has no command line any more while it still closes its sockets
    while len(pids_of_workers(core)) < COUNT:
        assert requests.get(url, timeout=WAIT_S).status_code == 200
    wait_until(lambda: scraped(core)["muster_workers_seen", ()] == COUNT, "another worker is shown")
    wait_until(are_ready, "both are ready again")


def test_doctor_knows_the_ports_of_workers_as_the_cores_own(core: CoreProcess) -> None:
    """Whichever process holds one: no other program is blamed, and all is well."""
    command = [sys.executable, "-m", "cloud_core", "doctor", "--json", "--data-dir", str(core.data_dir)]
    for name in ("http", "mqtt", "coap"):
        command += [f"--{name}-port", str(getattr(core, f"{name}_port"))]
    environment = os.environ | core._environment
    said = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, env=environment)
    findings = {one["topic"]: one for one in json.loads(said.stdout)["findings"]}
    for topic in (f"tcp {core.http_port}", f"tcp {core.mqtt_port}", f"udp {core.coap_port}"):
        assert findings[topic]["text"].startswith("held by the running core"), findings[topic]
    assert "nats-server of their own" in findings["fabric"]["text"]
    assert findings["core"]["verdict"] == "ok"
    assert said.returncode == 0, said.stdout


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
