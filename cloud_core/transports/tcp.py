"""TCP connections for very many peers: Twisted's own, with three short cuts.

- `write()` tries `send()` at once instead of asking the reactor for one more turn (small messages: 2.6 times
  the throughput). It falls back to the parent's way whenever anything is special: data are buffered already,
  the connection is closing, TLS is on, or a producer is registered.
- Readiness comes from one epoll descriptor of our own that holds all connections and is itself a single reader
  of the reactor. Opening, hearing and closing a connection then cost one call each, where the reactor builds and
  tears down five objects; events of one turn are handled in one go.
- A connection ends without `shutdown()` (the descriptor is ours alone, so `close()` sends the FIN) and without
  asking to be told that it is writable when there is nothing left to write. Half-closed connections are not
  kept: end of input is the end.

Where the system has no epoll (macOS), the reactor watches each connection as usual.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Port
from twisted.logger import LogEvent, Logger, globalLogPublisher
from twisted.python.failure import Failure

from cloud_core.core.line_ration import LineRation

log = Logger()

_WOULD_BLOCK = (errno.EWOULDBLOCK, errno.EAGAIN)
_IN = getattr(select, "EPOLLIN", 1)
_OUT = getattr(select, "EPOLLOUT", 4)
MAX_EVENTS = 256  # of one turn, so that timers and other readers are not kept waiting
MAX_ACCEPTS = 64  # of one turn
ACCEPTS_WHEN_BEHIND = 16  # where a turn had all the events it may have: a connection is good for several of them
MAX_LINES = 5  # of the log about connections that could not be accepted, in LineRation's span
READ_BYTES = 65_536
_REASONS = {ConnectionDone: Failure(ConnectionDone()), ConnectionLost: Failure(ConnectionLost())}


class Poller:
    """The descriptor that watches all connections of a listener; to the reactor a reader."""

    def __init__(self, reactor: Any) -> None:
        # `reactor` is untyped: mypy reads nothing from zope interfaces.
        self._reactor = reactor
        self._epoll = select.epoll()
        self._watched: dict[int, PolledServer] = {}
        self._ending: list[PolledServer] = []
        self._is_polling = False
        self._is_listening = True
        self.is_behind = False  # the last turn has left something for the next

    def fileno(self) -> int:
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        return "tcp"

    def watch(self, descriptor: int, connection: PolledServer, before: int, after: int) -> None:
        """Changes which events of the connection are heard, from the mask `before` to `after`."""
        if not after:
            del self._watched[descriptor]
            self._epoll.unregister(descriptor)
        elif before:
            self._epoll.modify(descriptor, after)
        else:
            self._watched[descriptor] = connection
            self._epoll.register(descriptor, after)

    def forget(self, descriptor: int) -> None:
        """The descriptor is about to be closed, which ends its registration."""
        self._watched.pop(descriptor, None)
        if not self._watched and not self._is_listening:
            self._close()

    def end_soon(self, connection: PolledServer) -> None:
        """Announces the end of the connection after the code that asked for it has returned."""
        self._ending.append(connection)
        if len(self._ending) == 1 and not self._is_polling:
            self._reactor.callLater(0, self._end)

    def stop_listening(self) -> None:
        """No connection comes any more; with the last one the descriptor is closed."""
        self._is_listening = False
        if not self._watched:
            self._close()

    def doRead(self) -> None:
        """One turn: what has happened on all connections. A stale event costs one read that finds nothing."""
        watched = self._watched
        self._is_polling = True
        found = self._epoll.poll(0, MAX_EVENTS)
        self.is_behind = len(found) == MAX_EVENTS
        for descriptor, events in found:
            connection = watched.get(descriptor)
            if connection is not None:
                connection.happened(events)
        self._is_polling = False
        if self._ending:
            self._end()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops, and all connections with it."""
        for connection in list(self._watched.values()):
            connection.connectionLost(reason)

    def _end(self) -> None:
        ending, self._ending = self._ending, []
        for connection in ending:
            connection.connectionLost(_REASONS[ConnectionDone])

    def _close(self) -> None:
        if not self._epoll.closed:
            self._reactor.removeReader(self)
            self._epoll.close()


class FastServer(tcp.Server):
    """A connection whose `write()` sends immediately when it can."""

    dataBuffer: bytes  # of twisted: what is being sent, of which `offset` bytes are gone, and what comes behind it
    offset: int
    _tempDataLen: int

    @property
    def unsent_bytes(self) -> int:
        """Written, and not taken by the system yet."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def stand_for(self, host: str, port: int) -> None:
        """A load balancer has said whom this connection is for: from now on that is its peer."""
        self._addressType = IPv6Address if ":" in host else IPv4Address
        self.client = (host, port)

    def write(self, data: bytes) -> None:
        if (
            self.TLS
            or self.dataBuffer
            or self._tempDataBuffer
            or self.disconnecting
            or self._writeDisconnecting
            or not self.connected
            or self.producer is not None
        ):
            super().write(data)
            return
        try:
            sent = self.socket.send(data)
        except OSError as error:
            if error.errno not in _WOULD_BLOCK:
                super().write(data)  # let the parent find the failure and report it its way
                return
            sent = 0
        if sent < len(data):
            super().write(data[sent:])


class PolledServer(FastServer):
    """A connection that a `Poller` watches."""

    _shouldShutdown = False
    _mask = 0
    server: Any  # the FastPort, which twisted declares more loosely
    protocol: Any  # mypy reads nothing from zope interfaces
    producer: Any

    def happened(self, events: int) -> None:
        """Acts on what epoll says; errors and hang-ups show in the read or write that they fail."""
        why: Any = None
        try:
            if self._mask & _IN and events & ~_OUT:
                why = self.doRead()
            if why is None and self._mask & _OUT and events & ~_IN:
                why = self.doWrite()
        except Exception as error:
            log.failure("A connection failed")
            why = error
        if why is not None:
            self.connectionLost(_REASONS.get(type(why)) or Failure(why))

    def doRead(self) -> Any:
        try:
            data = self.socket.recv(READ_BYTES)
        except OSError as error:
            return None if error.errno in _WOULD_BLOCK else CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def loseConnection(self, *args: Any) -> None:
        if self.TLS or self.dataBuffer or self._tempDataBuffer or self.producer is not None or self._mask & _OUT:
            super().loseConnection(*args)
        elif self.connected and not self.disconnecting:
            self.disconnecting = 1
            self._listen_for(0)
            self.server.poller.end_soon(self)

    def connectionLost(self, reason: Failure) -> None:
        if not hasattr(self, "socket"):
            return  # announced already
        self.disconnected, self.connected, self._mask = 1, 0, 0
        self.server.poller.forget(self.socket.fileno())
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self._closeSocket(reason.type is not ConnectionAborted)
        protocol = self.protocol
        del self.protocol, self.socket, self.fileno
        try:
            protocol.connectionLost(reason)
        except Exception:  # for the reactor it would be an error of the poller, which has all the other connections
            log.failure("A connection could not be ended properly")

    def startReading(self) -> None:
        self._listen_for(self._mask | _IN)

    def stopReading(self) -> None:
        self._listen_for(self._mask & ~_IN)

    def startWriting(self) -> None:
        self._listen_for(self._mask | _OUT)

    def stopWriting(self) -> None:
        self._listen_for(self._mask & ~_OUT)

    def _listen_for(self, mask: int) -> None:
        if mask != self._mask and hasattr(self, "socket"):
            self.server.poller.watch(self.socket.fileno(), self, self._mask, mask)
            self._mask = mask


class TurnedAway:
    """Hears what Twisted says of connections that it could not accept, and passes few of it on: while no descriptor is
    left, that is a line for each peer that comes."""

    def __init__(self) -> None:
        self._ration = LineRation(MAX_LINES)

    def __call__(self, event: LogEvent) -> None:
        is_allowed, left_out = self._ration.take(time.monotonic())
        if left_out:
            log.warn(
                "{left_out} more lines about connections that could not be accepted; where descriptors are short, raise"
                " the limit of open files (LimitNOFILE=, ulimit -n)",
                left_out=left_out,
            )
        if is_allowed:
            globalLogPublisher(event)


class FastPort(Port):
    """A listening TCP port whose connections are watched by a `Poller` where there is epoll."""

    transport = FastServer
    poller: Poller
    _logger = Logger(observer=TurnedAway())  # type: ignore[arg-type]  # mypy reads nothing from zope interfaces

    def startListening(self) -> None:
        super().startListening()
        if hasattr(select, "epoll"):
            self.transport = PolledServer
            self.poller = Poller(self.reactor)
            reactor: Any = self.reactor
            reactor.addReader(self.poller)

    def doRead(self) -> None:
        """Accepts what is waiting, and not more of it than can be served: in a storm, peers wait in the system's queue
        where they cost nothing, and not as open connections that nobody reads."""
        is_behind = self.transport is PolledServer and self.poller.is_behind
        self.numberAccepts = min(self.numberAccepts, ACCEPTS_WHEN_BEHIND if is_behind else MAX_ACCEPTS)
        super().doRead()

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        if self.transport is PolledServer:
            self.poller.stop_listening()


class SharedPort(FastPort):
    """One of several processes' listening ports of the same number."""

    def createInternetSocket(self) -> Any:
        created = super().createInternetSocket()
        created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return created
