"""The ways out of one process: its TCP connections, as many as it may have, and its UDP sockets."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol

import msgspec
from OpenSSL import SSL

from cloud_core.simulator.clock import Clock
from cloud_core.simulator.coap import CoapPort
from cloud_core.simulator.lines import Line, LineOwner, Watch, client_context
from cloud_core.simulator.plan import DevicePlan, Fault, Transport
from cloud_core.simulator.sources import Sources, bind

DEVICES_PER_PORT = 50  # neighbours whose CoAP devices share a socket: message ids must not repeat within 247 s
MOST_PORTS = 2_000  # sockets for CoAP; with more devices more of them share one
WRONG_PORTS = 250  # for devices with a wrong secret, each with an address of its own
SLOW_PIECE_S = 1.0
_UDP_BUFFER_BYTES = 4 << 20


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the core listens: `address` as numbers, `server_name` as its certificate says it."""

    address: str
    server_name: str
    http_port: int
    mqtt_port: int
    coap_port: int
    is_tls: bool = False
    ca_file: str = ""


class Tenant(Protocol):
    """Who has a connection, or waits for one."""

    def room_granted(self) -> None: ...
    def yield_room(self) -> None: ...


class Room:
    """The TCP connections that may be open at a time. Where somebody waits, those that have nothing to say at the
    moment give theirs up. Who comes first is served first, but those that have never reported before all others: what
    is short is this machine's, and shall not keep anybody outside."""

    def __init__(self, size: int, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self.size = size
        self.used = 0
        self.was_short = False
        self._call_soon = call_soon
        self._is_due = False
        self._outside: deque[Tenant] = deque()
        self._waiting: deque[Tenant] = deque()
        self._resting: OrderedDict[Tenant, None] = OrderedDict()

    @property
    def is_short(self) -> bool:
        """Whether somebody waits."""
        return bool(self._outside or self._waiting)

    def rest(self, tenant: Tenant) -> None:
        """It keeps its connection while nobody else wants it."""
        self._resting[tenant] = None

    def busy(self, tenant: Tenant) -> None:
        """It uses its connection, or has none any more."""
        self._resting.pop(tenant, None)

    def take(self, waiting: Tenant, *, is_outside: bool = False) -> bool:
        """Whether there is room now; if not, `waiting` will hear when there is."""
        if self.used < self.size and not (self._outside if is_outside else self.is_short):
            self.used += 1
            return True
        self.was_short = True
        (self._outside if is_outside else self._waiting).append(waiting)
        if self._resting:
            self._resting.popitem(last=False)[0].yield_room()
        self._grant_soon()
        return False

    def release(self) -> None:
        """A connection has ended."""
        self.used -= 1
        if self.is_short:
            self._grant_soon()

    def _grant_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._call_soon(self._grant)

    def _grant(self) -> None:
        self._is_due = False
        for _ in range(self.size - self.used):  # those that give it back at once have to wait for the next turn
            queue = self._outside or self._waiting
            if not queue:
                return
            self.used += 1
            queue.popleft().room_granted()


class Network:
    """Makes connections for devices, each from its own source address."""

    def __init__(
        self, target: Target, loop: asyncio.AbstractEventLoop, clock: Clock, *, share: int, devices: int
    ) -> None:
        """Raises: OSError, SSL.Error for a CA's file that cannot be used."""
        self._target = target
        self._loop = loop
        self._clock = clock
        self._neighbours = max(DEVICES_PER_PORT, devices // MOST_PORTS)
        self._sources = Sources(target.address, share=share)
        self._tls = client_context(target.ca_file) if target.is_tls else None
        self._ports: dict[int, CoapPort] = {}
        self.watch = Watch()
        self.retransmitted: Callable[[], None] = lambda: None
        host = f"[{target.server_name}]" if ":" in target.server_name else target.server_name
        self.http_host = f"{host}:{target.http_port}"

    def tcp(self, owner: LineOwner, plan: DevicePlan, identity: SSL.Context | None = None) -> Line:
        """A connection that is still to be opened; `identity`: TLS that shows the device's certificate."""
        port = self._target.http_port if plan.transport is Transport.HTTP else self._target.mqtt_port
        return Line(self.watch, owner, (self._target.address, port), identity or self._tls)

    def open(self, line: Line, plan: DevicePlan) -> None:
        """Raises: OSError."""
        line.open(self._source(plan), self._target.server_name)

    def send(self, line: Line, data: bytes, plan: DevicePlan) -> None:
        """In two pieces for a device that is slow."""
        if Fault.SLOW not in plan.faults:
            line.send(data)
            return
        line.send(data[: len(data) // 2])
        self._loop.call_later(SLOW_PIECE_S, line.send, data[len(data) // 2 :])

    def identity(self, certificate_pem: bytes, key_pem: bytes) -> SSL.Context:
        """TLS that shows a device's certificate. Raises: SSL.Error, ValueError."""
        return client_context(self._target.ca_file, certificate_pem, key_pem)

    def coap_port(self, plan: DevicePlan) -> CoapPort:
        """The socket of the device; those with a wrong secret share none with others. Raises: OSError."""
        is_wrong = Fault.WRONG_SECRET in plan.faults
        group = -1 - plan.number % WRONG_PORTS if is_wrong else plan.number // self._neighbours
        port = self._ports.get(group)
        if port is None:
            source = self._sources.of(plan.number, is_wrong=is_wrong, together=self._neighbours)
            port = self._ports[group] = self._open_port(source)
        return port

    def close(self) -> None:
        for port in self._ports.values():
            self.watch.remove(port.sock)
            port.sock.close()
        self._ports.clear()

    def _open_port(self, source: str) -> CoapPort:
        address = (self._target.address, self._target.coap_port)
        sock = socket.socket(socket.AF_INET6 if ":" in self._target.address else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER_BYTES)
            bind(sock, source)
            sock.connect(address)
            port = CoapPort(sock, self._clock, lambda: self.retransmitted())
            self.watch.add(sock, port.ready, selectors.EVENT_READ)
        except OSError:
            sock.close()
            raise
        return port

    def _source(self, plan: DevicePlan) -> str:
        return self._sources.of(plan.number, is_wrong=Fault.WRONG_SECRET in plan.faults)
