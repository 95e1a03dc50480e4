"""The UDP socket of DTLS: datagrams to `DtlsServer`, the messages in them to the same places as plain ones."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from OpenSSL import SSL
from twisted.logger import Logger

from cloud_core.core.line_ration import LineRation
from cloud_core.transports.coap.dtls import IDLE_CHECK_S, SWEEP_S, DtlsLimits, DtlsServer
from cloud_core.transports.coap.endpoint import RECEIVE_BYTES, Endpoint
from cloud_core.transports.coap.outbox import MSG_TRUNC, Address, Ancillary, plain_address

log = Logger()

MAX_LINES = 100  # of the log about handshakes that fail, in LineRation's span
_MAX_DATAGRAM_BYTES = 17_000  # a record of the largest size


class DtlsEndpoint(Endpoint):
    """As `Endpoint`; whoever sends and receives here deals in messages, each of its session."""

    max_datagram_bytes = _MAX_DATAGRAM_BYTES

    def __init__(
        self,
        opened: socket.socket,
        loop: asyncio.AbstractEventLoop,
        context: SSL.Context,
        *,
        limits: DtlsLimits | None = None,
    ) -> None:
        super().__init__(opened, loop)
        self.server = DtlsServer(
            context, send=self._send, deliver=self._deliver, ended=self._ended, failed=self._failed, limits=limits
        )
        self.session_ended: Callable[[Address], None] = lambda _address: None
        self._lines = LineRation(MAX_LINES)
        self._sweep_call: asyncio.TimerHandle | None = None
        self._idle_call: asyncio.TimerHandle | None = None

    def sendmsg(self, data: bytes, ancillary: Ancillary, flags: int, address: Address) -> None:
        """Sends a message through its session, or drops it."""
        self.server.send(data, address)

    def close(self) -> None:
        for call in (self._sweep_call, self._idle_call):
            if call is not None:
                call.cancel()
        self._sweep_call = self._idle_call = None
        self.server.close()
        super().close()

    # -- between socket, server and messages --------------------------------------------------------

    def taker(self) -> Callable[[bytes, Ancillary, int, Address], None]:
        return self._take

    def _take(self, data: bytes, ancillary: Ancillary, flags: int, address: Address) -> None:
        if flags & MSG_TRUNC:
            return  # no record is as large
        try:
            self.server.receive(data, ancillary, address, self._loop.time())
        except Exception:
            log.failure("A DTLS datagram could not be handled")

    def read(self) -> None:
        super().read()
        self._call_later()

    def _send(self, datagram: bytes, ancillary: Ancillary, peer: Address) -> None:
        super().sendmsg(datagram, ancillary, 0, peer)

    def _deliver(self, message: bytes, ancillary: Ancillary, address: Address) -> None:
        assert self.protocol is not None
        flags = MSG_TRUNC if len(message) > RECEIVE_BYTES else 0  # as where the kernel cuts it
        self.protocol.datagram_msg_received(message, ancillary, flags, address)

    def _ended(self, address: Address) -> None:
        self.session_ended(address)

    def _failed(self, peer: Address, reason: str) -> None:
        is_due, left_out = self._lines.take(self._loop.time())
        if left_out:
            log.warn("{left_out} more lines about DTLS handshakes were left out", left_out=left_out)
        if is_due:
            log.warn("DTLS handshake of {peer} failed: {why}", peer=f"{plain_address(peer)} port {peer[1]}", why=reason)

    # -- time ---------------------------------------------------------------------------------------

    def _call_later(self) -> None:
        if self._sweep_call is None and self.server.handshake_count:
            self._sweep_call = self._loop.call_later(SWEEP_S, self._sweep)
        if self._idle_call is None and self.server.session_count:
            self._idle_call = self._loop.call_later(IDLE_CHECK_S, self._drop_idle)

    def _sweep(self) -> None:
        self._sweep_call = None
        self.server.sweep(self._loop.time())
        self._call_later()

    def _drop_idle(self) -> None:
        self._idle_call = None
        self.server.drop_idle(self._loop.time())
        self._call_later()
