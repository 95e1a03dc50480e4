"""Idle load: opens many MQTT connections, holds them, and checks at the end that each still answers.

Prints `{"open": N}` once all are connected, waits for a line (or the end) of standard input, sends a PINGREQ
on each, and prints the result line with the number of PINGRESPs as `acknowledged`.
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
import time

from . import measure, mqtt_wire
from .measure import Meter, Plan
from .sources import Sources, connecting

OPENING_AT_ONCE = 200
KEEP_ALIVE_S = 600


class IdleConnection:
    """A socket and whether its answer (CONNACK, then PINGRESP) is still to come."""

    __slots__ = ("connect", "sock", "waiting_since")

    def __init__(self, sock: socket.socket, connect: bytes, since: float) -> None:
        self.sock = sock
        self.connect = connect
        self.waiting_since = since


class IdleLoad:
    """All connections together."""

    def __init__(self, plan: Plan, meter: Meter) -> None:
        self._plan = plan
        self._meter = meter
        self._poll = select.epoll()
        self._connections: dict[int, IdleConnection] = {}

    def open(self, count: int, tokens: list[str], sources: Sources) -> int:
        """Open `count` connections, a few hundred at a time; returns how many were accepted."""
        waiting: set[int] = set()
        opened = accepted = 0
        while opened < count or waiting:
            while opened < count and len(waiting) < OPENING_AT_ONCE:
                waiting.add(self._open_one(opened, tokens[opened % len(tokens)], sources))
                opened += 1
            answered, lost = self._collect(waiting, mqtt_wire.CONNACK_ACCEPTED, 1.0)
            accepted += answered
            if not answered and not lost and self._overdue(waiting):
                self._meter.fail("no CONNACK in time", len(waiting))
                break
        return accepted

    def ping(self) -> int:
        """One PINGREQ on every connection; returns how many answered."""
        waiting = set(self._connections)
        now = time.perf_counter()
        for fd, connection in list(self._connections.items()):
            connection.waiting_since = now
            try:
                connection.sock.send(mqtt_wire.PINGREQ)
            except OSError as error:
                self._lose(fd, waiting, f"idle connection lost: {error}")
        answered = 0
        while waiting and not self._overdue(waiting):
            answered += self._collect(waiting, mqtt_wire.PINGRESP, 1.0)[0]
        if waiting:
            self._meter.fail("no PINGRESP in time", len(waiting))
        return answered

    def _open_one(self, number: int, token: str, sources: Sources) -> int:
        sock = connecting(self._plan.host, self._plan.port, sources.take())
        connect = mqtt_wire.connect(client_id=f"idle-{number:05d}", username=token, keep_alive_s=KEEP_ALIVE_S)
        self._connections[sock.fileno()] = IdleConnection(sock, connect, time.perf_counter())
        self._poll.register(sock, select.EPOLLOUT)
        return sock.fileno()

    def _collect(self, waiting: set[int], expected: bytes, wait_s: float) -> tuple[int, int]:
        answered = lost = 0
        for fd, events in self._poll.poll(wait_s):
            connection = self._connections[fd]
            try:
                if events & select.EPOLLOUT and not events & select.EPOLLIN:
                    connection.sock.send(connection.connect)
                    self._poll.modify(fd, select.EPOLLIN)
                    continue
                data = connection.sock.recv(64)
            except OSError as error:
                data = str(error).encode()
            if data == expected and fd in waiting:
                waiting.discard(fd)
                answered += 1
                self._meter.record(time.perf_counter() - connection.waiting_since)
            else:
                lost += 1
                self._lose(fd, waiting, f"connection {fd}: not {expected.hex()} but {data!r}")
        return answered, lost

    def _lose(self, fd: int, waiting: set[int], reason: str) -> None:
        waiting.discard(fd)
        self._meter.fail(reason)
        self._connections.pop(fd).sock.close()

    def _overdue(self, waiting: set[int]) -> bool:
        before = time.perf_counter() - self._plan.answer_timeout
        return any(self._connections[fd].waiting_since < before for fd in waiting)


def main(arguments: list[str] | None = None) -> int:
    """Open, hold, check, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    measure.add_arguments(parser)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--sources", type=int, default=16, help="local addresses to connect from")
    options = parser.parse_args(arguments)
    plan = measure.plan_from(options)
    meter = Meter(plan)
    load = IdleLoad(plan, meter)
    meter.begin(time.perf_counter())
    opened = load.open(options.connections, measure.tokens_from(options.tokens), Sources(plan.host, options.sources))
    meter.end(time.perf_counter())
    measure.print_result({"open": opened})
    sys.stdin.readline()
    alive = load.ping()
    result = meter.result(sent=opened, acknowledged=alive)
    measure.print_result(result)
    return 1 if result["errors"] or opened != options.connections else 0


if __name__ == "__main__":
    sys.exit(main())
