"""The connection to the core by paho-mqtt, driven by the reactor: no thread but the one that opens the connection.

Looking up the name, TCP and the TLS handshake block in paho, so a thread of its own does them; from then on the reactor
watches the socket and calls paho's `loop_read`, `loop_write` and `loop_misc`. One client serves one connection: paho
would send unacknowledged messages again by itself, and what is sent again, and when, is for the relay to say.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from edge_gateway.model import Credentials
from edge_gateway.settings import Core
from edge_gateway.uplink.interface import Ended, Published, UplinkEvents

log = Logger()

CONNECT_TIMEOUT_S = 10.0
HOUSEKEEPING_S = 1.0
WHOLE_WINDOW = 0  # paho's word for: no limit of its own; the relay keeps the window
DEFAULT_PACKET_BYTES = 268_435_455  # the largest that MQTT can express [MQTT-2.1.4]
DEFAULT_RECEIVE_MAXIMUM = 65_535  # [MQTT-3.1.2.11.3]

# Reason codes of a CONNACK; paho translates those of 3.1.1 into them.
_REFUSALS = {
    0x84: Ended.REFUSED_VERSION,
    0x85: Ended.REFUSED_CREDENTIALS,
    0x86: Ended.REFUSED_CREDENTIALS,
    0x87: Ended.REFUSED_CREDENTIALS,
    0x88: Ended.BUSY,
    0x89: Ended.BUSY,
    0x97: Ended.BUSY,
    0x9F: Ended.BUSY,
}
_VERSIONS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}


@implementer(IReadDescriptor, IWriteDescriptor)
class PahoUplink:
    """One connection, of MQTT `version` "5" or "3.1.1". `credentials` None: a session that can only provision."""

    def __init__(
        self,
        *,
        core: Core,
        credentials: Credentials | None,
        version: str,
        certificate_files: tuple[str, str] = ("", ""),
        reactor: Any,
    ) -> None:
        # `certificate_files`: paths of certificate and key, empty without a certificate. `reactor`: the real one;
        # mypy reads nothing from zope interfaces.
        address = urlsplit(core.url)
        self._host = address.hostname or "127.0.0.1"
        self._is_tls = address.scheme == "mqtts"
        self._port = address.port or (8883 if self._is_tls else 1883)
        self._core = core
        self._reactor = reactor
        self._certificate_files = certificate_files
        self._events: UplinkEvents | None = None
        self._socket: Any = None  # while the reactor watches it; paho forgets it before it closes it
        self._is_connected = False
        self._published: dict[int, Published] = {}
        self._granted: dict[int, Callable[[list[int]], None]] = {}
        self._housekeeping = LoopingCall(self._keep_house)
        self._housekeeping.clock = reactor
        self._client = self._make_client(credentials, version)

    def _make_client(self, credentials: Credentials | None, version: str) -> paho.Client:
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=credentials.client_id if credentials else "",
            protocol=_VERSIONS[version],
            reconnect_on_failure=False,
        )
        if credentials is None:
            client.username_pw_set("provision")
        elif credentials.kind == "ACCESS_TOKEN":
            client.username_pw_set(credentials.token)
        elif credentials.username:
            client.username_pw_set(credentials.username, credentials.password or None)
        client.max_inflight_messages_set(WHOLE_WINDOW)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_publish = self._acknowledged
        client.on_subscribe = self._subscribed
        client.on_socket_open = _send_at_once
        client.on_socket_close = self._detach
        client.on_socket_register_write = self._wants_to_write
        client.on_socket_unregister_write = self._has_written
        return client

    # -- opening ----------------------------------------------------------------------------------

    def open(self, events: UplinkEvents) -> None:
        self._events = events
        threading.Thread(target=self._connect, name="uplink", daemon=True).start()

    def _connect(self) -> None:
        """In its own thread."""
        try:
            if self._is_tls:
                self._client.tls_set_context(self._tls_context())
                self._client.tls_insecure_set(self._core.insecure)
            self._client.connect(self._host, self._port, keepalive=max(5, round(self._core.keep_alive)))
        except ssl.SSLCertVerificationError as error:
            text = f"{self._where} shows a certificate that is not trusted ({error.verify_message}); set [core] ca_file"
            self._reactor.callFromThread(self._end, Ended.UNTRUSTED, text)
        except (OSError, ValueError) as error:
            text = f"{self._where} cannot be reached: {error}"
            self._reactor.callFromThread(self._end, Ended.UNREACHABLE, text)
        except Exception as error:  # whatever it is, the attempt is over, and the next one is made
            log.failure("The connection to {where} failed in an unforeseen way", where=self._where)
            text = f"{self._where} cannot be reached: {type(error).__name__}: {error}"
            self._reactor.callFromThread(self._end, Ended.UNREACHABLE, text)
        else:
            self._reactor.callFromThread(self._attach)

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._core.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._core.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate, key = self._certificate_files
        if certificate:
            context.load_cert_chain(certificate, key)
        return context

    @property
    def _where(self) -> str:
        return f"{self._host}:{self._port}"

    def _attach(self) -> None:
        """The socket is open: from here on the reactor watches it."""
        opened = self._client.socket()
        if self._events is None or opened is None:  # closed meanwhile
            self._close_socket(opened)
            return
        self._socket = opened
        self._reactor.addReader(self)
        if self._client.want_write():
            self._reactor.addWriter(self)
        self._housekeeping.start(HOUSEKEEPING_S, now=False)

    # -- what the reactor asks (IReadDescriptor, IWriteDescriptor) ----------------------------------

    def logPrefix(self) -> str:
        return "uplink"

    def fileno(self) -> int:
        number: int = -1 if self._socket is None else self._socket.fileno()
        return number

    def doRead(self) -> None:
        self._client.loop_read()
        while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            self._client.loop_read()

    def doWrite(self) -> None:
        self._client.loop_write()

    def connectionLost(self, reason: Any) -> None:
        self._end(Ended.LOST, f"the connection to {self._where} was lost: {reason.getErrorMessage()}")

    def _wants_to_write(self, *_: Any) -> None:
        if self._socket is not None:
            self._reactor.addWriter(self)

    def _has_written(self, *_: Any) -> None:
        if self._socket is not None:
            self._reactor.removeWriter(self)

    def _keep_house(self) -> None:
        """Keep-alive: PINGREQ, and the end when nothing answers it."""
        try:
            self._client.loop_misc()
        except Exception as error:
            log.failure("The connection to {where} failed in an unforeseen way", where=self._where)
            self._end(Ended.LOST, f"the connection to {self._where} was lost: {type(error).__name__}: {error}")

    # -- what paho tells --------------------------------------------------------------------------

    def _connected(self, _client: Any, _userdata: Any, _flags: Any, code: Any, properties: Any) -> None:
        if self._events is None:
            return
        if code.value:
            why = _REFUSALS.get(code.value, Ended.LOST)
            self._end(why, f"{self._where} refused the connection: {code} (0x{code.value:02X})")
            return
        self._is_connected = True
        self._events.connected(
            max_packet_bytes=getattr(properties, "MaximumPacketSize", DEFAULT_PACKET_BYTES),
            receive_maximum=getattr(properties, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM),
        )

    def _disconnected(self, _client: Any, _userdata: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.value == 0x8D or "Keep alive" in str(code):
            self._end(Ended.SILENT, f"{self._where} did not answer for {self._core.keep_alive:g} s")
        elif self._is_connected:
            self._end(Ended.LOST, f"the connection to {self._where} was lost: {code}")
        else:
            self._end(Ended.LOST, f"{self._where} closed the connection before it accepted it: {code}")

    def _received(self, _client: Any, _userdata: Any, message: Any) -> None:
        if self._events is not None:
            self._events.received(message.topic, message.payload)

    def _acknowledged(self, _client: Any, _userdata: Any, number: int, code: Any, _properties: Any) -> None:
        published = self._published.pop(number, None)
        if published is not None:
            published(code.value)

    def _subscribed(self, _client: Any, _userdata: Any, number: int, codes: Any, _properties: Any) -> None:
        granted = self._granted.pop(number, None)
        if granted is not None:
            granted([code.value for code in codes])

    # -- what the gateway asks --------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, published: Published | None = None) -> None:
        if self._events is None:
            return
        info = self._client.publish(topic, payload, 1)
        if published is not None:
            self._published[info.mid] = published

    def subscribe(self, topics: list[str], granted: Callable[[list[int]], None]) -> None:
        if self._events is None:
            return
        _, number = self._client.subscribe([(topic, 1) for topic in topics])
        if number is not None:
            self._granted[number] = granted

    def close(self) -> None:
        self._end(Ended.CLOSED, "closed by us")

    def _end(self, why: Ended, text: str) -> None:
        """Tells it once; nothing follows."""
        events, self._events = self._events, None
        if events is None:
            return
        self._published.clear()
        self._granted.clear()
        watched = self._socket
        self._detach()
        if watched is not None:  # later: paho locks itself when it is told to disconnect in one of its callbacks
            self._reactor.callLater(0, self._say_goodbye, watched)
        events.ended(why, text)

    def _detach(self, *_: Any) -> None:
        """Before the socket is closed: afterwards the reactor could not find it any more."""
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            if self._housekeeping.running:
                self._housekeeping.stop()
            self._socket = None

    def _say_goodbye(self, watched: Any) -> None:
        if self._is_connected and self._client.socket() is not None:
            self._client.disconnect()
            self._client.loop_write()
        self._close_socket(watched)

    @staticmethod
    def _close_socket(opened: Any) -> None:
        """Without this a half-open connection would live on until the system gives it up."""
        if opened is not None:
            opened.close()


def _send_at_once(_client: Any, _userdata: Any, opened: Any) -> None:
    """Otherwise the system holds a small message back until the core has acknowledged the one before: 40 ms."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
