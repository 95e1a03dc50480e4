"""The MQTT listener: sessions, deadlines of all connections in one sweep, joined writes, drain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.core.downlinks import Interest
from cloud_core.core.nodes.takeovers import Held
from cloud_core.model import Identity, Peer, Role, Transport
from cloud_core.transports.mqtt.protocol import MqttProtocol
from cloud_core.transports.mqtt.sessions import Sessions
from cloud_core.transports.mqtt.settings import Counters, Settings, Timeouts
from shared.mqtt.codes import ReasonCode
from shared.mqtt.connection import Limits

__all__ = ["Counters", "MqttService", "Settings", "Timeouts"]

log = Logger()
SWEEP_S = 1.0


class MqttService(Factory[MqttProtocol]):
    """Builds connections and looks after all of them. `counters` may be read at any time."""

    noisy = False

    def __init__(
        self, *, api: DeviceApi, reactor: Any, limits: Limits, timeouts: Timeouts, settings: Settings | None = None
    ) -> None:
        # `reactor`: callLater and seconds; untyped because a test passes a Clock.
        self.api = api
        self.limits = limits
        self.timeouts = timeouts
        self.settings = settings or Settings()
        self.counters = Counters()
        self.sessions = Sessions()
        self._reactor = reactor
        self._connections: set[MqttProtocol] = set()
        self._dirty: list[MqttProtocol] = []
        self._paused: list[MqttProtocol] = []
        self._is_flush_scheduled = False
        self._sweep = LoopingCall(self._check_deadlines)
        self._sweep.clock = reactor
        self.now_s: Callable[[], float] = reactor.seconds
        api.on_delivered(self._delivered)
        api.others.takeovers.serve(self)

    def start(self) -> None:
        self._sweep.start(SWEEP_S, now=False)

    def stop_accepting(self) -> None:
        if self._sweep.running:
            self._sweep.stop()

    def close_sessions(self) -> None:
        """Tells every peer that the server goes, and closes."""
        for connection in list(self._connections):
            connection.close_with(ReasonCode.SERVER_SHUTTING_DOWN)

    @property
    def has_work_pending(self) -> bool:
        return any(connection.has_work_pending for connection in self._connections)

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def buildProtocol(self, addr: IAddress | None) -> MqttProtocol:
        host: str = getattr(addr, "host", "")
        return MqttProtocol(self, Peer(Transport.MQTT, host))

    # -- called by the connections ----------------------------------------------------------------

    def opened(self, connection: MqttProtocol) -> None:
        self._connections.add(connection)

    def closed(self, connection: MqttProtocol) -> None:
        self._connections.discard(connection)

    def logged_in(self, connection: MqttProtocol, identity: Identity) -> None:
        device_id = identity.device_id
        for replaced in self.sessions.take_over(device_id, connection, identity.options.max_sessions):
            log.warn(
                "Session of {device} replaced by a new one from {source}",
                device=identity.device_name,
                source=connection.peer.address,
            )
            replaced.close_with(ReasonCode.SESSION_TAKEN_OVER)
        if self.api.fabric.others:
            self.api.others.takeovers.session_opened(device_id)
        self.api.downlinks.open(device_id, connection, Interest.NOTHING)
        self.api.presence.connected(device_id)

    def ended(self, connection: MqttProtocol, identity: Identity) -> None:
        if identity.role is Role.PROVISIONING:
            return
        downlinks, device_id = self.api.downlinks, identity.device_id
        downlinks.close(device_id, connection)
        if self.sessions.ended(device_id, connection) and not downlinks.is_open(device_id):
            self.api.presence.disconnected(device_id)  # it neither observes over CoAP nor is behind a gateway

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        called: object = self._reactor.callLater(delay_s, callback)
        return called

    def dirty(self, connection: MqttProtocol) -> None:
        """`connection` has something to send; it goes out with the others, in one write each."""
        self._dirty.append(connection)
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._reactor.callLater(0, self._flush)

    def paused(self, connection: MqttProtocol) -> None:
        self._paused.append(connection)

    # -- what other nodes take over (`core.nodes.takeovers.SessionsHere`) ---------------------------

    def held(self, device_id: int) -> Held:
        live = self.sessions.of(device_id)
        return Held([one.opened_ms for one in live], live[-1].max_sessions if live else 1)

    def give_up(self, device_id: int, count: int) -> None:
        for replaced in self.sessions.give_up(device_id, count):
            log.warn("Session of device {device} replaced by a new one at another node", device=device_id)
            replaced.close_with(ReasonCode.SESSION_TAKEN_OVER)

    def opened_since(self, ms: int) -> list[int]:
        return self.sessions.opened_since(ms)

    # -- inside -----------------------------------------------------------------------------------

    def _delivered(self) -> None:
        self._flush_now()
        if self._paused and not self.api.is_congested:
            resumed, self._paused = self._paused, []
            for connection in resumed:
                connection.resume()

    def _flush(self) -> None:
        self._is_flush_scheduled = False
        self._flush_now()

    def _flush_now(self) -> None:
        waiting, self._dirty = self._dirty, []
        for connection in waiting:
            connection.flush()

    def _check_deadlines(self) -> None:
        now_s = self.now_s()
        for connection in list(self._connections):
            connection.check_deadline(now_s)
