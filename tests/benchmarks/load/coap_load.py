"""CoAP load: `python -m tests.benchmarks.load.coap_load telemetry|provision --port N …`.

Each channel is an endpoint (a UDP socket of its own) with one confirmable POST outstanding, as RFC 7252 asks
of a client (§4.7). Piggy-backed and separate responses both count. A request without an answer is sent again
with the same message id after 2 s, 4 s, … (§4.2) and counted. Prints one line of JSON; exits 1 when anything
failed.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import sys

from . import bodies, measure
from .exchange import Channel, Outcome, Wiring, run_exchanges
from .measure import Plan
from .sources import Sources

ACK_TIMEOUT_S = 2.0
CON, NON, ACK, RST = range(4)
POST = 0x02
CREATED, CHANGED = 0x41, 0x44
URI_PATH, CONTENT_FORMAT, JSON = 11, 12, b"\x32"
HEAD = struct.Struct(">BBHI")  # version/type/token length, code, message id, token of four bytes
TOKEN_BYTES = 4
IDS_PER_SOCKET = 60_000
"""Message ids must not repeat within 247 s per endpoint (§4.4); after so many a new socket takes over."""
READ_BYTES = 2048


class CoapChannel:
    """One endpoint."""

    __slots__ = (
        "_ids_left",
        "_message_id",
        "_options",
        "_plan",
        "_request",
        "_retransmit_at",
        "_sock",
        "_sources",
        "_token",
        "_wait",
        "_wiring",
        "failure",
        "retransmissions",
    )

    def __init__(self, plan: Plan, wiring: Wiring, sources: Sources, *, path: tuple[str, ...]) -> None:
        self._plan = plan
        self._wiring = wiring
        self._sources = sources
        self._options = _options(path)
        self._request = b""
        self._token = random.getrandbits(32)
        self._message_id = 0
        self._retransmit_at = self._wait = ACK_TIMEOUT_S
        self.failure = ""
        self.retransmissions = 0
        self._open()

    def start(self, number: int) -> None:
        if not self._ids_left:
            self._sock.close()
            self._open()
        self._ids_left -= 1
        self._message_id = (self._message_id + 1) & 0xFFFF
        self._token = (self._token + 1) & 0xFFFFFFFF
        head = HEAD.pack(0x40 | CON << 4 | TOKEN_BYTES, POST, self._message_id, self._token)
        self._request = head + self._options + self._body(number)
        self._retransmit_at = self._wait = ACK_TIMEOUT_S
        self._send(self._request)

    def ready(self, events: int) -> Outcome:
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return Outcome.PENDING
        except OSError as error:
            self.failure = f"cannot receive: {error}"
            return Outcome.FAILED
        if len(data) < 4:
            self.failure = f"not a CoAP message: {data.hex()}"
            return Outcome.FAILED
        return self._message(data)

    def overdue(self, waited_s: float) -> Outcome:
        if waited_s >= self._plan.answer_timeout:
            self.failure = "no answer in time"
            return Outcome.FAILED
        if waited_s >= self._retransmit_at:
            self._wait *= 2
            self._retransmit_at += self._wait
            self.retransmissions += 1
            self._send(self._request)
        return Outcome.PENDING

    def close(self) -> None:
        self._sock.close()

    def _message(self, data: bytes) -> Outcome:
        kind, code = data[0] >> 4 & 3, data[1]
        message_id = data[2] << 8 | data[3]
        if kind == RST:
            self.failure = "reset by the server"
            return Outcome.FAILED if message_id == self._message_id else Outcome.PENDING
        if code == 0:  # an empty ACK: the response comes by itself
            self._retransmit_at = float("inf")
            return Outcome.PENDING
        if kind == CON:
            self._send(bytes((0x60, 0, data[2], data[3])))
        if data[0] & 0x0F != TOKEN_BYTES or int.from_bytes(data[4:8], "big") != self._token:
            return Outcome.PENDING  # the second answer to a request that was sent twice
        if kind == ACK and message_id != self._message_id:
            self.failure = "acknowledgement with another message id"
            return Outcome.FAILED
        if not self._accepted(code, data):
            self.failure = f"not accepted: {code >> 5}.{code & 31:02d} {data[8:]!r}"
            return Outcome.FAILED
        return Outcome.ANSWERED

    def _body(self, number: int) -> bytes:
        raise NotImplementedError

    def _accepted(self, code: int, data: bytes) -> bool:
        raise NotImplementedError

    def _send(self, message: bytes) -> None:
        try:
            self._sock.send(message)
        except BlockingIOError:
            return  # as good as lost on the way: sent again later

    def _open(self) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        source = self._sources.take()
        if source:
            sock.bind((source, 0))
        sock.connect((self._plan.host, self._plan.port))
        self._sock = sock
        self._ids_left = IDS_PER_SOCKET
        self._wiring.watch(sock.fileno(), self)


def _options(path: tuple[str, ...]) -> bytes:
    """Uri-Path per segment, Content-Format JSON, payload marker (§3.1)."""
    encoded, previous = b"", 0
    for number, value in [(URI_PATH, segment.encode()) for segment in path] + [(CONTENT_FORMAT, JSON)]:
        delta, previous, length = number - previous, number, len(value)
        if length < 13:
            encoded += bytes((delta << 4 | length,)) + value
        else:
            encoded += bytes((delta << 4 | 13, length - 13)) + value
    return encoded + b"\xff"


class TelemetryChannel(CoapChannel):
    """POST api/v1/{token}/telemetry; accepted with 2.01 or 2.04."""

    __slots__ = ("_server_time", "_ts_ms")

    def __init__(
        self, plan: Plan, wiring: Wiring, sources: Sources, *, token: str, ts_base_ms: int, server_time: bool
    ) -> None:
        super().__init__(plan, wiring, sources, path=("api", "v1", token, "telemetry"))
        self._ts_ms = ts_base_ms
        self._server_time = server_time

    def _body(self, number: int) -> bytes:
        if self._server_time:
            return bodies.flat_telemetry(number)
        self._ts_ms += 1
        return bodies.telemetry(self._ts_ms, number)

    def _accepted(self, code: int, data: bytes) -> bool:
        return code in (CREATED, CHANGED)


class ProvisionChannel(CoapChannel):
    """POST api/v1/provision; accepted with 2.01 and SUCCESS."""

    __slots__ = ("_bodies",)

    def __init__(self, plan: Plan, wiring: Wiring, sources: Sources, provision_bodies: bodies.ProvisionBodies) -> None:
        super().__init__(plan, wiring, sources, path=("api", "v1", "provision"))
        self._bodies = provision_bodies

    def _body(self, number: int) -> bytes:
        return self._bodies.body(number)

    def _accepted(self, code: int, data: bytes) -> bool:
        return code == CREATED and b'"SUCCESS"' in data


def _channels(options: argparse.Namespace, plan: Plan, wiring: Wiring) -> list[CoapChannel]:
    sources = Sources(plan.host, options.sources)
    if options.what == "provision":
        requests = bodies.ProvisionBodies(prefix=options.prefix, key=options.key, secret=options.secret)
        return [ProvisionChannel(plan, wiring, sources, requests) for _ in range(options.connections)]
    tokens = measure.tokens_from(options.tokens)
    return [
        TelemetryChannel(
            plan,
            wiring,
            sources,
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
    parser.add_argument("--connections", type=int, default=200, help="endpoints, each with one request outstanding")
    parser.add_argument("--sources", type=int, default=16, help="local addresses to send from")
    options = parser.parse_args(arguments)
    plan, wiring = measure.plan_from(options), Wiring()
    endpoints = _channels(options, plan, wiring)
    channels: list[Channel] = list(endpoints)
    meter, load = run_exchanges(plan, wiring, channels)
    retransmissions = sum(endpoint.retransmissions for endpoint in endpoints)
    result = meter.result(sent=load.sent, acknowledged=load.acknowledged, extra={"retransmissions": retransmissions})
    measure.print_result(result)
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
