"""The beginning of a connection: what a CONNECT may ask, what the CONNACK says, what is kept in between."""

from __future__ import annotations

from dataclasses import dataclass

from shared.mqtt.codes import ConnectReturnCode, Property, ReasonCode
from shared.mqtt.decoding import UnsupportedVersion
from shared.mqtt.encoding import encode
from shared.mqtt.errors import RemoteProtocolError
from shared.mqtt.packets import (
    V5,
    V311,
    Connack,
    Connect,
    Packet,
    Properties,
    Publish,
    Subscribe,
    Unsubscribe,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one connection; sizes in bytes, the rest are counts."""

    max_packet_bytes: int = 67_584  # advertised to v5 clients; includes the fixed header
    max_payload_bytes: int = 65_536
    max_topic_bytes: int = 1_024
    max_queued_before_connack: int = 100
    max_queued_bytes_before_connack: int = 1_048_576  # estimated memory; the peer is not known yet
    receive_maximum: int = 1_000  # unacknowledged messages from a v5 client; on v3 it is 65,535
    max_outbound_inflight: int = 100
    max_outbound_queue: int = 10_000  # a change for each of so many devices behind one gateway
    max_outbound_queue_bytes: int = 4_194_304  # of memory, for messages that wait for room


class RefusedConnect(RemoteProtocolError):
    """A CONNECT that the protocol refuses, whoever the client is; `answer` is the CONNACK."""

    def __init__(self, reason_code: ReasonCode, text: str, answer: Connack, version: int) -> None:
        super().__init__(reason_code, text)
        self.answer = encode(answer, version)


def check_connect(packet: Connect) -> None:
    """Raise RefusedConnect for a CONNECT that needs no credentials to be refused."""
    if packet.version == V311 and not packet.client_id and not packet.clean_start:
        raise RefusedConnect(
            ReasonCode.CLIENT_IDENTIFIER_NOT_VALID,
            "An empty client identifier without a clean session",
            Connack(ConnectReturnCode.IDENTIFIER_REJECTED),
            V311,
        )  # [MQTT-3.1.3-8]
    if Property.AUTHENTICATION_METHOD in (packet.properties or ()):
        raise RefusedConnect(
            ReasonCode.BAD_AUTHENTICATION_METHOD,
            "Enhanced authentication is not supported",
            Connack(ReasonCode.BAD_AUTHENTICATION_METHOD),
            V5,
        )  # [MQTT-4.12.0-1]


def answer_to_connect(error: RemoteProtocolError) -> bytes:
    """The CONNACK for a first packet that broke the protocol; b"" where none is due.

    A level we do not speak is answered in the form its client can read: v5's for later versions, v3's for
    earlier ones and for the private levels of bridges (0x80 above the version), which fall back on it.
    """
    if isinstance(error, RefusedConnect):
        return error.answer
    if not isinstance(error, UnsupportedVersion):
        return b""
    if error.level > V5 and error.level not in (0x83, 0x84):
        return encode(Connack(ReasonCode.UNSUPPORTED_PROTOCOL_VERSION), V5)  # [MQTT-3.1.2-2]
    return encode(Connack(ConnectReturnCode.UNACCEPTABLE_PROTOCOL_VERSION), V311)


def connack_properties(
    limits: Limits, *, assigned_client_id: str | None, keep_alive_s: int | None, wants_session: bool
) -> Properties:
    """What a v5 client must know about us (MQTT 5 section 3.2.2.3); all else has its default."""
    properties: Properties = {
        Property.RECEIVE_MAXIMUM: limits.receive_maximum,
        Property.RETAIN_AVAILABLE: 0,
        Property.MAXIMUM_PACKET_SIZE: limits.max_packet_bytes,
        Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE: 0,
        Property.SHARED_SUBSCRIPTION_AVAILABLE: 0,
    }
    if assigned_client_id is not None:
        properties[Property.ASSIGNED_CLIENT_IDENTIFIER] = assigned_client_id  # [MQTT-3.2.2-16]
    if keep_alive_s is not None:
        properties[Property.SERVER_KEEP_ALIVE] = keep_alive_s  # [MQTT-3.1.2-21]
    if wants_session:
        properties[Property.SESSION_EXPIRY_INTERVAL] = 0  # sessions end with their connection
    return properties


class EarlyPackets:
    """What a client sends before it is accepted, in order and within limits [MQTT-3.1.4-6]."""

    __slots__ = ("_memory_bytes", "packets")

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self._memory_bytes = 0

    def keep(self, packet: Packet, limits: Limits) -> None:
        """Add a packet. Raises RemoteProtocolError beyond the limits."""
        self.packets.append(packet)
        self._memory_bytes += _memory_bytes(packet)
        if (
            len(self.packets) > limits.max_queued_before_connack
            or self._memory_bytes > limits.max_queued_bytes_before_connack
        ):
            raise RemoteProtocolError(ReasonCode.QUOTA_EXCEEDED, "Too much was sent before CONNACK")


def _memory_bytes(packet: Packet) -> int:
    """About how much memory a packet takes: 64 bytes for itself and for each entry of its lists."""
    entries = 1
    if isinstance(packet, Subscribe):
        entries += len(packet.subscriptions)
    elif isinstance(packet, Unsubscribe):
        entries += len(packet.topic_filters)
    for value in (getattr(packet, "properties", None) or {}).values():
        entries += 4 * len(value) if isinstance(value, list) else 1
    return 64 * entries + (len(packet.payload) if isinstance(packet, Publish) else 0)
