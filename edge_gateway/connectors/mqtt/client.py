"""A client of a broker that is there already, by paho-mqtt in the gateway's event loop.

The broker hears PUBACK only when the messages are on disk, so what the gateway cannot take stays with the broker: it
sends no more than `max_waiting` (MQTT 5) or its own window (3.1.1). While the gateway is away the session lives on at
the broker and keeps what comes, if the broker is willing. QoS 2 is asked for as QoS 1: paho would confirm it too early.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import threading
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from twisted.logger import Logger

from edge_gateway.connectors.interface import Site
from edge_gateway.connectors.mqtt.downlinks import Downlinks
from edge_gateway.connectors.mqtt.offers import Offer, Offers
from edge_gateway.connectors.mqtt.routes import Routes
from edge_gateway.connectors.mqtt.settings import MqttSettings
from edge_gateway.mapping.amounts import parse_duration, parse_size
from edge_gateway.mapping.interface import MappingError
from edge_gateway.model import Call, CallFailed, Health, Json, Refusal

log = Logger()

CONNECT_S = 10.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 1.0, 60.0
HOUSEKEEPING_S = 1.0
MAX_READ_AT_ONCE = 200  # packets in one turn of the loop
TCP_QUICKACK = getattr(socket, "TCP_QUICKACK", 0)  # Linux: a broker without TCP_NODELAY waits for the system's ACK
MAX_WAITING_QOS0 = 1_000  # messages without acknowledgement beyond which they are dropped: the broker is not told
FIRST_FAILURE = 0x80
UNSUPPORTED_VERSION = 0x84
REMEDIES = {
    0x84: "set version to one that it speaks",
    0x85: "set another client_id",
    0x86: "check username and password",
    0x87: "check username and password, and what the broker allows this user",
}


class Lost(Exception):
    """The connection is over, or never came about; `str()` says why and how to mend it."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class _Message:
    """A message, and the connection to which it is acknowledged."""

    __slots__ = ("connection", "mid", "payload", "qos", "retain", "topic")

    def __init__(self, connection: _Connection, message: Any) -> None:
        self.connection = connection
        self.topic: str = message.topic
        self.payload: bytes = message.payload
        self.qos: int = message.qos
        self.mid: int = message.mid
        self.retain: bool = message.retain


class _Connection:
    """One connection to the broker, from the first byte to the end; `ended` resolves with why."""

    def __init__(self, owner: MqttClient, version: str) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._socket: Any = None  # while the loop watches it; paho forgets it before it closes it
        self._messages = 0
        self.connected: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._published: dict[int, asyncio.Future[int]] = {}
        self._subscribed: dict[int, asyncio.Future[list[int]]] = {}
        self._is_v5 = version == "5"
        self._client = self._make_client(owner.settings)

    def _make_client(self, settings: MqttSettings) -> paho.Client:
        options: dict[str, Any] = {} if self._is_v5 else {"clean_session": False}
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self._owner.client_id,
            protocol=paho.MQTTv5 if self._is_v5 else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
            **options,
        )
        if settings.username:
            client.username_pw_set(settings.username, settings.password or None)
        client.connect_timeout = CONNECT_S
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_socket_open = _send_at_once
        client.on_socket_close = self._detach
        client.on_socket_register_write = self._wants_to_write
        client.on_socket_unregister_write = self._has_written
        return client

    # -- opening --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connects and logs in. Raises: Lost."""
        opened: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._connect, args=(opened,), name="mqtt-connect", daemon=True).start()
        await opened
        self._attach()
        waiting: list[asyncio.Future[Any]] = [self.connected, self.ended]
        await asyncio.wait(waiting, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        if self.connected.done():
            self.connected.result()  # raises Lost
            return
        if self.ended.done():  # some brokers say so that they do not speak the version
            raise Lost(f"{self.ended.result()}, before it accepted us; see the broker's log", UNSUPPORTED_VERSION)
        raise Lost(f"{self._owner.where} does not answer; is it a broker?")

    def _connect(self, opened: asyncio.Future[None]) -> None:
        """In a thread: name, TCP and TLS block in paho."""
        settings, where = self._owner.settings, self._owner.where
        failure: Lost | None = None
        try:
            if self._owner.is_tls:
                self._client.tls_set_context(_tls_context(settings))
                self._client.tls_insecure_set(settings.insecure)
            options: dict[str, Any] = {}
            if self._is_v5:
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                properties.SessionExpiryInterval = round(parse_duration(settings.session_expiry))
                properties.ReceiveMaximum = settings.max_waiting
                properties.MaximumPacketSize = parse_size(settings.max_payload) + 66_000
                options = {"clean_start": False, "properties": properties}
            keep_alive_s = max(5, round(parse_duration(settings.keep_alive)))
            self._client.connect(self._owner.host, self._owner.port, keep_alive_s, **options)
        except ssl.SSLCertVerificationError as error:
            failure = Lost(f"{where} shows a certificate that is not trusted ({error.verify_message}); set ca_file")
        except (OSError, ValueError) as error:
            failure = Lost(f"{where} cannot be reached: {error}; check address, cable and firewall")
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._opened, opened, failure)

    def _opened(self, opened: asyncio.Future[None], failure: Lost | None) -> None:
        if opened.done():  # cancelled meanwhile
            self._close_socket(self._client.socket())
        elif failure is not None:
            opened.set_exception(failure)
        else:
            opened.set_result(None)

    def _attach(self) -> None:
        self._socket = self._client.socket()
        if self._socket is None:
            raise Lost(f"{self._owner.where} closed the connection at once")
        self._loop.add_reader(self._socket, self._read)
        if self._client.want_write():
            self._loop.add_writer(self._socket, self._write)

    # -- the loop -------------------------------------------------------------------------------------

    def _read(self) -> None:
        """What has come, up to a bound: paho reads one packet at a time, and what is offered together is stored and
        sent together."""
        for _ in range(MAX_READ_AT_ONCE):
            before = self._messages
            self._client.loop_read()
            is_more_decrypted = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
            if self._messages == before and not is_more_decrypted:
                break
        if self._socket is not None and TCP_QUICKACK:
            self._socket.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, 1)
        self._owner.push()

    def _write(self) -> None:
        self._client.loop_write()

    def _wants_to_write(self, *_: Any) -> None:
        if self._socket is not None:
            self._loop.add_writer(self._socket, self._write)

    def _has_written(self, *_: Any) -> None:
        if self._socket is not None:
            self._loop.remove_writer(self._socket)

    def _detach(self, *_: Any) -> None:
        """Before the socket is closed: afterwards the loop could not find it any more."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None

    async def serve(self) -> None:
        """Until the connection is over. Raises: Lost."""
        while not self.ended.done():
            await asyncio.wait({self.ended}, timeout=HOUSEKEEPING_S)
            self._client.loop_misc()  # keep-alive: PINGREQ, and the end when nothing answers it
        raise Lost(self.ended.result())

    def close(self) -> None:
        """Ends it, in order when it is connected; fine in any state."""
        if self.connected.done() and not self.connected.cancelled() and self.connected.exception() is None:
            self._client.disconnect()
            self._client.loop_write()
        open_socket = self._socket
        self._detach()
        self._close_socket(open_socket)
        self._end("closed by us")
        self.connected.cancel()

    @staticmethod
    def _close_socket(open_socket: Any) -> None:
        if open_socket is not None:
            open_socket.close()

    def _end(self, text: str) -> None:
        if not self.ended.done():
            self.ended.set_result(text)
        waiting: list[asyncio.Future[Any]] = [*self._published.values(), *self._subscribed.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(CallFailed(f"the connection to the broker was lost: {text}"))
        self._published.clear()
        self._subscribed.clear()

    # -- what paho tells --------------------------------------------------------------------------------

    def _on_connect(self, _client: Any, _userdata: Any, flags: Any, code: Any, _properties: Any) -> None:
        if self.connected.done():
            return
        if code.value >= FIRST_FAILURE:
            remedy = REMEDIES.get(code.value, "see the broker's log")
            where = self._owner.where
            self.connected.set_exception(
                Lost(f"{where} refused the connection: {code} (0x{code.value:02X}); {remedy}", code.value)
            )
        else:
            self.connected.set_result(None)

    def _on_disconnect(self, _client: Any, _userdata: Any, _flags: Any, code: Any, _properties: Any) -> None:
        self._end(f"the connection to {self._owner.where} was lost: {code}")

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        self._messages += 1
        self._owner.take(self, message)

    def _on_publish(self, _client: Any, _userdata: Any, number: int, code: Any, _properties: Any) -> None:
        future = self._published.pop(number, None)
        if future is not None and not future.done():
            future.set_result(code.value)

    def _on_subscribe(self, _client: Any, _userdata: Any, number: int, codes: Any, _properties: Any) -> None:
        future = self._subscribed.pop(number, None)
        if future is not None and not future.done():
            future.set_result([code.value for code in codes])

    # -- what the connector asks --------------------------------------------------------------------------

    def acknowledge(self, message: _Message) -> None:
        """Without effect when the connection is over: the broker sends the message again."""
        if not self.ended.done():
            self._client.ack(message.mid, message.qos)

    async def publish(self, topic: str, payload: bytes, retain: bool) -> None:
        """Returns when the broker has it. Raises: CallFailed."""
        info = self._client.publish(topic, payload, 1, retain)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise CallFailed(f"the broker cannot be told: {paho.error_string(info.rc)}")
        future = self._published[info.mid] = self._loop.create_future()
        try:
            code = await future
        finally:
            self._published.pop(info.mid, None)
        if code >= FIRST_FAILURE:
            raise CallFailed(f"the broker refused the message on {topic} (0x{code:02X})")

    async def subscribe(self, filters: list[str]) -> list[str]:
        """Those that the broker refused. Raises: Lost."""
        wanted: list[Any] = [(one, SubscribeOptions(qos=1, retainHandling=1) if self._is_v5 else 1) for one in filters]
        result, number = self._client.subscribe(wanted)
        if number is None:
            raise Lost(f"{self._owner.where} cannot be asked: {paho.error_string(result)}")
        future = self._subscribed[number] = self._loop.create_future()
        try:
            codes = await asyncio.wait_for(future, CONNECT_S)
        except (CallFailed, TimeoutError) as error:
            raise Lost(f"{self._owner.where} does not answer the subscription") from error
        return [one for one, code in zip(filters, codes, strict=False) if code >= FIRST_FAILURE]


def _send_at_once(_client: Any, _userdata: Any, opened: Any) -> None:
    """Otherwise the system holds a small message back until the broker has acknowledged the one before: 40 ms."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _tls_context(settings: MqttSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.certificate:
        context.load_cert_chain(settings.certificate, settings.private_key or None)
    return context


class MqttClient:
    """As `Connector`."""

    def __init__(self, settings: MqttSettings, site: Site) -> None:
        self.settings = settings
        self.site = site
        address = urlsplit(settings.connect)
        self.host = address.hostname or ""
        self.is_tls = address.scheme == "mqtts"
        self.port = address.port or (8883 if self.is_tls else 1883)
        self.client_id = settings.client_id or f"muster-{socket.gethostname()}-{settings.name}"
        self._routes = Routes(settings.map)
        self._downlinks = Downlinks(self._routes, self._send)
        self._max_payload_bytes = parse_size(settings.max_payload)
        self._connection: _Connection | None = None  # while it is connected
        self._offers: Offers | None = None
        self._is_waiting_for_room = False

    @property
    def where(self) -> str:
        """The broker, for people."""
        return f"broker {self.host}:{self.port}"

    async def run(self) -> None:
        version = "3.1.1" if self.settings.version == "3.1.1" else "5"
        backoff_s = BACKOFF_MIN_S
        while True:
            connection = _Connection(self, version)
            self._offers = Offers(self.site, asyncio.get_running_loop(), self._settled)
            try:
                await connection.open()
                self._connection = connection
                await self._subscribe(connection)
                backoff_s = BACKOFF_MIN_S
                await connection.serve()
            except Lost as lost:
                self.site.health(Health.DEGRADED, str(lost))
                if self.settings.version == "auto" and lost.code == UNSUPPORTED_VERSION:
                    version = "3.1.1" if version == "5" else "5"
            finally:
                self._connection = None
                connection.close()
                self._offers.abandon(lambda message: not message.qos)  # the broker sends the others again
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)

    async def _subscribe(self, connection: _Connection) -> None:
        refused = await connection.subscribe(self._routes.filters())
        if refused:
            text = f"{self.where} refuses the subscription of {', '.join(refused)}; let it allow this user to read them"
            self.site.health(Health.DEGRADED, text)
        else:
            self.site.health(Health.HEALTHY, f"connected to {self.where}")

    # -- what the broker sends -------------------------------------------------------------------------

    def take(self, connection: _Connection, message: Any) -> None:
        """A message, by paho."""
        assert self._offers is not None
        if not message.qos and self._offers.count >= MAX_WAITING_QOS0:
            self.site.reject(message.topic, message.payload, "dropped: too much waits, and QoS 0 cannot be asked again")
            return
        self._offers.add(self._read(_Message(connection, message)))

    def _read(self, message: _Message) -> Offer:
        topic, payload = message.topic, message.payload
        is_reply = self._downlinks.take_reply(topic, payload)
        found = self._routes.find(topic)
        if found is None:
            if not is_reply:
                why = "a reply that no call waits for, or not any more"
                is_known = self._downlinks.is_reply_topic(topic)
                self.site.reject(topic, payload, why if is_known else "no map has a topic that fits; add one")
            return Offer(message)
        if message.retain and self.settings.skip_retained:
            return Offer(message)
        route, captures = found
        try:
            if len(payload) > self._max_payload_bytes:
                raise MappingError(f"the payload has {len(payload)} bytes; max_payload is {self._max_payload_bytes}")
            readings = route.readings(payload, captures, {}, wants_raw=self.site.wants_raw)
        except MappingError as error:
            self.site.reject(topic, payload, str(error))
            readings = error.readings  # what could be read all the same
        self._routes.heard(readings, route, captures)
        return Offer(message, readings)

    def push(self) -> None:
        """Offers what has come. While the gateway has no room nothing is acknowledged, so the broker sends no more."""
        if self._is_waiting_for_room or self._offers is None:
            return
        if self.site.is_congested:
            self._is_waiting_for_room = True
            self.site.when_room(self._has_room)
            return
        self._offers.push()

    def _has_room(self) -> None:
        self._is_waiting_for_room = False
        self.push()

    def _settled(self, offers: list[Offer], refusal: Refusal | None) -> None:
        for offer in offers:
            message: _Message = offer.message
            if refusal is not None and (refusal.retry_after_s is None or not message.qos):
                self.site.reject(message.topic, message.payload, refusal.reason)
            is_final = refusal is None or refusal.retry_after_s is None
            if message.qos and is_final:
                message.connection.acknowledge(message)

    # -- downlinks ---------------------------------------------------------------------------------------

    async def call(self, call: Call) -> Json:
        return await self._downlinks.call(call)

    async def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        await self._downlinks.attributes_changed(device, values, deleted)

    async def _send(self, device: str, topic: str, payload: bytes, retain: bool) -> None:
        if self._connection is None:
            raise CallFailed(f"{device} cannot be reached: {self.where} is not connected")
        await self._connection.publish(topic, payload, retain)
