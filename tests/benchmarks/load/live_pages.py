"""Open pages of the web UI: each has an event stream, and fetches its live part every few seconds.

As `live.js` does it, with the overview open everywhere. Prints `{"open": N}` once all streams are open and each page
has been fetched once, then goes on until a line (or the end) of standard input; the result line tells how long a part
took.
"""

from __future__ import annotations

import argparse
import http.client
import json
import select
import socket
import sys
import time
from urllib.parse import urlencode

from . import measure
from .measure import Meter, Plan

EVERY_S = 5.0  # `data-live-every` of the overview
PART = "/ui/overview/live"
KEYS = 20  # logins: each may listen on some connections only
READ_BYTES = 262_144
FETCHERS = 8  # connections that fetch parts, as browsers share theirs


class Fetcher:
    """A connection that fetches one part after the other."""

    __slots__ = ("began", "received", "sock")

    def __init__(self, plan: Plan) -> None:
        self.sock = _connected(plan)
        self.began = 0.0
        self.received = b""

    def ask(self, cookie: str, due: float) -> None:
        self.began = due
        self.sock.sendall(f"GET {PART} HTTP/1.1\r\nHost: load\r\nCookie: {cookie}\r\n\r\n".encode())

    def is_answered(self, meter: Meter) -> bool:
        self.received += self.sock.recv(READ_BYTES)
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0):
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            meter.fail(f"part: {head[:200]!r}")
        meter.record(time.perf_counter() - self.began)
        self.received = b""
        return True


class Pages:
    """All pages together."""

    def __init__(self, plan: Plan, meter: Meter, count: int, cookie: str, keys: list[str]) -> None:
        self._meter, self._cookie = meter, cookie
        self._epoll = select.epoll()
        self._streams = {one.fileno(): one for one in (_stream(plan, keys[n % len(keys)]) for n in range(count))}
        self._fetchers = {one.sock.fileno(): one for one in (Fetcher(plan) for _ in range(FETCHERS))}
        self._idle = list(self._fetchers.values())
        for fd in (*self._streams, *self._fetchers):
            self._epoll.register(fd, select.EPOLLIN)
        now = time.perf_counter()
        self._due = [now + EVERY_S * number / count for number in range(count)]  # in order, and stays so
        self.asked = self.answered = self.heard = 0

    def run(self, until: float) -> None:
        while (now := time.perf_counter()) < until:
            while self._idle and self._due and self._due[0] <= now:
                due = self._due.pop(0)
                self._idle.pop().ask(self._cookie, due)
                self._due.append(due + EVERY_S)
                self.asked += 1
            for fd, _ in self._epoll.poll(0.02):
                if fd in self._fetchers:
                    if self._fetchers[fd].is_answered(self._meter):
                        self._idle.append(self._fetchers[fd])
                        self.answered += 1
                else:
                    self._hear(fd)

    def _hear(self, fd: int) -> None:
        data = self._streams[fd].recv(READ_BYTES)
        self.heard += data.count(b"event: ")
        if not data:
            self._meter.fail("a stream has ended")
            self._epoll.unregister(fd)


def _connected(plan: Plan) -> socket.socket:
    return socket.create_connection((plan.host, plan.port), plan.answer_timeout)


def _stream(plan: Plan, key: str) -> socket.socket:
    """Raises: OSError."""
    sock = _connected(plan)
    sock.sendall(
        f"GET /api/events?kinds=approval HTTP/1.1\r\nHost: load\r\nX-Authorization: ApiKey {key}\r\n\r\n".encode()
    )
    if not sock.recv(READ_BYTES).startswith(b"HTTP/1.1 200"):
        raise OSError("a stream was refused")
    return sock


def logins(plan: Plan, username: str, password: str) -> tuple[str, list[str]]:
    """The cookie of a login to the UI, and API keys to listen with. Raises: OSError."""
    connection = http.client.HTTPConnection(plan.host, plan.port, timeout=60)
    form = urlencode({"username": username, "password": password, "next": ""})
    connection.request("POST", "/ui/login", form, {"Content-Type": "application/x-www-form-urlencoded"})
    response = connection.getresponse()
    response.read()
    cookies = [value.split(";")[0] for name, value in response.getheaders() if name.lower() == "set-cookie"]
    jwt = _post(connection, "/api/auth/login", {"username": username, "password": password}, {})["token"]
    who, run = {"X-Authorization": f"Bearer {jwt}"}, time.time_ns()
    made = [
        _post(connection, "/api/apiKey", {"name": f"pages {run} {n}", "role": "ADMINISTRATOR"}, who)
        for n in range(KEYS)
    ]
    connection.close()
    return "; ".join(cookies), [str(one["value"]) for one in made]


def _post(
    connection: http.client.HTTPConnection, path: str, body: dict[str, str], headers: dict[str, str]
) -> dict[str, str]:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    data = response.read()
    if response.status != 200:
        raise OSError(f"POST {path} answered {response.status}: {data[:300]!r}")
    found: dict[str, str] = json.loads(data)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Open, keep open, print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    measure.add_arguments(parser)
    parser.add_argument("--connections", type=int, default=200, help="pages")
    parser.add_argument("--username", required=True, help="of the operator who looks at them")
    parser.add_argument("--password", required=True)
    options = parser.parse_args(arguments)
    plan = measure.plan_from(options)
    cookie, keys = logins(plan, options.username, options.password)
    meter = Meter(plan)
    pages = Pages(plan, meter, options.connections, cookie, keys)
    pages.run(time.perf_counter() + EVERY_S + 1.0)
    measure.print_result({"open": options.connections})
    meter.begin(time.perf_counter())
    while not select.select([sys.stdin], [], [], 0)[0]:
        pages.run(time.perf_counter() + 0.25)
    meter.end(time.perf_counter())
    result = meter.result(sent=pages.asked, acknowledged=pages.answered, extra={"events": pages.heard})
    measure.print_result(result)
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
