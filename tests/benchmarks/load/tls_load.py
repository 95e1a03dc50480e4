"""MQTT over mutual TLS 1.3: connect and close as fast as it goes, or hold connections that say nothing.

    python -m tests.benchmarks.load.tls_load connect --port 8883 --certificates DIR --connections 32
    python -m tests.benchmarks.load.tls_load idle --port 8883 --certificates DIR --connections 4000

DIR has pairs `NAME.pem` (chain, leaf first) and `NAME.key`. Handshakes are always full ones. The server's certificate
is not verified: the client's time is not what is measured, and on two cores it is the scarcer one.

`idle` prints a first line once all are open, holds them until its input ends, pings each, and prints its result.
"""

from __future__ import annotations

import argparse
import select
import sys
import time
from pathlib import Path

from OpenSSL import SSL

from . import measure, mqtt_wire
from .measure import Meter, Plan
from .sources import Sources, connecting

DRAIN_S = 2.0


class TlsLink:
    """One connection from its first SYN to the answer that it waits for."""

    __slots__ = ("connect", "since", "sock", "ssl", "state")
    GREETING, WAITING, OPEN = range(3)

    def __init__(self, plan: Plan, sources: Sources, context: SSL.Context, connect: bytes) -> None:
        self.since = time.perf_counter()
        self.sock = connecting(plan.host, plan.port, sources.take())
        self.ssl = SSL.Connection(context, self.sock)
        self.ssl.set_connect_state()
        self.connect = connect
        self.state = self.GREETING

    def happened(self) -> bytes | None:
        """What was received, once something was. Raises: SSL.Error, OSError."""
        try:
            if self.state == self.GREETING:
                self.ssl.do_handshake()
                self.ssl.send(self.connect)
                self.state = self.WAITING
            return self.ssl.recv(64)
        except (SSL.WantReadError, SSL.WantWriteError):
            return None

    def close(self) -> None:
        """Says goodbye, as devices should."""
        try:
            self.ssl.send(mqtt_wire.DISCONNECT)
            self.ssl.shutdown()
        except (SSL.Error, OSError):
            pass  # the server may be quicker
        self.sock.close()


class TlsLoad:
    """All connections together."""

    def __init__(
        self, plan: Plan, meter: Meter, contexts: list[tuple[SSL.Context, bytes]], *, is_once: bool = False
    ) -> None:
        self._is_once = is_once  # each certificate connects no more than once
        self._plan = plan
        self._meter = meter
        self._contexts = contexts
        self._sources = Sources(plan.host, 64)
        self._poll = select.epoll()
        self._links: dict[int, TlsLink] = {}
        self.opened = 0
        self.answered = 0

    def connect(self, width: int) -> None:
        """`width` at a time, each closed at its CONNACK."""
        plan, began = self._plan, time.perf_counter()
        begin_at, end_at = began + plan.warmup, began + plan.warmup + plan.seconds
        while (now := time.perf_counter()) < end_at + DRAIN_S:
            if now >= begin_at and not self._meter.measuring and now < end_at:
                self._meter.begin(now)
            if now >= end_at:
                self._meter.end(now)
                if not self._links:
                    return
            while now < end_at and len(self._links) < width and self._may_open:
                self._open()
            for link in self._answered(0.2):
                self._forget(link)
                link.close()
        self._meter.fail("no answer in time", len(self._links))

    def hold(self, count: int, width: int) -> None:
        """Opens `count`, `width` at a time."""
        held: list[TlsLink] = []
        while len(held) < count and not self._meter.errors:
            while self.opened < count and self.opened - len(held) < width:
                self._open()
            for link in self._answered(1.0):
                link.state = TlsLink.OPEN
                held.append(link)

    def ping(self) -> int:
        """One PINGREQ on every connection; returns how many answered."""
        waiting = set(self._links)
        for link in self._links.values():
            link.ssl.send(mqtt_wire.PINGREQ)
        deadline = time.perf_counter() + self._plan.answer_timeout
        while waiting and time.perf_counter() < deadline:
            for fd, _ in self._poll.poll(1.0):
                if self._links[fd].happened() == mqtt_wire.PINGRESP:
                    waiting.discard(fd)
        if waiting:
            self._meter.fail("no PINGRESP in time", len(waiting))
        return len(self._links) - len(waiting)

    @property
    def _may_open(self) -> bool:
        return not self._is_once or self.opened < len(self._contexts)

    def _open(self) -> None:
        context, packet = self._contexts[self.opened % len(self._contexts)]
        link = TlsLink(self._plan, self._sources, context, packet)
        self._links[link.sock.fileno()] = link
        self._poll.register(link.sock.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        self.opened += 1

    def _answered(self, wait_s: float) -> list[TlsLink]:
        """Links whose CONNACK has come."""
        found: list[TlsLink] = []
        for fd, _ in self._poll.poll(wait_s):
            link = self._links[fd]
            try:
                data = link.happened()
            except (SSL.Error, OSError) as error:
                data = repr(error).encode()
            if data is None:
                continue
            if data == mqtt_wire.CONNACK_ACCEPTED:
                self._meter.record(time.perf_counter() - link.since)
                self.answered += 1
                found.append(link)
            elif link.state != TlsLink.OPEN:
                self._meter.fail(f"no CONNACK but {data!r}")
                self._forget(link)
                link.sock.close()
        return found

    def _forget(self, link: TlsLink) -> None:
        fd = link.sock.fileno()
        self._poll.unregister(fd)
        del self._links[fd]


def contexts_of(folder: Path, first: int, count: int | None) -> list[tuple[SSL.Context, bytes]]:
    """A context and a CONNECT for each device, of `count` from the `first` on."""
    made = []
    for certificate in sorted(folder.glob("*.pem"))[first:][:count]:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.use_certificate_chain_file(str(certificate))
        context.use_privatekey_file(str(certificate.with_suffix(".key")))
        made.append((context, mqtt_wire.connect(client_id=certificate.stem, username="ignored")))
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["connect", "idle"])
    measure.add_arguments(parser)
    parser.add_argument("--certificates", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--once", action="store_true", help="connect: each certificate no more than once")
    parser.add_argument("--first", type=int, default=0, help="leave out so many certificates")
    parser.add_argument("--certificate-count", type=int, help="use so many")
    options = parser.parse_args(arguments)
    plan = measure.plan_from(options)
    meter = Meter(plan)
    contexts = contexts_of(options.certificates, options.first, options.certificate_count)
    load = TlsLoad(plan, meter, contexts, is_once=options.once)
    if options.what == "connect":
        load.connect(options.connections)
        if options.once and load.opened >= len(contexts):
            meter.fail("all certificates were used before the end; make more")
        measure.print_result(meter.result(sent=load.opened, acknowledged=load.answered))
        return 1 if meter.errors else 0
    meter.begin(time.perf_counter())
    load.hold(options.connections, 64)
    meter.end(time.perf_counter())
    measure.print_result({"open": load.answered})
    sys.stdin.readline()
    measure.print_result(meter.result(sent=load.opened, acknowledged=load.ping()))
    return 1 if meter.errors else 0


if __name__ == "__main__":
    sys.exit(main())
