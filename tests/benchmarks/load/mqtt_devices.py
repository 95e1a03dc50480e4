"""Devices that stay connected over MQTT and answer: two-way commands, attribute requests, changes for everybody.

    commands    operators POST two-way commands over REST, one outstanding each; devices reply at once
    requests    devices ask for attributes, one request outstanding each
    fan_out     an operator writes one shared attribute of all devices; how long until all have it

Prints one line of JSON, as all load clients do.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time

from . import measure, mqtt_wire
from .long_poll import devices_by_token
from .measure import Meter, Plan
from .sources import Sources

READ_BYTES = 65_536
REPLY = b'{"ok":true}'


class Device:
    """A connected, subscribed device."""

    __slots__ = ("asked_at", "fd", "number", "received", "sock", "token")

    def __init__(self, plan: Plan, token: str, source: str, topic: str) -> None:
        self.token = token
        self.number = 0
        self.asked_at = 0.0
        self.received = b""
        self.sock = socket.create_connection((plan.host, plan.port), plan.answer_timeout, (source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.sock.fileno()
        self.sock.sendall(mqtt_wire.connect(client_id="d", username=token) + mqtt_wire.subscribe(1, topic, 0))
        expected = len(mqtt_wire.CONNACK_ACCEPTED) + 5
        while len(self.received) < expected:
            data = self.sock.recv(READ_BYTES)
            if not data:
                raise OSError("closed before SUBACK")
            self.received += data
        self.received = self.received[expected:]

    def messages(self) -> list[tuple[str, bytes]]:
        """(topic, payload) of the QoS 0 messages that have come. Raises: OSError."""
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise OSError("closed by the server")
        packets, self.received = mqtt_wire.complete_packets(self.received + data)
        found = []
        for first, body in packets:
            if first >> 4 == mqtt_wire.PUBLISH_TYPE:
                end = 2 + int.from_bytes(body[:2], "big")
                found.append((body[2:end].decode(), body[end:]))
        return found

    def ask(self) -> None:
        self.number += 1
        self.asked_at = time.perf_counter()
        topic = f"v1/devices/me/attributes/request/{self.number}"
        self.sock.send(mqtt_wire.publish(topic, b'{"sharedKeys":"limit"}'))


class Operator:
    """A keep-alive connection to REST with one call outstanding."""

    __slots__ = ("_head", "asked_at", "fd", "sock")

    def __init__(self, plan: Plan, http_port: int, jwt: str) -> None:
        self.sock = socket.create_connection((plan.host, http_port), plan.answer_timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.sock.fileno()
        self.asked_at = 0.0
        self._head = f"Host: load\r\nX-Authorization: Bearer {jwt}\r\nContent-Type: application/json\r\n"

    def post(self, path: str, body: bytes) -> None:
        self.asked_at = time.perf_counter()
        head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        self.sock.sendall(head.encode() + body)


def run(what: str, plan: Plan, http_port: int, tokens: list[str], operators: int, login: tuple[str, str]) -> Meter:
    """Connects the devices, then loads as planned."""
    sources, meter = Sources(plan.host, 4), Meter(plan)
    topic = {"commands": "v1/devices/me/rpc/request/+", "requests": "v1/devices/me/attributes/response/+"}
    wanted = topic.get(what, "v1/devices/me/attributes")
    devices = {one.fd: one for one in (Device(plan, token, sources.take(), wanted) for token in tokens)}
    posting: dict[int, Operator] = {}
    paths: list[str] = []
    if what != "requests":
        by_token, jwt = devices_by_token(at_port(plan, http_port), tokens, *login)
        posting = {one.fd: one for one in (Operator(plan, http_port, jwt) for _ in range(operators))}
        shape = "/api/rpc/twoway/{}" if what == "commands" else "{}"
        paths = [shape.format(by_token[token]) for token in tokens]
    load = Load(plan, meter, devices, posting, paths)
    {"commands": load.commands, "requests": load.requests, "fan_out": load.fan_out}[what]()
    return meter


def at_port(plan: Plan, port: int) -> Plan:
    """The same plan against another port."""
    members = {name: getattr(plan, name) for name in Plan.__slots__}
    return Plan(**(members | {"port": port}))


class Load:
    """The loop over all sockets."""

    def __init__(
        self, plan: Plan, meter: Meter, devices: dict[int, Device], operators: dict[int, Operator], paths: list[str]
    ) -> None:
        self._plan = plan
        self._meter = meter
        self._devices = devices
        self._operators = operators
        self._paths = paths
        self._next = 0
        self._epoll = select.epoll()
        for fd in (*devices, *operators):
            self._epoll.register(fd, select.EPOLLIN)

    def commands(self) -> None:
        body = b'{"method":"setGpio","params":{"pin":7},"timeout":10000}'
        for operator in self._operators.values():
            self._post(operator, body)
        for fd in self._turns():
            device = self._devices.get(fd)
            if device is not None:
                for topic, _ in device.messages():
                    number = topic.rpartition("/")[2]
                    device.sock.send(mqtt_wire.publish(f"v1/devices/me/rpc/response/{number}", REPLY))
                continue
            operator = self._operators[fd]
            answer = operator.sock.recv(READ_BYTES)
            if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(REPLY):
                self._meter.fail(f"not the reply: {answer[:200]!r}")
            self._meter.record(time.perf_counter() - operator.asked_at)
            self._post(operator, body)

    def requests(self) -> None:
        for device in self._devices.values():
            device.ask()
        for fd in self._turns():
            device = self._devices[fd]
            for topic, _ in device.messages():
                if topic != f"v1/devices/me/attributes/response/{device.number}":
                    self._meter.fail(f"not the answer: {topic}")
                self._meter.record(time.perf_counter() - device.asked_at)
                device.ask()

    def fan_out(self) -> None:
        """One call for all devices; the time of each runs from that call."""
        operator = next(iter(self._operators.values()))
        body = json.dumps({"deviceIds": self._paths, "values": {"limit": 42}}).encode()
        self._meter.begin(time.perf_counter())
        started, heard = time.perf_counter(), 0
        operator.post("/api/devices/attributes/SHARED_SCOPE", body)
        deadline = started + 60.0
        while heard < len(self._devices) and time.perf_counter() < deadline:
            for fd, _ in self._epoll.poll(1.0):
                device = self._devices.get(fd)
                if device is not None:
                    heard += len(device.messages())
                    self._meter.record(time.perf_counter() - started)
                    continue
                answer = self._operators[fd].sock.recv(READ_BYTES)
                if not answer.startswith(b"HTTP/1.1 200"):
                    self._meter.fail(f"write: {answer[:200]!r}")
        if heard < len(self._devices):
            self._meter.fail("no news of the change in time", len(self._devices) - heard)
        self._meter.end(time.perf_counter())

    def _post(self, operator: Operator, body: bytes) -> None:
        operator.post(self._paths[self._next % len(self._paths)], body)
        self._next += 1

    def _turns(self):  # type: ignore[no-untyped-def]  # a generator of descriptors, until the window closes
        began = time.perf_counter()
        opens, closes = began + self._plan.warmup, began + self._plan.warmup + self._plan.seconds
        while True:
            now = time.perf_counter()
            if not self._meter.measuring and now >= opens:
                self._meter.begin(now)
            if now >= closes:
                self._meter.end(now)
                return
            for fd, _ in self._epoll.poll(0.1):
                yield fd


def main(arguments: list[str] | None = None) -> int:
    """Run, print, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("commands", "requests", "fan_out"))
    measure.add_arguments(parser)
    parser.add_argument("--http-port", type=int, default=0, help="REST, for commands and fan_out")
    parser.add_argument("--username", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--operators", type=int, default=16, help="REST connections")
    parser.add_argument("--connections", type=int, default=100, help="devices")
    options = parser.parse_args(arguments)
    plan = measure.plan_from(options)
    tokens = measure.tokens_from(options.tokens)[-options.connections :]  # the last ones: others may use the first
    meter = run(options.what, plan, options.http_port, tokens, options.operators, (options.username, options.password))
    count = meter.histogram.count
    measure.print_result(meter.result(sent=count, acknowledged=count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
