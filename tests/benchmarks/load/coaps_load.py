"""CoAP load over DTLS: `python -m tests.benchmarks.load.coaps_load telemetry|handshake --port N …`.

Telemetry is that of `coap_load`, on sessions that are opened before the clock starts. A handshake is a whole one,
cookie and client certificate included, from a socket of its own; it ends with a close_notify. Prints one line of
JSON; exits 1 when anything failed.
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from . import measure
from .coap_load import READ_BYTES, TelemetryChannel
from .exchange import Channel, Outcome, Wiring, run_exchanges
from .measure import Plan
from .sources import Sources

MTU_BYTES = 1_400
FLIGHT_BYTES = 65_536
OPEN_TIMEOUT_S = 10.0


def client_context(options: argparse.Namespace) -> SSL.Context:
    """Shows the chain in `--certificate`; takes any server."""
    context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
    context.set_options(SSL.OP_NO_QUERY_MTU)
    context.use_certificate_chain_file(str(options.certificate))
    context.use_privatekey_file(str(options.private_key))
    return context


def new_connection(context: SSL.Context) -> SSL.Connection:
    connection = SSL.Connection(context)
    connection.set_connect_state()
    connection.set_ciphertext_mtu(MTU_BYTES)
    return connection


def is_open_after(connection: SSL.Connection, datagram: bytes, sock: socket.socket) -> bool:
    """Goes on with a handshake by what came, and sends the next flight. Raises: SSL.Error."""
    if datagram:
        connection.bio_write(datagram)
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        sock.send(connection.bio_read(FLIGHT_BYTES))  # joined: the loopback carries it
        return False
    return True


class CoapsTelemetryChannel(TelemetryChannel):
    """An endpoint with a session."""

    __slots__ = ("_connection", "_context")

    def __init__(self, context: SSL.Context, *arguments: Any, **options: Any) -> None:
        self._context = context
        super().__init__(*arguments, **options)

    def ready(self, events: int) -> Outcome:
        try:
            self._connection.bio_write(self._sock.recv(READ_BYTES))
            message = self._connection.recv(READ_BYTES)
        except (BlockingIOError, SSL.WantReadError):
            return Outcome.PENDING
        except (OSError, SSL.Error) as error:
            self.failure = f"cannot receive: {error!r}"
            return Outcome.FAILED
        return self._message(message)

    def _send(self, message: bytes) -> None:
        self._connection.send(message)
        super()._send(self._connection.bio_read(len(message) + 100))

    def _open(self) -> None:
        super()._open()
        self._connection = new_connection(self._context)
        self._sock.settimeout(OPEN_TIMEOUT_S)
        is_open = is_open_after(self._connection, b"", self._sock)
        while not is_open:
            is_open = is_open_after(self._connection, self._sock.recv(FLIGHT_BYTES), self._sock)
        self._sock.setblocking(False)


class HandshakeChannel:
    """One handshake at a time."""

    __slots__ = ("_connection", "_context", "_plan", "_sock", "_sources", "_wiring", "failure")

    def __init__(self, context: SSL.Context, plan: Plan, wiring: Wiring, sources: Sources) -> None:
        self._context = context
        self._plan = plan
        self._wiring = wiring
        self._sources = sources
        self._sock: socket.socket | None = None
        self._connection: SSL.Connection | None = None
        self.failure = ""

    def start(self, number: int) -> None:
        self.close()
        self._sock = sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        source = self._sources.take()
        if source:
            sock.bind((source, 0))
        sock.connect((self._plan.host, self._plan.port))
        self._wiring.watch(sock.fileno(), self)
        self._connection = new_connection(self._context)
        is_open_after(self._connection, b"", sock)

    def ready(self, events: int) -> Outcome:
        sock, connection = self._sock, self._connection
        if sock is None or connection is None:
            return Outcome.PENDING
        try:
            if not is_open_after(connection, sock.recv(FLIGHT_BYTES), sock):
                return Outcome.PENDING
            connection.shutdown()
            sock.send(connection.bio_read(FLIGHT_BYTES))
        except BlockingIOError:
            return Outcome.PENDING
        except (OSError, SSL.Error) as error:
            self.failure = f"handshake failed: {error!r}"
            self.close()
            return Outcome.FAILED
        self.close()
        return Outcome.ANSWERED

    def overdue(self, waited_s: float) -> Outcome:
        if self._connection is not None and self._sock is not None and self._connection.DTLSv1_handle_timeout():
            self._sock.send(self._connection.bio_read(FLIGHT_BYTES))
        if waited_s < self._plan.answer_timeout:
            return Outcome.PENDING
        self.failure = "not finished in time"
        return Outcome.FAILED

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = self._connection = None


def _channels(options: argparse.Namespace, plan: Plan, wiring: Wiring) -> list[Channel]:
    context, sources = client_context(options), Sources(plan.host, options.sources)
    if options.what == "handshake":
        return [HandshakeChannel(context, plan, wiring, sources) for _ in range(options.connections)]
    tokens = measure.tokens_from(options.tokens)
    return [
        CoapsTelemetryChannel(
            context, plan, wiring, sources, token=tokens[index % len(tokens)],
            ts_base_ms=options.ts_base + index // len(tokens) * 1_000_000_000, server_time=options.server_time,
        )
        for index in range(options.connections)
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run one load and print its result; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("telemetry", "handshake"))
    measure.add_arguments(parser)
    measure.add_telemetry_arguments(parser)
    parser.add_argument("--certificate", type=Path, required=True, help="PEM file of what the client shows")
    parser.add_argument("--private-key", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=200, help="endpoints, each with one request outstanding")
    parser.add_argument("--sources", type=int, default=16, help="local addresses to send from")
    options = parser.parse_args(arguments)
    plan, wiring = measure.plan_from(options), Wiring()
    meter, load = run_exchanges(plan, wiring, _channels(options, plan, wiring))
    result = meter.result(sent=load.sent, acknowledged=load.acknowledged)
    measure.print_result(result)
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
