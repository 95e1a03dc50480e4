"""One TCP connection: bytes in, bytes out, deadlines, back-pressure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Contract

from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloud_core.core.api import DeviceApi
from cloud_core.model import Identity, Peer, Role
from cloud_core.transports.mqtt.adapter import MqttAdapter
from cloud_core.transports.mqtt.ports import Counters
from shared.mqtt.codes import ReasonCode
from shared.mqtt.connection import Limits, ServerConnection
from shared.mqtt.errors import RemoteProtocolError

log = Logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds (product.md section 5, "Limits"; wire-contract.md section 2.1)."""

    connect_s: float = 10.0
    provision_session_s: float = 60.0
    inactivity_s: float = 600.0


class Host(Contract):
    """What a connection needs of the service that looks after it."""

    api: DeviceApi
    limits: Limits
    timeouts: Timeouts
    counters: Counters
    now_s: Callable[[], float]

    def later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Calls back after so many seconds."""

    def opened(self, connection: MqttProtocol) -> None:
        """The socket is open."""

    def closed(self, connection: MqttProtocol, identity: Identity | None) -> None:
        """The socket is closed; `identity` had logged in."""

    def logged_in(self, connection: MqttProtocol, identity: Identity) -> None:
        """CONNECT was accepted: register the session."""

    def dirty(self, connection: MqttProtocol) -> None:
        """Something is to be sent: call `flush` soon."""

    def paused(self, connection: MqttProtocol) -> None:
        """The connection does not read any more: call `resume` when there is room."""


class MqttProtocol(Protocol):
    """Bytes <-> `ServerConnection` <-> `MqttAdapter`."""

    __slots__ = (
        "_adapter", "_connection", "_is_dirty", "_is_ending", "_is_paused", "_paused_until_s", "_pings", "_service",
        "deadline_s", "idle_limit_s", "last_seen_s", "peer", "transport",
    )  # fmt: skip
    transport: Any  # ITCPTransport; mypy reads nothing from zope interfaces

    def __init__(self, service: Host, peer: Peer) -> None:
        self._service = service
        self.peer = peer
        self._connection = ServerConnection(service.limits)
        self._adapter = MqttAdapter(service.api, self._connection, self, service.counters)
        self._is_dirty = False  # set: somebody will flush; during a read that is the read itself
        self._is_ending = False
        self._is_paused = False
        self._paused_until_s = 0.0
        self._pings = 0
        self.last_seen_s = service.now_s()
        self.idle_limit_s = service.timeouts.connect_s  # until CONNECT is complete
        self.deadline_s = self.last_seen_s + service.timeouts.connect_s  # absolute end; 0 when none

    def connectionMade(self) -> None:
        self._service.opened(self)

    def dataReceived(self, data: bytes) -> None:
        self.last_seen_s = self._service.now_s()
        is_flush_due, self._is_dirty = self._is_dirty, True  # answers of this read leave in one write at its end
        try:
            packets = self._connection.receive_data(data)
        except RemoteProtocolError as error:
            if error.packets:
                self._adapter.handle(error.packets)
            log.warn("MQTT peer {source} broke the rules: {error}", source=self.peer.address, error=str(error))
            self.end()
            return
        if packets:
            self._adapter.handle(packets)
        self._look_behind()
        self._is_dirty = is_flush_due
        if not self._adapter.is_answer_near:
            self.flush()
        if self._service.api.is_congested and not self._is_paused and not self._is_ending:
            self._is_paused = True
            self.transport.pauseProducing()
            self._service.paused(self)

    def _look_behind(self) -> None:
        """What the connection dealt with by itself and others want to know: acknowledgements, pings, a sign of life."""
        connection, adapter = self._connection, self._adapter
        settled = connection.settled()
        if settled:
            adapter.settled(settled)
        if connection.ping_count != self._pings:
            self._pings = connection.ping_count
            adapter.pinged()
        identity = adapter.identity
        if identity is not None and identity.role is not Role.PROVISIONING:
            self._service.api.presence.seen(identity.device_id)

    def pause(self, seconds: float, resumed: Callable[[], None] | None = None) -> None:
        """Reads nothing for so long; what the peer sends meanwhile fills its own socket."""
        if self._is_ending:
            return
        self.transport.pauseProducing()
        self._paused_until_s = max(self._paused_until_s, self._service.now_s() + seconds)

        def over() -> None:
            if self._is_ending:
                return
            if not self._is_paused and self._service.now_s() >= self._paused_until_s:
                self.transport.resumeProducing()
            if resumed is not None:
                resumed()

        self._service.later(seconds, over)

    def resume(self) -> None:
        """The store has room again."""
        if self._is_paused and not self._is_ending:
            self._is_paused = False
            if self._service.now_s() >= self._paused_until_s:
                self.transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_ending = True
        # While the login is looked up the connection stays open for the packets behind CONNECT: a
        # client that publishes and closes at once loses nothing.
        if self._adapter.identity is not None and not self._connection.is_closed:
            self._connection.disconnect()
        self._adapter.peer_is_gone(self.peer)
        self._service.closed(self, self._adapter.identity)

    # -- what the adapter asks --------------------------------------------------------------------

    def flush_soon(self) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            self._service.dirty(self)

    def flush(self) -> None:
        """All that is buffered in one write."""
        self._is_dirty = False
        if not self._is_ending:
            data = self._connection.data_to_send()
            if data:
                self.transport.write(data)

    def logged_in(self, identity: Identity) -> None:
        if self._is_ending:
            return  # the peer is gone already; only what it sent is still processed
        timeouts = self._service.timeouts
        is_provision_only = identity.role is Role.PROVISIONING
        self.deadline_s = self.last_seen_s + timeouts.provision_session_s if is_provision_only else 0.0
        keep_alive_s = self._connection.keep_alive_s * 1.5  # [MQTT-3.1.2-24]
        self.idle_limit_s = min(keep_alive_s or timeouts.inactivity_s, timeouts.inactivity_s)
        self._service.logged_in(self, identity)

    def end(self) -> None:
        if not self._is_ending:
            data = self._connection.data_to_send()
            if data:
                self.transport.write(data)
            self._is_ending = True
            self.transport.loseConnection()

    # -- what the service asks --------------------------------------------------------------------

    @property
    def has_work_pending(self) -> bool:
        return self._adapter.has_work_pending

    def close_with(self, reason: ReasonCode) -> None:
        if not self._connection.is_closed:
            self._connection.disconnect(reason)
        self.end()

    def register(self) -> None:
        """The session counts: the core may send through it."""
        self._adapter.register()

    def check_deadline(self, now_s: float) -> None:
        """Called about once a second."""
        is_late = self.deadline_s and now_s >= self.deadline_s
        if is_late or now_s - self.last_seen_s > self.idle_limit_s:
            self.close_with(ReasonCode.KEEP_ALIVE_TIMEOUT)
