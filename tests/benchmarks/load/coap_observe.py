"""Observers over CoAP: `python -m tests.benchmarks.load.coap_observe --port N --tokens FILE …`.

Registers confirmable observations of attributes, a hundred to a socket, and prints `{"open": N}` once all are
answered. Then reads how many notifications to wait for from standard input, acknowledges each as it comes, and
prints the result line. Latency counts from the number under `sent` in a notification: `time.perf_counter()` of
whoever wrote the attribute, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time

from . import measure
from .measure import Meter, Plan
from .sources import Sources

CON, ACK = 0, 2
GET, EMPTY, CONTENT = 0x01, 0x00, 0x45
OBSERVE, URI_PATH = 6, 11
OBSERVERS_PER_SOCKET = 100
REGISTERING_AT_ONCE = 200
RETRANSMIT_S = 2.0
TOKEN_BYTES = 4
READ_BYTES = 2048


class Observer:
    """One observation: its request, repeated until it is answered."""

    __slots__ = ("message", "sent_at", "sock")

    def __init__(self, sock: socket.socket, message: bytes) -> None:
        self.sock = sock
        self.message = message
        self.sent_at = 0.0

    def send(self, now: float) -> None:
        self.sent_at = now
        self.sock.send(self.message)


class ObserveLoad:
    """All observers together."""

    def __init__(self, plan: Plan, meter: Meter) -> None:
        self._plan = plan
        self._meter = meter
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._waiting: dict[int, Observer] = {}  # by token
        self._seen: set[tuple[int, int]] = set()  # socket and message id: repeated notifications count once
        self.notified = 0

    def open(self, count: int, tokens: list[str], sources: Sources) -> int:
        """Registers `count` observers, a few hundred at a time; returns how many were accepted."""
        opened, sock, began = 0, None, time.perf_counter()
        while opened < count or self._waiting:
            while opened < count and len(self._waiting) < REGISTERING_AT_ONCE:
                if sock is None or opened % OBSERVERS_PER_SOCKET == 0:
                    sock = self._socket(sources.take())
                observer = Observer(sock, _registration(opened, tokens[opened % len(tokens)]))
                self._waiting[opened] = observer
                observer.send(time.perf_counter())
                opened += 1
            self._receive(0.2)
            now = time.perf_counter()
            for observer in self._waiting.values():
                if now - observer.sent_at > RETRANSMIT_S:
                    observer.send(now)
            if now - began > self._plan.seconds + 60.0 + self._plan.answer_timeout:
                self._meter.fail("no first answer in time", len(self._waiting))
                break
        return opened - len(self._waiting)

    def listen(self, expected: int) -> None:
        """Until so many notifications have come, or nothing more comes."""
        last, before = time.perf_counter(), -1
        while self.notified < expected:
            self._receive(0.2)
            now = time.perf_counter()
            if self.notified != before:
                last, before = now, self.notified
            elif now - last > self._plan.answer_timeout:
                self._meter.fail("no notification in time", expected - self.notified)
                return

    def _socket(self, source: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if source:
            sock.bind((source, 0))
        sock.connect((self._plan.host, self._plan.port))
        self._sockets[sock.fileno()] = sock
        self._poll.register(sock, select.EPOLLIN)
        return sock

    def _receive(self, wait_s: float) -> None:
        for fd, _events in self._poll.poll(wait_s):
            sock = self._sockets[fd]
            while True:
                try:
                    data = sock.recv(READ_BYTES)
                except BlockingIOError:
                    break
                except OSError as error:
                    self._meter.fail(f"cannot receive: {error}")
                    break
                self._message(sock, data)

    def _message(self, sock: socket.socket, data: bytes) -> None:
        if len(data) < 4 + TOKEN_BYTES or data[1] == EMPTY:
            return  # an empty ACK: the answer comes by itself
        if data[0] >> 4 & 3 == CON:
            sock.send(bytes((0x40 | ACK << 4, EMPTY, data[2], data[3])))
        token = int.from_bytes(data[4 : 4 + TOKEN_BYTES], "big")
        if data[1] != CONTENT:
            self._waiting.pop(token, None)
            self._meter.fail(f"observer {token}: {data[1] >> 5}.{data[1] & 31:02d} {data[8:]!r}")
        elif self._waiting.pop(token, None) is None:
            self._notification(sock, data)

    def _notification(self, sock: socket.socket, data: bytes) -> None:
        key = (sock.fileno(), data[2] << 8 | data[3])
        if key in self._seen:
            return
        self._seen.add(key)
        self.notified += 1
        sent = json.loads(data[data.rindex(b"\xff") + 1 :])["sent"]
        self._meter.record(time.perf_counter() - sent)


def _registration(number: int, access_token: str) -> bytes:
    """GET api/v1/{token}/attributes with Observe 0; the token is the observer's number."""
    message_id = number & 0xFFFF
    head = bytes((0x40 | CON << 4 | TOKEN_BYTES, GET, message_id >> 8, message_id & 255))
    options, previous = bytes((OBSERVE << 4,)), OBSERVE
    for segment in ("api", "v1", access_token, "attributes"):
        value = segment.encode()
        delta, previous = URI_PATH - previous, URI_PATH
        if len(value) < 13:
            options += bytes((delta << 4 | len(value),)) + value
        else:
            options += bytes((delta << 4 | 13, len(value) - 13)) + value
    return head + number.to_bytes(TOKEN_BYTES, "big") + options


def main(arguments: list[str] | None = None) -> int:
    """Register, hold, listen, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    measure.add_arguments(parser)
    parser.add_argument("--connections", type=int, default=10_000, help="observers")
    parser.add_argument("--sources", type=int, default=16, help="local addresses to send from")
    options = parser.parse_args(arguments)
    plan = measure.plan_from(options)
    meter = Meter(plan)
    load = ObserveLoad(plan, meter)
    opened = load.open(options.connections, measure.tokens_from(options.tokens), Sources(plan.host, options.sources))
    measure.print_result({"open": opened})
    expected = int(sys.stdin.readline() or 0)
    meter.begin(time.perf_counter())
    load.listen(expected)
    meter.end(time.perf_counter())
    result = meter.result(sent=expected, acknowledged=load.notified)
    measure.print_result({**result, "open": opened})
    return 1 if result["errors"] or opened != options.connections else 0


if __name__ == "__main__":
    sys.exit(main())
