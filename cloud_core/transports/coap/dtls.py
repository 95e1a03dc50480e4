"""DTLS 1.2 for all peers of one UDP socket; no sockets, threads or clocks here.

A peer's messages carry the number of its session in their address, in the place of the IPv6 flow label, which is
0 elsewhere: whatever is remembered by address (duplicates, observations, blocks) ends with the session.

What makes memory: nothing before the cookie is back; then a handshake, of which there are at most so many in all
and per host; then a session. Where a bound is met the least recently heard gives way; of sessions first those of peers
that no request has identified, for anybody can open them.

Source: RFC 6347, above all sections 4.2.1 and 4.2.8; wire-contract.md section 4.5.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from OpenSSL import SSL

from cloud_core.transports.coap.dtls_hello import (
    ALERT,
    APPLICATION_DATA,
    RECORD_HEADER_BYTES,
    Cookies,
    Hello,
    hello_verify_request,
    is_client_hello,
    is_framed,
    is_moderate,
    is_protected,
    read_hello,
)
from cloud_core.transports.coap.dtls_session import Association, AssociationFailed
from cloud_core.transports.coap.outbox import Address, Ancillary

SWEEP_S = 0.25  # how often `sweep` wants to be called while handshakes are under way
IDLE_CHECK_S = 60.0  # and `drop_idle` while there are sessions

Datagram = Callable[[bytes, Ancillary, Address], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DtlsLimits:
    """Bounds of memory and time. A session takes about 90 KB, nearly all of it OpenSSL's buffers."""

    max_handshakes: int = 1_000
    max_handshakes_per_host: int = 250  # many devices may stand behind one NAT
    max_sessions: int = 10_000
    handshake_s: float = 10.0
    idle_s: float = 86_400.0


class DtlsServer:
    """Handshakes and sessions. Gives messages to `deliver`, datagrams to `send`; tells of what ends."""

    def __init__(
        self,
        context: SSL.Context,
        *,
        send: Datagram,
        deliver: Datagram,
        ended: Callable[[Address], None],
        failed: Callable[[Address, str], None],
        limits: DtlsLimits | None = None,
    ) -> None:
        """`ended` gets the address of a session's messages, `failed` a peer and why its handshake came to nothing."""
        context.set_options(SSL.OP_NO_QUERY_MTU)
        # Asked of by OpenSSL once more, after `_hello` has looked.
        context.set_cookie_generate_callback(lambda _connection: b"-")
        context.set_cookie_verify_callback(lambda _connection, _cookie: True)
        self._context = context
        self._send = send
        self._deliver = deliver
        self._ended = ended
        self._failed = failed
        self.opened = self.failed = 0  # handshakes since the start
        self._limits = limits or DtlsLimits()
        self._cookies = Cookies()
        self._numbers = count(1)
        # By peer, the least recently heard first.
        self._handshakes: OrderedDict[Address, Association] = OrderedDict()
        self._handshakes_of_host: dict[str, OrderedDict[Address, None]] = {}
        self._sessions: OrderedDict[Address, Association] = OrderedDict()
        self._by_number: dict[int, Association] = {}  # sessions
        self._strangers: OrderedDict[int, Association] = OrderedDict()  # sessions, some of them known by now

    @property
    def handshake_count(self) -> int:
        return len(self._handshakes)

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    def is_open(self, address: Address) -> bool:
        """Whether the session to which a message address belongs is open."""
        return address[2] in self._by_number

    def of(self, address: Address) -> Association | None:
        """The session to which a message address belongs."""
        return self._by_number.get(address[2])

    # -- datagrams in -----------------------------------------------------------------------------

    def receive(self, datagram: bytes, ancillary: Ancillary, peer: Address, now_s: float) -> None:
        """Takes one datagram of any bytes."""
        if not datagram:
            return
        session = self._sessions.get(peer)
        if (
            session is not None
            and datagram[0] == APPLICATION_DATA
            and len(datagram) > RECORD_HEADER_BYTES
            and (datagram[11] << 8 | datagram[12]) + RECORD_HEADER_BYTES == len(datagram)
        ):
            self._take_message(session, datagram, ancillary, now_s)  # one record, as nearly all are
            return
        if not is_framed(datagram):
            return
        if is_client_hello(datagram):
            self._hello(datagram, ancillary, peer, now_s)
            return
        handshake = self._handshakes.get(peer)
        is_of_session = datagram[3:5] != b"\0\0" and datagram[0] in (ALERT, APPLICATION_DATA)
        if handshake is not None and (session is None or not is_of_session):
            self._go_on(handshake, datagram, now_s)
        elif session is not None:
            self._take_other(session, datagram, ancillary, now_s)
        # Records of a session that is over get no answer: the peer could not believe it (RFC 6347 section 4.1.2.7).

    def _take_message(self, session: Association, datagram: bytes, ancillary: Ancillary, now_s: float) -> None:
        try:
            message = session.opened(datagram)
        except AssociationFailed:
            self._dismiss(session)
            return
        if message is not None:  # else repeated, or not its
            session.ancillary, session.heard_s = ancillary, now_s
            self._sessions.move_to_end(session.peer)
            self._deliver(message, ancillary, session.address)

    def _take_other(self, session: Association, datagram: bytes, ancillary: Ancillary, now_s: float) -> None:
        """Several records, alerts, a flight of the handshake again."""
        session.take(datagram)
        self._read_all(session, ancillary, now_s)

    def _read_all(self, session: Association, ancillary: Ancillary, now_s: float) -> None:
        try:
            while (message := session.read()) is not None:
                session.ancillary, session.heard_s = ancillary, now_s
                self._sessions.move_to_end(session.peer)
                self._deliver(message, ancillary, session.address)
        except AssociationFailed:
            self._dismiss(session)
            return
        self._flush(session)

    # -- handshakes -------------------------------------------------------------------------------

    def _hello(self, datagram: bytes, ancillary: Ancillary, peer: Address, now_s: float) -> None:
        hello = read_hello(datagram)
        if hello is None:
            return
        if not self._cookies.is_right(hello.cookie, peer, now_s):
            self._send(hello_verify_request(hello, self._cookies.make(peer, now_s)), ancillary, peer)
            return
        session, handshake = self._sessions.get(peer), self._handshakes.get(peer)
        if handshake is not None and handshake.hello == hello.identity:
            self._go_on(handshake, datagram, now_s)  # a copy, which may have company
            return
        if session is not None and session.hello == hello.identity:
            self._take_other(session, datagram, ancillary, now_s)
            return
        if not hello.is_whole:
            self.failed += 1
            self._failed(peer, "ClientHello in fragments")
            return
        if handshake is not None:
            self._give_up(handshake)  # the device has begun anew
        self._begin(datagram, hello, ancillary, peer, now_s)

    def _begin(self, datagram: bytes, hello: Hello, ancillary: Ancillary, peer: Address, now_s: float) -> None:
        limits, of_host = self._limits, self._handshakes_of_host.setdefault(peer[0], OrderedDict())
        if len(of_host) >= limits.max_handshakes_per_host:
            self._fail(self._handshakes[next(iter(of_host))], "too many handshakes of this host are under way")
        elif len(self._handshakes) >= limits.max_handshakes:
            self._fail(next(iter(self._handshakes.values())), "too many handshakes are under way")
        handshake = Association(self._context, peer, next(self._numbers), hello.identity, ancillary, now_s)
        self._handshakes[peer] = handshake
        self._handshakes_of_host.setdefault(peer[0], of_host)[peer] = None
        try:
            handshake.accept(datagram)
        except AssociationFailed as error:
            self._flush(handshake)
            self._fail(handshake, str(error))
            return
        self._go_on(handshake, b"", now_s)

    def _go_on(self, handshake: Association, datagram: bytes, now_s: float) -> None:
        if not is_moderate(datagram):
            self._fail(handshake, "a message is too large, as a chain of certificates may be")
            return
        if datagram and is_protected(datagram) and not handshake.takes_early():
            return
        handshake.heard_s = now_s
        self._handshakes.move_to_end(handshake.peer)
        self._handshakes_of_host[handshake.peer[0]].move_to_end(handshake.peer)
        try:
            is_done = handshake.shake(datagram)
        except AssociationFailed as error:
            self._flush(handshake)
            self._fail(handshake, str(error))
            return
        self._flush(handshake)
        if is_done:
            self._open(handshake, now_s)

    def _open(self, session: Association, now_s: float) -> None:
        """A finished handshake takes the place of whatever session the peer had (RFC 6347 section 4.2.8)."""
        self._give_up(session, is_over=False)
        former = self._sessions.get(session.peer)
        if former is not None:
            self._forget(former)
        elif len(self._sessions) >= self._limits.max_sessions:
            self._dismiss(self._least_needed())
        self._sessions[session.peer] = session
        self.opened += 1
        self._by_number[session.address[2]] = self._strangers[session.address[2]] = session
        self._read_all(session, session.ancillary, now_s)  # what came behind, or ahead of, the last flight

    def _least_needed(self) -> Association:
        """The oldest session of a peer that nobody knows yet; without one the least recently heard."""
        while self._strangers:
            _, oldest = self._strangers.popitem(last=False)
            if not oldest.is_identified:
                return oldest
        return next(iter(self._sessions.values()))

    def _fail(self, handshake: Association, reason: str) -> None:
        self._give_up(handshake)
        self.failed += 1
        self._failed(handshake.peer, reason)

    def _give_up(self, handshake: Association, *, is_over: bool = True) -> None:
        peer = handshake.peer
        del self._handshakes[peer]
        of_host = self._handshakes_of_host[peer[0]]
        del of_host[peer]
        if not of_host:
            del self._handshakes_of_host[peer[0]]
        if is_over:
            handshake.release()

    # -- messages out -----------------------------------------------------------------------------

    def send(self, message: bytes, address: Address) -> None:
        """Sends a CoAP message through its session, or drops it when that is over."""
        session = self._by_number.get(address[2])
        if session is None:
            return
        try:
            self._send(session.protected(message), session.ancillary, session.peer)
        except AssociationFailed:
            self._dismiss(session)

    def _flush(self, association: Association) -> None:
        for datagram in association.written():
            self._send(datagram, association.ancillary, association.peer)

    # -- time, and ends ---------------------------------------------------------------------------

    def sweep(self, now_s: float) -> None:
        """Repeats what got lost in handshakes, and ends those that take too long."""
        for handshake in list(self._handshakes.values()):
            if now_s - handshake.began_s >= self._limits.handshake_s:
                self._fail(handshake, f"not finished within {self._limits.handshake_s:g} s")
                continue
            try:
                handshake.retransmit()
            except AssociationFailed as error:
                self._fail(handshake, str(error))
                continue
            self._flush(handshake)

    def drop_idle(self, now_s: float) -> None:
        """Ends the sessions that have been silent for too long."""
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if now_s - oldest.heard_s < self._limits.idle_s:
                return
            self._dismiss(oldest)

    def close(self) -> None:
        """Ends everything; open sessions are told."""
        for handshake in list(self._handshakes.values()):
            self._give_up(handshake)
        for session in list(self._sessions.values()):
            self._dismiss(session)

    def _dismiss(self, session: Association) -> None:
        """Says close_notify, and forgets the session."""
        if session.is_over:
            return
        session.say_goodbye()
        self._flush(session)
        self._forget(session)

    def _forget(self, session: Association) -> None:
        del self._sessions[session.peer]
        del self._by_number[session.address[2]]
        self._strangers.pop(session.address[2], None)
        session.release()
        self._ended(session.address)
