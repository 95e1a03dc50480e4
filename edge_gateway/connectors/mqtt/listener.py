"""The gateway as the broker of its sub-devices: they connect to it, publish, and subscribe to what is meant for them.

It is no general broker: nothing that one sub-device publishes goes to another. Subscriptions are granted for topics on
which the configuration sends calls and shared attributes, and for ThingsBoard's own with the preset.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from typing import Any

from twisted.logger import Logger

from edge_gateway.connectors.access import Users, UsersUnreadable, parse_address, same_secret
from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.mqtt.downlinks import Downlinks
from edge_gateway.connectors.mqtt.offers import Offer
from edge_gateway.connectors.mqtt.retained import Retained
from edge_gateway.connectors.mqtt.routes import Routes
from edge_gateway.connectors.mqtt.session import MqttSession
from edge_gateway.connectors.mqtt.settings import LOGIN_CAPTURES, MqttSettings
from edge_gateway.connectors.mqtt.thingsboard import ThingsboardDevices
from edge_gateway.mapping.amounts import parse_size
from edge_gateway.mapping.interface import MappingError
from edge_gateway.model import Call, CallFailed, Health, Json, Reading
from shared.mqtt.codes import ReasonCode
from shared.mqtt.connection import Limits
from shared.mqtt.filters import SHARED_PREFIX, SubscriptionTrie
from shared.mqtt.packets import Connect, Publish

log = Logger()

BACKLOG = 1024
HANDSHAKE_S = 10.0  # of TLS; only then the connection counts, and its other deadlines begin
ARRIVAL_S = 10.0  # within which a device must acknowledge a shared attribute
PACKET_OVERHEAD_BYTES = 2_048  # of topic, properties and headers beside the payload


class ListenFailed(Exception):
    """The port cannot be opened; `str()` says why and what to do."""


class MqttListener:
    """As `Connector`. `port` is the one that is open, 0 before."""

    def __init__(self, settings: MqttSettings, site: Site) -> None:
        self.settings = settings
        self.site = site
        payload_bytes = parse_size(settings.max_payload)
        self.limits = Limits(max_payload_bytes=payload_bytes, max_packet_bytes=payload_bytes + PACKET_OVERHEAD_BYTES)
        self.port = 0
        self.loop: asyncio.AbstractEventLoop
        self._routes = Routes(settings.map, LOGIN_CAPTURES)
        self._downlinks = Downlinks(self._routes, self._send)
        self._preset = ThingsboardDevices(settings.type, self._session_of) if settings.preset else None
        self._users = Users(settings.users) if settings.users else None
        self._sessions: set[MqttSession] = set()
        self._by_login: dict[tuple[str, str], MqttSession] = {}  # user name and client id
        self._by_device: dict[str, MqttSession] = {}
        self._subscriptions: SubscriptionTrie[MqttSession, int] = SubscriptionTrie()
        self._retained = Retained()
        self._is_waiting_for_room = False
        self._listens = ""
        self._users_problem = ""

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        address = parse_address(self.settings.listen, 1883)
        if self._users is not None:
            self._users.load()
        tls: Any = {}
        if context := self._tls_context():
            tls = {"ssl": context, "ssl_handshake_timeout": HANDSHAKE_S}
        try:
            server = await self.loop.create_server(
                lambda: MqttSession(self), address.host, address.port, backlog=BACKLOG, **tls
            )
        except OSError as error:
            why = error.strerror or str(error)
            raise ListenFailed(
                f"cannot listen on {address}: {why}; stop what uses it or choose another port"
            ) from error
        self.port = server.sockets[0].getsockname()[1]
        self._listens = f"listens on {address}"
        self._tell_health()
        try:
            while True:
                await asyncio.sleep(1.0)
                self._check_deadlines()
        finally:
            server.close()
            for session in list(self._sessions):
                session.close_with(ReasonCode.SERVER_SHUTTING_DOWN)

    def _tls_context(self) -> ssl.SSLContext | None:
        if not self.settings.certificate:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.settings.certificate, self.settings.private_key or None)
        except (OSError, ssl.SSLError) as error:
            raise ListenFailed(f"certificate and private_key cannot be used: {error}") from error
        return context

    def _check_deadlines(self) -> None:
        now_s = self.loop.time()
        for session in list(self._sessions):
            session.check_deadline(now_s)
        self._tell_health()

    def _tell_health(self) -> None:
        maximum = self.settings.max_connections
        full = f"{maximum} devices are connected, more are turned away; raise max_connections"
        problem = self._users_problem or (full if len(self._sessions) >= maximum else "")
        self.site.health(Health.DEGRADED if problem else Health.HEALTHY, problem or self._listens)

    # -- sessions (session.Host) --------------------------------------------------------------------

    def opened(self, session: MqttSession) -> bool:
        if len(self._sessions) >= self.settings.max_connections:
            self._tell_health()
            return False
        self._sessions.add(session)
        if self._is_waiting_for_room:
            session.congested()
        return True

    def log_in(self, session: MqttSession, packet: Connect) -> str | None:
        username = packet.user_name or ""
        client_id = packet.client_id or f"muster-{secrets.token_hex(8)}"
        device = self._device_of(username, packet.password, client_id if packet.client_id else "")
        if device is not None:
            session.username, session.client_id = username, client_id
        return device

    def _device_of(self, username: str, password: bytes | None, client_id: str) -> str | None:
        settings = self.settings
        given = (password or b"").decode("utf-8", "surrogateescape")
        if self._users is not None:
            try:
                self._users.load()
                self._users_problem = ""
            except UsersUnreadable as error:  # those that were read before stay good
                self._users_problem = str(error)
            return self._users.device_of(username, given)
        if settings.username or settings.password:
            is_right = same_secret(username, settings.username) & same_secret(given, settings.password)
            if not is_right:
                return None
            return username if settings.login_from == "username" else client_id
        if settings.login_from == "client_id":
            return client_id
        return username if settings.login_from == "username" else username or client_id

    def logged_in(self, session: MqttSession) -> None:
        key = (session.username, session.client_id)
        older = self._by_login.get(key)
        self._by_login[key] = session
        if older is not None and older is not session:
            older.close_with(ReasonCode.SESSION_TAKEN_OVER)
        if session.device and (self._preset or self.settings.own_device):
            self._speaks_for(session, session.device)
            self.site.seen(session.device, self.settings.type)

    def _speaks_for(self, session: MqttSession, device: str) -> None:
        session.spoke_for = device
        self._by_device[device] = session

    def _session_of(self, device: str) -> MqttSession | None:
        return self._by_device.get(device)

    def closed(self, session: MqttSession) -> None:
        self._sessions.discard(session)
        key = (session.username, session.client_id)
        if self._by_login.get(key) is session:
            del self._by_login[key]
        for topic_filter in session.filters or ():
            self._subscriptions.discard(topic_filter, session)
        device = session.spoke_for
        if device and self._by_device.get(device) is session:
            del self._by_device[device]
            self.site.gone(device)

    # -- what sub-devices say -------------------------------------------------------------------------

    def read(self, session: MqttSession, packet: Publish) -> Offer:
        if self.site.is_congested and not self._is_waiting_for_room:
            self._wait_for_room()
        topic, payload = packet.topic, packet.payload
        try:
            if self._preset is not None:
                readings = self._preset.read(session, topic, payload)
                if readings is not None:
                    return Offer(packet, readings)
            return self._read_mapped(session, packet)
        except MappingError as error:
            self.site.reject(topic, payload, str(error))
            return Offer(packet, reason=ReasonCode.PAYLOAD_FORMAT_INVALID)

    def _read_mapped(self, session: MqttSession, packet: Publish) -> Offer:
        topic, payload = packet.topic, packet.payload
        is_reply = self._downlinks.take_reply(topic, payload, session.device if self.settings.own_device else "")
        found = self._routes.find(topic)
        if found is None:
            if is_reply:
                return Offer(packet)
            return self._unmapped(packet)
        route, captures = found
        login = {"client_id": session.client_id, "username": session.username, "login": session.device}
        try:
            readings = route.readings(payload, captures, login, wants_raw=self.site.wants_raw)
        except MappingError as error:
            if not error.readings:
                raise
            self.site.reject(topic, payload, str(error))
            readings = error.readings  # what could be read all the same
        if self.settings.own_device and any(reading.device != session.device for reading in readings):
            self.site.reject(topic, payload, f"the login of {session.device} may speak only for itself (own_device)")
            return Offer(packet, reason=ReasonCode.NOT_AUTHORIZED)
        self._routes.heard(readings, route, captures)
        self._note_speaker(session, readings)
        return Offer(packet, readings)

    def _unmapped(self, packet: Publish) -> Offer:
        if self._downlinks.is_reply_topic(packet.topic):
            self.site.reject(packet.topic, packet.payload, "a reply that no call waits for, or not any more")
            return Offer(packet)
        self.site.reject(packet.topic, packet.payload, "no map has a topic that fits; add one under [[mqtt.map]]")
        return Offer(packet, reason=ReasonCode.TOPIC_NAME_INVALID)

    def _note_speaker(self, session: MqttSession, readings: list[Reading]) -> None:
        """A connection that speaks for one device alone is that device: when it goes, the device has gone."""
        for reading in readings:
            if session.spoke_for == "":
                self._speaks_for(session, reading.device)
            elif session.spoke_for is not None and session.spoke_for != reading.device:
                if self._by_device.get(session.spoke_for) is session:
                    del self._by_device[session.spoke_for]
                session.spoke_for = None

    def _wait_for_room(self) -> None:
        self._is_waiting_for_room = True
        for session in self._sessions:
            session.congested()
        self.site.when_room(self._has_room)

    def _has_room(self) -> None:
        self._is_waiting_for_room = False
        for session in list(self._sessions):
            session.has_room()

    # -- subscriptions ---------------------------------------------------------------------------------

    def grant(self, session: MqttSession, topic_filter: str, qos: int) -> int:
        if topic_filter.startswith(SHARED_PREFIX):
            return ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        is_own = self._preset is not None and self._preset.grants(topic_filter)
        is_downlink = any(overlap(topic_filter, one) for one in self._downlinks.filters)
        if not is_own and not is_downlink:
            text = "{client} may not subscribe to {filter}: nothing is sent there"
            log.warn(text, client=session.client_id, filter=topic_filter[:200])
            return ReasonCode.NOT_AUTHORIZED
        if is_downlink:
            self._subscriptions.add(topic_filter, session, qos)
        return qos

    def subscribed(self, session: MqttSession, topic_filters: list[str]) -> None:
        for topic_filter in topic_filters:
            qos = (session.filters or {}).get(topic_filter, 0)
            for device, topic, payload in self._retained.matching(topic_filter):
                if self._may_hear(session, device):
                    session.publish(topic, payload, qos)

    def unsubscribe(self, session: MqttSession, topic_filter: str) -> None:
        self._subscriptions.discard(topic_filter, session)

    def _may_hear(self, session: MqttSession, device: str) -> bool:
        return not self.settings.own_device or session.device == device

    # -- downlinks ---------------------------------------------------------------------------------------

    async def call(self, call: Call) -> Json:
        if self._preset is not None and self._preset.reaches(call.device):
            return await self._preset.call(call)
        if self._preset is not None and not self._routes.all:
            raise CallFailed(f"{call.device} is not connected, or does not subscribe to its calls")
        return await self._downlinks.call(call)

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        if self._preset is not None:
            self._preset.attributes_changed(device, values, deleted)
        await self._downlinks.attributes_changed(device, values, deleted)

    async def _send(self, device: str, topic: str, payload: bytes, retain: bool) -> None:
        if retain:
            self._retained.put(device, topic, payload)
        listeners: dict[MqttSession, int] = {}
        for session, qos in self._subscriptions.matching(topic):
            if self._may_hear(session, device):
                listeners[session] = max(qos, listeners.get(session, 0))
        if not listeners and not retain:
            raise CallFailed(f"{device} is not connected: nobody subscribes to {topic}")
        arrived = [self._deliver(session, topic, payload, qos) for session, qos in listeners.items()]
        if not arrived:
            return
        done, waiting = await asyncio.wait(arrived, timeout=ARRIVAL_S, return_when=asyncio.ALL_COMPLETED)
        for future in waiting:
            future.cancel()
        if not retain and not any(future.result() for future in done):
            raise CallFailed(f"{device} did not take the message on {topic}")

    def _deliver(self, session: MqttSession, topic: str, payload: bytes, qos: int) -> asyncio.Future[bool]:
        arrived: asyncio.Future[bool] = self.loop.create_future()

        def settled(is_owned: bool) -> None:
            if not arrived.done():
                arrived.set_result(is_owned)

        is_sent = session.publish(topic, payload, qos, settled if qos else None)
        if not is_sent or not qos:
            settled(is_sent)
        return arrived


def overlap(one: str, other: str) -> bool:
    """Whether two filters have a topic in common."""
    ours, theirs = one.split("/"), other.split("/")
    for a, b in zip(ours, theirs, strict=False):
        if "#" in (a, b):
            return True
        if a != b and "+" not in (a, b):
            return False
    if len(ours) == len(theirs):
        return True
    longer = ours if len(ours) > len(theirs) else theirs
    return len(longer) == min(len(ours), len(theirs)) + 1 and longer[-1] == "#"
