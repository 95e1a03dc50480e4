"""One TCP connection: bytes in, bytes out, deadlines, back-pressure."""

from __future__ import annotations

from collections.abc import Callable
from enum import Flag, auto
from typing import Any
from typing import Protocol as Contract

from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloud_core.core.api import DeviceApi
from cloud_core.core.downlinks import Delivery, Ending, Interest, Whereabouts
from cloud_core.model import Identity, Peer, PresentedChain, Role
from cloud_core.transports.mqtt.adapter import MqttAdapter
from cloud_core.transports.mqtt.settings import Counters, Settings, Timeouts
from shared.messages import AttributesChange, RpcCommand
from shared.mqtt.codes import ReasonCode
from shared.mqtt.connection import Delivered, Limits, ServerConnection
from shared.mqtt.errors import RemoteProtocolError

log = Logger()

WATCHED_BYTES = 1_024  # a write of so many is watched: whoever does not take it is not read any more
MAX_BACKLOG_BYTES = 4_194_304  # written to a peer that does not read; what comes then is not sent
CLOSE_S = 10.0  # then a peer that does not take what is still to be sent is dropped


class Pause(Flag):
    """Why nothing is read from a peer; all must be over before it is."""

    NONE = 0
    CONGESTED = auto()
    """The store is busy."""
    RATE = auto()
    """It sent above its rate."""
    UNREAD = auto()
    """It does not read what we write."""


class Host(Contract):
    """What a connection needs of the service that looks after it."""

    api: DeviceApi
    limits: Limits
    timeouts: Timeouts
    settings: Settings
    counters: Counters
    now_s: Callable[[], float]

    def opened(self, connection: MqttProtocol) -> None:
        """The socket is open."""

    def logged_in(self, connection: MqttProtocol, identity: Identity) -> None:
        """CONNECT was accepted: register the session."""

    def ended(self, connection: MqttProtocol, identity: Identity) -> None:
        """The session is over; called twice if the socket outlives it."""

    def closed(self, connection: MqttProtocol) -> None:
        """The socket is closed."""

    def dirty(self, connection: MqttProtocol) -> None:
        """Something is to be sent: call `flush` soon."""

    def paused(self, connection: MqttProtocol) -> None:
        """The connection does not read any more: call `resume` when there is room."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """The reactor's."""


class MqttProtocol(Protocol):
    """Bytes <-> `ServerConnection` <-> `MqttAdapter`."""

    __slots__ = (
        "_adapter", "_backlog_bytes", "_connection", "_device_id", "_is_dirty", "_is_ending", "_pauses", "_service",
        "_unsent_bytes", "deadline_s", "idle_limit_s", "last_seen_s", "opened_ms", "peer",
        "transport",
    )  # fmt: skip
    transport: Any  # ITCPTransport; mypy reads nothing from zope interfaces

    def __init__(self, service: Host, peer: Peer) -> None:
        self._service = service
        self.peer = peer
        self._connection = ServerConnection(service.limits)
        self._adapter = MqttAdapter(
            service.api, self._connection, self, settings=service.settings, counters=service.counters
        )
        self._device_id = 0  # of a session that is registered
        self._is_dirty = False  # set: somebody will flush; during a read that is the read itself
        self._is_ending = False
        self._pauses = Pause.NONE
        self._unsent_bytes = 0  # when last looked at, while UNREAD
        self._backlog_bytes = 0  # written while UNREAD
        self.opened_ms = 0  # when its session was registered
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
                self._handle(error.packets)
            self._adapter.broke_the_rules(str(error))
            self.end()
            return
        if packets:
            self._handle(packets)
        if self._device_id:
            self._service.api.presence.seen(self._device_id)
        self._is_dirty = is_flush_due
        if not self._adapter.is_answer_near:
            self.flush()
        if self._service.api.is_congested and not self._pauses & Pause.CONGESTED and not self._is_ending:
            self._pause(Pause.CONGESTED)
            self._service.paused(self)

    def _handle(self, packets: list[Delivered]) -> None:
        """An error of ours ends the connection: what was not acknowledged is sent again (section 2.3)."""
        try:
            self._adapter.handle(packets)
        except Exception:
            log.failure("Error while handling messages of {device}", device=self._device_name)
            self.close_with(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._session_ended()
        self._is_ending = True
        # While the login is looked up the connection stays open for the packets behind CONNECT: a
        # client that publishes and closes at once loses nothing.
        if self._adapter.identity is not None and not self._connection.is_closed:
            self._connection.disconnect()
        self._adapter.peer_is_gone(self.peer)
        self._service.closed(self)

    # -- back-pressure ----------------------------------------------------------------------------

    def _pause(self, why: Pause) -> None:
        if not self._pauses:
            self.transport.pauseProducing()
        self._pauses |= why

    def _resume(self, why: Pause) -> None:
        """One reason is over. What was held back comes first; it may be a new reason."""
        if self._is_ending or not self._pauses & why:
            return
        self._pauses &= ~why
        if not self._pauses & Pause.RATE:
            try:
                self._adapter.resume()
            except Exception:
                log.failure("Error while handling messages of {device}", device=self._device_name)
                self.close_with(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)
        if not self._pauses and not self._is_ending:
            self.last_seen_s = self._service.now_s()
            self.transport.resumeProducing()

    def resume(self) -> None:
        """The store has room again."""
        self._resume(Pause.CONGESTED)

    def pause(self, seconds: float) -> None:
        """The peer is above its rate: nothing is read for so long."""
        if not self._is_ending and not self._pauses & Pause.RATE:
            self._pause(Pause.RATE)
            self._service.call_later(seconds, self._rate_allows)

    def _rate_allows(self) -> None:
        self._resume(Pause.RATE)

    @property
    def is_blocked(self) -> bool:
        return bool(self._pauses & Pause.UNREAD)

    @property
    def is_full(self) -> bool:
        return self.is_blocked and self._backlog_bytes >= MAX_BACKLOG_BYTES

    def pauseProducing(self) -> None:
        """The transport says: what was written piles up."""
        if not self._is_ending:
            self._unsent_bytes = self._count_unsent()
            self._backlog_bytes = 0
            self._pause(Pause.UNREAD)

    def resumeProducing(self) -> None:
        """The transport says: all of it is on its way."""
        self.transport.unregisterProducer()
        self._resume(Pause.UNREAD)

    def stopProducing(self) -> None:
        """The transport says: the connection is gone; `connectionLost` follows."""

    def _count_unsent(self) -> int:
        count: int = getattr(self.transport, "unsent_bytes", 0)  # not every transport can tell
        return count

    # -- what the adapter asks --------------------------------------------------------------------

    def presented(self) -> PresentedChain | None:
        read: Callable[[], PresentedChain | None] | None = getattr(self.transport, "presented", None)
        return None if read is None else read()  # without TLS nothing is shown

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
                self._write(data)

    def _write(self, data: bytes) -> None:
        if len(data) < WATCHED_BYTES or self.is_blocked:
            self._backlog_bytes += len(data)
            self.transport.write(data)
            return
        self.transport.registerProducer(self, True)
        self.transport.write(data)
        if not self.is_blocked:
            self.transport.unregisterProducer()

    def logged_in(self, identity: Identity) -> None:
        if self._is_ending:
            return  # the peer is gone already; only what it sent is still processed
        timeouts = self._service.timeouts
        is_provision_only = identity.role is Role.PROVISIONING
        self.deadline_s = self.last_seen_s + timeouts.provision_session_s if is_provision_only else 0.0
        keep_alive_s = self._connection.keep_alive_s * 1.5  # [MQTT-3.1.2-24]
        self.idle_limit_s = min(keep_alive_s or timeouts.inactivity_s, timeouts.inactivity_s)
        if not is_provision_only:
            self._device_id = identity.device_id
            self.opened_ms = self._service.api.now_ms()
            self._service.logged_in(self, identity)

    def listen(self, interest: Interest) -> None:
        """Tells the core what the session wants to hear, where that has changed."""
        downlinks, device_id = self._service.api.downlinks, self._device_id
        if device_id and downlinks.interest(device_id, self) != interest:
            downlinks.open(device_id, self, interest)

    def end(self) -> None:
        if not self._is_ending:
            data = self._connection.data_to_send()
            if data:
                self.transport.write(data)
            self._session_ended()
            self._is_ending = True
            self.last_seen_s = self._service.now_s()
            if self.is_blocked:
                self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _session_ended(self) -> None:
        self._device_id = 0
        self._adapter.session_ended()
        if self._adapter.identity is not None and not self._is_ending:
            self._service.ended(self, self._adapter.identity)

    # -- what the service asks --------------------------------------------------------------------

    @property
    def has_work_pending(self) -> bool:
        return self._adapter.has_work_pending

    def close_with(self, reason: ReasonCode) -> None:
        if not self._connection.is_closed:
            self._connection.disconnect(reason)
        self.end()

    @property
    def max_sessions(self) -> int:
        identity = self._adapter.identity
        return identity.options.max_sessions if identity is not None else 1

    def check_deadline(self, now_s: float) -> None:
        """Called about once a second."""
        if self._is_ending:
            if now_s - self.last_seen_s > CLOSE_S:
                self.transport.abortConnection()
            return
        if self._pauses:
            self._check_while_paused(now_s)
        if self.deadline_s and now_s >= self.deadline_s:
            self.close_with(ReasonCode.MAXIMUM_CONNECT_TIME)
        elif now_s - self.last_seen_s > self.idle_limit_s:
            is_keep_alive = self.idle_limit_s < self._service.timeouts.inactivity_s
            self.close_with(ReasonCode.KEEP_ALIVE_TIMEOUT if is_keep_alive else ReasonCode.MAXIMUM_CONNECT_TIME)

    def _check_while_paused(self, now_s: float) -> None:
        """A peer that is not read cannot be called silent; one that does not read must make progress."""
        if not self._pauses & Pause.UNREAD:
            self.last_seen_s = now_s
            return
        unsent_bytes = self._count_unsent()
        if unsent_bytes < self._unsent_bytes:
            self.last_seen_s = now_s
        self._unsent_bytes = unsent_bytes

    # -- what the core asks (core.downlinks.Downlink) ----------------------------------------------

    @property
    def whereabouts(self) -> Whereabouts:
        return Whereabouts("MQTT", self.peer.address)

    def attributes_changed(self, change: AttributesChange) -> None:
        self._adapter.attributes_changed(change)

    def command(self, command: RpcCommand, delivery: Delivery) -> None:
        self._adapter.command(command, delivery)

    def ended(self, why: Ending) -> None:
        log.info("Session of {device} closed: {why}", device=self._device_name, why=why.name)
        self.close_with(ReasonCode.ADMINISTRATIVE_ACTION)

    @property
    def _device_name(self) -> str:
        return self._adapter.identity.device_name if self._adapter.identity else ""
