"""HTTP load: `python -m tests.benchmarks.load.http_load telemetry|provision --port N …`.

Keep-alive connections, one POST outstanding on each. Prints one line of JSON; exits 1 when anything failed.
"""

from __future__ import annotations

import argparse
import socket
import sys

from . import bodies, measure
from .exchange import Channel, Outcome, Wiring, run_exchanges
from .measure import Plan
from .sources import Sources

READ_BYTES = 16_384


class HttpChannel:
    """A keep-alive connection; opened again when the server ends it after an answer."""

    __slots__ = ("_head", "_idle", "_plan", "_received", "_sock", "_source", "_wiring", "failure", "reopened")

    def __init__(self, plan: Plan, wiring: Wiring, source: str, *, path: str, body_bytes: int) -> None:
        self._plan = plan
        self._wiring = wiring
        self._source = source
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nUser-Agent: load\r\n"
            f"Content-Type: application/json\r\nContent-Length: {body_bytes}\r\n\r\n"
        ).encode()
        self._received = b""
        self._idle = True
        self.failure = ""
        self.reopened = 0
        self._sock = self._open()

    def start(self, number: int) -> None:
        self._idle = False
        request = self._head + self._body(number)
        if self._sock.send(request) != len(request):
            raise OSError("short write")

    def ready(self, events: int) -> Outcome:
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return Outcome.PENDING
        except OSError as error:
            return self._fail(f"connection lost: {error}")
        if not data:
            if self._idle:
                self._reopen()
                return Outcome.PENDING
            return self._fail("closed before the answer")
        if self._received:
            data = self._received + data
        return self._answer(data)

    def overdue(self, waited_s: float) -> Outcome:
        return Outcome.PENDING if waited_s < self._plan.answer_timeout else self._fail("no answer in time")

    def close(self) -> None:
        self._sock.close()

    def _body(self, number: int) -> bytes:
        raise NotImplementedError

    def _accepted(self, status: bytes, body: bytes) -> bool:
        raise NotImplementedError

    def _answer(self, data: bytes) -> Outcome:
        end = data.find(b"\r\n\r\n")
        length = _content_length(data[: end + 2]) if end >= 0 else 0
        if end < 0 or len(data) < end + 4 + length:
            self._received = data
            return Outcome.PENDING
        if len(data) > end + 4 + length:
            return self._fail(f"more than one answer: {data[:200]!r}")
        self._received = b""
        if not self._accepted(data[9:12], data[end + 4 :]):
            return self._fail(f"not accepted: {data[:250]!r}")
        self._idle = True
        if b"onnection: close" in data[:end]:
            self._reopen()
        return Outcome.ANSWERED

    def _open(self) -> socket.socket:
        source = (self._source, 0) if self._source else None
        sock = socket.create_connection((self._plan.host, self._plan.port), self._plan.answer_timeout, source)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._wiring.watch(sock.fileno(), self)
        return sock

    def _reopen(self) -> None:
        self._sock.close()
        self._received = b""
        self._idle = True
        self.reopened += 1
        self._sock = self._open()

    def _fail(self, reason: str) -> Outcome:
        self.failure = reason
        self._reopen()
        return Outcome.FAILED


def _content_length(head: bytes) -> int:
    """The value of Content-Length in `head`; 0 when there is none."""
    at = head.find(b"Content-Length: ")
    if at < 0:
        head = head.lower()
        at = head.find(b"content-length: ")
        if at < 0:
            return 0
    return int(head[at + 16 : head.find(b"\r", at)])


class TelemetryChannel(HttpChannel):
    """POST /api/v1/{token}/telemetry; accepted with 200."""

    __slots__ = ("_server_time", "_ts_ms")

    def __init__(
        self, plan: Plan, wiring: Wiring, source: str, *, token: str, ts_base_ms: int, server_time: bool
    ) -> None:
        self._ts_ms = ts_base_ms
        self._server_time = server_time
        length = len(bodies.flat_telemetry(0) if server_time else bodies.telemetry(ts_base_ms, 0))
        super().__init__(plan, wiring, source, path=f"/api/v1/{token}/telemetry", body_bytes=length)

    def _body(self, number: int) -> bytes:
        if self._server_time:
            return bodies.flat_telemetry(number)
        self._ts_ms += 1
        return bodies.telemetry(self._ts_ms, number)

    def _accepted(self, status: bytes, body: bytes) -> bool:
        return status == b"200"


class ProvisionChannel(HttpChannel):
    """POST /api/v1/provision; accepted with 200 and SUCCESS."""

    __slots__ = ("_bodies",)

    def __init__(self, plan: Plan, wiring: Wiring, source: str, provision_bodies: bodies.ProvisionBodies) -> None:
        self._bodies = provision_bodies
        super().__init__(plan, wiring, source, path="/api/v1/provision", body_bytes=provision_bodies.length)

    def _body(self, number: int) -> bytes:
        return self._bodies.body(number)

    def _accepted(self, status: bytes, body: bytes) -> bool:
        return status == b"200" and b'"SUCCESS"' in body


def _channels(options: argparse.Namespace, plan: Plan, wiring: Wiring) -> list[HttpChannel]:
    sources = Sources(plan.host, options.sources)
    if options.what == "provision":
        who = {"prefix": options.prefix, "key": options.key, "secret": options.secret}
        requests = bodies.CsrBodies(**who, count=options.csrs) if options.csrs else bodies.ProvisionBodies(**who)
        return [ProvisionChannel(plan, wiring, sources.take(), requests) for _ in range(options.connections)]
    tokens = measure.tokens_from(options.tokens)
    return [
        TelemetryChannel(
            plan,
            wiring,
            sources.take(),
            token=tokens[index % len(tokens)],
            ts_base_ms=options.ts_base + index // len(tokens) * 1_000_000_000,
            server_time=options.server_time,
        )
        for index in range(options.connections)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run one load and print its result; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("telemetry", "provision"))
    measure.add_arguments(parser)
    measure.add_telemetry_arguments(parser)
    measure.add_provision_arguments(parser)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--csrs", type=int, default=0, help="provision: with one of so many signing requests")
    parser.add_argument("--sources", type=int, default=1, help="local addresses to connect from")
    options = parser.parse_args(arguments)
    plan, wiring = measure.plan_from(options), Wiring()
    connections = _channels(options, plan, wiring)
    channels: list[Channel] = list(connections)
    meter, load = run_exchanges(plan, wiring, channels)
    reopened = sum(connection.reopened for connection in connections)
    result = meter.result(sent=load.sent, acknowledged=load.acknowledged, extra={"reopened": reopened})
    measure.print_result(result)
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
