"""Two-way commands through an edge gateway: REST of a core → gateway → a device on its MQTT port, and back.

`python -m tests.benchmarks.load.edge_calls twoway --port GATEWAY --http-port CORE --username U --password P`: one
device that answers at once, one command outstanding; latency runs from the operator's request to its answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import threading
import time
from typing import Any

from . import measure, mqtt_wire
from .measure import Meter, Plan
from .mqtt_devices import Device

DEVICE = "called-0001"
REQUESTS = "v1/devices/me/rpc/request/+"
CALL = b'{"method":"setGpio","params":{"pin":7},"timeout":10000}'
ANSWER = b'{"done":true}'
KNOWN_S = 30.0


class Operator:
    """REST, one request after the other."""

    def __init__(self, host: str, port: int, username: str, password: str) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=30)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {"Content-Type": "application/json"}
        login = json.dumps({"username": username, "password": password}).encode()
        self._headers["X-Authorization"] = f"Bearer {self.ask('POST', '/api/auth/login', login)['token']}"

    def ask(self, method: str, path: str, body: bytes | None = None) -> Any:  # Any: decoded JSON
        """Raises: OSError for anything but 200."""
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise OSError(f"{method} {path} answered {response.status}: {data[:300]!r}")
        return json.loads(data) if data else None

    def device(self, name: str) -> str:
        """The id of a device as soon as the core knows it. Raises: OSError."""
        deadline = time.perf_counter() + KNOWN_S
        while True:
            try:
                return str(self.ask("GET", f"/api/tenant/devices?deviceName={name}")["id"]["id"])
            except OSError:
                if time.perf_counter() > deadline:
                    raise
                time.sleep(0.02)


def answering(device: Device) -> None:
    """Answers every command until the socket is closed; in a thread of its own."""
    try:
        while True:
            for topic, _ in device.messages():
                number = topic.rpartition("/")[2]
                device.sock.send(mqtt_wire.publish(f"v1/devices/me/rpc/response/{number}", ANSWER))
    except OSError:
        return


def run(plan: Plan, operator: Operator) -> Meter:
    """One command after the other, for as long as planned."""
    meter = Meter(plan)
    device = Device(plan, DEVICE, "127.0.0.1", REQUESTS)
    threading.Thread(target=answering, args=(device,), daemon=True).start()
    path = f"/api/rpc/twoway/{operator.device(DEVICE)}"
    opens = time.perf_counter() + plan.warmup
    closes = opens + plan.seconds
    while (asked := time.perf_counter()) < closes:
        if not meter.measuring and asked >= opens:
            meter.begin(asked)
        try:
            answer = operator.ask("POST", path, CALL)
        except OSError as error:
            meter.fail(str(error))
            break
        meter.record(time.perf_counter() - asked)
        if answer != {"done": True}:
            meter.fail(f"the answer was {answer!r}")
    meter.end(time.perf_counter())
    return meter


def main(arguments: list[str] | None = None) -> int:
    """Run, print, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("twoway",))
    measure.add_arguments(parser)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--username", default="")
    parser.add_argument("--password", default="")
    options = parser.parse_args(arguments)
    plan = measure.plan_from(options)
    meter = run(plan, Operator(plan.host, options.http_port, options.username, options.password))
    count = meter.histogram.count
    result = meter.result(sent=count, acknowledged=count)
    measure.print_result(result)
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
