"""One connection of a sub-device: bytes in, bytes out, acknowledgements, back-pressure, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Flag, auto
from typing import Any, Protocol

from twisted.logger import Logger

from edge_gateway.connectors.access import Bucket
from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.mqtt.offers import Offer, Offers
from edge_gateway.connectors.mqtt.settings import MqttSettings
from edge_gateway.model import Refusal
from shared.mqtt.codes import ConnectReturnCode, ReasonCode
from shared.mqtt.connection import Delivered, Limits, OnSettled, ServerConnection
from shared.mqtt.errors import RemoteProtocolError
from shared.mqtt.packets import Connect, Disconnect, Pingreq, Publish, Subscribe, Unsubscribe

log = Logger()

CONNECT_S = 10.0  # until CONNECT is complete
SILENCE_S = 3_600.0  # of a client without keep-alive
CLOSE_S = 10.0  # then a peer that does not take what is still to be sent is dropped
MAX_WAITING = 1_000  # messages of one connection that are not on disk; then it is not read
MAX_SUBSCRIPTIONS = 100
NO_SUBSCRIPTION = 0x11


class Pause(Flag):
    """Why nothing is read from a peer; all must be over before it is."""

    NONE = 0
    CONGESTED = auto()
    """The gateway cannot take more."""
    WAITING = auto()
    """Too many of its messages wait, or they were refused for now."""
    RATE = auto()
    """It sent above its rate."""
    UNREAD = auto()
    """It does not read what we write."""


class Host(Protocol):
    """What a connection needs of the listener."""

    site: Site
    settings: MqttSettings
    limits: Limits
    loop: asyncio.AbstractEventLoop

    def opened(self, session: MqttSession) -> bool:
        """The socket is open; False when there are too many."""

    def log_in(self, session: MqttSession, packet: Connect) -> str | None:
        """The name of the device that the login names; None when it is wrong."""

    def logged_in(self, session: MqttSession) -> None:
        """CONNECT was accepted."""

    def read(self, session: MqttSession, packet: Publish) -> Offer:
        """What a message says."""

    def grant(self, session: MqttSession, topic_filter: str, qos: int) -> int:
        """Subscribes; the granted QoS, or why not."""

    def subscribed(self, session: MqttSession, topic_filters: list[str]) -> None:
        """The SUBACK is on its way: deliver what was retained."""

    def unsubscribe(self, session: MqttSession, topic_filter: str) -> None:
        """Forgets a subscription."""

    def closed(self, session: MqttSession) -> None:
        """The session is over; called once."""


class MqttSession(asyncio.Protocol):
    """See the module. `device` is who logged in; `spoke_for` whom it spoke for, None when there were several."""

    __slots__ = (
        "_bucket", "_connection", "_host", "_is_ending", "_is_over", "_offers", "_pauses", "_transport", "client_id",
        "device", "filters", "last_seen_s", "spoke_for", "username",
    )  # fmt: skip

    def __init__(self, host: Host) -> None:
        self._host = host
        self._connection = ServerConnection(host.limits)
        self._offers = Offers(host.site, host.loop, self._settled)
        self._bucket: Bucket | None = None
        self._pauses = Pause.NONE
        self._is_ending = False
        self._is_over = False
        self._transport: Any = None  # asyncio.Transport, or a test's
        self.client_id = ""
        self.username = ""
        self.device = ""
        self.spoke_for: str | None = ""
        self.filters: dict[str, int] | None = None  # granted, with their QoS
        self.last_seen_s = host.loop.time()

    # -- what asyncio tells -----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if not self._host.opened(self):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._is_ending:
            return
        self.last_seen_s = self._host.loop.time()
        try:
            packets = self._connection.receive_data(data)
        except RemoteProtocolError as error:
            self._broke_the_rules(error)
            return
        self._handle(packets)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_ending = True
        if not self._connection.is_closed:
            self._connection.disconnect()
        self._session_over()
        self._offers.abandon()

    def pause_writing(self) -> None:
        self._pause(Pause.UNREAD)

    def resume_writing(self) -> None:
        self._resume(Pause.UNREAD)

    # -- packets ----------------------------------------------------------------------------------

    def _handle(self, packets: Iterable[Delivered]) -> None:
        """An error of ours ends the connection: what was not acknowledged is sent again."""
        try:
            count = 0
            for packet in packets:
                if type(packet) is Publish:
                    count += 1
                    self._offers.add(self._host.read(self, packet))
                else:
                    self._act_on(packet)
            if count:
                self._offers.push()
                self._slow_down(count)
        except Exception:
            log.failure("Error while handling messages of MQTT client {client}", client=self.client_id)
            self.close_with(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)

    def _act_on(self, packet: Delivered) -> None:
        match packet:
            case Connect():
                self._connect(packet)
            case Subscribe():
                self._subscribe(packet)
            case Unsubscribe():
                self._unsubscribe(packet)
            case Disconnect():
                self._offers.push()
                self._end()
            case Pingreq():
                pass  # answered already

    def _connect(self, packet: Connect) -> None:
        device = self._host.log_in(self, packet)
        if device is None:
            log.warn("MQTT login of {client} refused", client=packet.client_id[:100])
            self._connection.refuse(
                ConnectReturnCode.BAD_USER_NAME_OR_PASSWORD, ReasonCode.BAD_USER_NAME_OR_PASSWORD, is_repeated=False
            )
            self._end()
            return
        self.device = device
        if self._host.settings.max_rate > 0:
            self._bucket = Bucket(self._host.settings.max_rate, self._host.loop.time())
        try:
            queued = self._connection.accept(assigned_client_id=self.client_id)
        except RemoteProtocolError as error:
            self._host.logged_in(self)
            self._broke_the_rules(error)
            return
        self._host.logged_in(self)
        if queued:
            self._handle(queued)

    def _subscribe(self, packet: Subscribe) -> None:
        codes, granted = [], []
        for wanted in packet.subscriptions:
            filters = self.filters if self.filters is not None else {}
            code = int(ReasonCode.QUOTA_EXCEEDED)
            if len(filters) < MAX_SUBSCRIPTIONS or wanted.topic_filter in filters:
                code = self._host.grant(self, wanted.topic_filter, min(wanted.qos, 1))
            if code < 0x80:
                filters[wanted.topic_filter] = code
                self.filters = filters
                granted.append(wanted.topic_filter)
            codes.append(code)
        self._connection.suback(packet.packet_id, codes)
        if granted:
            self._host.subscribed(self, granted)

    def _unsubscribe(self, packet: Unsubscribe) -> None:
        codes = []
        for topic_filter in packet.topic_filters:
            is_known = self.filters is not None and self.filters.pop(topic_filter, None) is not None
            if is_known:
                self._host.unsubscribe(self, topic_filter)
            codes.append(0 if is_known else NO_SUBSCRIPTION)
        self._connection.unsuback(packet.packet_id, codes)

    # -- what the gateway says of messages ----------------------------------------------------------

    def _settled(self, offers: list[Offer], refusal: Refusal | None) -> None:
        if refusal is not None:
            for offer in offers:
                packet: Publish = offer.message
                if refusal.retry_after_s is None or not packet.qos:
                    self._host.site.reject(packet.topic, packet.payload, refusal.reason)
            if refusal.retry_after_s is not None:
                return  # the source is gone and was told nothing: it sends them again
        ids: list[int] = []
        reason = 0
        for offer in offers:
            its_reason = offer.reason if refusal is None else int(ReasonCode.NOT_AUTHORIZED)
            if its_reason != reason:
                self._acknowledge(ids, reason)
                ids, reason = [], its_reason
            if offer.message.qos:
                ids.append(offer.message.packet_id)
        self._acknowledge(ids, reason)
        self._flush()
        if self._pauses & Pause.WAITING and not self._is_full:
            self._resume(Pause.WAITING)

    def _acknowledge(self, ids: list[int], reason: int) -> None:
        if ids and not self._connection.is_closed:
            self._connection.acknowledge(ids, ReasonCode(reason))

    @property
    def _is_full(self) -> bool:
        return self._offers.count >= MAX_WAITING or self._offers.is_refused

    # -- back-pressure ----------------------------------------------------------------------------

    def _slow_down(self, count: int) -> None:
        if self._is_ending:
            return
        if self._is_full:
            self._pause(Pause.WAITING)
        if self._bucket is not None:
            wait_s = self._bucket.take(count, self._host.loop.time())
            if wait_s > 0:
                self._pause(Pause.RATE)
                self._host.loop.call_later(wait_s, self._resume, Pause.RATE)

    def congested(self) -> None:
        """The gateway cannot take more; `has_room` follows."""
        self._pause(Pause.CONGESTED)

    def has_room(self) -> None:
        self._resume(Pause.CONGESTED)

    def _pause(self, why: Pause) -> None:
        if not self._pauses and not self._is_ending:
            self._transport.pause_reading()
        self._pauses |= why

    def _resume(self, why: Pause) -> None:
        was_paused, self._pauses = bool(self._pauses), self._pauses & ~why
        if was_paused and not self._pauses and not self._is_ending:
            self.last_seen_s = self._host.loop.time()
            self._transport.resume_reading()

    # -- what the listener asks ----------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, qos: int, on_settled: OnSettled | None = None) -> bool:
        """Sends a message; False when it could not be. See `ServerConnection.publish`."""
        if self._is_ending or self._connection.is_closed:
            return False
        if not qos and self._pauses & Pause.UNREAD:
            return False  # it does not read: what nobody counts would pile up
        is_sent = self._connection.publish(topic, payload, qos, on_settled)
        self._flush()
        return is_sent

    def answer(self, topic: str, payload: bytes) -> None:
        """Sends a message of no great weight."""
        self.publish(topic, payload, 0)

    def close_with(self, reason: ReasonCode) -> None:
        if not self._connection.is_closed:
            self._connection.disconnect(reason)
        self._end()

    def check_deadline(self, now_s: float) -> None:
        """Called about once a second."""
        silence_s = now_s - self.last_seen_s
        if self._pauses and not self._pauses & Pause.UNREAD:
            self.last_seen_s = now_s  # who is not read cannot be called silent
        elif not self.client_id:
            if silence_s > CONNECT_S:
                self._end()
        elif silence_s > (self._connection.idle_limit_s or SILENCE_S):
            self.close_with(ReasonCode.KEEP_ALIVE_TIMEOUT)

    @property
    def source(self) -> str:
        """The peer's address."""
        peer = self._transport.get_extra_info("peername") if self._transport else None
        return str(peer[0]) if peer else "?"

    # -- the end -------------------------------------------------------------------------------------

    def _broke_the_rules(self, error: RemoteProtocolError) -> None:
        if error.packets:
            self._handle(error.packets)
        log.warn("MQTT peer {source} broke the rules: {error}", source=self.source, error=str(error))
        self._end()

    def _flush(self) -> None:
        if not self._is_ending:
            data = self._connection.data_to_send()
            if data:
                self._transport.write(data)

    def _end(self) -> None:
        if not self._is_ending:
            self._flush()
            self._is_ending = True
            self._session_over()
            if self._pauses:
                self._transport.resume_reading()  # or the end of the peer would not be seen
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._host.loop.call_later(CLOSE_S, self._transport.abort)

    def _session_over(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._host.closed(self)
