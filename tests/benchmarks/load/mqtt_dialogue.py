"""Short MQTT connections: CONNECT → CONNACK → close, and the whole provisioning dialogue.

The provisioning dialogue is the one of ThingsBoard's own Python client: user name `provision`, and after
CONNACK the SUBSCRIBE and the PUBLISH back to back with QoS 0. It is over, and its latency ends, with the
provision response.
"""

from __future__ import annotations

import select
import socket

from . import bodies, mqtt_wire
from .exchange import Channel, Outcome, Wiring, run_exchanges
from .measure import Plan
from .sources import Sources, connecting

REQUEST_TOPIC = "/provision/request"
RESPONSE_TOPIC = "/provision/response"
READ_BYTES = 4096


class ConnectDialogue:
    """One connection after the other: open, CONNECT, CONNACK 0, close."""

    __slots__ = ("_connects", "_plan", "_sock", "_sources", "_unsent", "_wiring", "failure")

    def __init__(self, plan: Plan, wiring: Wiring, sources: Sources, connects: list[bytes]) -> None:
        """`connects` are the CONNECT packets to choose from; exchange n takes number n modulo their count."""
        self._plan = plan
        self._wiring = wiring
        self._sources = sources
        self._connects = connects
        self._sock: socket.socket | None = None
        self._unsent = b""
        self.failure = ""

    def start(self, number: int) -> None:
        self._sock = sock = connecting(self._plan.host, self._plan.port, self._sources.take())
        packet = self._connects[number % len(self._connects)]
        try:  # on loopback the connection is usually made by now
            sock.send(packet)
            self._wiring.watch(sock.fileno(), self)
        except (BlockingIOError, BrokenPipeError):
            self._unsent = packet
            self._wiring.watch(sock.fileno(), self, select.EPOLLIN | select.EPOLLOUT)

    def ready(self, events: int) -> Outcome:
        sock = self._sock
        if sock is None:
            return Outcome.PENDING
        try:
            if self._unsent and events & select.EPOLLOUT:
                sock.send(self._unsent)
                self._unsent = b""
                self._wiring.poll.modify(sock, select.EPOLLIN)
                return Outcome.PENDING
            return self._answer(sock, sock.recv(READ_BYTES))
        except BlockingIOError:
            return Outcome.PENDING
        except OSError as error:
            return self._fail(f"connection lost: {error}")

    def overdue(self, waited_s: float) -> Outcome:
        if waited_s < self._plan.answer_timeout:
            return Outcome.PENDING
        return self._fail("no answer in time")

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._unsent = b""

    def _answer(self, sock: socket.socket, data: bytes) -> Outcome:
        if data != mqtt_wire.CONNACK_ACCEPTED:
            return self._fail(f"not CONNACK 0: {data.hex()}")
        self.close()
        return Outcome.ANSWERED

    def _fail(self, reason: str) -> Outcome:
        self.failure = reason
        self.close()
        return Outcome.FAILED


class ProvisionDialogue(ConnectDialogue):
    """CONNECT → SUBSCRIBE and PUBLISH → response → DISCONNECT, each time for a new device."""

    __slots__ = ("_bodies", "_number", "_received", "_subscribe")

    def __init__(self, plan: Plan, wiring: Wiring, sources: Sources, provision_bodies: bodies.ProvisionBodies) -> None:
        super().__init__(plan, wiring, sources, [mqtt_wire.connect(client_id="", username="provision")])
        self._bodies = provision_bodies
        self._subscribe = mqtt_wire.subscribe(1, RESPONSE_TOPIC, 0)
        self._number = 0
        self._received = b""

    def start(self, number: int) -> None:
        self._number = number
        self._received = b""
        super().start(number)

    def _answer(self, sock: socket.socket, data: bytes) -> Outcome:
        if not data:
            return self._fail("closed before the provision response")
        packets, self._received = mqtt_wire.complete_packets(self._received + data)
        for first, body in packets:
            if first == 0x20:
                if body != b"\x00\x00":
                    return self._fail(f"CONNECT refused: {body.hex()}")
                sock.send(self._subscribe + mqtt_wire.publish(REQUEST_TOPIC, self._bodies.body(self._number)))
            elif first >> 4 == mqtt_wire.PUBLISH_TYPE:
                return self._response(sock, body)
        return Outcome.PENDING

    def _response(self, sock: socket.socket, body: bytes) -> Outcome:
        if b'"SUCCESS"' not in body:
            return self._fail(f"not provisioned: {body!r}")
        sock.send(mqtt_wire.DISCONNECT)
        self.close()
        return Outcome.ANSWERED


def run_connect(plan: Plan, *, concurrent: int, tokens: list[str], sources: int) -> dict[str, object]:
    """Connect as planned, `concurrent` at a time."""
    wiring, addresses = Wiring(), Sources(plan.host, sources)
    connects = [mqtt_wire.connect(client_id=f"load-{i:05d}", username=token) for i, token in enumerate(tokens)]
    channels: list[Channel] = [ConnectDialogue(plan, wiring, addresses, connects) for _ in range(concurrent)]
    meter, load = run_exchanges(plan, wiring, channels)
    return meter.result(sent=load.sent, acknowledged=load.acknowledged)


def run_provision(
    plan: Plan, *, concurrent: int, provision_bodies: bodies.ProvisionBodies, sources: int
) -> dict[str, object]:
    """Provision as planned, `concurrent` dialogues at a time."""
    wiring, addresses = Wiring(), Sources(plan.host, sources)
    channels: list[Channel] = [ProvisionDialogue(plan, wiring, addresses, provision_bodies) for _ in range(concurrent)]
    meter, load = run_exchanges(plan, wiring, channels)
    return meter.result(sent=load.sent, acknowledged=load.acknowledged)
