"""Long polls: opens many waiting `GET …/attributes/updates`, holds them, then changes an attribute of each device.

Every connection reads its attributes first, so that its device is known. Prints `{"open": N}` once all wait, then
waits for a line (or the end) of standard input. An operator then writes one shared attribute per device, a few
writes at a time, and the result line tells how long each change took from its REST request to its device.
"""

from __future__ import annotations

import argparse
import http.client
import json
import select
import socket
import sys
import time
from typing import Any

from . import measure
from .measure import Meter, Plan
from .sources import Sources, connecting

OPENING_AT_ONCE = 200
WRITERS = 8
POLL_TIMEOUT_MS = 300_000
READ_BYTES = 16_384
PAGE_SIZE = 10_000


class Poll:
    """A device's connection: attributes are read, then it waits for the change to `expected`."""

    __slots__ = ("changed_at", "expected", "is_waiting", "received", "since", "sock", "token")

    def __init__(self, sock: socket.socket, token: str) -> None:
        self.sock = sock
        self.token = token
        self.since = time.perf_counter()
        self.is_waiting = False
        self.received = b""
        self.expected = b""
        self.changed_at = 0.0  # when the operator asked for the change

    def ask(self, path: str) -> None:
        self.sock.send(f"GET /api/v1/{self.token}/{path} HTTP/1.1\r\nHost: load\r\n\r\n".encode())

    def answer(self) -> bytes | None:
        """A whole answer, or None. Raises: OSError."""
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise OSError("closed by the server")
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end or len(body) < _content_length(head):
            return None
        whole, self.received = self.received, b""
        return whole


class LongPollLoad:
    """All connections together."""

    def __init__(self, plan: Plan, meter: Meter) -> None:
        self._plan = plan
        self._meter = meter
        self._epoll = select.epoll()
        self._polls: dict[int, Poll] = {}

    def open(self, tokens: list[str], sources: Sources) -> int:
        """One connection per token, a few hundred at a time; returns how many wait."""
        unopened, opening, waiting = iter(tokens), set[int](), 0
        token: str | None = next(unopened, None)
        while token is not None or opening:
            while token is not None and len(opening) < OPENING_AT_ONCE:
                sock = connecting(self._plan.host, self._plan.port, sources.take())
                self._polls[sock.fileno()] = Poll(sock, token)
                self._epoll.register(sock, select.EPOLLOUT)
                opening.add(sock.fileno())
                token = next(unopened, None)
            for fd, events in self._epoll.poll(1.0):
                if events & select.EPOLLOUT and not events & select.EPOLLIN:
                    self._polls[fd].ask("attributes")
                    self._epoll.modify(fd, select.EPOLLIN)
                    continue
                answer = self._read(fd)
                if answer is None:
                    continue
                opening.discard(fd)
                if answer.startswith(b"HTTP/1.1 200"):
                    self._polls[fd].ask(f"attributes/updates?timeout={POLL_TIMEOUT_MS}")
                    self._polls[fd].is_waiting = True
                    waiting += 1
                elif answer:
                    self._meter.fail(f"attributes: {answer[:200]!r}")
            self._end_overdue(opening)
        return waiting

    def change(self, devices: dict[str, str], jwt: str) -> tuple[int, int]:
        """One attribute per waiting device, named by `devices` (token -> id); returns (changed, heard of)."""
        unchanged = [one for one in self._polls.values() if one.is_waiting]
        pending = len(unchanged)
        writers = {one.fd: one for one in (Writer(self._plan, jwt) for _ in range(WRITERS))}
        for fd in writers:
            self._epoll.register(fd, select.EPOLLIN)
        changed = heard = 0
        deadline = time.perf_counter() + self._plan.answer_timeout * 6
        idle = list(writers.values())
        while heard < pending and time.perf_counter() < deadline:
            while idle and unchanged:
                idle.pop().write(unchanged.pop(), devices, changed)
                changed += 1
            for fd, _ in self._epoll.poll(1.0):
                if fd in writers:
                    if writers[fd].is_answered(self._meter):
                        idle.append(writers[fd])
                    continue
                heard += self._hear(fd)
        if heard < pending:
            self._meter.fail("no news of the change in time", pending - heard)
        return changed, heard

    def _hear(self, fd: int) -> int:
        answer = self._read(fd)
        if not answer:
            return 0
        poll = self._polls[fd]
        if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(poll.expected):
            self._meter.fail(f"not {poll.expected!r}: {answer[:200]!r}")
            return 0
        self._meter.record(time.perf_counter() - poll.changed_at)
        return 1

    def _read(self, fd: int) -> bytes | None:
        """An answer; empty when the connection is lost."""
        try:
            return self._polls[fd].answer()
        except BlockingIOError:
            return None
        except OSError as error:
            self._meter.fail(f"connection lost: {error}")
            self._polls.pop(fd).sock.close()
            return b""

    def _end_overdue(self, opening: set[int]) -> None:
        before = time.perf_counter() - self._plan.answer_timeout
        for fd in [fd for fd in opening if fd in self._polls and self._polls[fd].since < before]:
            self._meter.fail("no answer in time")
            opening.discard(fd)
            self._polls.pop(fd).sock.close()


class Writer:
    """An operator's connection, one write at a time."""

    def __init__(self, plan: Plan, jwt: str) -> None:
        self._sock = socket.create_connection((plan.host, plan.port), plan.answer_timeout)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._jwt = jwt
        self.fd = self._sock.fileno()

    def write(self, poll: Poll, devices: dict[str, str], number: int) -> None:
        poll.expected = body = b'{"target":%d}' % number
        poll.changed_at = time.perf_counter()
        path = f"/api/plugins/telemetry/DEVICE/{devices[poll.token]}/SHARED_SCOPE"
        self._sock.send(
            f"POST {path} HTTP/1.1\r\nHost: load\r\nX-Authorization: Bearer {self._jwt}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def is_answered(self, meter: Meter) -> bool:
        data = self._sock.recv(READ_BYTES)  # an answer without a body: one piece
        if not data.startswith(b"HTTP/1.1 200"):
            meter.fail(f"write: {data[:200]!r}")
        return bool(data)


def devices_by_token(plan: Plan, tokens: list[str], username: str, password: str) -> tuple[dict[str, str], str]:
    """Token -> device id for devices made in the order of `tokens`, and the operator's JWT. Raises: OSError."""
    connection = http.client.HTTPConnection(plan.host, plan.port, timeout=60)
    login = json.dumps({"username": username, "password": password})
    jwt = str(_answer(connection, "POST", "/api/auth/login", login, {})["token"])
    names: list[tuple[str, str]] = []
    for page in range(-(-len(tokens) // PAGE_SIZE)):
        path = f"/api/tenant/devices?pageSize={PAGE_SIZE}&page={page}&sortProperty=name"
        found = _answer(connection, "GET", path, "", {"X-Authorization": f"Bearer {jwt}"})
        names += [(one["name"], one["id"]["id"]) for one in found["data"]]
    connection.close()
    return dict(zip(tokens, (identifier for _, identifier in sorted(names)), strict=True)), jwt


def _answer(
    connection: http.client.HTTPConnection, method: str, path: str, body: str, headers: dict[str, str]
) -> Any:  # Any: decoded JSON
    connection.request(method, path, body or None, headers)
    response = connection.getresponse()
    data = response.read()
    if response.status != 200:
        raise OSError(f"{method} {path} answered {response.status}: {data[:300]!r}")
    return json.loads(data)


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if rest else 0


def main(arguments: list[str] | None = None) -> int:
    """Open, hold, change, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    measure.add_arguments(parser)
    parser.add_argument("--sources", type=int, default=4, help="local addresses to connect from")
    parser.add_argument("--username", required=True, help="of the operator who changes the attributes")
    parser.add_argument("--password", required=True)
    options = parser.parse_args(arguments)
    plan, tokens = measure.plan_from(options), measure.tokens_from(options.tokens)
    devices, jwt = devices_by_token(plan, tokens, options.username, options.password)
    meter = Meter(plan)
    load = LongPollLoad(plan, meter)
    waiting = load.open(tokens, Sources(plan.host, options.sources))
    measure.print_result({"open": waiting})
    sys.stdin.readline()
    meter.begin(time.perf_counter())
    changed, heard = load.change(devices, jwt)
    meter.end(time.perf_counter())
    result = meter.result(sent=changed, acknowledged=heard)
    measure.print_result(result)
    return 1 if result["errors"] or waiting != len(tokens) else 0


if __name__ == "__main__":
    sys.exit(main())
